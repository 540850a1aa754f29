"""Labelled images in memory, and the batches a training step learns from: random crops, or items whole.

Legend: N batch, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
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

_LEAST_SIDE = 32
"""Pixels; an item that goes in whole shows at least so much around a small area looked at."""

_SURE = 255
"""A confidence of 1 as it is held."""

Box = tuple[int, int, int, int]
"""First row, last row + 1, first column, last column + 1."""


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
    confidence_HW: NDArray[np.float32] | None = None
    """How sure each pixel of the mask is, 0…1, relative to the others of its image; None = all sure.
    A pixel of confidence 0 counts as not looked at. Held in steps of 1/255."""
    area: tuple[slice, slice] | None = None
    """Rows and columns that go in where items go in whole: the tile an expert had before them.
    None: the smallest rectangle with every pixel looked at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one training step sees."""

    image_NCHW: NDArray[np.float32]
    mask_NHW: NDArray[np.uint8]
    weight_N: NDArray[np.float32]
    confidence_NHW: NDArray[np.uint8] | None
    """255 = 1, all sure; None if no item of the run has any doubt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Items of one trust, and how much of the loss is theirs."""

    items: int
    pixels: int
    """Looked at."""
    weight: float
    """Mean over the items."""
    drawn_share: float
    """Expected share of the crops (or whole items) of an epoch, 0…1."""
    loss_share: float
    """The same, each multiplied by its item's weight: the share of the gradient, 0…1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Held:
    """An item, normalised, as it lies in memory."""

    image_CHW: NDArray[np.float16]
    mask_HW: NDArray[np.uint8]
    confidence_HW: NDArray[np.uint8] | None
    weight: float
    looked_at: Box
    """Holds every pixel looked at."""
    pixels: int
    """Looked at."""


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where the crops of an item may lie."""

    of_class: tuple[NDArray[np.int32], ...]
    """(row, column) of pixels, one array per class that occurs; background first if it does."""
    has_background: bool


class Sampler:
    """Items held in memory, of which a subclass makes batches.

    Images are normalised once and held as 16-bit floats: half the memory, and an error of 1/2048 of
    a value, far below the noise of the camera. Items are read one by one, so a sequence that reads
    its files lazily never has all raw images in memory.

    A batch is a function of its index alone: whoever draws it, in whatever order or thread, the same
    seed gives the same batches.
    """

    steps_per_epoch: int
    """Batches that show each pixel looked at once (on average, where crops are drawn)."""

    def __init__(self, held: list[_Held], items: int, jitter: float, seed: int) -> None:
        if not held:
            raise InputError(f"training: {items} items, none with a pixel looked at; expected at least one")
        channels = {h.image_CHW.shape[0] for h in held}
        if len(channels) != 1:
            raise ShapeError(f"training: items of {sorted(channels)} channels, expected the same in all")
        self._held = held
        self._jitter = jitter
        self._seed = seed
        self._has_doubts = any(h.confidence_HW is not None for h in held)
        top = max(h.weight for h in held)
        self._trusted = np.flatnonzero([h.weight == top for h in held])
        self._others = np.flatnonzero([h.weight < top for h in held])
        self.channels: int = channels.pop()
        self.item_count = len(held)
        self.looked_at_pixels = sum(h.pixels for h in held)

    def batch(self, index: int) -> Batch:
        """Return the batch of that index (from 0), always the same one."""
        raise NotImplementedError

    def sources(self) -> tuple[Source, ...]:
        """Return the items of the greatest weight, then the others if there are any."""
        groups = [group for group in (self._trusted, self._others) if len(group)]
        drawn = [self._drawn_share(group) for group in groups]
        weights = [float(np.mean([self._held[i].weight for i in group])) for group in groups]
        total = sum(share * weight for share, weight in zip(drawn, weights, strict=True))
        return tuple(
            Source(
                items=len(group),
                pixels=sum(self._held[i].pixels for i in group),
                weight=weight,
                drawn_share=share,
                loss_share=share * weight / total,
            )
            for group, share, weight in zip(groups, drawn, weights, strict=True)
        )

    def digest(self) -> str:
        """SHA-256 (hex) of everything held: equal digests, equal batches."""
        sha = hashlib.sha256()
        for held in self._held:
            sha.update(repr((held.image_CHW.shape, held.weight, held.looked_at)).encode())
            for array in (held.image_CHW, held.mask_HW, held.confidence_HW):
                if array is not None:
                    sha.update(np.ascontiguousarray(array).data)
        return sha.hexdigest()

    def _drawn_share(self, group: NDArray[np.intp]) -> float:
        return len(group) / len(self._held)

    def _empty(self, count: int, height: int, width: int) -> Batch:
        return Batch(
            image_NCHW=np.empty((count, self.channels, height, width), dtype=np.float32),
            mask_NHW=np.empty((count, height, width), dtype=np.uint8),
            weight_N=np.empty(count, dtype=np.float32),
            confidence_NHW=np.empty((count, height, width), dtype=np.uint8) if self._has_doubts else None,
        )

    def _fill(
        self, batch: Batch, n: int, held: _Held, at: tuple[slice, slice], movement: Movement,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        """Put a part of an item into a batch: image, mask and confidence moved alike."""
        batch.image_NCHW[n] = movement.apply(held.image_CHW[:, *at])
        batch.mask_NHW[n] = movement.apply(held.mask_HW[at])
        batch.weight_N[n] = held.weight
        if batch.confidence_NHW is not None:
            batch.confidence_NHW[n] = (
                _SURE if held.confidence_HW is None else movement.apply(held.confidence_HW[at])
            )
        jitter_intensity(batch.image_NCHW[n], self._jitter, rng)


class CropSampler(Sampler):
    """Draws batches of square crops, around foreground more often than not."""

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
        rng = np.random.default_rng((seed, 0))
        held: list[_Held] = []
        self._places: list[_Places] = []
        for index, item in enumerate(items):
            kept = _hold(item, f"training item {index}", class_count, normalisation)
            if kept is not None:
                held.append(_padded(kept, crop))
                self._places.append(_places(kept.mask_HW, rng))
        super().__init__(held, len(items), jitter, seed)
        self.steps_per_epoch = -(-self.looked_at_pixels // (batch * crop**2))

    def batch(self, index: int) -> Batch:
        """Return the batch of that index (from 0), always the same one."""
        rng = np.random.default_rng((self._seed, 1, index))
        batch = self._empty(self._batch, self._crop, self._crop)
        for n in range(self._batch):
            drawn = self._draw_item(rng)
            at = self._draw_place(self._held[drawn], self._places[drawn], rng)
            self._fill(batch, n, self._held[drawn], at, Movement.drawn(rng), rng)
        return batch

    def _drawn_share(self, group: NDArray[np.intp]) -> float:
        if self._trusted_share is None or len(self._others) == 0:
            return super()._drawn_share(group)
        return self._trusted_share if group is self._trusted else 1.0 - self._trusted_share

    def _draw_item(self, rng: np.random.Generator) -> int:
        if self._trusted_share is None or len(self._others) == 0:
            return int(rng.integers(len(self._held)))
        group = self._trusted if rng.random() < self._trusted_share else self._others
        return int(group[rng.integers(len(group))])

    def _draw_place(self, item: _Held, places: _Places, rng: np.random.Generator) -> tuple[slice, slice]:
        """Place a crop around a pixel that was looked at: so it is never all 255."""
        foreground = places.of_class[1:] if places.has_background else places.of_class
        wants_foreground = rng.random() < self._foreground_share
        if foreground and (wants_foreground or not places.has_background):
            # Classes alike, however rare: a blocked field has a dozen pixels of autolysosome.
            pixels = foreground[rng.integers(len(foreground))]
        else:
            pixels = places.of_class[0]
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


class WholeSampler(Sampler):
    """Shows every item whole, once an epoch, in an order that seed and epoch decide.

    An item is its image cut to ``TrainingItem.area``. Items of one size share batches; the last batch
    of a size may be smaller. All of a batch are turned by an even or all by an odd number of quarters,
    so that they keep one shape.
    """

    def __init__(
        self,
        items: Sequence[TrainingItem],
        *,
        class_count: int,
        normalisation: Normalisation,
        batch: int,
        jitter: float,
        seed: int,
    ) -> None:
        held: list[_Held] = []
        for index, item in enumerate(items):
            where = f"training item {index}"
            kept = _hold(item, where, class_count, normalisation)
            if kept is not None:
                held.append(_cut(kept, item.area, where))
        super().__init__(held, len(items), jitter, seed)
        self._batch = batch
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, one in enumerate(held):
            by_size.setdefault(one.mask_HW.shape, []).append(number)
        self._by_size = [np.array(numbers) for _, numbers in sorted(by_size.items())]
        self.steps_per_epoch = sum(-(-len(numbers) // batch) for numbers in self._by_size)

    def batch(self, index: int) -> Batch:
        """Return the batch of that index (from 0), always the same one."""
        epoch, step = divmod(index, self.steps_per_epoch)
        numbers = self._planned(epoch)[step]
        rng = np.random.default_rng((self._seed, 1, index))
        odd = int(rng.integers(2))
        height, width = self._held[numbers[0]].mask_HW.shape
        batch = self._empty(len(numbers), *((width, height) if odd else (height, width)))
        for n, number in enumerate(numbers):
            movement = Movement(
                quarter_turns=odd + 2 * int(rng.integers(2)), is_mirrored=bool(rng.integers(2))
            )
            self._fill(batch, n, self._held[number], (slice(None), slice(None)), movement, rng)
        return batch

    def _planned(self, epoch: int) -> list[NDArray[np.intp]]:
        """Return which items are in each batch of an epoch."""
        rng = np.random.default_rng((self._seed, 2, epoch))
        batches = [
            shuffled[first : first + self._batch]
            for shuffled in (rng.permutation(numbers) for numbers in self._by_size)
            for first in range(0, len(shuffled), self._batch)
        ]
        return [batches[i] for i in rng.permutation(len(batches))]


def _hold(item: TrainingItem, where: str, class_count: int, normalisation: Normalisation) -> _Held | None:
    """Check and normalise one item; None if nobody looked at any of its pixels."""
    mask_HW = check_label_mask(item.mask_HW, class_count, where)
    if item.image_CHW.ndim != 3 or item.image_CHW.shape[1:] != mask_HW.shape:
        raise ShapeError(f"{where}: mask {mask_HW.shape}, image {item.image_CHW.shape}; expected (C, H, W)")
    if not (np.isfinite(item.weight) and item.weight >= 0.0):
        raise InputError(f"{where}: weight {item.weight}, expected a finite number >= 0")
    confidence_HW = _held_confidence(item, where)
    if confidence_HW is not None:
        mask_HW = np.where(confidence_HW > 0, mask_HW, np.uint8(IGNORE))
    looked_at_HW = mask_HW != IGNORE
    if item.weight == 0.0 or not looked_at_HW.any():
        return None
    rows = np.flatnonzero(looked_at_HW.any(axis=1))
    columns = np.flatnonzero(looked_at_HW.any(axis=0))
    return _Held(
        image_CHW=normalise(item.image_CHW, normalisation).astype(np.float16),
        mask_HW=np.ascontiguousarray(mask_HW),
        confidence_HW=confidence_HW,
        weight=item.weight,
        looked_at=(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1),
        pixels=int(looked_at_HW.sum()),
    )


def _held_confidence(item: TrainingItem, where: str) -> NDArray[np.uint8] | None:
    confidence_HW = item.confidence_HW
    if confidence_HW is None:
        return None
    if confidence_HW.shape != item.mask_HW.shape:
        raise ShapeError(f"{where}: confidence {confidence_HW.shape}, mask {item.mask_HW.shape}")
    # Written so that a value that is no number fails too.
    if not (confidence_HW.min() >= 0.0 and confidence_HW.max() <= 1.0):
        raise InputError(
            f"{where}: confidence {confidence_HW.min()} to {confidence_HW.max()}, expected 0 to 1"
        )
    return np.round(confidence_HW * np.float32(_SURE)).astype(np.uint8)


def _padded(held: _Held, crop: int) -> _Held:
    """An image smaller than the crop is mirrored, and the mirror image is not learnt from."""
    rows, columns = (max(0, crop - side) for side in held.mask_HW.shape)
    if not (rows or columns):
        return held
    margin = ((0, rows), (0, columns))
    confidence_HW = held.confidence_HW
    return _Held(
        image_CHW=np.pad(held.image_CHW, ((0, 0), *margin), mode="symmetric"),
        mask_HW=np.pad(held.mask_HW, margin, constant_values=IGNORE),
        confidence_HW=None if confidence_HW is None else np.pad(confidence_HW, margin),
        weight=held.weight,
        looked_at=held.looked_at,
        pixels=held.pixels,
    )


def _cut(held: _Held, area: tuple[slice, slice] | None, where: str) -> _Held:
    """Cut an item to its area; what is looked at outside of it would be lost, and is refused."""
    height, width = held.mask_HW.shape
    top, bottom, left, right = held.looked_at
    if area is None:
        (top, bottom), (left, right) = _widened(top, bottom, height), _widened(left, right, width)
    else:
        (row_from, row_to, _), (column_from, column_to, _) = (
            side.indices(length) for side, length in zip(area, (height, width), strict=True)
        )
        if not (row_from <= top and bottom <= row_to and column_from <= left and right <= column_to):
            raise InputError(
                f"{where}: looked at in rows {top} to {bottom}, columns {left} to {right}; "
                f"expected all of it in its area, {row_from} to {row_to}, {column_from} to {column_to}"
            )
        top, bottom, left, right = row_from, row_to, column_from, column_to
    if min(bottom - top, right - left) < _LEAST_SIDE:
        raise InputError(
            f"{where}: ({bottom - top}, {right - left}) pixels; expected at least {_LEAST_SIDE} x "
            f"{_LEAST_SIDE} where items go in whole"
        )
    rows, columns = slice(top, bottom), slice(left, right)
    confidence_HW = held.confidence_HW
    return _Held(
        # Copies, so that the rest of the image is not kept.
        image_CHW=held.image_CHW[:, rows, columns].copy(),
        mask_HW=held.mask_HW[rows, columns].copy(),
        confidence_HW=None if confidence_HW is None else confidence_HW[rows, columns].copy(),
        weight=held.weight,
        looked_at=held.looked_at,
        pixels=held.pixels,
    )


def _widened(first: int, stop: int, side: int) -> tuple[int, int]:
    """Return a stretch of at least `_LEAST_SIDE` around this one, where the side has as much."""
    first = max(0, min(first, stop - _LEAST_SIDE))
    return first, min(side, max(stop, first + _LEAST_SIDE))


def _places(mask_HW: NDArray[np.uint8], rng: np.random.Generator) -> _Places:
    classes = [int(k) for k in np.unique(mask_HW) if k != IGNORE]
    return _Places(tuple(_some_pixels(mask_HW == k, rng) for k in classes), classes[0] == 0)


def _some_pixels(is_class_HW: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int32]:
    """(row, column) of up to `_REMEMBERED_PIXELS` pixels, evenly drawn."""
    flat = np.flatnonzero(is_class_HW)
    if len(flat) > _REMEMBERED_PIXELS:
        flat = rng.choice(flat, _REMEMBERED_PIXELS, replace=False)
    return np.stack(np.unravel_index(flat, is_class_HW.shape), axis=1).astype(np.int32)
