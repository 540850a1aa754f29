"""One mask out of several: two readers, votes, and STAPLE against raters of known quality."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain import consensus
from cytoloop.domain.agreement import votes_of
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.consensus import LEAST_DISPUTED, StapleEstimate, consensus_of, majority_of, staple
from cytoloop.domain.errors import InputError, ShapeError

Mask = NDArray[np.uint8]
MASKS = arrays(np.uint8, (4, 5), elements=st.sampled_from([0, 1, 2, 255]))


def mask(*rows: str) -> Mask:
    """A mask by digits; ``.`` is 255."""
    return np.array([[255 if c == "." else int(c) for c in row] for row in rows], np.uint8)


# --- raters of known quality -----------------------------------------------------------------------


def truth(seed: int) -> Mask:
    """A 96 x 120 field, some 16 discs of two classes, about 6 % of it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :120]
    truth_HW = np.zeros((96, 120), np.uint8)
    for _ in range(16):
        distance = np.hypot(rows - rng.integers(5, 91), columns - rng.integers(5, 115))
        truth_HW[distance < rng.uniform(2.5, 5.5)] = rng.integers(1, 3)
    return truth_HW


def read(truth_HW: Mask, error: float, rng: np.random.Generator) -> Mask:
    """A reader who overlooks, relabels, shifts, widens and narrows objects, the more the greater the error."""
    read_HW = np.zeros_like(truth_HW)
    for value in (1, 2):
        labels_HW, count = ndimage.label(truth_HW == value)
        for number in range(1, count + 1):
            is_object_HW = labels_HW == number
            if rng.random() < error / 2:
                continue
            drawn = 3 - value if rng.random() < error / 2 else value
            outline = rng.random()
            if outline < error:
                is_object_HW = ndimage.binary_dilation(is_object_HW)
            elif outline < 2 * error:
                is_object_HW = ndimage.binary_erosion(is_object_HW)
            if rng.random() < error:
                is_object_HW = np.roll(is_object_HW, rng.integers(-2, 3, 2), (0, 1))
            read_HW[is_object_HW] = drawn
    return read_HW


def speckle(truth_HW: Mask, error: float, rng: np.random.Generator) -> Mask:
    """A reader who gets a share of the pixels wrong, anywhere."""
    read_HW = truth_HW.copy()
    is_wrong_HW = rng.random(truth_HW.shape) < error
    read_HW[is_wrong_HW] = (read_HW[is_wrong_HW] + rng.integers(1, 3, is_wrong_HW.sum())) % 3
    return read_HW


def right_share(reader: Callable[..., Mask], errors: tuple[float, ...]) -> tuple[float, float]:
    """Share of the disputed pixels that the consensus, and a majority, get right, over six fields."""
    ours, votes, disputed = 0, 0, 0
    for seed in range(6):
        rng = np.random.default_rng(1000 + seed)
        truth_HW = truth(seed)
        masks = [reader(truth_HW, error, rng) for error in errors]
        votes_KHW = votes_of(masks, 3)
        is_disputed_HW = (votes_KHW > 0).sum(axis=0) > 1
        found = consensus_of(masks, 3)
        assert found.method == "staple"
        assert found.disputed == is_disputed_HW.sum()
        ours += int((found.mask_HW == truth_HW)[is_disputed_HW].sum())
        votes += int((majority_of(votes_KHW) == truth_HW)[is_disputed_HW].sum())
        disputed += int(is_disputed_HW.sum())
    return ours / disputed, votes / disputed


@pytest.mark.parametrize(
    ("reader", "errors", "gain"),
    [
        (read, (0.05, 0.2, 0.6), 0.015),
        (read, (0.05, 0.05, 0.05, 0.7), 0.05),
        (read, (0.05, 0.3, 0.4, 0.4, 0.4), 0.05),
        (speckle, (0.05, 0.05, 0.6), 0.03),
        (speckle, (0.05, 0.2, 0.6), 0.06),
    ],
)
def test_staple_beats_the_majority_when_a_reader_is_poor(
    reader: Callable[..., Mask], errors: tuple[float, ...], gain: float
) -> None:
    ours, votes = right_share(reader, errors)
    assert ours > votes + gain


@pytest.mark.parametrize("errors", [(0.15,) * 3, (0.3,) * 3, (0.15,) * 5])
def test_staple_is_no_worse_than_the_majority_when_all_are_alike(errors: tuple[float, ...]) -> None:
    ours, votes = right_share(read, errors)
    assert ours > votes - 0.01


def test_staple_equals_the_majority_of_three_who_err_alike_and_apart() -> None:
    """Each reader makes the same kind of slip, each on other pixels."""
    truth_HW = np.zeros((30, 30), np.uint8)
    truth_HW[10:20, 10:20] = 1
    masks = [truth_HW.copy() for _ in range(3)]
    for number, mask_HW in enumerate(masks):
        mask_HW[10 + 3 * number : 12 + 3 * number, 10:20] = 0
        mask_HW[22:24, 3 * number : 3 * number + 2] = 1
        mask_HW[2:5, 10 * number : 10 * number + 5] = 1
    found = consensus_of(masks, 2)
    assert found.method == "staple"
    np.testing.assert_array_equal(found.mask_HW, majority_of(votes_of(masks, 2)))
    np.testing.assert_array_equal(found.mask_HW, truth_HW)


def test_staple_tells_the_poor_reader_from_the_good_ones() -> None:
    rng = np.random.default_rng(5)
    truth_HW = truth(3)
    masks = [read(truth_HW, error, rng) for error in (0.05, 0.05, 0.6)]
    quality_RKK = consensus_of(masks, 3).quality_RKK
    assert quality_RKK is not None
    found = np.diagonal(quality_RKK, axis1=1, axis2=2)[:, 1:].mean(axis=1)
    assert found[2] < min(found[:2]) - 0.1
    np.testing.assert_allclose(quality_RKK.sum(axis=1), 1.0)


def test_an_estimate_near_disagreements_beats_one_over_the_whole_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One good reader among three poor ones: 95 % background makes the poor ones look nearly as good."""
    errors = (0.05, 0.3, 0.4, 0.4, 0.4)
    near, _ = right_share(read, errors)
    monkeypatch.setattr(consensus, "NEAR", 1000.0)
    whole, _ = right_share(read, errors)
    assert near > whole + 0.02


# --- rules -----------------------------------------------------------------------------------------


def test_where_two_readers_differ_nobody_knows() -> None:
    found = consensus_of([mask("00112."), mask("01122.")], 3)
    assert found.mask_HW.tolist() == [[0, 255, 1, 255, 2, 255]]
    assert (found.method, found.disputed, found.undecided) == ("agreement", 2, 2)


def test_a_pixel_that_one_of_two_left_out_is_left_out() -> None:
    assert consensus_of([mask("1."), mask("11")], 2).mask_HW.tolist() == [[1, 255]]


def test_a_few_disputed_pixels_go_to_the_majority_and_ties_to_nobody() -> None:
    found = consensus_of([mask("0111"), mask("0112"), mask("0020")], 3)
    assert (found.method, found.disputed) == ("majority", 3)
    assert found.mask_HW.tolist() == [[0, 1, 1, 255]]
    assert found.undecided == 1


def test_a_vote_of_one_is_no_majority() -> None:
    assert consensus_of([mask("1."), mask(".."), mask(".1")], 2).mask_HW.tolist() == [[255, 255]]


def test_three_who_agree_need_no_estimate() -> None:
    found = consensus_of([mask("0121")] * 3, 3)
    assert (found.method, found.disputed, found.quality_RKK) == ("agreement", 0, None)
    assert found.mask_HW.tolist() == [[0, 1, 2, 1]]


def test_the_majority_decides_where_staple_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    truth_HW = truth(3)
    masks = [read(truth_HW, error, rng) for error in (0.1, 0.3, 0.6)]
    assert consensus_of(masks, 3).method == "staple"
    monkeypatch.setattr(consensus, "MOST_ROUNDS", 1)
    found = consensus_of(masks, 3)
    assert found.method == "majority"
    np.testing.assert_array_equal(found.mask_HW, majority_of(votes_of(masks, 3)))


def test_what_all_agree_on_is_not_an_estimates_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it, without = disc()

    def doubtful(labels_RN: Mask, class_count: int) -> StapleEstimate:
        labels_N = np.full(labels_RN.shape[1], IGNORE, np.uint8)
        return StapleEstimate(labels_N=labels_N, quality_RKK=np.ones((3, 2, 2)), share_K=np.ones(2), rounds=1)

    monkeypatch.setattr(consensus, "staple", doubtful)
    found = consensus_of([with_it, with_it, without], 2)
    np.testing.assert_array_equal(found.mask_HW == IGNORE, with_it > 0)


def disc() -> tuple[Mask, Mask]:
    """A field with an object of 36 pixels, and the same without."""
    without = np.zeros((20, 20), np.uint8)
    with_it = without.copy()
    with_it[8:14, 8:14] = 1
    assert with_it.sum() > LEAST_DISPUTED
    return with_it, without


def test_two_against_two_of_one_quality_is_a_tie_however_common_background_is() -> None:
    with_it, without = disc()
    found = consensus_of([with_it, with_it, without, without], 2)
    assert found.method == "staple"
    assert (found.mask_HW[8:14, 8:14] == IGNORE).all()
    assert found.undecided == found.disputed == 36


def test_a_tie_goes_to_those_who_were_right_elsewhere() -> None:
    """Four readers; the two who see no object have missed others that all the rest saw."""
    with_it, without = disc()
    masks = [np.pad(mask_HW, ((0, 0), (0, 60))) for mask_HW in (with_it, with_it, without, without)]
    for mask_HW in masks:
        mask_HW[3:9, 30:36] = mask_HW[3:9, 45:51] = mask_HW[3:9, 60:66] = 1
    masks[2][3:9, 30:36] = masks[2][3:9, 60:66] = 0
    masks[3][3:9, 45:51] = 0
    found = consensus_of(masks, 2)
    assert (found.mask_HW[8:14, 8:14] == 1).all()


@given(masks=st.lists(MASKS, min_size=2, max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_consensus_does_not_depend_on_the_order_and_is_what_somebody_said(masks: list[Mask]) -> None:
    found = consensus_of(masks, 3)
    for order in itertools.islice(itertools.permutations(masks), 6):
        np.testing.assert_array_equal(consensus_of(order, 3).mask_HW, found.mask_HW)
    stack = np.stack(masks)
    is_settled_HW = found.mask_HW != IGNORE
    assert ((stack == found.mask_HW).any(axis=0) | ~is_settled_HW).all()
    looked = (stack != IGNORE).sum(axis=0)
    is_unanimous_HW = ((stack == stack.min(axis=0)) | (stack == IGNORE)).all(axis=0) & (looked >= 2)
    np.testing.assert_array_equal(found.mask_HW[is_unanimous_HW], stack.min(axis=0)[is_unanimous_HW])
    assert (found.mask_HW[looked < 2] == IGNORE).all()


def test_the_order_of_readers_does_not_change_an_estimate() -> None:
    rng = np.random.default_rng(11)
    truth_HW = truth(2)
    masks = [read(truth_HW, error, rng) for error in (0.1, 0.3, 0.6)]
    found = consensus_of(masks, 3)
    np.testing.assert_array_equal(consensus_of(masks, 3).mask_HW, found.mask_HW)
    np.testing.assert_array_equal(consensus_of(masks[::-1], 3).mask_HW, found.mask_HW)


def test_too_few_readers_are_refused() -> None:
    with pytest.raises(InputError, match=r"consensus: 1 mask\(s\), expected two or more"):
        consensus_of([mask("01")], 2)
    with pytest.raises(InputError, match=r"STAPLE: 2 reader\(s\), expected three or more"):
        staple(np.zeros((2, 4), np.uint8), 2)


def test_masks_of_two_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="reader 2 of 2"):
        consensus_of([mask("01"), mask("010")], 2)
