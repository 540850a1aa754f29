"""A folder of masks that go with a plate: which file is of which image, and whether it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import RAW_SUFFIXES, read_mask
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import PlateError, ShapeError
from cytoloop.domain.types import ImageRecord, check_label_mask
from cytoloop.files import require_inside

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """One mask and the image it is of."""

    path: Path
    record: ImageRecord

    def read(self, assay: Assay) -> NDArray[np.uint8]:
        """The mask, checked: uint8 (H, W) of the image's size, 0…K-1 or 255.

        Raises
        ------
        ImageUnreadable
            If the file is damaged or no index image.
        ShapeError
            If it has another size than its image, or a value that is no class.
        """
        mask_HW = read_mask(self.path)
        size = (self.record.height, self.record.width)
        if mask_HW.shape != size:
            raise ShapeError(
                f"{self.path}: mask {mask_HW.shape}, its image {self.record.image_id!r} is {size}"
            )
        return check_label_mask(mask_HW, assay.class_count, str(self.path))


def masks_of(folder: Path, records: Sequence[ImageRecord]) -> list[MaskFile]:
    """The masks of a plate's images, ``<image_id>.png`` or ``.tif``, in order of ``image_id``; images may lack one.

    Raises
    ------
    PlateError
        If there is none, one is of no image, or two are of one.
    """
    by_id = {record.image_id: record for record in records}
    found: dict[str, MaskFile] = {}
    strangers = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in RAW_SUFFIXES or path.name.startswith("."):
            continue
        require_inside(path, folder, PlateError)
        record = by_id.get(path.stem)
        if record is None:
            strangers.append(path.name)
        elif path.stem in found:
            raise PlateError(
                f"{path}: {found[path.stem].path.name} is a mask of that image too; expected one"
            )
        else:
            found[path.stem] = MaskFile(path=path, record=record)
    if strangers:
        more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
        known = ", ".join(f"{image_id}.png" for image_id in sorted(by_id)[:_NAMED])
        raise PlateError(
            f"{folder}: {', '.join(strangers[:_NAMED])}{more}: no image of that id in the plate, expected names like {known}"
        )
    if not found:
        raise PlateError(f"{folder}: no mask, expected <image_id>.png of the plate's images")
    return [found[image_id] for image_id in sorted(found)]
