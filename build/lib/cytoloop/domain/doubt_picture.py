"""What a model doubts, as a picture for the expert's eye.

Legend: H rows, W columns of an item.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import Assay
from cytoloop.domain.display import rgb_of, ring_of
from cytoloop.domain.errors import ShapeError

UNSURE = "#fee838"
"""Colour of full doubt: the bright end of *cividis*, in which reports draw doubt; readable for the colour-blind."""
DIMMED = 0.4
"""Brightness of the picture below: a white pixel stays darker than any clear doubt."""
LINE = 0.6
"""Opacity of an object's outline: thin and dull, for the doubt is the message."""

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)


def doubt_picture(
    composite_HW3: NDArray[np.uint8],
    doubt_HW: NDArray[np.floating],
    mask_HW: NDArray[np.uint8],
    assay: Assay,
    where: str = "doubt picture",
) -> NDArray[np.uint8]:
    """The dimmed grey composite, the outlines of a model's objects, and over both its doubt in yellow.

    A pixel is brighter the greater its doubt, whatever lies below: doubt is the opacity of the yellow, and
    yellow is brighter than anything below. Outlines run just outside the objects, in the colours of their classes;
    doubt covers them, so an object whose border is sure shows its outline and one that is unsure glows.

    Parameters
    ----------
    composite_HW3 : ndarray of uint8, shape (H, W, 3)
        The item as the editor shows it, RGB.
    doubt_HW : ndarray of float, shape (H, W)
        0 (sure) … 1 (no idea).
    mask_HW : ndarray of uint8, shape (H, W)
        The model's label mask; background and 255 have no outline.
    where : str
        Beginning of an error message.

    Returns
    -------
    picture : ndarray of uint8, shape (H, W, 3)

    Raises
    ------
    ShapeError
        If the sizes differ, or a doubt is not within 0 … 1 (NaN is not).
    """
    if composite_HW3.ndim != 3 or composite_HW3.shape[2] != 3 or composite_HW3.dtype != np.uint8:
        raise ShapeError(
            f"{where}: composite {composite_HW3.dtype} {composite_HW3.shape}, expected uint8 (H, W, 3)"
        )
    size = composite_HW3.shape[:2]
    if doubt_HW.shape != size or mask_HW.shape != size:
        raise ShapeError(
            f"{where}: doubt {doubt_HW.shape}, mask {mask_HW.shape}; expected {size} as the composite"
        )
    if not ((doubt_HW >= 0) & (doubt_HW <= 1)).all():
        raise ShapeError(
            f"{where}: doubt of {np.min(doubt_HW):.3g} to {np.max(doubt_HW):.3g}, expected 0 to 1"
        )
    below_HW = (composite_HW3 @ _LUMA) * np.float32(DIMMED)
    picture = np.repeat(below_HW[..., np.newaxis], 3, axis=2)
    for value, label in assay.foreground:
        ring_HW = ring_of(mask_HW == value)
        picture[ring_HW] += LINE * (rgb_of(label.colour) - picture[ring_HW])
    opacity_HW1 = doubt_HW.astype(np.float32)[..., np.newaxis]
    picture += opacity_HW1 * (rgb_of(UNSURE) - picture)
    painted: NDArray[np.uint8] = np.rint(picture).astype(np.uint8)
    return painted
