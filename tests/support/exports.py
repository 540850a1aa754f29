"""Small exports of Harmony: two wells, two fields each, two channels of 12 x 16 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoloop.adapters.harmony_index import RecordedField, index_document, plane_name

FIELDS = [
    RecordedField(row=row, column=column, field=field, height=12, width=16)
    for row, column in ((2, 3), (16, 24))
    for field in (1, 2)
]
CHANNELS = ("DAPI", "Alexa 488")


def pixels_of(number: int, channel: int) -> NDArray[np.uint16]:
    """What field ``number`` shows in a channel (from 1)."""
    return np.random.default_rng([number, channel]).integers(0, 4096, (12, 16), dtype=np.uint16)


def write_export(folder: Path, plate: str = "P 1", pixel_size_um: float = 0.2152) -> Path:
    """Write an export; its index is returned."""
    images = folder / "Images"
    images.mkdir(parents=True)
    for number, one in enumerate(FIELDS):
        for channel in (1, 2):
            tifffile.imwrite(images / plane_name(one, channel), pixels_of(number, channel))
    index = images / "Index.idx.xml"
    index.write_bytes(index_document(plate, FIELDS, CHANNELS, pixel_size_um))
    return index
