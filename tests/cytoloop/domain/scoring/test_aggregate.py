"""From pixels to items: background must not drown objects, specks must not outrank them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.scoring import EMPTY_SHARE, foreground_entropy, foreground_mean, foreground_weight


def spread(own: float, mask_HW: Any, classes: int = 3) -> np.ndarray:
    """Probability ``own`` for each pixel's class, the rest shared."""
    onehot = (np.arange(classes)[:, None, None] == mask_HW).astype(float)
    return onehot * own + (1 - onehot) * (1 - own) / (classes - 1)


DISC = (np.hypot(*(np.mgrid[:40, :40] - 20)) < 6).astype(np.uint8)


def test_by_hand() -> None:
    prob = np.array([[[0.5, 1.0]], [[0.5, 0.0]]])
    assert foreground_entropy(prob) == pytest.approx(0.5 * np.log(2) / (0.5 + EMPTY_SHARE * 2))


def test_objects_of_cip_weigh_and_what_it_left_out_does_not() -> None:
    prob = np.array([[[0.9, 0.9, 0.5]], [[0.1, 0.1, 0.5]]])
    np.testing.assert_allclose(foreground_weight(prob), [[0.1, 0.1, 0.5]])
    cip = np.array([[0, 1, 255]], np.uint8)
    np.testing.assert_allclose(foreground_weight(prob, cip), [[0.1, 1.0, 0.0]])


def test_the_more_doubtful_of_three_known_images_comes_first() -> None:
    scores = [foreground_entropy(spread(own, DISC)) for own in (0.99, 0.8, 0.5)]
    assert scores[0] < scores[1] < scores[2] <= np.log(3)


def test_background_cannot_drown_the_objects() -> None:
    wide = np.pad(DISC, 100)
    doubt_only_in_disc = [
        foreground_entropy(np.where(mask == 1, spread(0.7, mask, 2), spread(1.0, mask, 2)))
        for mask in (DISC, wide)
    ]
    assert doubt_only_in_disc[1] > 0.25 * doubt_only_in_disc[0]


def test_a_nearly_empty_field_ranks_behind_a_field_of_doubtful_objects() -> None:
    specks = np.zeros((200, 200), np.uint8)
    specks[50, 50] = specks[90, 90] = 1
    discs = np.tile(DISC, (5, 5))
    few, many = (
        foreground_entropy(np.where(mask == 1, spread(0.6, mask, 2), spread(1.0, mask, 2)))
        for mask in (specks, discs)
    )
    assert few < 0.1 * many
    assert foreground_entropy(spread(1.0, np.zeros((20, 20)), 2)) == 0.0


def test_a_nan_is_refused() -> None:
    prob = spread(0.9, DISC)
    prob[1, 20, 20] = np.nan
    with pytest.raises(ShapeError, match="score nan, expected finite"):
        foreground_entropy(prob)
    with pytest.raises(ShapeError, match=r"shape \(2, 2\) gives score inf"):
        foreground_mean(np.full((2, 2), np.inf), np.ones((2, 2)))
