"""Probabilities of a mask that has none of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cytoloop.domain.scoring import foreground_entropy, soften

DISC = (np.hypot(*(np.mgrid[:40, :40] - 20)) < 6).astype(np.uint8)


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
    assert foreground_entropy(soften(ragged, 3)) > foreground_entropy(soften(DISC, 3))
    assert foreground_entropy(soften(np.zeros((9, 9), np.uint8), 3)) < foreground_entropy(soften(DISC, 3))


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
    assert foreground_entropy(prob) > foreground_entropy(alone)


def test_what_is_served_is_the_mask_however_few_voted_for_it() -> None:
    rng = np.random.default_rng(0)
    mask_HW = rng.integers(0, 3, (12, 12)).astype(np.uint8)
    confidence_HW = rng.choice(np.array([0, 85, 170, 255], np.uint8), mask_HW.shape)
    prob = soften(mask_HW, 3, confidence_HW)
    np.testing.assert_array_equal(prob.argmax(axis=0), mask_HW)
    np.testing.assert_allclose(prob.sum(axis=0), 1, rtol=1e-6)
