"""Doubt of each pixel: every map is 0 where there is none, and higher = ask sooner.

Legend: P passes (or versions, or augmentations), K classes, H rows, W columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError

_ROUNDING = 1e-3
"""How far a float probability may lie outside 0…1 before it is refused."""
_TINY = np.finfo(np.float32).tiny


def check_prob(prob_KHW: NDArray[np.floating], where: str = "probabilities") -> None:
    """Refuse what is not class probabilities.

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W) with at least one pixel, or a value is NaN, infinite or
        outside 0…1; the message names ``where`` they come from.
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[0] < 2 or prob_KHW.size == 0:
        raise ShapeError(f"{where}: shape {prob_KHW.shape}, expected (K >= 2, H, W)")
    # NaN goes through min and max, so two quick passes find everything.
    low, high = float(prob_KHW.min()), float(prob_KHW.max())
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):
        raise ShapeError(
            f"{where}: shape {prob_KHW.shape} with values {low:g}…{high:g}, expected finite values 0…1"
        )


def check_map(map_HW: NDArray[np.floating], size: tuple[int, ...], where: str) -> None:
    """Refuse a map of pixels that has not ``size`` or is not finite (ShapeError naming ``where``)."""
    if map_HW.shape != size:
        raise ShapeError(f"{where}: shape {map_HW.shape}, expected {size}")
    low, high = (float(map_HW.min()), float(map_HW.max())) if map_HW.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ShapeError(f"{where}: values {low:g}…{high:g}, expected finite values")


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

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W).

    Notes
    -----
    It does not tell why the model is unsure: a pixel that no expert could decide scores as high as one
    that a few more labels would settle. See :func:`mutual_information` for the second kind alone.
    Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x.

    Examples
    --------
    >>> round(float(entropy(np.full((2, 1, 1), 0.5))[0, 0]), 4)
    0.6931
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[0] < 2:
        raise ShapeError(f"probabilities: shape {prob_KHW.shape}, expected (K >= 2, H, W)")
    return _entropy(prob_KHW, axis=0)


def margin(prob_KHW: NDArray[np.floating]) -> NDArray[np.floating]:
    """How close the second most probable class comes to the first: 1 - (p1 - p2).

    Parameters
    ----------
    prob_KHW : ndarray of float, shape (K, H, W)
        Sums to 1 over K.

    Returns
    -------
    margin_HW : ndarray of float, shape (H, W)
        From 0 (one class has it all) to 1 (two classes share the first place).

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W).

    Notes
    -----
    Blind to the other classes: two at 0.5 score as high as all K alike. It rises faster than entropy
    next to certainty, so that faint doubt over many pixels weighs more.
    Scheffer, Decomain and Wrobel 2001, doi:10.1007/3-540-44816-0_31.

    Examples
    --------
    >>> round(float(margin(np.array([0.5, 0.3, 0.2]).reshape(3, 1, 1))[0, 0]), 4)
    0.8
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[0] < 2:
        raise ShapeError(f"probabilities: shape {prob_KHW.shape}, expected (K >= 2, H, W)")
    first_HW = np.maximum(prob_KHW[0], prob_KHW[1])
    second_HW = np.minimum(prob_KHW[0], prob_KHW[1])
    for plane_HW in prob_KHW[2:]:
        second_HW = np.maximum(second_HW, np.minimum(first_HW, plane_HW))
        first_HW = np.maximum(first_HW, plane_HW)
    close_HW: NDArray[np.floating] = 1.0 - (first_HW - second_HW)
    return close_HW


def mutual_information(prob_PKHW: NDArray[np.floating]) -> NDArray[np.floating]:
    """Disagreement between predictions, per pixel: H(mean) - mean H (BALD, arXiv:1112.5745).

    Of stochastic passes (Monte-Carlo dropout, arXiv:1506.02142) it is what the weights do not know and
    labels can teach, without the doubt that lies in the image itself; of the same image flipped and
    turned it is what depends on how the image happened to lie (arXiv:1807.07356). Over equally weighted
    predictions it is their Jensen-Shannon divergence.

    Parameters
    ----------
    prob_PKHW : ndarray of float, shape (P, K, H, W)
        Class probabilities; each pixel of each pass sums to 1 over K.

    Returns
    -------
    information_HW : ndarray of float, shape (H, W)
        Nats, from 0 (all passes agree) to ln min(K, P). Rounding never makes it negative.

    Raises
    ------
    ShapeError
        If the array is not (P >= 2, K >= 2, H, W): one pass cannot disagree with itself.

    Notes
    -----
    Few passes estimate it too low, by about a share 1/P. It says nothing of a mistake that all passes
    make, and a network trained without dropout has none to give.

    Examples
    --------
    >>> float(mutual_information(np.full((2, 2, 1, 1), 0.5))[0, 0])
    0.0
    """
    if prob_PKHW.ndim != 4 or prob_PKHW.shape[0] < 2 or prob_PKHW.shape[1] < 2:
        raise ShapeError(f"passes: shape {prob_PKHW.shape}, expected (P >= 2, K >= 2, H, W)")
    mean_HW = np.zeros(prob_PKHW.shape[2:], prob_PKHW.dtype)
    for prob_KHW in prob_PKHW:  # one at a time: P x K x H x W logarithms would not fit the cache
        mean_HW += _entropy(prob_KHW, axis=0)
    of_mean_HW = _entropy(prob_PKHW.mean(axis=0), axis=0)
    information_HW: NDArray[np.floating] = np.maximum(of_mean_HW - mean_HW / len(prob_PKHW), 0)
    return information_HW


def disagreement(prob_KHW: NDArray[np.floating], cip_HW: NDArray[np.uint8]) -> NDArray[np.floating]:
    """How little the model believes the class that CIP gave: 1 - p(class of CIP).

    A committee of two, one of which learned from other mistakes (query by committee,
    doi:10.1145/130385.130417).

    Parameters
    ----------
    prob_KHW : ndarray of float, shape (K, H, W)
        Sums to 1 over K.
    cip_HW : ndarray of uint8, shape (H, W)
        0 background, 1…K-1 classes, 255 (not looked at): no disagreement.

    Returns
    -------
    disagreement_HW : ndarray of float, shape (H, W)
        From 0 (the model is sure CIP is right) to 1 (sure it is wrong).

    Raises
    ------
    ShapeError
        If the shapes differ, or CIP names a class the model does not know.

    Notes
    -----
    It is high where the model has learned to do better than CIP, too: it finds what changed, not who is
    right. Where both make the same mistake, which weak labels teach, it is 0.
    """
    if prob_KHW.ndim != 3 or cip_HW.shape != prob_KHW.shape[1:]:
        raise ShapeError(
            f"CIP mask {cip_HW.shape}, probabilities {prob_KHW.shape}; expected (H, W), (K, H, W)"
        )
    believed_HW = np.zeros(cip_HW.shape, prob_KHW.dtype)
    believed_HW[cip_HW == IGNORE] = 1.0
    known_HW = cip_HW == IGNORE
    for value, plane_HW in enumerate(prob_KHW):
        is_value_HW = cip_HW == value
        known_HW |= is_value_HW
        np.copyto(believed_HW, plane_HW, where=is_value_HW)
    if not known_HW.all():
        wrong = sorted(int(v) for v in np.unique(cip_HW[~known_HW]))
        raise ShapeError(f"CIP mask: values {wrong}, expected 0…{len(prob_KHW) - 1} or {IGNORE}")
    doubt_HW: NDArray[np.floating] = 1.0 - believed_HW
    return doubt_HW


def _entropy(prob: NDArray[Any], axis: int) -> NDArray[np.floating]:
    """-sum p ln p, with 0 ln 0 = 0; NaN stays NaN."""
    # the logarithm of a clipped array is ten times as quick as scipy's xlogy, and equal
    logarithm = np.maximum(prob, _TINY)
    np.log(logarithm, out=logarithm)
    logarithm *= prob
    total: NDArray[np.floating] = logarithm.sum(axis=axis)
    np.negative(total, out=total)
    np.maximum(total, 0, out=total)
    return total
