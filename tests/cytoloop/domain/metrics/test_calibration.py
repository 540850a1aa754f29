"""Expected calibration error: by hand, streamed = whole, and 0 for a model that is calibrated."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import Calibration, calibration_of

NAMES = ("background", "spot")


def pixels(*foreground: float) -> np.ndarray:
    """Probabilities of two classes for a row of pixels, from that of the foreground: (2, 1, W)."""
    spot = np.array([foreground])
    return np.stack([1 - spot, spot])


def test_by_hand_with_two_bins() -> None:
    # given: 0 (0.9), 0 (0.7), 1 (0.6), 1 (0.8), 1 (1.0), hidden; true: 0 0 0 1 1 255
    prob = pixels(0.1, 0.3, 0.6, 0.8, 1.0, 0.9)
    truth = np.array([[0, 0, 0, 1, 1, 255]], np.uint8)
    found = calibration_of(prob, truth, bins=2)  # all confidences are in (0.5, 1]
    assert found.pixels_KB.tolist() == [[0, 2], [0, 3]]
    assert_allclose(found.class_ece_K, [abs(0.8 - 1.0), abs(0.8 - 2 / 3)])
    assert found.foreground_ece == pytest.approx(0.8 - 2 / 3)
    assert found.pooled_ece == pytest.approx(0.8 - 4 / 5)


def test_bins_are_told_apart_and_closed_above() -> None:
    prob = pixels(0.6, 0.8, 0.61)
    found = calibration_of(prob, np.array([[1, 0, 1]], np.uint8), bins=5)
    assert found.pixels_KB[1].tolist() == [0, 0, 1, 2, 0]  # 0.6 in (0.4, 0.6], 0.8 in (0.6, 0.8]
    # 1/3 x |0.6 - 1| + 2/3 x |0.705 - 0.5|
    assert found.foreground_ece == pytest.approx(0.4 / 3 + 2 / 3 * 0.205)
    bars = found.reliability(slice(1, None))
    assert [bar.pixels for bar in bars] == [0, 0, 1, 2, 0]
    assert (bars[3].lower, bars[3].upper) == (pytest.approx(0.6), pytest.approx(0.8))
    assert (bars[3].confidence, bars[3].accuracy) == (pytest.approx(0.705), pytest.approx(0.5))
    assert np.isnan([bars[0].confidence, bars[0].accuracy]).all()


def test_a_calibrated_model_has_no_error_and_an_overconfident_one_has() -> None:
    rng = np.random.default_rng(5)
    spot = rng.uniform(0, 1, (200, 300))
    truth = (rng.uniform(size=spot.shape) < spot).astype(np.uint8)
    honest = calibration_of(np.stack([1 - spot, spot]), truth)
    assert honest.class_ece_K.max() < 0.02
    sure = np.where(spot > 0.5, 0.99, 0.01)
    assert calibration_of(np.stack([1 - sure, sure]), truth).foreground_ece == pytest.approx(0.24, abs=0.01)


def test_background_hides_the_foregrounds_error_when_pooled() -> None:
    prob = pixels(*[0.0] * 95, *[1.0] * 5)  # five pixels, surely foreground, all wrong
    found = calibration_of(prob, np.zeros((1, 100), np.uint8))
    assert found.pooled_ece == pytest.approx(0.05)
    assert found.foreground_ece == 1.0


@given(seed=st.integers(0, 1000))
def test_images_added_up_equal_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prob = rng.dirichlet([1, 1, 1], (6, 8)).transpose(2, 0, 1)
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))
    whole = calibration_of(prob, truth)
    halves = calibration_of(prob[:, :3], truth[:3]) + calibration_of(prob[:, 3:], truth[3:])
    assert (whole.pixels_KB == halves.pixels_KB).all()
    assert (whole.right_KB == halves.right_KB).all()
    assert_allclose(whole.confidence_KB, halves.confidence_KB)
    # the definition again, pixel by pixel
    counted = truth != 255
    given_N, sure_N = prob.argmax(axis=0)[counted], prob.max(axis=0)[counted]
    is_right_N, bin_N = given_N == truth[counted], np.ceil(sure_N * 15)
    ece = sum(
        (bin_N == b).mean() * abs(sure_N[bin_N == b].mean() - is_right_N[bin_N == b].mean())
        for b in np.unique(bin_N)
    )
    assert (
        whole.pooled_ece == pytest.approx(ece, nan_ok=True) if counted.any() else np.isnan(whole.pooled_ece)
    )


def test_json_has_no_nan() -> None:
    found = calibration_of(pixels(0.2), np.zeros((1, 1), np.uint8))
    document = json.loads(json.dumps(found.to_dict(NAMES), allow_nan=False))
    assert document["foreground"]["ece"] is None
    assert document["classes"][0]["ece"] == pytest.approx(0.2)
    assert len(document["classes"][0]["reliability"]) == document["bins"] == 15


def test_half_precision_is_taken() -> None:
    assert isinstance(
        calibration_of(pixels(0.3, 0.7).astype(np.float16), np.zeros((1, 2), np.uint8)), Calibration
    )


@pytest.mark.parametrize(
    ("prob", "truth", "message"),
    [
        (pixels(0.1), np.zeros((1, 2), np.uint8), r"probabilities \(2, 1, 1\), truth uint8 \(1, 2\)"),
        (pixels(0.1), np.full((1, 1), 4, np.uint8), r"truth holds value 4, expected 0…1 or 255"),
        (pixels(0.1, np.nan), np.zeros((1, 2), np.uint8), r"pixel \(row 0, column 1\) are \[nan, nan\]"),
        (pixels(0.1, 1.5), np.zeros((1, 2), np.uint8), r"column 1\) are \[-0\.5, 1\.5\]"),
        (pixels(0.1) * 2, np.zeros((1, 1), np.uint8), r"expected 2 in 0…1 that sum to 1"),
    ],
)
def test_what_is_no_probability_is_refused(prob: np.ndarray, truth: np.ndarray, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        calibration_of(prob, truth)


def test_a_pixel_nobody_looked_at_may_hold_anything() -> None:
    assert calibration_of(pixels(np.nan, 1.0), np.array([[255, 1]], np.uint8)).foreground_ece == 0.0


def test_sums_of_different_shape_are_not_added() -> None:
    truth = np.zeros((1, 1), np.uint8)
    with pytest.raises(ShapeError, match=r"\(2, 15\) and \(2, 5\)"):
        calibration_of(pixels(0.1), truth) + calibration_of(pixels(0.1), truth, bins=5)
    with pytest.raises(ShapeError, match="0 bins"):
        calibration_of(pixels(0.1), truth, bins=0)
