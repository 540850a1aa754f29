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
from cytoloop.domain.types import CycleKind, Method
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
from trainer.report.contest import Contest, ContestClass, PastContest, WellsNeeded, past_contests
from trainer.report.endings import Failure, Handover, KnownVersion, triggers_in_words
from trainer.report.methods import Candidate
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
from trainer.report.wells import WellScore

__all__ = [
    "PAPER_MINUTES",
    "AuditPoint",
    "BoxStudy",
    "BoxedClass",
    "BoxedMethod",
    "CalibrationScores",
    "Candidate",
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
    "Failure",
    "Handover",
    "HumanTime",
    "ItemWork",
    "KnownVersion",
    "LedgerEntry",
    "Outcome",
    "PastContest",
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
    "WellScore",
    "WellsNeeded",
    "WorstCase",
    "audit_point",
    "change_rows",
    "class_errors",
    "class_moves",
    "past_contests",
    "triggers_in_words",
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
    resumed_after: int = 0
    """Epoch after which it was cut off and went on later; 0: it was not."""
    peak_memory_gb: float | None = None
    """Resident, 10⁹ bytes; None where it was not watched."""


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
    kind: CycleKind = "train"
    asked_by: str = ""
    """``schedule``, ``label-studio``, ``cli``, the name of a token…; empty in reports older than this field."""
    why: str = ""
    """What made the cycle due, in words; empty where somebody just asked."""
    work: tuple[ExpertWork, ...] = ()
    snapshot: SnapshotSummary | None = None
    runs: tuple[TrainingRun, ...] = ()
    scores: tuple[VersionScores, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    """The methods side by side: one version of each, and the one in use."""
    contest: Contest | None = None
    contest_needs: WellsNeeded | None = None
    """Where there was too little to judge by."""
    contests: tuple[PastContest, ...] = ()
    """All of the assay so far, oldest first, this one included."""
    failure: Failure | None = None
    handover: Handover | None = None
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
    wells: tuple[WellScore, ...] = ()
    """Every well of the assay's plates; empty where none is known, and in reports older than this field."""
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
