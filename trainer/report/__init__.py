"""What one training cycle did and decided, as plain values that survive a trip through JSON.

``trainer.report.render`` turns a ``CycleReport`` into a page for people and a document for programs.
Metrics are shares in 0 … 1; what is undefined or was not measured is None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.promotion import ContestDecision
from cytoloop.domain.types import Method
from trainer.report.changes import (
    ChangeRow,
    Changes,
    ClassMove,
    CorrectedItem,
    ProposalErrors,
    Start,
    change_rows,
    class_moves,
)
from trainer.report.ranking import AuditPoint, ItemWork, ProposalAgreement, audit_point, worth_in_words
from trainer.report.scores import (
    CalibrationScores,
    ClassBoxes,
    ClassCalibration,
    ClassErrors,
    ClassScore,
    ReliabilityPoint,
    VersionScores,
    class_errors,
)
from trainer.report.studies import (
    PAPER_MINUTES,
    BoxedClass,
    BoxedMethod,
    BoxStudy,
    HumanTime,
    RatingStudy,
    Speed,
)

__all__ = [
    "PAPER_MINUTES",
    "AuditPoint",
    "BoxStudy",
    "BoxedClass",
    "BoxedMethod",
    "CalibrationScores",
    "CasePanel",
    "ChangeRow",
    "Changes",
    "ClassBoxes",
    "ClassCalibration",
    "ClassErrors",
    "ClassMove",
    "ClassScore",
    "Contest",
    "ContestClass",
    "CorrectedItem",
    "CurvePoint",
    "CycleReport",
    "Epoch",
    "ExpertWork",
    "HumanTime",
    "ItemWork",
    "LedgerEntry",
    "Outcome",
    "ProposalAgreement",
    "ProposalErrors",
    "Publication",
    "RatingStudy",
    "ReliabilityPoint",
    "SnapshotSummary",
    "SourceShare",
    "Speed",
    "Start",
    "TrainingRun",
    "VersionScores",
    "WorstCase",
    "audit_point",
    "change_rows",
    "class_errors",
    "class_moves",
    "worth_in_words",
]

Outcome = Literal["promoted", "kept", "not-trained", "failed", "cancelled", "rolled-back"]
"""*kept*: a challenger was trained and lost; *not-trained*: there was no reason to train; *cancelled*: somebody
called it off; *rolled-back*: an older version was brought back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWork:
    """What one expert gave since the last cycle."""

    expert: str
    corrections: int
    minutes: float | None
    """Sum of the time items were open in the editor; None where it was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotSummary:
    """What the training runs of this cycle could see."""

    digest: str
    corrections: int
    weak_labels: int
    held_out_items: int = 0
    """Corrected items of the validation, contest and sealed groups: never trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch of one training run."""

    epoch: int
    """From 1."""
    loss: float | None
    validation_loss: float | None = None
    validation_mean_iou: float | None = None
    """On corrected validation items: it alone chooses the epoch."""
    weak_validation: float | None = None
    """Mean IoU with the weak labels of images not learned from: how well the teacher is imitated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceShare:
    """How much of a training run came from weak labels, or from corrections."""

    source: Literal["weak", "corrections"]
    items: int
    weight: float
    """Of a pixel in the loss, 0…1."""
    loss_share: float
    """Share of the gradient, 0…1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One candidate, and how it was trained."""

    version: str
    method: Method
    preset: str
    epochs: tuple[Epoch, ...]
    seconds: float
    chosen_epoch: int | None = None
    """Whose weights were kept: the best on clean validation data."""
    sources: tuple[SourceShare, ...] = ()
    """What taught it; empty in reports older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestClass:
    """One class in the contest."""

    name: str
    iou_challenger: float | None
    iou_active: float | None
    difference: float | None
    is_drop_too_large: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The decision, with the names of the two versions it was about."""

    challenger: str
    active: str
    promote: bool
    reason: str
    mean_iou_challenger: float | None
    mean_iou_active: float | None
    difference: float | None
    lower_bound: float | None
    confidence: float
    groups: int
    items: int
    classes: tuple[ContestClass, ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_decision(cls, decision: ContestDecision, *, challenger: str, active: str) -> Contest:
        """Name the two sides of a decision; NaN becomes None."""
        return cls(
            challenger=challenger,
            active=active,
            promote=decision.promote,
            reason=decision.reason,
            mean_iou_challenger=number_or_none(decision.mean_iou_challenger),
            mean_iou_active=number_or_none(decision.mean_iou_active),
            difference=number_or_none(decision.difference),
            lower_bound=number_or_none(decision.lower_bound),
            confidence=decision.confidence,
            groups=decision.groups,
            items=decision.items,
            classes=tuple(
                ContestClass(
                    name=one.name,
                    iou_challenger=number_or_none(one.iou_challenger),
                    iou_active=number_or_none(one.iou_active),
                    difference=number_or_none(one.difference),
                    is_drop_too_large=one.is_drop_too_large,
                )
                for one in decision.classes
            ),
            left_out=decision.left_out,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A version's predictions, brought into Label Studio."""

    version: str
    tasks: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The learning curve at the end of a cycle: what the experts' time has bought so far."""

    cycle: str
    version: str
    """The version that serves after this cycle."""
    corrections: int
    """Since the beginning."""
    expert_minutes: float
    """Since the beginning."""
    contest_mean_iou: float | None = None
    sealed_mean_iou: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePanel:
    """One picture of a worst case."""

    title: str
    """``image``, ``expert``, ``CIP``, …"""
    picture: str
    """PNG: absolute, or relative to the report's folder."""
    caption: str = ""
    """What it shows or what is wrong in it, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """One item the serving version gets most wrong."""

    image_id: str
    tile: int
    version: str
    mean_iou: float | None
    picture: str | None = None
    """One PNG with all panels; only in reports older than ``panels``."""
    faults: str = ""
    """What is wrong with the mask of ``version``, in words."""
    panels: tuple[CasePanel, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """Time that one step took in this cycle."""

    step: str
    who: Literal["person", "machine"]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """What one cycle did and decided."""

    cycle: str
    assay: str
    started_at: datetime
    finished_at: datetime
    outcome: Outcome
    reason: str
    """One sentence for a human: the contest's, or why nothing was trained, or what failed."""
    active_before: str
    active_after: str
    work: tuple[ExpertWork, ...] = ()
    snapshot: SnapshotSummary | None = None
    runs: tuple[TrainingRun, ...] = ()
    scores: tuple[VersionScores, ...] = ()
    contest: Contest | None = None
    published: Publication | None = None
    curve: tuple[CurvePoint, ...] = ()
    """All cycles so far, oldest first; the first point is CIP at 0 minutes."""
    worst_cases: tuple[WorstCase, ...] = ()
    """Worst first."""
    class_names: tuple[str, ...] = ()
    """By pixel value, background first; empty in reports older than this field."""
    class_colours: Mapping[str, str] = field(default_factory=dict)
    """Drawn classes and the ``#rrggbb`` of their outlines in the pictures of worst cases."""
    ledger: tuple[LedgerEntry, ...] = ()
    corrected: tuple[CorrectedItem, ...] = ()
    """Since the last cycle, and what each changed."""
    proposals: tuple[ProposalErrors, ...] = ()
    """What was wrong with what the experts were shown, by version."""
    audit: tuple[AuditPoint, ...] = ()
    """What the ranking is worth: the cycles so far in which ranked items or items drawn at random were
    corrected, oldest first."""
    calibration: tuple[CalibrationScores, ...] = ()
    rating: RatingStudy | None = None
    boxes: BoxStudy | None = None
    human_times: tuple[HumanTime, ...] = ()
    """Of all work so far."""
    speeds: tuple[Speed, ...] = ()
    notes: tuple[str, ...] = ()
    """What a person should know beside the decision, one sentence each."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON: times in ISO 8601, NaN as None."""
        document: dict[str, Any] = json.loads(_ADAPTER.dump_json(self))
        return document

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> CycleReport:
        """Read back what ``to_dict`` wrote.

        Raises
        ------
        InputError
            Naming the first field that is not as expected.
        """
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"cycle report: {where}: {first['msg']}, got {first['input']!r}") from error


_ADAPTER: TypeAdapter[CycleReport] = TypeAdapter(CycleReport)
