"""What an item looks like, as a vector of unit length: near = alike.

Legend: F features, C channels, K classes, H rows, W columns (coarse where said).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.scoring.look import Slices

CELL = 32
"""Side in pixels of the cells that an image is described by where there is no network."""
WAVES = 128
"""Features of such a cell, F."""
BACKGROUND_SHARE = 0.05
"""Weight of a cell without foreground, beside 1 for one that is all foreground."""

_SPREAD = 1.5
"""How far apart two descriptions must be to look unlike: about three grey levels of double brightness."""
_SHARE_SCALE = 4.0
"""A class that covers 1/16 of a cell moves its description by 1."""


def image_features(
    image_CHW: NDArray[Any], mask_HW: NDArray[np.uint8], class_count: int
) -> NDArray[np.float32]:
    """Describe an image for the time when there is no network: brightness, contrast, sharpness, classes.

    Each cell of 32 x 32 pixels is described by the logarithms (base 2: one step is a doubling) of
    the mean, the standard deviation and the mean step between neighbours of each channel, and by the
    square root of the share of each class. Random Fourier features with a fixed seed (Rahimi and Recht
    2007, "Random features for large-scale kernel machines", NIPS 20) turn these into vectors whose scalar
    product is about exp(-d**2 / 2) of their distance d in units of 1.5: 1 alike, 0 unlike.

    Parameters
    ----------
    image_CHW : ndarray of integer or float, shape (C, H, W)
        Raw grey values >= 0.
    mask_HW : ndarray of uint8, shape (H, W)
        A mask of CIP; 255 counts as no class.
    class_count : int
        K, background included.

    Returns
    -------
    features_FHW : ndarray of float32, shape (128, ceil(H / 32), ceil(W / 32))
        -1 … 1, of unit length on average.
    """
    planes: list[NDArray[np.floating]] = []
    for channel_HW in image_CHW.astype(np.float32):
        step_HW = np.zeros_like(channel_HW)
        step_HW[1:] += np.abs(np.diff(channel_HW, axis=0))
        step_HW[:, 1:] += np.abs(np.diff(channel_HW, axis=1))
        mean = _cells(channel_HW)
        spread = np.sqrt(np.maximum(_cells(channel_HW * channel_HW) - mean * mean, 0))
        planes += [np.log2(1 + np.maximum(part, 0)) for part in (mean, spread, _cells(step_HW))]
    for value in range(1, class_count):
        share = _cells((mask_HW == value).astype(np.float32))
        planes.append(_SHARE_SCALE * np.sqrt(share))
    described = np.stack(planes)
    directions, phases = _waves(len(planes))
    angles = np.tensordot(directions, described, axes=1) + phases[:, None, None]
    return (math.sqrt(2.0 / WAVES) * np.cos(angles)).astype(np.float32)


def pooled(
    features_FHW: NDArray[np.float32], prob_KHW: NDArray[np.floating], tile_slices: Slices
) -> NDArray[np.float32]:
    """Features of one item: the mean over its cells, objects before background, at unit length.

    A cell weighs as its share of foreground plus `BACKGROUND_SHARE`: objects decide where there are any.

    Parameters
    ----------
    features_FHW : ndarray of float32, shape (F, coarse rows, coarse columns)
        Spans the whole image.
    prob_KHW : ndarray of float, shape (K, H, W)
        Of the whole image.
    tile_slices : tuple of slice
        Rows and columns of the item.

    Returns
    -------
    features_F : ndarray of float32, shape (F,)
        Unit length; all 0 where every feature is.
    """
    height, width = prob_KHW.shape[1:]
    rows = _coarse(tile_slices[0], height, features_FHW.shape[1])
    columns = _coarse(tile_slices[1], width, features_FHW.shape[2])
    coarse_FHW = features_FHW[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    foreground_HW = 1.0 - prob_KHW[0][tile_slices]
    weight_HW = BACKGROUND_SHARE + _pooled_to(foreground_HW, (len(rows), len(columns)))
    mean_F = np.einsum("fhw,hw->f", coarse_FHW, weight_HW, dtype=np.float64)
    length = float(np.linalg.norm(mean_F))
    unit_F: NDArray[np.float32] = (mean_F / (length or 1.0)).astype(np.float32)
    return unit_F


def _coarse(part: slice, side: int, cells: int) -> range:
    """Cells of a grid of ``cells`` over ``side`` pixels that a slice of pixels touches."""
    start, stop, _ = part.indices(side)
    return range(start * cells // side, max(start * cells // side + 1, math.ceil(stop * cells / side)))


def _pooled_to(map_HW: NDArray[np.floating], cells: tuple[int, int]) -> NDArray[np.floating]:
    """Means over a grid of so many rows and columns."""
    height, width = map_HW.shape
    if height < cells[0] or width < cells[1]:
        return np.full(cells, float(map_HW.mean()))
    row_starts = np.arange(cells[0]) * height // cells[0]
    column_starts = np.arange(cells[1]) * width // cells[1]
    sums = np.add.reduceat(np.add.reduceat(map_HW, row_starts, axis=0), column_starts, axis=1)
    counts = np.outer(np.diff([*row_starts, height]), np.diff([*column_starts, width]))
    means: NDArray[np.floating] = sums / counts
    return means


def _cells(map_HW: NDArray[np.floating]) -> NDArray[np.floating]:
    height, width = map_HW.shape
    return _pooled_to(map_HW, (math.ceil(height / CELL), math.ceil(width / CELL)))


@functools.cache
def _waves(described: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(20240517)
    directions = rng.normal(scale=1 / _SPREAD, size=(WAVES, described))
    return directions, rng.uniform(0, 2 * np.pi, WAVES)
