"""Masks from elsewhere as pre-annotations that experts edit: checked first, then kept, then shown.

An item with an imported mask shows it in the place of the model's, as an item of CIP's canvas does (see `canvas`): it
goes under the version in force there, since Label Studio scores an item by no other, and the store knows better. What
an expert makes of it is noted as begun with ``imported-…``, so that no model is credited with it or blamed for it.
The ranking stays the model's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.mask_folder import MaskFile
from cytoloop.adapters.store import Store
from cytoloop.adapters.store.imported import ImportedMask
from cytoloop.domain.assay import Assay
from cytoloop.domain.digest import digest_of, digest_of_pixels
from cytoloop.domain.errors import InputError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import IMPORTED, Item
from labelstudio_config.payloads import drawn_mask, prediction_result
from labelstudio_config.publish import PUSH_CHUNK, documents_of

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]


def check_masks(files: Sequence[MaskFile], assay: Assay, progress: Progress | None = None) -> dict[str, str]:
    """Digest by ``image_id`` of masks that survive the way to the editor and back; nothing is stored.

    Raises
    ------
    ImageUnreadable, ShapeError
        If a file is no mask of its image.
    InputError
        If a mask comes back from Label Studio's regions with other pixels.
    """
    digests = {}
    for done, file in enumerate(files, start=1):
        mask_HW = file.read(assay)
        for tile in tiles_of(mask_HW.shape[0], mask_HW.shape[1], assay.tiling):
            _check_round_trip(mask_HW[tile.slices], assay, f"{file.path}: tile {tile.index}")
        digests[file.record.image_id] = digest_of_pixels(mask_HW)
        if progress:
            progress(done, len(files))
    return digests


def _check_round_trip(mask_HW: NDArray[np.uint8], assay: Assay, where: str) -> None:
    size = (mask_HW.shape[0], mask_HW.shape[1])
    back_HW = drawn_mask(prediction_result(mask_HW, assay), assay, size, where).mask_HW
    changed = int(np.count_nonzero(back_HW != mask_HW))
    if changed:
        raise InputError(
            f"{where}: {changed} pixels come back from the editor's regions as others, expected none"
        )


def put_masks(
    store: Store, assay: Assay, files: Sequence[MaskFile], digests: dict[str, str]
) -> list[ImportedMask]:
    """Write checked masks to the home, those that are new, as one import; `Imported.add` makes them count.

    Apart, since files take long and a transaction that waits for them would hold up what experts submit. What is
    written and never counts lies under its digest and does no harm.

    Raises
    ------
    InputError
        If a file was changed since it was checked.
    """
    known = store.imported.latest(assay.name)
    new = [file for file in files if known.get(file.record.image_id) != digests[file.record.image_id]]
    if not new:
        return []
    hexes = digest_of({file.record.image_id: digests[file.record.image_id] for file in new})
    version = f"{IMPORTED}-{datetime.now(UTC):%Y%m%d}-{hexes[:8]}"
    finished = store.corrections.finished_items(assay.name)
    masks = []
    for file in new:
        record = file.record
        stored = store.masks.put(file.read(assay))
        if stored != digests[record.image_id]:
            raise InputError(
                f"{file.path}: was changed while it was imported; expected the mask that was checked"
            )
        tiles = tiles_of(record.height, record.width, assay.tiling)
        open_tiles = [t.index for t in tiles if Item(image_id=record.image_id, tile=t.index) not in finished]
        masks.append(
            ImportedMask(
                image_id=record.image_id,
                version=version,
                mask=stored,
                tiles=frozenset(open_tiles),
                source=str(file.path.resolve()),
            )
        )
    logger.info("masks written assay=%s version=%s images=%d", assay.name, version, len(masks))
    return masks


def show_masks(label_studio: LabelStudio, store: Store, assay: Assay, image_ids: Collection[str]) -> int:
    """Bring imported masks to predictions that Label Studio holds already; returns how many.

    What it is told of later shows them anyway.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    version = store.models.active(assay.name).version
    held = label_studio.prediction_tasks(project_id, version)
    items = [item for item, task in store.images.tasks(assay.name).items() if task in held]
    stale = list(store.imported.shown(assay.name, [item for item in items if item.image_id in image_ids]))
    for start in range(0, len(stale), PUSH_CHUNK):
        documents = documents_of(store, assay, version, stale[start : start + PUSH_CHUNK])
        label_studio.replace_predictions(project_id, documents)
    return len(stale)
