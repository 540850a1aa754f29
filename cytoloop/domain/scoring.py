"""How much a person's look at an item is worth: higher = ask sooner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import xlogy

from cytoloop.domain.errors import ShapeError

EMPTY_SHARE = 0.0025
"""Foreground mass, as a share of the item, that an item is treated as having at least.

It keeps the score of a nearly empty item near 0: without it two doubtful pixels on a blank field
would outrank a field full of doubtful objects.
"""

DOUBTFUL = 0.35
"""An object is named doubtful when its mean entropy exceeds this share of ln K."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScore:
    """The score of one item and what to tell the expert."""

    score: float
    reason: str


def entropy(prob_KHW: NDArray[np.floating]) -> NDArray[np.floating]:
    """Entropy of the class probabilities of each pixel.

    Parameters
    ----------
    prob_KHW : ndarray of float, shape (K, H, W)
        Sums to 1 over K.

    Returns
    -------
    entropy_HW : ndarray of float, shape (H, W)
        Nats, from 0 (certain) to ln K (no idea).

    Examples
    --------
    >>> round(float(entropy(np.full((2, 1, 1), 0.5))[0, 0]), 4)
    0.6931
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[0] < 2:
        raise ShapeError(f"probabilities of shape {prob_KHW.shape}, expected (K >= 2, H, W)")
    total: NDArray[np.floating] = -xlogy(prob_KHW, prob_KHW).sum(axis=0)
    return total


def foreground_entropy(prob_KHW: NDArray[np.floating]) -> float:
    """Mean entropy where the model sees foreground, so that 95 % background cannot drown it.

    Each pixel weighs as its probability of being foreground, w = 1 - p(background):
    sum(w H) / (sum(w) + 0.0025 H W). Nats, from 0 (certain, or empty) towards ln K.

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W) or holds NaN.
    """
    entropy_HW = entropy(prob_KHW)
    weight_HW = 1.0 - prob_KHW[0]
    score = float((weight_HW * entropy_HW).sum() / (weight_HW.sum() + EMPTY_SHARE * weight_HW.size))
    if not np.isfinite(score):
        raise ShapeError(
            f"probabilities of shape {prob_KHW.shape} give score {score}, expected finite values"
        )
    return score


def score_item(prob_KHW: NDArray[np.floating]) -> ItemScore:
    """Foreground entropy of an item, with the number of doubtful objects in words."""
    mask_HW = prob_KHW.argmax(axis=0)
    labels_HW, objects = ndimage.label(mask_HW > 0)
    score = foreground_entropy(prob_KHW)
    if objects == 0:
        return ItemScore(score=score, reason="no object seen; an empty field, or all of it missed")
    mean = ndimage.mean(entropy(prob_KHW), labels_HW, np.arange(1, objects + 1))
    doubtful = int((np.asarray(mean) > DOUBTFUL * np.log(len(prob_KHW))).sum())
    return ItemScore(score=score, reason=f"{doubtful} of {objects} objects in doubt")


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
