from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import UnsupportedLabelConfig
from labelstudio_config.boxing import boxing_config
from labelstudio_config.schema import check_label_config, labeling_config


def assay_of(*channels: str) -> Assay:
    return Assay(
        name="cells",
        channels=tuple(Channel(name=name) for name in channels),
        classes=(
            LabelClass(name="Background", colour="#000000"),
            LabelClass(name='Cell "A" & <B>', colour="#ff0000", hotkey="1"),
            LabelClass(name="Nucleus", colour="#0000ff"),
        ),
        ignore=LabelClass(name="Ignore", colour="#888888", hotkey="9"),
        cip=Cip(recipe="none"),
    )


def test_every_drawn_class_and_ignore_is_a_label_and_background_is_none() -> None:
    root = ET.fromstring(labeling_config(assay_of("dye")))
    labels = [dict(label.attrib) for label in root.iter("Label")]
    assert labels == [
        {"value": 'Cell "A" & <B>', "background": "#ff0000", "hotkey": "1"},
        {"value": "Nucleus", "background": "#0000ff"},
        {"value": "Ignore", "background": "#888888", "hotkey": "9"},
    ]


def test_each_channel_stands_beside_the_composite_under_its_name() -> None:
    root = ET.fromstring(labeling_config(assay_of("gal3", "LC3")))
    assert [(i.get("name"), i.get("value")) for i in root.iter("Image")] == [
        ("image", "$image"),
        ("channel_0", "$channel_0"),
        ("channel_1", "$channel_1"),
        ("doubt", "$doubt"),
    ]
    headers = [h.get("value") for h in root.iter("Header")]
    assert headers == ["Composite: gal3 + LC3", "gal3", "LC3", "Doubt (in yellow)"]


def test_a_single_channel_is_not_shown_twice() -> None:
    root = ET.fromstring(labeling_config(assay_of("dye")))
    assert [i.get("name") for i in root.iter("Image")] == ["image", "doubt"]


def test_nothing_can_be_drawn_on_the_doubt_map() -> None:
    root = ET.fromstring(labeling_config(assay_of("gal3", "LC3")))
    assert [e.get("toName") for e in root.iter() if "toName" in e.attrib] == ["image"]


def test_studies_that_share_the_pictures_show_no_doubt() -> None:
    root = ET.fromstring(boxing_config(assay_of("gal3", "LC3")))
    assert [i.get("name") for i in root.iter("Image")] == ["image", "channel_0", "channel_1"]


def test_our_own_config_is_accepted() -> None:
    for assay in (assay_of("dye"), assay_of("gal3", "LC3")):
        check_label_config(labeling_config(assay), assay)


def test_a_frame_is_offered_where_the_assay_wants_it() -> None:
    framing = replace(assay_of("dye"), reviewed_region=True)
    root = ET.fromstring(labeling_config(framing))
    (rectangle,) = root.iter("RectangleLabels")
    assert (rectangle.get("name"), rectangle.get("toName"), rectangle.get("canRotate")) == (
        "reviewed",
        "image",
        "false",
    )
    assert [label.get("value") for label in rectangle.iter("Label")] == ["Reviewed region"]
    check_label_config(labeling_config(framing), framing)


def test_a_config_without_the_frame_or_with_one_unasked_is_refused() -> None:
    plain = assay_of("dye")
    framing = replace(plain, reviewed_region=True)
    with pytest.raises(
        UnsupportedLabelConfig, match=r"expected only .* and 'RectangleLabels reviewed on image'"
    ):
        check_label_config(labeling_config(plain), framing)
    with pytest.raises(
        UnsupportedLabelConfig, match=r"RectangleLabels reviewed on image'.*expected only 'Brush"
    ):
        check_label_config(labeling_config(framing), plain)
    renamed = labeling_config(framing).replace("Reviewed region", "Seen")
    with pytest.raises(
        UnsupportedLabelConfig, match=r"rectangles \['Seen'\], expected only 'Reviewed region'"
    ):
        check_label_config(renamed, framing)


OURS = labeling_config(assay_of("dye"))
LAUGHS = "".join(f"<!ENTITY l{n + 1} '{f'&l{n};' * 10}'>" for n in range(9))
BILLION_LAUGHS = f"<!DOCTYPE View [<!ENTITY l0 'ha'>{LAUGHS}]><View>&l9;</View>"


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<View>", "not XML"),
        (BILLION_LAUGHS, "declares entities, expected none"),
        ("<View/>", r"controls \[\]"),
        (OURS.replace("BrushLabels", "BitmaskLabels"), "BitmaskLabels tag on image"),
        (OURS.replace('name="tag"', 'name="brush"'), "BrushLabels brush on image"),
        (OURS.replace("</View>", '<Choices name="c" toName="image"/></View>', 1), "Choices c on image"),
        (OURS.replace('"Nucleus"', '"Nuclei"'), r"missing \['Nucleus'\], not of the assay \['Nuclei'\]"),
        (OURS.replace('value="$image"', 'value="$picture"'), r"shows '\$picture'"),
    ],
)
def test_a_config_that_draws_something_else_is_refused_by_name(xml: str, message: str) -> None:
    with pytest.raises(UnsupportedLabelConfig, match=message):
        check_label_config(xml, assay_of("dye"))
