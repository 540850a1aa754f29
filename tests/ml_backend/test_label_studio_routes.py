from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from places import SHARED
from tiny import Painted, Tiny, make_tiny
from werkzeug.test import TestResponse

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.types import Item
from labelstudio_config.project import SECRET_HEADER
from labelstudio_config.publish import publish
from labelstudio_config.schema import labeling_config
from ml_backend.app import create_app
from ml_backend.service import Backend

CAPTURES = SHARED / "label-studio" / "captures"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


def app_of(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Flask:
    """The real application on the tiny home; only Label Studio is not there."""
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: tiny.studio)
    return create_app(replace(tiny.settings, **changes), start=False)


@pytest.fixture
def web(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    app = app_of(tiny, monkeypatch)
    yield app.test_client()
    app.extensions["cytoloop"]["store"].close()


def backend_of(web: FlaskClient) -> Backend:
    backend: Backend = web.application.extensions["cytoloop"]["backend"]
    return backend


def basic(password: str = "backend-password-91c2", user: str = "label-studio") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def secret(value: str = "webhook-secret-5d0e") -> dict[str, str]:
    return {SECRET_HEADER: value}


def asking(tiny: Tiny, items: list[Item], **changes: Any) -> dict[str, Any]:
    """A /predict body as Label Studio writes it."""
    tasks = [{**tiny.studio.task(tiny.task_of(item)), "meta": {}, "is_labeled": False} for item in items]
    return {
        "tasks": tasks,
        "project": "3.1795343015",
        "label_config": labeling_config(tiny.assay),
        "params": {"login": None, "password": None, "context": None},
        **changes,
    }


def predict(web: FlaskClient, body: dict[str, Any]) -> TestResponse:
    return web.post("/predict", json=body, headers=basic())


def refused(answer: TestResponse, status: int) -> str:
    """The message of a refusal, which has a request id and no traceback."""
    assert answer.status_code == status, answer.text
    document = answer.get_json()
    assert set(document) == {"error", "request_id"}
    assert len(document["request_id"]) == 12
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text
    return str(document["error"])


# --- who may ask ---


CALLS = [("GET", "/health"), ("POST", "/setup"), ("GET", "/versions"), ("POST", "/predict")]


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [{}, basic("wrong"), basic(user="admin"), {"Authorization": "Basic !!"}, {"Authorization": "Bearer x"}],
)
def test_without_the_password_nothing_is_told(
    web: FlaskClient, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = web.open(path, method=method, json={} if method == "POST" else None, headers=headers)
    assert "Basic credentials" in refused(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_without_an_address_of_label_studio_there_is_no_app(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="CYTOLOOP_LABEL_STUDIO_URL"):
        create_app(replace(tiny.settings, label_studio_url=None), start=False)


# --- health, setup, versions ---


def test_health(web: FlaskClient) -> None:
    answer = web.get("/health", headers=basic())
    assert answer.get_json() == {"status": "UP", "model_class": "cytoloop"}


def test_setup_names_the_version_in_force(tiny: Tiny, web: FlaskClient) -> None:
    body = {"project": "3.1795343015", "schema": labeling_config(tiny.assay), "access_token": "x"}
    answer = web.post("/setup", json=body, headers=basic())
    version = tiny.store.models.active(tiny.name).version
    assert answer.get_json() == {"model_version": version}
    assert web.get("/versions", headers=basic()).get_json() == {"versions": [version]}


def test_setup_refuses_a_project_that_draws_something_else(tiny: Tiny, web: FlaskClient) -> None:
    schema = labeling_config(tiny.assay).replace('"Nucleus"', '"Vacuole"')
    answer = web.post("/setup", json={"project": "3.1", "schema": schema}, headers=basic())
    message = refused(answer, 400)
    assert "['Nucleus']" in message
    assert "['Vacuole']" in message


@pytest.mark.parametrize(
    ("project", "status", "told"),
    [("4.1795343015", 404, "project 4"), (None, 404, "names no project"), ("x.y", 400, "'x.y'")],
)
def test_setup_of_a_project_that_is_none_of_ours(
    web: FlaskClient, project: str | None, status: int, told: str
) -> None:
    answer = web.post("/setup", json={"project": project, "schema": ""}, headers=basic())
    assert told in refused(answer, status)


# --- predict ---


def test_stored_predictions_come_back_in_the_order_asked(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    items = tiny.items()[::-1]
    answer = predict(web, asking(tiny, items))
    assert answer.status_code == 200
    version = tiny.store.models.active(tiny.name).version
    stored = [tiny.store.predictions.get(tiny.name, version, item) for item in items]
    assert answer.get_json() == {
        "results": [
            {"result": s.result, "score": s.confidence, "model_version": version} for s in stored if s
        ]
    }


def test_what_lies_on_an_item_is_what_it_was_handed_out_with(tiny: Tiny, web: FlaskClient) -> None:
    """Label Studio may ask for any task: the model's mask must not show where CIP's or nothing is to."""
    policy = QueuePolicy.all_ranked(strategy="entropy", size=8, contest_share=0.25, blank_share=0.25)
    tiny.publish_active(policy)
    version = "cdl-20260101-0123abcd"
    nothing = {image_id: np.zeros_like(mask_HW) for image_id, mask_HW in tiny.truth.items()}
    tiny.add_version(version)
    publish(tiny.studio, tiny.store, tiny.assay, Painted(version, nothing))
    roles = tiny.store.leases.roles(tiny.name)
    items = tiny.items()
    results = predict(web, asking(tiny, items)).get_json()["results"]
    assert {result["model_version"] for result in results} == {version}
    shown = [item for item, result in zip(items, results, strict=True) if result["result"]]
    assert shown == [item for item in items if item in roles and roles[item].canvas == "cip"]
    assert len(shown) == 2


def test_a_few_missing_ones_are_computed_at_once_and_kept(tiny: Tiny, web: FlaskClient) -> None:
    items = tiny.items()[2:6]
    answer = predict(web, asking(tiny, items))
    assert answer.status_code == 200
    version = tiny.store.models.active(tiny.name).version
    for item, given in zip(items, answer.get_json()["results"], strict=True):
        stored = tiny.store.predictions.get(tiny.name, version, item)
        assert stored is not None
        assert (given["result"], given["score"]) == (stored.result, stored.confidence)


def test_many_missing_ones_are_computed_in_the_background(tiny: Tiny, web: FlaskClient) -> None:
    body = asking(tiny, tiny.items()[:5])
    assert "5 of 5 predictions" in refused(predict(web, body), 503)
    backend_of(web).start()
    try:
        for _ in range(200):
            answer = predict(web, body)
            if answer.status_code == 200:
                break
            time.sleep(0.02)
        assert len(answer.get_json()["results"]) == 5
    finally:
        backend_of(web).stop()


def test_no_task_is_an_empty_answer(tiny: Tiny, web: FlaskClient) -> None:
    assert predict(web, asking(tiny, [])).get_json() == {"results": []}


def test_a_task_that_shows_other_pixels_is_refused(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    body = asking(tiny, tiny.items()[:2])
    task = body["tasks"][1]
    expected = task["data"]["image_key"]
    task["data"]["image_key"] = "f" * 64
    message = refused(predict(web, body), 400)
    assert message == f"task {task['id']}: image_key is '{'f' * 64}', expected '{expected}'"


def test_a_task_of_nobody_is_not_found(tiny: Tiny, web: FlaskClient) -> None:
    body = asking(tiny, tiny.items()[:1])
    body["tasks"][0]["id"] = 4711
    assert "task 4711" in refused(predict(web, body), 404)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"project": "8.1"}, 404),
        ({"project": None}, 404),
        ({"tasks": None}, 400),
        ({"tasks": [{"id": 1}]}, 400),
        ({"tasks": [{"id": "1", "data": {}}]}, 400),
        ({"tasks": [{"id": 1, "data": {"image": "/x.png"}}]}, 400),
    ],
)
def test_a_request_that_cannot_be_understood(
    tiny: Tiny, web: FlaskClient, changes: dict[str, Any], status: int
) -> None:
    refused(predict(web, asking(tiny, [], **changes)), status)


@pytest.mark.parametrize("path", ["/setup", "/predict"])
@pytest.mark.parametrize("body", [b"", b"not JSON", b"[1]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(web: FlaskClient, path: str, body: bytes) -> None:
    answer = web.post(path, data=body, content_type="application/json", headers=basic())
    assert "expected a JSON object" in refused(answer, 400)


def test_what_is_not_there_and_what_may_not_be_done(web: FlaskClient) -> None:
    refused(web.get("/nothing"), 404)
    refused(web.get("/predict", headers=basic()), 405)


def test_a_bug_of_ours_is_a_number_in_the_log(
    web: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def burst() -> None:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(backend_of(web), "versions", burst)
    answer = web.get("/versions", headers=basic())
    assert "secret of the inside" not in answer.text
    refused(answer, 500)
    assert answer.get_json()["request_id"] in caplog.text
    assert "a secret of the inside" in caplog.text


# --- webhook ---


def test_an_event_is_on_disk_when_it_is_answered_and_applied_later(tiny: Tiny, web: FlaskClient) -> None:
    tiny.listen()
    tiny.correct(tiny.items()[0])
    ((_, body),) = tiny.store.inbox.after(0)
    tiny.store.corrections.set_last_event(1)
    answer = web.post("/webhook", data=body, headers=secret())
    assert (answer.status_code, answer.get_json()) == (202, {"event": 2})
    assert list(tiny.store.inbox.after(1)) == [(2, body)]
    assert tiny.standing(tiny.items()[0]) is None
    tiny.intake.drain()
    assert tiny.standing(tiny.items()[0]) is not None


def test_the_background_applies_events(tiny: Tiny, web: FlaskClient) -> None:
    tiny.studio.listener = lambda body: web.post("/webhook", data=body, headers=secret())
    backend_of(web).start()
    try:
        tiny.correct(tiny.items()[0])
        for _ in range(200):
            if tiny.standing(tiny.items()[0]) is not None:
                break
            time.sleep(0.02)
        assert tiny.standing(tiny.items()[0]) is not None
    finally:
        backend_of(web).stop()


@pytest.mark.parametrize("headers", [{}, secret("wrong"), secret(""), basic("wrong")])
def test_an_event_without_the_secret_is_not_taken(
    tiny: Tiny, web: FlaskClient, headers: dict[str, str]
) -> None:
    answer = web.post("/webhook", json={"action": "PROJECT_UPDATED"}, headers=headers)
    assert SECRET_HEADER in refused(answer, 401)
    assert tiny.store.inbox.last() == 0


def test_start_training_comes_with_basic_auth_and_becomes_a_job(tiny: Tiny, web: FlaskClient) -> None:
    answer = web.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 3}}, headers=basic())
    assert answer.status_code == 202
    tiny.intake.drain()
    assert [cycle["assay"] for cycle in tiny.store.cycles.queued()] == ["tiny"]


def test_without_a_password_set_basic_auth_opens_no_webhook(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_of(tiny, monkeypatch, backend_password=None, is_open=True)
    refused(app.test_client().post("/webhook", json={"action": "X"}, headers=basic("")), 401)
    app.extensions["cytoloop"]["store"].close()


def test_an_empty_event_is_refused(tiny: Tiny, web: FlaskClient) -> None:
    assert "empty body" in refused(web.post("/webhook", data=b"", headers=secret()), 400)
    assert tiny.store.inbox.last() == 0


def test_an_event_that_is_no_json_is_kept_and_becomes_a_doubt(tiny: Tiny, web: FlaskClient) -> None:
    assert web.post("/webhook", data=b"not JSON", headers=secret()).status_code == 202
    tiny.intake.drain()
    (doubt,) = tiny.store.corrections.doubts()
    assert "not JSON" in doubt["message"]


def test_a_body_beyond_the_limit_is_refused_in_our_words(
    tiny: Tiny, web: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.routes.label_studio.LARGEST_BODY", 10)
    refused(web.post("/webhook", data=b"x" * 11, headers=secret()), 413)


# --- what a real server once sent ---


def captured(name: str) -> list[dict[str, Any]]:
    document = json.loads((CAPTURES / name).read_text(encoding="utf-8"))
    return [exchange["request"] for exchange in document["exchanges"]]


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the project")
@pytest.mark.parametrize(
    "name", sorted(path.name for path in CAPTURES.glob("backend_*.json")) or ["no captures"]
)
def test_recorded_calls_are_understood(tiny: Tiny, web: FlaskClient, name: str) -> None:
    """Their tasks and projects are not ours: only these may be what is refused."""
    for request in captured(name):
        body = request["body"]
        if isinstance(body, dict) and "project" in body and request["path"] != "/webhook":
            body["project"] = f"3.{str(body['project']).split('.')[1]}"
        answer = web.open(
            request["path"], method=request["method"], json=body, headers={**basic(), **secret()}
        )
        if request["path"] == "/predict":
            assert "image_id is None, expected text" in refused(answer, 400)
        elif request["path"] == "/setup":
            assert "labels missing ['Cytoplasm', 'Nucleus', 'Ignore']" in refused(answer, 400)
        elif request["path"] == "/webhook":
            assert answer.status_code == 202
        else:
            assert answer.status_code == 200


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures beside the project")
def test_a_recorded_predict_call_about_our_task_is_answered(tiny: Tiny, web: FlaskClient) -> None:
    (request,) = captured("backend_predict_task_with_old_predictions.json")
    ours = asking(tiny, tiny.items()[:1])
    body = {**request["body"], "project": ours["project"]}
    body["tasks"][0] |= {key: ours["tasks"][0][key] for key in ("id", "data")}
    assert len(predict(web, body).get_json()["results"]) == 1


# --- the log ---


def test_no_secret_and_no_body_is_logged(
    tiny: Tiny, web: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"project": "3.1", "schema": "", "access_token": "creator-token-66aa"}
    web.post("/setup", json=body, headers=basic())
    web.post("/setup", json={**body, "project": "9.1"}, headers=basic())
    web.get("/health", headers=basic("guessed-password"))
    web.post("/webhook", json={"action": "X", "note": "body-of-the-event"}, headers=secret())
    web.post("/webhook", json={"action": "X"}, headers=secret("guessed-secret"))
    predict(web, asking(tiny, tiny.items()[:1]))
    tiny.intake.drain()
    settings = tiny.settings
    assert caplog.text, "something was logged"
    for hidden in (
        settings.backend_password,
        settings.webhook_secret,
        settings.label_studio_token,
        "creator-token-66aa",
        "guessed-password",
        "guessed-secret",
        "body-of-the-event",
    ):
        assert hidden is not None
        assert hidden not in caplog.text


def test_when_it_has_stopped_nobody_is_at_the_store(web: FlaskClient) -> None:
    backend = backend_of(web)
    backend.start()
    backend.stop()
    ours = {"intake", "predictions", "models"}
    assert not [thread.name for thread in threading.enumerate() if thread.name in ours]
