"""Measures per object against NumPy, object by object."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain.cip import objects
from cytoloop.domain.errors import ConfigError, ShapeError

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


DUMBBELL = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
    dtype=bool,
)
"""Two squares joined by a neck, and a pair of pixels."""


def test_depth_by_hand():
    depth = objects.depth(DUMBBELL)
    assert depth.dtype == np.float32
    assert depth[2, [1, 2, 3, 4, 5]].tolist() == pytest.approx([1, 2, 2**0.5, 1, 1])
    assert not depth[~DUMBBELL].any()


def test_peaks_are_single_pixels_and_far_enough_apart():
    relief = np.zeros((7, 20), np.float32)
    relief[3, [3, 6, 15]] = 5, 4, 3
    inside = np.ones_like(relief, dtype=bool)
    assert np.argwhere(objects.peaks(relief, inside, 2)).tolist() == [[3, 3], [3, 6], [3, 15]]
    assert np.argwhere(objects.peaks(relief, inside, 4)).tolist() == [[3, 3], [3, 15]]
    assert objects.peaks(relief, inside, 4)[3, [3, 15]].tolist() == [1, 2]  # the highest first
    with pytest.raises(ConfigError, match="at least 0 pixels apart, expected >= 1"):
        objects.peaks(relief, inside, 0)


def test_summits_are_told_by_their_height_above_the_pass():
    # Peaks of 5, 4 and 9; the passes between them at 3 and 1.
    relief = np.array([[1, 5, 3, 4, 1, 9, 9, 2]], np.float32)
    inside = np.ones_like(relief, dtype=bool)
    assert objects.summits(relief, inside, 0.5).tolist() == [[0, 1, 0, 2, 0, 3, 3, 0]]
    assert (objects.summits(relief, inside, 1.5) > 0).tolist() == [[0, 1, 0, 0, 0, 1, 1, 0]]  # 4 is 1 above 3
    assert objects.summits(relief, inside, 4.5).max() == 1  # 5 is 4 above 1


def test_every_component_has_a_summit_however_flat_and_low():
    relief = np.array([[2, 2, 0, 100, 0, 1]], np.float32)
    assert objects.summits(relief, relief > 0, 50).max() == 3
    assert objects.summits(relief, np.zeros_like(relief, dtype=bool), 1).max() == 0
    with pytest.raises(ConfigError, match="expected > 0"):
        objects.summits(relief, relief > 0, 0)


@pytest.mark.parametrize("by_height", [False, True])
def test_touching_objects_are_cut_at_the_neck(by_height):
    depth = objects.depth(DUMBBELL)
    seeds = objects.summits(depth, DUMBBELL, 0.5) if by_height else objects.peaks(depth, DUMBBELL, 3)
    labels = objects.split_touching(DUMBBELL, depth, seeds)
    np.testing.assert_array_equal(labels > 0, DUMBBELL)
    assert len({labels[2, 2], labels[2, 8], labels[5, 1]}) == 3
    assert (labels[1:4, 1:4] == labels[2, 2]).all()
    assert (labels[1:4, 7:10] == labels[2, 8]).all()


def test_touching_objects_are_cut_along_the_dark_line_between_them():
    grey = np.array([[0, 5, 9, 9, 5, 2, 5, 9, 5, 0]], np.float32)
    inside = grey > 0
    labels = objects.split_touching(inside, grey, objects.summits(grey, inside, 3))
    assert labels[0, 1] == labels[0, 4] == 1
    assert labels[0, 6] == labels[0, 8] == 2


def test_a_component_without_a_seed_stays_whole_under_a_number_of_its_own():
    seeds = np.zeros(DUMBBELL.shape, np.int32)
    seeds[2, 2] = 1
    labels = objects.split_touching(DUMBBELL, objects.depth(DUMBBELL), seeds)
    assert set(np.unique(labels[:5])) == {0, 1}
    assert labels[5, 1] == labels[5, 2] == 2
    with pytest.raises(ShapeError, match="expected one shape"):
        objects.split_touching(DUMBBELL, objects.depth(DUMBBELL)[1:], seeds)
