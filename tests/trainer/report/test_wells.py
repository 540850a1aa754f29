"""A plate in a report: places of wells, and the picture of them."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from trainer.report.figures import plate_map
from trainer.report.wells import WellScore, format_of, place_of, plates_of

WELL = WellScore(plate="P", well="B03", split="contest", items=4, corrected=1, minutes=1.0, mean_iou=0.71)


def texts(svg: str) -> list[str]:
    found = ElementTree.fromstring(svg).iter()
    return ["".join(e.itertext()).strip() for e in found if e.tag.endswith("}text")]


@pytest.mark.parametrize(
    ("well", "place"),
    [
        ("A01", (0, 0)),
        ("P24", (15, 23)),
        ("AF48", (31, 47)),
        ("B3", (1, 2)),
        ("A00", None),
        ("1A", None),
        ("", None),
    ],
)
def test_wells_have_places(well: str, place: tuple[int, int] | None) -> None:
    assert place_of(well) == place


@pytest.mark.parametrize(
    ("wells", "size"),
    [
        (["A01", "B03"], (2, 3)),
        (["H12"], (8, 12)),
        (["A13"], (16, 24)),
        (["Q01"], (32, 48)),
        (["AG01"], None),
    ],
)
def test_a_plate_is_the_smallest_that_has_all_its_wells(
    wells: list[str], size: tuple[int, int] | None
) -> None:
    assert format_of([place for well in wells if (place := place_of(well))]) == size


def test_wells_are_sorted_into_their_plates() -> None:
    first, second = plates_of([replace(WELL, plate="Q"), replace(WELL, well="C01"), WELL])
    assert [one.well for one in first.wells] == ["B03", "C01"]
    assert second.plate == "Q"


def test_a_judged_well_has_its_number_where_there_is_room() -> None:
    svg = plate_map(
        [
            WELL,
            replace(WELL, well="H12", mean_iou=None),
            replace(WELL, well="A01", corrected=0, mean_iou=None),
        ]
    )
    assert svg is not None
    assert "0.71" in texts(svg)
    assert {"A", "H", "1", "12"} <= set(texts(svg))
    large = plate_map([WELL, replace(WELL, well="P24")])
    assert large is not None
    assert "0.71" not in texts(large)


def test_learned_from_judged_and_empty_wells_look_different() -> None:
    def faces(**changes: object) -> str:
        svg = plate_map([replace(WELL, well="A01"), replace(WELL, **changes)])
        assert svg is not None
        return svg

    looks = {
        faces(),
        faces(mean_iou=0.2),
        faces(mean_iou=None),
        faces(mean_iou=None, corrected=0),
    }
    assert len(looks) == 4


def test_there_is_no_picture_of_wells_without_places_or_corrections() -> None:
    assert plate_map([replace(WELL, well="left")]) is None
    assert plate_map([replace(WELL, corrected=0, mean_iou=None)]) is None
    assert plate_map([]) is None
