"""Pictures of intermediate arrays, pixel by pixel."""

from __future__ import annotations

import numpy as np

from cytoloop.domain.cip import pictures

BLUE, ORANGE = (0x56, 0xB4, 0xE9), (0xE6, 0x9F, 0x00)


def test_grey_values_are_stretched_and_enlarged():
    grey = np.arange(400, dtype=np.float32).reshape(20, 20) * 1e-3 - 7
    picture = pictures.grey_picture(grey, 2)
    assert (picture.shape, picture.dtype) == ((40, 40, 3), np.uint8)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[-1, -1].tolist() == [255, 255, 255]
    assert (picture[0::2, 0::2] == picture[1::2, 1::2]).all()
    assert not pictures.grey_picture(np.full((4, 4), 3, np.float32)).any()


def test_an_outline_is_the_inner_edge_in_the_colour_of_its_value():
    ground = np.zeros((10, 12, 3), np.uint8)
    sieve = np.zeros((5, 6), np.uint8)
    sieve[1:4, 1:4], sieve[4, 5] = 1, 2
    drawn = pictures.outlined(ground, sieve, {1: pictures.KEPT, 2: pictures.DROPPED}, zoom=2)
    blue = (drawn == BLUE).all(axis=2)
    assert blue.sum() == 20  # the rim of 6 x 6
    assert not blue[3:7, 3:7].any()
    assert (drawn == ORANGE).all(axis=2).sum() == 3  # 2 x 2 in the corner: one has no neighbour outside
    assert not ground.any()


def test_touching_objects_are_told_apart_and_other_values_left_out():
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 3, np.int32)
    ground = np.zeros((3, 6, 3), np.uint8)
    drawn = pictures.outlined(ground, labels, {1: pictures.KEPT, 2: pictures.KEPT})
    assert drawn.any(axis=2).tolist() == [[False, False, True, True, False, False]] * 3
    only = pictures.outlined(ground, labels, {2: pictures.KEPT})
    assert only.any(axis=2).tolist() == [[False, False, False, True, False, False]] * 3


def test_numbers_stand_beside_their_places_and_inside_the_picture():
    ground = np.zeros((60, 80, 3), np.uint8)
    drawn = pictures.numbered(ground, [(5, 5), (59, 79)], pictures.DROPPED)
    assert drawn[:20, 6:30].any()
    assert drawn[45:, 60:].any()
    assert not drawn[25:40].any()
    assert not ground.any()


def test_small_fields_are_enlarged():
    assert [pictures.zoom_of(width) for width in (64, 680, 1199, 1200, 2048)] == [2, 2, 2, 1, 1]
