"""Types of error, object by object, worked by hand on rows of pixels."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import ErrorTypes, error_types, no_errors

MASKS = arrays(np.uint8, (7, 9), elements=st.sampled_from([0, 0, 1, 2, 255]))
KINDS = ("right", "missed", "misclassified", "incomplete", "invented")


def row(text: str) -> np.ndarray:
    """One character a pixel: the class, or ``x`` for not looked at."""
    return np.array([[255 if c == "x" else int(c) for c in text]], np.uint8)


def kinds(truth: str, pred: str, value: int = 1) -> dict[str, int]:
    """The types of one class that occur."""
    found = error_types(row(truth), row(pred), 3)
    return {kind: count for kind in KINDS if (count := int(getattr(found, f"{kind}_K")[value]))}


@pytest.mark.parametrize(
    ("truth", "pred", "expected"),
    [
        ("0111100", "0111100", {"right": 1}),
        ("0111100", "0000000", {"missed": 1}),
        ("0111100", "0222200", {"misclassified": 1}),
        ("0111100", "0112200", {"incomplete": 1}),  # a tie: the right class, IoU 2 / 4 is not above one half
        ("0111100", "0122200", {"misclassified": 1}),
        ("0111100", "0111000", {"right": 1}),  # 3 / 4
        ("0111100", "0110000", {"incomplete": 1}),  # 2 / 4
        ("0011000", "1111110", {"incomplete": 1}),  # a halo: 2 / 6
        ("0111110", "0110110", {"incomplete": 1}),  # split: 2 / 5 at best
        ("0110110", "0111110", {"incomplete": 2}),  # merged: 2 / 5 each
        ("0111011", "0111111", {"incomplete": 2}),  # merged: 3 / 6 is one half and not above it
        ("1111011", "1111111", {"right": 1, "incomplete": 1}),  # merged: 4 / 7 keeps its outline
        ("0000000", "0011000", {"invented": 1}),
        ("1100000", "0000011", {"missed": 1, "invented": 1}),
    ],
)
def test_each_type_by_hand(truth: str, pred: str, expected: dict[str, int]) -> None:
    assert kinds(truth, pred) == expected


def test_a_tenth_of_an_object_is_enough_to_be_found() -> None:
    ten, eleven = "1" * 10, "1" * 11
    assert kinds(ten, "1" + "0" * 9) == {"incomplete": 1}
    assert kinds(eleven, "1" + "0" * 10) == {"missed": 1}
    assert kinds("1" + "0" * 9, ten) == {"incomplete": 1}  # a tenth of the predicted one is true
    assert kinds("1" + "0" * 10, eleven) == {"incomplete": 1, "invented": 1}  # the blob is not what is there


def test_a_misclassified_event_is_in_the_matrix_of_objects() -> None:
    found = error_types(row("110220110"), row("220220000"), 3)
    # a 1 seen as 2, a 2 seen as 2, a 1 missed
    assert found.objects_KK.tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 1]]
    assert found.truth_K.tolist() == [0, 2, 1]


def test_an_object_of_two_predicted_classes_belongs_to_the_larger_share() -> None:
    assert kinds("0222210", "0222110", value=2) == {"right": 1}
    assert kinds("1110222", "2210222") == {"misclassified": 1}


def test_a_tie_is_in_favour_of_the_right_class_whatever_its_number() -> None:
    assert kinds("0222200", "0221100", value=2) == {"incomplete": 1}
    assert kinds("0111100", "0112200", value=1) == {"incomplete": 1}


def test_a_diagonal_chain_is_one_object() -> None:
    truth = np.eye(4, dtype=np.uint8)
    assert error_types(truth, truth, 2).right_K.tolist() == [0, 1]


def test_pixels_nobody_looked_at_do_not_count() -> None:
    assert kinds("011x0", "01111") == {"right": 1}  # the halo under x is not seen; 2 / 3 is
    assert kinds("00xxx0", "001111") == {}  # three of four pixels hidden: no invented event
    assert kinds("0000x0", "001110") == {"invented": 1}
    assert kinds("001110", "00xx00") == {}  # two of three hidden: nobody knows whether it is missed
    assert kinds("001110", "00xx10") == {"right": 1}  # and what is seen of it agrees
    assert kinds("xxxxxx", "001110") == {}


@given(truth=MASKS, pred=MASKS)
def test_every_object_has_one_type_and_types_add_up(truth: np.ndarray, pred: np.ndarray) -> None:
    found = error_types(truth, pred, 3)
    parts = found.right_K + found.missed_K + found.misclassified_K + found.incomplete_K
    assert (parts == found.truth_K).all()
    assert min(getattr(found, f"{kind}_K").min() for kind in KINDS) >= 0
    twice = no_errors(3) + found + found
    assert (twice.objects_KK == 2 * found.objects_KK).all()
    assert (twice.incomplete_K == 2 * found.incomplete_K).all()


@given(mask=MASKS)
def test_a_mask_agrees_with_itself(mask: np.ndarray) -> None:
    found = error_types(mask, mask, 3)
    assert (found.right_K == found.truth_K).all()
    assert not found.invented_K.any()


@given(truth=MASKS, pred=MASKS)
def test_missed_and_invented_change_places_with_the_masks(truth: np.ndarray, pred: np.ndarray) -> None:
    there, back = error_types(truth, pred, 3), error_types(pred, truth, 3)
    assert there.missed_K.tolist() == back.invented_K.tolist()


def test_json_and_words() -> None:
    found = error_types(row("110110000"), row("110000011"), 3)
    document = json.loads(json.dumps(found.to_dict(("background", "spot", "ring")), allow_nan=False))
    spot, ring = document["classes"]
    counts = {"truth": 2, "right": 1, "missed": 1, "misclassified": 0, "incomplete": 0, "invented": 1}
    shares = {"right_share": 0.5, "missed_share": 0.5, "misclassified_share": 0, "incomplete_share": 0}
    assert spot == {"name": "spot"} | counts | shares
    assert ring["missed_share"] is None
    assert document["foreground"]["truth"] == 2
    assert (
        found.words(("background", "spot", "ring"))
        == "spot: 1 of 2 right, 1 missed, 1 invented; ring: none there"
    )


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected one shape"):
        error_types(row("000"), row("00"), 3)
    with pytest.raises(ShapeError, match=r"prediction holds values \[3\], expected 0…2"):
        error_types(row("000"), row("003"), 3)
    with pytest.raises(ShapeError, match="of 3 and of 2 classes"):
        no_errors(3) + no_errors(2)
    assert isinstance(no_errors(3), ErrorTypes)
