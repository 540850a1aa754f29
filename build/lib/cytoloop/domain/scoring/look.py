"""`Look`: what a version says of an image; `ItemScores`: what that makes of one item.

Legend: F features, K classes, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.scoring.maps import check_map, check_prob

SCORES = ("entropy", "margin", "mutual-information", "disagreement", "augmentation", "effort")
"""Every score there is; higher = ask sooner, none is negative."""

Slices = tuple[slice, slice]
WHOLE: Slices = (slice(None), slice(None))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Look:
    """What one version says of a whole image; what is None was not asked for or cannot be had."""

    prob_KHW: NDArray[np.float32]
    """Class probabilities of the deterministic prediction."""
    mutual_information_HW: NDArray[np.float32] | None = None
    """Disagreement of passes with dropout, nats."""
    augmentation_HW: NDArray[np.float32] | None = None
    """Disagreement of the image flipped and turned, nats."""
    features_FHW: NDArray[np.float32] | None = None
    """What the image looks like to the version, on a coarse grid that spans the image."""
    cip_HW: NDArray[np.uint8] | None = None
    """The mask of CIP, to differ from; None where the version is CIP itself."""
    is_cip: bool = False
    """The probabilities are a CIP mask made soft: doubtful at every edge, so that an object's doubt tells nothing."""

    def __post_init__(self) -> None:
        check_prob(self.prob_KHW, "look: probabilities")
        size = self.prob_KHW.shape[1:]
        for name in ("mutual_information_HW", "augmentation_HW"):
            map_HW = getattr(self, name)
            if map_HW is not None:
                check_map(map_HW, size, f"look: {name}")
        features_FHW = self.features_FHW
        if features_FHW is not None:
            if features_FHW.ndim != 3 or features_FHW.size == 0:
                raise ShapeError(f"look: features {features_FHW.shape}, expected (F, H, W)")
            check_map(features_FHW, features_FHW.shape, "look: features")
        if self.cip_HW is not None and (self.cip_HW.shape != size or self.cip_HW.dtype != np.uint8):
            raise ShapeError(f"look: CIP mask {self.cip_HW.dtype} {self.cip_HW.shape}, expected uint8 {size}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemScores:
    """What a version's look is worth for one item, and what to tell the expert."""

    values: Mapping[str, float]
    """By name, out of `SCORES`: those that could be made. Finite, >= 0, higher = ask sooner."""
    minutes: float
    """An expert is expected to need, > 0."""
    features_F: NDArray[np.float32] | None
    """Unit length, to tell items apart that look alike; None where the look has none."""
    reason: str
    """In words, for the worklist."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.values) - set(SCORES))
        if unknown:
            raise InputError(f"scores: {', '.join(unknown)}; expected some of {', '.join(SCORES)}")
        for name, value in self.values.items():
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"scores: {name} is {value}, expected a finite number >= 0")
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise InputError(f"scores: {self.minutes} minutes, expected a finite number above 0")
        if self.features_F is not None and not np.isfinite(self.features_F).all():
            raise InputError("scores: features are not finite, expected finite values")
