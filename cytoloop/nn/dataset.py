"""Labelled images in memory, and the random crops a training step learns from.

Legend: N batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.types import check_label_mask
from cytoloop.nn.augment import Movement, jitter_intensity
from cytoloop.nn.normalisation import Normalisation, normalise

_REMEMBERED_PIXELS = 4096
"""Pixels remembered per class and image as possible places of a crop: more would only cost memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingItem:
    """One whole image with what is known about it.

    A corrected tile is given as its whole image with a mask that is 255 elsewhere: the network then
    learns from the tile in its surroundings, as it will predict. An image with one corrected tile and
    a weak label is two items, the weak one being 255 where the correction is.
    """

    image_CHW: NDArray[Any]
    """Raw grey values, as read."""
    mask_HW: NDArray[np.uint8]
    """0 background, 1…K-1 classes, 255 not looked at."""
    weight: float = 1.0
    """How much the mask is trusted: 1 for a correction, less for a weak label. Multiplies the loss."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one training step sees."""

    image_NCHW: NDArray[np.float32]
    mask_NHW: NDArray[np.uint8]
    weight_N: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """An item, normalised and padded to the crop's size, with the places worth looking at."""

    image_CHW: NDArray[np.float16]
    mask_HW: NDArray[np.uint8]
    weight: float
    places: tuple[NDArray[np.int32], ...]
    """(row, column) of pixels, one array per class that occurs; background first if it does."""
    has_background: bool
    looked_at: tuple[int, int, int, int]
    """Rows and columns, half-open, that hold every pixel looked at."""
    looked_at_pixels: int


class CropSampler:
    """Draws batches of square crops from items held in memory.

    Images are normalised once and held as 16-bit floats: half the memory, and an error of 1/2048 of
    a value, far below the noise of the camera. Items are read one by one, so a sequence that reads
    its files lazily never has all raw images in memory.

    A batch is a function of its index alone: whoever draws it, in whatever order or thread, the same
    seed gives the same batches.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        *,
        class_count: int,
        normalisation: Normalisation,
        crop: int,
        batch: int,
        foreground_share: float,
        trusted_share: float | None,
        jitter: float,
        seed: int,
    ) -> None:
        self._crop = crop
        self._batch = batch
        self._foreground_share = foreground_share
        self._trusted_share = trusted_share
        self._jitter = jitter
        self._seed = seed
        rng = np.random.default_rng((seed, 0))
        held = []
        for index, item in enumerate(items):
            kept = _hold(item, f"training item {index}", class_count, normalisation, crop, rng)
            if kept is not None:
                held.append(kept)
        if not held:
            raise InputError(
                f"training: {len(items)} items, none with a pixel looked at; expected at least one"
            )
        channels = {h.image_CHW.shape[0] for h in held}
        if len(channels) != 1:
            raise ShapeError(f"training: items of {sorted(channels)} channels, expected the same in all")
        self._held = held
        top = max(h.weight for h in held)
        self._groups = [
            np.flatnonzero([h.weight == top for h in held]),
            np.flatnonzero([h.weight < top for h in held]),
        ]
        self.channels: int = channels.pop()
        self.item_count = len(held)
        self.looked_at_pixels = sum(h.looked_at_pixels for h in held)

    def batch(self, index: int) -> Batch:
        """Return the batch of that index (from 0), always the same one."""
        rng = np.random.default_rng((self._seed, 1, index))
        shape = (self._batch, self.channels, self._crop, self._crop)
        image_NCHW = np.empty(shape, dtype=np.float32)
        mask_NHW = np.empty((self._batch, self._crop, self._crop), dtype=np.uint8)
        weight_N = np.empty(self._batch, dtype=np.float32)
        for n in range(self._batch):
            item = self._held[self._draw_item(rng)]
            rows, columns = self._draw_place(item, rng)
            movement = Movement.drawn(rng)
            image_NCHW[n] = movement.apply(item.image_CHW[:, rows, columns])
            mask_NHW[n] = movement.apply(item.mask_HW[rows, columns])
            weight_N[n] = item.weight
            jitter_intensity(image_NCHW[n], self._jitter, rng)
        return Batch(image_NCHW=image_NCHW, mask_NHW=mask_NHW, weight_N=weight_N)

    def _draw_item(self, rng: np.random.Generator) -> int:
        trusted, others = self._groups
        if self._trusted_share is None or len(others) == 0:
            return int(rng.integers(len(self._held)))
        group = trusted if rng.random() < self._trusted_share else others
        return int(group[rng.integers(len(group))])

    def _draw_place(self, item: _Held, rng: np.random.Generator) -> tuple[slice, slice]:
        """Place a crop around a pixel that was looked at: so it is never all 255."""
        foreground = item.places[1:] if item.has_background else item.places
        wants_foreground = rng.random() < self._foreground_share
        if foreground and (wants_foreground or not item.has_background):
            # Classes alike, however rare: a blocked field has a dozen pixels of autolysosome.
            pixels = foreground[rng.integers(len(foreground))]
        else:
            pixels = item.places[0]
        row, column = pixels[rng.integers(len(pixels))]
        height, width = item.mask_HW.shape
        row_from, row_to, column_from, column_to = item.looked_at
        top = self._draw_start(int(row), height, row_from, row_to, rng)
        left = self._draw_start(int(column), width, column_from, column_to, rng)
        return slice(top, top + self._crop), slice(left, left + self._crop)

    def _draw_start(self, at: int, side: int, first: int, stop: int, rng: np.random.Generator) -> int:
        """Start of a crop that holds pixel ``at``, and as little unlooked-at margin as it can."""
        least, most = max(0, at - self._crop + 1), min(at, side - self._crop)
        if stop - first >= self._crop:
            least, most = max(least, first), min(most, stop - self._crop)
        else:
            least, most = max(least, stop - self._crop), min(most, first)
        return int(rng.integers(least, most + 1))


def _hold(
    item: TrainingItem,
    where: str,
    class_count: int,
    normalisation: Normalisation,
    crop: int,
    rng: np.random.Generator,
) -> _Held | None:
    """Check, normalise and pad one item; None if nobody looked at any of its pixels."""
    mask_HW = check_label_mask(item.mask_HW, class_count, where)
    if item.image_CHW.ndim != 3 or item.image_CHW.shape[1:] != mask_HW.shape:
        raise ShapeError(f"{where}: mask {mask_HW.shape}, image {item.image_CHW.shape}; expected (C, H, W)")
    if not (np.isfinite(item.weight) and item.weight >= 0.0):
        raise InputError(f"{where}: weight {item.weight}, expected a finite number >= 0")
    looked_at_HW = mask_HW != IGNORE
    if item.weight == 0.0 or not looked_at_HW.any():
        return None
    rows = np.flatnonzero(looked_at_HW.any(axis=1))
    columns = np.flatnonzero(looked_at_HW.any(axis=0))
    image_CHW = normalise(item.image_CHW, normalisation).astype(np.float16)
    pad_rows, pad_columns = (max(0, crop - side) for side in mask_HW.shape)
    if pad_rows or pad_columns:
        # An image smaller than the crop: mirrored, and the mirror image is not learnt from.
        image_CHW = np.pad(image_CHW, ((0, 0), (0, pad_rows), (0, pad_columns)), mode="symmetric")
        mask_HW = np.pad(mask_HW, ((0, pad_rows), (0, pad_columns)), constant_values=IGNORE)
    classes = [int(k) for k in np.unique(mask_HW) if k != IGNORE]
    return _Held(
        image_CHW,
        np.ascontiguousarray(mask_HW),
        item.weight,
        tuple(_some_pixels(mask_HW == k, rng) for k in classes),
        classes[0] == 0,
        (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1),
        int(looked_at_HW.sum()),
    )


def _some_pixels(is_class_HW: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int32]:
    """(row, column) of up to `_REMEMBERED_PIXELS` pixels, evenly drawn."""
    flat = np.flatnonzero(is_class_HW)
    if len(flat) > _REMEMBERED_PIXELS:
        flat = rng.choice(flat, _REMEMBERED_PIXELS, replace=False)
    return np.stack(np.unravel_index(flat, is_class_HW.shape), axis=1).astype(np.int32)
