"""One evaluation of many masks, at three levels: the data set, its classes, its images.

Pixel metrics of the data set and of its classes come from the summed confusion matrix; BF scores are
means over images (doi:10.1038/s41598-022-15623-7, as MATLAB's ``evaluateSemanticSegmentation``). Boxes
and error types are counts, summed over images before any ratio is taken.

Legend: K classes, N images, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.boundary import boundary_scores
from cytoloop.domain.metrics.boxes import BoxScores, no_boxes, object_box_scores
from cytoloop.domain.metrics.error_types import ErrorTypes, no_errors, object_error_types
from cytoloop.domain.metrics.pixels import (
    confusion_matrix,
    mean_ignoring_nan,
    number_or_none,
    pixel_metrics,
)
from cytoloop.domain.objects import seen_objects


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMetrics:
    """One number a metric for all images together; 0 … 1, NaN where undefined."""

    global_accuracy: float
    mean_accuracy: float
    """Accuracy of a class is its recall."""
    mean_iou: float
    weighted_iou: float
    mean_precision: float
    mean_specificity: float
    mean_bf: float
    """Mean over images of the mean over classes, NaN left out in both."""
    mean_bf_strict: float
    """The same with classes that are absent on exactly one side counted 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """One class over all images; 0 … 1, NaN where undefined."""

    name: str
    accuracy: float
    """Recall: share of the true pixels that were found."""
    iou: float
    precision: float
    specificity: float
    mean_bf: float
    """Mean over the images where the class is in truth and prediction."""
    mean_bf_strict: float
    """Mean over the images where the class is in truth or prediction, 0 where in one alone."""
    truth_pixels: int
    pred_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageMetrics:
    """One image (or item) alone; metrics in 0 … 1, NaN where undefined."""

    image: str
    confusion_KK: NDArray[np.int64]
    """Pixels by true (row) and predicted (column) class."""
    global_accuracy: float
    mean_accuracy: float
    mean_iou: float
    weighted_iou: float
    mean_precision: float
    mean_specificity: float
    accuracy_K: NDArray[np.float64]
    iou_K: NDArray[np.float64]
    precision_K: NDArray[np.float64]
    specificity_K: NDArray[np.float64]
    bf_K: NDArray[np.float64]
    bf_strict_K: NDArray[np.float64]
    mean_bf: float
    mean_bf_strict: float
    boxes: BoxScores
    errors: ErrorTypes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """How predicted masks compare with the truth: data set, classes, images."""

    class_names: tuple[str, ...]
    confusion_KK: NDArray[np.int64]
    """Summed over all images; rows = truth."""
    dataset: DatasetMetrics
    classes: tuple[ClassMetrics, ...]
    images: tuple[ImageMetrics, ...]
    boxes: BoxScores
    """Boxes around the objects of both masks, summed over images."""
    errors: ErrorTypes
    """Missed, misclassified, incomplete and invented objects, summed over images."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON; what is undefined is None."""
        return {
            "class_names": list(self.class_names),
            "confusion": self.confusion_KK.tolist(),
            "dataset": _numbers(self.dataset, DATASET_FIELDS),
            "classes": [
                {
                    "name": one.name,
                    **_numbers(one, CLASS_FIELDS),
                    "truth_pixels": one.truth_pixels,
                    "pred_pixels": one.pred_pixels,
                }
                for one in self.classes
            ],
            "boxes": self.boxes.to_dict(self.class_names),
            "errors": self.errors.to_dict(self.class_names),
            "images": [
                {
                    "image": one.image,
                    **_numbers(one, DATASET_FIELDS),
                    **{
                        name: [number_or_none(value) for value in getattr(one, f"{name}_K")]
                        for name in ("accuracy", "iou", "precision", "specificity", "bf", "bf_strict")
                    },
                    "confusion": one.confusion_KK.tolist(),
                    "boxes": one.boxes.to_dict(self.class_names),
                    "errors": one.errors.to_dict(self.class_names),
                }
                for one in self.images
            ],
        }


DATASET_FIELDS = (
    "global_accuracy",
    "mean_accuracy",
    "mean_iou",
    "weighted_iou",
    "mean_precision",
    "mean_specificity",
    "mean_bf",
    "mean_bf_strict",
)
CLASS_FIELDS = ("accuracy", "iou", "precision", "specificity", "mean_bf", "mean_bf_strict")


def _numbers(owner: object, fields: Sequence[str]) -> dict[str, float | None]:
    return {field: number_or_none(getattr(owner, field)) for field in fields}


def evaluate(
    pairs: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]], class_names: Sequence[str]
) -> Evaluation:
    """Judge predicted masks against true ones.

    Parameters
    ----------
    pairs : iterable of (name, truth_HW, pred_HW)
        Label masks uint8 (H, W): 0…K-1, or 255 (not looked at, on either side: not counted). Consumed
        one at a time. The boundary tolerance follows each mask's own size, so pass items as items.
    class_names : sequence of str
        Names by pixel value, background first.

    Returns
    -------
    Evaluation
        Metrics in 0 … 1, NaN where undefined (a class that never occurs).

    Raises
    ------
    InputError
        If there are no pairs.
    ShapeError
        If masks are not comparable; the message names the pair.
    """
    return summarise(
        (judge(name, truth_HW, pred_HW, len(class_names)) for name, truth_HW, pred_HW in pairs), class_names
    )


def judge(
    name: str, truth_HW: NDArray[np.uint8], pred_HW: NDArray[np.uint8], class_count: int
) -> ImageMetrics:
    """Judge one mask; the numbers of several are put together by ``summarise``.

    Raises
    ------
    ShapeError
        If the masks are not comparable; the message names the pair.
    """
    try:
        confusion_KK = confusion_matrix(truth_HW, pred_HW, class_count)
        edges = boundary_scores(truth_HW, pred_HW, class_count)
    except ShapeError as error:
        raise ShapeError(f"{name}: {error}") from error
    ignored_HW = (truth_HW == IGNORE) | (pred_HW == IGNORE)
    truth, pred = seen_objects(truth_HW, ignored_HW), seen_objects(pred_HW, ignored_HW)
    alone = pixel_metrics(confusion_KK)
    return ImageMetrics(
        image=name,
        confusion_KK=confusion_KK,
        global_accuracy=alone.global_accuracy,
        mean_accuracy=alone.mean_accuracy,
        mean_iou=alone.mean_iou,
        weighted_iou=alone.weighted_iou,
        mean_precision=alone.mean_precision,
        mean_specificity=alone.mean_specificity,
        accuracy_K=alone.accuracy_K,
        iou_K=alone.iou_K,
        precision_K=alone.precision_K,
        specificity_K=alone.specificity_K,
        bf_K=edges.bf_K,
        bf_strict_K=edges.strict_K,
        mean_bf=edges.mean_bf,
        mean_bf_strict=edges.mean_strict,
        boxes=object_box_scores(truth, pred, class_count),
        errors=object_error_types(truth, pred, class_count),
    )


def summarise(judged: Iterable[ImageMetrics], class_names: Sequence[str]) -> Evaluation:
    """Put the numbers of single masks together.

    Raises
    ------
    InputError
        If there are none.
    """
    images = tuple(judged)
    if not images:
        raise InputError("nothing to evaluate: got no pairs of masks, expected at least one")
    total_KK: NDArray[np.int64] = np.sum([one.confusion_KK for one in images], axis=0)
    whole = pixel_metrics(total_KK)
    bf_K = mean_ignoring_nan(np.array([one.bf_K for one in images]), axis=0)
    bf_strict_K = mean_ignoring_nan(np.array([one.bf_strict_K for one in images]), axis=0)
    return Evaluation(
        class_names=tuple(class_names),
        confusion_KK=total_KK,
        dataset=DatasetMetrics(
            global_accuracy=whole.global_accuracy,
            mean_accuracy=whole.mean_accuracy,
            mean_iou=whole.mean_iou,
            weighted_iou=whole.weighted_iou,
            mean_precision=whole.mean_precision,
            mean_specificity=whole.mean_specificity,
            mean_bf=float(mean_ignoring_nan(np.array([one.mean_bf for one in images]))),
            mean_bf_strict=float(mean_ignoring_nan(np.array([one.mean_bf_strict for one in images]))),
        ),
        classes=tuple(
            ClassMetrics(
                name=name,
                accuracy=float(whole.accuracy_K[k]),
                iou=float(whole.iou_K[k]),
                precision=float(whole.precision_K[k]),
                specificity=float(whole.specificity_K[k]),
                mean_bf=float(bf_K[k]),
                mean_bf_strict=float(bf_strict_K[k]),
                truth_pixels=int(total_KK[k].sum()),
                pred_pixels=int(total_KK[:, k].sum()),
            )
            for k, name in enumerate(class_names)
        ),
        images=images,
        boxes=sum((one.boxes for one in images), no_boxes(len(class_names))),
        errors=sum((one.errors for one in images), no_errors(len(class_names))),
    )
