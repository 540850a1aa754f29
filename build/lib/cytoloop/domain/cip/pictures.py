"""Intermediate arrays of a recipe as pictures for people: grey values, and outlines laid over them.

Outlines are Okabe and Ito's blue and orange, which every eye tells apart, on grey. Legend: H rows,
W columns, Z zoom (rows and columns of a picture are Z times those of the image).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.cip.objects import rim
from cytoloop.domain.cip.operators import components
from cytoloop.domain.display import to_8bit

Picture = NDArray[np.uint8]
"""8-bit RGB, shape (H, W, 3)."""

KEPT: Final = "#56b4e9"
DROPPED: Final = "#e69f00"
BLACK_AND_WHITE: Final = (0.5, 99.8)
"""Percentiles of a grey picture that become black and white."""
_WIDE_ENOUGH: Final = 1200
"""Columns from which on a picture is not enlarged."""


def zoom_of(width: int) -> int:
    """How often to enlarge: small fields twice, so that an outline leaves small spots visible."""
    return 1 if width >= _WIDE_ENOUGH else 2


def grey_picture(grey_HW: NDArray[np.floating[Any]], zoom: int = 1) -> Picture:
    """Grey values from percentile 0.5 (black) to 99.8 (white), enlarged: uint8 (Z H, Z W, 3)."""
    low, high = (float(value) for value in np.percentile(grey_HW, BLACK_AND_WHITE))
    shown = to_8bit(grey_HW, low, high if high > low else low + 1.0)
    return enlarge(np.repeat(shown[..., np.newaxis], 3, axis=2), zoom)


def enlarge(picture: NDArray[Any], zoom: int) -> NDArray[Any]:
    """Each pixel as ``zoom`` x ``zoom`` pixels."""
    return picture.repeat(zoom, axis=0).repeat(zoom, axis=1)


def outlined(picture: Picture, labels_HW: NDArray[Any], colours: Mapping[int, str], zoom: int = 1) -> Picture:
    """Draw the inner edge of the areas of each value, one pixel of the picture wide.

    Parameters
    ----------
    picture : ndarray of uint8, shape (Z H, Z W, 3)
        Left as it is.
    labels_HW : ndarray of int or bool, shape (H, W)
        Areas that touch and differ in value get an edge each.
    colours : mapping
        ``#rrggbb`` by value; other values are not drawn.
    zoom : int
        Z.
    """
    edges = rim(enlarge(labels_HW.astype(np.int32), zoom))
    drawn = picture.copy()
    for value, colour in colours.items():
        drawn[edges == value] = rgb(colour)
    return drawn


def numbered(picture: Picture, places: Iterable[tuple[int, int]], colour: str, zoom: int = 1) -> Picture:
    """Write 1, 2, 3… to the right of (row, column) places of the image."""
    drawn = np.array(picture, order="C")
    for number, (row, column) in enumerate(places, start=1):
        text = str(number)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        left = min(zoom * (column + 4), drawn.shape[1] - width)
        bottom = min(max(zoom * row + height // 2, height), drawn.shape[0] - 1)
        cv2.putText(drawn, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.4, rgb(colour), 1, cv2.LINE_AA)
    return drawn


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb``, 0…255."""
    red, green, blue = bytes.fromhex(colour.lstrip("#"))
    return red, green, blue


def object_count(mask_HW: NDArray[np.bool_]) -> int:
    """Connected components of a mask."""
    return components(mask_HW)[1]
