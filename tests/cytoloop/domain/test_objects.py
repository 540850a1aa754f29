"""Objects of a mask and which of two masks are the same: by hand, and against scikit-image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import label, regionprops

from cytoloop.domain.objects import objects_of, overlaps, pair_objects, seen_objects

MASKS = arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 0, 1, 2, 255]))


@given(mask=MASKS)
def test_objects_are_the_eight_connected_components_of_scikit_image(mask: np.ndarray) -> None:
    found = objects_of(mask)
    expected = []
    for value in (1, 2):
        expected += [(value, *region.bbox, region.area) for region in regionprops(label(mask == value))]
    got = [
        (
            value,
            rows.start,
            columns.start,
            rows.stop,
            columns.stop,
            np.count_nonzero(found.labels_HW == number),
        )
        for number, (value, (rows, columns)) in enumerate(zip(found.classes, found.windows, strict=True), 1)
    ]
    assert sorted(got) == sorted(expected)
    assert not found.labels_HW[(mask == 0) | (mask == 255)].any()


def test_an_object_that_a_hidden_strip_cuts_is_still_one_and_one_mostly_hidden_is_marked() -> None:
    mask = np.array([[1, 1, 1, 1, 1, 0, 2, 2, 2, 0, 1]], np.uint8)
    hidden = np.array([[0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1]], bool)
    found = seen_objects(mask, hidden)
    # the third object, column 10, has no visible pixel; of the second one pixel of three is visible
    assert found.objects.labels_HW.tolist() == [[1, 1, 0, 1, 1, 0, 2, 0, 0, 0, 0]]
    assert found.objects.classes == (1, 2)
    assert found.is_hidden == (False, True)
    assert [columns for _, columns in found.objects.windows] == [slice(0, 5), slice(6, 7)]


def test_half_hidden_is_not_mostly_hidden() -> None:
    assert seen_objects(np.ones((1, 4), np.uint8), np.array([[True, True, False, False]])).is_hidden == (
        False,
    )


def test_objects_are_paired_one_to_one_best_first() -> None:
    old = np.array([[1, 1, 1, 1, 0, 1, 1, 0]], np.uint8)
    new = np.array([[2, 2, 0, 1, 1, 1, 1, 0]], np.uint8)
    # old 1 is columns 0-3, old 2 columns 5-6; new 1 (of class 1) is columns 3-6, new 2 columns 0-1
    found = overlaps(objects_of(old), objects_of(new))
    assert dict(zip(zip(found.old.tolist(), found.new.tolist(), strict=True), found.iou, strict=True)) == {
        (1, 1): 1 / 7,
        (1, 2): 1 / 2,
        (2, 1): 1 / 2,
    }
    assert sorted(pair_objects(found)) == [(1, 2), (2, 1)]
    assert pair_objects(found, least_iou=0.51) == []
