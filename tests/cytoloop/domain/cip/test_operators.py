"""Filters against SciPy, scikit-image and values worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import white_tophat

from cytoloop.domain.cip import operators as op
from cytoloop.domain.errors import ConfigError, ShapeError


def noise(height: int = 40, width: int = 57, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1000, (height, width)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.3, 7.0])
def test_gaussian_blur_is_scipys(sigma):
    expected = ndimage.gaussian_filter(noise().astype(np.float64), sigma, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(op.gaussian_blur(noise(), sigma), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_gaussian_blur_refuses_a_sigma_that_is_not_positive(sigma):
    with pytest.raises(ConfigError, match="expected > 0"):
        op.gaussian_blur(noise(), sigma)


def test_difference_of_gaussians_ignores_a_constant_and_finds_a_spot():
    image = noise()
    shifted = op.difference_of_gaussians(image + 500, 1, 5)
    np.testing.assert_allclose(shifted, op.difference_of_gaussians(image, 1, 5), atol=1e-2)
    spot = np.zeros((31, 31), np.float32)
    spot[15, 15] = 100
    assert np.unravel_index(op.difference_of_gaussians(spot, 1, 5).argmax(), spot.shape) == (15, 15)


def test_difference_of_gaussians_refuses_the_wider_first():
    with pytest.raises(ConfigError, match="expected the first smaller"):
        op.difference_of_gaussians(noise(), 5, 1)


def test_laplacian_of_gaussian_is_negative_on_a_spot_and_scipys():
    image = noise()
    np.testing.assert_allclose(
        op.laplacian_of_gaussian(image, 1.0), ndimage.gaussian_laplace(image, 1.0), atol=1e-2
    )
    spot = np.zeros((21, 21), np.float32)
    spot[10, 10] = 100
    assert op.laplacian_of_gaussian(spot, 1.0)[10, 10] < 0
    with pytest.raises(ConfigError):
        op.laplacian_of_gaussian(spot, 0)


def test_flat_field_undoes_a_multiplication():
    light = np.linspace(0.5, 1.5, 57, dtype=np.float32)[None].repeat(40, axis=0)
    np.testing.assert_allclose(op.flat_field(noise() * light, light), noise(), rtol=1e-5)


@pytest.mark.parametrize("light", [np.ones((3, 3), np.float32), np.zeros((40, 57), np.float32)])
def test_flat_field_refuses_another_size_and_darkness(light):
    with pytest.raises(ShapeError, match="illumination"):
        op.flat_field(noise(), light)


def test_richardson_lucy_sharpens_and_keeps_the_total():
    truth = np.zeros((41, 41), np.float32)
    truth[20, 20], truth[20, 25] = 4000, 2000
    blurred = op.gaussian_blur(truth, 2.0)
    sharp = op.richardson_lucy(blurred, 2.0, 10)
    assert sharp[20, 20] > 2 * blurred[20, 20]
    assert np.abs(sharp - truth).sum() < np.abs(blurred - truth).sum()
    assert sharp.sum() == pytest.approx(6000, rel=1e-3)


def test_richardson_lucy_of_dark_constant_and_no_iterations():
    np.testing.assert_array_equal(op.richardson_lucy(np.zeros((9, 9), np.float32), 1.0), 0)
    np.testing.assert_allclose(op.richardson_lucy(np.full((9, 9), 7, np.float32), 1.0), 7, rtol=1e-5)
    np.testing.assert_array_equal(op.richardson_lucy(noise(), 1.0, 0), noise())
    assert (op.richardson_lucy(noise() - 500, 1.0) >= 0).all()
    with pytest.raises(ConfigError, match="-1 iterations"):
        op.richardson_lucy(noise(), 1.0, -1)


def test_rescale_to_peak_by_hand():
    image = np.array([[0, 1, 2, 4]], np.float32)
    np.testing.assert_array_equal(op.rescale_to_peak(image, 100, 8), [[0, 2, 4, 8]])
    np.testing.assert_array_equal(op.rescale_to_peak(image, 50, 3), [[0, 2, 3, 3]])  # median 1.5
    np.testing.assert_array_equal(op.rescale_to_peak(image * 0), 0)
    with pytest.raises(ConfigError, match="percentile is 101"):
        op.rescale_to_peak(image, 101)


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_white_tophat_disk_is_scikit_images(radius):
    expected = white_tophat(noise(), op.disk(radius), mode="ignore")
    np.testing.assert_allclose(op.white_tophat_disk(noise(), radius), expected, atol=1e-3)


def test_white_tophat_keeps_what_is_narrower_than_the_disk_only():
    image = np.zeros((40, 60), np.float32)
    image[10:13, 10:13] = 5
    image[15:35, 30:50] = 5
    tophat = op.white_tophat_disk(image + 3, 4)
    assert tophat[11, 11] == 5
    assert tophat[25, 40] == 0


def test_disk_by_hand():
    assert op.disk(1).tolist() == [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    assert op.disk(25).sum() == sum(y * y + x * x <= 625 for y in range(-25, 26) for x in range(-25, 26))
    with pytest.raises(ConfigError):
        op.disk(0)


def test_shrink_averages_blocks():
    image = np.arange(32, dtype=np.float32).reshape(4, 8)
    blocks = image.reshape(2, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(op.shrink(image, 2), blocks)
    assert op.shrink(image, 100).shape == (1, 1)


MASK = np.array(
    [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    dtype=bool,
)
"""A diagonal pair at the edge, three pixels inside, one pixel inside."""


def test_components_join_diagonals():
    labels, count = op.components(MASK)
    assert count == 3
    assert np.bincount(labels.ravel()).tolist() == [36, 2, 3, 1]
    assert op.components(np.zeros((3, 3), bool))[1] == 0


@pytest.mark.parametrize(("smallest", "left"), [(1, 6), (2, 5), (3, 3), (4, 0)])
def test_remove_small_keeps_the_stated_size(smallest, left):
    kept = op.remove_small(MASK, smallest)
    assert kept.sum() == left
    assert not (kept & ~MASK).any()


def test_keep_areas_has_inclusive_bounds():
    assert op.keep_areas(MASK, 1, 2).sum() == 3
    assert op.keep_areas(MASK, 2, 2).sum() == 2


def test_remove_touching_border_on_every_side():
    kept = op.remove_touching_border(MASK)
    assert kept.sum() == 4
    for turns in range(4):
        np.testing.assert_array_equal(op.remove_touching_border(np.rot90(MASK, turns)), np.rot90(kept, turns))
    assert not op.remove_touching_border(np.ones((5, 5), bool)).any()


def test_fill_small_holes_leaves_the_large():
    mask = np.ones((9, 9), bool)
    mask[1, 1] = False
    mask[4:7, 4:7] = False
    filled = op.fill_small_holes(mask, 4)
    assert filled[1, 1]
    assert not filled[5, 5]
    assert op.fill_small_holes(mask, 9).all()


def test_operators_do_not_write_into_their_input():
    image = noise()
    before = image.copy()
    for apply in (
        lambda x: op.richardson_lucy(x, 1.0),
        lambda x: op.white_tophat_disk(x, 3),
        op.rescale_to_peak,
        lambda x: op.difference_of_gaussians(x, 1, 2),
    ):
        assert apply(image).dtype == np.float32
    np.testing.assert_array_equal(image, before)
