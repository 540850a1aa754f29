"""The evaluation of many masks: summed matrices, means over images, JSON."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import evaluate, judge, number_or_none, summarise

NAMES = ("background", "spot", "ring")


def mask(*rows: str) -> np.ndarray:
    """One character a pixel: the class, or ``x`` for not looked at."""
    return np.array([[255 if c == "x" else int(c) for c in row] for row in rows], np.uint8)


def test_data_set_iou_comes_from_the_summed_matrix_not_from_the_mean_of_images() -> None:
    found = evaluate(
        [
            ("a", mask("0011"), mask("0011")),
            ("b", mask("00000001"), mask("00000010")),
        ],
        NAMES,
    )
    assert found.confusion_KK.tolist() == [[8, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert found.classes[1].iou == pytest.approx(2 / 4)
    assert np.mean([one.iou_K[1] for one in found.images]) == pytest.approx(1 / 2)  # 1 and 0
    assert found.dataset.mean_iou == pytest.approx((8 / 10 + 2 / 4) / 2)
    assert found.images[1].mean_iou == pytest.approx((6 / 8 + 0) / 2)
    assert found.classes[1].truth_pixels == 3
    assert found.classes[1].pred_pixels == 3


def test_bf_is_a_mean_over_images_and_strict_counts_a_missed_class() -> None:
    hit = mask("0000000", "0011100", "0011100", "0000000")
    empty = np.zeros_like(hit)
    found = evaluate([("hit", hit, hit), ("missed", hit, empty)], NAMES)
    spot = found.classes[1]
    assert spot.mean_bf == pytest.approx(1.0)  # the missed image is NaN, and left out
    assert spot.mean_bf_strict == pytest.approx(0.5)
    background_bf = found.images[1].bf_K[0]
    assert found.dataset.mean_bf == pytest.approx((1 + background_bf) / 2)
    assert found.dataset.mean_bf_strict == pytest.approx((1 + background_bf / 2) / 2)
    assert np.isnan(found.classes[2].mean_bf)


def test_six_metrics_at_three_levels() -> None:
    """Accuracy (recall), precision, specificity, IoU and BF; of the data set, a class and an image."""
    truth, pred = mask("0001", "0011"), mask("0011", "0001")  # confusion [[4, 1], [1, 2]]
    found = evaluate([("a", truth, pred), ("b", truth, truth)], NAMES[:2])  # summed [[9, 1], [1, 5]]
    whole, spot, image = found.dataset, found.classes[1], found.images[0]
    assert found.confusion_KK.tolist() == [[9, 1], [1, 5]]
    assert (spot.accuracy, spot.precision) == (pytest.approx(5 / 6), pytest.approx(5 / 6))
    assert (spot.specificity, spot.iou) == (pytest.approx(9 / 10), pytest.approx(5 / 7))
    assert whole.global_accuracy == pytest.approx(14 / 16)
    assert whole.mean_accuracy == pytest.approx((9 / 10 + 5 / 6) / 2)
    assert whole.mean_precision == pytest.approx((9 / 10 + 5 / 6) / 2)
    assert whole.mean_specificity == pytest.approx((5 / 6 + 9 / 10) / 2)
    assert whole.mean_iou == pytest.approx((9 / 11 + 5 / 7) / 2)
    assert whole.weighted_iou == pytest.approx(10 / 16 * 9 / 11 + 6 / 16 * 5 / 7)
    np.testing.assert_allclose(image.accuracy_K, [4 / 5, 2 / 3])
    np.testing.assert_allclose(image.precision_K, [4 / 5, 2 / 3])
    np.testing.assert_allclose(image.specificity_K, [2 / 3, 4 / 5])
    np.testing.assert_allclose(image.iou_K, [4 / 6, 2 / 4])
    assert image.mean_precision == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert image.weighted_iou == pytest.approx(5 / 8 * 4 / 6 + 3 / 8 * 2 / 4)
    # theta is 0.03 px: only pixels in place agree. Spot: 2 of 3 both ways; background: 4 of 5 both ways
    np.testing.assert_allclose(image.bf_K, [4 / 5, 2 / 3])
    assert spot.mean_bf == pytest.approx((2 / 3 + 1) / 2)
    assert whole.mean_bf == pytest.approx(((4 / 5 + 2 / 3) / 2 + 1) / 2)
    document = found.to_dict()
    for name in ("accuracy", "precision", "specificity", "iou"):
        assert document["images"][0][name] == pytest.approx(list(getattr(image, f"{name}_K")))
        if name != "iou":
            assert document["dataset"][f"mean_{name}"] == getattr(whole, f"mean_{name}")


def test_boxes_and_types_of_error_are_summed_over_images_before_any_ratio() -> None:
    one = mask("1100110022")
    found = evaluate([("a", one, mask("1100000000")), ("b", one, one)], NAMES)
    assert found.errors.missed_K.tolist() == [0, 1, 1]
    assert found.errors.right_K.tolist() == [0, 3, 1]
    assert found.boxes.classes[0].false_negative_ratio == pytest.approx(1 / 4)  # not the mean of 1/2 and 0
    assert found.images[0].errors.missed_K.tolist() == [0, 1, 1]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["errors"]["classes"][0]["missed"] == 1
    assert document["images"][0]["errors"]["classes"][1]["right"] == 0
    assert document["boxes"]["classes"][1]["expert"] == 2
    assert document["images"][1]["boxes"]["foreground"]["matched"] == 3


def test_judging_apart_and_summing_up_equals_the_whole() -> None:
    pairs = [("a", mask("0112"), mask("0122")), ("b", mask("x112"), mask("0000"))]
    apart = summarise([judge(*pair, 3) for pair in pairs], NAMES)
    assert apart.to_dict() == evaluate(pairs, NAMES).to_dict()


def test_pairs_are_consumed_one_at_a_time() -> None:
    def pairs() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for name in ("a", "b", "c"):
            yield name, mask("01"), mask("01")

    assert [one.image for one in evaluate(pairs(), NAMES).images] == ["a", "b", "c"]


def test_json_has_no_nan() -> None:
    found = evaluate([("all ignored", mask("xx"), mask("01")), ("b", mask("0x"), mask("01"))], NAMES)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["dataset"]["mean_iou"] == 1.0
    assert document["classes"][1]["iou"] is None
    assert document["images"][0]["mean_bf"] is None
    assert document["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_number_or_none() -> None:
    assert number_or_none(0.25) == 0.25
    assert number_or_none(float("nan")) is None
    assert number_or_none(float("inf")) is None


def test_errors_name_the_pair() -> None:
    with pytest.raises(ShapeError, match=r"B03/f2: prediction \(1, 3\), truth \(1, 2\)"):
        evaluate([("B03/f2", mask("00"), mask("000"))], NAMES)
    with pytest.raises(InputError, match="nothing to evaluate"):
        evaluate([], NAMES)
