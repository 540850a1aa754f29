"""The boundary F1 score: against distance transforms, by hand, and where pixels are ignored."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import boundary_of, boundary_scores, boundary_tolerance
from cytoloop.domain.metrics.boundary import nearer_than

POINTS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def square(row: int, column: int, side: int, shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[row : row + side, column : column + side] = 1
    return mask


@given(mask=POINTS)
def test_boundary_is_mask_minus_its_erosion_with_the_cross_on_zero_padding(mask: np.ndarray) -> None:
    expected = mask & ~binary_erosion(mask, generate_binary_structure(2, 1), border_value=0)
    assert_array_equal(boundary_of(mask), expected)


@given(points=POINTS, theta=st.one_of(st.floats(0.1, 20), st.sampled_from([1.0, 2.0, 2**0.5, 5.0])))
def test_nearer_than_equals_a_distance_transform(points: np.ndarray, theta: float) -> None:
    expected = distance_transform_edt(~points) < theta if points.any() else np.zeros_like(points)
    assert_array_equal(nearer_than(points, theta), expected)


def bf_by_distance_transforms(truth: np.ndarray, pred: np.ndarray, value: int, theta: float) -> tuple:
    """The definition again with scipy: (BF, strict BF) of one class."""
    ignored = (truth == 255) | (pred == 255)
    far = distance_transform_edt(~ignored) >= theta if ignored.any() else np.ones_like(ignored)
    cross = generate_binary_structure(2, 1)
    edges = [(m == value) & ~binary_erosion(m == value, cross, border_value=0) & far for m in (truth, pred)]
    if not edges[0].any() or not edges[1].any():
        return np.nan, 0.0 if edges[0].any() or edges[1].any() else np.nan
    recall, precision = (
        (distance_transform_edt(~edges[1 - side])[edges[side]] < theta).mean() for side in (0, 1)
    )
    score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return score, score


@given(data=st.data(), theta=st.floats(0.5, 4))
def test_the_score_equals_its_definition_by_distance_transforms(data: st.DataObject, theta: float) -> None:
    masks = arrays(np.uint8, (9, 12), elements=st.sampled_from([0, 0, 0, 1, 1, 2, 255]))
    truth, pred = data.draw(masks), data.draw(masks)
    found = boundary_scores(truth, pred, 3, theta)
    expected = [bf_by_distance_transforms(truth, pred, value, theta) for value in range(3)]
    assert_allclose(found.bf_K, [bf for bf, _ in expected])
    assert_allclose(found.strict_K, [strict for _, strict in expected])


def test_the_tolerance_follows_the_size_of_the_mask() -> None:
    # two single pixels 6 apart: nearer than 6.38 px in a whole field, not than 3.19 px in its quarter
    for shape, expected in (((512, 680), 1.0), ((256, 340), 0.0)):
        truth, pred = square(50, 50, 1, shape), square(50, 56, 1, shape)
        assert boundary_scores(truth, pred, 2).bf_K[1] == expected


def test_tolerance_is_not_rounded() -> None:
    assert boundary_tolerance(512, 680) == pytest.approx(6.384, abs=1e-3)
    assert boundary_tolerance(256, 340) == pytest.approx(3.192, abs=1e-3)


def test_equal_masks_score_1() -> None:
    found = boundary_scores(square(5, 5, 8), square(5, 5, 8), 2)
    assert_allclose(found.bf_K, [1, 1])
    assert_allclose(found.strict_K, [1, 1])


def test_the_tolerance_is_strict() -> None:
    truth, pred = square(5, 5, 1), square(5, 8, 1)  # single pixels, 3 apart
    assert boundary_scores(truth, pred, 2, theta=3.0).bf_K[1] == 0.0
    assert boundary_scores(truth, pred, 2, theta=3.01).bf_K[1] == 1.0


def test_precision_and_recall_worked_by_hand() -> None:
    truth = square(5, 5, 3)  # boundary: 8 pixels
    pred = truth | square(30, 40, 2)  # the same object and another far away: 8 + 4 pixels
    found = boundary_scores(truth, pred, 2, theta=1.5)
    precision, recall = 8 / 12, 1.0
    assert found.bf_K[1] == pytest.approx(2 * precision * recall / (precision + recall))


def test_a_missed_class_is_hidden_by_the_nan_rule_and_shown_by_the_strict_one() -> None:
    found = boundary_scores(square(5, 5, 8), np.zeros((40, 60), np.uint8), 3)
    assert np.isnan(found.bf_K[1])
    assert found.strict_K[1] == 0.0
    assert np.isnan([found.bf_K[2], found.strict_K[2]]).all()  # on neither side
    assert found.mean_bf == pytest.approx(found.bf_K[0])
    assert found.mean_strict == pytest.approx(found.bf_K[0] / 2)


def test_boundaries_near_ignored_pixels_are_dropped_on_both_sides() -> None:
    shape = (40, 60)
    truth = square(10, 10, 6, shape)
    truth[:, 30:] = 255
    pred = square(10, 10, 6, shape)
    pred[20:24, 28:34] = 1  # lies in the ignored half and within 3 px of it
    found = boundary_scores(truth, pred, 2, theta=3.0)
    assert found.bf_K[1] == 1.0
    pred[20:24, 25:27] = 1  # reaches out of the dropped zone (columns 28 and up)
    assert boundary_scores(truth, pred, 2, theta=3.0).bf_K[1] < 1.0


def test_the_cut_made_by_ignored_pixels_is_no_boundary() -> None:
    truth, pred = np.ones((20, 30), np.uint8), np.ones((20, 30), np.uint8)
    truth[:, 15:] = 255
    found = boundary_scores(truth, pred, 2, theta=2.5)
    assert found.bf_K[1] == 1.0
    truth[8:12, 5:9] = 255  # a hole nobody looked at, deep inside: no outline of its own
    assert boundary_scores(truth, pred, 2, theta=2.5).bf_K[1] == 1.0


def test_all_ignored_is_undefined() -> None:
    found = boundary_scores(np.full((9, 9), 255, np.uint8), square(1, 1, 3, (9, 9)), 2)
    assert np.isnan(found.strict_K).all()
    assert np.isnan(found.mean_bf)


def test_scores_are_symmetric_and_do_not_move_with_the_objects() -> None:
    truth, pred = square(8, 10, 9), square(10, 11, 7)
    there = boundary_scores(truth, pred, 2, theta=1.5).bf_K[1]
    assert 0 < there < 1
    assert boundary_scores(pred, truth, 2, theta=1.5).bf_K[1] == pytest.approx(there)
    moved = boundary_scores(np.roll(truth, (5, 9), (0, 1)), np.roll(pred, (5, 9), (0, 1)), 2, theta=1.5)
    assert moved.bf_K[1] == pytest.approx(there)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="theta is 0"):
        boundary_scores(square(1, 1, 2), square(1, 1, 2), 2, theta=0.0)
    with pytest.raises(ShapeError, match="expected one shape"):
        boundary_scores(square(1, 1, 2), square(1, 1, 2, (9, 9)), 2)
