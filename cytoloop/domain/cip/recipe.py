"""What a recipe is: a named function with named numbers, and how an assay's numbers are checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import ConfigError

Run = Callable[[NDArray[np.float32], Mapping[str, float], NDArray[np.float32] | None], NDArray[np.uint8]]
"""(image_CHW of raw grey values, every parameter, illumination_CHW or None) → mask_HW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make weak labels without learning."""

    name: str
    channel_count: int
    """C of the images it reads; their order is the recipe's."""
    class_count: int
    """K of the masks it writes, background included."""
    defaults: Mapping[str, float]
    """Every parameter; all are finite and >= 0."""
    run: Run
    uses_illumination: bool = False
    """Whether grey values are raw, so that the plate's illumination is to be divided out.

    Such a recipe has the parameter ``camera_offset``.
    """

    def parameters(self, given: Mapping[str, float]) -> dict[str, float]:
        """Every parameter as a float: the given ones, the others at their defaults.

        Raises
        ------
        ConfigError
            If a name is unknown, or a value is not a finite number >= 0.
        """
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            raise ConfigError(
                f"recipe {self.name!r}: unknown parameter(s) {unknown}, expected any of {sorted(self.defaults)}"
            )
        for name, value in given.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise ConfigError(f"recipe {self.name!r}: {name} is {value!r}, expected a number >= 0")
        return {name: float(given.get(name, default)) for name, default in self.defaults.items()}
