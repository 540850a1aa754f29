"""What the experts' time has bought: the learning curve of the latest report, and the random-audit baseline.

Reports are written by the trainer. Read here is the JSON that lies in the home, and of it what is shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cytoloop.domain.errors import InputError

FEWEST_ITEMS = 5
"""Of each kind, below which a median tells nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The model in use after one cycle."""

    cycle: str
    version: str
    corrections: int
    expert_minutes: float
    contest_mean_iou: float | None = None
    sealed_mean_iou: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What one item took."""

    minutes: float | None
    objects_changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    work: tuple[_Work, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _AuditPoint:
    ranked: _Kind
    audit: _Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """Of a report what is read here; it holds more."""

    cycle: str
    curve: tuple[CurvePoint, ...]
    audit: tuple[_AuditPoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What items of one kind took, over all cycles; medians, None where nothing was recorded."""

    items: int
    minutes: float | None
    objects_changed: float | None
    objects_per_minute: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """What the section on learning shows."""

    cycle: str
    """Whose report it is from."""
    points: tuple[CurvePoint, ...]
    ranked: Effort
    audit: Effort

    @property
    def verdict(self) -> str:
        """What the ranking is worth, in one sentence; where that cannot be said, why."""
        return _verdict(self.ranked, self.audit)


_ADAPTER: TypeAdapter[_Report] = TypeAdapter(_Report)


def learning_of(home: Path, cycles: Sequence[Mapping[str, Any]]) -> Learning | None:
    """What the latest report of these cycles says; None before the first.

    Raises
    ------
    InputError
        If a report is there and is none.
    """
    for cycle in reversed(cycles):
        path = home / (cycle["report"] or "") / "report.json"
        if cycle["report"] and path.is_file():
            report = _read(path)
            return Learning(
                cycle=report.cycle,
                points=report.curve,
                ranked=_effort([one for point in report.audit for one in point.ranked.work]),
                audit=_effort([one for point in report.audit for one in point.audit.work]),
            )
    return None


def _read(path: Path) -> _Report:
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "document"
        raise InputError(f"{path}: {where}: {first['msg']}; expected the report of a cycle") from error


def _effort(work: Sequence[_Work]) -> Effort:
    timed = [(one.minutes, one.objects_changed) for one in work if one.minutes is not None]
    return Effort(
        items=len(work),
        minutes=_median([minutes for minutes, _ in timed]),
        objects_changed=_median([one.objects_changed for one in work]),
        # an item that was submitted at once has no rate
        objects_per_minute=_median([objects / minutes for minutes, objects in timed if minutes > 0]),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def _verdict(ranked: Effort, audit: Effort) -> str:
    if min(ranked.items, audit.items) < FEWEST_ITEMS:
        return (
            f"Too early to tell what the ranking is worth: {ranked.items} ranked items and {audit.items} drawn at "
            f"random are corrected, {FEWEST_ITEMS} of each are needed."
        )
    if ranked.objects_per_minute is None or audit.objects_per_minute is None:
        return "What the ranking is worth cannot be told: the editor recorded no times."
    return (
        f"A minute of work changed {ranked.objects_per_minute:.1f} objects of an item the ranking chose, and "
        f"{audit.objects_per_minute:.1f} of one drawn at random."
    )
