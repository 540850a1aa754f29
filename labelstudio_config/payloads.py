"""Label Studio's JSON and our types: what we push, what experts send back, what it asks of a backend.

Pure functions on plain JSON: no SDK, no network. (x, y) order, RGBA and brush RLE end here.

Legend: H rows, W columns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.documents import LARGEST_NUMBER, is_storable, is_whole, told
from cytoloop.domain.errors import InputError, ShapeError, UnsupportedLabelConfig
from cytoloop.domain.types import Correction, ImageRecord, check_label_mask
from labelstudio_config.rle import decode_rle, encode_rle

FROM_NAME = "tag"
TO_NAME = "image"
REVIEWED_NAME = "reviewed"
REVIEWED_LABEL = "Reviewed region"
"""Control and label of the rectangle that frames what an expert looked at."""
ITEM_KEY = "item"
"""Key in the task data that names the item in one word: what a worklist tab filters by."""
DOUBT_KEY = "doubt"
"""Key in the task data, and name of the control, that shows what the model doubts."""
_FAR = 1e6
"""Percent or degrees that no picture has."""
DRAWN_FROM = 128
"""Smallest alpha that counts as drawn; it is also what the editor shows (its strokes have soft edges)."""

_LONGEST_ID = 18
"""Digits of a project's number: more fit into no database."""
_TIE_BREAK = 1e-9
_TIE_KEY_DIGITS = 4
_TIE_TILE_BITS = 6
_LONGEST_ACTION = 100
_ORIGINS = ("manual", "prediction", "prediction-changed")
"""Where a region comes from, as the editor says."""


# --- predictions: ours to Label Studio's ---------------------------------------------------------------


def prediction_result(mask_HW: NDArray[np.uint8], assay: Assay) -> list[dict[str, Any]]:
    """Regions of a prediction: one brush region per class that is present (never one per object).

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
        0 background (not drawn), 1…K-1 classes, 255 becomes a region of the ignore label.
    assay : Assay
        Names the labels.

    Raises
    ------
    ShapeError
        If the array is no label mask of this assay.
    """
    mask_HW = check_label_mask(mask_HW, assay.class_count, f"prediction of assay {assay.name!r}")
    height, width = mask_HW.shape
    present = np.bincount(mask_HW.reshape(-1), minlength=IGNORE + 1)
    labels = [*assay.foreground, (IGNORE, assay.ignore)]
    return [
        {
            "id": f"class-{value}",
            "from_name": FROM_NAME,
            "to_name": TO_NAME,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {"format": "rle", "rle": encode_rle(mask_HW == value), "brushlabels": [label.name]},
        }
        for value, label in labels
        if present[value]
    ]


def confidence_of(score: float, image_key: str | None = None, tile: int = 0) -> float:
    """Label Studio's score of ours: higher = ask sooner becomes a confidence, lowest first.

    0.5 / (1 + s) for s >= 0 and 1 - 0.5 / (1 - s) below: strictly decreasing, 0.5 at 0, and inside
    (0, 1) for every finite score (Label Studio drops a prediction whose score is outside, in silence).

    Parameters
    ----------
    score : float
        Any finite number.
    image_key, tile
        Where given, equal scores come out apart by less than 1e-9 and in the order (image_key, tile), as
        far as the first four hex digits of the key and 64 tiles tell them apart.

    Raises
    ------
    InputError
        If the score is NaN or infinite, the key is not hexadecimal, or the tile is negative.

    Examples
    --------
    >>> confidence_of(1.0), confidence_of(0.0), confidence_of(-1.0)
    (0.25, 0.5, 0.75)
    """
    if not math.isfinite(score):
        raise InputError(f"score {score}, expected a finite number")
    confidence = 0.5 / (1.0 + score) if score >= 0 else 1.0 - 0.5 / (1.0 - score)
    confidence = min(confidence, math.nextafter(1.0, 0.0))
    if image_key is None:
        return confidence
    try:
        place = int(image_key[:_TIE_KEY_DIGITS].ljust(_TIE_KEY_DIGITS, "0"), 16)
    except ValueError:
        raise InputError(f"image_key {image_key!r}, expected hexadecimal digits") from None
    if tile < 0:
        raise InputError(f"tile {tile}, expected 0 or more")
    last_tile = (1 << _TIE_TILE_BITS) - 1
    place = (place << _TIE_TILE_BITS) + min(tile, last_tile)
    places = 1 << (4 * _TIE_KEY_DIGITS + _TIE_TILE_BITS)
    return confidence * (1.0 - _TIE_BREAK * (1.0 - (place + 1) / places))


def prediction(
    task_id: int, result: Sequence[Mapping[str, Any]], confidence: float, version: str
) -> dict[str, Any]:
    """One item of the bulk import of predictions."""
    return {"task": task_id, "result": list(result), "score": confidence, "model_version": version}


# --- task data -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskData:
    """What a task carries: URLs for the editor, and which pixels it is about.

    Label Studio reuses task ids, so only these say which item a task is.
    """

    image: str
    """URL of the composite."""
    channels: tuple[str, ...]
    """URL of each channel alone, in the assay's order."""
    image_id: str
    image_key: str
    tile: int
    plate: str = ""
    well: str = ""
    field: str = ""
    doubt: str | None = None
    """URL of the doubt map; None in tasks that show none."""

    def document(self) -> dict[str, Any]:
        """The ``data`` of the task, as JSON."""
        return {
            "image": self.image,
            **{channel_key(number): url for number, url in enumerate(self.channels)},
            **({} if self.doubt is None else {DOUBT_KEY: self.doubt}),
            ITEM_KEY: f"{self.image_id}/{self.tile}",
            "image_id": self.image_id,
            "image_key": self.image_key,
            "tile": self.tile,
            "plate": self.plate,
            "well": self.well,
            "field": self.field,
        }


def channel_key(number: int) -> str:
    """Key in the task data, and name of the control, that shows channel ``number`` alone."""
    return f"channel_{number}"


def task_data(
    record: ImageRecord,
    tile: int,
    image_url: str,
    channel_urls: Sequence[str],
    doubt_url: str | None = None,
) -> dict[str, Any]:
    """The ``data`` of the task that shows one tile of an image."""
    return TaskData(
        image=image_url,
        channels=tuple(channel_urls),
        image_id=record.image_id,
        image_key=record.image_key,
        tile=tile,
        plate=record.plate,
        well=record.well,
        field=record.field,
        doubt=doubt_url,
    ).document()


def parse_task_data(data: object, where: str) -> TaskData:
    """Task data as we once wrote them; other keys are left alone.

    Raises
    ------
    InputError
        If a key is missing or of the wrong kind; the message begins with ``where`` (``task 41``).
    """
    known = _mapping(data, f"{where}: data")
    channels: list[str] = []
    while (key := channel_key(len(channels))) in known:
        channels.append(_text(known, key, where))
    return TaskData(
        image=_text(known, "image", where),
        channels=tuple(channels),
        image_id=_text(known, "image_id", where),
        image_key=_text(known, "image_key", where),
        tile=_whole(known, "tile", where, least=0),
        **{key: _text(known, key, where) for key in ("plate", "well", "field", DOUBT_KEY) if key in known},
    )


# --- corrections: theirs to ours -------------------------------------------------------------------------


def correction_from_annotation(
    annotation: Mapping[str, Any],
    task_id: int,
    data: TaskData,
    assay: Assay,
    tile_height: int,
    tile_width: int,
    expert: str,
    parent_version: str | None,
) -> Correction:
    """The mask an expert submitted, on the grid of the tile.

    A pixel is drawn where alpha >= 128. Regions of one label are united; what no region covers is
    background; the ignore label wins over every class; elsewhere the stronger class of
    ``assay.priority_values`` wins, and such pixels are counted in ``conflict_pixels``. Where an expert framed
    what was reviewed, all that lies outside is 255, whatever is painted there.

    Raises
    ------
    InputError
        If the annotation is no annotation of this task, was skipped, or is malformed
        (MalformedRle for its masks).
    ShapeError
        If a mask has another size than the tile.
    UnsupportedLabelConfig
        If a region has a control or label that the assay does not know.
    """
    where = f"task {task_id}"
    annotation = _mapping(annotation, f"{where}: annotation")
    annotation_id = _whole(annotation, "id", f"{where}: annotation")
    where = f"{where}: annotation {annotation_id}"
    if annotation.get("task", task_id) != task_id:
        raise InputError(f"{where} belongs to task {told(annotation['task'])}")
    if annotation.get("was_cancelled"):
        raise InputError(f"{where} was skipped: it says nothing about the pixels")
    drawn = drawn_mask(annotation.get("result"), assay, (tile_height, tile_width), where)
    return Correction(
        image_id=data.image_id,
        tile=data.tile,
        mask_HW=drawn.mask_HW,
        expert=expert,
        annotation_id=annotation_id,
        task_id=task_id,
        annotated_at=parse_time(annotation.get("updated_at"), f"{where}: updated_at"),
        parent_version=parent_version,
        lead_time_s=lead_time_of(annotation),
        conflict_pixels=drawn.conflict_pixels,
        origins=drawn.origins,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Regions flattened to one class a pixel."""

    mask_HW: NDArray[np.uint8]
    conflict_pixels: int
    """Pixels that carried more than one class."""
    origins: Mapping[str, int]
    """Regions by origin."""


def drawn_mask(result: object, assay: Assay, size: tuple[int, int], where: str) -> Drawn:
    """Flatten the regions of an annotation or a prediction; see :func:`correction_from_annotation`."""
    drawn, reviewed_HW, origins = _draw(result, assay, size, where)
    mask_HW = np.zeros(size, dtype=np.uint8)
    classes_HW = np.zeros(size, dtype=np.uint8)
    for value in reversed(assay.priority_values):
        if value in drawn:
            mask_HW[drawn[value]] = value
            classes_HW += drawn[value]
    if IGNORE in drawn:
        mask_HW[drawn[IGNORE]] = IGNORE
    if reviewed_HW is not None:
        mask_HW[~reviewed_HW] = IGNORE
    conflicts = int(np.count_nonzero((classes_HW > 1) & (mask_HW != IGNORE)))
    return Drawn(mask_HW=mask_HW, conflict_pixels=conflicts, origins=origins)


def _draw(
    result: object, assay: Assay, size: tuple[int, int], where: str
) -> tuple[dict[int, NDArray[np.bool_]], NDArray[np.bool_] | None, dict[str, int]]:
    """Union of the regions by pixel value, that of the frames, and how many regions there were by origin."""
    drawn: dict[int, NDArray[np.bool_]] = {}
    reviewed_HW: NDArray[np.bool_] | None = None
    origins: Counter[str] = Counter()
    for number, item in enumerate(_list(result, f"{where}: result")):
        region = _mapping(item, f"{where}: result[{number}]")
        if region.get("type") == "relation":
            continue  # an arrow between two regions carries no pixels
        place = f"{where}: region {told(region.get('id', number))}"
        # One that was drawn while the assay allowed it counts for as long as the annotation stands.
        is_frame = region.get("type") == "rectanglelabels" and region.get("from_name") == REVIEWED_NAME
        value = IGNORE if is_frame else assay.value_of(_label_of(region, place))
        got = (region.get("original_height"), region.get("original_width"))
        if got != size:
            raise ShapeError(f"{place}: mask ({told(got[0])}, {told(got[1])}), image ({size[0]}, {size[1]})")
        if region.get("image_rotation", 0) != 0:
            raise InputError(f"{place}: image turned by {told(region['image_rotation'])} degrees, expected 0")
        if is_frame:
            framed_HW = _framed(region, size, place)
            reviewed_HW = framed_HW if reviewed_HW is None else reviewed_HW | framed_HW
            continue
        alpha_HW = decode_rle(_mapping(region["value"], place).get("rle", ()), *size)
        is_drawn_HW = alpha_HW >= DRAWN_FROM
        drawn[value] = drawn[value] | is_drawn_HW if value in drawn else is_drawn_HW
        origin = region.get("origin")
        origins[origin if origin in _ORIGINS else "unknown"] += 1
    return drawn, reviewed_HW, dict(origins)


def _framed(region: Mapping[str, Any], size: tuple[int, int], where: str) -> NDArray[np.bool_]:
    """Pixels whose centres a rectangle holds; Label Studio gives it in percent of the picture."""
    value = _mapping(region.get("value"), f"{where}: value")
    if region.get("to_name") != TO_NAME or value.get("rectanglelabels") != [REVIEWED_LABEL]:
        raise UnsupportedLabelConfig(
            f"{where}: {told(value.get('rectanglelabels'))} on {told(region.get('to_name'))}, expected [{REVIEWED_LABEL!r}] on "
            f"{TO_NAME!r}"
        )
    left, top, width, height = (_percent(value, key, where) for key in ("x", "y", "width", "height"))
    if _percent({"rotation": 0, **value}, "rotation", where) != 0:
        raise InputError(f"{where}: frame turned by {told(value['rotation'])} degrees, expected 0")
    row_H = (np.arange(size[0]) + 0.5) * 100 / size[0]
    column_W = (np.arange(size[1]) + 0.5) * 100 / size[1]
    inside_H = (row_H >= top) & (row_H <= top + height)
    inside_W = (column_W >= left) & (column_W <= left + width)
    framed_HW: NDArray[np.bool_] = inside_H[:, None] & inside_W[None, :]
    return framed_HW


def _percent(value: Mapping[str, Any], key: str, where: str) -> float:
    number = value.get(key)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) < _FAR:
        raise InputError(f"{where}: {key} is {told(number)}, expected a number of percent or degrees")
    return float(number)


def _label_of(region: Mapping[str, Any], where: str) -> str:
    kind, control, image = region.get("type"), region.get("from_name"), region.get("to_name")
    if kind != "brushlabels" or control != FROM_NAME or image != TO_NAME:
        raise UnsupportedLabelConfig(
            f"{where}: {told(kind)} of {told(control)} on {told(image)}, expected 'brushlabels' of {FROM_NAME!r} "
            f"on {TO_NAME!r}"
        )
    labels = _mapping(region.get("value"), f"{where}: value").get("brushlabels")
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise UnsupportedLabelConfig(f"{where}: labels {told(labels)}, expected exactly one")
    return labels[0]


# --- events and the backend's requests -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One webhook call, in one shape for all actions; nothing in it is promised to be complete."""

    action: str
    project_id: int | None
    annotations: tuple[Mapping[str, Any], ...] = ()
    """Created or updated, with their full result."""
    tasks: tuple[Mapping[str, Any], ...] = ()
    """Created, or those of ``annotations`` in the same order."""
    deleted_annotation_ids: tuple[int, ...] = ()
    """Label Studio does not say of which task."""
    deleted_task_ids: tuple[int, ...] = ()


def parse_event(body: object) -> Event:
    """An event of any action; one we do not know, or that came without payload, has empty lists.

    Raises
    ------
    InputError
        If there is no action, or a known part has another shape than Label Studio gives it.
    """
    known = _mapping(body, "webhook")
    action = _text(known, "action", "webhook")
    if len(action) > _LONGEST_ACTION:
        raise InputError(f"webhook: action is {told(action)}, expected at most {_LONGEST_ACTION} characters")
    where = f"webhook {action}"
    project_id = None
    if known.get("project") is not None:
        project_id = _whole(_mapping(known["project"], f"{where}: project"), "id", f"{where}: project")
    listed = {
        key: tuple(
            _mapping(item, f"{where}: {key}") for item in _one_or_many(known.get(key), f"{where}: {key}")
        )
        for key in ("annotation", "annotations", "task", "tasks")
    }
    if action == "ANNOTATIONS_DELETED":
        ids = tuple(_whole(item, "id", f"{where}: annotations") for item in listed["annotations"])
        return Event(action=action, project_id=project_id, deleted_annotation_ids=ids)
    if action == "TASKS_DELETED":
        ids = tuple(_whole(item, "id", f"{where}: tasks") for item in listed["tasks"])
        return Event(action=action, project_id=project_id, deleted_task_ids=ids)
    return Event(
        action=action,
        project_id=project_id,
        annotations=listed["annotation"] + listed["annotations"],
        tasks=listed["task"] + listed["tasks"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictTask:
    """One task Label Studio wants a prediction for, without the masks it sends along."""

    task_id: int
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """Body of ``POST /predict``."""

    tasks: tuple[PredictTask, ...]
    project_id: int | None
    label_config: str
    context: Mapping[str, Any] | None
    """Regions drawn so far, in interactive mode."""


def parse_predict_request(body: object) -> PredictRequest:
    """What Label Studio asks of ``/predict``.

    Raises
    ------
    InputError
        If the body has no list of tasks with ``id`` and ``data``, or another part has a wrong shape.
    """
    known = _mapping(body, "predict")
    tasks = []
    for item in _list(known.get("tasks"), "predict: tasks"):
        task = _mapping(item, "predict: task")
        task_id = _whole(task, "id", "predict: task")
        data = _mapping(task.get("data"), f"predict: task {task_id}: data")
        tasks.append(PredictTask(task_id=task_id, data=data))
    params = _mapping(known.get("params") or {}, "predict: params")
    context = params.get("context")
    return PredictRequest(
        tasks=tuple(tasks),
        project_id=parse_project(known.get("project"), "predict: project"),
        label_config=str(known.get("label_config") or ""),
        context=None if not context else _mapping(context, "predict: params.context"),
    )


def parse_project(project: object, where: str) -> int | None:
    """Project id of ``"<id>.<creation unix time>"``, as ``/setup`` and ``/predict`` send it."""
    if project in (None, ""):
        return None
    number = str(project).split(".", 1)[0]
    if not number.isdecimal() or len(number) > _LONGEST_ID:
        raise InputError(f"{where} {repr(project)[:100]}, expected '<id>.<unix time>'")
    return int(number)


def predict_reply(predictions: Sequence[tuple[Sequence[Mapping[str, Any]], float, str]]) -> dict[str, Any]:
    """Answer of ``/predict``: one (result, confidence, version) per task, in the order of the request."""
    return {
        "results": [
            {"result": list(result), "score": confidence, "model_version": version}
            for result, confidence, version in predictions
        ]
    }


# --- reading JSON ----------------------------------------------------------------------------------------


def parse_time(value: object, where: str) -> datetime:
    """Label Studio's ISO 8601 time stamp, in UTC."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
        if time is not None and time.tzinfo is not None:
            return time.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: in UTC it would be before the year 1
        pass
    raise InputError(f"{where} is {told(value)}, expected an ISO 8601 time with its zone")


def lead_time_of(annotation: Mapping[str, Any]) -> float | None:
    """Seconds the editor was open; None where Label Studio gives none that makes sense.

    A strange value must not cost a correction.
    """
    value = annotation.get("lead_time")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LARGEST_NUMBER:
        return None
    return float(value)


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where} is {type(value).__name__}, expected a JSON object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} is {type(value).__name__}, expected a JSON list")
    return value


def _one_or_many(value: object, where: str) -> list[Any]:
    """Label Studio sends an object or a list under the same key, depending on the action."""
    if value is None:
        return []
    return [value] if isinstance(value, Mapping) else _list(value, where)


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not is_storable(value):
        raise InputError(f"{where}: {key} is {told(value)}, expected text")
    return value


def _whole(data: Mapping[str, Any], key: str, where: str, least: int = 1) -> int:
    value = data.get(key)
    if not is_whole(value, least):
        raise InputError(f"{where}: {key} is {told(value)}, expected a whole number >= {least}")
    return int(value)
