"""One evaluation of many masks, at three levels: the data set, its classes, its images.

Pixel metrics of the data set and of its classes come from the summed confusion matrix; BF scores are
means over images (doi:10.1038/s41598-022-15623-7, as MATLAB's ``evaluateSemanticSegmentation``).

Legend: K classes, N images, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.boundary import boundary_scores
from cytoloop.domain.metrics.pixels import confusion_matrix, mean_ignoring_nan, pixel_metrics


def number_or_none(value: float) -> float | None:
    """Return the number as JSON can carry it: NaN and infinities become None.

    Examples
    --------
    >>> number_or_none(0.5), number_or_none(float("nan"))
    (0.5, None)
    """
    return float(value) if isfinite(value) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetMetrics:
    """One number a metric for all images together; 0 … 1, NaN where undefined."""

    global_accuracy: float
    mean_accuracy: float
    mean_iou: float
    weighted_iou: float
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
    """One image (or item) alone."""

    image: str
    confusion_KK: NDArray[np.int64]
    """Pixels by true (row) and predicted (column) class."""
    global_accuracy: float
    mean_accuracy: float
    mean_iou: float
    weighted_iou: float
    iou_K: NDArray[np.float64]
    bf_K: NDArray[np.float64]
    mean_bf: float
    mean_bf_strict: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """How predicted masks compare with the truth: data set, classes, images."""

    class_names: tuple[str, ...]
    confusion_KK: NDArray[np.int64]
    """Summed over all images; rows = truth."""
    dataset: DatasetMetrics
    classes: tuple[ClassMetrics, ...]
    images: tuple[ImageMetrics, ...]

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
            "images": [
                {
                    "image": one.image,
                    **_numbers(one, DATASET_FIELDS),
                    "iou": [number_or_none(v) for v in one.iou_K],
                    "bf": [number_or_none(v) for v in one.bf_K],
                    "confusion": one.confusion_KK.tolist(),
                }
                for one in self.images
            ],
        }


DATASET_FIELDS = (
    "global_accuracy",
    "mean_accuracy",
    "mean_iou",
    "weighted_iou",
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
    class_count = len(class_names)
    images: list[ImageMetrics] = []
    strict_NK: list[NDArray[np.float64]] = []
    for name, truth_HW, pred_HW in pairs:
        try:
            confusion_KK = confusion_matrix(truth_HW, pred_HW, class_count)
            edges = boundary_scores(truth_HW, pred_HW, class_count)
        except ShapeError as error:
            raise ShapeError(f"{name}: {error}") from error
        alone = pixel_metrics(confusion_KK)
        strict_NK.append(edges.strict_K)
        images.append(
            ImageMetrics(
                image=name,
                confusion_KK=confusion_KK,
                global_accuracy=alone.global_accuracy,
                mean_accuracy=alone.mean_accuracy,
                mean_iou=alone.mean_iou,
                weighted_iou=alone.weighted_iou,
                iou_K=alone.iou_K,
                bf_K=edges.bf_K,
                mean_bf=edges.mean_bf,
                mean_bf_strict=edges.mean_strict,
            )
        )
    if not images:
        raise InputError("nothing to evaluate: got no pairs of masks, expected at least one")
    total_KK: NDArray[np.int64] = np.sum([one.confusion_KK for one in images], axis=0)
    whole = pixel_metrics(total_KK)
    bf_K = mean_ignoring_nan(np.array([one.bf_K for one in images]), axis=0)
    bf_strict_K = mean_ignoring_nan(np.array(strict_NK), axis=0)
    return Evaluation(
        class_names=tuple(class_names),
        confusion_KK=total_KK,
        dataset=DatasetMetrics(
            global_accuracy=whole.global_accuracy,
            mean_accuracy=whole.mean_accuracy,
            mean_iou=whole.mean_iou,
            weighted_iou=whole.weighted_iou,
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
        images=tuple(images),
    )
