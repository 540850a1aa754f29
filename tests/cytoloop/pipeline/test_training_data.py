"""What teachers disagree on weighs less, or is not learned from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE, Assay, Cip, Teacher
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import TrainingSnapshot
from cytoloop.pipeline.training_data import learning_items, training_items
from cytoloop.pipeline.weak_labels import weak_confidences, weak_label_store, weak_masks

if TYPE_CHECKING:
    from conftest import SmallHome

IMAGE = np.zeros((2, 1, 4), np.float32)
WEAK = np.array([[0, 1, 2, 2]], np.uint8)
VOTES = np.array([[255, 170, 85, 255]], np.uint8)
TEACHERS = (Teacher(parameters={"red_threshold": 100}), Teacher(parameters={"psf_sigma": 2}))


def test_confidence_weighs_the_pixels_of_the_weak_mask() -> None:
    (item,) = learning_items(IMAGE, None, WEAK, 0.5, VOTES)
    np.testing.assert_array_equal(item.mask_HW, WEAK)
    assert item.confidence_HW is not None
    np.testing.assert_allclose(item.confidence_HW, [[1, 2 / 3, 1 / 3, 1]], rtol=1e-6)
    assert (item.confidence_HW.dtype, item.weight) == (np.float32, 0.5)


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        (0.0, [0, 1, 2, 2]),
        (0.33, [0, 1, 2, 2]),
        (0.34, [0, 1, IGNORE, 2]),
        (0.667, [0, 1, IGNORE, 2]),  # two of three, rounded as people write it
        (0.67, [0, IGNORE, IGNORE, 2]),
        (1.0, [0, IGNORE, IGNORE, 2]),
    ],
)
def test_pixels_below_the_agreement_are_left_out(agreement: float, expected: list[int]) -> None:
    (item,) = learning_items(IMAGE, None, WEAK, 0.5, VOTES, agreement)
    assert item.mask_HW.tolist() == [expected]


def test_a_correction_is_sure_whatever_the_teachers_said() -> None:
    corrected = np.array([[1, IGNORE, IGNORE, IGNORE]], np.uint8)
    strong, weak = learning_items(IMAGE, corrected, WEAK, 0.5, VOTES, 1.0)
    assert strong.confidence_HW is None
    assert strong.mask_HW.tolist() == corrected.tolist()
    assert weak.mask_HW.tolist() == [[IGNORE, IGNORE, IGNORE, 2]]


def test_one_teacher_alone_is_sure_and_no_agreement_is_asked_of_it() -> None:
    (item,) = learning_items(IMAGE, None, WEAK, 0.5, None, 1.0)
    np.testing.assert_array_equal(item.mask_HW, WEAK)
    assert item.confidence_HW is None


def test_an_image_on_which_nobody_agrees_is_no_item() -> None:
    assert learning_items(IMAGE, None, WEAK, 0.5, np.full_like(VOTES, 85), 0.5) == []


def test_a_confidence_of_another_size_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"confidence \(4, 1\), expected its mask's \(1, 4\)"):
        learning_items(IMAGE, None, WEAK, 0.5, VOTES.T)


# --- from the store --------------------------------------------------------------------------------


def voting(home: SmallHome, agreement: float) -> Assay:
    return replace(home.assay, cip=Cip(recipe="rosella", teachers=TEACHERS, agreement=agreement))


def snapshot_of(home: SmallHome, assay: Assay) -> TrainingSnapshot:
    splits = {record.image_id: record.split for record in home.store.images.all("rosella")}
    corrected = {item: c.mask for item, c in home.store.corrections.standing("rosella").items()}
    return make_snapshot(
        "rosella",
        "joint",
        weak_masks(home.store, assay),
        corrected,
        splits,
        weak_confidences(home.store, assay),
        assay.cip.agreement,
    )


def test_a_snapshot_gives_the_same_items_whatever_the_assay_says_by_now(home: SmallHome) -> None:
    strict = voting(home, 1.0)
    weak_label_store(home.store, strict)
    home.correct(home.of("train")[0].image_id, 0)
    snapshot = snapshot_of(home, strict)
    items, _ = training_items(home.store, strict, snapshot, 0.5)
    again, _ = training_items(home.store, home.assay, snapshot, 0.5)
    assert len(items) == len(again) == 1 + len(home.of("train"))
    for one, other in zip(items, again, strict=True):
        np.testing.assert_array_equal(one.mask_HW, other.mask_HW)
        np.testing.assert_array_equal(_sure(one.confidence_HW), _sure(other.confidence_HW))
    assert snapshot_of(home, voting(home, 0.5)).digest != snapshot.digest


def test_items_of_the_store_are_its_masks_where_teachers_agree(home: SmallHome) -> None:
    strict = voting(home, 1.0)
    weak_label_store(home.store, strict)
    home.correct(home.of("train")[0].image_id, 0)
    items, _ = training_items(home.store, strict, snapshot_of(home, strict), 0.5)
    last = home.of("train")[-1].image_id
    mask_HW = home.store.masks.get(weak_masks(home.store, strict)[last])
    confidence_HW = home.store.masks.get(weak_confidences(home.store, strict)[last])
    differ_HW = confidence_HW < 255
    assert differ_HW.any()
    assert not differ_HW.all()
    np.testing.assert_array_equal(items[-1].mask_HW, np.where(differ_HW, IGNORE, mask_HW))
    lenient, _ = training_items(home.store, strict, snapshot_of(home, voting(home, 0.0)), 0.5)
    np.testing.assert_array_equal(lenient[-1].mask_HW, mask_HW)
    np.testing.assert_allclose(_sure(lenient[-1].confidence_HW), confidence_HW / 255, rtol=1e-6)


def _sure(confidence_HW: NDArray[np.float32] | None) -> NDArray[np.float32]:
    return np.ones(1, np.float32) if confidence_HW is None else confidence_HW
