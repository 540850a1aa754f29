"""Exports of Harmony, the software of Opera and Operetta: ``Images/Index.idx.xml`` and one TIFF a plane.

The index names every plane with row, column, field, focal plane, time and channel. Until Harmony 5 each ``Image``
also told its channel's name and resolution; from 6 on these stand once, in ``Maps/Map/Entry``. Both are read, as a
stream: an index of a 384-well plate has a hundred thousand images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.documents import told
from cytoloop.domain.errors import CytoloopError, PlateError
from cytoloop.files import opened

INDEX_NAMES = ("Index.idx.xml", "Index.xml")
IMAGES = "Images"
ROOT = "EvaluationInputData"
LARGEST_INDEX = 1 << 30
"""Bytes; a 384-well plate of a hundred thousand images has some 120 MB."""
_LONGEST_NAME = 200
_NAMESPACE = re.compile(r"/HarmonyV[5-7]$")
_METRES_TO_UM = 1e6
_SQUARE = 1e-3
"""Relative difference of the two sides up to which a pixel is a square."""


class HarmonyImage(NamedTuple):
    """One plane as the index names it; numbers as Harmony counts them, rows and columns from 1."""

    row: int
    column: int
    field: int
    plane: int
    timepoint: int
    channel: int
    url: str
    """Relative to the index; empty where the plane was not recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmonyChannel:
    """What the index says of one channel; None where it says nothing."""

    name: str | None = None
    pixel_size_um: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmonyIndex:
    """An index as it was read; nothing is checked against the files yet."""

    path: Path
    plate: str
    images: Sequence[HarmonyImage]
    channels: Mapping[int, HarmonyChannel]
    """By ChannelID."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarmonyField:
    """One field of view of an export: its files, and where on the plate it was."""

    image_id: str
    files: tuple[Path, ...]
    """A file a channel, in the assay's order."""
    plate: str
    well: str
    field: str
    z_plane: str
    pixel_size_um: float | None


def find_index(source: Path) -> Path | None:
    """The index of an export, given its folder or the ``Images`` in it; None where there is none."""
    for folder in (source / IMAGES, source):
        for name in INDEX_NAMES:
            if (folder / name).is_file():
                return folder / name
    return None


def well_name(row: int, column: int) -> str:
    """A well as people call it; rows beyond Z (1536 wells) have two letters.

    Examples
    --------
    >>> well_name(2, 3), well_name(16, 24), well_name(32, 48)
    ('B03', 'P24', 'AF48')
    """
    letters = ""
    while row > 0:
        row, letter = divmod(row - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{column:02d}"


# --- the index ---------------------------------------------------------------------------------------------


def read_index(path: Path) -> HarmonyIndex:
    """An index, read as a stream.

    Raises
    ------
    PlateError
        If it is no XML or ends early, is no index of Harmony 5 to 7, tells of no image or of several plates, or
        an image lacks a number or has one that is none.
    """
    reading = _Reading(path)
    try:
        with opened(path, LARGEST_INDEX, PlateError) as file:
            for _, element in iterparse(file, forbid_dtd=True):  # the end of each: its children are there
                reading.take(element)
    except ParseError as error:
        raise PlateError(
            f"{path}: not whole XML ({error}), after {len(reading.images)} images; expected Harmony's index: copy "
            "the export again"
        ) from None
    except DefusedXmlException:
        raise PlateError(
            f"{path}: declares a document type or entities, expected none in a Harmony index"
        ) from None
    except UnicodeDecodeError as error:
        raise PlateError(f"{path}: not text ({error}), expected Harmony's index") from None
    return reading.index()


@dataclass(slots=True)
class _Reading:
    """What was read of an index so far."""

    path: Path
    images: list[HarmonyImage] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, float] = field(default_factory=dict)
    plates: list[str] = field(default_factory=list)
    namespace: str | None = None
    """As it stands before a tag, with its brackets."""
    last: str = ""
    takers: dict[str, Callable[[Element], None]] = field(default_factory=dict)

    def take(self, element: Element) -> None:
        """One element, now that it is whole."""
        self.last = element.tag
        if self.namespace is None:
            self._begin(element)
        if (taker := self.takers.get(element.tag)) is not None:
            taker(element)
            element.clear()  # or a hundred thousand images would stay in memory

    def _begin(self, element: Element) -> None:
        namespace, bracket, _ = element.tag.rpartition("}")
        if not _NAMESPACE.search(namespace):
            raise PlateError(
                f"{self.path}: holds {element.tag!r}, expected {ROOT!r} in a namespace of Harmony 5 to 7 "
                "(http://www.perkinelmer.com/PEHH/HarmonyV5)"
            )
        self.namespace = namespace + bracket
        for name, taker in (("Image", self._image), ("Entry", self._entry), ("Plate", self._plate)):
            self.takers[self.namespace + name] = taker

    def _plate(self, element: Element) -> None:
        name = self._text(element, "Name") or self._text(element, "PlateID") or ""
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            raise PlateError(
                f"{self.path}: plate is called {told(name)}, expected at most {_LONGEST_NAME} printable characters"
            )
        self.plates.append(name)

    def _text(self, element: Element, name: str) -> str | None:
        text = element.findtext(f"{self.namespace}{name}")
        return None if text is None else text.strip()

    def _image(self, element: Element) -> None:
        if len(element) == 0 and element.get("id"):
            return  # a well lists its images, by nothing but their names
        where = f"{self.path}: image {len(self.images) + 1}"
        if (name := self._text(element, "id")) or (name := self._text(element, "URL")):
            where = f"{where} ({name})"
        channel = self._number(element, "ChannelID", where, least=1)
        state = self._text(element, "State")
        url = self._text(element, "URL") or ""
        self.images.append(
            HarmonyImage(
                row=self._number(element, "Row", where, least=1),
                column=self._number(element, "Col", where, least=1),
                field=self._number(element, "FieldID", where, least=1),
                plane=self._number(element, "PlaneID", where, least=0),
                timepoint=self._number(element, "TimepointID", where, least=0, missing=0),
                channel=channel,
                url=url if state in (None, "", "Ok") else "",
            )
        )
        self._describe(channel, element, where)

    def _entry(self, element: Element) -> None:
        where = f"{self.path}: Maps: Entry of channel {element.get('ChannelID')!r}"
        try:
            channel = int(element.get("ChannelID", ""))
        except ValueError:
            raise PlateError(f"{where}: expected a whole number") from None
        self._describe(channel, element, where)

    def _describe(self, channel: int, element: Element, where: str) -> None:
        name = self._text(element, "ChannelName")
        if name and self.names.setdefault(channel, name) != name:
            raise PlateError(
                f"{where}: channel {channel} is called {name!r}, before it was {self.names[channel]!r}; "
                "expected one name"
            )
        sides = [self._length_um(element, f"ImageResolution{axis}", where) for axis in "XY"]
        size = next((side for side in sides if side is not None), None)
        if size is None:
            return
        if any(side is not None and abs(side - size) > _SQUARE * size for side in sides):
            raise PlateError(f"{where}: pixels of {sides[0]:g} x {sides[1]:g} µm, expected squares")
        if abs(self.sizes.setdefault(channel, size) - size) > _SQUARE * size:
            raise PlateError(
                f"{where}: pixel size {size:g} µm, before it was {self.sizes[channel]:g} µm; expected one a channel"
            )

    def _number(self, element: Element, name: str, where: str, least: int, missing: int | None = None) -> int:
        text = self._text(element, name)
        if text is None and missing is not None:
            return missing
        try:
            number = int(text or "")
        except ValueError:
            number = -1
        if number < least:
            raise PlateError(f"{where}: {name} is {text!r}, expected a whole number of {least} or more")
        return number

    def _length_um(self, element: Element, name: str, where: str) -> float | None:
        found = element.find(f"{self.namespace}{name}")
        if found is None or not (found.text or "").strip():
            return None
        text = (found.text or "").strip()
        unit = found.get("Unit", "m")
        try:
            length_um = float(text) * _METRES_TO_UM
        except ValueError:
            length_um = 0.0
        if unit != "m" or not 0 < length_um < float("inf"):
            raise PlateError(f"{where}: {name} is {text!r} in {unit!r}, expected metres above 0")
        return length_um

    def index(self) -> HarmonyIndex:
        """What was read, once all of it was."""
        if self.last != f"{self.namespace}{ROOT}":
            raise PlateError(f"{self.path}: is a {self.last!r}, expected {ROOT!r}")
        if not self.images:
            raise PlateError(f"{self.path}: names no image, expected at least one in 'Images'")
        if len(self.plates) > 1:
            raise PlateError(
                f"{self.path}: {len(self.plates)} plates ({', '.join(map(repr, self.plates))}), expected one an export"
            )
        # The folder is the measurement; that of the images would be "Images" for every plate.
        folder = self.path.parent.parent if self.path.parent.name == IMAGES else self.path.parent
        channels = sorted({image.channel for image in self.images})
        return HarmonyIndex(
            path=self.path,
            plate=(self.plates[0] if self.plates else "") or folder.resolve().name,
            images=self.images,
            channels={
                channel: HarmonyChannel(name=self.names.get(channel), pixel_size_um=self.sizes.get(channel))
                for channel in channels
            },
        )


# --- its fields --------------------------------------------------------------------------------------------


def fields_of(
    index: HarmonyIndex, assay: Assay, on_problem: Callable[[CytoloopError], None] | None = None
) -> list[HarmonyField]:
    """Every field of an export with the files of the assay's channels, in order of ``image_id``.

    Parameters
    ----------
    on_problem : callable, optional
        Called with the error of each field that lacks a file, which is then left out. Without it, the first is
        raised.

    Raises
    ------
    PlateError
        If a channel of the assay is none of the index, two planes are one, a field has several focal planes and
        the assay does not say which, or several times; if a name of a file leads out of the folder, or the
        channels differ in pixel size.
    """
    wanted = [_channel_id(index, channel, assay) for channel in assay.channels]
    pixel_size_um = _pixel_size(index, wanted)
    planes = _by_field(index, set(wanted))
    fields = []
    for (row, column, number), of_field in sorted(planes.items()):
        well = well_name(row, column)
        where = f"{index.path}: well {well} field {number}"
        if (
            assay.z_plane is None and len(of_field) > 1
        ):  # what the assay does not say is no fault of one field
            raise PlateError(
                f"{where}: focal planes {_some(sorted(of_field))}; expected one, or 'z_plane' of assay {assay.name!r} "
                "to say which"
            )
        try:
            plane = _plane(of_field, assay, where)
            files = tuple(_file(index, of_field[plane].get(channel), channel, where) for channel in wanted)
        except PlateError as error:
            if on_problem is None:
                raise
            on_problem(error)
            continue
        fields.append(
            HarmonyField(
                image_id=f"{_in_file_name(index.plate)}_{well}_f{number}",
                files=files,
                plate=index.plate,
                well=well,
                field=str(number),
                z_plane=str(plane),
                pixel_size_um=pixel_size_um,
            )
        )
    return sorted(fields, key=lambda one: one.image_id)


def _by_field(
    index: HarmonyIndex, channels: set[int]
) -> dict[tuple[int, int, int], dict[int, dict[int, HarmonyImage]]]:
    """Images of these channels by (row, column, field), then focal plane, then channel."""
    times = sorted({image.timepoint for image in index.images})
    if len(times) > 1:
        raise PlateError(f"{index.path}: time points {_some(times)}, expected one an export")
    found: dict[tuple[int, int, int], dict[int, dict[int, HarmonyImage]]] = {}
    for image in index.images:
        place = (image.row, image.column, image.field)
        of_plane = found.setdefault(place, {}).setdefault(image.plane, {})
        if of_plane.setdefault(image.channel, image) is not image:
            raise PlateError(
                f"{index.path}: well {well_name(image.row, image.column)} field {image.field} plane {image.plane} "
                f"channel {image.channel} stands there twice: {of_plane[image.channel].url!r} and {image.url!r}"
            )
    # fields and focal planes that were taken with other channels only are none of this assay
    with_planes = {
        place: {plane: images for plane, images in planes.items() if channels & set(images)}
        for place, planes in found.items()
    }
    return {place: planes for place, planes in with_planes.items() if planes}


def _channel_id(index: HarmonyIndex, channel: Channel, assay: Assay) -> int:
    wanted = channel.recorded_name
    if isinstance(wanted, int):
        found = [wanted] if wanted in index.channels else []
    else:
        found = [number for number, one in index.channels.items() if one.name == wanted]
        found = found or [
            number
            for number, one in index.channels.items()
            if (one.name or "").casefold() == wanted.casefold()
        ]
    if len(found) == 1:
        if channel.plane and len(assay.channels) == 1:
            raise PlateError(
                f"{index.path}: assay {assay.name!r} takes plane {channel.plane} of its file, expected no plane or 0: "
                "an export of Harmony keeps one plane a file"
            )
        return found[0]
    there = ", ".join(f"{number} {one.name or '(no name)'!r}" for number, one in index.channels.items())
    how_many = "no channel" if not found else f"{len(found)} channels"
    raise PlateError(
        f"{index.path}: {how_many} {wanted!r} for {channel.name!r} of assay {assay.name!r}; it has {there}: expected "
        "one by that name, or 'recorded_as' with a name or number of these on the assay's channel"
    )


def _pixel_size(index: HarmonyIndex, channels: Sequence[int]) -> float | None:
    sizes = {channel: index.channels[channel].pixel_size_um for channel in channels}
    known = [size for size in sizes.values() if size is not None]
    if known and max(known) - min(known) > _SQUARE * min(known):
        raise PlateError(
            f"{index.path}: pixel sizes by channel {sizes} µm, expected one for the assay's channels"
        )
    return known[0] if known else None


def _plane(of_field: Mapping[int, Mapping[int, HarmonyImage]], assay: Assay, where: str) -> int:
    if assay.z_plane is None:
        (only,) = of_field
        return only
    if assay.z_plane not in of_field:
        raise PlateError(
            f"{where}: focal planes {_some(sorted(of_field))}, expected {assay.z_plane} as assay {assay.name!r} says"
        )
    return assay.z_plane


def _file(index: HarmonyIndex, image: HarmonyImage | None, channel: int, where: str) -> Path:
    name = index.channels[channel].name
    if image is None or not image.url:
        raise PlateError(f"{where}: channel {channel} {name or '(no name)'!r} was not recorded")
    relative = PurePosixPath(image.url.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts or ":" in image.url:
        raise PlateError(f"{where}: file {image.url!r}, expected a name inside {index.path.parent}")
    path = index.path.parent / relative
    if not path.is_file():
        raise PlateError(f"{where}: {path} is missing; the index names it for channel {channel} {name!r}")
    return path


def _in_file_name(name: str) -> str:
    """A plate's name as part of an image id, which becomes the name of files."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "plate"


def _some(numbers: Sequence[int], most: int = 12) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown if len(numbers) <= most else f"{shown} … {numbers[-1]} ({len(numbers)})"


def rows_of(fields: Sequence[HarmonyField]) -> Iterator[tuple[str, dict[str, str]]]:
    """What each field is, by id, as the columns of ``index.csv`` say it."""
    for one in fields:
        size = {} if one.pixel_size_um is None else {"pixel_size_um": repr(one.pixel_size_um)}
        row = {"plate": one.plate, "well": one.well, "field": one.field, "z_plane": one.z_plane}
        yield one.image_id, {**row, **size}
