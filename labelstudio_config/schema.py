"""The labeling config (XML) of an assay: what the expert sees and draws with.

The composite is the only picture that is drawn on. Each raw channel stands beside it, in grey, as an
image of its own without controls: a faint signal that the composite hides can be looked at, not painted.
So does the map of what the model doubts.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import UnsupportedLabelConfig
from labelstudio_config.payloads import (
    DOUBT_KEY,
    FROM_NAME,
    REVIEWED_LABEL,
    REVIEWED_NAME,
    TO_NAME,
    channel_key,
)

DOUBT_HEADER = "Doubt (in yellow)"

_SIDE_BY_SIDE = "display: flex; align-items: flex-start; gap: 12px"
_LARGE = "flex: 4 1 0; min-width: 0"
_SMALL = "flex: 1 1 0; min-width: 0"
_BESIDE = "cytoloop-beside"
_TOOLBAR = "42px"
_STYLE = f"""
.lsf-object {{ padding-right: {_TOOLBAR}; box-sizing: border-box; }}
.lsf-toolbar {{ margin-right: -{_TOOLBAR}; flex-shrink: 0; }}
.{_BESIDE} .lsf-object {{ padding-right: 0; }}
.{_BESIDE} .lsf-toolbar {{ display: none; }}
"""
"""Keeps room for the toolbar: Label Studio fits the picture into a width that its toolbar then takes a part
of, and the outer 3 % of an item would be out of sight. The pictures beside it are not drawn on and need none.
"""


def labeling_config(assay: Assay) -> str:
    """XML of the project that corrects this assay's items.

    One ``BrushLabels`` with a label per drawn class and the ignore label, and where the assay wants it a rectangle
    that frames what was looked at; the task needs the keys
    ``image``, ``channel_0``… and ``doubt`` (``payloads.TaskData``).
    """
    root = ET.Element("View")
    brush = ET.SubElement(root, "BrushLabels", name=FROM_NAME, toName=TO_NAME)
    for label in [*(label for _, label in assay.foreground), assay.ignore]:
        attributes = {"value": label.name, "background": label.colour}
        if label.hotkey:
            attributes["hotkey"] = label.hotkey
        ET.SubElement(brush, "Label", attributes)
    if assay.reviewed_region:
        # No fill and no turning: it frames pixels and must not hide them, and a tilted frame has no rows.
        frame = {"name": REVIEWED_NAME, "toName": TO_NAME, "strokeWidth": "3", "fillOpacity": "0"}
        rectangle = ET.SubElement(root, "RectangleLabels", {**frame, "canRotate": "false"})
        ET.SubElement(rectangle, "Label", value=REVIEWED_LABEL, background="#ffffff")
    show_pictures(root, assay, with_doubt=True)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def show_pictures(parent: ET.Element, assay: Assay, with_doubt: bool = False) -> None:
    """Add the composite, which is drawn on, and beside it each channel alone where there are several.

    ``with_doubt`` adds the map of what the model doubts, below the channels.
    """
    ET.SubElement(parent, "Style").text = _STYLE
    row = ET.SubElement(parent, "View", style=_SIDE_BY_SIDE)
    large = ET.SubElement(row, "View", style=_LARGE)
    names = " + ".join(channel.name for channel in assay.channels)
    ET.SubElement(large, "Header", value=f"Composite: {names}", size="5")
    _image(large, TO_NAME, {"zoomControl": "true", "brightnessControl": "true", "contrastControl": "true"})
    beside = []
    if len(assay.channels) > 1:
        beside += [(channel.name, channel_key(number)) for number, channel in enumerate(assay.channels)]
    if with_doubt:
        beside.append((DOUBT_HEADER, DOUBT_KEY))
    if beside:
        small = ET.SubElement(row, "View", style=_SMALL, className=_BESIDE)
        for header, key in beside:
            ET.SubElement(small, "Header", value=header, size="5")
            # Shown smaller than it is: unsmoothed, thin lines of the doubt map would break up.
            smoothing = {"smoothing": "true"} if key == DOUBT_KEY else {}
            _image(small, key, {"zoomControl": "false", **smoothing})


def check_label_config(xml: str, assay: Assay) -> None:
    """Refuse a project whose labeling config does not draw this assay's classes.

    Layout, headers, colours and further images may differ; what is drawn, on what, and under which names
    may not.

    Raises
    ------
    UnsupportedLabelConfig
        Naming what differs.
    """
    where = f"labeling config for assay {assay.name!r}"
    try:
        root = fromstring(xml)
    except ET.ParseError as error:
        raise UnsupportedLabelConfig(f"{where}: not XML ({error})") from None
    except DefusedXmlException:
        raise UnsupportedLabelConfig(f"{where}: declares entities, expected none") from None
    controls = [element for element in root.iter() if "toName" in element.attrib]
    got = [(e.tag, e.get("name"), e.get("toName")) for e in controls]
    expected_controls = [("BrushLabels", FROM_NAME, TO_NAME)]
    if assay.reviewed_region:
        expected_controls.append(("RectangleLabels", REVIEWED_NAME, TO_NAME))
    if got != expected_controls:
        wanted = " and ".join(f"'{tag} {name} on {image}'" for tag, name, image in expected_controls)
        raise UnsupportedLabelConfig(
            f"{where}: controls {[f'{tag} {name} on {image}' for tag, name, image in got]}, expected only {wanted}"
        )
    framed = [label.get("value") for control in controls[1:] for label in control.iter("Label")]
    if framed != [REVIEWED_LABEL] * len(controls[1:]):
        raise UnsupportedLabelConfig(f"{where}: rectangles {framed}, expected only {REVIEWED_LABEL!r}")
    labels = [label.get("value", "") for label in controls[0].iter("Label")]
    expected = [label.name for _, label in assay.foreground] + [assay.ignore.name]
    missing = [name for name in expected if name not in labels]
    unknown = [name for name in labels if name not in expected]
    if missing or unknown:
        raise UnsupportedLabelConfig(f"{where}: labels missing {missing}, not of the assay {unknown}")
    images = {image.get("name"): image.get("value") for image in root.iter("Image")}
    if images.get(TO_NAME) != f"${TO_NAME}":
        raise UnsupportedLabelConfig(
            f"{where}: image {TO_NAME!r} shows {images.get(TO_NAME)!r}, expected '${TO_NAME}'"
        )


def _image(parent: ET.Element, name: str, controls: dict[str, str]) -> None:
    # Not smoothed: the expert paints pixels and should see them.
    fixed = {"name": name, "value": f"${name}", "zoom": "true", "smoothing": "false"}
    ET.SubElement(parent, "Image", {**fixed, **controls})
