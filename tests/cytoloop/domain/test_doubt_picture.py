"""What a model doubts, as a picture."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from samples import make_assay

from cytoloop.domain.display import rgb_of, ring_of
from cytoloop.domain.doubt_picture import UNSURE, doubt_picture
from cytoloop.domain.errors import ShapeError

ASSAY = make_assay()
LUMA = np.array((0.299, 0.587, 0.114))


def picture_of(
    doubt: float | np.ndarray = 0.0,
    grey: int = 0,
    mask_HW: np.ndarray | None = None,
    size: tuple[int, int] = (5, 7),
) -> np.ndarray:
    return doubt_picture(
        np.full((*size, 3), grey, np.uint8),
        np.broadcast_to(np.asarray(doubt, np.float32), size),
        np.zeros(size, np.uint8) if mask_HW is None else mask_HW,
        ASSAY,
    )


def test_without_doubt_the_item_is_grey_and_dimmed() -> None:
    composite_HW3 = np.zeros((1, 2, 3), np.uint8)
    composite_HW3[0, 0] = (0, 255, 0)
    nothing = np.zeros((1, 2))
    picture = doubt_picture(composite_HW3, nothing, nothing.astype(np.uint8), ASSAY)
    assert picture.tolist() == [[[60, 60, 60], [0, 0, 0]]]  # 0.4 of a green of luma 150


def test_full_doubt_hides_what_lies_below() -> None:
    square_HW = np.zeros((5, 7), np.uint8)
    square_HW[2, 3] = 1
    for grey in (0, 255):
        assert (picture_of(1.0, grey, square_HW) == rgb_of(UNSURE)).all()


def test_doubt_is_bright_where_reports_draw_it_bright() -> None:
    np.testing.assert_allclose(rgb_of(UNSURE), np.array(colormaps["cividis"](1.0)[:3]) * 255, atol=2)


@pytest.mark.parametrize("grey", [0, 120, 255])
def test_more_doubt_is_brighter_whatever_lies_below(grey: int) -> None:
    ramp = np.linspace(0, 1, 21)
    size = (3, 21)
    white_ring = np.full(size, 1, np.uint8)
    white_ring[1] = 0
    for mask_HW in (np.zeros(size, np.uint8), white_ring):
        luma = picture_of(np.tile(ramp, (3, 1)), grey, mask_HW, size)[1] @ LUMA
        assert (np.diff(luma) > 0).all()


def test_an_outline_runs_around_an_object_in_the_colour_of_its_class() -> None:
    mask_HW = np.zeros((5, 7), np.uint8)
    mask_HW[2, 2:4] = 2
    picture = picture_of(0.0, 0, mask_HW)
    expected = np.zeros((5, 7), bool)
    expected[[1, 1, 3, 3, 2, 2], [2, 3, 2, 3, 1, 4]] = True
    assert np.array_equal(picture.any(axis=2), expected), "the object itself stays to be seen"
    colour = rgb_of(ASSAY.classes[2].colour)
    np.testing.assert_allclose(picture[1, 2], 0.6 * colour, atol=0.6)


def test_background_and_what_nobody_looked_at_have_no_outline() -> None:
    mask_HW = np.zeros((5, 7), np.uint8)
    mask_HW[:, :2] = 255
    assert not picture_of(0.0, 0, mask_HW).any()


def test_a_ring_is_not_closed_along_the_edge_of_the_picture() -> None:
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True
    assert ring_of(corner).tolist() == [[False, True, False], [True, False, False], [False, False, False]]
    assert not ring_of(np.ones((3, 3), bool)).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.01, 1.01])
def test_a_doubt_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ShapeError, match=r"doubt picture: doubt of .*, expected 0 to 1"):
        picture_of(wrong)


def test_sizes_that_differ_are_refused_and_the_message_says_where() -> None:
    composite_HW3 = np.zeros((4, 5, 3), np.uint8)
    good, turned = np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8)
    with pytest.raises(ShapeError, match=r"doubt of i/2: doubt \(5, 4\), mask \(4, 5\); expected \(4, 5\)"):
        doubt_picture(composite_HW3, turned.astype(float), good, ASSAY, "doubt of i/2")
    with pytest.raises(ShapeError, match="expected uint8"):
        doubt_picture(composite_HW3.astype(float), good.astype(float), good, ASSAY)  # type: ignore[arg-type]
