"""From pixels to one number an item, for items that are 95 % background.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.scoring.maps import entropy

EMPTY_SHARE = 0.0025
"""Foreground mass, as a share of the item, that an item is treated as having at least.

It keeps the score of a nearly empty item near 0: without it two doubtful pixels on a blank field
would outrank a field full of doubtful objects.
"""


def foreground_weight(
    prob_KHW: NDArray[np.floating], cip_HW: NDArray[np.uint8] | None = None
) -> NDArray[np.floating]:
    """Weight of each pixel: its probability of being foreground, 1 - p(background).

    At the rim of an object that is about a half, so boundaries count; an unbroken background counts
    next to nothing. With a CIP mask, its objects weigh 1 as well.

    Returns
    -------
    weight_HW : ndarray of float, shape (H, W)
        0 (background) … 1 (foreground).
    """
    weight_HW: NDArray[np.floating] = 1.0 - prob_KHW[0]
    if cip_HW is not None:
        weight_HW = np.where((cip_HW > 0) & (cip_HW != IGNORE), weight_HW.dtype.type(1), weight_HW)
        weight_HW = np.where(cip_HW == IGNORE, weight_HW.dtype.type(0), weight_HW)
    return weight_HW


def foreground_mean(map_HW: NDArray[np.floating], weight_HW: NDArray[np.floating]) -> float:
    """Mean of a map where there is foreground: sum(w m) / (sum(w) + 0.0025 H W).

    Returns
    -------
    float
        In the unit of the map, from 0 (no doubt, or an empty item) towards the map's maximum.

    Raises
    ------
    ShapeError
        If the outcome is not finite.
    """
    total = float(np.einsum("hw,hw->", weight_HW, map_HW, dtype=np.float64))
    score = total / (float(weight_HW.sum(dtype=np.float64)) + EMPTY_SHARE * weight_HW.size)
    if not np.isfinite(score):
        raise ShapeError(f"map of shape {map_HW.shape} gives score {score}, expected finite values")
    return score


def foreground_entropy(prob_KHW: NDArray[np.floating]) -> float:
    """Mean entropy where the model sees foreground, so that 95 % background cannot drown it.

    Each pixel weighs as its probability of being foreground, w = 1 - p(background):
    sum(w H) / (sum(w) + 0.0025 H W). Nats, from 0 (certain, or empty) towards ln K.

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W) or holds NaN.
    """
    return foreground_mean(entropy(prob_KHW), foreground_weight(prob_KHW))
