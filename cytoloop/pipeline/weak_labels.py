"""CIP on every image of the store, each mask kept with its recipe and code version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import (
    CODE_VERSION,
    make_weak_label,
    plate_illumination,
    recipe_digest,
)
from cytoloop.domain.types import ImageRecord

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


def illumination_of(records: Sequence[ImageRecord], assay: Assay) -> NDArray[np.float32] | None:
    """Illumination image of one plate, where the recipe wants one and the plate has enough fields."""
    # 64 fields spread over the plate are enough for a smooth field, and bound the time
    step = max(1, len(records) // 64)
    return plate_illumination((read_image(record, assay) for record in records[::step]), assay.cip)


def weak_label_store(store: Store, assay: Assay, progress: Progress | None = None) -> int:
    """Make the weak labels that are missing; returns how many were made.

    A mask is missing where the assay's present recipe and this code have not seen the image.
    """
    digest = recipe_digest(assay.cip)
    known = store.images.weak_labels(assay.name, digest, CODE_VERSION)
    records = store.images.all(assay.name)
    missing = {record.image_id for record in records if record.image_id not in known}
    made = 0
    for _plate, fields in groupby(sorted(records, key=lambda r: (_optics(r), r.image_id)), key=_optics):
        of_plate = list(fields)
        todo = [record for record in of_plate if record.image_id in missing]
        if not todo:
            continue
        illumination_CHW = illumination_of(of_plate, assay)
        for record in todo:
            weak = make_weak_label(read_image(record, assay), record.image_key, assay.cip, illumination_CHW)
            mask = store.masks.put(weak.mask_HW)
            confidence = None if weak.confidence_HW is None else store.masks.put(weak.confidence_HW)
            store.images.add_weak_label(
                assay.name, record, weak.recipe, weak.recipe_digest, weak.code_version, mask, confidence
            )
            made += 1
            if progress:
                progress(made, len(missing))
    logger.info("weak labels made=%d recipe=%s digest=%s", made, assay.cip.recipe, digest[:12])
    return made


def _optics(record: ImageRecord) -> tuple[str, int, int]:
    """What shares one illumination: a plate, and the size of image it was taken with."""
    return record.plate, record.height, record.width


def weak_masks(store: Store, assay: Assay) -> dict[str, str]:
    """Mask digest by ``image_id``: what a model learns from where no expert looked.

    The masks of the assay's present recipe; of an image whose mask was imported, that one.
    """
    of_recipe = store.images.weak_labels(assay.name, recipe_digest(assay.cip), CODE_VERSION)
    return {**of_recipe, **store.imported.latest(assay.name)}


def weak_confidences(store: Store, assay: Assay) -> dict[str, str]:
    """Digest of the confidence by ``image_id``, of those masks that teachers voted for."""
    voted = store.images.weak_confidences(assay.name, recipe_digest(assay.cip), CODE_VERSION)
    imported = store.imported.latest(assay.name)
    return {image_id: digest for image_id, digest in voted.items() if image_id not in imported}
