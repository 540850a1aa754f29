"""Requests that no program means: numbers no database holds, brackets without end, text that is none."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from tiny import Tiny
from werkzeug.test import TestResponse

TOO_MANY_DIGITS = "9" * 5000
"""More than Python turns into a number."""
TOO_LARGE = 10**30
"""Larger than what SQLite holds."""
DEEP = "[" * 100_000
HALF = "\ud800"
"""Half of a character: JSON can say it, UTF-8 and SQLite cannot."""


@pytest.fixture
def web(app: Flask) -> FlaskClient:
    return app.test_client()


def send(web: FlaskClient, method: str, path: str, **body: Any) -> TestResponse:
    return web.open(path, method=method, headers={"Authorization": "Bearer root-token"}, **body)


def as_label_studio(home: Tiny) -> dict[str, str]:
    login = base64.b64encode(f"label-studio:{home.settings.backend_password}".encode()).decode()
    return {"Authorization": f"Basic {login}"}


@pytest.mark.parametrize("digits", [TOO_MANY_DIGITS, str(TOO_LARGE)])
def test_a_limit_of_too_many_digits(web: FlaskClient, digits: str) -> None:
    answer = send(web, "GET", f"/api/v1/worklist?limit={digits}")
    assert answer.status_code == 400
    assert "expected a whole number from 1 to 10000" in answer.get_json()["error"]
    assert len(answer.get_json()["error"]) < 300, "not all of it is said again"


@pytest.mark.parametrize("lease", [str(TOO_LARGE), TOO_MANY_DIGITS, str(2**63), "٣", "-1", "1.5", "x"])
def test_a_lease_that_cannot_be(web: FlaskClient, lease: str) -> None:
    answer = send(web, "DELETE", f"/api/v1/leases/{lease}")
    assert answer.status_code == 404
    assert "was never given" in answer.get_json()["error"]


def test_minutes_that_no_float_holds(web: FlaskClient) -> None:
    answer = send(web, "POST", "/api/v1/worklist/claim", data=b'{"minutes": 1' + b"0" * 400 + b"}")
    assert answer.status_code == 400
    assert "expected a number above 0" in answer.get_json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/worklist/claim"),
        ("POST", "/api/v1/cycles"),
        ("POST", "/api/v1/models/rollback"),
        ("PUT", "/api/v1/queues/default"),
    ],
)
@pytest.mark.parametrize(
    "body", [DEEP, "[1]", "3", "{", b"\xff"], ids=["deep", "list", "number", "cut", "bytes"]
)
def test_a_body_that_is_no_object_orders_nothing(
    home: Tiny, web: FlaskClient, method: str, path: str, body: Any
) -> None:
    answer = send(web, method, path, data=body)
    assert answer.status_code == 400
    expected = "nested more than 64 deep" if body == DEEP else "expected a JSON object"
    assert expected in answer.get_json()["error"]
    assert home.store.cycles.queued() == []


@pytest.mark.parametrize("path", ["/setup", "/predict"])
def test_label_studios_routes_refuse_what_is_nested_without_end(
    home: Tiny, web: FlaskClient, path: str
) -> None:
    answer = web.post(path, data=DEEP, headers=as_label_studio(home))
    assert answer.status_code == 400
    assert "nested more than 64 deep" in answer.get_json()["error"]


@pytest.mark.parametrize(
    ("project", "status"), [("9" * 18, 404), (str(TOO_LARGE), 400), (TOO_MANY_DIGITS, 400)]
)
def test_a_project_that_cannot_be(home: Tiny, web: FlaskClient, project: str, status: int) -> None:
    answer = web.post("/setup", json={"project": project}, headers=as_label_studio(home))
    assert answer.status_code == status, answer.text


def test_a_task_that_cannot_be(home: Tiny, web: FlaskClient) -> None:
    data = {"image": "", "image_id": "P-A01", "image_key": "", "tile": 0}
    project = home.store.assays.get(home.name)["project_id"]
    body = {"project": f"{project}.1", "tasks": [{"id": TOO_LARGE, "data": data}]}
    answer = web.post("/predict", json=body, headers=as_label_studio(home))
    assert answer.status_code == 400
    assert f"id is {TOO_LARGE}" in answer.get_json()["error"]


@pytest.mark.parametrize("key", ["size", "cap", "max_per_group", "max_per_plate"])
def test_a_policy_of_batches_that_nobody_can_make(home: Tiny, web: FlaskClient, key: str) -> None:
    home.publish_active()
    before = home.store.queues.policy(home.name, "default")
    answer = send(web, "PUT", "/api/v1/queues/default", json={key: TOO_LARGE})
    assert answer.status_code == 400
    assert f"key '{key}': got {TOO_LARGE} (int), expected a whole number" in answer.get_json()["error"]
    assert home.store.queues.policy(home.name, "default") == before


def test_an_expert_whose_address_cannot_be_stored(home: Tiny, web: FlaskClient) -> None:
    home.publish_active()
    body = {"experts": [{"name": "Eve", "email": f"eve@{HALF}"}], "contest_share": 0}
    assert send(web, "PUT", "/api/v1/queues/default", json=body).status_code == 400
    assert send(web, "GET", "/api/v1/worklist?expert=Eve").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/api/v1/models", "/reports/x"])
@pytest.mark.parametrize(
    "header", ["Basic \xe4", "Basic w6Q", "Basic /w==", "Bearer \xe4", "Digest \xe4=", "\xe4"]
)
def test_a_header_that_proves_nothing(web: FlaskClient, path: str, header: str) -> None:
    assert web.get(path, headers={"Authorization": header}).status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/cycles//x", "/api/v1/queues//x", "/api/v1//models"])
def test_a_program_is_not_sent_elsewhere(web: FlaskClient, path: str) -> None:
    answer = send(web, "GET", path)
    assert (answer.status_code, answer.mimetype) == (404, "application/json")
