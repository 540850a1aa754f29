"""Agreement of readers: overlaps and kappas worked by hand, objects, and what does not count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from cytoloop.domain.agreement import (
    class_kappas,
    cohen_kappa,
    compare,
    dice_of,
    fleiss_kappas,
    item_agreement,
    object_differences,
    votes_of,
)
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import confusion_matrix

MASKS = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255]))


def mask(*rows: str) -> NDArray[np.uint8]:
    """A mask by digits; ``.`` is 255."""
    return np.array([[255 if c == "." else int(c) for c in row] for row in rows], np.uint8)


# --- pixels ----------------------------------------------------------------------------------------


def test_dice_counts_the_shared_pixels_twice() -> None:
    found = compare(mask("0011"), mask("0112"), 3)
    # class 0: 1 shared of 2 + 1; class 1: 1 of 2 + 2; class 2: none of 0 + 1
    assert found.dice_K.tolist() == [2 / 3, 0.5, 0.0]
    assert found.iou_K.tolist() == [0.5, 1 / 3, 0.0]
    assert found.mean_dice == 0.25


def test_a_class_that_neither_reader_has_is_no_number() -> None:
    assert math.isnan(dice_of(confusion_matrix(mask("01"), mask("01"), 3))[2])


def test_pixels_that_either_reader_left_out_are_not_counted() -> None:
    found = compare(mask("11.0"), mask("1.10"), 2)
    assert found.confusion_KK.tolist() == [[1, 0], [0, 1]]


def test_two_empty_masks_agree_and_two_without_a_common_pixel_say_nothing() -> None:
    assert compare(mask("00"), mask("00"), 3).mean_dice == 1.0
    assert math.isnan(compare(mask("1."), mask(".1"), 3).mean_dice)


def test_one_empty_mask_does_not_agree() -> None:
    assert compare(mask("000"), mask("010"), 3).mean_dice == 0.0


# --- kappa -----------------------------------------------------------------------------------------


def test_cohens_kappa_takes_chance_out() -> None:
    # observed 35 / 50; expected (25 x 30 + 25 x 20) / 2500 = 0.5
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)


def test_kappa_is_0_by_chance_1_if_equal_and_negative_if_opposed() -> None:
    assert cohen_kappa(np.array([[16, 4], [4, 1]])) == pytest.approx(0.0)
    assert cohen_kappa(np.array([[16, 0], [0, 3]])) == 1.0
    assert cohen_kappa(np.array([[0, 5], [5, 0]])) == -1.0


def test_kappa_of_a_single_class_is_no_number() -> None:
    assert math.isnan(cohen_kappa(np.array([[9, 0], [0, 0]])))
    assert math.isnan(cohen_kappa(np.zeros((2, 2), int)))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=40))
@settings(max_examples=50, deadline=None)
def test_cohens_kappa_is_what_scikit_learn_says(pairs: list[tuple[int, int]]) -> None:
    one, other = (np.array(side, np.uint8) for side in zip(*pairs, strict=True))
    if len({*one.tolist(), *other.tolist()}) < 2:
        return
    ours = cohen_kappa(confusion_matrix(one[None], other[None], 3))
    assert ours == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)


def test_a_kappa_of_a_class_is_that_class_against_the_rest() -> None:
    confusion_KK = np.array([[50, 2, 1], [3, 20, 4], [0, 5, 15]])
    # class 1: both 20, one alone 7, the other alone 7, neither 66
    assert class_kappas(confusion_KK)[1] == pytest.approx(cohen_kappa(np.array([[20, 7], [7, 66]])))


def test_the_pooled_kappa_hides_what_a_class_shows() -> None:
    """950 pixels of background agreed on, a large class too: the small class is lost in the sum."""
    confusion_KK = np.array([[950, 0, 3], [0, 40, 0], [3, 0, 4]])
    assert cohen_kappa(confusion_KK) > 0.9
    assert class_kappas(confusion_KK)[2] < 0.6


def test_fleiss_kappa_of_the_textbook_example() -> None:
    """14 raters, 10 subjects, 5 categories: Fleiss 1971 as worked on Wikipedia, 0.210."""
    votes_NK = np.array(
        [
            [0, 0, 0, 0, 14],
            [0, 2, 6, 4, 2],
            [0, 0, 3, 5, 6],
            [0, 3, 9, 2, 0],
            [2, 2, 8, 1, 1],
            [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0],
            [2, 5, 3, 2, 2],
            [6, 5, 2, 1, 0],
            [0, 2, 2, 3, 7],
        ]
    )
    assert fleiss_kappas(votes_NK).pooled == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_of_a_class_is_the_pooled_one_of_that_class_against_the_rest() -> None:
    votes_NK = np.array([[3, 0, 0], [2, 1, 0], [0, 3, 0], [1, 0, 2], [0, 1, 2], [3, 0, 0]])
    against_rest = np.stack([votes_NK[:, 1], votes_NK[:, 0] + votes_NK[:, 2]], axis=1)
    assert fleiss_kappas(votes_NK).kappa_K[1] == pytest.approx(fleiss_kappas(against_rest).pooled)


def test_fleiss_kappa_is_1_where_all_agree_and_no_number_for_one_class() -> None:
    assert fleiss_kappas(np.array([[3, 0], [0, 3]])).pooled == 1.0
    assert math.isnan(fleiss_kappas(np.array([[3, 0], [3, 0]])).pooled)
    assert math.isnan(fleiss_kappas(np.zeros((0, 2), int)).pooled)


@pytest.mark.parametrize("votes", [[[2, 0], [1, 0]], [[1, 0], [0, 1]]])
def test_fleiss_kappa_needs_the_same_two_readers_or_more_everywhere(votes: list[list[int]]) -> None:
    with pytest.raises(ShapeError, match="readers, expected one number of at least 2"):
        fleiss_kappas(np.array(votes))


# --- outlines and objects --------------------------------------------------------------------------


@given(MASKS, MASKS)
@settings(max_examples=40, deadline=None)
def test_but_for_objects_of_one_side_agreement_is_the_same_either_way(
    one: NDArray[np.uint8], other: NDArray[np.uint8]
) -> None:
    there, back = compare(one, other, 3), compare(other, one, 3)
    for name in ("dice_K", "iou_K", "kappa_K", "bf_K"):
        np.testing.assert_allclose(getattr(there, name), getattr(back, name), rtol=1e-12)
    assert there.objects.shared == back.objects.shared
    assert there.objects.one_only_K.tolist() == back.objects.other_only_K.tolist()
    np.testing.assert_equal(there.objects.added_share, back.objects.missed_share)


def test_objects_are_shared_relabelled_or_of_one_side_alone() -> None:
    one = mask("1100200", "1100200", "0000000", "1000000")
    other = mask("1100100", "1100100", "0000000", "0000022")
    found = object_differences(one, other, 3)
    assert (found.shared, found.relabelled) == (2, 1)
    assert found.one_only_K.tolist() == [0, 1, 0]
    assert found.other_only_K.tolist() == [0, 0, 1]
    assert (found.added_share, found.missed_share) == (1 / 3, 1 / 3)


def test_an_object_where_the_other_did_not_look_is_not_added() -> None:
    found = object_differences(mask("1100011"), mask("..00000"), 2)
    assert found.one_only_K.tolist() == [0, 1]


def test_a_missing_class_counts_0_in_the_boundary_score() -> None:
    assert compare(mask("000", "010", "000"), mask("000", "000", "000"), 2).bf_K[1] == 0.0


def test_comparisons_of_items_are_summed() -> None:
    a, b = compare(mask("01"), mask("01"), 3), compare(mask("02"), mask("22"), 3)
    both = a + b
    assert both.items == 2
    assert both.confusion_KK.tolist() == (a.confusion_KK + b.confusion_KK).tolist()
    assert both.bf_items_K.tolist() == [2, 1, 1]
    assert both.objects.shared == 2


# --- items -----------------------------------------------------------------------------------------


def test_two_readers_of_an_item_have_cohens_kappa() -> None:
    read = {"bob": mask("0011"), "ada": mask("0112")}
    found = item_agreement(read, 3)
    assert found.readers == ("ada", "bob")
    assert found.pixels == 4
    assert found.dice_K.tolist() == [2 / 3, 0.5, 0.0]
    pair = compare(read["ada"], read["bob"], 3)
    np.testing.assert_equal(found.kappa_K, pair.kappa_K)
    assert found.pooled_kappa == cohen_kappa(pair.confusion_KK)


def test_three_readers_have_fleiss_kappa_of_what_all_looked_at_and_mean_overlaps() -> None:
    read = {"a": mask("0011."), "b": mask("00110"), "c": mask("01010")}
    found = item_agreement(read, 2)
    assert found.pixels == 4
    votes_NK = np.array([[3, 0], [2, 1], [1, 2], [0, 3]])
    assert found.pooled_kappa == pytest.approx(fleiss_kappas(votes_NK).pooled)
    # class 1: a and b 1.0; each of them with c 1 shared of 2 + 2
    assert found.dice_K[1] == pytest.approx((1.0 + 0.5 + 0.5) / 3)


def test_an_item_as_json_names_its_classes_and_its_kappa() -> None:
    document = item_agreement({"a": mask("01"), "b": mask("01")}, 3).to_dict(("bg", "x", "y"))
    assert document["kappa"] == "cohen"
    assert [one["name"] for one in document["classes"]] == ["bg", "x", "y"]
    assert document["classes"][2]["dice"] is None


def test_one_reader_is_refused() -> None:
    with pytest.raises(InputError, match=r"readers \['ada'\], expected two or more"):
        item_agreement({"ada": mask("01")}, 2)


def test_masks_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"reader 2 of 2: mask \(1, 3\), expected the first's \(1, 2\)"):
        votes_of([mask("01"), mask("010")], 2)
    with pytest.raises(ShapeError, match=r"reader 1 of 1: mask holds values \[2\]"):
        votes_of([mask("02")], 2)
