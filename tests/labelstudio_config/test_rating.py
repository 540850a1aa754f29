from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from samples import make_assay

from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.rating_design import Showing
from labelstudio_config.rating import parse_rating, rating_config, rating_task, render_rating

ASSAY = make_assay()


def region(rating: Any, **changes: Any) -> dict[str, Any]:
    return {"type": "rating", "from_name": "rating", "value": {"rating": rating}, **changes}


def test_the_page_asks_for_one_to_ten_beside_three_pictures() -> None:
    root = ET.fromstring(rating_config(ASSAY))
    assert [image.get("value") for image in root.iter("Image")] == ["$left", "$right", "$overlay"]
    [rating] = root.iter("Rating")
    assert (rating.get("maxRating"), rating.get("required")) == ("10", "true")
    headers = [header.get("value") for header in root.iter("Header")]
    assert headers[:2] == ["Phagophore", "Autolysosome"]
    assert "Ignore" not in headers
    assert 'value="Ignore"' in rating_config(ASSAY, with_ignored=True)


@pytest.mark.parametrize("is_left", [True, False])
def test_a_task_shows_the_mask_on_its_side(is_left: bool) -> None:
    task = rating_task("r 1", Showing(token="ab12", is_mask_left=is_left))
    side, other = ("left", "right") if is_left else ("right", "left")
    assert task[side] == "/data/local-files/?d=ratings/r%201/ab12-mask.png"
    assert task[other] == "/data/local-files/?d=ratings/r%201/ab12-image.png"
    assert (task[f"{side}_title"], task[f"{other}_title"]) == ("Segmentation", "Image")
    assert task["overlay"].endswith("ab12-overlay.png")


def test_a_task_holds_its_token_and_nothing_else_that_tells_it_apart() -> None:
    one = json.dumps(rating_task("r", Showing(token="aaaa", is_mask_left=True)))
    other = json.dumps(rating_task("r", Showing(token="bbbb", is_mask_left=True)))
    assert one.replace("aaaa", "bbbb") == other


def test_the_three_pictures_are_enlarged_alike(tmp_path: Path) -> None:
    mask_HW = np.zeros((100, 200), np.uint8)
    mask_HW[40:60, 40:60] = 1
    picture = np.full((100, 200, 3), 7, np.uint8)
    render_rating(tmp_path, "ab", picture, mask_HW, ASSAY)
    views = {p.stem: np.asarray(Image.open(p)) for p in tmp_path.iterdir()}
    assert {name: view.shape for name, view in views.items()} == dict.fromkeys(
        ("ab-image", "ab-mask", "ab-overlay"), (500, 1000, 3)
    )
    yellow = (0xF0, 0xE4, 0x42)
    assert (views["ab-mask"][200:300, 200:300] == yellow).all()
    assert (views["ab-image"] == 7).all()
    outline = (views["ab-overlay"] == yellow).all(axis=-1)
    assert outline[200:300, 200:202].all()  # two enlarged pixels wide, inside the object
    assert not outline[202:298, 202:298].any()
    assert outline.sum() == 100**2 - 96**2


def test_a_rating_is_read() -> None:
    assert parse_rating([region(1)], "task 4") == 1
    assert parse_rating([{"type": "choices"}, region(10)], "task 4") == 10


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ([], "task 4: 0 ratings, expected one"),
        ([region(3), region(4)], "task 4: 2 ratings"),
        ([region(3, from_name="other")], "task 4: 0 ratings"),
        ([region(0)], "task 4: rating is 0, expected a whole number 1…10"),
        ([region(11)], "rating is 11"),
        ([region(True)], "rating is True"),
        ([region("7")], "rating is '7'"),
        ([region(3, value=None)], "rating is None"),
    ],
)
def test_what_is_no_rating_is_refused(result: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_rating(result, "task 4")
