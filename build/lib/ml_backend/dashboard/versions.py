"""Models, the contests they stood, and the cycles they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from cytoloop.adapters.store import Store
from cytoloop.domain.types import HELD_OUT, ModelVersion, Split
from ml_backend.asking import WITHOUT_WEIGHTS
from ml_backend.dashboard import words

MOST_REPORTS = 15
MOST_CONTESTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A row of the table of models."""

    model: ModelVersion
    mean_iou: Mapping[Split, float | None]
    can_serve: bool
    """Whether it may be brought into force: it is not, and its weights are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """A comparison of a challenger with the version in force."""

    challenger: str
    active: str
    promoted: bool
    reason: str
    at: datetime
    cycle: str | None
    """Where it has a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A row of the table of cycles."""

    id: str
    at: datetime
    title: str
    reason: str
    has_report: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What the section on models shows."""

    versions: tuple[Version, ...]
    """Newest first."""
    contests: tuple[Contest, ...]
    """Newest first."""
    previous: str | None
    """The version that going back leads to."""


def versions_of(store: Store, assay: str) -> Versions:
    """Every version of an assay and the latest contests."""
    with_report = {cycle["id"] for cycle in store.cycles.all(assay) if cycle["report"]}
    return Versions(
        versions=tuple(_version(model) for model in reversed(store.models.all(assay))),
        contests=tuple(
            Contest(
                challenger=row["challenger"],
                active=row["active"],
                promoted=bool(row["promoted"]),
                reason=words.sentence(row["reason"]),
                at=datetime.fromisoformat(row["created_at"]),
                cycle=row["cycle_id"] if row["cycle_id"] in with_report else None,
            )
            for row in reversed(store.models.contests(assay)[-MOST_CONTESTS:])
        ),
        previous=store.publications.previous(assay),
    )


def _version(model: ModelVersion) -> Version:
    measured = model.metrics.get("mean_iou", {})
    return Version(
        model=model,
        mean_iou={split: measured.get(split) for split in get_args(Split) if split in HELD_OUT},
        can_serve=model.status != "active" and model.status not in WITHOUT_WEIGHTS,
    )


def ended_cycles(cycles: Sequence[Mapping[str, Any]]) -> tuple[Ended, ...]:
    """The cycles that are over, the latest first."""
    over = [cycle for cycle in cycles if cycle["state"] in ("done", "failed")]
    over.sort(key=lambda cycle: cycle["finished_at"], reverse=True)
    return tuple(
        Ended(
            id=cycle["id"],
            at=datetime.fromisoformat(cycle["finished_at"]),
            title=words.outcome(cycle),
            reason=words.sentence(cycle["reason"] or ""),
            has_report=bool(cycle["report"]),
        )
        for cycle in over[:MOST_REPORTS]
    )
