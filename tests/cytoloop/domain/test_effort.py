import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain import effort
from cytoloop.domain.effort import correction_effort, correction_minutes, drawing_minutes
from cytoloop.domain.errors import ShapeError

SIDE = 40
masks = arrays(np.uint8, (12, 14), elements=st.sampled_from([0, 0, 0, 1, 2, 255]))


def mask_with(*boxes):
    """A mask with rectangles (class, row, column, side)."""
    mask_HW = np.zeros((SIDE, SIDE), np.uint8)
    for value, row, column, side in boxes:
        mask_HW[row : row + side, column : column + side] = value
    return mask_HW


def counts(before_HW, after_HW):
    e = correction_effort(before_HW, after_HW)
    return e.objects_added, e.objects_removed, e.objects_relabelled, e.objects_reshaped, e.boundary_pixels


def test_right_proposal_costs_a_look():
    mask_HW = mask_with((1, 5, 5, 6), (2, 20, 20, 9))
    assert counts(mask_HW, mask_HW) == (0, 0, 0, 0, 0)
    assert correction_minutes(mask_HW, mask_HW) == effort.MINUTES_TO_LOOK


def test_missed_event_costs_its_outline():
    before_HW, after_HW = mask_with((1, 5, 5, 6)), mask_with((1, 5, 5, 6), (2, 20, 20, 9))
    assert counts(before_HW, after_HW) == (1, 0, 0, 0, 32)
    assert correction_minutes(before_HW, after_HW) == pytest.approx(
        effort.MINUTES_TO_LOOK
        + effort.MINUTES_PER_ADDED
        + effort.MINUTES_PER_SEARCH / 2  # one of two objects is missing
        + 32 * effort.MINUTES_PER_BOUNDARY_PIXEL
    )


def test_false_event_is_deleted_whole():
    before_HW, after_HW = mask_with((1, 5, 5, 6), (2, 20, 20, 9)), mask_with((1, 5, 5, 6))
    assert counts(before_HW, after_HW) == (0, 1, 0, 0, 0)
    assert correction_minutes(before_HW, after_HW) == pytest.approx(
        effort.MINUTES_TO_LOOK + effort.MINUTES_PER_REMOVED
    )


def test_misclassified_event_is_relabelled():
    assert counts(mask_with((1, 5, 5, 6)), mask_with((2, 5, 5, 6))) == (0, 0, 1, 0, 0)


def test_incomplete_segmentation_is_reshaped_where_it_is_off():
    before_HW, after_HW = mask_with((2, 10, 10, 9)), mask_with((2, 10, 10, 9))
    before_HW[10:15] = 0  # the upper five of nine rows are missing
    added, removed, relabelled, reshaped, pixels = counts(before_HW, after_HW)
    assert (added, removed, relabelled, reshaped) == (0, 0, 0, 1)
    # Top edge of nine pixels and two further on each side: the next rows lie within the tolerance.
    assert pixels == 9 + 2 * 2


def test_outline_within_the_tolerance_is_left_alone():
    before_HW, after_HW = mask_with((2, 10, 10, 9)), mask_with((2, 10, 10, 10))
    assert counts(before_HW, after_HW) == (0, 0, 0, 0, 0)


def test_merged_pair_keeps_one_and_draws_the_other():
    after_HW = mask_with((2, 10, 10, 9), (1, 10, 19, 6))
    merged_HW = np.where(after_HW > 0, np.uint8(2), np.uint8(0))
    added, removed, relabelled, _, pixels = counts(merged_HW, after_HW)
    assert (added, removed, relabelled) == (1, 0, 0)
    assert pixels >= 20


def test_touching_objects_of_one_class_are_one():
    after_HW = mask_with((1, 5, 5, 4), (1, 9, 9, 4))  # corner to corner
    assert counts(np.zeros_like(after_HW), after_HW)[0] == 1


def test_object_cut_by_the_edge_has_no_outline_there():
    assert counts(mask_with(), mask_with((1, 0, 10, 5)))[4] == 16 - 3
    whole_HW = np.ones((SIDE, SIDE), np.uint8)
    assert counts(mask_with(), whole_HW) == (1, 0, 0, 0, 0)
    assert counts(mask_with((1, 0, 0, 20)), whole_HW)[3:] == (1, 39)


def test_ignored_pixels_never_cost():
    before_HW, after_HW = mask_with((1, 5, 5, 6)), mask_with((1, 5, 5, 6), (2, 20, 20, 9))
    after_HW[19:31, 19:31] = 255
    assert counts(before_HW, after_HW) == (0, 0, 0, 0, 0)
    assert counts(after_HW, before_HW) == (0, 0, 0, 0, 0)


def test_hopeless_proposal_costs_what_a_blank_canvas_does():
    after_HW = mask_with((1, 20, 20, 6))
    before_HW = np.zeros_like(after_HW)
    before_HW[::2, ::2] = 2  # 400 specks
    effort_of_all = correction_effort(before_HW, after_HW)
    assert effort_of_all.objects_removed == 400
    assert effort_of_all.minutes == drawing_minutes(after_HW)


def test_drawing_nothing_costs_a_look():
    assert drawing_minutes(mask_with()) == effort.MINUTES_TO_LOOK


def test_last_of_many_costs_less_than_the_only_one():
    many = [(1, row, column, 4) for row in (2, 12, 22, 32) for column in (2, 12, 22, 32)]
    last = correction_minutes(mask_with(*many[:-1]), mask_with(*many))
    only = correction_minutes(mask_with(), mask_with(many[-1]))
    assert last < only


@settings(max_examples=60, deadline=None)
@given(before_HW=masks, after_HW=masks)
def test_correcting_costs_a_look_at_least_and_drawing_at_most(before_HW, after_HW):
    ignored_HW = (before_HW == 255) | (after_HW == 255)
    seen_after_HW = np.where(ignored_HW, np.uint8(0), after_HW)
    minutes = correction_minutes(before_HW, after_HW)
    assert effort.MINUTES_TO_LOOK <= minutes <= drawing_minutes(seen_after_HW)


@settings(max_examples=30, deadline=None)
@given(mask_HW=masks)
def test_nothing_to_change_costs_a_look(mask_HW):
    assert correction_minutes(mask_HW, mask_HW) == effort.MINUTES_TO_LOOK


@settings(max_examples=30, deadline=None)
@given(mask_HW=masks)
def test_effort_does_not_depend_on_the_orientation(mask_HW):
    assert drawing_minutes(mask_HW) == pytest.approx(drawing_minutes(np.ascontiguousarray(mask_HW.T)))


@pytest.mark.parametrize(
    ("before_HW", "after_HW", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"before \(4, 5\), after \(5, 4\)"),
        (np.zeros((4, 5), np.int64), np.zeros((4, 5), np.uint8), "before is int64"),
        (np.zeros((4, 5), np.uint8), np.zeros((1, 4, 5), np.uint8), r"after is uint8 \(1, 4, 5\)"),
    ],
)
def test_wrong_masks_are_named(before_HW, after_HW, message):
    with pytest.raises(ShapeError, match=message):
        correction_minutes(before_HW, after_HW)
