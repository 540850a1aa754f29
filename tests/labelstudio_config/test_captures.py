"""What a real Label Studio 1.23.2 once sent, replayed through our parsers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter import brush

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from labelstudio_config.payloads import (
    TaskData,
    correction_from_annotation,
    parse_event,
    parse_predict_request,
    parse_project,
)
from labelstudio_config.rle import decode_rle
from labelstudio_config.schema import check_label_config

CAPTURES = Path(__file__).resolve().parents[3] / "shared" / "label-studio" / "captures"
pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the project")

ASSAY = Assay(
    name="rosella",
    channels=(Channel(name="gal3"),),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Phagophore", colour="#ff5500"),
        LabelClass(name="Autolysosome", colour="#00aaff"),
    ),
    ignore=LabelClass(name="Ignore", colour="#888888"),
    cip=Cip(recipe="none"),
)
DATA = TaskData(image="/i.png", channels=(), image_id="i", image_key="ab", tile=0)


def bodies(name: str, path_part: str = "") -> list[dict[str, Any]]:
    capture = json.loads((CAPTURES / f"{name}.json").read_text())
    return [
        e["request"]["body"]
        for e in capture["exchanges"]
        if path_part in e["request"]["path"] and isinstance(e["request"]["body"], dict)
    ]


# name: action, annotations, tasks, deleted annotations, deleted tasks
EVENTS = {
    "webhook_annotation_created": ("ANNOTATION_CREATED", 1, 1, 0, 0),
    "webhook_annotation_created_from_editor": ("ANNOTATION_CREATED", 1, 1, 0, 0),
    "webhook_annotation_skipped": ("ANNOTATION_CREATED", 1, 1, 0, 0),
    "webhook_annotation_updated": ("ANNOTATION_UPDATED", 1, 1, 0, 0),
    "webhook_annotation_updated_from_editor": ("ANNOTATION_UPDATED", 1, 1, 0, 0),
    "webhook_annotations_created_bulk": ("ANNOTATIONS_CREATED", 1, 1, 0, 0),
    "webhook_annotations_deleted": ("ANNOTATIONS_DELETED", 0, 0, 1, 0),
    "webhook_project_updated": ("PROJECT_UPDATED", 0, 0, 0, 0),
    "webhook_tasks_created": ("TASKS_CREATED", 0, 2, 0, 0),
    "webhook_tasks_created_storage_sync": ("TASKS_CREATED", 0, 1, 0, 0),
    "webhook_tasks_deleted": ("TASKS_DELETED", 0, 0, 0, 2),
    "webhook_without_payload": ("ANNOTATION_CREATED", 0, 0, 0, 0),
    "backend_start_training": ("START_TRAINING", 0, 0, 0, 0),
}


def test_every_webhook_capture_is_in_the_table() -> None:
    assert {path.stem for path in CAPTURES.glob("webhook_*.json")} <= set(EVENTS)


@pytest.mark.parametrize("name", sorted(EVENTS))
def test_an_event_is_read_as_what_happened(name: str) -> None:
    action, annotations, tasks, deleted_annotations, deleted_tasks = EVENTS[name]
    event = parse_event(bodies(name, "hook")[0])
    assert event.action == action
    assert len(event.annotations) == annotations
    assert len(event.tasks) >= tasks
    assert len(event.deleted_annotation_ids) == deleted_annotations
    assert len(event.deleted_task_ids) == deleted_tasks
    assert (event.project_id is None) == (name == "webhook_without_payload")
    for annotation, task in zip(event.annotations, event.tasks, strict=False):
        assert annotation["task"] == task["id"]


def test_deletions_name_their_ids() -> None:
    assert parse_event(bodies("webhook_annotations_deleted")[0]).deleted_annotation_ids == (1,)
    assert parse_event(bodies("webhook_tasks_deleted")[0]).deleted_task_ids == (9, 10)


def test_training_comes_before_the_event_of_the_annotation_that_caused_it() -> None:
    sent = bodies("backend_start_training_before_annotation_event", "webhook")
    assert [parse_event(body).action for body in sent] == ["START_TRAINING", "ANNOTATION_CREATED"]


@pytest.mark.parametrize(
    ("name", "origins"),
    [
        ("webhook_annotation_created_from_editor", {"prediction": 2}),
        ("webhook_annotation_updated_from_editor", {"prediction-changed": 2}),
        ("webhook_annotation_updated", {"manual": 1}),
        ("webhook_annotations_created_bulk", {"unknown": 2}),
    ],
)
def test_what_experts_did_becomes_the_mask_that_was_displayed(name: str, origins: dict[str, int]) -> None:
    annotation = parse_event(bodies(name)[0]).annotations[0]
    correction = correction_from_annotation(
        annotation, annotation["task"], DATA, ASSAY, 512, 680, "ada@lab.org", None
    )
    expected_HW = np.zeros((512, 680), np.uint8)
    for label, value in (("Phagophore", 1), ("Autolysosome", 2)):
        for region in annotation["result"]:
            if region["value"]["brushlabels"] == [label]:
                alpha_HW = brush.decode_rle(region["value"]["rle"]).reshape(512, 680, 4)[..., 3]
                expected_HW[alpha_HW >= 128] = value
    assert np.array_equal(correction.mask_HW, expected_HW)
    assert correction.mask_HW.any()
    assert correction.origins == origins


def regions(document: object) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        value = document.get("value")
        if isinstance(value, dict) and "rle" in value and "original_width" in document:
            yield document
        for child in document.values():
            yield from regions(child)
    elif isinstance(document, list):
        for child in document:
            yield from regions(child)


def test_every_mask_ever_captured_decodes_as_the_sdk_decodes_it() -> None:
    count = 0
    for path in sorted(CAPTURES.glob("*.json")):
        if path.stem == "api_bulk_predictions_rejected":
            continue  # its mask was made up, to be refused
        for region in regions(json.loads(path.read_text())):
            size = region["original_height"], region["original_width"]
            alpha_HW = brush.decode_rle(region["value"]["rle"]).reshape(*size, 4)[..., 3]
            assert np.array_equal(decode_rle(region["value"]["rle"], *size), alpha_HW)
            count += 1
    assert count > 40


@pytest.mark.parametrize("path", sorted(CAPTURES.glob("backend_*.json")), ids=lambda path: path.stem)
def test_what_label_studio_asks_of_a_backend_is_understood(path: Path) -> None:
    for body in bodies(path.stem, "/predict"):
        request = parse_predict_request(body)
        assert request.project_id is not None
        assert len(request.tasks) == len(body["tasks"])
        assert all(task.data["image"].startswith("/data/") for task in request.tasks)
        assert (request.context is not None) == ("interactive" in path.stem)
        assert "BrushLabels" in request.label_config
    for body in bodies(path.stem, "/setup"):
        assert parse_project(body["project"], "setup") is not None


def test_a_project_without_the_ignore_label_is_told_so() -> None:
    from cytoloop.domain.errors import UnsupportedLabelConfig

    xml = bodies("backend_connect", "/setup")[0]["schema"]
    with pytest.raises(UnsupportedLabelConfig, match=r"missing \['Ignore'\]"):
        check_label_config(xml, ASSAY)
