from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import InputError, MalformedRle, ShapeError, UnsupportedLabelConfig
from cytoloop.domain.types import ImageRecord
from labelstudio_config.payloads import (
    TaskData,
    confidence_of,
    correction_from_annotation,
    parse_event,
    parse_predict_request,
    parse_project,
    parse_task_data,
    parse_time,
    predict_reply,
    prediction,
    prediction_result,
    task_data,
)
from labelstudio_config.rle import decode_rle, encode_rle

ASSAY = Assay(
    name="cells",
    channels=(Channel(name="dye"),),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Cell", colour="#ff0000"),
        LabelClass(name="Nucleus", colour="#0000ff"),
    ),
    ignore=LabelClass(name="Ignore", colour="#888888"),
    cip=Cip(recipe="none"),
)
DATA = TaskData(image="/i.png", channels=("/c.png",), image_id="P1-B02-1", image_key="ab12", tile=3)
MASK_HW = np.array([[0, 1, 1], [2, 255, 0]], dtype=np.uint8)


def region(label: str, rows: list[list[int]], **changes: Any) -> dict[str, Any]:
    mask_HW = np.array(rows, dtype=bool)
    return {
        "id": label,
        "from_name": "tag",
        "to_name": "image",
        "type": "brushlabels",
        "origin": "manual",
        "original_width": mask_HW.shape[1],
        "original_height": mask_HW.shape[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_rle(mask_HW), "brushlabels": [label]},
        **changes,
    }


def annotation(*regions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "task": 41,
        "result": list(regions),
        "updated_at": "2026-11-22T10:37:57.345007Z",
        "lead_time": 4.5,
        "was_cancelled": False,
        **changes,
    }


def correct(said: dict[str, Any], size: tuple[int, int] = (2, 3), assay: Assay = ASSAY) -> Any:
    return correction_from_annotation(said, 41, DATA, assay, *size, "ada@lab.org", "cip-20260101-00000001")


# --- predictions ---


def test_a_prediction_has_one_region_per_class_that_is_present() -> None:
    result = prediction_result(MASK_HW, ASSAY)
    assert [r["value"]["brushlabels"] for r in result] == [["Cell"], ["Nucleus"], ["Ignore"]]
    assert set(result[0]) == {
        *(
            "id",
            "from_name",
            "to_name",
            "type",
            "original_width",
            "original_height",
            "image_rotation",
            "value",
        )
    }
    assert (result[0]["original_height"], result[0]["original_width"]) == (2, 3)
    drawn_HW = decode_rle(result[0]["value"]["rle"], 2, 3)
    assert drawn_HW.tolist() == [[0, 255, 255], [0, 0, 0]]
    assert prediction_result(np.zeros((2, 3), np.uint8), ASSAY) == []
    assert len({r["id"] for r in result}) == 3


def test_a_prediction_refuses_values_that_are_no_class() -> None:
    with pytest.raises(ShapeError, match=r"values \[3\]"):
        prediction_result(np.array([[3]], np.uint8), ASSAY)


@given(hnp.arrays(np.uint8, (5, 6), elements=st.sampled_from([0, 1, 2, 255])))
def test_a_prediction_accepted_as_it_is_comes_back_as_the_same_mask(mask_HW: np.ndarray) -> None:
    correction = correct(annotation(*prediction_result(mask_HW, ASSAY)), (5, 6))
    assert np.array_equal(correction.mask_HW, mask_HW)
    assert correction.conflict_pixels == 0


def test_prediction_items_are_what_the_bulk_import_wants() -> None:
    item = prediction(5, [{"id": "a"}], 0.25, "v")
    assert item == {"task": 5, "result": [{"id": "a"}], "score": 0.25, "model_version": "v"}


# --- scores ---


@given(st.floats(allow_nan=False, allow_infinity=False), st.text("0123456789abcdef", max_size=64))
def test_every_finite_score_becomes_a_confidence_inside_0_and_1(score: float, key: str) -> None:
    for confidence in (confidence_of(score), confidence_of(score, key, 5)):
        assert 0.0 < confidence < 1.0


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3))
def test_a_higher_score_is_asked_sooner(score: float, more: float) -> None:
    assert confidence_of(score + more) < confidence_of(score)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused(score: float) -> None:
    with pytest.raises(InputError, match="finite"):
        confidence_of(score)


@pytest.mark.parametrize("score", [-1e9, -3.0, 0.0, 0.7, 12.5, 1e9])
def test_equal_scores_come_in_the_order_of_key_and_tile(score: float) -> None:
    places = [("0000", 0), ("0000", 1), ("0000", 63), ("0001", 0), ("8a", 2), ("8a01", 0), ("ffff", 0)]
    got = [confidence_of(score, key, tile) for key, tile in places]
    assert got == sorted(got)
    assert len(set(got)) == len(got)
    assert max(got) - min(got) < 1e-9
    assert abs(got[0] - confidence_of(score)) < 1e-9


def test_a_tie_break_never_overrules_a_score() -> None:
    assert confidence_of(1.0001, "ffff", 63) < confidence_of(1.0, "0000", 0)


@pytest.mark.parametrize(("key", "tile"), [("xyz", 0), ("ab", -1)])
def test_a_tie_break_needs_a_digest_and_a_tile(key: str, tile: int) -> None:
    with pytest.raises(InputError):
        confidence_of(1.0, key, tile)


# --- task data ---


def test_task_data_comes_back_as_written() -> None:
    record = ImageRecord(
        image_id="P1-B02-1", image_key="ab12", files=(), height=4, width=6,
        plate="P1", well="B02", field="1", treatment="", group="g",
    )  # fmt: skip
    document = task_data(record, 2, "/i.png", ["/c0.png", "/c1.png"])
    assert document == {
        "image": "/i.png",
        "channel_0": "/c0.png",
        "channel_1": "/c1.png",
        "item": "P1-B02-1/2",
        "image_id": "P1-B02-1",
        "image_key": "ab12",
        "tile": 2,
        "plate": "P1",
        "well": "B02",
        "field": "1",
    }
    assert parse_task_data({**document, "note": "of the lab"}, "task 1").document() == document
    with_doubt = task_data(record, 2, "/i.png", ["/c0.png", "/c1.png"], "/doubt.png")
    assert with_doubt == {**document, "doubt": "/doubt.png"}
    assert parse_task_data(with_doubt, "task 1").document() == with_doubt


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tile": "2"}, "task 41: tile is '2', expected a whole number >= 0"),
        ({"tile": True}, "task 41: tile is True"),
        ({"tile": -1}, "task 41: tile is -1"),
        ({"image_id": None}, "task 41: image_id is None, expected text"),
        ({"image": 5}, "task 41: image is 5"),
        ({"plate": 5}, "task 41: plate is 5"),
        ({"channel_0": None}, "task 41: channel_0 is None"),
        ({"doubt": 5}, "task 41: doubt is 5, expected text"),
    ],
)
def test_task_data_that_is_not_ours_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_task_data({**DATA.document(), **change}, "task 41")


@pytest.mark.parametrize("data", [None, [], "x"])
def test_task_data_must_be_an_object(data: object) -> None:
    with pytest.raises(InputError, match=r"task 41: data is .*, expected a JSON object"):
        parse_task_data(data, "task 41")


# --- corrections ---


def test_regions_of_one_class_are_united_and_what_is_not_drawn_is_background() -> None:
    said = annotation(region("Cell", [[1, 0, 0], [0, 0, 0]]), region("Cell", [[0, 0, 0], [0, 1, 0]]))
    correction = correct(said)
    assert correction.mask_HW.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert correction.mask_HW.dtype == np.uint8
    assert correction.origins == {"manual": 2}
    assert correction.conflict_pixels == 0
    assert (correction.image_id, correction.tile, correction.expert) == ("P1-B02-1", 3, "ada@lab.org")
    assert (correction.annotation_id, correction.task_id, correction.lead_time_s) == (7, 41, 4.5)
    assert correction.annotated_at == datetime(2026, 11, 22, 10, 37, 57, 345007, tzinfo=UTC)
    assert correction.parent_version == "cip-20260101-00000001"


def test_an_empty_annotation_says_that_all_is_background() -> None:
    correction = correct(annotation())
    assert not correction.mask_HW.any()
    assert correction.origins == {}


def test_the_stronger_class_wins_and_conflicts_are_counted() -> None:
    said = annotation(region("Nucleus", [[1, 1, 0], [0, 0, 0]]), region("Cell", [[0, 1, 1], [0, 0, 0]]))
    correction = correct(said)
    assert correction.mask_HW.tolist() == [[2, 2, 1], [0, 0, 0]]
    assert correction.conflict_pixels == 1
    turned = Assay(
        **{**{f: getattr(ASSAY, f) for f in ASSAY.__slots__}, "class_priority": ("Cell", "Nucleus")}
    )
    assert correct(said, assay=turned).mask_HW.tolist() == [[2, 1, 1], [0, 0, 0]]


def test_ignore_wins_over_every_class() -> None:
    said = annotation(
        region("Ignore", [[0, 1, 1], [0, 0, 0]]),
        region("Nucleus", [[1, 1, 0], [0, 0, 0]]),
        region("Cell", [[1, 1, 0], [0, 0, 0]]),
    )
    correction = correct(said)
    assert correction.mask_HW.tolist() == [[2, 255, 255], [0, 0, 0]]
    assert correction.conflict_pixels == 1  # the other one was given to ignore, not to the stronger class


def frame(x: float, y: float, width: float, height: float, **changes: Any) -> dict[str, Any]:
    """What was reviewed, of a picture of 2 x 3 pixels, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, **changes.pop("value", {})}
    return {
        "id": "frame",
        "from_name": "reviewed",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
        "original_width": 3,
        "original_height": 2,
        "image_rotation": 0,
        "value": {**value, "rectanglelabels": ["Reviewed region"]} | changes.pop("labels", {}),
        **changes,
    }


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], [[1, 1, 0], [0, 2, 2]]),
        ([frame(0, 0, 100, 100)], [[1, 1, 0], [0, 2, 2]]),
        ([frame(0, 0, 100, 50)], [[1, 1, 0], [255, 255, 255]]),
        ([frame(34, 0, 66, 100)], [[255, 1, 0], [255, 2, 2]]),
        ([frame(-5, -5, 60, 60)], [[1, 1, 255], [255, 255, 255]]),  # drawn beyond the edge
        ([frame(20, 0, 20, 100)], [[255, 255, 255], [255, 255, 255]]),  # between two centres
        ([frame(0, 0, 34, 100), frame(66, 50, 34, 50)], [[1, 255, 255], [0, 255, 2]]),
    ],
)
def test_what_lies_outside_the_frames_was_not_looked_at(
    frames: list[dict[str, Any]], expected: list[list[int]]
) -> None:
    drawn = [region("Cell", [[1, 1, 0], [0, 0, 0]]), region("Nucleus", [[0, 0, 0], [0, 1, 1]])]
    correction = correct(annotation(*drawn, *frames))
    assert correction.mask_HW.tolist() == expected
    assert correction.origins == {"manual": 2}  # a frame is nothing that was drawn


def test_conflicts_outside_the_frame_do_not_count() -> None:
    both = [region("Cell", [[1, 1, 0], [0, 0, 0]]), region("Nucleus", [[1, 0, 0], [0, 0, 0]])]
    assert correct(annotation(*both)).conflict_pixels == 1
    assert correct(annotation(*both, frame(34, 0, 66, 100))).conflict_pixels == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"value": {"rotation": 5}}, InputError, "frame turned by 5 degrees, expected 0"),
        ({"value": {"width": None}}, InputError, "width is None, expected a number"),
        ({"value": {"x": float("nan")}}, InputError, "x is nan, expected a number"),
        ({"value": {"y": 10**400}}, InputError, "y is 1000.*, expected a number"),
        (
            {"labels": {"rectanglelabels": ["Cell"]}},
            UnsupportedLabelConfig,
            r"\['Cell'\] on 'image', expected",
        ),
        ({"to_name": "channel_0"}, UnsupportedLabelConfig, "on 'channel_0', expected"),
        (
            {"from_name": "tag"},
            UnsupportedLabelConfig,
            "'rectanglelabels' of 'tag' on 'image', expected 'brushlabels'",
        ),
        ({"original_width": 4}, ShapeError, r"region 'frame': mask \(2, 4\), image \(2, 3\)"),
        ({"image_rotation": 90}, InputError, "image turned by 90 degrees"),
        ({"value": {}, "labels": []}, InputError, "value"),
    ],
)
def test_a_frame_that_cannot_be_understood_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    changes = dict(changes)
    odd = (
        frame(0, 0, 50, 50, **changes) if changes.get("labels") != [] else {**frame(0, 0, 1, 1), "value": []}
    )
    with pytest.raises(error, match=message):
        correct(annotation(odd))


def test_soft_edges_count_from_alpha_128() -> None:
    from label_studio_sdk.converter import brush

    soft = region("Cell", [[0, 0, 0], [0, 0, 0]])
    soft["value"]["rle"] = brush.mask2rle(np.array([[0, 127, 128], [129, 255, 1]], np.uint8))
    assert correct(annotation(soft)).mask_HW.tolist() == [[0, 0, 1], [1, 1, 0]]


def test_origins_are_counted_by_what_the_expert_did() -> None:
    blank = [[0, 0, 0], [0, 0, 0]]
    said = annotation(
        region("Cell", blank, origin="prediction"),
        region("Nucleus", blank, origin="prediction-changed"),
        region("Cell", blank, origin="manual"),
        {k: v for k, v in region("Cell", blank).items() if k != "origin"},
    )
    assert correct(said).origins == {"prediction": 1, "prediction-changed": 1, "manual": 1, "unknown": 1}


def test_an_arrow_between_regions_carries_no_pixels() -> None:
    arrow = {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"}
    assert correct(annotation(arrow, region("Cell", [[1, 0, 0], [0, 0, 0]]))).mask_HW.sum() == 1


@pytest.mark.parametrize("lead_time", [None, "soon", -3, math.nan, True])
def test_a_lead_time_that_makes_no_sense_does_not_cost_the_correction(lead_time: object) -> None:
    assert correct(annotation(lead_time=lead_time)).lead_time_s is None


FLAT = [[1, 0, 0], [0, 0, 0]]
TALL = [[1, 0], [0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        (annotation(region("Cell", TALL)), ShapeError, r"task 41: .*mask \(3, 2\), image \(2, 3\)"),
        (annotation(region("Cell", FLAT, original_width=None)), ShapeError, r"mask \(2, None\)"),
        (annotation(region("Vesicle", FLAT)), UnsupportedLabelConfig, "'Vesicle' is not of assay 'cells'"),
        (annotation(region("Background", FLAT)), UnsupportedLabelConfig, "'Background' is not of assay"),
        (
            annotation(region("Cell", FLAT, from_name="other")),
            UnsupportedLabelConfig,
            "of 'other' on 'image'",
        ),
        (annotation(region("Cell", FLAT, to_name="channel_0")), UnsupportedLabelConfig, "on 'channel_0'"),
        (annotation(region("Cell", FLAT, type="polygonlabels")), UnsupportedLabelConfig, "'polygonlabels'"),
        (annotation(region("Cell", FLAT, value={"rle": []})), UnsupportedLabelConfig, "labels None"),
        (annotation(region("Cell", FLAT, value={"brushlabels": ["Cell"]})), MalformedRle, "header"),
        (annotation(region("Cell", FLAT, value=None)), InputError, "value is NoneType"),
        (annotation(region("Cell", FLAT, image_rotation=90)), InputError, "turned by 90"),
        (annotation(was_cancelled=True), InputError, "skipped"),
        (annotation(result=None), InputError, "result is NoneType, expected a JSON list"),
        (annotation(result=["x"]), InputError, r"result\[0\] is str"),
        (annotation(task=42), InputError, "annotation 7 belongs to task 42"),
        (annotation(id="7"), InputError, "id is '7'"),
        (annotation(updated_at="yesterday"), InputError, "updated_at is 'yesterday'"),
        (annotation(updated_at="2026-11-22T10:37:57"), InputError, "with its zone"),
        ("annotation", InputError, "annotation is str"),
    ],
)
def test_an_annotation_that_cannot_be_understood_is_refused(
    said: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        correct(said)


# --- events and requests ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "webhook is NoneType"),
        ({}, "webhook: action is None"),
        ({"action": 5}, "action is 5"),
        ({"action": "X", "project": 3}, "webhook X: project is int"),
        ({"action": "X", "project": {"id": "3"}}, "id is '3'"),
        ({"action": "ANNOTATION_CREATED", "annotation": "a"}, "annotation is str"),
        ({"action": "ANNOTATIONS_CREATED", "annotation": [1]}, "annotation is int"),
        ({"action": "TASKS_DELETED", "tasks": [{"id": None}]}, "tasks: id is None"),
    ],
)
def test_an_event_of_another_shape_is_refused(body: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_event(body)


def test_an_unknown_action_is_an_event_all_the_same() -> None:
    event = parse_event({"action": "REVIEW_CREATED", "project": {"id": 3}, "review": {}})
    assert (event.action, event.project_id, event.annotations, event.tasks) == ("REVIEW_CREATED", 3, (), ())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "predict is list"),
        ({}, "predict: tasks is NoneType"),
        ({"tasks": [{"id": 1}]}, "predict: task 1: data is NoneType"),
        ({"tasks": [{"id": 0, "data": {}}]}, "predict: task: id is 0"),
        ({"tasks": [], "project": "x.1"}, "predict: project 'x.1'"),
        ({"tasks": [], "params": []}, "")
    ],
)  # fmt: skip
def test_a_predict_request_of_another_shape_is_refused(body: object, message: str) -> None:
    if not message:
        assert parse_predict_request(body).context is None  # nothing is as good as an empty object
        return
    with pytest.raises(InputError, match=message):
        parse_predict_request(body)


def test_project_ids_come_with_the_time_of_creation() -> None:
    assert parse_project("24.1795343015", "setup") == 24
    assert parse_project(None, "setup") is None


def test_a_predict_reply_keeps_the_order_of_the_request() -> None:
    reply = predict_reply([([], 0.5, "v1"), ([{"id": "a"}], 0.25, "v1")])
    assert [r["score"] for r in reply["results"]] == [0.5, 0.25]
    assert reply["results"][1] == {"result": [{"id": "a"}], "score": 0.25, "model_version": "v1"}


def test_times_are_turned_into_utc() -> None:
    assert parse_time("2026-01-01T02:00:00+02:00", "x") == datetime(2026, 1, 1, tzinfo=UTC)
