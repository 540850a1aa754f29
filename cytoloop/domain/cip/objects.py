"""Measures per object: labels 1…n in, arrays of n values out (index 0 is label 1).

Legend: H rows, W columns. A label of 0 is background and is never measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import expand_labels, watershed

from cytoloop.domain.cip.operators import Labels, Mask, components
from cytoloop.domain.errors import ConfigError

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


def split_by_seeds(mask_HW: Mask, seeds_HW: Mask) -> Mask:
    """Cut the mask between seeds by watershed of its distance transform; the cut is one pixel wide.

    Parts of the mask that hold no seed stay as they are.
    """
    markers, _ = components(seeds_HW & mask_HW)
    depth = ndimage.distance_transform_edt(mask_HW)
    parts = watershed(-depth, markers, mask=mask_HW, watershed_line=True)
    whole, count = components(mask_HW)
    seeded = np.zeros(count + 1, dtype=bool)
    seeded[np.unique(whole[markers > 0])] = True
    unseeded = mask_HW & ~seeded[whole]
    result: Mask = (parts > 0) | unseeded
    return result
