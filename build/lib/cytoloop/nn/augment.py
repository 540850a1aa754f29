"""Image and mask moved together: reflections and quarter turns, and a little brightness.

Only movements that land pixels on pixels: an angle in between would interpolate, and blur objects of
six pixels and their masks. The paper does not give its range of rotation.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One of the eight symmetries of a square."""

    quarter_turns: int = 0
    """Counter-clockwise, 0…3."""
    is_mirrored: bool = False
    """Left and right swapped, before turning."""

    @classmethod
    def drawn(cls, rng: np.random.Generator, *, with_turns: bool = True) -> Movement:
        """Draw one of the eight; without turns, one of the four reflections."""
        if with_turns:
            return cls(quarter_turns=int(rng.integers(4)), is_mirrored=bool(rng.integers(2)))
        # Up and down swapped = mirrored, then half a turn.
        return cls(quarter_turns=2 * int(rng.integers(2)), is_mirrored=bool(rng.integers(2)))

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Move the last two axes (H, W) of an image or a mask; the result is a view.

        Examples
        --------
        >>> Movement(quarter_turns=1).apply(np.array([[1, 2], [3, 4]])).tolist()
        [[2, 4], [1, 3]]
        """
        mirrored = array[..., ::-1] if self.is_mirrored else array
        return np.rot90(mirrored, self.quarter_turns, axes=(-2, -1))


def jitter_intensity(image_CHW: NDArray[np.float32], amount: float, rng: np.random.Generator) -> None:
    """Change gain and offset of each channel, in place, as lamp and staining do between fields.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (C, H, W)
        Normalised; changed in place.
    amount : float
        Standard deviation of the logarithm of the gain; the offset has a quarter of it. 0 changes
        nothing and draws nothing.
    rng : numpy.random.Generator
        Where the two numbers a channel come from.
    """
    if amount == 0.0:
        return
    channels = image_CHW.shape[0]
    gain_C = np.exp(rng.normal(0.0, amount, channels)).astype(np.float32)
    offset_C = rng.normal(0.0, amount / 4.0, channels).astype(np.float32)
    image_CHW *= gain_C[:, None, None]
    image_CHW += offset_C[:, None, None]
