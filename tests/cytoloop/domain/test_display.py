"""Grey values as pictures."""

from __future__ import annotations

import numpy as np
import pytest
from samples import make_assay

from cytoloop.domain.assay import Display
from cytoloop.domain.display import composite, display_ranges, to_8bit
from cytoloop.domain.errors import ShapeError

ASSAY = make_assay(display=Display(percentiles=(0, 100)))


def test_black_and_white_are_the_ends_of_the_range() -> None:
    grey = np.array([[50.0, 100.0, 140.0, 200.0, 900.0]])
    assert to_8bit(grey, 100, 200).tolist() == [[0, 0, 102, 255, 255]]
    assert to_8bit(grey, 100, 200).dtype == np.uint8


def test_ranges_are_over_all_images_and_a_fixed_one_wins() -> None:
    images = [np.full((2, 8, 8), value, np.float32) for value in (10, 90)]
    assert display_ranges(images, ASSAY) == {"pHluorin": (10.0, 90.0), "DsRed": (10.0, 90.0)}
    fixed = make_assay(display=Display(percentiles=(0, 100), ranges={"DsRed": (5.0, 7.0)}))
    assert display_ranges(images, fixed) == {"pHluorin": (10.0, 90.0), "DsRed": (5.0, 7.0)}


def test_images_of_other_sizes_can_share_a_range() -> None:
    images = [np.zeros((2, 8, 8), np.float32), np.full((2, 5, 30), 40, np.float32)]
    assert display_ranges(images, ASSAY)["DsRed"] == (0.0, 40.0)


def test_a_blank_image_is_black_not_an_error() -> None:
    blank = np.full((2, 3, 3), 100, np.float32)
    ranges = display_ranges([blank], ASSAY)
    assert ranges["DsRed"] == (100.0, 101.0)
    assert not composite(blank, ranges, ASSAY).any()


def test_no_image_has_no_range() -> None:
    with pytest.raises(ShapeError, match="expected at least one"):
        display_ranges([], ASSAY)


def test_channels_show_in_their_colours_and_add_up() -> None:
    image = np.zeros((2, 1, 3), np.float32)
    image[0, 0] = [100, 0, 100]
    image[1, 0] = [0, 100, 100]
    picture = composite(image, {"pHluorin": (0, 100), "DsRed": (0, 100)}, ASSAY)
    # the first channel is white, the second red: together they stay white
    assert picture.tolist() == [[[255, 255, 255], [255, 0, 0], [255, 255, 255]]]
