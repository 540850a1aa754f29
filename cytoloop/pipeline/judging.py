"""What a version says of corrected items, beside what experts said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.tiling import tiles_of
from cytoloop.pipeline.predictors import Predictor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedItem:
    """One corrected item: an expert's mask and a version's."""

    correction: StoredCorrection
    truth_HW: NDArray[np.uint8]
    pred_HW: NDArray[np.uint8]

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
        pred_HW = predictor.predict(record).argmax(axis=0).astype(np.uint8)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for correction in of_image:
            yield JudgedItem(
                correction=correction,
                truth_HW=store.masks.get(correction.mask),
                pred_HW=pred_HW[tiles[correction.item.tile].slices],
            )
