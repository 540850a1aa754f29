"""Objects: measures of labels 1…n as arrays of n values (index 0 is label 1), and cuts between objects.

Legend: H rows, W columns. A label of 0 is background and is never measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import expand_labels, watershed

from cytoloop.domain.cip.operators import Float, Labels, Mask, components
from cytoloop.domain.errors import ConfigError, ShapeError

Values = NDArray[np.float64]


def areas(labels_HW: Labels, count: int) -> Values:
    """Pixels of each object, shape (count,)."""
    area: Values = np.bincount(labels_HW.ravel(), minlength=count + 1)[1:].astype(np.float64)
    return area


def means(values_HW: NDArray[Any], labels_HW: Labels, count: int) -> Values:
    """Mean value of each object, shape (count,); of a mask, the share it covers. NaN without pixels."""
    total = np.bincount(labels_HW.ravel(), weights=values_HW.ravel(), minlength=count + 1)[1:]
    area = areas(labels_HW, count)
    result: Values = np.full(count, np.nan)
    np.divide(total, area, out=result, where=area > 0)
    return result


def quantiles(values_HW: NDArray[Any], labels_HW: Labels, count: int, q: float) -> Values:
    """Quantile of the values of each object, linear between ranks as in ``numpy.quantile``.

    Parameters
    ----------
    values_HW : ndarray, shape (H, W)
    labels_HW : ndarray of int, shape (H, W)
        0 background, 1…count objects.
    q : float
        0 (minimum) … 0.5 (median) … 1 (maximum).

    Returns
    -------
    ndarray of float64, shape (count,)
        NaN for labels without a pixel.

    Raises
    ------
    ConfigError
        If q is outside 0…1.
    """
    if not 0 <= q <= 1:
        raise ConfigError(f"quantile {q}, expected 0…1")
    inside = labels_HW > 0
    label, value = labels_HW[inside], values_HW[inside].astype(np.float64)
    value = value[np.lexsort((value, label))]
    area = np.bincount(label, minlength=count + 1)[1:]
    result = np.full(count, np.nan)
    has = area > 0
    rank = q * (area[has] - 1)
    first = (np.cumsum(area) - area)[has]
    low = np.floor(rank).astype(np.intp)
    high = np.ceil(rank).astype(np.intp)
    part = rank - low
    result[has] = value[first + low] * (1 - part) + value[first + high] * part
    return result


def medians(values_HW: NDArray[Any], labels_HW: Labels, count: int) -> Values:
    """Median value of each object, shape (count,); NaN for labels without a pixel."""
    return quantiles(values_HW, labels_HW, count, 0.5)


def ring_outside(labels_HW: Labels, width: float) -> Labels:
    """Background pixels within ``width`` of an object, labelled with the nearest object."""
    grown: Labels = expand_labels(labels_HW, distance=width).astype(np.int32)
    grown[labels_HW > 0] = 0
    return grown


def rim(labels_HW: Labels) -> Labels:
    """Object pixels with one of four neighbours in the image that is not of the same object."""
    on_rim = np.zeros(labels_HW.shape, dtype=bool)
    down = labels_HW[1:] != labels_HW[:-1]
    right = labels_HW[:, 1:] != labels_HW[:, :-1]
    on_rim[1:] |= down
    on_rim[:-1] |= down
    on_rim[:, 1:] |= right
    on_rim[:, :-1] |= right
    return np.where(on_rim, labels_HW, 0).astype(np.int32)


def centre(labels_HW: Labels, count: int) -> Labels:
    """Objects without their rim; one that is all rim (at most two pixels wide) is kept whole."""
    inner = np.where(rim(labels_HW) > 0, 0, labels_HW).astype(np.int32)
    all_rim = np.concatenate([[False], areas(inner, count) == 0])
    return np.where(all_rim[labels_HW], labels_HW, inner).astype(np.int32)


def depth(mask_HW: Mask) -> Float:
    """Euclidean distance of each pixel of the mask to the nearest pixel outside it, in pixels."""
    distance: Float = ndimage.distance_transform_edt(mask_HW).astype(np.float32)
    return distance


def peaks(relief_HW: Float, mask_HW: Mask, min_distance: int) -> Labels:
    """Seeds at the local maxima of a relief, one pixel each.

    Parameters
    ----------
    relief_HW : ndarray of float32, shape (H, W)
        High in the middle of objects: ``depth``, or smoothed grey values.
    mask_HW : ndarray of bool, shape (H, W)
        Where objects are; maxima are sought in each of its components by itself.
    min_distance : int
        At least 1: of two maxima nearer than this (in rows or columns), the lower is left out.

    Returns
    -------
    ndarray of int32, shape (H, W)
        1…n at the seeds, 0 elsewhere; the higher a peak, the lower its number.

    Raises
    ------
    ConfigError
        If the distance is below 1.
    """
    if min_distance < 1:
        raise ConfigError(f"peaks at least {min_distance} pixels apart, expected >= 1")
    parts_HW, _ = components(mask_HW)
    found = peak_local_max(relief_HW, min_distance=min_distance, labels=parts_HW, exclude_border=False)
    seeds_HW = np.zeros(mask_HW.shape, dtype=np.int32)
    seeds_HW[tuple(found.T)] = np.arange(1, len(found) + 1)
    return seeds_HW


def summits(relief_HW: Float, mask_HW: Mask, height: float) -> Labels:
    """Seeds at the h-maxima of a relief: where it rises by ``height`` above every pass to a higher one.

    Unlike ``peaks`` this asks how much a maximum stands out, not how far it is from the next; noise
    lower than ``height`` makes no seed. A summit that is flat is one seed of several pixels.

    Parameters
    ----------
    relief_HW : ndarray of float32, shape (H, W)
        High in the middle of objects: ``depth``, or smoothed grey values.
    mask_HW : ndarray of bool, shape (H, W)
        Where objects are; beyond it the relief counts as lower than anything inside.
    height : float
        In the relief's unit, > 0.

    Returns
    -------
    ndarray of int32, shape (H, W)
        1…n at the seeds, 0 elsewhere; each component of the mask has at least one.

    Raises
    ------
    ConfigError
        If the height is not positive.
    """
    if not height > 0:
        raise ConfigError(f"summits at least {height} high, expected > 0")
    if not mask_HW.any():
        return np.zeros(mask_HW.shape, dtype=np.int32)
    # In double precision, and far below the lowest value: a component's only maximum always counts.
    inside = relief_HW[mask_HW].astype(np.float64)
    below = inside.min() - 2 * height
    ground = np.where(mask_HW, relief_HW.astype(np.float64), below)
    cut = reconstruction(np.maximum(ground - height, below), ground, footprint=np.ones((3, 3)))
    tops = local_maxima(np.pad(cut, 1, constant_values=below), connectivity=2)[1:-1, 1:-1] & mask_HW
    return components(tops)[0]


def split_touching(mask_HW: Mask, relief_HW: Float, seeds_HW: Labels) -> Labels:
    """Cut touching objects apart by watershed: each seed grows downhill until it meets another.

    Parameters
    ----------
    mask_HW : ndarray of bool, shape (H, W)
        What is divided.
    relief_HW : ndarray of float32, shape (H, W)
        ``depth`` cuts at necks, grey values at the dark line between bright objects.
    seeds_HW : ndarray of int32, shape (H, W)
        ``peaks`` or ``summits`` of the relief: 1…n, 0 elsewhere.

    Returns
    -------
    ndarray of int32, shape (H, W)
        0 outside the mask, the seed's number inside. A component without a seed gets a number
        above n and stays whole.

    Raises
    ------
    ShapeError
        If the three differ in shape.
    """
    if not mask_HW.shape == relief_HW.shape == seeds_HW.shape:
        raise ShapeError(
            f"watershed of mask {mask_HW.shape}, relief {relief_HW.shape} and seeds {seeds_HW.shape}: "
            "expected one shape"
        )
    labels_HW: Labels = watershed(-relief_HW, seeds_HW, mask=mask_HW).astype(np.int32)
    left_HW, _ = components(mask_HW & (labels_HW == 0))
    return np.where(left_HW > 0, left_HW + labels_HW.max(), labels_HW).astype(np.int32)


def split_by_seeds(mask_HW: Mask, seeds_HW: Mask) -> Mask:
    """Cut the mask between seeds by watershed of its distance transform; the cut is one pixel wide.

    Parts of the mask that hold no seed stay as they are.
    """
    markers, _ = components(seeds_HW & mask_HW)
    parts = watershed(-depth(mask_HW), markers, mask=mask_HW, watershed_line=True)
    whole, count = components(mask_HW)
    seeded = np.zeros(count + 1, dtype=bool)
    seeded[np.unique(whole[markers > 0])] = True
    unseeded = mask_HW & ~seeded[whole]
    result: Mask = (parts > 0) | unseeded
    return result
