"""A home with six simulated fields in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from samples import Item, make_assay, make_correction, write_field

from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Split


@dataclass
class SmallHome:
    """A store and a registry, and the truth of every field."""

    store: Store
    registry: Registry
    assay: Assay
    truth: dict[str, NDArray[np.uint8]]
    plate: Path
    annotations: int = 0

    def of(self, split: Split) -> list[ImageRecord]:
        return self.store.images.all(self.assay.name, [split])

    def truth_of(self, item: Item) -> NDArray[np.uint8]:
        return self.truth[item.image_id][tiles_of(64, 64, self.assay.tiling)[item.tile].slices]

    def correct(
        self, image_id: str, tile: int, mask_HW: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Save the truth of a tile (or another mask) as an expert would."""
        item = Item(image_id=image_id, tile=tile)
        if mask_HW is None:
            mask_HW = self.truth_of(item)
        self.annotations += 1
        correction = make_correction(item, self.annotations, self.annotations)
        self.store.corrections.append(self.assay.name, correction, self.store.masks.put(mask_HW))
        return mask_HW


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[SmallHome]:
    plate = tmp_path / "plate"
    truth = {}
    for number in range(6):
        image_id = f"P_B{number + 1:02d}_f1"
        truth[image_id] = write_field(plate / f"{image_id}.tif", number)[1]
    assay = make_assay()
    store = Store(tmp_path / "home")
    store.assays.ensure(assay)
    store.images.add(assay, read_plate(plate, assay))
    yield SmallHome(store, Registry(tmp_path / "home" / "models"), assay, truth, plate)
    store.close()
