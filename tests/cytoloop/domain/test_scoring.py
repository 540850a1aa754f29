"""Scores: higher = ask sooner, and never a number that ranks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.scoring import EMPTY_SHARE, entropy, foreground_entropy, score_item, soften


def spread(own: float, mask_HW: Any, classes: int = 3) -> np.ndarray:
    """Probability ``own`` for each pixel's class, the rest shared."""
    onehot = (np.arange(classes)[:, None, None] == mask_HW).astype(float)
    return onehot * own + (1 - onehot) * (1 - own) / (classes - 1)


DISC = (np.hypot(*(np.mgrid[:40, :40] - 20)) < 6).astype(np.uint8)


def test_entropy_runs_from_certain_to_no_idea() -> None:
    prob = np.array([[[1.0, 0.5, 1 / 3]], [[0.0, 0.5, 1 / 3]], [[0.0, 0.0, 1 / 3]]])
    np.testing.assert_allclose(entropy(prob)[0], [0.0, np.log(2), np.log(3)])


def test_by_hand() -> None:
    prob = np.array([[[0.5, 1.0]], [[0.5, 0.0]]])
    assert foreground_entropy(prob) == pytest.approx(0.5 * np.log(2) / (0.5 + EMPTY_SHARE * 2))


def test_the_more_doubtful_of_three_known_images_comes_first() -> None:
    scores = [score_item(spread(own, DISC)).score for own in (0.99, 0.8, 0.5)]
    assert scores == sorted(scores)
    assert scores[0] < scores[1] < scores[2] <= np.log(3)


def test_background_cannot_drown_the_objects() -> None:
    wide = np.pad(DISC, 100)
    small, large = (foreground_entropy(spread(0.7, mask, 2) * 1.0) for mask in (DISC, wide))
    doubt_only_in_disc = [
        foreground_entropy(np.where(mask == 1, spread(0.7, mask, 2), spread(1.0, mask, 2)))
        for mask in (DISC, wide)
    ]
    assert doubt_only_in_disc[1] > 0.25 * doubt_only_in_disc[0]
    assert small > 0
    assert large > 0


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


def test_the_reason_counts_doubtful_objects() -> None:
    mask = np.zeros((20, 40), np.uint8)
    mask[5:10, 5:10] = 1
    mask[5:10, 25:30] = 2
    prob = spread(0.99, mask)
    prob[:, 5:10, 25:30] = np.array([0.3, 0.3, 0.4])[:, None, None]
    assert score_item(prob).reason == "1 of 2 objects in doubt"
    assert score_item(spread(0.99, mask)).reason == "0 of 2 objects in doubt"
    assert score_item(spread(0.99, np.zeros((5, 5)))).reason.startswith("no object seen")


@pytest.mark.parametrize("shape", [(3, 4), (1, 4, 4), (2, 3, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(K >= 2, H, W\)"):
        foreground_entropy(np.full(shape, 0.5))


@pytest.mark.parametrize("score", [foreground_entropy, score_item])
def test_a_nan_is_refused(score: Any) -> None:
    prob = spread(0.9, DISC)
    prob[1, 20, 20] = np.nan
    with pytest.raises(ShapeError, match=r"\(3, 40, 40\) give score nan, expected finite"):
        score(prob)


# --- soften ----------------------------------------------------------------------------------------


@given(
    mask_HW=hnp.arrays(
        np.uint8,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=15),
        elements=st.sampled_from([0, 1, 2, 255]),
    )
)
def test_soft_probabilities_are_the_mask_again(mask_HW: Any) -> None:
    prob = soften(mask_HW, 3)
    assert prob.dtype == np.float32
    assert prob.shape == (3, *mask_HW.shape)
    assert (prob >= 0).all()
    np.testing.assert_allclose(prob.sum(axis=0), 1.0, atol=1e-5)
    np.testing.assert_array_equal(prob.argmax(axis=0), np.where(mask_HW == 255, 0, mask_HW))


def test_edges_are_doubtful_and_the_inside_is_not() -> None:
    own = soften(DISC, 3).max(axis=0)
    distance = ndimage.distance_transform_edt(DISC)
    assert own[distance == 1].max() == pytest.approx(0.55)
    assert own[20, 20] == pytest.approx(0.95)
    assert own[0, 0] == pytest.approx(0.95)


def test_of_two_weak_masks_the_one_with_more_rim_comes_first() -> None:
    ragged = DISC * (np.indices(DISC.shape).sum(axis=0) % 2).astype(np.uint8)
    assert score_item(soften(ragged, 3)).score > score_item(soften(DISC, 3)).score
    assert score_item(soften(np.zeros((9, 9), np.uint8), 3)).score < score_item(soften(DISC, 3)).score


def test_where_teachers_differ_the_mask_is_in_doubt_too() -> None:
    """A unanimous committee is as sure as a recipe alone; two of three make 2/3 of that."""
    sure = np.full(DISC.shape, 255, np.uint8)
    np.testing.assert_array_equal(soften(DISC, 3, sure), soften(DISC, 3))
    split = sure.copy()
    split[0, 0] = 170
    prob = soften(DISC, 3, split)
    alone = soften(DISC, 3)
    assert prob[0, 0, 0] == pytest.approx(alone[0, 0, 0] * 2 / 3)
    np.testing.assert_array_equal(prob[:, 1:, 1:], alone[:, 1:, 1:])
    np.testing.assert_allclose(prob.sum(axis=0), 1, rtol=1e-6)
    assert score_item(prob).score > score_item(alone).score


def test_what_is_served_is_the_mask_however_few_voted_for_it() -> None:
    rng = np.random.default_rng(0)
    mask_HW = rng.integers(0, 3, (12, 12)).astype(np.uint8)
    confidence_HW = rng.choice(np.array([0, 85, 170, 255], np.uint8), mask_HW.shape)
    prob = soften(mask_HW, 3, confidence_HW)
    np.testing.assert_array_equal(prob.argmax(axis=0), mask_HW)
    np.testing.assert_allclose(prob.sum(axis=0), 1, rtol=1e-6)
