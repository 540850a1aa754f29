"""Class probabilities for what has none of its own: a mask of CIP.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def soften(
    mask_HW: NDArray[np.uint8], class_count: int, confidence_HW: NDArray[np.uint8] | None = None
) -> NDArray[np.float32]:
    """Class probabilities of a mask that has none of its own (CIP): doubtful at edges only.

    A recipe says yes or no. Where it errs, it mostly errs at the rim of objects or loses small
    ones, so a pixel's own class gets 0.55 at an edge, rising to 0.95 four pixels away; the rest is
    shared by the classes next to it. This ranks items by how much rim their objects have.

    Where several teachers voted, the own class gets that share of its votes, so that a pixel is
    doubtful at edges and wherever teachers differ: at least 0.505, since the mask is what is served.

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
    class_count : int
        K, background included.
    confidence_HW : ndarray of uint8, shape (H, W), optional
        Share of the votes of a pixel's own class, 255 = all; None: all everywhere.

    Returns
    -------
    prob_KHW : ndarray of float32, shape (K, H, W)
        Sums to 1 over K; argmax is the mask itself (255 counts as background).
    """
    clean_HW = np.where(mask_HW < class_count, mask_HW, 0)
    onehot_KHW = (np.arange(class_count)[:, None, None] == clean_HW).astype(np.float32)
    near_KHW = np.stack([ndimage.uniform_filter(plane, size=7) for plane in onehot_KHW])
    padded = np.pad(clean_HW, 1, mode="edge")
    edge_HW = np.zeros(clean_HW.shape, bool)
    for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        edge_HW |= shifted != clean_HW
    if not edge_HW.any():
        own_HW = np.full(clean_HW.shape, 0.95, np.float32)
    else:
        distance_HW = ndimage.distance_transform_edt(~edge_HW)
        own_HW = (0.55 + 0.1 * np.minimum(distance_HW, 4.0)).astype(np.float32)
    if confidence_HW is not None:
        own_HW = np.maximum(own_HW * (confidence_HW / np.float32(255)), np.float32(0.505))
    others_KHW = np.clip(near_KHW, 0, 1) * (1 - onehot_KHW) + 1e-3 * (1 - onehot_KHW)
    others_KHW /= others_KHW.sum(axis=0, keepdims=True)
    prob_KHW: NDArray[np.float32] = onehot_KHW * own_HW + others_KHW * (1 - own_HW)
    return prob_KHW.astype(np.float32)
