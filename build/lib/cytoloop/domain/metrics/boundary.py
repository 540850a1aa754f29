"""The boundary F1 (BF) score: do the outlines agree, within a tolerance?

As MATLAB's ``bfscore``, which the source paper used (doi:10.1038/s41598-022-15623-7; the score is
Csurka et al. 2013, doi:10.5244/C.27.32). The paper's equation 6 is plain F1: the tolerance is what
turns it into a boundary score.

The score only asks whether a boundary pixel lies nearer than theta. That is a dilation by a disk, and
a disk is a stack of horizontal runs: a few dozen ``or`` of whole rows, over ten times cheaper than a
distance transform, and exact.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics.pixels import check_pair, mean_ignoring_nan

TOLERANCE_SHARE = 0.0075
"""Of the image diagonal: MATLAB's default."""


def boundary_tolerance(height: int, width: int) -> float:
    """Distance in pixels below which two boundary pixels agree: 0.75 % of the diagonal, not rounded.

    Examples
    --------
    >>> round(boundary_tolerance(512, 680), 2), round(boundary_tolerance(256, 340), 2)
    (6.38, 3.19)
    """
    return TOLERANCE_SHARE * hypot(height, width)


def boundary_of(mask_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of a mask with a neighbour above, below, left or right outside it.

    Outside the image counts as outside the mask, so mask pixels on the image edge are boundary.

    Examples
    --------
    >>> boundary_of(np.ones((3, 4), bool)).astype(int).tolist()
    [[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]]
    """
    inner_HW = np.zeros_like(mask_HW)
    centre = mask_HW[1:-1, 1:-1]
    inner_HW[1:-1, 1:-1] = (
        centre & mask_HW[:-2, 1:-1] & mask_HW[2:, 1:-1] & mask_HW[1:-1, :-2] & mask_HW[1:-1, 2:]
    )
    boundary_HW: NDArray[np.bool_] = mask_HW & ~inner_HW
    return boundary_HW


def nearer_than(points_HW: NDArray[np.bool_], theta: float) -> NDArray[np.bool_]:
    """Where some point lies at a Euclidean distance strictly below ``theta`` pixels.

    Equal to ``distance_transform_edt(~points_HW) < theta``; all False where there are no points.
    """
    near_HW = np.zeros_like(points_HW)
    rows, columns = np.flatnonzero(points_HW.any(axis=1)), np.flatnonzero(points_HW.any(axis=0))
    if rows.size == 0 or theta <= 0:
        return near_HW
    # Crop to where the answer can be True: objects often fill a small part of a tile.
    reach = int(np.ceil(theta))
    window = (
        slice(max(0, int(rows[0]) - reach), int(rows[-1]) + reach + 1),
        slice(max(0, int(columns[0]) - reach), int(columns[-1]) + reach + 1),
    )
    points, near = points_HW[window], near_HW[window]
    height, width = points.shape
    run = points.copy()  # points widened by `half` pixels to the left and to the right
    half = 0
    for dy in range(min(reach, height - 1), -1, -1):
        if not hypot(0, dy) < theta:
            continue
        # Rows further from the centre of the disk have shorter runs, so `run` only ever grows.
        while half + 1 < width and hypot(half + 1, dy) < theta:
            half += 1
            run[:, half:] |= points[:, :-half]
            run[:, :-half] |= points[:, half:]
        near[dy:] |= run[: height - dy]
        if dy:
            near[:-dy] |= run[dy:]
    return near_HW


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BoundaryScores:
    """BF scores of one image, per class; 0 (no outline agrees) … 1 (all do)."""

    bf_K: NDArray[np.float64]
    """NaN where the class is absent from truth or prediction: hides a class that was missed entirely."""
    strict_K: NDArray[np.float64]
    """The same, but 0 where the class is absent on exactly one side; NaN only if absent on both."""

    @property
    def mean_bf(self) -> float:
        """Mean of ``bf_K`` over classes, NaN left out."""
        return float(mean_ignoring_nan(self.bf_K))

    @property
    def mean_strict(self) -> float:
        """Mean of ``strict_K`` over classes, NaN left out."""
        return float(mean_ignoring_nan(self.strict_K))


def boundary_scores(
    truth_HW: NDArray[np.uint8],
    pred_HW: NDArray[np.uint8],
    class_count: int,
    theta: float | None = None,
) -> BoundaryScores:
    """BF score of each class in one image.

    Precision is the share of predicted boundary pixels with a true boundary pixel nearer than theta,
    recall the other way round, the score their harmonic mean (0 if both are 0).

    Where pixels are ignored (255 on either side), the outline there is unknown: boundary pixels in the
    ignored region, or nearer to it than theta, are dropped on both sides before anything is matched. A
    class with no boundary pixel left on a side counts as absent from that side.

    Parameters
    ----------
    truth_HW, pred_HW : ndarray of uint8, shape (H, W)
        Label masks: 0…K-1, or 255 (not looked at).
    class_count : int
        K, background included.
    theta : float, optional
        Tolerance in pixels; by default ``boundary_tolerance(H, W)``.

    Returns
    -------
    BoundaryScores
        Scores in 0 … 1, shape (K,).

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or theta is not positive.
    """
    check_pair(truth_HW, pred_HW)
    if theta is None:
        theta = boundary_tolerance(*truth_HW.shape)
    if not theta > 0:
        raise ShapeError(f"theta is {theta}, expected a positive number of pixels")
    ignored_HW = (truth_HW == IGNORE) | (pred_HW == IGNORE)
    kept_HW = ~nearer_than(ignored_HW, theta) if ignored_HW.any() else None
    bf_K = np.full(class_count, np.nan)
    strict_K = np.full(class_count, np.nan)
    for value in range(class_count):
        truth_edge = boundary_of(truth_HW == value)
        pred_edge = boundary_of(pred_HW == value)
        if kept_HW is not None:
            truth_edge &= kept_HW
            pred_edge &= kept_HW
        in_truth, in_pred = np.count_nonzero(truth_edge), np.count_nonzero(pred_edge)
        if in_truth and in_pred:
            precision = np.count_nonzero(pred_edge & nearer_than(truth_edge, theta)) / in_pred
            recall = np.count_nonzero(truth_edge & nearer_than(pred_edge, theta)) / in_truth
            both = precision + recall
            bf_K[value] = strict_K[value] = 2 * precision * recall / both if both else 0.0
        elif in_truth or in_pred:
            strict_K[value] = 0.0
    return BoundaryScores(bf_K=bf_K, strict_K=strict_K)
