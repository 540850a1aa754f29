"""Writes an index as Harmony 5 exports it, for plates that come from no microscope.

Order and names of the elements are those of real exports; what a simulator cannot know (wavelengths, camera) is left
out. `cytoloop.adapters.harmony` reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from cytoloop.adapters.harmony import ROOT

NAMESPACE = "http://www.perkinelmer.com/PEHH/HarmonyV5"
_UM_TO_METRES = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedField:
    """One field of view of the plate to be told of; rows, columns and fields from 1."""

    row: int
    column: int
    field: int
    height: int
    width: int


def plane_name(one: RecordedField, channel: int) -> str:
    """File of one channel (from 1), as Harmony calls it.

    Examples
    --------
    >>> plane_name(RecordedField(row=2, column=3, field=1, height=512, width=680), 2)
    'r02c03f01p01-ch2sk1fk1fl1.tiff'
    """
    return f"r{one.row:02d}c{one.column:02d}f{one.field:02d}p01-ch{channel}sk1fk1fl1.tiff"


def index_document(
    plate: str,
    fields: Sequence[RecordedField],
    channels: Sequence[str],
    pixel_size_um: float,
    rows: int = 16,
    columns: int = 24,
) -> bytes:
    """``Index.idx.xml`` of a plate with one focal plane: UTF-8.

    Parameters
    ----------
    channels : sequence of str
        Names, in the order of their numbers from 1.
    rows, columns : int
        Of the plate.
    """
    root = Element(ROOT, {"Version": "1", "xmlns": NAMESPACE})
    _leaf(root, "User", "cytoloop")
    _leaf(root, "InstrumentType", "Simulated")
    wells = sorted({(one.row, one.column) for one in fields})
    _plate(SubElement(SubElement(root, "Plates"), "Plate"), plate, wells, rows, columns)
    listed = SubElement(root, "Wells")
    for row, column in wells:
        well = SubElement(listed, "Well")
        for name, value in (("id", _well(row, column)), ("Row", row), ("Col", column)):
            _leaf(well, name, value)
        for one in fields:
            if (one.row, one.column) == (row, column):
                for channel in range(1, len(channels) + 1):
                    SubElement(well, "Image", {"id": _image(one, channel)})
    images = SubElement(root, "Images")
    for one in fields:
        for channel, name in enumerate(channels, start=1):
            _describe(SubElement(images, "Image", {"Version": "1"}), one, channel, name, pixel_size_um)
    indent(root)
    text: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _plate(element: Element, plate: str, wells: Sequence[tuple[int, int]], rows: int, columns: int) -> None:
    for name, value in (
        ("PlateID", plate),
        ("Name", plate),
        ("PlateTypeName", f"{rows * columns} wells"),
        ("PlateRows", rows),
        ("PlateColumns", columns),
    ):
        _leaf(element, name, value)
    for row, column in wells:
        SubElement(element, "Well", {"id": _well(row, column)})


def _describe(element: Element, one: RecordedField, channel: int, name: str, pixel_size_um: float) -> None:
    for key, value in (
        ("id", _image(one, channel)),
        ("State", "Ok"),
        ("URL", plane_name(one, channel)),
        ("Row", one.row),
        ("Col", one.column),
        ("FieldID", one.field),
        ("PlaneID", 1),
        ("TimepointID", 0),
        ("ChannelID", channel),
        ("FlimID", 1),
        ("ChannelName", name),
        ("ImageType", "Signal"),
    ):
        _leaf(element, key, value)
    for axis in "XY":
        _leaf(element, f"ImageResolution{axis}", repr(pixel_size_um * _UM_TO_METRES), Unit="m")
    _leaf(element, "ImageSizeX", one.width)
    _leaf(element, "ImageSizeY", one.height)
    # fields stand side by side: where they lie in a real well is not simulated
    _leaf(element, "PositionX", repr((one.field - 1) * one.width * pixel_size_um * _UM_TO_METRES), Unit="m")
    _leaf(element, "PositionY", "0", Unit="m")


def _leaf(parent: Element, name: str, value: object, **attributes: str) -> None:
    SubElement(parent, name, attributes).text = str(value)


def _well(row: int, column: int) -> str:
    return f"{row:02d}{column:02d}"


def _image(one: RecordedField, channel: int) -> str:
    return f"{_well(one.row, one.column)}K1F{one.field}P1R{channel}"
