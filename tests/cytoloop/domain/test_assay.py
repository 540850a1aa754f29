"""An assay's classes as pixel values, and what counts as a mask of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from samples import make_assay

from cytoloop.domain.assay import IGNORE, Cip, Teacher
from cytoloop.domain.errors import ShapeError, UnsupportedLabelConfig
from cytoloop.domain.types import Prediction, check_label_mask

ASSAY = make_assay()


def test_a_class_is_its_place_in_the_list() -> None:
    assert ASSAY.class_count == 3
    assert [ASSAY.value_of(name) for name in ("Phagophore", "Autolysosome", "Ignore")] == [1, 2, IGNORE]
    assert [value for value, _ in ASSAY.foreground] == [1, 2]


@pytest.mark.parametrize("name", ["Background", "phagophore", ""])
def test_what_is_not_drawn_has_no_value(name: str) -> None:
    expected = r"expected one of \['Phagophore', 'Autolysosome', 'Ignore'\]"
    with pytest.raises(UnsupportedLabelConfig, match=f"label '{name}' is not of assay 'rosella'; {expected}"):
        ASSAY.value_of(name)


def test_the_later_class_wins_unless_told_otherwise() -> None:
    assert ASSAY.priority_values == (2, 1)
    assert replace(ASSAY, class_priority=("Phagophore", "Autolysosome")).priority_values == (1, 2)


def test_the_digest_follows_the_document() -> None:
    json.dumps(ASSAY.document())
    assert ASSAY.digest == make_assay().digest
    assert ASSAY.digest != replace(ASSAY, tiling=(1, 1)).digest


def test_an_assay_of_one_teacher_keeps_the_digest_it_always_had() -> None:
    assert ASSAY.digest == "0f817ca99e4b73321fcd3a589018c71dfbfb29a3bdfc8bf66334db66952cb27a"
    assert set(ASSAY.document()["cip"]) == {"recipe", "parameters"}


def test_the_document_tells_the_teachers() -> None:
    teachers = (Teacher(parameters={"psf_sigma": 2}),)
    voting = replace(ASSAY, cip=Cip(recipe="rosella", teachers=teachers, agreement=0.5))
    assert json.loads(json.dumps(voting.document()["cip"])) == {
        "recipe": "rosella",
        "parameters": {},
        "teachers": [{"recipe": None, "parameters": {"psf_sigma": 2}}],
        "agreement": 0.5,
    }
    assert len({assay.digest for assay in (ASSAY, voting, replace(voting, cip=Cip(recipe="rosella")))}) == 2


@pytest.mark.parametrize("values", [[0, 1, 2, 255], [255], [0]])
def test_masks_of_known_values_pass(values: list[int]) -> None:
    mask = np.array([values], np.uint8)
    assert check_label_mask(mask, 3, "here") is mask


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.array([[0, 3, 254]], np.uint8), r"task 4: mask holds values \[3, 254\], expected 0…2 or 255"),
        (np.zeros((2, 2), np.int64), r"task 4: mask is int64 \(2, 2\), expected uint8 \(H, W\)"),
        (np.zeros((2, 2, 3), np.uint8), r"task 4: mask is uint8 \(2, 2, 3\), expected uint8 \(H, W\)"),
        (np.zeros(4, bool), "task 4: mask is bool"),
    ],
)
def test_other_masks_are_refused(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        check_label_mask(mask, 3, "task 4")


def test_a_prediction_is_its_most_probable_class() -> None:
    prob = np.array([[[0.2, 0.5]], [[0.5, 0.3]], [[0.3, 0.2]]], np.float32)
    mask = Prediction(version="v", image_key="k", prob_KHW=prob).mask_HW
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[1, 0]]
