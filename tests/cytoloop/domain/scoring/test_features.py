"""What an image looks like before there is a network."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.scoring import Look, image_features, score_item


def field(brightness: float, spots: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An image of so many spots on a background, and its mask."""
    rng = np.random.default_rng(seed)
    image_CHW = rng.normal(brightness, brightness / 20, (2, 96, 128)).clip(0)
    mask_HW = np.zeros((96, 128), np.uint8)
    for _ in range(spots):
        row, column = rng.integers(8, 84), rng.integers(8, 116)
        image_CHW[:, row : row + 5, column : column + 5] += 4 * brightness
        mask_HW[row : row + 5, column : column + 5] = 1
    return image_CHW.astype(np.uint16), mask_HW


def described(brightness: float, spots: int, seed: int = 0) -> np.ndarray:
    image_CHW, mask_HW = field(brightness, spots, seed)
    prob_KHW = np.stack([mask_HW == 0, mask_HW == 1]).astype(np.float32)
    look = Look(prob_KHW=prob_KHW, features_FHW=image_features(image_CHW, mask_HW, 2))
    found = score_item(look).features_F
    assert found is not None
    return found


def test_a_cell_is_a_vector_of_about_unit_length() -> None:
    features_FHW = image_features(*field(500, 10), 2)
    assert features_FHW.shape == (128, 3, 4)
    assert features_FHW.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features_FHW, axis=0), 1.0, atol=0.2)
    assert image_features(*[part[..., :70, :100] for part in field(500, 10)], 2).shape == (128, 3, 4)


def test_the_same_kind_of_field_is_near_and_another_kind_far() -> None:
    like, again = described(500, 25, seed=1), described(500, 25, seed=2)
    empty, bright = described(500, 0, seed=3), described(4000, 25, seed=4)
    assert like @ again > 0.9
    assert like @ empty < like @ again - 0.1
    assert like @ bright < 0.5
    np.testing.assert_array_equal(like, described(500, 25, seed=1))


def test_a_defocused_field_is_told_from_a_sharp_one() -> None:
    image_CHW, mask_HW = field(500, 25)
    blurred = np.stack([np.repeat(np.repeat(p[::8, ::8], 8, 0), 8, 1) for p in image_CHW])
    one, other = (image_features(image, mask_HW, 2).mean(axis=(1, 2)) for image in (image_CHW, blurred))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) < 0.9


@pytest.mark.parametrize("value", [0, 65535])
def test_a_flat_image_has_features_too(value: int) -> None:
    image_CHW = np.full((1, 40, 40), value, np.uint16)
    assert np.isfinite(image_features(image_CHW, np.full((40, 40), 255, np.uint8), 3)).all()
