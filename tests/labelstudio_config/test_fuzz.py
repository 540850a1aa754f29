"""Whatever Label Studio, or who passes for it, sends: a value or an exact answer, never a bug of ours."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import numpy as np
from fuzzing import answered, damaged, fuzzed
from hypothesis import example, given
from hypothesis import strategies as st
from samples import make_assay

from cytoloop.domain.documents import is_storable, parse_json
from cytoloop.domain.types import Correction
from labelstudio_config.payloads import (
    Event,
    PredictRequest,
    TaskData,
    correction_from_annotation,
    drawn_mask,
    parse_event,
    parse_predict_request,
    parse_project,
    parse_task_data,
    parse_time,
    prediction_result,
)
from labelstudio_config.rle import decode_rle, encode_rle

ASSAY = make_assay()
H, W = 6, 5
MASK = np.array([[(row * column) % 3 for column in range(W)] for row in range(H)], np.uint8)
RESULT = prediction_result(MASK, ASSAY)
DATA: dict[str, Any] = {
    "image": "/a.png", "channel_0": "/b.png", "doubt": "/d.png", "item": "a/0", "image_id": "a",
    "image_key": "ab12", "tile": 0, "plate": "P", "well": "B02", "field": "1",
}  # fmt: skip
ANNOTATION: dict[str, Any] = {
    "id": 9, "task": 4, "result": RESULT, "was_cancelled": False, "lead_time": 12.5, "completed_by": 1,
    "updated_at": "2022-07-07T12:00:00.000000Z", "parent_prediction": 3,
}  # fmt: skip
EVENT: dict[str, Any] = {
    "action": "ANNOTATION_CREATED", "project": {"id": 7}, "annotation": ANNOTATION, "task": {"id": 4, "data": DATA},
}  # fmt: skip
PREDICT: dict[str, Any] = {
    "tasks": [{"id": 4, "data": DATA}], "project": "7.1700000000", "label_config": "<View/>",
    "params": {"context": {"result": RESULT}},
}  # fmt: skip

CODED = [bytes(encode_rle(value == MASK)) for value in range(3)]
STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just([]), st.just({}),
    st.sampled_from([2**63, 10**400, -1, "\ud800", "\0", "9" * 5000, "²", "0001-01-01T00:00:00+14:00", [[[[]]]], float("nan")]),
    st.lists(st.integers(0, 255), max_size=20),
)  # fmt: skip


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A document with something strange in the place of one or more of its parts."""
    made = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        place: Any = made
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(min(len(place), 8)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            below = place[key]
            if isinstance(below, dict | list) and draw(st.integers(0, 3)):
                place = below
                continue
            if isinstance(place, dict) and not draw(st.integers(0, 4)):
                del place[key]
            else:
                place[key] = deepcopy(draw(STRANGE))  # the strategy keeps its own
            break
    return made


def sound(text: object) -> bool:
    return text is None or (isinstance(text, str) and is_storable(text))


@fuzzed
@given(st.binary(max_size=200) | damaged(CODED), st.integers(1, 8), st.integers(1, 8))
@example(b"\xff" * 200, 6, 5)
def test_any_bytes_are_a_mask_or_refused(content: bytes, height: int, width: int) -> None:
    for size in ((height, width), (H, W)):
        alpha_HW = answered(decode_rle, list(content), *size)
        assert alpha_HW is None or (alpha_HW.shape, alpha_HW.dtype) == (size, np.uint8)


@fuzzed
@given(st.binary(max_size=120), st.lists(st.integers(1, 16), min_size=4, max_size=4), st.integers(1, 64))
def test_any_codes_after_a_right_header_are_a_mask_or_refused(
    body: bytes, sizes: list[int], pixels: int
) -> None:
    bits = f"{4 * pixels:032b}00111" + "".join(f"{size - 1:04b}" for size in sizes)
    bits += "".join(f"{byte:08b}" for byte in body)
    bits += "0" * (-len(bits) % 8)
    content = [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]
    alpha_HW = answered(decode_rle, content, 1, pixels)
    assert alpha_HW is None or alpha_HW.shape == (1, pixels)


@fuzzed
@given(STRANGE | st.lists(STRANGE, max_size=60))
def test_anything_in_the_place_of_a_mask_is_refused(value: Any) -> None:
    answered(decode_rle, value, H, W)


@fuzzed
@given(st.binary(max_size=100) | damaged([json.dumps(d).encode() for d in (EVENT, PREDICT)]))
def test_any_body_is_an_event_or_refused(body: bytes) -> None:
    document = answered(parse_json, body, "webhook")
    _event(document)
    answered(parse_predict_request, document)


@fuzzed
@given(changed(EVENT) | STRANGE)
def test_any_event_is_read_or_refused(document: Any) -> None:
    _event(document)


def _event(document: Any) -> None:
    event = answered(parse_event, document)
    if event is None:
        return
    assert isinstance(event, Event)
    assert sound(event.action)
    for task in event.tasks:
        assert isinstance(answered(parse_task_data, task.get("data"), "task"), TaskData | None)
    for annotation in event.annotations:
        _annotation(annotation)


@fuzzed
@given(changed(ANNOTATION))
def test_any_annotation_is_a_correction_or_refused(document: Any) -> None:
    _annotation(document)


def _annotation(document: Any) -> None:
    data = parse_task_data(DATA, "task")
    correction = answered(correction_from_annotation, document, 4, data, ASSAY, H, W, "ada", None)
    if correction is None:
        return
    assert isinstance(correction, Correction)
    assert correction.mask_HW.shape == (H, W)
    assert correction.lead_time_s is None or 0 <= correction.lead_time_s < float("inf")
    assert all(sound(origin) for origin in correction.origins)


@fuzzed
@given(changed(RESULT) | STRANGE)
def test_any_regions_are_drawn_or_refused(result: Any) -> None:
    drawn = answered(drawn_mask, result, ASSAY, (H, W), "here")
    assert drawn is None or drawn.mask_HW.shape == (H, W)


@fuzzed
@given(changed(DATA))
def test_any_task_data_are_read_or_refused(document: Any) -> None:
    data = answered(parse_task_data, document, "task 4")
    if data is not None:
        assert all(
            sound(text) for text in (data.image, data.image_id, data.image_key, data.doubt, *data.channels)
        )
        assert 0 <= data.tile < 2**63


@fuzzed
@given(changed(PREDICT) | STRANGE)
def test_any_request_is_read_or_refused(document: Any) -> None:
    request = answered(parse_predict_request, document)
    if request is not None:
        assert isinstance(request, PredictRequest)
        assert all(0 < task.task_id < 2**63 for task in request.tasks)
        assert request.project_id is None or 0 <= request.project_id < 2**63


@fuzzed
@given(STRANGE | st.text())
def test_any_time_and_project_is_read_or_refused(value: Any) -> None:
    answered(parse_time, value, "here")
    project = answered(parse_project, value, "here")
    assert project is None or 0 <= project < 2**63
