"""``cytoloop export``: corrected masks as files, and for each who drew it, when, and on what.

OUT/provenance.json          assay, versions, time, every file with its SHA-256
OUT/index.csv                a line an item: where it is, whose mask it is, what it was begun with
OUT/items/<image>_t<tile>.png    format png: indexed 8 bit; the value of a pixel is its class, 255 is not known
OUT/masks/<image>.png            format png: whole images, of which every tile is there
OUT/coco.json                    format coco: an annotation an object, on whole images; tiles that are not there are crowds
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.export_folder import ExportFolder, file_name
from cytoloop.adapters.images import encode_mask, palette_of
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.coco import annotations_of, categories_of
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import StateError
from cytoloop.domain.tiling import Tile, tiles_of
from cytoloop.domain.types import ImageRecord, Item
from cytoloop.pipeline.provenance import code_version

if TYPE_CHECKING:
    from pathlib import Path

    from cytoloop.adapters.store.corrections import StoredCorrection
    from cytoloop.commands.home import Home
    from cytoloop.pipeline.predictors import Predictor

Format = Literal["png", "coco"]
Which = Literal["corrected", "all"]
COLUMNS = (
    *("image_id", "tile", "plate", "well", "field", "z_plane", "treatment", "split"),
    *("row_start", "column_start", "height", "width", "pixel_size_um"),
    *("source", "expert", "annotated_at", "minutes", "begun_with", "revision", "annotation_id", "readers"),
    *("file", "mask_digest"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSummary:
    """What an export wrote."""

    out: Path
    assay: str
    format: Format
    items: int
    corrected: int
    """Items that an expert drew; the others are the model's."""
    images: int
    """Images with at least one item."""
    whole_images: int
    """Those of them of which every tile is there."""
    objects: int | None
    """Annotations of the COCO file that are objects."""
    files: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Exported:
    """One image with the masks there are of its tiles."""

    record: ImageRecord
    tiles: tuple[Tile, ...]
    masks: Mapping[int, NDArray[np.uint8]]
    rows: tuple[dict[str, Any], ...]

    @property
    def is_whole(self) -> bool:
        return len(self.masks) == len(self.tiles)

    def mask_HW(self) -> NDArray[np.uint8]:
        whole_HW = np.full((self.record.height, self.record.width), IGNORE, np.uint8)
        for tile, mask_HW in self.masks.items():
            whole_HW[self.tiles[tile].slices] = mask_HW
        return whole_HW


def export(
    home: Home,
    assay: Assay,
    out: Path,
    format_: Format,
    which: Which,
    tell: Callable[[int, int], None],
) -> ExportSummary:
    """Write what experts drew, and with ``all`` what the version in force says of the rest.

    Of an item that was corrected several times, the mask that stands is written. The folder may hold an earlier export
    of the same assay and format, finished or not: it is brought up to date.

    Raises
    ------
    StateError
        If there is nothing to export.
    InputError
        If the folder holds anything else, or an image id cannot be the name of a file.
    ImageUnreadable
        If a stored mask is missing or damaged.
    """
    store = home.store
    standing = store.corrections.standing(assay.name)
    readers = {item: len(readings) for item, readings in store.corrections.readings(assay.name).items()}
    records = store.images.all(assay.name)
    predictor: Predictor | None = None
    if which == "corrected":
        corrected = {item.image_id for item in standing}
        records = [record for record in records if record.image_id in corrected]
    elif records:
        from cytoloop.pipeline.predictors import load_predictor  # brings in the network's library

        active = store.models.active(assay.name)
        predictor = load_predictor(store, home.registry, assay, active, home.settings.device)
    if not records:
        what = "correction" if which == "corrected" else "image"
        raise StateError(f"assay {assay.name!r}: no {what} to export yet")
    for record in records:
        file_name(record.image_id)  # before the first file is written
    folder = ExportFolder(out, _about(home, assay, format_, which))
    rows: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    whole = 0
    for done, record in enumerate(records, start=1):
        one = _exported(home, assay, record, standing, readers, predictor, format_)
        rows += one.rows
        whole += one.is_whole
        if format_ == "png":
            for name, content in _pngs(one, assay):
                folder.write(name, content)
        else:
            images.append(_coco_image(record, done))
            objects += annotations_of(one.mask_HW(), assay, done, len(objects) + 1)
        tell(done, len(records))
    if format_ == "coco":
        folder.write("coco.json", _coco(assay, images, objects))
    folder.write("index.csv", _table(rows))
    return ExportSummary(
        out=out,
        assay=assay.name,
        format=format_,
        items=len(rows),
        corrected=sum(row["source"] == "correction" for row in rows),
        images=len(records),
        whole_images=whole,
        objects=sum(not one["iscrowd"] for one in objects) if format_ == "coco" else None,
        files=folder.finish(),
    )


def _exported(
    home: Home,
    assay: Assay,
    record: ImageRecord,
    standing: Mapping[Item, StoredCorrection],
    readers: Mapping[Item, int],
    predictor: Predictor | None,
    format_: Format,
) -> _Exported:
    tiles = tiles_of(record.height, record.width, assay.tiling)
    items = [Item(image_id=record.image_id, tile=tile.index) for tile in tiles]
    predicted_HW: NDArray[np.uint8] | None = None
    if predictor is not None and not all(item in standing for item in items):
        predicted_HW = predictor.predict(record).argmax(axis=0).astype(np.uint8)
    masks: dict[int, NDArray[np.uint8]] = {}
    rows = []
    for item, tile in zip(items, tiles, strict=True):
        correction = standing.get(item)
        if correction is not None:
            masks[tile.index] = home.store.masks.get(correction.mask)
            told = _of_correction(correction, readers.get(item, 1))
        elif predicted_HW is not None and predictor is not None:
            masks[tile.index] = predicted_HW[tile.slices]
            told = {"source": "prediction", "begun_with": predictor.version}
        else:
            continue
        rows.append(
            {
                **_place(record, tile),
                **told,
                "file": _item_file(record, tile) if format_ == "png" else "",
                "mask_digest": digest_of_pixels(masks[tile.index]),
            }
        )
    return _Exported(record=record, tiles=tiles, masks=masks, rows=tuple(rows))


def _of_correction(correction: StoredCorrection, readers: int) -> dict[str, Any]:
    seconds = correction.lead_time_s
    return {
        "source": "correction",
        "expert": correction.expert,
        "annotated_at": correction.annotated_at.isoformat(),
        "minutes": "" if seconds is None else f"{seconds / 60:.2f}",
        "begun_with": correction.parent_version or "",
        "revision": correction.revision,
        "annotation_id": correction.annotation_id,
        "readers": readers,
    }


def _place(record: ImageRecord, tile: Tile) -> dict[str, Any]:
    return {
        "image_id": record.image_id,
        "tile": tile.index,
        "plate": record.plate,
        "well": record.well,
        "field": record.field,
        "z_plane": record.z_plane,
        "treatment": record.treatment,
        "split": record.split,
        "row_start": tile.row_start,
        "column_start": tile.column_start,
        "height": tile.height,
        "width": tile.width,
        "pixel_size_um": "" if record.pixel_size_um is None else f"{record.pixel_size_um:.6g}",
    }


def _item_file(record: ImageRecord, tile: Tile) -> str:
    return f"items/{file_name(record.image_id)}_t{tile.index}.png"


def _pngs(one: _Exported, assay: Assay) -> Iterator[tuple[str, bytes]]:
    palette = palette_of(assay)
    for tile, mask_HW in one.masks.items():
        yield _item_file(one.record, one.tiles[tile]), encode_mask(mask_HW, palette)
    if one.is_whole:
        yield f"masks/{file_name(one.record.image_id)}.png", encode_mask(one.mask_HW(), palette)


def _coco_image(record: ImageRecord, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": record.files[0].replace("\\", "/").rpartition("/")[2],
        "height": record.height,
        "width": record.width,
        "files": list(record.files),
        "cytoloop_image_id": record.image_id,
        "plate": record.plate,
        "well": record.well,
        "field": record.field,
    }


def _coco(assay: Assay, images: list[dict[str, Any]], objects: list[dict[str, Any]]) -> bytes:
    document = {
        "info": {"description": f"cytoloop {assay.name}"},
        "licenses": [],
        "categories": categories_of(assay),
        "images": images,
        "annotations": objects,
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _table(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _about(home: Home, assay: Assay, format_: Format, which: Which) -> dict[str, Any]:
    import cytoloop

    return {
        "assay": assay.name,
        "assay_digest": assay.digest,
        "classes": {str(value): name for value, name in enumerate(assay.class_names)}
        | {str(IGNORE): assay.ignore.name},
        "format": format_,
        "which": which,
        "active_version": home.store.models.active(assay.name).version,
        "exported_at": _now(),
        "cytoloop": cytoloop.__version__,
        "code": dict(code_version()),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
