"""The evaluation of many masks: summed matrices, means over images, JSON."""

import json
from collections.abc import Iterator

import numpy as np
import pytest

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import evaluate, number_or_none

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
