"""Quality of a mask by a model that never saw it: worked by hand, and corrupted masks found among good ones."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.label_quality import EMPTY_SHARE, LabelQuality, label_quality, pixel_quality

Mask = NDArray[np.uint8]
NAMES = ("background", "spot", "ring")


def prob_of(mask_HW: Mask, sure: float = 0.94) -> NDArray[np.float32]:
    """A model that gives each pixel's class so much probability, and shares out the rest."""
    is_class_KHW = np.arange(3)[:, None, None] == mask_HW
    return np.where(is_class_KHW, sure, (1 - sure) / 2).astype(np.float32)


def field() -> Mask:
    """24 x 24 pixels with four 5 x 5 objects, two of each class."""
    mask_HW = np.zeros((24, 24), np.uint8)
    for value, row, column in ((1, 2, 2), (2, 2, 14), (2, 14, 2), (1, 14, 14)):
        mask_HW[row : row + 5, column : column + 5] = value
    return mask_HW


# --- pixels ----------------------------------------------------------------------------------------


def test_the_soft_minimum_by_hand() -> None:
    label_HW = np.array([[1, 1, 0, 255]], np.uint8)
    prob_KHW = np.array([[[0.1, 0.7, 0.8, 0.0]], [[0.9, 0.3, 0.2, 1.0]]])
    # (belief, weight): drawn spots 0.9 and 0.3 at 1; background believed 0.8 weighs 0.2; 255 has no say
    terms = [(0.9, exp(1.0)), (0.3, exp(7.0)), (0.8, 0.2 * exp(2.0))]
    right = EMPTY_SHARE * 3
    expected = (sum(s * w for s, w in terms) + right) / (sum(w for _, w in terms) + right)
    assert pixel_quality(label_HW, prob_KHW) == pytest.approx(expected, rel=1e-6)


def test_a_mask_that_the_model_is_certain_of_has_quality_1_and_an_impossible_one_about_0() -> None:
    mask_HW = field()
    assert pixel_quality(mask_HW, prob_of(mask_HW, 1.0)) == 1.0
    assert pixel_quality((mask_HW + 1) % 3, prob_of(mask_HW, 1.0)) < 0.01


def test_sure_background_has_no_say_however_much_there_is() -> None:
    mask_HW, drawn_HW = field(), field()
    drawn_HW[2:7, 2:7] = 0
    small = pixel_quality(drawn_HW, prob_of(mask_HW, 1.0))
    around = ((0, 200), (0, 200))
    large = pixel_quality(np.pad(drawn_HW, around), prob_of(np.pad(mask_HW, around), 1.0))
    assert small < 0.01
    # but for the share that is taken as surely right, 0.25 % of the item
    assert large < 0.01


def test_two_doubtful_pixels_of_an_empty_field_are_no_bad_mask() -> None:
    empty_HW = np.zeros((200, 200), np.uint8)
    prob_KHW = prob_of(empty_HW, 1.0)
    prob_KHW[:, 5, 5:7] = np.array([0.5, 0.5, 0.0])[:, None]
    assert pixel_quality(empty_HW, prob_KHW) > 0.5


# --- objects ---------------------------------------------------------------------------------------


def test_belief_is_the_soft_minimum_over_drawn_and_overlooked_objects_and_an_imagined_good_one() -> None:
    drawn_HW = field()
    drawn_HW[2:7, 2:7] = 0  # overlooked; the model gives its background 0.03
    drawn_HW[2:7, 14:19] = 1  # a ring, drawn as a spot that the model gives 0.03
    beliefs = np.array([0.03, 0.03, 0.94, 0.94, 1.0])
    weights = np.exp((1 - beliefs) / 0.3)
    found = label_quality(drawn_HW, prob_of(field()))
    assert found.belief == pytest.approx((weights * beliefs).sum() / weights.sum(), rel=1e-5)


def test_a_small_object_counts_as_much_as_a_large_one() -> None:
    mask_HW = np.zeros((40, 40), np.uint8)
    mask_HW[2:5, 2:5] = mask_HW[10:35, 10:35] = 1
    small_HW, large_HW = mask_HW.copy(), mask_HW.copy()
    small_HW[2:5, 2:5] = 2
    large_HW[10:35, 10:35] = 2
    prob_KHW = prob_of(mask_HW)
    assert label_quality(small_HW, prob_KHW).score == pytest.approx(label_quality(large_HW, prob_KHW).score)


def test_a_mask_the_model_agrees_with_has_no_finding() -> None:
    found = label_quality(field(), prob_of(field()))
    assert (found.findings, found.objects) == (0, 4)
    assert found.reason(NAMES).startswith("no single object stands out")


def test_objects_that_are_not_drawn_are_counted_by_the_models_class() -> None:
    drawn_HW = field()
    drawn_HW[2:7, 2:7] = drawn_HW[14:19, 2:7] = 0
    found = label_quality(drawn_HW, prob_of(field()))
    assert found.not_drawn_K.tolist() == [0, 1, 1]
    assert (found.findings, found.objects) == (2, 2)
    assert found.reason(NAMES) == "2 objects the model is sure of are not drawn (spot, ring)"


def test_objects_that_are_not_there_are_counted_by_the_drawn_class() -> None:
    drawn_HW = field()
    drawn_HW[9:12, 9:12] = 2
    found = label_quality(drawn_HW, prob_of(field()))
    assert found.not_there_K.tolist() == [0, 0, 1]
    assert found.reason(NAMES) == "1 object drawn where the model is sure is none (ring)"


def test_objects_of_another_class_are_told_as_such() -> None:
    drawn_HW = field()
    drawn_HW[2:7, 2:7] = 2
    drawn_HW[2:7, 14:19] = 1
    found = label_quality(drawn_HW, prob_of(field()))
    assert found.other_class == {(2, 1): 1, (1, 2): 1}
    assert found.findings == 2
    assert found.reason(NAMES) == (
        "1 object drawn as spot that the model is sure is ring, "
        "1 object drawn as ring that the model is sure is spot"
    )


def test_a_shifted_object_lies_elsewhere() -> None:
    drawn_HW = field()
    drawn_HW[2:7, 2:7] = 0
    drawn_HW[4:9, 3:8] = 1  # 12 of 38 pixels shared
    found = label_quality(drawn_HW, prob_of(field()))
    assert (found.other_outline, found.findings) == (1, 1)
    assert found.reason(NAMES) == "1 object whose outline the model is sure lies elsewhere"


def test_what_the_model_is_not_sure_of_is_no_finding() -> None:
    drawn_HW = np.zeros_like(field())
    drawn_HW[9:12, 9:12] = 1
    found = label_quality(drawn_HW, prob_of(field(), 0.7))
    assert found.findings == 0
    assert found.pixels < 0.5


def test_what_nobody_looked_at_is_no_finding() -> None:
    drawn_HW = field()
    drawn_HW[:12] = 255
    assert label_quality(drawn_HW, prob_of(field())).findings == 0
    drawn_HW[:, :] = 255
    assert label_quality(drawn_HW, prob_of(field())).findings == 0


def test_a_speck_of_the_model_is_no_finding() -> None:
    seen_HW = field()
    seen_HW[9:11, 9:12] = 1  # 6 pixels
    assert label_quality(field(), prob_of(seen_HW)).findings == 0


def test_more_findings_of_as_many_objects_score_higher() -> None:
    none_K = np.zeros(2, np.int64)

    def score(missing: int, belief: float = 0.5) -> float:
        missing_K = np.array([0, missing])
        found = LabelQuality(belief=belief, pixels=0.1, objects=10, not_drawn_K=missing_K, not_there_K=none_K)
        return found.score

    assert score(0) == 0.5
    assert score(1) == pytest.approx(1 - 0.5 * (1 - 1 / 12))
    assert score(3) > score(1) > score(0)
    assert score(1, belief=0.2) > score(1)


# --- refused ---------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"probabilities \(3, 24, 24\), expected .* mask \(24, 23\)"):
        label_quality(field()[:, 1:], prob_of(field()))
    with pytest.raises(ShapeError, match=r"holds values \[3\]"):
        label_quality(np.full((24, 24), 3, np.uint8), prob_of(field()))


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_what_is_no_probability_is_refused(value: float) -> None:
    prob_KHW = prob_of(field())
    prob_KHW[1, 3, 4] = value
    with pytest.raises(ShapeError, match="expected 0 to 1"):
        label_quality(field(), prob_KHW)


# --- corrupted masks among good ones ---------------------------------------------------------------


def plate_field(rng: np.random.Generator) -> Mask:
    """A 96 x 120 field, some 18 discs of two classes."""
    rows, columns = np.mgrid[:96, :120]
    truth_HW = np.zeros((96, 120), np.uint8)
    for _ in range(18):
        distance = np.hypot(rows - rng.integers(6, 90), columns - rng.integers(6, 114))
        truth_HW[distance < rng.uniform(2.5, 5.5)] = rng.integers(1, 3)
    return truth_HW


def out_of_fold(truth_HW: Mask, rng: np.random.Generator) -> NDArray[np.float32]:
    """What a fair model says: soft outlines, one object in six faint, one in twenty of the wrong class."""
    seen_KHW = np.zeros((3, *truth_HW.shape))
    for value in (1, 2):
        labels_HW, count = ndimage.label(truth_HW == value)
        for number in range(1, count + 1):
            drawn = 3 - value if rng.random() < 0.05 else value
            seen_KHW[drawn][labels_HW == number] = rng.uniform(0.3, 0.7) if rng.random() < 1 / 6 else 0.97
    seen_KHW = ndimage.gaussian_filter(seen_KHW, (0, 0.8, 0.8)) + 0.01
    seen_KHW[0] = 1.0 - seen_KHW[1:].sum(axis=0)
    seen_KHW = np.clip(seen_KHW, 0.005, None)
    return (seen_KHW / seen_KHW.sum(axis=0)).astype(np.float32)


def drawn_by_expert(truth_HW: Mask, rng: np.random.Generator) -> Mask:
    """Right, but for the width of every third outline."""
    drawn_HW = truth_HW.copy()
    for value in (1, 2):
        labels_HW, count = ndimage.label(truth_HW == value)
        for number in range(1, count + 1):
            if rng.random() < 1 / 3:
                is_object_HW = labels_HW == number
                change = ndimage.binary_dilation if rng.random() < 0.5 else ndimage.binary_erosion
                drawn_HW[is_object_HW] = 0
                drawn_HW[change(is_object_HW)] = value
    return drawn_HW


def corrupted(drawn_HW: Mask, how: str, rng: np.random.Generator) -> Mask:
    """A quarter of the objects dropped or of the other class, or all of them moved by five pixels."""
    if how == "shifted":
        return np.roll(drawn_HW, (4, 3), (0, 1))
    bad_HW = drawn_HW.copy()
    labels_HW, count = ndimage.label(drawn_HW > 0)
    for number in rng.choice(np.arange(1, count + 1), max(2, count // 4), replace=False):
        is_object_HW = labels_HW == number
        bad_HW[is_object_HW] = 0 if how == "dropped" else 3 - bad_HW[is_object_HW]
    return bad_HW


def auroc(bad: list[float], good: list[float]) -> float:
    """Probability that a bad mask scores higher than a good one."""
    difference = np.subtract.outer(np.array(bad), np.array(good))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


@pytest.mark.parametrize(("how", "least"), [("dropped", 0.82), ("swapped", 0.9), ("shifted", 0.95)])
def test_corrupted_masks_come_out_on_top(how: str, least: float) -> None:
    scores: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth_HW = plate_field(rng)
        drawn_HW = drawn_by_expert(truth_HW, rng)
        is_bad = seed % 4 == 0
        if is_bad:
            drawn_HW = corrupted(drawn_HW, how, rng)
        scores[is_bad].append(label_quality(drawn_HW, out_of_fold(truth_HW, rng)).score)
    assert auroc(scores[True], scores[False]) > least
