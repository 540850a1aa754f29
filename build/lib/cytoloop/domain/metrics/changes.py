"""What one correction changed: pixels, objects, errors, minutes.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.effort import CorrectionEffort, correction_effort
from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics.error_types import ErrorTypes, error_types
from cytoloop.domain.metrics.pixels import confusion_matrix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorrectionDelta:
    """The difference between what was proposed and what the expert saved."""

    pixels_KK: NDArray[np.int64]
    """Pixels by class before (row) and after (column); the diagonal is what stayed. Pixels that are 255 on
    either side are in none of these."""
    pixels_set_aside: int
    """Pixels that had a class, background included, and are 255 (not looked at) now."""
    pixels_taken_up: int
    """Pixels that were 255 and have a class now."""
    effort: CorrectionEffort
    """Objects added, removed, relabelled and reshaped, and the minutes the fixed model gives for them."""
    errors: ErrorTypes
    """What was wrong with the proposal, the correction taken as the truth."""
    minutes_taken: float | None
    """By the editor's clock; None where it did not tell."""

    @property
    def pixels_added(self) -> int:
        """Pixels that were background and are of a class now."""
        return int(self.pixels_KK[0, 1:].sum())

    @property
    def pixels_removed(self) -> int:
        """Pixels that were of a class and are background now."""
        return int(self.pixels_KK[1:, 0].sum())

    @property
    def pixels_relabelled(self) -> int:
        """Pixels that went from one class to another, background in neither."""
        between_KK = self.pixels_KK[1:, 1:]
        return int(between_KK.sum() - np.trace(between_KK))

    @property
    def is_unchanged(self) -> bool:
        """Saved as it was proposed, to the pixel."""
        changed = self.pixels_added + self.pixels_removed + self.pixels_relabelled
        return changed + self.pixels_set_aside + self.pixels_taken_up == 0

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON; ``class_names`` by pixel value, background first."""
        return {
            "class_names": list(class_names),
            "unchanged": self.is_unchanged,
            "pixels": {
                "added": self.pixels_added,
                "removed": self.pixels_removed,
                "relabelled": self.pixels_relabelled,
                "set_aside": self.pixels_set_aside,
                "taken_up": self.pixels_taken_up,
                "class_to_class": self.pixels_KK.tolist(),
            },
            "objects": {
                "added": self.effort.objects_added,
                "removed": self.effort.objects_removed,
                "relabelled": self.effort.objects_relabelled,
                "reshaped": self.effort.objects_reshaped,
            },
            "boundary_pixels": self.effort.boundary_pixels,
            "errors": self.errors.to_dict(class_names),
            "minutes": {"taken": self.minutes_taken, "estimated": self.effort.minutes},
        }


def correction_delta(
    before_HW: NDArray[np.uint8],
    after_HW: NDArray[np.uint8],
    class_count: int,
    lead_time_s: float | None = None,
) -> CorrectionDelta:
    """What turned a proposal into the mask an expert saved.

    Parameters
    ----------
    before_HW, after_HW : ndarray of uint8, shape (H, W)
        The proposal (weak label, prediction, an earlier correction, or zeros for a blank canvas) and the
        corrected mask: 0…K-1, or 255 (not looked at).
    class_count : int
        K, background included.
    lead_time_s : float, optional
        Seconds the item was open in the editor, >= 0.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.
    InputError
        If the time is negative.

    Examples
    --------
    >>> before, after = np.array([[0, 0, 1, 1]], np.uint8), np.array([[0, 1, 1, 0]], np.uint8)
    >>> delta = correction_delta(before, after, 2)
    >>> delta.pixels_added, delta.pixels_removed, delta.pixels_KK.tolist()
    (1, 1, [[1, 1], [1, 1]])
    """
    if lead_time_s is not None and not lead_time_s >= 0:
        raise InputError(f"correction delta: lead time {lead_time_s} s, expected >= 0")
    was_ignored_HW, is_ignored_HW = before_HW == IGNORE, after_HW == IGNORE
    return CorrectionDelta(
        pixels_KK=confusion_matrix(before_HW, after_HW, class_count),
        pixels_set_aside=int(np.count_nonzero(~was_ignored_HW & is_ignored_HW)),
        pixels_taken_up=int(np.count_nonzero(was_ignored_HW & ~is_ignored_HW)),
        effort=correction_effort(before_HW, after_HW),
        errors=error_types(after_HW, before_HW, class_count),
        minutes_taken=None if lead_time_s is None else lead_time_s / 60,
    )
