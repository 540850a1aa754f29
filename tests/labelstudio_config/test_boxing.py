from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import make_assay

from cytoloop.domain.errors import CytoloopError, InputError, ShapeError, UnsupportedLabelConfig
from cytoloop.domain.metrics.boxes import Box
from labelstudio_config.boxing import box_region, boxing_config, parse_boxes

ASSAY = make_assay()
H, W = 256, 340
BOX = Box(value=2, top=64, left=34, bottom=128, right=68)


def changed(value: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    region = box_region(BOX, 1, ASSAY, H, W)
    return {**region, **changes, "value": {**region["value"], **(value or {})}}


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    top, left = draw(st.integers(0, H - 1)), draw(st.integers(0, W - 1))
    return Box(
        value=draw(st.sampled_from([1, 2])),
        top=top,
        left=left,
        bottom=draw(st.integers(top + 1, H)),
        right=draw(st.integers(left + 1, W)),
    )


@given(st.lists(boxes(), max_size=5))
def test_whole_pixels_survive_percent_exactly(drawn: list[Box]) -> None:
    regions = json.loads(json.dumps([box_region(box, n, ASSAY, H, W) for n, box in enumerate(drawn)]))
    assert parse_boxes(regions, ASSAY, H, W, "task 1") == tuple(drawn)


def test_percent_by_hand() -> None:
    value = box_region(BOX, 1, ASSAY, H, W)["value"]
    assert value == {
        "x": 10.0,
        "y": 25.0,
        "width": 10.0,
        "height": 25.0,
        "rotation": 0,
        "rectanglelabels": ["Autolysosome"],
    }


def test_a_box_over_the_edge_is_cut_off() -> None:
    [box] = parse_boxes([changed({"x": -5.0, "width": 20.0, "y": 90.0})], ASSAY, H, W, "task 1")
    assert (box.left, box.right) == (0.0, 51.0)
    assert (box.top, box.bottom) == (pytest.approx(230.4), 256.0)


def test_a_rotated_box_becomes_the_upright_one_around_it() -> None:
    # A quarter turn clockwise about the top left corner (34, 64): 34 wide and 64 high become 64 wide, 34 high,
    # reaching left; cut off at the picture's edge.
    [box] = parse_boxes([changed({"rotation": 90, "x": 50.0})], ASSAY, H, W, "task 1")
    assert (box.top, box.bottom) == (64.0, 98.0)
    assert (box.left, box.right) == (106.0, 170.0)


@pytest.mark.parametrize(
    ("region", "kind", "said"),
    [
        (
            changed(original_width=341),
            ShapeError,
            r"drawn on a picture of \(256, 341\), expected \(256, 340\)",
        ),
        (changed(image_rotation=90), InputError, "picture rotated by 90°"),
        (changed({"rectanglelabels": ["Vesicle"]}), UnsupportedLabelConfig, "'Vesicle' is not of assay"),
        (changed({"rectanglelabels": ["Ignore"]}), UnsupportedLabelConfig, "expected a drawn class"),
        (changed({"rectanglelabels": []}), InputError, "labels .*, expected one"),
        (changed(type="brushlabels"), UnsupportedLabelConfig, "type 'brushlabels'"),
        (changed({"width": 0}), InputError, "no box inside the picture"),
        (changed({"x": 100.0}), InputError, "no box inside the picture"),
        (changed({"y": None}), InputError, "y is None, expected a number"),
        ({**changed(), "value": 3}, InputError, "value is int"),
    ],
)
def test_what_is_no_box_is_refused(region: dict[str, Any], kind: type[CytoloopError], said: str) -> None:
    with pytest.raises(kind, match=f"task 1: region 'box-1'.*{said}|{said}"):
        parse_boxes([region], ASSAY, H, W, "task 1")


def test_the_page_draws_the_classes_upright_on_the_composite() -> None:
    root = ET.fromstring(boxing_config(ASSAY))
    [control] = root.iter("RectangleLabels")
    assert (control.get("toName"), control.get("canRotate")) == ("image", "false")
    assert [label.get("value") for label in control.iter("Label")] == ["Phagophore", "Autolysosome"]
    assert [image.get("name") for image in root.iter("Image")] == ["image", "channel_0", "channel_1"]
