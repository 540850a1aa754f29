"""Pictures of one item: as imaged, with outlines, with doubt. PNG, because they are pixels.

Legend: H rows, W columns of an item.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageColor

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import boundary_of
from trainer.report.figures.plots import DOUBT_COLOURS

_TARGET = 480  # pixels: small items are enlarged, large images thinned, to about this width

_Scalar = TypeVar("_Scalar", bound=np.generic)


def image_panel(composite_HW3: NDArray[np.uint8]) -> bytes:
    """PNG of an item as the editor shows it.

    Parameters
    ----------
    composite_HW3 : ndarray of uint8, shape (H, W, 3)
        RGB.

    Returns
    -------
    bytes
        PNG; items narrower than about 480 px are enlarged by a whole number, wider ones thinned.

    Raises
    ------
    ShapeError
        If it is not a picture.
    """
    _check_picture(composite_HW3)
    return _png(_fit(composite_HW3))


def outline_panel(
    composite_HW3: NDArray[np.uint8],
    mask_HW: NDArray[np.uint8],
    unseen_HW: NDArray[np.bool_],
    colours: Sequence[str],
) -> bytes:
    """PNG of the dimmed item with the outlines of one mask, as large as ``image_panel``.

    Outlines run just outside the objects, so that no pixel of an object is hidden.

    Parameters
    ----------
    composite_HW3 : ndarray of uint8, shape (H, W, 3)
        The item as the editor shows it, RGB.
    mask_HW : ndarray of uint8, shape (H, W)
        Label mask: 0…K-1, or 255.
    unseen_HW : ndarray of bool, shape (H, W)
        What nobody looked at, greyed.
    colours : sequence of str
        ``#rrggbb`` by pixel value; the background's is not used.

    Raises
    ------
    ShapeError
        If they do not have the same rows and columns.
    """
    _check_picture(composite_HW3)
    for name, array in (("mask", mask_HW), ("unseen", unseen_HW)):
        if array.shape != composite_HW3.shape[:2]:
            raise ShapeError(f"{name} {array.shape}, image {composite_HW3.shape[:2]}: expected one shape")
    panel = (_fit(composite_HW3) * 0.6).astype(np.uint8)  # dimmed, so that outlines stand out
    unseen = _fit(unseen_HW | (mask_HW == IGNORE))
    panel[unseen] = panel[unseen] // 2 + 90
    labels = _fit(mask_HW)
    for value, colour in tuple(enumerate(colours))[1:]:
        # The boundary of everything else, seen from the object: the ring around it. Padding keeps
        # the picture's own edge from being taken for a boundary.
        outside = np.pad(labels != value, 1, mode="edge")
        ring = boundary_of(outside)[1:-1, 1:-1] & (labels != value)
        panel[ring] = ImageColor.getrgb(colour)[:3]
    return _png(panel)


def doubt_panel(doubt_HW: NDArray[np.floating[Any]]) -> bytes:
    """PNG of how unsure a version is, pixel by pixel, as large as ``image_panel``.

    Parameters
    ----------
    doubt_HW : ndarray of float, shape (H, W)
        0 (sure) … 1 (no idea); the colours are those of ``doubt_scale``.

    Raises
    ------
    ShapeError
        If it is not (H, W) or not within 0 … 1.
    """
    if doubt_HW.ndim != 2 or not ((doubt_HW >= 0) & (doubt_HW <= 1)).all():
        raise ShapeError(f"doubt of shape {doubt_HW.shape}, expected (H, W) with values 0…1")
    colours: NDArray[np.uint8] = colormaps[DOUBT_COLOURS](_fit(doubt_HW), bytes=True)[..., :3]
    return _png(colours)


def _check_picture(composite_HW3: NDArray[np.uint8]) -> None:
    if composite_HW3.ndim != 3 or composite_HW3.shape[2] != 3 or composite_HW3.dtype != np.uint8:
        raise ShapeError(
            f"composite is {composite_HW3.dtype} {composite_HW3.shape}, expected uint8 (H, W, 3)"
        )


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _fit(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Enlarge or thin rows and columns by one whole number, without inventing values."""
    width = array.shape[1]
    if width > 1.5 * _TARGET:
        step = round(width / _TARGET)
        return array[::step, ::step]
    times = max(1, round(_TARGET / width))
    return array.repeat(times, axis=0).repeat(times, axis=1)
