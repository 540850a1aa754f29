"""Pixel metrics: worked by hand, against scikit-learn, and at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import jaccard_score, multilabel_confusion_matrix, precision_score, recall_score

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import confusion_matrix, mean_ignoring_nan, pixel_metrics

MASKS = arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 255]))


def test_rows_are_truth_and_ignored_pixels_do_not_count() -> None:
    truth = np.array([[0, 0, 1], [1, 255, 0]], np.uint8)
    pred = np.array([[0, 1, 1], [1, 1, 255]], np.uint8)
    found = confusion_matrix(truth, pred, 2)
    assert found.dtype == np.int64
    assert found.tolist() == [[1, 1], [0, 2]]


def test_metrics_of_a_matrix_worked_by_hand() -> None:
    found = pixel_metrics(np.array([[80, 5, 5], [2, 6, 0], [1, 0, 1]]))
    assert_allclose(found.accuracy_K, [80 / 90, 6 / 8, 1 / 2])
    assert_allclose(found.iou_K, [80 / 93, 6 / 13, 1 / 7])
    assert_allclose(found.precision_K, [80 / 83, 6 / 11, 1 / 6])
    # background: 10 pixels are not background, 7 of them were seen as something else than background
    assert_allclose(found.specificity_K, [7 / 10, 87 / 92, 93 / 98])
    assert found.global_accuracy == pytest.approx(0.87)
    assert found.mean_accuracy == pytest.approx((80 / 90 + 6 / 8 + 1 / 2) / 3)
    assert found.mean_iou == pytest.approx((80 / 93 + 6 / 13 + 1 / 7) / 3)
    assert found.weighted_iou == pytest.approx(0.9 * 80 / 93 + 0.08 * 6 / 13 + 0.02 / 7)


@given(truth=MASKS, pred=MASKS)
def test_equals_scikit_learn(truth: np.ndarray, pred: np.ndarray) -> None:
    both = (truth != 255) & (pred != 255)
    found = confusion_matrix(truth, pred, 3)
    if not both.any():
        assert not found.any()
        return
    assert_allclose(found, sklearn_confusion(truth[both], pred[both], labels=[0, 1, 2]))
    metrics = pixel_metrics(found)
    theirs = jaccard_score(truth[both], pred[both], labels=[0, 1, 2], average=None, zero_division=0)
    assert_allclose(np.nan_to_num(metrics.iou_K), theirs)
    weighted = jaccard_score(truth[both], pred[both], labels=[0, 1, 2], average="weighted", zero_division=0)
    assert metrics.weighted_iou == pytest.approx(weighted)


@given(truth=MASKS, pred=MASKS)
def test_recall_precision_and_specificity_equal_scikit_learn(truth: np.ndarray, pred: np.ndarray) -> None:
    both = (truth != 255) & (pred != 255)
    if not both.any():
        return
    found, options = pixel_metrics(confusion_matrix(truth, pred, 3)), {"labels": [0, 1, 2], "average": None}
    true_N, pred_N = truth[both], pred[both]
    assert_allclose(found.accuracy_K, recall_score(true_N, pred_N, zero_division=np.nan, **options))
    assert_allclose(found.precision_K, precision_score(true_N, pred_N, zero_division=np.nan, **options))
    tables = multilabel_confusion_matrix(true_N, pred_N, labels=[0, 1, 2])
    negatives = tables[:, 0].sum(axis=1)  # true negatives and false positives
    expected = np.divide(tables[:, 0, 0], negatives, out=np.full(3, np.nan), where=negatives > 0)
    assert_allclose(found.specificity_K, expected)
    assert found.global_accuracy == pytest.approx((true_N == pred_N).mean())
    for mean, values in (
        (found.mean_accuracy, found.accuracy_K),
        (found.mean_precision, found.precision_K),
        (found.mean_specificity, found.specificity_K),
    ):
        known = values[~np.isnan(values)]
        assert mean == pytest.approx(known.mean() if known.size else np.nan, nan_ok=True)


def test_pixels_ignored_on_either_side_change_nothing() -> None:
    truth = np.array([[0, 1, 1, 2]], np.uint8)
    pred = np.array([[0, 1, 2, 2]], np.uint8)
    alone = confusion_matrix(truth, pred, 3)
    longer = confusion_matrix(
        np.append(truth, [[255, 255, 2]], axis=1).astype(np.uint8),
        np.append(pred, [[255, 1, 255]], axis=1).astype(np.uint8),
        3,
    )
    assert longer.tolist() == alone.tolist()


def test_a_class_that_is_nowhere_is_undefined_and_left_out_of_the_means() -> None:
    found = pixel_metrics(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]))
    assert np.isnan([found.accuracy_K[2], found.iou_K[2], found.precision_K[2]]).all()
    assert found.specificity_K[2] == 1.0
    assert found.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert found.mean_accuracy == pytest.approx((3 / 4 + 1) / 2)


def test_a_class_only_predicted_has_iou_0_and_no_accuracy() -> None:
    found = pixel_metrics(np.array([[3, 1], [0, 0]]))
    assert found.iou_K[1] == 0.0
    assert np.isnan(found.accuracy_K[1])
    assert found.mean_iou == pytest.approx(3 / 8)
    assert found.weighted_iou == pytest.approx(3 / 4)


def test_all_ignored_is_undefined_everywhere_without_a_warning() -> None:
    mask = np.full((2, 2), 255, np.uint8)
    found = pixel_metrics(confusion_matrix(mask, mask, 2))
    assert np.isnan(found.iou_K).all()
    assert np.isnan([found.global_accuracy, found.mean_accuracy, found.mean_iou, found.weighted_iou]).all()


def test_mean_ignoring_nan_along_an_axis() -> None:
    values = np.array([[1.0, np.nan], [0.0, np.nan]])
    assert_allclose(mean_ignoring_nan(values, axis=0), [0.5, np.nan])


@pytest.mark.parametrize(
    ("truth", "pred", "message"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), r"prediction \(3, 2\), truth \(2, 3\)"),
        (np.zeros((2, 3), np.int64), np.zeros((2, 3), np.uint8), r"truth is int64 \(2, 3\), expected uint8"),
        (np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 3), np.uint8), r"expected uint8 \(H, W\)"),
        (np.full((2, 3), 7, np.uint8), np.zeros((2, 3), np.uint8), r"truth holds values \[7\], expected 0…2"),
        (np.zeros((2, 3), np.uint8), np.full((2, 3), 254, np.uint8), r"prediction holds values \[254\]"),
    ],
)
def test_what_is_no_pair_of_masks_is_refused(truth: np.ndarray, pred: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        confusion_matrix(truth, pred, 3)


def test_a_wrong_value_is_refused_even_where_the_other_side_is_ignored() -> None:
    with pytest.raises(ShapeError, match=r"truth holds values \[9\]"):
        confusion_matrix(np.full((1, 1), 9, np.uint8), np.full((1, 1), 255, np.uint8), 3)


def test_a_matrix_that_is_not_square_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\), expected \(K, K\)"):
        pixel_metrics(np.zeros((2, 3), np.int64))
