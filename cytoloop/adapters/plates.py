"""Folders of images as plates: which files make a field, and where on the plate it was."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from cytoloop.adapters import harmony
from cytoloop.adapters.images import RAW_SUFFIXES, read_raw
from cytoloop.domain.assay import Assay
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
    the file names. The folder may be reached through a link; what is in it must lie in it. Or it is an export of
    Harmony (`cytoloop.adapters.harmony`), whose own index says what is what; an ``index.csv`` beside it adds treatments.

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
    folder = image_folder(source)
    index = _read_index(source)
    if (exported := harmony.find_index(source)) is not None:
        found = harmony.fields_of(harmony.read_index(exported), assay, on_problem)
        fields = {one.image_id: one.files for one in found}
        index = {name: row | _said(index.get(name, {})) for name, row in harmony.rows_of(found)}
    else:
        fields = _files_by_id(folder, assay, on_problem)
    if not fields:
        raise PlateError(f"{folder}: no image for assay {assay.name!r} ({_expected_names(assay)})")
    records = []
    for done, (image_id, files) in enumerate(sorted(fields.items()), start=1):
        try:
            inside = tuple(require_inside(file, source, ImageUnreadable) for file in files)
            records.append(_record(image_id, inside, index.get(image_id, {}), assay))
        except ImageUnreadable as error:
            if on_problem is None:
                raise
            on_problem(error)
        if progress:
            progress(done, len(fields))
    return records


def _record(image_id: str, files: tuple[Path, ...], row: Mapping[str, str], assay: Assay) -> ImageRecord:
    raw = read_raw(files, assay)
    found = _place(image_id)
    well = row.get("well") or (found["well"] if found else "")
    plate = row.get("plate") or (image_id[: found.start()].strip("-_") if found else "")
    field = row.get("field") or (found["field"] or "" if found else "")
    return ImageRecord(
        image_id=image_id,
        image_key=digest_of_pixels(raw),
        files=tuple(map(str, files)),
        height=raw.shape[1],
        width=raw.shape[2],
        plate=plate,
        well=well,
        field=field,
        treatment=row.get("treatment", ""),
        group=f"{plate}/{well}" if well else image_id,
        z_plane=row.get("z_plane", ""),
        pixel_size_um=_pixel_size(image_id, row),
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
        _check_id(image_id, path)
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


def _check_id(image_id: str, path: Path) -> None:
    """Refuse what cannot be told, stored, or be part of a file's name."""
    if not image_id or not image_id.isprintable() or len(image_id.encode(errors="replace")) > LONGEST_ID:
        raise PlateError(
            f"{str(path)!r}: its id would be {image_id!r}, expected 1 to {LONGEST_ID} bytes of printable UTF-8"
        )


def _expected_names(assay: Assay) -> str:
    suffixes = [channel.suffix or "" for channel in assay.channels] if assay.channels[0].suffix else [""]
    return "expected " + ", ".join(f"<id>{suffix}.tif|.png" for suffix in dict.fromkeys(suffixes))


def _read_index(source: Path) -> dict[str, dict[str, str]]:
    path = source / "index.csv"
    if not path.is_file() and source.name == "images":
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
