"""The objects of a label mask, and which objects of two masks are the same one.

One definition for all that counts objects (expert minutes, error types, boxes): an object is an
eight-connected component of one class.

Legend: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError

SAME_OBJECT_IOU = 0.1
"""Overlap from which two objects are one that changed, as for the paper's boxes."""

Labels = NDArray[np.int32]
Window = tuple[slice, slice]

_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Objects:
    """Objects of one mask, numbered from 1: by class, then in reading order."""

    labels_HW: Labels
    """Number of the object each pixel belongs to, 0 for none."""
    classes: tuple[int, ...]
    """Class of object 1, 2, …"""
    windows: tuple[Window, ...]
    """Rows and columns each object spans."""

    def __len__(self) -> int:
        return len(self.classes)


def objects_of(mask_HW: NDArray[np.uint8]) -> Objects:
    """Eight-connected components of each class of a mask.

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
        0 background, 1…K-1 classes, 255 (not looked at) no object.

    Examples
    --------
    >>> found = objects_of(np.array([[1, 0, 2], [0, 1, 255]], np.uint8))
    >>> found.labels_HW.tolist(), found.classes
    ([[1, 0, 2], [0, 1, 0]], (1, 2))
    """
    labels_HW = np.zeros(mask_HW.shape, np.int32)
    classes: list[int] = []
    for value in np.flatnonzero(np.bincount(mask_HW.ravel(), minlength=IGNORE + 1)[:IGNORE]):
        if value == 0:
            continue
        is_class_HW = mask_HW == value
        parts_HW, count = ndimage.label(is_class_HW, _EIGHT)
        np.add(parts_HW, len(classes), out=labels_HW, where=is_class_HW)
        classes += [int(value)] * count
    windows = tuple((rows, columns) for rows, columns in ndimage.find_objects(labels_HW))
    return Objects(labels_HW=labels_HW, classes=tuple(classes), windows=windows)


def outline_of(labels_HW: Labels) -> NDArray[np.bool_]:
    """Object pixels with a pixel of anything else among their four neighbours.

    An object cut by the edge of the item has no outline along the cut: nobody draws it there.
    """
    padded_HW = np.pad(labels_HW, 1, mode="edge")
    inner_HW = padded_HW[1:-1, 1:-1]
    differs_HW = (
        (padded_HW[:-2, 1:-1] != inner_HW)
        | (padded_HW[2:, 1:-1] != inner_HW)
        | (padded_HW[1:-1, :-2] != inner_HW)
        | (padded_HW[1:-1, 2:] != inner_HW)
    )
    outline_HW: NDArray[np.bool_] = differs_HW & (labels_HW > 0)
    return outline_HW


def looked_at(
    one_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], what: str, names: tuple[str, str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Both masks with what either leaves out (255) as background.

    Raises
    ------
    ShapeError
        If the masks differ in shape or are not uint8 (H, W); the message says ``what`` asked and the
        ``names`` of the two.
    """
    for name, mask_HW in zip(names, (one_HW, other_HW), strict=True):
        if mask_HW.ndim != 2 or mask_HW.dtype != np.uint8:
            raise ShapeError(f"{what}: {name} is {mask_HW.dtype} {mask_HW.shape}, expected uint8 (H, W)")
    if one_HW.shape != other_HW.shape:
        raise ShapeError(
            f"{what}: {names[0]} {one_HW.shape}, {names[1]} {other_HW.shape}; expected one shape"
        )
    is_ignored_HW = (one_HW == IGNORE) | (other_HW == IGNORE)
    if not is_ignored_HW.any():
        return one_HW, other_HW
    background = np.uint8(0)
    return np.where(is_ignored_HW, background, one_HW), np.where(is_ignored_HW, background, other_HW)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenObjects:
    """Objects of one mask where somebody looked, and how much of each nobody did."""

    objects: Objects
    """Their visible pixels; an object that a hidden strip cuts in two is still one."""
    is_hidden: tuple[bool, ...]
    """Of object 1, 2, …: more than half of it lies where nobody looked."""


def seen_objects(mask_HW: NDArray[np.uint8], ignored_HW: NDArray[np.bool_]) -> SeenObjects:
    """Objects of a mask, less the pixels that are not judged.

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
        0 background, 1…K-1 classes, 255 (not looked at) no object.
    ignored_HW : ndarray of bool, shape (H, W)
        True where this mask or the one it is compared with is 255.

    Returns
    -------
    SeenObjects
        Objects without a visible pixel are left out.
    """
    whole = objects_of(mask_HW)
    if not ignored_HW.any():
        return SeenObjects(objects=whole, is_hidden=(False,) * len(whole))
    sizes = np.bincount(whole.labels_HW.ravel(), minlength=len(whole) + 1)[1:]
    visible = np.bincount(whole.labels_HW[~ignored_HW], minlength=len(whole) + 1)[1:]
    kept = np.flatnonzero(visible)
    numbers = np.zeros(len(whole) + 1, np.int32)
    numbers[kept + 1] = np.arange(1, kept.size + 1)
    labels_HW = np.where(ignored_HW, np.int32(0), numbers[whole.labels_HW])
    return SeenObjects(
        objects=Objects(
            labels_HW=labels_HW,
            classes=tuple(whole.classes[index] for index in kept),
            windows=tuple((rows, columns) for rows, columns in ndimage.find_objects(labels_HW)),
        ),
        is_hidden=tuple(bool(2 * visible[index] < sizes[index]) for index in kept),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Overlaps:
    """Which objects of two masks share pixels; row i of every array is one such pair."""

    old: NDArray[np.int64]
    new: NDArray[np.int64]
    """Numbers of the two objects, from 1."""
    shared: NDArray[np.int64]
    """Pixels in both, > 0."""
    old_sizes: NDArray[np.int64]
    new_sizes: NDArray[np.int64]
    """Pixels of every object by its number; index 0 is what belongs to none."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, in (0, 1]."""
        union = self.old_sizes[self.old] + self.new_sizes[self.new] - self.shared
        ratio: NDArray[np.float64] = self.shared / union
        return ratio


def overlaps(old: Objects, new: Objects) -> Overlaps:
    """Pairs of objects, whatever their class, with at least one pixel in common."""
    both_HW = (old.labels_HW > 0) & (new.labels_HW > 0)
    codes, shared = np.unique(
        old.labels_HW[both_HW].astype(np.int64) * (len(new) + 1) + new.labels_HW[both_HW],
        return_counts=True,
    )
    olds, news = np.divmod(codes, len(new) + 1)
    return Overlaps(
        old=olds,
        new=news,
        shared=shared,
        old_sizes=np.bincount(old.labels_HW.ravel(), minlength=len(old) + 1),
        new_sizes=np.bincount(new.labels_HW.ravel(), minlength=len(new) + 1),
    )


def pair_objects(found: Overlaps, least_iou: float = SAME_OBJECT_IOU) -> list[tuple[int, int]]:
    """Pairs (old, new) of objects that overlap enough, each object at most once, best first."""
    iou: NDArray[Any] = found.iou
    pairs: list[tuple[int, int]] = []
    used_old: set[int] = set()
    used_new: set[int] = set()
    for index in np.argsort(-iou, kind="stable"):
        old, new = int(found.old[index]), int(found.new[index])
        if iou[index] < least_iou:
            break
        if old not in used_old and new not in used_new:
            pairs.append((old, new))
            used_old.add(old)
            used_new.add(new)
    return pairs
