"""CIP, CDL, MDL and joint side by side: how each does on what it has not learned from, and which one challenged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from cytoloop.domain.metrics import mean_ignoring_nan, number_or_none
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.types import Method, Split
from trainer.report.names import SHORT_NAMES
from trainer.report.scores import VersionScores

if TYPE_CHECKING:  # the report is made of candidates
    from trainer.report import CycleReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One version in the comparison of the methods."""

    version: str
    method: Method
    validation_mean_iou: float | None
    """None where no validation item was corrected."""
    is_challenger: bool = False
    is_active: bool = False
    """In use when the methods were compared."""
    is_new: bool = False
    """Trained in this cycle."""
    made_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """What the table and the figure of the methods show of one version; mean IoU over classes that are there."""

    candidate: Candidate
    validation: float | None
    contest: float | None
    sealed: float | None
    worst_class: str
    """The class it does worst in, on the split named below; empty where nothing was measured."""
    worst_iou: float | None
    worst_split: Split | None


def method_rows(report: CycleReport) -> tuple[MethodRow, ...]:
    """A row a version, in the order of the comparison."""
    return tuple(_row(report, one) for one in report.candidates)


def _row(report: CycleReport, candidate: Candidate) -> MethodRow:
    scores = {one.split: one for one in report.scores if one.version == candidate.version}
    contest = report.contest
    if contest is not None and candidate.version == contest.challenger:
        on_contest = contest.mean_iou_challenger
    elif contest is not None and candidate.version == contest.active:
        on_contest = contest.mean_iou_active
    else:
        on_contest = mean_iou_of_present(scores.get("contest"))
    worst_split = next((split for split in _WORST_ON if split in scores), None)
    name, iou = ("", None) if worst_split is None else worst_class(scores[worst_split])
    return MethodRow(
        candidate=candidate,
        validation=candidate.validation_mean_iou,
        contest=on_contest,
        sealed=mean_iou_of_present(scores.get("sealed")),
        worst_class=name,
        worst_iou=iou,
        worst_split=worst_split,
    )


_WORST_ON: Sequence[Split] = ("contest", "sealed", "validation")


def mean_iou_of_present(scores: VersionScores | None) -> float | None:
    """Mean IoU over the classes the truth holds, as the contest counts; of old reports, over all that were given."""
    if scores is None or not scores.confusion:
        return None if scores is None else scores.mean_iou
    return number_or_none(float(mean_ignoring_nan(iou_of_present(np.array(scores.confusion)))))


def worst_class(scores: VersionScores) -> tuple[str, float | None]:
    """The class of the lowest IoU among those the truth holds; no name where none is known."""
    held = [True] * len(scores.classes)
    if scores.confusion:
        held = [sum(row) > 0 for row in scores.confusion]
    known = [
        (one.iou, one.name)
        for one, is_held in zip(scores.classes, held, strict=True)
        if is_held and one.iou is not None and isfinite(one.iou)
    ]
    if not known:
        return "", None
    iou, name = min(known)
    return name, iou


def choice_in_words(report: CycleReport) -> str:
    """One sentence on how the challenger was chosen, or why there was none; empty where nothing was compared."""
    if not report.candidates:
        return ""
    challenger = next((one for one in report.candidates if one.is_challenger), None)
    if challenger is None:
        if report.outcome == "kept":
            return "No candidate does better on the validation items than the model in use, so no contest was held."
        return (
            "No new model waited for a contest; the methods are shown as they do on the corrections of today."
        )
    name = SHORT_NAMES[challenger.method]
    if challenger.validation_mean_iou is None:
        return (
            f"No validation item is corrected yet, so {name} met the model in use on the contest items as the newest "
            "candidate."
        )
    told = (
        f"{name} is the best candidate on the validation items (mean IoU {challenger.validation_mean_iou:.3f}), so it "
        "met the model in use on the contest items."
    )
    active = next((one for one in report.candidates if one.is_active), None)
    if (
        active is not None
        and active.validation_mean_iou is not None
        and active.validation_mean_iou >= challenger.validation_mean_iou
    ):
        told += (
            f" The model in use does as well or better there ({active.validation_mean_iou:.3f}), but on too few wells to "
            "keep a candidate from the contest."
        )
    return told
