"""Doubt maps of leased items and of the window: which are lacking, and drawing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item
from cytoloop.pipeline.judging import doubt_of
from cytoloop.pipeline.predictors import Predictor
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.doubt import lacks_map
from labelstudio_config.renders import render_doubts


def lacking_doubts(store: Store, assay: Assay) -> list[Item]:
    """Leased items that show no doubt map yet: leased, or of a version published, since maps were last drawn."""
    records = {record.image_id: record for record in store.images.all(assay.name)}
    held = dict.fromkeys(lease.item for lease in store.leases.held(assay.name))
    return [item for item in held if lacks_map(store.home, assay, records[item.image_id], item.tile)]


def show_doubts(store: Store, assay: Assay, predictor: Predictor, items: Iterable[Item]) -> int:
    """Draw the doubt maps of these items, where the version is a network; returns how many are shown."""
    if "network" not in predictor.offers:
        return 0
    wanted = list(items)
    by_image: dict[str, list[int]] = {}
    for item in wanted:
        by_image.setdefault(item.image_id, []).append(item.tile)

    def maps() -> Iterator[tuple[ImageRecord, int, NDArray[np.floating], NDArray[np.uint8]]]:
        for image_id, of_image in sorted(by_image.items()):
            record = store.images.get(assay.name, image_id)
            prob_KHW = predictor.predict(record)
            doubt_HW = doubt_of(prob_KHW)
            mask_HW = prob_KHW.argmax(axis=0).astype(np.uint8)
            tiles = tiles_of(record.height, record.width, assay.tiling)
            # asked again: an item may have been leased since, to be judged alone
            hidden = hidden_doubts(store, assay, [Item(image_id=image_id, tile=tile) for tile in of_image])
            for tile in of_image:
                if Item(image_id=image_id, tile=tile) in hidden:
                    continue
                slices = tiles[tile].slices
                yield record, tile, doubt_HW[slices], mask_HW[slices]

    return render_doubts(store, assay, maps(), hidden_doubts(store, assay, wanted))
