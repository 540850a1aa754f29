"""Folders of images as plates: which files make a field, and where on the plate it was."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from cytoloop.adapters import harmony, ome
from cytoloop.adapters.images import RAW_SUFFIXES, read_raw
from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.documents import told
from cytoloop.domain.errors import CytoloopError, ImageUnreadable, PlateError
from cytoloop.domain.types import ImageRecord
from cytoloop.files import read_bytes, require_inside

Progress = Callable[[int, int], None]

LONGEST_ID = 200
"""Bytes: the id becomes part of the names of masks, which file systems end at 255."""
LONGEST_VALUE = 200
"""Characters of a value of the index."""
LARGEST_INDEX = 64 << 20

# A well on a 96- or 384-well plate inside an id: row letter, two-digit column, then perhaps the field.
_WELL = re.compile(
    r"(?<![A-Za-z])(?P<well>[A-P](?:0[1-9]|1\d|2[0-4]))(?:[-_]?[Ff]?(?P<field>\d{1,3}))?(?![A-Za-z\d])"
)


def image_folder(source: Path) -> Path:
    """``source/images`` (``Images`` of a Harmony export) where it exists, else ``source`` itself."""
    if not source.is_dir():
        raise PlateError(f"{source}: not a folder")
    if (index := harmony.find_index(source)) is not None:
        return index.parent
    inner = source / "images"
    return inner if inner.is_dir() else source


def label_folder(source: Path) -> Path | None:
    """Where a plate keeps expert masks (or a simulator its truth), if it does.

    Raises
    ------
    PlateError
        If a link leads out of the plate.
    """
    labels = source / "labels"
    if not labels.is_dir():
        return None
    require_inside(labels, source, PlateError)
    return labels


def holds_images(folder: Path, source: Path, assay: Assay) -> bool:
    """Whether a folder is the plate, or one in which it keeps its images or reference masks: nothing is written there."""
    inner = image_folder(source)
    kept = [source, inner, source / "labels", *(inner / c.folder for c in assay.channels if c.folder)]
    return folder.resolve() in {one.resolve() for one in kept}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of view as it was found, its files not yet opened."""

    plate: Path
    """Folder in which all of it must lie."""
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
    if (exported := harmony.find_index(source)) is not None:
        require_inside(exported, source, PlateError)
        exports = harmony.fields_of(harmony.read_index(exported), assay, on_problem)
        for one in exports:
            _check_id(one.image_id, exported)
        found = {one.image_id: one.files for one in exports}
        index = {name: row | _said(index.get(name, {})) for name, row in harmony.rows_of(exports)}
    else:
        found = _files_by_id(folder, assay, on_problem)
    if not found:
        raise PlateError(f"{folder}: no image for assay {assay.name!r} ({_expected_names(assay)})")
    return [
        Field(plate=source, image_id=image_id, files=files, row=index.get(image_id, {}))
        for image_id, files in sorted(found.items())
    ]


def read_field(field: Field, assay: Assay) -> tuple[ImageRecord, NDArray[Any]]:
    """The record of a field and its raw pixels (C, H, W), uint8 or uint16, read once for both.

    Raises
    ------
    ImageUnreadable
        As :func:`cytoloop.adapters.images.read_raw`.
    """
    inside = replace(
        field, files=tuple(require_inside(file, field.plate, ImageUnreadable) for file in field.files)
    )
    raw_CHW = read_raw(inside.files, assay)
    return _record(inside, raw_CHW, assay), raw_CHW


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
    the file names, and pixel sizes from OME-XML where there is any. The folder may be reached through a link; what is
    in it must lie in it. Or it is an export of Harmony (`cytoloop.adapters.harmony`), whose own index says what is
    what; an ``index.csv`` beside it adds treatments.

    Parameters
    ----------
    on_problem : callable, optional
        Called with the error of each field that cannot be read, which is then left out. Without
        it the first such error is raised.

    Raises
    ------
    PlateError
        If there is no image, two files claim one id, a channel's file is missing, an id cannot be a file's name, a
        link leads out of the plate, the index names an id twice or holds a value that nobody wrote, or Harmony's
        index cannot be followed.
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


def _record(found: Field, raw_CHW: NDArray[Any], assay: Assay) -> ImageRecord:
    image_id, row, first = found.image_id, found.row, found.files[0]
    described = ome.describe(first)
    size = _pixel_size(image_id, row)
    z_plane = row.get("z_plane", "")
    if described is not None:
        size = described.pixel_size_um if size is None else size
        z_plane = z_plane or (str(ome.z_plane(first, described, assay)) if described.size("Z") > 1 else "")
    place = _place(image_id)
    well = row.get("well") or (place["well"] if place else "")
    plate = row.get("plate") or (image_id[: place.start()].strip("-_") if place else "")
    field = row.get("field") or (place["field"] or "" if place else "")
    return ImageRecord(
        image_id=image_id,
        image_key=digest_of_pixels(raw_CHW),
        files=tuple(map(str, found.files)),
        height=raw_CHW.shape[1],
        width=raw_CHW.shape[2],
        plate=plate,
        well=well,
        field=field,
        treatment=row.get("treatment", ""),
        group=f"{plate}/{well}" if well else image_id,
        z_plane=z_plane,
        pixel_size_um=size,
    )


def _said(row: Mapping[str, str]) -> dict[str, str]:
    """The columns of a row that are not empty."""
    return {key: value for key, value in row.items() if value}


def _pixel_size(image_id: str, row: Mapping[str, str]) -> float | None:
    text = row.get("pixel_size_um", "")
    if not text:
        return None
    try:
        size = float(text)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise PlateError(f"image {image_id!r}: pixel_size_um is {text!r}, expected micrometres above 0")
    return size


def _place(image_id: str) -> re.Match[str] | None:
    """Where an id names well and field: the last place with both, since a plate may be called ``P12``."""
    found = list(_WELL.finditer(image_id))
    with_field = [match for match in found if match["field"]]
    return next(reversed(with_field or found), None)


def _files_by_id(
    folder: Path, assay: Assay, on_problem: Callable[[CytoloopError], None] | None
) -> dict[str, tuple[Path, ...]]:
    per_channel = [_Own.of(channel) for channel in assay.channels if channel.has_own_file]
    found: dict[str, dict[_Own, Path]] = {}
    for inner in dict.fromkeys(own.folder for own in per_channel or [_ALL_IN_ONE]):
        if not (folder / inner).is_dir():
            raise PlateError(f"{folder / inner}: no such folder, assay {assay.name!r} has a channel there")
        here = [own for own in per_channel or [_ALL_IN_ONE] if own.folder == inner]
        longest_first = sorted(
            here, key=lambda own: len(own.suffix), reverse=True
        )  # one suffix may end another
        for path in sorted((folder / inner).iterdir()):
            if path.suffix.lower() not in RAW_SUFFIXES or path.name.startswith("."):
                continue
            stem = path.stem.removesuffix(".ome")  # a.ome.tif
            own = next((own for own in longest_first if stem.endswith(own.suffix)), None)
            if own is None:
                continue
            image_id = stem.removesuffix(own.suffix)
            _check_id(image_id, path)
            other = found.setdefault(image_id, {}).setdefault(own, path)
            if other != path:
                raise PlateError(f"two files with one id {image_id!r}: {other} and {path}; expected one")
    fields = {}
    for image_id, by_channel in found.items():
        missing = [own for own in per_channel if own not in by_channel]
        if missing:
            present = next(iter(by_channel.values()))
            name = f"{missing[0].folder}{missing[0].folder and '/'}{image_id}{missing[0].suffix}.*"
            problem = PlateError(f"{present}: channel file {name} is missing beside it")
            if on_problem is None:
                raise problem
            on_problem(problem)
            continue
        fields[image_id] = tuple(by_channel[own] for own in per_channel or [_ALL_IN_ONE])
    return fields


def _check_id(image_id: str, path: Path) -> None:
    """Refuse what cannot be told, stored, or be part of a file's name."""
    if not image_id or not image_id.isprintable() or len(image_id.encode(errors="replace")) > LONGEST_ID:
        raise PlateError(
            f"{str(path)!r}: its id would be {image_id!r}, expected 1 to {LONGEST_ID} bytes of printable UTF-8"
        )


class _Own(NamedTuple):
    """Where a channel's own files lie, and how their names end."""

    folder: str
    suffix: str

    @classmethod
    def of(cls, channel: Channel) -> _Own:
        return cls(channel.folder or "", channel.suffix or "")


_ALL_IN_ONE = _Own("", "")
"""A file holds all channels."""


def _expected_names(assay: Assay) -> str:
    own = [_Own.of(channel) for channel in assay.channels]
    names = [f"{one.folder}{one.folder and '/'}<id>{one.suffix}.tif|.png" for one in own]
    return "expected " + ", ".join(dict.fromkeys(names))


def _read_index(source: Path) -> dict[str, dict[str, str]]:
    path = source / "index.csv"
    if not path.is_file() and source.name.lower() == "images":
        path = source.parent / "index.csv"
    if not path.is_file():
        return {}
    require_inside(path, path.parent, PlateError)
    try:
        text = read_bytes(path, LARGEST_INDEX, PlateError).decode("utf-8-sig")
        return _rows_by_id(path, text)
    except UnicodeDecodeError as error:
        raise PlateError(f"{path}: not UTF-8 ({error}); expected a CSV file saved as UTF-8") from error
    except csv.Error as error:
        raise PlateError(f"{path}: cannot be read as CSV ({error})") from error


def _rows_by_id(path: Path, text: str) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "id" not in (reader.fieldnames or []):
        raise PlateError(f"{path}: columns {told(reader.fieldnames)}, expected one named 'id'")
    for line, row in enumerate(reader, start=2):
        image_id = (row["id"] or "").strip()
        if image_id in rows:
            raise PlateError(f"{path} line {line}: id {told(image_id)} stands there twice")
        values = {key: (value or "").strip() for key, value in row.items() if key}
        for key, value in values.items():
            if not (len(value) <= LONGEST_VALUE and value.isprintable()):
                raise PlateError(
                    f"{path} line {line}: {told(key)} is {told(value)}, expected at most {LONGEST_VALUE} printable "
                    "characters"
                )
        rows[image_id] = values
    return rows
