"""Local levels worked by hand, and what they are for: a field whose background slopes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cytoloop.domain.cip import thresholds as th
from cytoloop.domain.errors import ConfigError

SMALL = np.array([[0, 0, 0], [0, 9, 0], [0, 0, 0]], np.float32)
Y, X = np.mgrid[:60, :80]
SPOTS = ((Y - 30) ** 2 + (X - 15) ** 2 <= 16) | ((Y - 30) ** 2 + (X - 65) ** 2 <= 16)
SLOPE = (10.0 * X + 200 * SPOTS).astype(np.float32)
"""Two equal spots; the background beside the right one is far brighter than the left one."""

LEVELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda image: th.local_mean_level(image, 21, 60),
    "niblack": lambda image: th.niblack_level(image, 21, 1.0),
    "sauvola": lambda image: th.sauvola_level(image, 21, 0.2),
    "otsu": lambda image: th.local_otsu_level(image, 10),
}


def test_mean_by_hand():
    level = th.local_mean_level(SMALL, 3)
    assert level[1, 1] == pytest.approx(1)  # 9 / 9 pixels
    assert level[0, 0] == pytest.approx(1)  # reflected: the 9 counts once in nine pixels
    assert th.local_mean_level(SMALL, 3, 2.5)[1, 1] == pytest.approx(3.5)


def test_niblack_by_hand():
    # mean 1, variance (8 x 1 + 64) / 9 = 8
    assert th.niblack_level(SMALL, 3, 0.5)[1, 1] == pytest.approx(1 + 0.5 * 8**0.5)
    assert th.niblack_level(SMALL, 3, 0.0)[1, 1] == pytest.approx(1)


def test_sauvola_by_hand():
    # negative: mean 9 - 1 = 8, deviation sqrt(8); 9 - 8 (1 + 0.5 (sqrt(8) / 4.5 - 1))
    expected = 9 - 8 * (1 + 0.5 * (8**0.5 / 4.5 - 1))
    assert th.sauvola_level(SMALL, 3, 0.5)[1, 1] == pytest.approx(expected, rel=1e-5)
    assert th.sauvola_level(SMALL, 3, 0.5, spread=8**0.5)[1, 1] == pytest.approx(1, abs=1e-5)


def test_sauvola_leaves_even_noise_below_its_level_where_niblack_does_not():
    image = np.random.default_rng(0).normal(100, 2, (40, 60)).astype(np.float32)
    image[20, 30] = 1000
    far = np.s_[:, :15]
    assert (image > th.sauvola_level(image, 15))[far].sum() == 0
    assert (image > th.niblack_level(image, 15))[far].mean() > 0.3


def test_otsu_cuts_between_the_two_grey_values_of_a_disk():
    image = np.where(X < 40, 10, 210).astype(np.float32)
    image[:, 60:] = 1000
    level = th.local_otsu_level(image, 8)
    assert 10 < level[30, 39] < 210  # 10 beside 210
    assert 210 < level[30, 61] < 1000  # 210 beside 1000
    assert (image > level)[30, 40]
    assert not (image > level)[30, 39]


@pytest.mark.parametrize("name", LEVELS)
def test_both_spots_of_a_slope_are_found_where_one_level_finds_one(name):
    level = LEVELS[name](SLOPE)
    mask = level < SLOPE
    assert mask[SPOTS].mean() > 0.7
    lowest = SLOPE[SPOTS].min()
    one_level = lowest < SLOPE
    assert one_level[:, 50:].mean() > 0.5  # the right background too


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_follows_brightness_and_keeps_shape_and_type(name):
    level = LEVELS[name](SLOPE)
    assert (level.dtype, level.shape) == (np.float32, SLOPE.shape)
    if name != "mean":  # whose offset is in grey values
        np.testing.assert_allclose(LEVELS[name](SLOPE * 2 + 50), level * 2 + 50, rtol=1e-3, atol=1)


@pytest.mark.parametrize("name", LEVELS)
def test_nothing_is_above_the_level_of_an_even_image(name):
    flat = np.full((30, 30), 123.456, np.float32)
    level = LEVELS[name](flat)
    assert np.isfinite(level).all()
    np.testing.assert_allclose(level, 123.456 + (60 if name == "mean" else 0), rtol=1e-5)


@pytest.mark.parametrize("window", [0, 1, 4, -3])
def test_a_window_without_a_middle_is_refused(window):
    for level in (th.local_mean_level, th.niblack_level, th.sauvola_level):
        with pytest.raises(ConfigError, match=f"window of {window} pixels, expected odd and >= 3"):
            level(SLOPE, window)


def test_spread_and_radius_are_checked():
    with pytest.raises(ConfigError, match="spread is 0, expected > 0"):
        th.sauvola_level(SLOPE, 5, spread=0)
    with pytest.raises(ConfigError, match="radius 0"):
        th.local_otsu_level(SLOPE, 0)
