"""Label masks as COCO: one annotation an object, its pixels as a run-length code.

An object is a connected region of one class (by sides and corners); two objects of a class that touch are one. What
nobody looked at, or nobody could tell, becomes a *crowd* region of every category: COCO's way to say that nothing there
counts.

Runs go down the columns, background first, as in the COCO API (https://github.com/cocodataset/cocoapi). Legend: H rows,
W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.errors import MalformedRle

_FIRST = 48
"""The character of 0: digits and letters follow."""
_TOUCHING = np.ones((3, 3), dtype=bool)


def categories_of(assay: Assay) -> list[dict[str, Any]]:
    """The drawn classes; a category's id is the class's pixel value."""
    return [
        {"id": value, "name": label.name, "supercategory": assay.name} for value, label in assay.foreground
    ]


def annotations_of(mask_HW: NDArray[np.uint8], assay: Assay, image: int, first: int) -> list[dict[str, Any]]:
    """Every object of a mask, then what is ignored.

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
        0 background, 1…K-1 classes, 255 not looked at.
    image : int
        COCO's id of the image.
    first : int
        Id of the first annotation; the others follow.
    """
    found: list[tuple[int, NDArray[np.intp], int]] = []
    for value, _ in assay.foreground:
        found += [(value, pixels_N, 0) for pixels_N in _objects(mask_HW == value)]
    ignored_N = np.flatnonzero((mask_HW == IGNORE).T)
    if len(ignored_N):
        found += [(value, ignored_N, 1) for value, _ in assay.foreground]
    return [
        {
            "id": first + number,
            "image_id": image,
            "category_id": value,
            "iscrowd": is_crowd,
            "area": len(pixels_N),
            "bbox": _box(pixels_N, mask_HW.shape[0]),
            "segmentation": {
                "size": list(mask_HW.shape),
                "counts": compress(_runs(pixels_N, mask_HW.size)),
            },
        }
        for number, (value, pixels_N, is_crowd) in enumerate(found)
    ]


def _objects(is_class_HW: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Places of each object's pixels, counted down the columns."""
    labels_HW, _ = ndimage.label(is_class_HW, _TOUCHING)
    height = is_class_HW.shape[0]
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels_HW), start=1):
        column_N, row_N = np.nonzero((labels_HW[rows, columns] == number).T)
        yield (column_N + columns.start) * height + row_N + rows.start


def _box(pixels_N: NDArray[np.intp], height: int) -> list[int]:
    """x, y, width and height."""
    column_N, row_N = np.divmod(pixels_N, height)
    left, top = int(column_N.min()), int(row_N.min())
    return [left, top, int(column_N.max()) - left + 1, int(row_N.max()) - top + 1]


def _runs(pixels_N: NDArray[np.intp], size: int) -> list[int]:
    """Lengths of the runs of sorted places, background first."""
    starts = np.flatnonzero(np.diff(pixels_N, prepend=-2) != 1)
    ends = np.append(starts[1:], len(pixels_N)) - 1
    edges = np.stack([pixels_N[starts], pixels_N[ends] + 1], axis=1).ravel()
    runs = np.diff(edges, prepend=0).tolist()
    return [*runs, size - int(edges[-1])] if edges[-1] < size else list(runs)


def compress(runs: Sequence[int]) -> str:
    """Run lengths as text, five bits a character, as the COCO API packs them.

    Examples
    --------
    >>> compress([6, 1, 40, 4, 5, 4, 5, 4, 21])
    '61X13mN000`0'
    """
    text = []
    for number, run in enumerate(runs):
        left = run - runs[number - 2] if number > 2 else run
        while True:
            bits = left & 31
            left >>= 5
            is_last = left == (-1 if bits & 16 else 0)
            text.append(chr(_FIRST + (bits if is_last else bits | 32)))
            if is_last:
                break
    return "".join(text)


def decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """Pixels of an annotation's ``segmentation``: bool (H, W).

    Raises
    ------
    MalformedRle
        If the text ends within a number, or the runs are no picture of that size.
    """
    runs: list[int] = []
    value = shift = 0
    for character in segmentation["counts"]:
        bits = ord(character) - _FIRST
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    height, width = segmentation["size"]
    if shift or min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise MalformedRle(f"COCO runs: {len(runs)} of {sum(runs)} pixels, expected ({height}, {width})")
    is_drawn_N = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return is_drawn_N.reshape(width, height).T
