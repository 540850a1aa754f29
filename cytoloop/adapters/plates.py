"""Folders of images as plates: which files make a field, and where on the plate it was."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cytoloop.adapters.images import RAW_SUFFIXES, read_raw
from cytoloop.domain.assay import Assay
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import CytoloopError, ImageUnreadable, PlateError
from cytoloop.domain.types import ImageRecord

Progress = Callable[[int, int], None]

# A well on a 96- or 384-well plate inside an id: row letter, two-digit column, then perhaps the field.
_WELL = re.compile(
    r"(?<![A-Za-z])(?P<well>[A-P](?:0[1-9]|1\d|2[0-4]))(?:[-_]?[Ff]?(?P<field>\d{1,3}))?(?![A-Za-z\d])"
)


def image_folder(source: Path) -> Path:
    """``source/images`` where it exists, else ``source`` itself."""
    if not source.is_dir():
        raise PlateError(f"{source}: not a folder")
    inner = source / "images"
    return inner if inner.is_dir() else source


def label_folder(source: Path) -> Path | None:
    """Where a plate keeps expert masks (or a simulator its truth), if it does."""
    labels = source / "labels"
    return labels if labels.is_dir() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of view as it was found, its files not yet opened."""

    image_id: str
    files: tuple[Path, ...]
    """One file with all planes, or one a channel in the assay's order."""
    row: Mapping[str, str]
    """What the index says of it."""


def list_fields(
    source: Path, assay: Assay, *, on_problem: Callable[[CytoloopError], None] | None = None
) -> list[Field]:
    """Every field of a plate, in order of ``image_id``, without opening a single image.

    Parameters and errors are those of :func:`read_plate`.
    """
    folder = image_folder(source)
    index = _read_index(source)
    found = _files_by_id(folder, assay, on_problem)
    if not found:
        raise PlateError(f"{folder}: no image for assay {assay.name!r} ({_expected_names(assay)})")
    return [
        Field(image_id=image_id, files=files, row=index.get(image_id, {}))
        for image_id, files in sorted(found.items())
    ]


def read_field(field: Field, assay: Assay) -> tuple[ImageRecord, NDArray[Any]]:
    """The record of a field and its raw pixels (C, H, W), uint8 or uint16, read once for both.

    Raises
    ------
    ImageUnreadable
        As :func:`cytoloop.adapters.images.read_raw`.
    """
    raw_CHW = read_raw(field.files, assay)
    return _record(field, raw_CHW), raw_CHW


def read_plate(
    source: Path,
    assay: Assay,
    *,
    progress: Progress | None = None,
    on_problem: Callable[[CytoloopError], None] | None = None,
) -> list[ImageRecord]:
    """Every field of a plate, in order of ``image_id``, its pixels read once for their digest.

    A plate is a folder, or its ``images/``, of 8- or 16-bit unsigned TIFF or PNG, with an optional
    ``index.csv`` (``id,plate,well,field,treatment,…``). What the index does not say is read from
    the file names.

    Parameters
    ----------
    on_problem : callable, optional
        Called with the error of each field that cannot be read, which is then left out. Without
        it the first such error is raised.

    Raises
    ------
    PlateError
        If there is no image, two files claim one id, a channel's file is missing, or the index
        names an id twice.
    """
    fields = list_fields(source, assay, on_problem=on_problem)
    records = []
    for done, field in enumerate(fields, start=1):
        try:
            records.append(read_field(field, assay)[0])
        except ImageUnreadable as error:
            if on_problem is None:
                raise
            on_problem(error)
        if progress:
            progress(done, len(fields))
    return records


def _record(found: Field, raw_CHW: NDArray[Any]) -> ImageRecord:
    image_id, row = found.image_id, found.row
    place = _place(image_id)
    well = row.get("well") or (place["well"] if place else "")
    plate = row.get("plate") or (image_id[: place.start()].strip("-_") if place else "")
    field = row.get("field") or (place["field"] or "" if place else "")
    return ImageRecord(
        image_id=image_id,
        image_key=digest_of_pixels(raw_CHW),
        files=tuple(str(file.resolve()) for file in found.files),
        height=raw_CHW.shape[1],
        width=raw_CHW.shape[2],
        plate=plate,
        well=well,
        field=field,
        treatment=row.get("treatment", ""),
        group=f"{plate}/{well}" if well else image_id,
    )


def _place(image_id: str) -> re.Match[str] | None:
    """Where an id names well and field: the last place with both, since a plate may be called ``P12``."""
    found = list(_WELL.finditer(image_id))
    with_field = [match for match in found if match["field"]]
    return next(reversed(with_field or found), None)


def _files_by_id(
    folder: Path, assay: Assay, on_problem: Callable[[CytoloopError], None] | None
) -> dict[str, tuple[Path, ...]]:
    per_channel = [channel.suffix for channel in assay.channels if channel.suffix is not None]
    longest_first = sorted(per_channel, key=len, reverse=True)  # one suffix may end another
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in RAW_SUFFIXES or path.name.startswith("."):
            continue
        suffix = next((s for s in longest_first if path.stem.endswith(s)), None) if per_channel else ""
        if suffix is None:
            continue
        image_id = path.stem.removesuffix(suffix)
        other = found.setdefault(image_id, {}).setdefault(suffix, path)
        if other != path:
            raise PlateError(f"two files with one id {image_id!r}: {other} and {path}; expected one")
    fields = {}
    for image_id, by_suffix in found.items():
        missing = [s for s in per_channel if s not in by_suffix]
        if missing:
            present = next(iter(by_suffix.values()))
            problem = PlateError(f"{present}: channel file {image_id}{missing[0]}.* is missing beside it")
            if on_problem is None:
                raise problem
            on_problem(problem)
            continue
        fields[image_id] = tuple(by_suffix[s] for s in per_channel) if per_channel else (by_suffix[""],)
    return fields


def _expected_names(assay: Assay) -> str:
    suffixes = [channel.suffix or "" for channel in assay.channels] if assay.channels[0].suffix else [""]
    return "expected " + ", ".join(f"<id>{suffix}.tif|.png" for suffix in dict.fromkeys(suffixes))


def _read_index(source: Path) -> dict[str, dict[str, str]]:
    path = source / "index.csv"
    if not path.is_file() and source.name == "images":
        path = source.parent / "index.csv"
    if not path.is_file():
        return {}
    try:
        return _rows_by_id(path)
    except UnicodeDecodeError as error:
        raise PlateError(f"{path}: not UTF-8 ({error}); expected a CSV file saved as UTF-8") from error
    except csv.Error as error:
        raise PlateError(f"{path}: cannot be read as CSV ({error})") from error


def _rows_by_id(path: Path) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "id" not in (reader.fieldnames or []):
            raise PlateError(f"{path}: columns {reader.fieldnames}, expected one named 'id'")
        for line, row in enumerate(reader, start=2):
            image_id = (row["id"] or "").strip()
            if image_id in rows:
                raise PlateError(f"{path} line {line}: id {image_id!r} stands there twice")
            rows[image_id] = {key: (value or "").strip() for key, value in row.items() if key}
    return rows
