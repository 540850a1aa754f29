"""``cytoloop simulate-plate``: a simulated Rosella plate on disk, with pixel-exact truth.

OUT/plate.json          preset, seed, number of images: what this folder is
OUT/index.csv           id, plate, well, field, treatment, look, height, width
OUT/images/<id>.tif     16 bit, (2, H, W): pHluorin, DsRed
OUT/labels/<id>.png     indexed 8 bit; the value of a pixel is its class

In the layout of a Harmony export, in the place of OUT/images:

OUT/Images/Index.idx.xml                      what Harmony writes: wells, fields, channels, pixel size
OUT/Images/r02c03f01p01-ch1sk1fk1fl1.tiff     16 bit, (H, W): one channel of one field
"""

from __future__ import annotations

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cytoloop.adapters.harmony import IMAGES, INDEX_NAMES
from cytoloop.adapters.harmony_index import RecordedField, index_document, plane_name
from cytoloop.domain.errors import InputError, PlateError
from cytoloop.domain.simulate import (
    HEIGHT,
    PRESETS,
    SIMULATOR_VERSION,
    WIDTH,
    FieldPlan,
    SimulatedField,
    plan_field,
    simulate_field,
)
from cytoloop.files import read_json

logger = logging.getLogger(__name__)

Layout = Literal["flat", "harmony"]
PIXEL_SIZE_UM = 0.2152
CHANNELS = ("pHluorin", "DsRed")
COLUMNS = ("id", "plate", "well", "field", "treatment", "look", "height", "width")
PALETTE: Mapping[int, tuple[int, int, int]] = {
    0: (0, 0, 0),
    1: (255, 214, 0),
    2: (230, 40, 40),
    255: (128, 128, 128),
}
"""Colours of the label files: background, phagophore, autolysosome, not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateSummary:
    """What ``simulate_plate_command`` did."""

    out: Path
    preset: str
    seed: int
    images: int
    drawn: int
    """Fields drawn by this call; the others were there already."""
    looks: Mapping[str, int]
    """Fields by look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlateNote:
    """Content of ``plate.json``."""

    kind: str = "cytoloop simulated plate"
    version: int = SIMULATOR_VERSION
    preset: str
    seed: int
    images: int
    layout: Layout = "flat"

    def document(self) -> dict[str, Any]:
        """As it is written; a flat plate's is what it was before there was another layout."""
        document = asdict(self)
        if self.layout == "flat":
            del document["layout"]
        return document


def simulate_plate_command(
    out: Path,
    preset: str,
    images: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    layout: Layout = "flat",
) -> PlateSummary:
    """Write a simulated plate, or complete one that was begun.

    With the arguments of the plate that is there, only what is missing is drawn; with more images the
    plate grows. Every file appears under its name only when it is whole.

    Parameters
    ----------
    out : Path
        Folder to write to; new, empty, or a plate of the same preset and seed.
    preset : str
        ``rosella`` or ``reference-1``.
    images : int
        Number of fields, >= 1.
    seed : int
        >= 0.
    progress : callable, optional
        Called with (fields done, fields in all) after each field.
    layout : str
        ``flat``, a file a field, or ``harmony``, as Opera and Operetta export a plate: the same ids, pixels and truth.

    Raises
    ------
    InputError
        If the preset is unknown, images or seed out of range, or the fields do not fit on the one plate of a
        Harmony export.
    PlateError
        If ``out`` holds anything but a plate of this preset and seed with at most as many images.
    """
    if preset not in PRESETS or images < 1 or seed < 0:
        raise InputError(
            f"simulate-plate: preset {preset!r}, {images} images, seed {seed}; "
            f"expected one of {sorted(PRESETS)}, images >= 1, seed >= 0"
        )
    note = _PlateNote(preset=preset, seed=seed, images=images, layout=layout)
    plans = [plan_field(preset, seed, index) for index in range(images)]
    if layout == "harmony" and plans[-1].plate_number > 0:
        fitting = sum(plan.plate_number == 0 for plan in plans)
        raise InputError(
            f"simulate-plate: {images} images, expected at most {fitting}: an export holds one plate"
        )
    _claim(out, note)
    drawn = 0
    for done, plan in enumerate(plans, start=1):
        image_files = _image_files(out, plan, layout)
        label_file = out / "labels" / f"{plan.image_id}.png"
        if not (label_file.is_file() and all(file.is_file() for file in image_files)):
            field = simulate_field(preset, seed, plan.index)
            for file, content in zip(image_files, _tiffs_of(field, layout), strict=True):
                _write_whole(file, content)
            _write_whole(label_file, _png_of(field.truth_HW))
            drawn += 1
        if progress is not None:
            progress(done, images)
    if layout == "harmony":
        recorded = [_recorded(plan) for plan in plans]
        index = index_document(plans[0].plate, recorded, CHANNELS, PIXEL_SIZE_UM)
        _write_whole(out / IMAGES / INDEX_NAMES[0], index)
    _write_whole(out / "index.csv", _index_of(plans))
    logger.info(
        "plate simulated out=%s preset=%s seed=%d images=%d drawn=%d", out, preset, seed, images, drawn
    )
    return PlateSummary(
        out=out,
        preset=preset,
        seed=seed,
        images=images,
        drawn=drawn,
        looks=dict(Counter(plan.look for plan in plans)),
    )


def _claim(out: Path, note: _PlateNote) -> None:
    """Make ``out`` the folder of this plate, or say why it cannot be."""
    if out.exists() and not out.is_dir():
        raise PlateError(f"{out}: is a file, expected a folder for the plate")
    there = _read_note(out)
    if there is None and out.is_dir() and any(out.iterdir()):
        raise PlateError(
            f"{out}: is not empty and no simulated plate (no plate.json), expected an empty folder"
        )
    if there is not None:
        wanted = asdict(note)
        there = {"layout": "flat", **there}
        differs = [k for k in ("kind", "version", "preset", "seed", "layout") if there.get(k) != wanted[k]]
        if differs:
            got = ", ".join(f"{k} {there.get(k)!r}" for k in differs)
            expected = ", ".join(f"{k} {wanted[k]!r}" for k in differs)
            raise PlateError(f"{out}: holds a plate with {got}, expected {expected}")
        count = there.get("images")
        if not isinstance(count, int) or count > note.images:
            raise PlateError(f"{out}: holds a plate of {count} images, expected at most {note.images}")
    for folder in (out / (IMAGES if note.layout == "harmony" else "images"), out / "labels"):
        folder.mkdir(parents=True, exist_ok=True)
    if there != asdict(note):
        _write_whole(out / "plate.json", (json.dumps(note.document(), indent=2) + "\n").encode())


def _read_note(out: Path) -> dict[str, Any] | None:
    """Content of ``plate.json``, None where there is none."""
    file = out / "plate.json"
    if not file.is_file():
        return None
    document = read_json(file, PlateError)
    if not isinstance(document, dict):
        raise PlateError(f"{file}: holds a {type(document).__name__}, expected the note of a simulated plate")
    return document


def _image_files(out: Path, plan: FieldPlan, layout: Layout) -> list[Path]:
    if layout == "flat":
        return [out / "images" / f"{plan.image_id}.tif"]
    recorded = _recorded(plan)
    return [out / IMAGES / plane_name(recorded, channel) for channel in range(1, len(CHANNELS) + 1)]


def _recorded(plan: FieldPlan) -> RecordedField:
    row, column = ord(plan.well[0]) - ord("A") + 1, int(plan.well[1:])
    return RecordedField(row=row, column=column, field=int(plan.field), height=HEIGHT, width=WIDTH)


def _tiffs_of(field: SimulatedField, layout: Layout) -> list[bytes]:
    if layout == "flat":
        return [_tiff_of(field.image_CHW, {"axes": "CYX", "Channel": list(CHANNELS)})]
    return [_tiff_of(grey_HW, {"axes": "YX"}) for grey_HW in field.image_CHW]


def _tiff_of(grey: NDArray[np.uint16], metadata: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    per_cm = 10_000.0 / PIXEL_SIZE_UM
    tifffile.imwrite(
        buffer,
        grey,
        photometric="minisblack",
        compression="zlib",
        predictor=False,
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=dict(metadata),
    )
    return buffer.getvalue()


def _png_of(mask_HW: NDArray[np.uint8]) -> bytes:
    height, width = mask_HW.shape
    picture = Image.frombytes("P", (width, height), mask_HW.tobytes())
    picture.putpalette([part for value in range(256) for part in PALETTE.get(value, (255, 0, 255))])
    buffer = io.BytesIO()
    # Without bits, Pillow may pack few colours into less than a byte a pixel.
    picture.save(buffer, format="PNG", bits=8)
    return buffer.getvalue()


def _index_of(plans: list[FieldPlan]) -> bytes:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for p in plans:
        table.writerow((p.image_id, p.plate, p.well, p.field, p.treatment, p.look, HEIGHT, WIDTH))
    return text.getvalue().encode()


def _write_whole(file: Path, content: bytes) -> None:
    """Write under a temporary name, then rename; a file that already holds the content is left alone."""
    if file.is_file() and file.stat().st_size == len(content) and file.read_bytes() == content:
        return
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(content)
    part.replace(file)
