"""How sure a mean IoU is, judged over groups: items of a well share cells, staining and focus.

Resampling items one by one would claim more certainty than there is. Two versions are compared on the same
groups (paired), so that hard wells, which are hard for both, cancel out. Reports show intervals of a percentile
bootstrap, which with few groups is somewhat too sure of itself; what decides takes a jackknife with Student's t
(docs/contest.md has both measured).

Legend: S seeds, G groups, K classes, B bootstrap replicates or any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JackknifedGain:
    """Gains in mean IoU, with how far each may be off for the wells that happened to judge."""

    value_B: NDArray[np.float64]
    """Challenger minus active, -1 … 1."""
    error_B: NDArray[np.float64]
    """Standard error; 0 where all groups say the same."""
    groups: int

    def lower_bound(self, alpha: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """One-sided bound that a gain is below with probability ``alpha``, by Student's t with G - 1 degrees."""
        bound_B: NDArray[np.float64] = self.value_B - stats.t.isf(alpha, self.groups - 1) * self.error_B
        return bound_B


def jackknifed_gain(challenger_BGKK: NDArray[Any], active_BGKK: NDArray[Any]) -> JackknifedGain:
    """Gain in mean IoU of one version over another, and its standard error from leaving out one group at a time.

    The gain is that of the summed matrices, so large wells weigh as many pixels as they have. Its error is the
    delete-one jackknife's (Efron & Stein 1981, doi:10.1214/aos/1176345462), taken with Student's t after
    Tukey (Miller 1974, doi:10.1093/biomet/61.1.1). Where one group alone holds a class, leaving that group out
    changes what the mean is over: the error is then large, unless the other classes gained as much.

    Parameters
    ----------
    challenger_BGKK, active_BGKK : ndarray of int, shape (..., G, K, K)
        Summed confusion matrices by group, rows = truth; G >= 2. The truth of a group is the same on both sides.

    Returns
    -------
    JackknifedGain
        Of shape (...): a single comparison has shape ().

    Raises
    ------
    ShapeError
        If the arrays are not of one shape (..., G, K, K).
    InputError
        If there are fewer than two groups: none can be left out.

    Examples
    --------
    >>> active = np.array([[[90, 0], [10, 0]], [[90, 0], [8, 2]], [[90, 0], [6, 4]]])
    >>> gain = jackknifed_gain(active[::-1], active)  # the same pixels in all, from other groups
    >>> float(gain.value_B), bool(gain.lower_bound(0.05) < 0)
    (0.0, True)
    """
    if challenger_BGKK.shape != active_BGKK.shape or active_BGKK.ndim < 3:
        raise ShapeError(
            f"gain: challenger {challenger_BGKK.shape}, active {active_BGKK.shape}; "
            "expected (..., groups, classes, classes) twice"
        )
    group_count = active_BGKK.shape[-3]
    if group_count < 2:
        raise InputError(f"gain: {group_count} group(s), expected at least 2 to leave one out")
    whole_B, without_BG = np.zeros(active_BGKK.shape[:-3]), np.zeros(active_BGKK.shape[:-2])
    for sign, side in ((1.0, challenger_BGKK), (-1.0, active_BGKK)):
        sum_B1KK = side.sum(axis=-3, keepdims=True)  # pixel counts: sums and differences are exact
        whole_B += sign * mean_ignoring_nan(iou_of_present(sum_B1KK))[..., 0]
        without_BG += sign * mean_ignoring_nan(iou_of_present(sum_B1KK - side))
    off_BG = without_BG - without_BG.mean(axis=-1, keepdims=True)
    variance_B = (group_count - 1) / group_count * (off_BG**2).sum(axis=-1)
    return JackknifedGain(value_B=whole_B, error_B=np.sqrt(variance_B), groups=group_count)
