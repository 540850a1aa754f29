"""What experts changed in this cycle, and what was wrong with the proposals they were shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from cytoloop.domain.metrics import CorrectionDelta
from cytoloop.domain.types import Role
from trainer.report.scores import ClassErrors

Start = Literal["prediction", "imported", "blank", "unknown"]
"""What an expert began with: a version's prediction, a mask from elsewhere, an empty canvas, or what can no longer be
told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one correction changed, against what the expert was shown."""

    pixels_added: int
    pixels_removed: int
    pixels_relabelled: int
    pixels_set_aside: int
    """Marked as not looked at."""
    objects_added: int
    objects_removed: int
    objects_relabelled: int
    objects_reshaped: int
    minutes_estimated: float
    """What the fixed effort model gives for these changes."""
    class_to_class: tuple[tuple[int, ...], ...]
    """Pixels by class before (row) and after (column)."""

    @classmethod
    def from_delta(cls, delta: CorrectionDelta) -> Changes:
        """Take the numbers of the report from a full delta."""
        return cls(
            pixels_added=delta.pixels_added,
            pixels_removed=delta.pixels_removed,
            pixels_relabelled=delta.pixels_relabelled,
            pixels_set_aside=delta.pixels_set_aside,
            objects_added=delta.effort.objects_added,
            objects_removed=delta.effort.objects_removed,
            objects_relabelled=delta.effort.objects_relabelled,
            objects_reshaped=delta.effort.objects_reshaped,
            minutes_estimated=delta.effort.minutes,
            class_to_class=tuple(tuple(row) for row in delta.pixels_KK.tolist()),
        )

    @property
    def objects_changed(self) -> int:
        """Objects added, removed, given another class, or reshaped."""
        return self.objects_added + self.objects_removed + self.objects_relabelled + self.objects_reshaped


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedItem:
    """One item an expert corrected since the last cycle."""

    image_id: str
    tile: int
    expert: str
    start: Start
    version: str | None = None
    """Whose prediction was shown; None where none was, or where it is unknown."""
    minutes: float | None = None
    """By the editor's clock; None where it did not tell."""
    changes: Changes | None = None
    """None where the start is unknown."""
    role: Role | None = None
    """What the item was handed out for; None if it never was, and in reports older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalErrors:
    """What was wrong with the predictions of one version that experts corrected."""

    version: str
    items: int
    classes: tuple[ClassErrors, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRow:
    """One figure over the corrected items whose start is known."""

    name: str
    total: float
    median: float
    """Per item."""


_ROWS: tuple[tuple[str, Callable[[Changes], float]], ...] = (
    ("objects added", lambda c: c.objects_added),
    ("objects removed", lambda c: c.objects_removed),
    ("objects given another class", lambda c: c.objects_relabelled),
    ("objects reshaped", lambda c: c.objects_reshaped),
    ("pixels added", lambda c: c.pixels_added),
    ("pixels removed", lambda c: c.pixels_removed),
    ("pixels moved between classes", lambda c: c.pixels_relabelled),
    ("pixels marked as not looked at", lambda c: c.pixels_set_aside),
)


def change_rows(items: Sequence[CorrectedItem]) -> tuple[ChangeRow, ...]:
    """Total and median per item of each kind of change; minutes last. Empty if no start is known.

    Minutes measured and estimated are of the same items: those whose start and time are both known.
    """
    known = [one.changes for one in items if one.changes is not None]
    if not known:
        return ()
    rows = [_row(name, [value(changes) for changes in known]) for name, value in _ROWS]
    timed = [(one.minutes, one.changes) for one in items if one.minutes is not None and one.changes]
    if timed:
        rows.append(_row("minutes in the editor", [minutes for minutes, _ in timed]))
        rows.append(_row("minutes by the effort model", [changes.minutes_estimated for _, changes in timed]))
    return tuple(rows)


def _row(name: str, values: Sequence[float]) -> ChangeRow:
    return ChangeRow(name=name, total=sum(values), median=median(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMove:
    """Pixels that experts took from one class to another."""

    before: str
    after: str
    pixels: int


def class_moves(items: Sequence[CorrectedItem], class_names: Sequence[str]) -> tuple[ClassMove, ...]:
    """Between which classes pixels went, summed over items, most first; ``class_names`` by pixel value."""
    tables = [one.changes.class_to_class for one in items if one.changes is not None]
    moves = [
        ClassMove(before=before, after=after, pixels=sum(table[b][a] for table in tables))
        for b, before in enumerate(class_names)
        for a, after in enumerate(class_names)
        if a != b
    ]
    return tuple(sorted((m for m in moves if m.pixels), key=lambda move: -move.pixels))
