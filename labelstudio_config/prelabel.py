"""A version's probabilities -> what Label Studio is told of each item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import Assay
from cytoloop.domain.scoring import score_item
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, StoredPrediction
from labelstudio_config.payloads import confidence_of, prediction_result


def prelabel(
    record: ImageRecord, prob_KHW: NDArray[np.float32], assay: Assay, version: str
) -> list[StoredPrediction]:
    """Regions, score and reason of every item of an image."""
    predictions = []
    for tile in tiles_of(record.height, record.width, assay.tiling):
        rows, columns = tile.slices
        of_tile_KHW = prob_KHW[:, rows, columns]
        scored = score_item(of_tile_KHW)
        predictions.append(
            StoredPrediction(
                version=version,
                item=Item(image_id=record.image_id, tile=tile.index),
                score=scored.score,
                confidence=confidence_of(scored.score, record.image_key, tile.index),
                reason=scored.reason,
                result=prediction_result(of_tile_KHW.argmax(axis=0).astype(np.uint8), assay),
            )
        )
    return predictions
