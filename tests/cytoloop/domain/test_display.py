"""Grey values as pictures."""

from __future__ import annotations

import numpy as np
import pytest
from samples import make_assay

from cytoloop.domain.assay import Display
from cytoloop.domain.display import composite, display_ranges, outlined, painted, to_8bit
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


YELLOW, BLUE, GREY = (0xF0, 0xE4, 0x42), (0x56, 0xB4, 0xE9), (0x99, 0x99, 0x99)


def test_a_mask_is_painted_in_the_classes_colours() -> None:
    painted_HW3 = painted(np.array([[0, 1, 2, 255, 7]], np.uint8), ASSAY)
    assert painted_HW3.tolist() == [[[0, 0, 0], list(YELLOW), list(BLUE), list(GREY), [0, 0, 0]]]


def test_an_outline_lies_inside_its_object_and_not_on_the_picture_s_edge() -> None:
    mask_HW = np.zeros((7, 7), np.uint8)
    mask_HW[2:5, 0:4] = 1  # cut off at the left edge
    mask_HW[2:5, 4:7] = 2  # touches the other class, and the right edge
    drawn = outlined(np.zeros((7, 7, 3), np.uint8), mask_HW, ASSAY)
    letters = {(0, 0, 0): ".", YELLOW: "y", BLUE: "b"}
    assert ["".join(letters[tuple(p)] for p in row) for row in drawn.tolist()] == [
        ".......",
        ".......",
        "yyyybbb",
        "...yb..",
        "yyyybbb",
        ".......",
        ".......",
    ]


def test_an_enlarged_outline_is_thinner_than_a_raw_pixel() -> None:
    mask_HW = np.zeros((3, 3), np.uint8)
    mask_HW[1, 1] = 1
    drawn = outlined(np.full((3, 3, 3), 50, np.uint8), mask_HW, ASSAY, zoom=6)
    assert drawn.shape == (18, 18, 3)
    is_line = (drawn == YELLOW).all(axis=-1)
    assert is_line.sum() == 6**2 - 2**2
    assert (drawn[~is_line] == 50).all()  # also inside the object
    with pytest.raises(ShapeError, match=r"picture \(3, 3, 3\), mask \(3, 4\)"):
        outlined(np.zeros((3, 3, 3), np.uint8), np.zeros((3, 4), np.uint8), ASSAY)
