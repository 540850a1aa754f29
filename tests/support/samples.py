"""Small assays, fields of view and corrections for tests."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.types import Correction, ImageRecord, ModelVersion, StoredPrediction
from cytoloop.domain.types import Item as Item

NOON = datetime(2024, 5, 17, 12, 0, 0, tzinfo=UTC)


def make_assay(**changes: Any) -> Assay:
    """Two channels in one file, three classes, images cut into quarters."""
    values: dict[str, Any] = {
        "name": "rosella",
        "channels": (Channel(name="pHluorin", plane=0), Channel(name="DsRed", plane=1, colour="#ff0000")),
        "classes": (
            LabelClass(name="Background", colour="#000000"),
            LabelClass(name="Phagophore", colour="#f0e442", hotkey="1"),
            LabelClass(name="Autolysosome", colour="#56b4e9", hotkey="2"),
        ),
        "ignore": LabelClass(name="Ignore", colour="#999999", hotkey="9"),
        "cip": Cip(recipe="rosella"),
        "tiling": (2, 2),
        **changes,
    }
    return Assay(**values)


def make_record(image_id: str, *, group: str | None = None, **changes: Any) -> ImageRecord:
    """A field of 64 x 80 pixels that exists in no file."""
    values: dict[str, Any] = {
        "image_id": image_id,
        "image_key": hashlib.sha256(image_id.encode()).hexdigest(),
        "files": (f"/plate/{image_id}.tif",),
        "height": 64,
        "width": 80,
        "plate": "",
        "well": "",
        "field": "",
        "treatment": "",
        "group": image_id if group is None else group,
        **changes,
    }
    return ImageRecord(**values)


def make_correction(item: Item, annotation_id: int = 1, minutes: float = 0.0, **changes: Any) -> Correction:
    """An expert's mask of an item, saved ``minutes`` after noon."""
    values: dict[str, Any] = {
        "image_id": item.image_id,
        "tile": item.tile,
        "mask_HW": np.zeros((32, 40), np.uint8),
        "expert": "ada@example.com",
        "annotation_id": annotation_id,
        "task_id": 7,
        "annotated_at": NOON + timedelta(minutes=minutes),
        "parent_version": None,
        "lead_time_s": 61.5,
        "conflict_pixels": 0,
        **changes,
    }
    return Correction(**values)


def make_model(version: str = "cdl-20240517-00000000", **changes: Any) -> ModelVersion:
    """A candidate that has no weights."""
    values: dict[str, Any] = {
        "version": version,
        "assay": "rosella",
        "method": version.partition("-")[0],
        "status": "candidate",
        "digest": hashlib.sha256(version.encode()).hexdigest(),
        "parent": None,
        "snapshot": None,
        "config": {"epochs": 2},
        "metrics": {},
        "created_at": NOON,
        **changes,
    }
    return ModelVersion(**values)


def make_prediction(item: Item, **changes: Any) -> StoredPrediction:
    """A prediction without regions."""
    values: dict[str, Any] = {
        "version": "cdl-20240517-00000000",
        "item": item,
        "score": 0.5,
        "confidence": 0.5,
        "reason": "1 of 2 objects in doubt",
        "result": [],
        **changes,
    }
    return StoredPrediction(**values)


def write_field(path: Path, seed: int = 0) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """A 64 x 64 Rosella field with one object of each class, written as TIFF; image_CHW and truth_HW."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :64]
    truth_HW = np.zeros((64, 64), np.uint8)
    for value in (1, 2):
        row, column = rng.integers(10, 54, 2)
        truth_HW[(rows - row) ** 2 + (columns - column) ** 2 <= 30] = value
    grey = np.array([[900, 200], [6000, 2000], [300, 2500]])
    image_CHW = rng.poisson(np.moveaxis(grey[truth_HW], -1, 0)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image_CHW, photometric="minisblack")
    return image_CHW, truth_HW
