"""What a recipe is: a named function with named numbers, and how an assay's numbers are checked.

A recipe works in two stages, so that a search over thresholds need not repeat the slow filters:
``prepare`` (flat field, deconvolution) and ``label`` (everything a threshold touches). Legend: C
channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.cip.operators import flat_field
from cytoloop.domain.errors import ConfigError

StepKind = Literal["grey", "mask", "sieve", "labels", "classes", "dropped"]
"""What an intermediate array is.

*grey*: float (H, W) values, of any unit. *mask*: bool (H, W). *sieve*: uint8 (H, W), 0 nothing, 1 kept
by the step, 2 dropped by it. *labels*: int (H, W), 1…n objects. *classes*: uint8 (H, W), the mask as it
leaves the recipe. *dropped*: a table of ``DROPPED`` rows.
"""

Watch = Callable[[str, NDArray[Any], StepKind], None]
"""(name of a step, its array, what the array is): called by a recipe as it goes along."""

DROPPED = np.dtype([("row", "i4"), ("column", "i4"), ("area", "i4"), ("reason", "U40"), ("measured", "U300")])
"""An object that was found and then dropped: its middle and size in pixels, why, and the numbers."""

Prepare = Callable[
    [NDArray[np.float32], Mapping[str, float], NDArray[np.float32] | None], NDArray[np.float32]
]
"""(image_CHW of raw grey values, every parameter, illumination_CHW or None) → prepared_CHW, C of its own."""

Label = Callable[[NDArray[np.float32], Mapping[str, float], Watch | None], NDArray[np.uint8]]
"""(prepared_CHW, every parameter, watch or None) → mask_HW."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a person is told about one intermediate image."""

    title: str
    text: str
    """Plain words; ``{parameter}`` stands for its value."""
    channel: int | None = None
    """Channel the picture is drawn on; None: the composite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Where a search may look for a parameter; both bounds are inclusive."""

    low: float
    high: float
    log: bool = True
    """Equal factors are equally likely, not equal differences; needs ``low`` > 0."""
    integer: bool = False
    by_default: bool = True
    """Whether a search takes the parameter in unasked."""


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
    prepare: Prepare
    prepared_by: frozenset[str]
    """The parameters ``prepare`` reads: with equal ones, what it made may be used again."""
    label: Label
    steps: Mapping[str, Step] = field(default_factory=dict)
    """What ``label`` tells a watch, in its order."""
    tunable: Mapping[str, Range] = field(default_factory=dict)
    """Parameters a search may change, and how far."""
    uses_illumination: bool = False
    """Whether grey values are raw, so that the plate's illumination is to be divided out.

    Such a recipe has the parameter ``camera_offset``.
    """

    def run(
        self,
        image_CHW: NDArray[np.float32],
        parameters: Mapping[str, float],
        illumination_CHW: NDArray[np.float32] | None = None,
        watch: Watch | None = None,
    ) -> NDArray[np.uint8]:
        """Mask of one field: both stages, one after the other.

        Parameters
        ----------
        image_CHW : ndarray of float32, shape (C, H, W)
            Raw grey values.
        parameters : mapping
            Every name of ``defaults``.
        illumination_CHW : ndarray of float32, shape (C, H, W), optional
            Mean 1 per channel.
        watch : callable, optional
            Told each step; nothing is computed for it where there is none.
        """
        return self.label(self.prepare(image_CHW, parameters, illumination_CHW), parameters, watch)

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

    def tuned(self, names: tuple[str, ...] = ()) -> dict[str, Range]:
        """The ranges of the named parameters; of those searched by default, where none is named.

        Raises
        ------
        ConfigError
            If a name is no parameter, or one that is not to be searched for.
        """
        wrong = [name for name in names if name not in self.tunable]
        if wrong:
            raise ConfigError(
                f"recipe {self.name!r}: cannot tune {wrong}, expected any of {sorted(self.tunable)}"
            )
        return {
            name: span
            for name, span in self.tunable.items()
            if name in names or (not names and span.by_default)
        }


def sieve(found_HW: NDArray[np.bool_], kept_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """What a step found as a *sieve*: 1 where it is kept, 2 where it is dropped."""
    return np.where(kept_HW, 1, np.where(found_HW, 2, 0)).astype(np.uint8)


def without_light(
    image_CHW: NDArray[np.float32],
    parameters: Mapping[str, float],
    illumination_CHW: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Divide the illumination out, where it is known: all the preparation a simple recipe needs."""
    if illumination_CHW is None:
        return image_CHW
    return np.stack([flat_field(*pair) for pair in zip(image_CHW, illumination_CHW, strict=True)])
