"""What a version says of corrected items, beside what experts said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay, Cip
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.metrics import Calibration, calibration_of
from cytoloop.domain.scoring import entropy
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item
from cytoloop.pipeline.predictors import Predictor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedItem:
    """One corrected item: an expert's mask and a version's."""

    correction: StoredCorrection
    truth_HW: NDArray[np.uint8]
    pred_HW: NDArray[np.uint8]
    calibration: Calibration
    """Sums that stay when the probabilities are gone: a plate's would not fit into memory."""
    seconds: float
    """To read and predict the whole image this item is of."""

    @property
    def name(self) -> str:
        """``image_id`` and tile, for tables."""
        return f"{self.correction.item.image_id}/{self.correction.item.tile}"


def judged_items(
    store: Store,
    assay: Assay,
    predictor: Predictor,
    corrections: Iterable[StoredCorrection],
) -> Iterator[JudgedItem]:
    """Predict the image of each correction once and cut out the corrected tiles."""
    ordered = sorted(corrections, key=lambda c: c.item)
    for image_id, of_image in groupby(ordered, key=lambda c: c.item.image_id):
        record = store.images.get(assay.name, image_id)
        begun = perf_counter()
        prob_KHW = predictor.predict(record)
        seconds = perf_counter() - begun
        pred_HW = prob_KHW.argmax(axis=0).astype(np.uint8)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for correction in of_image:
            rows, columns = tiles[correction.item.tile].slices
            truth_HW = store.masks.get(correction.mask)
            yield JudgedItem(
                correction=correction,
                truth_HW=truth_HW,
                pred_HW=pred_HW[rows, columns],
                calibration=calibration_of(prob_KHW[:, rows, columns], truth_HW),
                seconds=seconds,
            )


def predicted_masks(
    store: Store, assay: Assay, predictor: Predictor, items: Iterable[Item]
) -> Iterator[tuple[Item, NDArray[np.uint8]]]:
    """Mask of each item, by item; each image is predicted once."""
    for image_id, of_image in groupby(sorted(items), key=lambda item: item.image_id):
        record = store.images.get(assay.name, image_id)
        pred_HW = predictor.predict(record).argmax(axis=0).astype(np.uint8)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for item in of_image:
            yield item, pred_HW[tiles[item.tile].slices]


def doubt_of(prob_KHW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Entropy of each pixel as a share of its maximum ln K: 0 (sure) … 1 (no idea), shape (H, W)."""
    doubt_HW: NDArray[np.float32] = np.clip(entropy(prob_KHW) / np.log(len(prob_KHW)), 0, 1).astype(
        np.float32
    )
    return doubt_HW


def doubt_maps(
    store: Store, assay: Assay, predictor: Predictor, items: Iterable[Item]
) -> dict[Item, NDArray[np.float32]]:
    """How unsure a version is of each pixel of these items.

    Returns
    -------
    doubts : dict of Item to ndarray of float32, shape (H, W)
        Entropy as a share of its maximum ln K: 0 (sure) … 1 (no idea).
    """
    doubts: dict[Item, NDArray[np.float32]] = {}
    for image_id, of_image in groupby(sorted(items), key=lambda item: item.image_id):
        record = store.images.get(assay.name, image_id)
        prob_KHW = predictor.predict(record)
        doubt_HW = doubt_of(prob_KHW)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for item in of_image:
            doubts[item] = doubt_HW[tiles[item.tile].slices]
    return doubts


def recipe_seconds(assay: Assay, cip: Cip, records: Iterable[ImageRecord]) -> list[float]:
    """Seconds a CIP takes for each image of an assay, reading included.

    The recipe is run anew: a stored weak label would only tell how fast a file is read.
    """
    seconds = []
    for record in records:
        begun = perf_counter()
        make_weak_label(read_image(record, assay), record.image_key, cip)
        seconds.append(perf_counter() - begun)
    return seconds
