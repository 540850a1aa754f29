"""Intervals of mean IoU by a bootstrap over groups: items of a well share cells, staining and focus.

Resampling items one by one would claim more certainty than there is. Two versions are compared on the same
draws (paired), so that hard wells, which are hard for both, cancel out. With few groups a percentile
bootstrap is somewhat too sure of itself.

Legend: S seeds, G groups, K classes, B bootstrap replicates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.pixels import iou_of, mean_ignoring_nan


def iou_of_present(confusion_BKK: NDArray[Any]) -> NDArray[np.float64]:
    """IoU per class; NaN for classes the truth does not hold, whatever was predicted.

    Such a class would be 0 for a version that predicts it once and undefined for one that does not: one
    stray pixel would move the mean by 1 / K. The stray pixels still count against the class they lie in.
    """
    iou_BK: NDArray[np.float64] = np.where(confusion_BKK.sum(axis=-1) > 0, iou_of(confusion_BKK), np.nan)
    return iou_BK


def draw_groups(group_count: int, replicates: int, seed: int) -> NDArray[np.float64]:
    """How often each group is drawn in each replicate, with replacement: shape (B, G), rows sum to G."""
    shares = np.full(group_count, 1 / group_count)
    rng = np.random.default_rng(seed)
    return rng.multinomial(group_count, shares, size=replicates).astype(np.float64)


def resampled_mean_iou(confusion_GKK: NDArray[Any], times_BG: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean IoU of each replicate, from the summed confusion matrices of the groups it drew: shape (B,)."""
    group_count, class_count, _ = confusion_GKK.shape
    summed_BKK = (times_BG @ confusion_GKK.reshape(group_count, -1)).reshape(-1, class_count, class_count)
    return mean_ignoring_nan(iou_of_present(summed_BKK))


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its two-sided interval."""

    value: float
    low: float
    high: float
    confidence: float = 0.95


def mean_iou_interval(
    confusion_SGKK: NDArray[Any],
    minus_SGKK: NDArray[Any] | None = None,
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean IoU of a method over its seeds, or its paired gain over another method.

    Groups are drawn anew for each replicate, the same for every seed and for both methods; within a
    replicate the mean IoU is taken per seed, then over seeds. The interval says how much the outcome
    depends on the wells that happened to judge; how much it depends on the seed is the spread over seeds.

    Parameters
    ----------
    confusion_SGKK : ndarray of int, shape (S, G, K, K)
        Summed confusion matrices by seed and group, rows = truth.
    minus_SGKK : ndarray of int, shape (S or 1, G, K, K), optional
        The other method's; one without a seed (CIP) has S = 1.

    Returns
    -------
    Interval
        Of the mean IoU (0 … 1), or of the difference (-1 … 1).

    Raises
    ------
    ShapeError
        If the arrays do not belong together.
    InputError
        If there are fewer than two groups: nothing can be resampled.
    """
    sides = [confusion_SGKK] if minus_SGKK is None else [confusion_SGKK, minus_SGKK]
    for side in sides:
        if side.ndim != 4 or side.shape[1:] != confusion_SGKK.shape[1:]:
            raise ShapeError(
                f"intervals: {[s.shape for s in sides]}, expected (S, G, K, K) of the same groups"
            )
    group_count = confusion_SGKK.shape[1]
    if group_count < 2:
        raise InputError(f"intervals: {group_count} group(s), expected at least 2 to draw from")
    drawn_BG = draw_groups(group_count, replicates, seed)
    whole_1G = np.ones((1, group_count))
    value, resampled_B = 0.0, np.zeros(replicates)
    for sign, side in zip((1.0, -1.0), sides, strict=False):
        value += sign * float(np.mean([resampled_mean_iou(one, whole_1G)[0] for one in side]))
        resampled_B += sign * np.mean([resampled_mean_iou(one, drawn_BG) for one in side], axis=0)
    tail = (1.0 - confidence) / 2.0
    low, high = np.nanquantile(resampled_B, (tail, 1.0 - tail))
    return Interval(value=value, low=float(low), high=float(high), confidence=confidence)
