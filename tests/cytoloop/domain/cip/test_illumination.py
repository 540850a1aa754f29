"""Light is found again after it was put in."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.cip.illumination import estimate_illumination, flatten_background
from cytoloop.domain.errors import ShapeError

HEIGHT, WIDTH = 128, 160
Y, X = np.mgrid[:HEIGHT, :WIDTH]


def lamp(row: float, column: float, loss: float) -> np.ndarray:
    squared = (Y - row * HEIGHT) ** 2 + (X - column * WIDTH) ** 2
    light = 1 - loss * squared / squared.max()
    return (light / light.mean()).astype(np.float32)


LIGHT = np.stack([lamp(0.4, 0.6, 0.3), lamp(0.6, 0.4, 0.2)])


def fields(count: int, offset: float = 0.0) -> list[np.ndarray]:
    """Colonies near the middle, each image with a level of its own: a plain median would be fooled."""
    rng = np.random.default_rng(3)
    images = []
    for _ in range(count):
        image = np.full((2, HEIGHT, WIDTH), rng.uniform(200, 400))
        row, column = rng.normal(64, 15), rng.normal(80, 15)
        image[:, (Y - row) ** 2 + (X - column) ** 2 < 35**2] += 1500
        images.append((rng.poisson(image * LIGHT) + offset).astype(np.float32))
    return images


def error(estimate: np.ndarray) -> float:
    return float(np.sqrt(np.mean((estimate / LIGHT - 1) ** 2)))


def test_illumination_is_found_behind_colonies():
    estimate = estimate_illumination(iter(fields(10)))
    assert estimate.dtype == np.float32
    np.testing.assert_allclose(estimate.mean(axis=(1, 2)), 1, rtol=1e-5)
    assert error(np.ones_like(LIGHT)) > 0.04
    assert error(estimate) < 0.015


def test_camera_offset_flattens_the_estimate_unless_told():
    images = fields(10, offset=100)
    assert error(estimate_illumination(images, 100)) < 0.015
    assert (
        error(estimate_illumination(images, 100))
        < error(estimate_illumination(images))
        < error(np.ones_like(LIGHT))
    )


def test_even_or_dark_plates_give_ones():
    for value in (0.0, 500.0):
        estimate = estimate_illumination([np.full((1, 40, 40), value, np.float32)] * 3)
        np.testing.assert_allclose(estimate, 1, atol=1e-5)


def test_no_image_or_two_sizes_are_refused():
    with pytest.raises(ShapeError, match="no image"):
        estimate_illumination([])
    with pytest.raises(ShapeError, match="expected equal"):
        estimate_illumination([np.ones((1, 16, 16), np.float32), np.ones((1, 16, 24), np.float32)])


def test_flatten_background_leaves_objects_on_a_flat_ground():
    level = np.log(300 * LIGHT[0])
    cell = (Y - 60) ** 2 + (X - 80) ** 2 < 400
    level[cell] += 1.0
    flat = flatten_background(level.astype(np.float32), 3)
    assert np.abs(flat[~cell]).max() < 0.5 * np.ptp(level[~cell])
    assert flat[~cell].std() < 0.3 * level[~cell].std()
    assert flat[cell].mean() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_array_equal(flatten_background(level.astype(np.float32), 0), level.astype(np.float32))
