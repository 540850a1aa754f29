"""Measures per object against NumPy, object by object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain.cip import objects
from cytoloop.domain.errors import ConfigError

LABELS = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 3, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ],
    dtype=np.int32,
)
"""A 3 x 3 square, no object 2, one pixel."""
VALUES = np.arange(35, dtype=np.float32).reshape(5, 7)


def test_areas_and_means_by_hand():
    assert objects.areas(LABELS, 3).tolist() == [9, 0, 1]
    np.testing.assert_array_equal(objects.means(VALUES, LABELS, 3), [16, np.nan, 19])
    np.testing.assert_array_equal(objects.means(VALUES > 16, LABELS, 3), [4 / 9, np.nan, 1])


@given(
    arrays(np.int32, (5, 6), elements=st.integers(0, 4)),
    arrays(np.float32, (5, 6), elements=st.floats(-1e6, 1e6, width=32)),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]),
)
def test_quantiles_are_numpys(labels, values, q):
    got = objects.quantiles(values, labels, 4, q)
    for label in range(1, 5):
        own = values[labels == label].astype(np.float64)
        expected = np.quantile(own, q) if own.size else np.nan
        np.testing.assert_allclose(got[label - 1], expected, rtol=1e-9, atol=1e-6)


def test_medians_of_nothing_and_a_quantile_out_of_range():
    assert objects.medians(VALUES, np.zeros_like(LABELS), 0).shape == (0,)
    with pytest.raises(ConfigError, match=r"quantile 1\.5"):
        objects.quantiles(VALUES, LABELS, 3, 1.5)


def test_ring_outside_touches_but_never_overlaps():
    ring = objects.ring_outside(LABELS, 1)
    assert (ring == 1).sum() == 12  # four sides of three pixels, no corners
    assert (ring == 3).sum() == 3  # its left neighbour is as near to the square, which comes first
    assert not (ring[LABELS > 0]).any()


def test_rim_and_centre_by_hand():
    assert (objects.rim(LABELS) == 1).sum() == 8
    centre = objects.centre(LABELS, 3)
    assert np.argwhere(centre == 1).tolist() == [[2, 2]]
    assert np.argwhere(centre == 3).tolist() == [[2, 5]]  # all rim: kept whole


def test_rim_lies_between_touching_objects_but_not_at_the_edge_of_the_image():
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 3, dtype=np.int32)
    assert objects.rim(labels).tolist() == [[0, 0, 1, 2, 0, 0]] * 3


def test_split_by_seeds_cuts_at_the_neck_and_keeps_what_has_no_seed():
    y, x = np.mgrid[:40, :90]
    dumbbell = ((y - 20) ** 2 + (x - 20) ** 2 <= 100) | ((y - 20) ** 2 + (x - 37) ** 2 <= 100)
    alone = (y - 20) ** 2 + (x - 70) ** 2 <= 64
    seeds = np.zeros_like(alone)
    seeds[20, 20] = seeds[20, 37] = True
    cut = objects.split_by_seeds(dumbbell | alone, seeds)
    assert objects.components(cut)[1] == 3
    np.testing.assert_array_equal(cut & alone, alone)
    lost = (dumbbell & ~cut).nonzero()
    assert 0 < len(lost[1]) < 25
    assert np.abs(lost[1] - 28.5).max() <= 2
