"""Raw grey values -> 8-bit pictures for people; the model never sees these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.errors import ShapeError


def display_ranges(images: Iterable[NDArray[np.floating]], assay: Assay) -> dict[str, tuple[float, float]]:
    """Black and white point by channel name, in grey values, over the given images.

    A fixed range of the assay wins; else the assay's percentiles of every 7th pixel, which is
    exact enough for the eye and 50 times quicker on a plate.
    """
    samples = [image_CHW[:, ::7, ::7].reshape(len(image_CHW), -1) for image_CHW in images]
    if not samples:
        raise ShapeError("display ranges of no image; expected at least one")
    pixels = np.concatenate(samples, axis=1)
    ranges = {}
    for c, channel in enumerate(assay.channels):
        if channel.name in assay.display.ranges:
            ranges[channel.name] = assay.display.ranges[channel.name]
            continue
        low, high = np.percentile(pixels[c], assay.display.percentiles)
        ranges[channel.name] = (float(low), float(max(high, low + 1.0)))
    return ranges


def to_8bit(grey_HW: NDArray[np.floating], low: float, high: float) -> NDArray[np.uint8]:
    """Grey values from ``low`` (black) to ``high`` (white), clipped: uint8 (H, W)."""
    scaled = (grey_HW - low) * (255.0 / (high - low))
    stretched: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return stretched


def composite(
    image_CHW: NDArray[np.floating], ranges: Mapping[str, tuple[float, float]], assay: Assay
) -> NDArray[np.uint8]:
    """All channels in their display colours, added: uint8 (H, W, 3)."""
    picture = np.zeros((*image_CHW.shape[1:], 3), np.float32)
    for grey_HW, channel in zip(image_CHW, assay.channels, strict=True):
        rgb = rgb_of(channel.colour) / np.float32(255)
        picture += to_8bit(grey_HW, *ranges[channel.name])[..., np.newaxis] * rgb
    added: NDArray[np.uint8] = np.minimum(picture, 255).astype(np.uint8)
    return added


def painted(mask_HW: NDArray[np.uint8], assay: Assay) -> NDArray[np.uint8]:
    """A label mask in the assay's colours, background and values of no class black: uint8 (H, W, 3)."""
    colours = np.zeros((IGNORE + 1, 3), np.uint8)
    for value, label in [*assay.foreground, (IGNORE, assay.ignore)]:
        colours[value] = rgb_of(label.colour)
    picture: NDArray[np.uint8] = colours[mask_HW]
    return picture


def outlined(
    picture: NDArray[np.uint8], mask_HW: NDArray[np.uint8], assay: Assay, zoom: int = 1
) -> NDArray[np.uint8]:
    """A picture, enlarged, with the inner outline of every object in its class's colour.

    Parameters
    ----------
    picture : ndarray of uint8, shape (H, W, 3)
    mask_HW : ndarray of uint8, shape (H, W)
        Label mask; where two classes touch, each keeps its own line.
    zoom : int
        Whole factor of the enlargement. The line is one pixel of the enlarged picture wide (two from
        zoom 3 on): on the raw grid it would hide a small object.

    Raises
    ------
    ShapeError
        If the sizes differ.
    """
    if picture.shape != (*mask_HW.shape, 3):
        raise ShapeError(f"outlines: picture {picture.shape}, mask {mask_HW.shape}; expected one size")
    large = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    mask = mask_HW.repeat(zoom, axis=0).repeat(zoom, axis=1)
    inside = np.ones(mask.shape, bool)
    same = np.pad(mask, 1, mode="edge")
    # Lines along the picture's edge would box in everything that is cut off there: not drawn.
    for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inside &= same[rows : rows + mask.shape[0], columns : columns + mask.shape[1]] == mask
    if zoom >= 3:
        wider = np.pad(inside, 1, constant_values=True)
        for rows, columns in ((0, 1), (2, 1), (1, 0), (1, 2)):
            inside = inside & wider[rows : rows + mask.shape[0], columns : columns + mask.shape[1]]
    is_line = ~inside & (mask > 0)
    large[is_line] = painted(mask, assay)[is_line]
    return large


def ring_of(inside_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels outside a region with a neighbour above, below, left or right inside it.

    What the picture's edge cuts off is not closed there.

    Examples
    --------
    >>> ring_of(np.array([[0, 0, 0], [0, 1, 1]], bool)).astype(int).tolist()
    [[0, 1, 1], [1, 0, 0]]
    """
    near_HW = np.zeros_like(inside_HW)
    near_HW[1:] |= inside_HW[:-1]
    near_HW[:-1] |= inside_HW[1:]
    near_HW[:, 1:] |= inside_HW[:, :-1]
    near_HW[:, :-1] |= inside_HW[:, 1:]
    ring_HW: NDArray[np.bool_] = near_HW & ~inside_HW
    return ring_HW


def rgb_of(colour: str) -> NDArray[np.uint8]:
    """Red, green and blue of ``#rrggbb``: uint8 (3,)."""
    return np.frombuffer(bytes.fromhex(colour.lstrip("#")), np.uint8)
