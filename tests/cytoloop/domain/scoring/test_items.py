"""An item's scores, and what the expert is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.expected_effort import MinutesModel
from cytoloop.domain.scoring import SCORES, ItemScores, Look, foreground_entropy, score_item, soften


def boxes(*found: tuple[int, int, int, int], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A mask with squares (class, row, column, side)."""
    mask_HW = np.zeros(size, np.uint8)
    for value, row, column, side in found:
        mask_HW[row : row + side, column : column + side] = value
    return mask_HW


def sure(mask_HW: Any, own: float = 0.999, classes: int = 3) -> np.ndarray:
    onehot = (np.arange(classes)[:, None, None] == mask_HW).astype(np.float32)
    return onehot * np.float32(own) + (1 - onehot) * np.float32((1 - own) / (classes - 1))


TWO = boxes((1, 5, 5, 9), (2, 5, 35, 9))


def test_only_what_the_look_allows_is_scored() -> None:
    assert set(score_item(Look(prob_KHW=sure(TWO))).values) == {"entropy", "margin", "effort"}
    some_HW = np.full(TWO.shape, 0.1, np.float32)
    whole = score_item(
        Look(prob_KHW=sure(TWO), mutual_information_HW=some_HW, augmentation_HW=2 * some_HW, cip_HW=TWO)
    )
    assert set(whole.values) == set(SCORES)
    assert whole.values["augmentation"] == pytest.approx(2 * whole.values["mutual-information"])
    assert whole.features_F is None


def test_a_tile_is_scored_by_its_own_pixels() -> None:
    prob_KHW = sure(TWO)
    prob_KHW[:, 5:14, 35:44] = np.array([0.2, 0.35, 0.45], np.float32)[:, None, None]
    look = Look(prob_KHW=prob_KHW)
    left, right = (score_item(look, (slice(0, 40), columns)) for columns in (slice(0, 30), slice(30, 60)))
    assert right.values["entropy"] == pytest.approx(foreground_entropy(prob_KHW[:, :, 30:]))
    for name in ("entropy", "margin", "effort"):
        assert right.values[name] > 5 * left.values[name]
    assert right.minutes > left.minutes


def test_information_and_entropy_are_kept_apart() -> None:
    """The left disc is unsure for good, the right one only of its weights."""
    prob_KHW = sure(TWO)
    prob_KHW[:, 5:14, 5:14] = np.array([0.4, 0.6, 0.0], np.float32)[:, None, None]
    information_HW = np.zeros(TWO.shape, np.float32)
    information_HW[5:14, 35:44] = 0.3
    look = Look(prob_KHW=prob_KHW, mutual_information_HW=information_HW)
    left, right = (
        score_item(look, (slice(0, 40), columns)).values for columns in (slice(0, 30), slice(30, 60))
    )
    assert left["entropy"] > right["entropy"]
    assert left["mutual-information"] == 0 < right["mutual-information"]


def test_disagreement_rises_with_what_cip_has_otherwise() -> None:
    masks = (TWO, boxes((1, 5, 5, 9)), boxes((2, 20, 5, 9)))
    found = [score_item(Look(prob_KHW=sure(TWO), cip_HW=cip)).values["disagreement"] for cip in masks]
    assert found[0] < 0.01
    assert found[0] < found[1] < found[2] <= 1


@pytest.mark.parametrize(
    ("cip", "reason"),
    [
        (TWO, "as the CIP has it, 0 of 2 objects in doubt; est. 1 min"),
        (boxes((1, 5, 5, 9)), "1 object differs from the CIP; est. 1 min"),
        (boxes((2, 5, 5, 9), (1, 5, 35, 9)), "2 objects differ from the CIP; est. 1 min"),
        (boxes((1, 5, 5, 9), (2, 5, 35, 9), (1, 25, 25, 5)), "1 object differs from the CIP; est. 1 min"),
        (boxes((1, 5, 5, 5), (2, 5, 35, 9)), "1 object differs from the CIP; est. 1 min"),
        (boxes(), "2 objects differ from the CIP; est. 1 min"),
    ],
    ids=["same", "lacks one", "other classes", "has one more", "smaller by two thirds", "empty"],
)
def test_the_reason_counts_what_differs_from_the_cip(cip: Any, reason: str) -> None:
    assert score_item(Look(prob_KHW=sure(TWO), cip_HW=cip)).reason == reason


def test_where_cip_did_not_look_nothing_differs() -> None:
    cip = boxes((1, 5, 5, 9))
    cip[:, 30:] = 255
    assert score_item(Look(prob_KHW=sure(TWO), cip_HW=cip)).reason.startswith("as the CIP has it")


def test_the_reason_names_objects_at_a_class_boundary() -> None:
    prob_KHW = sure(TWO)
    prob_KHW[:, 5:14, 35:44] = np.array([0.0, 0.4, 0.6], np.float32)[:, None, None]
    told = score_item(Look(prob_KHW=prob_KHW, cip_HW=boxes((1, 5, 35, 9))))
    assert told.reason == "2 objects differ from the CIP, 1 at a class boundary; est. 1 min"
    assert score_item(Look(prob_KHW=prob_KHW)).reason == (
        "1 of 2 objects in doubt, 1 at a class boundary; est. 1 min"
    )


def test_the_reason_says_when_there_is_nothing_or_cip_alone() -> None:
    nothing = sure(boxes())
    assert score_item(Look(prob_KHW=nothing)).reason == (
        "no object seen; an empty field, or all of it missed; est. 1 min"
    )
    assert score_item(Look(prob_KHW=nothing, cip_HW=TWO)).reason == (
        "no object seen where the CIP has 2; est. 1 min"
    )
    by_cip = Look(prob_KHW=soften(TWO, 3), is_cip=True)
    assert score_item(by_cip).reason == "2 objects, by the CIP alone; est. 1 min"


def test_minutes_are_those_of_the_expert() -> None:
    look = Look(prob_KHW=sure(TWO))
    slow = MinutesModel(scale=2.0, experts={"ada": 10.0})
    fixed, anyone, ada = (
        score_item(look),
        score_item(look, minutes=slow),
        score_item(look, minutes=slow, expert="ada"),
    )
    assert anyone.minutes == pytest.approx(2 * fixed.minutes)
    assert ada.minutes == pytest.approx(10 * fixed.minutes)
    assert ada.reason.endswith("est. 8 min")
    assert ada.values == fixed.values, "effort is at the fixed prices: scores of two experts compare"


def test_features_are_those_of_the_tile_at_unit_length() -> None:
    features_FHW = np.zeros((2, 5, 8), np.float32)
    features_FHW[0, :, :4], features_FHW[1, :, 4:] = 3.0, 0.5
    look = Look(prob_KHW=sure(boxes()), features_FHW=features_FHW)
    for columns, expected in ((slice(0, 30), [1, 0]), (slice(32, 60), [0, 1])):
        found = score_item(look, (slice(0, 40), columns)).features_F
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_objects_decide_what_a_tile_looks_like() -> None:
    features_FHW = np.zeros((2, 5, 5), np.float32)
    features_FHW[0], features_FHW[:, 2, 2] = 1.0, [0.0, 1.0]
    found = [
        score_item(Look(prob_KHW=sure(mask, 1.0), features_FHW=features_FHW)).features_F
        for mask in (boxes(size=(40, 40)), boxes((1, 16, 16, 8), size=(40, 40)))
    ]
    assert found[0][0] > 0.99
    assert found[1][0] == pytest.approx(1.2 / np.hypot(1.2, 1.05), rel=1e-5)  # 24 cells of 0.05, one of 1.05


def test_features_coarser_than_a_tile_still_tell() -> None:
    look = Look(prob_KHW=sure(boxes()), features_FHW=np.ones((3, 1, 1), np.float32))
    found = score_item(look, (slice(10, 12), slice(50, 60))).features_F
    np.testing.assert_allclose(found, np.full(3, 3**-0.5), rtol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.5, 1.5])
def test_probabilities_that_are_none_are_refused(wrong: float) -> None:
    prob_KHW = sure(TWO)
    prob_KHW[1, 7, 7] = wrong
    with pytest.raises(
        ShapeError, match=r"look: probabilities: shape \(3, 40, 60\).*expected finite values 0…1"
    ):
        Look(prob_KHW=prob_KHW)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"mutual_information_HW": np.zeros((3, 3), np.float32)}, r"mutual_information_HW: shape \(3, 3\)"),
        ({"augmentation_HW": np.full((40, 60), np.nan, np.float32)}, "augmentation_HW: values nan"),
        ({"features_FHW": np.full((2, 3, 4), np.inf, np.float32)}, "features: values inf"),
        ({"features_FHW": np.zeros((3, 4), np.float32)}, r"features \(3, 4\), expected \(F, H, W\)"),
        ({"cip_HW": np.zeros((3, 3), np.uint8)}, r"CIP mask uint8 \(3, 3\), expected uint8 \(40, 60\)"),
        ({"cip_HW": np.zeros((40, 60))}, "CIP mask float64"),
        ({"prob_KHW": np.zeros((1, 40, 60), np.float32)}, r"shape \(1, 40, 60\), expected \(K >= 2, H, W\)"),
    ],
)
def test_a_look_whose_parts_do_not_fit_is_refused(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Look(**{"prob_KHW": sure(TWO), **part})


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"values": {"entropy": float("nan")}}, "entropy is nan"),
        ({"values": {"margin": -0.1}}, "margin is -0.1"),
        ({"values": {"doubt": 1.0}}, "doubt; expected some of entropy"),
        ({"minutes": float("inf")}, "inf minutes"),
        ({"minutes": 0.0}, "0.0 minutes"),
        ({"features_F": np.array([np.nan], np.float32)}, "features are not finite"),
    ],
)
def test_scores_that_rank_nothing_are_refused(part: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"values": {"entropy": 0.1}, "minutes": 1.0, "features_F": None, "reason": ""}
    with pytest.raises(InputError, match=message):
        ItemScores(**{**good, **part})
