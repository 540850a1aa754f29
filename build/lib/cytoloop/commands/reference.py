"""Masks that are known to be right (a simulator's truth, an earlier study) as annotations.

They go through Label Studio like any expert's, so that both stores agree; their time is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_mask
from cytoloop.adapters.plates import label_folder
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import PlateError, ShapeError
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, Split, check_label_mask
from labelstudio_config.intake import Intake
from labelstudio_config.payloads import prediction_result


class Truth:
    """Reference masks of whole images, cut into items."""

    def __init__(self, source: Path, assay: Assay) -> None:
        folder = label_folder(source)
        if folder is None:
            raise PlateError(f"{source}: no folder 'labels' with reference masks in it")
        self._folder = folder
        self._assay = assay

    def image(self, image_id: str, height: int, width: int) -> NDArray[np.uint8]:
        """The mask of an image, checked."""
        path = self._folder / f"{image_id}.png"
        mask_HW = check_label_mask(read_mask(path), self._assay.class_count, str(path))
        if mask_HW.shape != (height, width):
            raise ShapeError(f"{path}: mask {mask_HW.shape}, image ({height}, {width})")
        return mask_HW

    def item(self, item: Item, height: int, width: int) -> NDArray[np.uint8]:
        """The mask of one tile."""
        tile = tiles_of(height, width, self._assay.tiling)[item.tile]
        return self.image(item.image_id, height, width)[tile.slices]

    def regions(self, item: Item, height: int, width: int) -> list[dict[str, Any]]:
        """The tile's mask as regions of an annotation."""
        return prediction_result(self.item(item, height, width), self._assay)


def submit_reference(
    home: Home,
    assay: Assay,
    truth: Truth,
    splits: Iterable[Split],
    tiles_per_image: int,
    tell: Callable[[str, int, int], None],
) -> int:
    """Annotate items of held-out wells with their reference masks; returns how many were new.

    Tiles are taken in turn (image n gives tile n, n+1, …), so that no corner of the field is favoured.
    """
    # What Label Studio holds already, heard of or not: an earlier start may have been cut off.
    Intake(home.store, home.label_studio, home.load).reconcile(assay)
    finished = home.store.corrections.finished_items(assay.name)
    tasks = home.store.images.tasks(assay.name)
    wanted: list[tuple[Item, int, int]] = []
    for number, record in enumerate(home.store.images.all(assay.name, splits)):
        count = assay.tiling[0] * assay.tiling[1]
        for step in range(min(tiles_per_image, count)):
            item = Item(image_id=record.image_id, tile=(number + step) % count)
            if item not in finished:
                wanted.append((item, record.height, record.width))
    for done, (item, height, width) in enumerate(wanted, start=1):
        task_id = tasks[item]
        if task_id is not None:
            home.label_studio.create_annotation(task_id, truth.regions(item, height, width), None)
        tell("reference masks", done, len(wanted))
    return len(wanted)
