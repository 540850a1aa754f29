"""Pixel metrics from one confusion matrix, as the source paper computed them.

Definitions follow MATLAB's ``evaluateSemanticSegmentation``, which the paper used
(doi:10.1038/s41598-022-15623-7). Its text prints accuracy as TP / (TP + TN); the published numbers
are TP / (TP + FN), the recall of a class, and that is what *accuracy* means here.

Legend: K classes, H rows, W columns; B any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError

_VALUES = 256  # of uint8


def confusion_matrix(
    truth_HW: NDArray[np.uint8], pred_HW: NDArray[np.uint8], class_count: int
) -> NDArray[np.int64]:
    """Count pixels by true and predicted class.

    Parameters
    ----------
    truth_HW, pred_HW : ndarray of uint8, shape (H, W)
        Label masks: 0…K-1, or 255 (not looked at). A pixel that is 255 on either side is not counted.
    class_count : int
        K, background included.

    Returns
    -------
    confusion_KK : ndarray of int64, shape (K, K)
        Rows are the truth, columns the prediction. Matrices of several images may be added.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.

    Examples
    --------
    >>> truth = np.array([[0, 0, 1], [1, 255, 0]], np.uint8)
    >>> pred = np.array([[0, 1, 1], [1, 1, 255]], np.uint8)
    >>> confusion_matrix(truth, pred, 2).tolist()
    [[1, 1], [0, 2]]
    """
    check_pair(truth_HW, pred_HW)
    if not 1 <= class_count <= IGNORE:
        raise ShapeError(f"class_count is {class_count}, expected 1…{IGNORE}")
    # One pass counts every pair of byte values: the check for values that are no class comes free.
    pairs = truth_HW.ravel().astype(np.int64)
    pairs *= _VALUES
    pairs += pred_HW.ravel()
    joint = np.bincount(pairs, minlength=_VALUES * _VALUES).reshape(_VALUES, _VALUES)
    for name, counts in (("truth", joint.sum(axis=1)), ("prediction", joint.sum(axis=0))):
        wrong = [int(value) for value in np.flatnonzero(counts[class_count:IGNORE]) + class_count]
        if wrong:
            raise ShapeError(f"{name} holds values {wrong}, expected 0…{class_count - 1} or {IGNORE}")
    confusion_KK: NDArray[np.int64] = joint[:class_count, :class_count].astype(np.int64)
    return confusion_KK


def check_pair(truth_HW: NDArray[Any], pred_HW: NDArray[Any]) -> None:
    """Refuse two arrays that are not label masks of one shape.

    Raises
    ------
    ShapeError
        If one is not uint8 (H, W), or the shapes differ.
    """
    for name, mask in (("truth", truth_HW), ("prediction", pred_HW)):
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ShapeError(f"{name} is {mask.dtype} {mask.shape}, expected uint8 (H, W)")
    if truth_HW.shape != pred_HW.shape:
        raise ShapeError(f"prediction {pred_HW.shape}, truth {truth_HW.shape}: expected one shape")


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    """Divide; 0 / 0 is NaN without a warning, for a class that never occurs is no mistake."""
    top = np.asarray(numerator, np.float64)
    bottom = np.asarray(denominator, np.float64)
    ratio: NDArray[np.float64] = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return ratio


def mean_ignoring_nan(values: NDArray[np.floating[Any]], axis: int = -1) -> NDArray[np.float64]:
    """Mean along an axis over what is not NaN; NaN where nothing is left (and no warning).

    Examples
    --------
    >>> mean_ignoring_nan(np.array([[0.5, np.nan, 1.0], [np.nan, np.nan, np.nan]])).tolist()
    [0.75, nan]
    """
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=axis), known.sum(axis=axis))


def number_or_none(value: float) -> float | None:
    """Return the number as JSON can carry it: NaN and infinities become None.

    Examples
    --------
    >>> number_or_none(0.5), number_or_none(float("nan"))
    (0.5, None)
    """
    return float(value) if isfinite(value) else None


def iou_of(confusion_BKK: NDArray[Any]) -> NDArray[np.float64]:
    """Intersection over union per class: C_kk / (row_k + column_k - C_kk).

    Parameters
    ----------
    confusion_BKK : ndarray, shape (..., K, K)
        Summed confusion matrices, rows = truth; leading axes are kept (bootstrap replicates).

    Returns
    -------
    iou_BK : ndarray of float64, shape (..., K)
        0 (no common pixel) … 1 (identical); NaN for a class in neither truth nor prediction.
    """
    hit_BK = np.diagonal(confusion_BKK, axis1=-2, axis2=-1)
    union_BK = confusion_BKK.sum(axis=-1) + confusion_BKK.sum(axis=-2) - hit_BK
    return _ratio(hit_BK, union_BK)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PixelMetrics:
    """What one summed confusion matrix says; every number is in 0 … 1, NaN where it is undefined."""

    accuracy_K: NDArray[np.float64]
    """C_kk / row_k, the recall of the class; NaN if the truth never holds it."""
    iou_K: NDArray[np.float64]
    """C_kk / (row_k + column_k - C_kk); NaN if neither side holds the class."""
    precision_K: NDArray[np.float64]
    """C_kk / column_k; NaN if the class was never predicted."""
    specificity_K: NDArray[np.float64]
    """TN / (TN + FP); NaN if every counted pixel is of the class."""
    global_accuracy: float
    """Share of counted pixels with the right class; 95 % background makes it look good always."""
    mean_accuracy: float
    """Mean of ``accuracy_K`` over classes, NaN left out."""
    mean_iou: float
    """Mean of ``iou_K`` over classes, NaN left out."""
    mean_precision: float
    """Mean of ``precision_K`` over classes, NaN left out."""
    mean_specificity: float
    """Mean of ``specificity_K`` over classes, NaN left out."""
    weighted_iou: float
    """``iou_K`` weighted by the class's share of true pixels."""


def pixel_metrics(confusion_KK: NDArray[Any]) -> PixelMetrics:
    """Every pixel metric of a (summed) confusion matrix.

    Parameters
    ----------
    confusion_KK : ndarray of int, shape (K, K)
        Pixel counts, rows = truth. Sum the matrices of all images first: the metrics of a data set are
        those of the summed matrix, not means of per-image values.

    Raises
    ------
    ShapeError
        If the matrix is not square.

    Examples
    --------
    >>> found = pixel_metrics(np.array([[8, 2], [1, 4]]))
    >>> [round(float(v), 4) for v in found.iou_K], round(found.global_accuracy, 4)
    ([0.7273, 0.5714], 0.8)
    """
    if confusion_KK.ndim != 2 or confusion_KK.shape[0] != confusion_KK.shape[1]:
        raise ShapeError(f"confusion matrix is {confusion_KK.shape}, expected (K, K)")
    hit_K = np.diagonal(confusion_KK)
    row_K, column_K, total = confusion_KK.sum(axis=1), confusion_KK.sum(axis=0), confusion_KK.sum()
    accuracy_K = _ratio(hit_K, row_K)
    iou_K = iou_of(confusion_KK)
    precision_K = _ratio(hit_K, column_K)
    specificity_K = _ratio(total - row_K - column_K + hit_K, total - row_K)
    # Where row_k is 0 the weight is 0, whatever the IoU: NaN must not take the sum over.
    weighted = float(_ratio(np.where(row_K > 0, row_K * np.nan_to_num(iou_K), 0.0).sum(), total))
    return PixelMetrics(
        accuracy_K=accuracy_K,
        iou_K=iou_K,
        precision_K=precision_K,
        specificity_K=specificity_K,
        global_accuracy=float(_ratio(hit_K.sum(), total)),
        mean_accuracy=float(mean_ignoring_nan(accuracy_K)),
        mean_iou=float(mean_ignoring_nan(iou_K)),
        mean_precision=float(mean_ignoring_nan(precision_K)),
        mean_specificity=float(mean_ignoring_nan(specificity_K)),
        weighted_iou=weighted,
    )
