"""A version's look at an image -> what Label Studio is told of each item, and its place in the ranking."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cytoloop.adapters.store.scores import Scored
from cytoloop.domain.assay import Assay
from cytoloop.domain.expected_effort import MINUTES_AS_FIXED, MinutesModel
from cytoloop.domain.scoring import Look, score_item
from cytoloop.domain.strategies import Strategy
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, StoredPrediction
from cytoloop.domain.worklist import Candidate, lot_of
from labelstudio_config.payloads import confidence_of, prediction_result


def prelabel(
    record: ImageRecord,
    look: Look,
    assay: Assay,
    version: str,
    strategy: Strategy,
    minutes: MinutesModel = MINUTES_AS_FIXED,
) -> tuple[list[StoredPrediction], list[Scored]]:
    """Regions, scores and reason of every item of an image; the strategy's value is what orders them.

    ``minutes`` is for the words: a place in the ranking has its minutes at the fixed prices.
    """
    predictions, ranked = [], []
    for tile in tiles_of(record.height, record.width, assay.tiling):
        item = Item(image_id=record.image_id, tile=tile.index)
        scores = score_item(look, tile.slices, minutes=minutes)
        lot = lot_of(assay.name, item)
        # at the fixed prices, as what is ranked again later: an expert's scale would not change an order
        value = strategy.value(replace(scores, minutes=scores.minutes / minutes.scale), lot)
        confidence = confidence_of(value, record.image_key, tile.index)
        mask_HW = look.prob_KHW[:, tile.slices[0], tile.slices[1]].argmax(axis=0).astype(np.uint8)
        predictions.append(
            StoredPrediction(
                version=version,
                item=item,
                score=value,
                confidence=confidence,
                reason=scores.reason,
                result=prediction_result(mask_HW, assay),
            )
        )
        candidate = Candidate(
            item=item,
            split=record.split,
            group=record.group,
            plate=record.plate,
            score=value,
            confidence=confidence,
            lot=lot,
            minutes=scores.minutes / minutes.scale,  # at the fixed prices: each expert has a scale
            features_F=scores.features_F,
        )
        ranked.append(Scored(candidate=candidate, values=scores.values, reason=scores.reason))
    return predictions, ranked
