"""What was measured of one version on the items of one split, as plain values.

Metrics are shares in 0 … 1; what is undefined or was not measured is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cytoloop.domain.metrics import (
    BoxCounts,
    Calibration,
    ErrorTypes,
    Evaluation,
    ReliabilityBin,
    number_or_none,
)
from cytoloop.domain.types import Method, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """One class of one version on one split."""

    name: str
    iou: float | None
    accuracy: float | None
    bf: float | None
    """Items in which the class is missing on one side are left out."""
    bf_strict: float | None = None
    """The same items count 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassBoxes:
    """Boxes of one class: around the experts' objects and around the predicted ones."""

    name: str
    counts: BoxCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassErrors:
    """Objects of one class by what became of them: the paper's three types of error, and a fourth."""

    name: str
    truth: int
    """Objects the experts drew: right + incomplete + misclassified + missed."""
    right: int
    incomplete: int
    misclassified: int
    missed: int
    invented: int
    """Predicted objects where the experts drew none."""


def class_errors(errors: ErrorTypes, class_names: Sequence[str]) -> tuple[ClassErrors, ...]:
    """Error types by drawn class; ``class_names`` by pixel value, background first."""
    return tuple(
        ClassErrors(
            name=name,
            truth=int(errors.truth_K[value]),
            right=int(errors.right_K[value]),
            incomplete=int(errors.incomplete_K[value]),
            misclassified=int(errors.misclassified_K[value]),
            missed=int(errors.missed_K[value]),
            invented=int(errors.invented_K[value]),
        )
        for value, name in enumerate(class_names)
        if value
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionScores:
    """One version on the items of one split."""

    version: str
    method: Method
    split: Split
    items: int
    mean_iou: float | None
    mean_accuracy: float | None
    mean_bf: float | None
    classes: tuple[ClassScore, ...] = ()
    mean_bf_strict: float | None = None
    global_accuracy: float | None = None
    weighted_iou: float | None = None
    confusion: tuple[tuple[int, ...], ...] = ()
    """Pixels by true (row) and predicted (column) class, in the order of ``classes``."""
    boxes: tuple[ClassBoxes, ...] = ()
    """Of the drawn classes, summed over items."""
    errors: tuple[ClassErrors, ...] = ()
    """Of the drawn classes, summed over items."""

    @classmethod
    def from_evaluation(
        cls, evaluation: Evaluation, *, version: str, method: Method, split: Split
    ) -> VersionScores:
        """Take the numbers of the report from a full evaluation."""
        whole, names = evaluation.dataset, evaluation.class_names
        return cls(
            version=version,
            method=method,
            split=split,
            items=len(evaluation.images),
            mean_iou=number_or_none(whole.mean_iou),
            mean_accuracy=number_or_none(whole.mean_accuracy),
            mean_bf=number_or_none(whole.mean_bf),
            mean_bf_strict=number_or_none(whole.mean_bf_strict),
            global_accuracy=number_or_none(whole.global_accuracy),
            weighted_iou=number_or_none(whole.weighted_iou),
            classes=tuple(
                ClassScore(
                    name=one.name,
                    iou=number_or_none(one.iou),
                    accuracy=number_or_none(one.accuracy),
                    bf=number_or_none(one.mean_bf),
                    bf_strict=number_or_none(one.mean_bf_strict),
                )
                for one in evaluation.classes
            ),
            confusion=tuple(tuple(row) for row in evaluation.confusion_KK.tolist()),
            boxes=tuple(
                ClassBoxes(name=name, counts=counts)
                for name, counts in zip(names[1:], evaluation.boxes.classes, strict=True)
            ),
            errors=class_errors(evaluation.errors, names),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityPoint:
    """Pixels of about the same confidence: how sure the model was, how often it was right."""

    lower: float
    upper: float
    """Confidences in (lower, upper]."""
    pixels: int
    confidence: float | None
    """Their mean; None without pixels."""
    accuracy: float | None
    """Share of them that are right; None without pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCalibration:
    """Pixels that a model gave to one class."""

    name: str
    ece: float | None
    """Expected calibration error: 0 (as often right as it is sure) … 1; None for a class never given."""
    points: tuple[ReliabilityPoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationScores:
    """Whether a model may be believed when it says how sure it is."""

    version: str
    method: Method
    splits: tuple[Split, ...]
    """Whose items it was measured on, all together."""
    foreground_ece: float | None
    """Of all pixels given to a class other than background, which would else drown them."""
    classes: tuple[ClassCalibration, ...]
    foreground: tuple[ReliabilityPoint, ...] = ()

    @classmethod
    def from_calibration(
        cls,
        calibration: Calibration,
        class_names: Sequence[str],
        *,
        version: str,
        method: Method,
        splits: tuple[Split, ...],
    ) -> CalibrationScores:
        """Take the numbers of the report from the sums over items."""
        return cls(
            version=version,
            method=method,
            splits=splits,
            foreground_ece=number_or_none(calibration.foreground_ece),
            classes=tuple(
                ClassCalibration(
                    name=name,
                    ece=number_or_none(float(calibration.class_ece_K[value])),
                    points=_points(calibration.reliability(slice(value, value + 1))),
                )
                for value, name in enumerate(class_names)
            ),
            foreground=_points(calibration.reliability(slice(1, None))),
        )


def _points(bins: Sequence[ReliabilityBin]) -> tuple[ReliabilityPoint, ...]:
    return tuple(
        ReliabilityPoint(
            lower=one.lower,
            upper=one.upper,
            pixels=one.pixels,
            confidence=number_or_none(one.confidence),
            accuracy=number_or_none(one.accuracy),
        )
        for one in bins
    )
