"""COCO: objects of a mask, what is ignored, and run-length codes that the COCO API reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import make_assay

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.coco import annotations_of, categories_of, compress, decode
from cytoloop.domain.errors import MalformedRle

ASSAY = make_assay()


def test_categories_have_the_pixel_values_of_their_classes() -> None:
    assert [(c["id"], c["name"]) for c in categories_of(ASSAY)] == [(1, "Phagophore"), (2, "Autolysosome")]


def test_each_connected_region_of_a_class_is_an_object() -> None:
    mask_HW = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 1]], np.uint8)
    first, second, third = annotations_of(mask_HW, ASSAY, image=7, first=40)
    assert [one["id"] for one in (first, second, third)] == [40, 41, 42]
    assert {one["image_id"] for one in (first, second, third)} == {7}
    assert [
        (one["category_id"], one["bbox"], one["area"], one["iscrowd"]) for one in (first, second, third)
    ] == [
        (1, [0, 0, 2, 2], 2, 0),  # touching by a corner is touching
        (1, [3, 2, 1, 1], 1, 0),
        (2, [3, 0, 1, 2], 2, 0),
    ]


def test_what_nobody_looked_at_is_a_crowd_of_every_category() -> None:
    mask_HW = np.array([[IGNORE, 0], [IGNORE, 1]], np.uint8)
    crowds = [one for one in annotations_of(mask_HW, ASSAY, 1, 1) if one["iscrowd"]]
    assert [one["category_id"] for one in crowds] == [1, 2]
    assert all((decode(one["segmentation"]) == (mask_HW == IGNORE)).all() for one in crowds)


def test_a_mask_without_objects_has_no_annotation() -> None:
    assert annotations_of(np.zeros((3, 4), np.uint8), ASSAY, 1, 1) == []


@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2, 255])
    )
)
def test_annotations_decode_to_the_mask_they_came_from(mask_HW: np.ndarray) -> None:
    again_HW = np.zeros_like(mask_HW)
    for one in annotations_of(mask_HW, ASSAY, 1, 1):
        drawn_HW = decode(one["segmentation"])
        assert one["area"] == drawn_HW.sum()
        x, y, width, height = one["bbox"]
        rows, columns = np.nonzero(drawn_HW)
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() - x + 1, rows.max() - y + 1) == (width, height)
        again_HW[drawn_HW] = IGNORE if one["iscrowd"] else one["category_id"]
    np.testing.assert_array_equal(again_HW, mask_HW)


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_the_coco_api_reads_and_writes_the_same(is_drawn_HW: np.ndarray) -> None:
    api = pytest.importorskip("pycocotools.mask")
    mask_HW = is_drawn_HW.astype(np.uint8)
    theirs = api.encode(np.asfortranarray(mask_HW))
    assert (decode({"size": theirs["size"], "counts": theirs["counts"].decode()}) == is_drawn_HW).all()
    ignored = np.where(is_drawn_HW, IGNORE, 0).astype(np.uint8)
    for one in annotations_of(ignored, ASSAY, 1, 1):
        assert one["segmentation"]["counts"] == theirs["counts"].decode()


@pytest.mark.parametrize(
    ("counts", "message"),
    [(compress([4, 3]), r"2 of 7 pixels, expected \(2, 4\)"), ("", "0 of 0 pixels"), ("`", "expected")],
)
def test_runs_of_another_picture_are_refused(counts: str, message: str) -> None:
    with pytest.raises(MalformedRle, match=message):
        decode({"size": [2, 4], "counts": counts})
