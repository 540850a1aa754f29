"""Light that is not the same everywhere: estimated from a plate, or removed from one image.

Both take it for a second-degree surface in log grey values, where uneven light is a sum and few
numbers cannot follow objects. Legend: C channels, N images, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_triangle

from cytoloop.domain.cip.operators import LEAST_CONTRAST, Float, Mask, shrink
from cytoloop.domain.errors import ShapeError

BLOCK: Final = 8
"""Side of the blocks that are looked at; light varies over hundreds of pixels."""
ROUNDS: Final = 3
"""Background and surface are found in turn; a fourth round changes nothing that matters."""


def estimate_illumination(images_CHW: Iterable[Float], offset: float = 0.0) -> NDArray[np.float32]:
    """Illumination of each channel of one plate, from the background of the plate's own images.

    A median over images would do if cells lay evenly; they lie in colonies, and a plate has few
    fields. So each image gives its background (below its triangle threshold), with a level of its
    own, and one surface is fitted to all of them.

    Parameters
    ----------
    images_CHW : iterable of ndarray of float32, shape (C, H, W)
        Raw grey values; only blocks of 8 x 8 pixels are kept, so a generator over a plate is fine.
    offset : float
        The camera's grey value in the dark, which light does not scale. If it is larger than
        told, the estimate is too flat, but of the right form.

    Returns
    -------
    illumination_CHW : ndarray of float32, shape (C, H, W)
        Factor, > 0, mean 1 per channel.

    Raises
    ------
    ShapeError
        If there is no image, or sizes differ.
    """
    shape: tuple[int, ...] = ()
    blocks: list[Float] = []
    for image_CHW in images_CHW:
        shape = shape or image_CHW.shape
        if image_CHW.ndim != 3 or image_CHW.shape != shape:
            raise ShapeError(f"illumination from {shape} and {image_CHW.shape}, expected equal (C, H, W)")
        blocks.append(np.stack([shrink(channel_HW, BLOCK) for channel_HW in image_CHW]))
    if not blocks:
        raise ShapeError("illumination from no image, expected at least one")
    # One grey value is the least a camera tells apart; it also keeps a dark image's log finite.
    level_NCHW = np.log(np.maximum(np.stack(blocks) - np.float32(offset), 1))
    surfaces = [_shared_surface(level_NCHW[:, channel], shape[1:]) for channel in range(shape[0])]
    return np.stack([factor / factor.mean() for factor in map(np.exp, surfaces)]).astype(np.float32)


def _shared_surface(level_NHW: Float, shape: tuple[int, ...]) -> NDArray[np.floating[Any]]:
    terms = _terms(level_NHW.shape[1:])[1:]  # without the constant: each image has its own
    weights: NDArray[np.floating[Any]] = np.zeros(len(terms))
    for _ in range(ROUNDS):
        surface = np.tensordot(weights, terms, axes=1)
        seen, wanted = [], []
        for level_HW in level_NHW:
            background = _background(level_HW - surface)
            own, values = terms[:, background], level_HW[background]
            seen.append(own - own.mean(axis=1, keepdims=True))
            wanted.append(values - values.mean())
        weights = np.linalg.lstsq(np.concatenate(seen, axis=1).T, np.concatenate(wanted), rcond=None)[0]
    result: NDArray[np.floating[Any]] = np.tensordot(weights, _terms(shape)[1:], axes=1)
    return result


def flatten_background(level_HW: Float, rounds: int) -> NDArray[np.float32]:
    """Subtract a surface fitted to the background of one image, found by the triangle threshold.

    Meant for log grey values, where this removes vignetting. Background and surface are found in
    turn, ``rounds`` times; 0 rounds give the image back. The background ends up near 0.
    """
    if rounds == 0:
        return level_HW
    sample = shrink(level_HW, BLOCK)
    terms = _terms(sample.shape)
    surface: NDArray[np.floating[Any]] = np.zeros_like(sample)
    weights: NDArray[np.floating[Any]] = np.zeros(len(terms))
    for _ in range(rounds):
        background = _background(sample - surface)
        weights = np.linalg.lstsq(terms[:, background].T, sample[background], rcond=None)[0]
        surface = np.tensordot(weights, terms, axes=1)
    flat: NDArray[np.float32] = (level_HW - np.tensordot(weights, _terms(level_HW.shape), axes=1)).astype(
        np.float32
    )
    return flat


def _background(level_HW: NDArray[np.floating[Any]]) -> Mask:
    lowest = float(level_HW.min())
    if np.ptp(level_HW) <= LEAST_CONTRAST:
        return np.ones(level_HW.shape, dtype=bool)
    limit = max(float(threshold_triangle(level_HW)), lowest)
    background: Mask = level_HW <= limit
    return background


def _terms(shape: tuple[int, ...]) -> Float:
    """1, x, y, x², xy, y² at the centres of the pixels of a field from -1 to 1: shape (6, H, W)."""
    y, x = ((2.0 * np.arange(side) + 1.0) / side - 1.0 for side in shape)
    rows, columns = np.meshgrid(y, x, indexing="ij")
    powers = [np.ones(shape), columns, rows, columns**2, rows * columns, rows**2]
    return np.stack(powers).astype(np.float32)
