"""The Rosella recipe on fields whose objects are known."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.rosella import (
    AUTOLYSOSOME,
    DEFAULTS,
    PHAGOPHORE,
    find_acid,
    find_green,
    find_red,
    green_to_red,
)
from cytoloop.domain.simulate import simulate_field

ROSELLA = Cip(recipe="rosella")
Y, X = np.mgrid[:120, :160]


def disc(row: int, column: int, radius: int) -> np.ndarray:
    return (Y - row) ** 2 + (X - column) ** 2 <= radius**2


YELLOW, RED = disc(40, 40, 5), disc(70, 110, 8)


def field(offset: float = 0.0, gain: float = 1.0, noisy: bool = False) -> np.ndarray:
    """One phagophore and one autolysosome in an even cytoplasm, slightly blurred."""
    green, red = np.full(Y.shape, 900.0), np.full(Y.shape, 200.0)
    green[YELLOW], red[YELLOW] = 6000, 2000
    green[RED], red[RED] = 300, 2500
    image = np.stack([op.gaussian_blur((c * gain).astype(np.float32), 0.9) for c in (green, red)])
    if noisy:
        image = np.random.default_rng(0).poisson(image).astype(np.float32)
    return image + np.float32(offset)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def label(image: np.ndarray, **parameters: float) -> np.ndarray:
    return make_weak_label(image, "k", Cip(recipe="rosella", parameters=parameters)).mask_HW


@pytest.mark.parametrize("noisy", [False, True])
def test_two_known_objects_get_their_classes(noisy):
    mask = label(field(gain=4, noisy=noisy))
    assert mask[40, 40] == PHAGOPHORE
    assert mask[70, 110] == AUTOLYSOSOME
    assert iou(mask == PHAGOPHORE, YELLOW) > 0.5
    assert iou(mask == AUTOLYSOSOME, RED) > 0.5


def test_mirrored_field_mirrored_mask():
    mask = label(field())
    for axis in (0, 1):
        mirrored = np.ascontiguousarray(np.flip(field(), axis + 1))
        assert (label(mirrored) != np.flip(mask, axis)).mean() < 0.001


def test_grey_values_are_relative_but_for_the_floor():
    np.testing.assert_array_equal(label(field(gain=3)) > 0, label(field()) > 0)
    assert not label(field(gain=0.1)).any()
    assert label(field(gain=0.1), red_floor=0).any()


def test_known_camera_offset_is_undone():
    np.testing.assert_array_equal(label(field(offset=128), camera_offset=128), label(field()))


def test_illumination_is_divided_out():
    light = (0.6 + 0.8 * X / X.max()).astype(np.float32)
    light_CHW = np.stack([light, light]) / light.mean()
    mask = make_weak_label(field() * light_CHW, "k", ROSELLA, light_CHW).mask_HW
    assert (mask != label(field())).mean() < 0.001


def test_one_bright_speck_hides_a_dim_field():
    image = field()
    image[:, 100, 20] = 60000
    assert (label(image) == PHAGOPHORE).sum() < (label(field()) == PHAGOPHORE).sum()


def test_noise_of_a_dim_field_hides_its_objects():
    """The recipe's thresholds are relative: where all is dim, noise passes them too and melts together."""
    assert label(field(gain=4, noisy=True))[70, 110] == AUTOLYSOSOME
    assert label(field(noisy=True))[70, 110] == 0


def test_find_red_drops_puncta_below_seven_pixels_and_adds_unseen_candidates():
    image = np.zeros(Y.shape, np.float32)
    image[60:62, 80:82] = 5000  # smoothed by sigma 1: 1950 on its 4 px, 940 beside them
    none = {**DEFAULTS, "red_threshold": 1500.0}
    assert not find_red(image, none).any()
    assert find_red(image, {**none, "red_area": 1}).any()
    # A wide, faint plateau: too smooth for the band-pass, narrow enough for the top-hat.
    broad = 1500 * np.exp(-((Y - 60) ** 2 + (X - 80) ** 2) / (2 * 12.0**2)).astype(np.float32)
    options = {**DEFAULTS, "red_threshold": 1e6, "big_threshold": 1e6, "tophat_threshold": 300.0}
    assert find_red(broad, options).sum() > 500
    covered = {**options, "red_threshold": 100.0, "tophat_covered": 0.0}
    assert find_red(broad, covered).sum() < find_red(broad, options).sum()


def test_find_green_joins_band_pass_and_spots():
    image = np.zeros(Y.shape, np.float32)
    image[YELLOW] = 20000
    assert find_green(image, DEFAULTS)[40, 40]
    no_band = {**DEFAULTS, "green_threshold": 1e9}
    assert find_green(image, {**no_band, "green_log_threshold": 200.0}).any()
    assert not find_green(image, {**no_band, "green_log_threshold": 1e9}).any()


def test_ratio_is_finite_and_low_where_red_is_alone():
    green, red = np.zeros((20, 90), np.float32), np.zeros((20, 90), np.float32)
    green[:, :50], red[:, 10:50] = 400, 100
    red[:, 30:50] = 800
    ratio = green_to_red(green, red, 1.0)
    assert np.isfinite(ratio).all()
    assert ratio[10, 20] == pytest.approx(4.0, rel=1e-3)
    assert ratio[10, 40] == pytest.approx(0.5, rel=1e-3)
    assert ratio[10, 2] == ratio.max()  # green without red
    assert ratio[10, 80] == pytest.approx(ratio.min(), abs=0.2)  # no light at all
    np.testing.assert_array_equal(green_to_red(green * 0, red * 0, 1.0), 0)


def test_find_acid_wants_greener_surroundings_and_size():
    image = field()
    wide = disc(70, 110, 12)
    image[:, wide] = np.array([[300], [2500]])
    ratio = green_to_red(image[0], image[1], 2.0)
    acid = find_acid(ratio, image[0], DEFAULTS)
    assert acid[70, 110]
    assert not acid[40, 40]
    assert not find_acid(ratio, image[0], {**DEFAULTS, "acid_area": 5000}).any()
    assert not find_acid(ratio, image[0], {**DEFAULTS, "acid_contrast": 50.0}).any()


def test_a_simulated_field_is_neither_missed_nor_solved():
    simulated = simulate_field("reference-1", 5, 2)
    mask = make_weak_label(simulated.image_CHW.astype(np.float32), "k", ROSELLA).mask_HW
    for value in (PHAGOPHORE, AUTOLYSOSOME):
        assert 0.2 < iou(mask == value, simulated.truth_HW == value) < 0.8
