"""Boxes: found in masks, matched one to one, counted in bands, summed, spread over experts."""

import json
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import (
    Box,
    BoxCounts,
    BoxScores,
    box_iou,
    box_scores,
    boxes_of_mask,
    mask_box_scores,
    match_boxes,
    no_boxes,
    over_experts,
    spread_of,
)

MASKS = arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 0, 1, 2, 255]))
NAMES = ("background", "spot", "ring")


def box(top: float, left: float, bottom: float, right: float, value: int = 1) -> Box:
    return Box(value=value, top=top, left=left, bottom=bottom, right=right)


BOXES = st.lists(
    st.builds(
        lambda value, top, left, height, width: box(top, left, top + height, left + width, value),
        *(st.integers(1, 2), st.integers(0, 6), st.integers(0, 6), st.integers(1, 5), st.integers(1, 5)),
    ),
    max_size=4,
)


@given(mask=MASKS)
def test_boxes_of_a_mask_are_those_of_scikit_image(mask: np.ndarray) -> None:
    expected = [box(*region.bbox, value) for value in (1, 2) for region in regionprops(label(mask == value))]
    assert sorted(boxes_of_mask(mask, 3)) == sorted(expected)


def test_diagonal_neighbours_are_one_event_and_touching_classes_are_two() -> None:
    mask = np.array([[1, 0, 0, 2], [0, 1, 2, 0]], np.uint8)
    assert boxes_of_mask(mask, 3) == (box(0, 0, 2, 2, 1), box(0, 2, 2, 4, 2))


def test_overlap_by_hand() -> None:
    assert box_iou(box(0, 0, 2, 3), box(1, 1, 3, 5)) == pytest.approx(2 / (6 + 8 - 2))
    assert box_iou(box(0, 0, 2, 2), box(0, 2, 2, 4)) == 0.0  # they touch
    assert box_iou(box(0.5, 0, 1.5, 1), box(0, 0, 1, 1)) == pytest.approx(0.5 / 1.5)
    assert box_iou(box(0, 0, 1, 1), box(3, 3, 4, 4)) == 0.0  # apart on both axes


def test_boxes_match_within_their_class_only() -> None:
    assert match_boxes([box(0, 0, 4, 4, 1)], [box(0, 0, 4, 4, 2)]) == ()


def test_the_threshold_is_inclusive() -> None:
    # 10 x 1 against its first pixel: IoU 1 / 10; 11 x 1: 1 / 11
    assert [m.iou for m in match_boxes([box(0, 0, 1, 10)], [box(0, 0, 1, 1)])] == [0.1]
    assert match_boxes([box(0, 0, 1, 11)], [box(0, 0, 1, 1)]) == ()


def test_as_many_pairs_as_possible_come_before_the_largest_overlap() -> None:
    # columns: expert A 0-10, B 8-14; predicted P 4-12, Q 0-4.
    # A-P 6/12, A-Q 4/10, B-P 4/10: taking A-P first would leave B and Q alone.
    expert = [box(0, 0, 1, 10), box(0, 8, 1, 14)]
    predicted = [box(0, 4, 1, 12), box(0, 0, 1, 4)]
    found = match_boxes(expert, predicted)
    assert [(m.expert, m.predicted) for m in found] == [(0, 1), (1, 0)]
    assert [m.iou for m in found] == pytest.approx([0.4, 0.4])


def test_two_weak_pairs_come_before_one_strong_pair() -> None:
    # A-P 9/10; A-Q 2/10 and B-P 2/11: less overlap in all, but no box is left alone
    expert, predicted = [box(0, 0, 1, 10), box(0, 8, 1, 12)], [box(0, 1, 1, 10), box(0, 0, 1, 2)]
    found = match_boxes(expert, predicted)
    assert [(m.expert, m.predicted) for m in found] == [(0, 1), (1, 0)]


def best_assignment(expert: list[Box], predicted: list[Box]) -> tuple[int, float]:
    """Most pairs, then the largest sum, by trying everything."""
    best = (0, 0.0)
    slots = [*range(len(predicted)), *[None] * len(expert)]
    for chosen in set(permutations(slots, len(expert))):
        ious = [
            box_iou(expert[e], predicted[p])
            for e, p in enumerate(chosen)
            if p is not None and expert[e].value == predicted[p].value
        ]
        kept = [iou for iou in ious if iou >= 0.1]
        best = max(best, (len(kept), sum(kept)))
    return best


@settings(max_examples=40, deadline=None)
@given(expert=BOXES.map(lambda b: b[:3]), predicted=BOXES.map(lambda b: b[:3]))
def test_the_matching_is_the_best_of_all(expert: list[Box], predicted: list[Box]) -> None:
    found = match_boxes(expert, predicted)
    assert len({m.expert for m in found}) == len({m.predicted for m in found}) == len(found)
    count, total = best_assignment(expert, predicted)
    assert len(found) == count
    assert sum(m.iou for m in found) == pytest.approx(total)
    for match in found:
        assert match.iou == pytest.approx(box_iou(expert[match.expert], predicted[match.predicted]))


@given(expert=BOXES, predicted=BOXES, data=st.data())
def test_order_decides_nothing(expert: list[Box], predicted: list[Box], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(expert)), data.draw(st.permutations(predicted))
    assert box_scores(*shuffled, 3) == box_scores(expert, predicted, 3)


def test_counts_bands_and_ratios_by_hand() -> None:
    expert = [box(0, 0, 1, 10), box(5, 0, 6, 10), box(9, 0, 10, 10), box(20, 0, 21, 4, 2)]
    predicted = [
        box(0, 0, 1, 5),  # 0.5 of the first: upper band
        box(5, 0, 6, 3),  # 0.3 of the second: lower band
        box(5, 5, 6, 10),  # 0.5 of the second too: wins it
        box(30, 0, 31, 5),  # nothing there
    ]
    scores = box_scores(expert, predicted, 3)
    spot, ring = scores.classes
    assert spot == BoxCounts(
        expert=3, predicted=4, matched=2, in_lower_band=0, in_upper_band=2, overlapping=3
    )
    assert spot.false_positive_ratio == pytest.approx(2 / 4)
    assert spot.false_negative_ratio == pytest.approx(1 / 3)
    assert spot.overlapping_share == pytest.approx(3 / 4)
    assert ring == BoxCounts(expert=1)
    assert ring.false_negative_ratio == 1.0
    assert np.isnan([ring.false_positive_ratio, ring.overlapping_share, ring.upper_band_share]).all()
    assert scores.foreground == BoxCounts(
        expert=4, predicted=4, matched=2, in_lower_band=0, in_upper_band=2, overlapping=3
    )


def test_scores_add_up_over_images_and_go_into_json() -> None:
    one = box_scores([box(0, 0, 2, 2)], [box(0, 0, 2, 2)], 3)
    other = box_scores([box(0, 0, 2, 2)], [box(5, 5, 6, 6, 2)], 3)
    total = no_boxes(3) + one + other
    assert total.classes[0].false_negative_ratio == 0.5
    assert total.classes[1].false_positive_ratio == 1.0
    document = json.loads(json.dumps(total.to_dict(NAMES), allow_nan=False))
    assert [one["name"] for one in document["classes"]] == ["spot", "ring"]
    assert document["classes"][1]["false_negative_ratio"] is None
    assert document["foreground"]["matched"] == 1
    with pytest.raises(ShapeError, match="of 2 and of 1 classes"):
        total + no_boxes(2)


def test_what_nobody_looked_at_is_no_error_unless_matched() -> None:
    ignored = np.zeros((10, 20), bool)
    ignored[:, 10:] = True
    # columns 8-14: 4 of 6 hidden. 6-12: 2 of 6.
    hidden, visible = box(0, 8, 2, 14), box(5, 6, 7, 12)
    assert box_scores([], [hidden, visible], 2, ignored).classes[0].predicted == 1
    assert box_scores([hidden, visible], [], 2, ignored).classes[0].expert == 1
    matched = box_scores([hidden], [hidden], 2, ignored).classes[0]
    assert (matched.expert, matched.predicted, matched.matched) == (1, 1, 1)


def test_masks_are_compared_where_both_were_looked_at() -> None:
    truth = np.zeros((6, 12), np.uint8)
    truth[1:3, 1:3] = 1
    truth[:, 6:] = 255
    pred = np.zeros_like(truth)
    pred[1:3, 1:3] = 1
    pred[0:2, 5:8] = 1  # two of three columns lie where nobody looked
    pred[4:6, 4:7] = 1  # one of three does: invented
    spot = mask_box_scores(truth, pred, 2).classes[0]
    assert (spot.expert, spot.predicted, spot.matched, spot.in_upper_band) == (1, 2, 1, 1)


@given(mask=MASKS)
def test_a_mask_agrees_with_itself(mask: np.ndarray) -> None:
    counts = mask_box_scores(mask, mask, 3).foreground
    assert counts.expert == counts.predicted == counts.matched == counts.in_upper_band


def test_spread_over_experts() -> None:
    def of(matched: int) -> BoxScores:
        return BoxScores(classes=(BoxCounts(expert=10, predicted=0, matched=matched, in_upper_band=matched),))

    found = over_experts([of(10), of(8), of(6)])
    ratio = found.classes[0]["false_negative_ratio"]  # 0, 0.2, 0.4
    assert (ratio.mean, ratio.sd, ratio.count) == (pytest.approx(0.2), pytest.approx(0.2), 3)
    assert found.foreground["in_upper_band"].mean == 8
    document = found.to_dict(("background", "foreground"))  # a class may be called so
    assert document["classes"][0]["name"] == "foreground"
    assert document["foreground"]["false_positive_ratio"] == {"mean": None, "sd": None, "count": 0}
    assert np.isnan(spread_of([0.5]).sd)
    with pytest.raises(InputError, match="got none"):
        over_experts([])


@pytest.mark.parametrize(
    "edges", [(2, 0, 2, 4), (0, 4, 2, 1), (0, float("nan"), 1, 1), (0, 0, float("inf"), 1)]
)
def test_a_box_without_area_is_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected numbers with top < bottom and left < right"):
        box(*edges)


def test_classes_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match=r"class 0: expected 1…254"):
        box(0, 0, 1, 1, 0)
    with pytest.raises(ShapeError, match=r"predicted boxes are of classes \[3\], expected 1…2"):
        box_scores([], [box(0, 0, 1, 1, 3)], 3)
    with pytest.raises(ShapeError, match=r"holds values \[7\], expected 0…2 or 255"):
        boxes_of_mask(np.full((2, 2), 7, np.uint8), 3)
    with pytest.raises(ShapeError, match="int64"):
        boxes_of_mask(np.zeros((2, 2), np.int64), 3)
