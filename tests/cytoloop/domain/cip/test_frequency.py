"""Butterworth filters against their formula, wave by wave, and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import butterworth

from cytoloop.domain.cip import frequency as fr
from cytoloop.domain.errors import ConfigError

SIDE = 40


def wave(cycles_per_pixel: float) -> np.ndarray:
    """A cosine along the rows that its reflection at the border continues; every row alike."""
    x = np.arange(SIDE) + 0.5
    return np.cos(2 * np.pi * cycles_per_pixel * x)[np.newaxis].repeat(SIDE, axis=0).astype(np.float32)


def noise(height: int = 20, width: int = 31) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1000, (height, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("frequency", "low_gain"),
    [(0.1, 0.5**0.5), (0.2, 17**-0.5), (0.05, (1 + 1 / 16) ** -0.5)],  # order 2, cut-off 0.1
)
def test_a_wave_is_scaled_by_the_gain_at_its_frequency(frequency, low_gain):
    np.testing.assert_allclose(
        fr.butterworth_low_pass(wave(frequency), 0.1), low_gain * wave(frequency), atol=1e-5
    )
    high_gain = (1 - low_gain**2) ** 0.5  # the powers add up to 1
    np.testing.assert_allclose(
        fr.butterworth_high_pass(wave(frequency), 0.1), high_gain * wave(frequency), atol=1e-5
    )


def test_a_band_keeps_its_middle_and_not_what_is_coarser_or_finer():
    def left(frequency: float) -> float:
        band = fr.butterworth_band_pass(wave(frequency), 0.05, 0.2, 4)
        return float(np.abs(band).max() / np.abs(wave(frequency)).max())

    assert left(0.1) > 0.97
    assert left(0.025) < 0.08
    assert left(0.4) < 0.08


def test_a_constant_passes_the_low_pass_alone():
    flat = np.full((9, 14), 7, np.float32)
    np.testing.assert_allclose(fr.butterworth_low_pass(flat, 0.1), flat, rtol=1e-6)
    np.testing.assert_allclose(fr.butterworth_high_pass(flat, 0.1), 0, atol=1e-5)
    np.testing.assert_allclose(fr.butterworth_band_pass(flat, 0.1, 0.3), 0, atol=1e-5)


@given(st.floats(0.02, 0.5), st.floats(0.5, 6))
def test_on_a_reflected_image_it_is_scikit_images(cutoff, order):
    mirrored = np.pad(noise(), ((0, 20), (0, 31)), mode="symmetric")
    for high, own in ((False, fr.butterworth_low_pass), (True, fr.butterworth_high_pass)):
        expected = butterworth(mirrored, cutoff, high, order, squared_butterworth=False)[:20, :31]
        np.testing.assert_allclose(own(noise(), cutoff, order), expected, atol=0.02)


def test_left_and_right_border_do_not_mix():
    image = np.zeros((16, 64), np.float32)
    image[:, :4] = 1000
    assert np.abs(fr.butterworth_low_pass(image, 0.1)[:, -8:]).max() < 1


def test_output_is_float32_and_the_input_is_left_alone():
    image = noise()
    before = image.copy()
    filtered = fr.butterworth_band_pass(image, 0.05, 0.2)
    assert (filtered.dtype, filtered.shape) == (np.float32, image.shape)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("cutoff", [0.0, -0.1, 0.51, np.nan])
def test_a_cutoff_no_image_has_is_refused(cutoff):
    for own in (fr.butterworth_low_pass, fr.butterworth_high_pass):
        with pytest.raises(ConfigError, match=r"at most 0\.5 cycles per pixel"):
            own(noise(), cutoff)


def test_order_and_band_are_checked():
    with pytest.raises(ConfigError, match="order is 0, expected > 0"):
        fr.butterworth_low_pass(noise(), 0.1, 0)
    with pytest.raises(ConfigError, match=r"from 0\.2 to 0\.1 .* expected low < high"):
        fr.butterworth_band_pass(noise(), 0.2, 0.1)
