"""Nuclei: instances, and a boundary of two pixels."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.cip.nuclei import DEFAULTS, find_instances

Y, X = np.mgrid[:80, :100]


def disc(row: int, column: int, radius: int) -> np.ndarray:
    return (Y - row) ** 2 + (X - column) ** 2 <= radius**2


def test_touching_nuclei_are_told_apart():
    image = np.where(disc(40, 30, 12) | disc(40, 52, 12) | disc(15, 85, 8), 100, 5).astype(np.float32)
    labels = find_instances(image, DEFAULTS)
    assert labels.max() == 3
    assert len({labels[40, 30], labels[40, 52], labels[15, 85]}) == 3


def test_boundary_is_two_pixels_thick_and_between_touching_nuclei():
    image = np.where((abs(Y - 40) <= 10) & (abs(X - 30) <= 10), 100, 5).astype(np.float32)
    mask = make_weak_label(image[np.newaxis], "k", Cip(recipe="nuclei")).mask_HW
    for line in (mask[40], mask[:, 30]):
        runs = np.split(line, np.flatnonzero(np.diff(line)) + 1)
        assert [run[0] for run in runs] == [0, 2, 1, 2, 0]
        assert [len(run) for run in runs[1::2]] == [2, 2]
    pair = np.where(disc(40, 30, 12) | disc(40, 52, 12), 100, 5).astype(np.float32)
    between = make_weak_label(pair[np.newaxis], "k", Cip(recipe="nuclei")).mask_HW[40, 35:48]
    assert (between == 2).sum() == 2


@pytest.mark.parametrize(("gain", "offset"), [(1, 50), (0.5, 0), (2, 7)])
def test_brightness_and_offset_do_not_matter(gain, offset):
    rng = np.random.default_rng(0)
    image = (np.where(disc(40, 30, 12), 100, 10) + rng.integers(0, 5, Y.shape)).astype(np.float32)
    np.testing.assert_array_equal(
        find_instances(image * gain + offset, DEFAULTS) > 0, find_instances(image, DEFAULTS) > 0
    )


def test_specks_are_dropped():
    image = np.where(disc(40, 30, 12) | disc(20, 80, 1), 100, 5).astype(np.float32)
    assert find_instances(image, DEFAULTS)[20, 80] == 0
