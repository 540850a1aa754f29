"""The box surrogate in Label Studio's language: the page an expert draws boxes on, and the boxes drawn.

Percent of the picture and (x, y) order end here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.errors import InputError, ShapeError, UnsupportedLabelConfig
from cytoloop.domain.metrics.boxes import Box
from labelstudio_config.payloads import TO_NAME
from labelstudio_config.schema import show_pictures

CONTROL = "box"
INSTRUCTION = (
    "<p>Draw a box around <b>every</b> event you see on the composite: press the key of its class, then drag. "
    "The box should just enclose the event. Touching events get a box each.</p><p><b>Submit</b> when all are "
    "boxed. An image without any event is submitted empty.</p>"
)
_PLACES = 6
"""Digits of a pixel that are kept: percent to pixels and back is then exact for whole pixels."""


def boxing_config(assay: Assay) -> str:
    """XML of a project that draws boxes of this assay's classes on the composite."""
    root = ET.Element("View")
    # A rotated rectangle is no box; thin lines leave small events visible.
    options = {"name": CONTROL, "toName": TO_NAME, "canRotate": "false", "strokeWidth": "1", "opacity": "0.1"}
    control = ET.SubElement(root, "RectangleLabels", options)
    for _, label in assay.foreground:
        attributes = {"value": label.name, "background": label.colour}
        if label.hotkey:
            attributes["hotkey"] = label.hotkey
        ET.SubElement(control, "Label", attributes)
    show_pictures(root, assay)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def box_region(box: Box, number: int, assay: Assay, height: int, width: int) -> dict[str, Any]:
    """A box as the editor submits it.

    Parameters
    ----------
    number : int
        Tells the regions of a task apart.
    height, width : int
        Of the picture, pixels.
    """
    return {
        "id": f"box-{number}",
        "from_name": CONTROL,
        "to_name": TO_NAME,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {
            "x": 100 * box.left / width,
            "y": 100 * box.top / height,
            "width": 100 * (box.right - box.left) / width,
            "height": 100 * (box.bottom - box.top) / height,
            "rotation": 0,
            "rectanglelabels": [assay.classes[box.value].name],
        },
    }


def parse_boxes(
    result: Sequence[Mapping[str, Any]], assay: Assay, height: int, width: int, where: str
) -> tuple[Box, ...]:
    """Boxes of an annotation, in pixels of a picture of ``height`` x ``width``.

    What reaches beyond the picture is cut off. A rectangle that was rotated all the same (the project
    does not offer it) becomes the smallest upright box around it.

    Raises
    ------
    InputError
        If a region is malformed, lies outside the picture, or the whole picture was rotated.
    ShapeError
        If a region was drawn on a picture of another size.
    UnsupportedLabelConfig
        If a region is no rectangle, or its label is no drawn class of the assay.
    """
    return tuple(_parse_box(region, assay, height, width, where) for region in result)


def _parse_box(region: Mapping[str, Any], assay: Assay, height: int, width: int, where: str) -> Box:
    where = f"{where}: region {region.get('id')!r}"
    if region.get("type") != "rectanglelabels":
        raise UnsupportedLabelConfig(f"{where}: type {region.get('type')!r}, expected 'rectanglelabels'")
    size = region.get("original_height"), region.get("original_width")
    if size != (height, width):
        raise ShapeError(f"{where}: drawn on a picture of {size}, expected {(height, width)}")
    if region.get("image_rotation"):
        raise InputError(f"{where}: picture rotated by {region['image_rotation']}°, expected upright")
    value = region.get("value")
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: value is {type(value).__name__}, expected a JSON object")
    labels = value.get("rectanglelabels")
    if not isinstance(labels, list) or len(labels) != 1:
        raise InputError(f"{where}: labels {labels!r}, expected one")
    class_value = assay.value_of(labels[0])
    if class_value == IGNORE:
        raise UnsupportedLabelConfig(f"{where}: label {labels[0]!r}, expected a drawn class")
    x, y, w, h = (_number(value, key, where) for key in ("x", "y", "width", "height"))
    turn = math.radians(_number(value, "rotation", where, default=0.0))
    # In pixels first: percent of a picture that is not square would shear the rotation.
    left, top, across, down = x * width / 100, y * height / 100, w * width / 100, h * height / 100
    # Label Studio turns clockwise about the top left corner.
    corners = [
        (left + u * math.cos(turn) - v * math.sin(turn), top + u * math.sin(turn) + v * math.cos(turn))
        for u, v in ((0, 0), (across, 0), (0, down), (across, down))
    ]
    columns, rows = zip(*corners, strict=True)
    edges = {
        "top": _within(min(rows), height),
        "left": _within(min(columns), width),
        "bottom": _within(max(rows), height),
        "right": _within(max(columns), width),
    }
    if edges["top"] >= edges["bottom"] or edges["left"] >= edges["right"]:
        raise InputError(f"{where}: x {x}, y {y}, {w} x {h} %: no box inside the picture")
    return Box(value=class_value, **edges)


def _within(edge: float, size: int) -> float:
    return min(max(round(edge, _PLACES), 0.0), float(size))


def _number(value: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    number = value.get(key, default)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise InputError(f"{where}: {key} is {number!r}, expected a number")
    return float(number)
