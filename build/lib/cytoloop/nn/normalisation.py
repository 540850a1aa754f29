"""Raw grey values to what the network sees: the same function for training and for prediction.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import ConfigError, ImageUnreadable, ShapeError

_ENOUGH_PIXELS = 65_536
"""Percentiles of this many evenly spread pixels are those of the image, at a fraction of the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """How grey values are made comparable between images: per image and per channel, by percentiles.

    ``low`` becomes 0 and ``high`` becomes 1; nothing is clipped but the far ends. Percentiles, not
    minimum and maximum: a single hot pixel or speck of debris would otherwise darken the field. Not
    mean and deviation either: both grow with the number of bright objects, so that a treated field
    would look dimmer than an untreated one. Per image: the lamp, the camera offset and the staining
    differ between fields, and the price, that absolute brightness is lost, is the smaller one.
    """

    low: float = 1.0
    """Percentile that becomes 0."""
    high: float = 99.8
    """Percentile that becomes 1."""
    ceiling: float = 10.0
    """Largest value kept: a bound for saturated debris, far above any object."""
    softness: float = 0.0
    """How much bright values are compressed: x becomes asinh(softness x) / asinh(softness), which keeps 0 and 1
    and is a logarithm far above 1 / softness. A few dying cells, ten times brighter than the rest,
    then leave the dim ones contrast. 0: not at all."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.low < self.high <= 100.0:
            raise ConfigError(
                f"normalisation: percentiles {self.low}, {self.high}; expected 0 <= low < high <= 100"
            )
        if not self.ceiling >= 1.0:
            raise ConfigError(f"normalisation: ceiling {self.ceiling}; expected >= 1")
        if not 0.0 <= self.softness < float("inf"):
            raise ConfigError(f"normalisation: softness {self.softness}; expected a finite number >= 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, stored beside the weights."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalisation:
        """The reverse of :meth:`to_dict`; an unknown or missing key raises ConfigError.

        ``softness`` may be missing: weights from before it was there know none.
        """
        known = set(cls.__dataclass_fields__)
        if not known - {"softness"} <= set(values) <= known:
            raise ConfigError(f"normalisation: keys {sorted(values)}, expected {sorted(known)}")
        return cls(**{key: float(value) for key, value in values.items()})


def normalise(image_CHW: NDArray[Any], normalisation: Normalisation) -> NDArray[np.float32]:
    """Map each channel so that its low percentile is 0 and its high percentile 1: linearly, or softly.

    Parameters
    ----------
    image_CHW : ndarray of integer or float, shape (C, H, W)
        Raw grey values, any unit.

    Returns
    -------
    ndarray of float32, shape (C, H, W)
        Within [-ceiling, ceiling]; a channel without contrast (low = high percentile) is all 0.

    Raises
    ------
    ShapeError
        If the array is not 3-D or has no pixels.
    ImageUnreadable
        If a value is not finite.

    Examples
    --------
    >>> normalise(np.array([[[2.0, 4.0, 6.0]]]), Normalisation(low=0, high=100)).tolist()
    [[[0.0, 0.5, 1.0]]]
    """
    if image_CHW.ndim != 3 or image_CHW.size == 0:
        raise ShapeError(f"image: shape {image_CHW.shape}, expected (C, H, W) with at least one pixel")
    raw_CHW = image_CHW.astype(np.float32)
    if image_CHW.dtype.kind == "f" and not np.isfinite(raw_CHW).all():
        raise ImageUnreadable("image: holds values that are not finite, expected grey values")
    height, width = raw_CHW.shape[1:]
    step = max(1, int((height * width / _ENOUGH_PIXELS) ** 0.5))
    for channel_HW in raw_CHW:
        low, high = np.percentile(channel_HW[::step, ::step], (normalisation.low, normalisation.high))
        channel_HW -= np.float32(low)
        channel_HW *= np.float32(1.0 / (high - low) if high > low else 0.0)
    if normalisation.softness > 0.0:
        raw_CHW *= np.float32(normalisation.softness)
        np.arcsinh(raw_CHW, out=raw_CHW)
        raw_CHW /= np.arcsinh(np.float32(normalisation.softness))
    np.clip(raw_CHW, -normalisation.ceiling, normalisation.ceiling, out=raw_CHW)
    return raw_CHW
