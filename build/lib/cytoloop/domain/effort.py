"""What a correction costs an expert, in minutes: a fixed model for simulated experts and learning curves.

A strategy of active learning is judged by minutes and not by items, because an item in which
everything must change costs many times one that is nearly right. The model counts what an expert
does in a brush editor: find and draw what is missing, delete what is wrong, give another class,
repaint outlines. It is *fixed*: no project's timings change it, so that curves can be compared.

Calibration
-----------
Garcia Santa Cruz et al. 2022 (doi:10.1038/s41598-022-15623-7) report, per 340 x 256 quarter, 5–10 min
to correct and 20–40 min to draw from scratch. The coefficients were set so that the medians are about
7.5 and 30 over 128 quarters of the simulated plate ``reference-1`` (seeds 1 and 2, 16 fields each): from
a blank canvas 29.9 min (quartiles 21.6 and 39.8, a median of 49 objects with 1270 px of outline), from the
mask of the recipe ``rosella``, told the camera's offset of 110, 7.5 min (4.8 and 11.6; 14 objects added, 5
removed, 4 relabelled, 14 reshaped, 580 px of outline). With one price per missing object both cannot
hold: such a mask misses more than a quarter of the objects, which alone would cost 8 min. Hence the
price of the search, which falls with the share that is missing.

Legend: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.objects import Window, looked_at, objects_of, outline_of, overlaps, pair_objects

MINUTES_TO_LOOK = 0.75
"""Open an item, look at both channels, save; paid even when nothing changes. The paper's time to rate."""
MINUTES_PER_ADDED = 0.11
"""Zoom to a missing object and choose its class; its outline comes on top."""
MINUTES_PER_SEARCH = 0.36
"""Find a missing object, times the share of the item's objects that are missing: among outlined
neighbours it stands out, on a blank canvas each must be searched."""
MINUTES_PER_REMOVED = 0.04
MINUTES_PER_RELABELLED = 0.05
"""Select a region and delete it, or give it another class."""
MINUTES_PER_RESHAPED = 0.03
"""Select a region whose outline is wrong; the outline comes on top."""
MINUTES_PER_BOUNDARY_PIXEL = 0.005
"""Paint or erase along a pixel of outline."""
TOLERANCE = 2.0
"""Pixels within which an outline is left as it is; the paper's boundary score forgives 3.19."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionEffort:
    """What must change to turn one mask into another, and the minutes it takes."""

    objects_added: int
    objects_removed: int
    objects_relabelled: int
    """Another class; the outline may change too."""
    objects_reshaped: int
    """The same class, an outline that is off by more than the tolerance somewhere."""
    boundary_pixels: int
    """Length of the outlines that must be painted or erased."""
    minutes: float


def correction_effort(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> CorrectionEffort:
    """Count what an expert changes between a proposal and the corrected mask.

    An object is an eight-connected component of one class. Objects of the two masks are paired one
    to one, largest overlap (IoU >= 0.1) first, whatever their class. Unpaired objects of ``after`` are
    added and cost their whole outline; unpaired ones of ``before`` are removed and cost none; of a pair,
    outline pixels farther than the tolerance from the other's outline must be repainted (the larger
    of the two directions).

    Parameters
    ----------
    before_HW, after_HW : ndarray of uint8, shape (H, W)
        Class of each pixel, 0 background. Pixels that are 255 (not looked at) in either are ignored.

    Returns
    -------
    effort : CorrectionEffort
        Its minutes are never more than drawing ``after`` from scratch: an expert who meets a hopeless
        proposal clears it.

    Raises
    ------
    ShapeError
        If the masks differ in shape or are not uint8 (H, W).
    """
    seen_before_HW, seen_after_HW = looked_at(before_HW, after_HW, "correction effort", ("before", "after"))
    change = _compare(seen_before_HW, seen_after_HW)
    blank = _compare(np.zeros_like(seen_after_HW), seen_after_HW)
    return replace(change, minutes=min(change.minutes, blank.minutes))


def correction_minutes(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> float:
    """Minutes an expert needs to turn ``before_HW`` into ``after_HW``; see ``correction_effort``.

    Examples
    --------
    >>> mask_HW = np.zeros((8, 8), np.uint8)
    >>> correction_minutes(mask_HW, mask_HW) == MINUTES_TO_LOOK
    True
    """
    return correction_effort(before_HW, after_HW).minutes


def drawing_minutes(after_HW: NDArray[np.uint8]) -> float:
    """Minutes an expert needs to draw ``after_HW`` on a blank canvas; see ``correction_effort``."""
    return correction_effort(np.zeros_like(after_HW), after_HW).minutes


def _compare(before_HW: NDArray[np.uint8], after_HW: NDArray[np.uint8]) -> CorrectionEffort:
    """Count and price the changes, without the cap."""
    old_objects, new_objects = objects_of(before_HW), objects_of(after_HW)
    old_HW, new_HW = old_objects.labels_HW, new_objects.labels_HW
    old_outline_HW, new_outline_HW = outline_of(old_HW), outline_of(new_HW)
    pairs = pair_objects(overlaps(old_objects, new_objects))

    outlines = np.bincount(new_HW[new_outline_HW], minlength=len(new_objects) + 1)
    boundary = int(outlines[1:].sum()) - sum(int(outlines[new]) for _, new in pairs)
    relabelled = reshaped = 0
    for old, new in pairs:
        box = _union(old_objects.windows[old - 1], new_objects.windows[new - 1])
        off = _outline_off(
            old_outline_HW[box] & (old_HW[box] == old), new_outline_HW[box] & (new_HW[box] == new)
        )
        boundary += off
        if old_objects.classes[old - 1] != new_objects.classes[new - 1]:
            relabelled += 1
        elif off:
            reshaped += 1
    added, removed = len(new_objects) - len(pairs), len(old_objects) - len(pairs)
    missing_share = added / len(new_objects) if len(new_objects) else 0.0
    return CorrectionEffort(
        objects_added=added,
        objects_removed=removed,
        objects_relabelled=relabelled,
        objects_reshaped=reshaped,
        boundary_pixels=boundary,
        minutes=MINUTES_TO_LOOK
        + (MINUTES_PER_ADDED + MINUTES_PER_SEARCH * missing_share) * added
        + MINUTES_PER_REMOVED * removed
        + MINUTES_PER_RELABELLED * relabelled
        + MINUTES_PER_RESHAPED * reshaped
        + MINUTES_PER_BOUNDARY_PIXEL * boundary,
    )


def _union(one: Window, other: Window) -> Window:
    """Smallest rectangle around both."""
    rows, columns = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return rows, columns


def _outline_off(old_HW: NDArray[np.bool_], new_HW: NDArray[np.bool_]) -> int:
    """Outline pixels farther than the tolerance from the other outline, the larger of both directions."""
    if not old_HW.any() or not new_HW.any():
        # One of them fills the item: it has no outline, the other must be drawn whole.
        return int(max(np.count_nonzero(old_HW), np.count_nonzero(new_HW)))
    from_old_HW = ndimage.distance_transform_edt(~old_HW)
    from_new_HW = ndimage.distance_transform_edt(~new_HW)
    return int(
        max(
            np.count_nonzero(from_old_HW[new_HW] > TOLERANCE),
            np.count_nonzero(from_new_HW[old_HW] > TOLERANCE),
        )
    )
