"""Bodies that are meant to do harm: URLs of other places, documents that unfold, numbers that nothing holds."""

from __future__ import annotations

import base64
import builtins
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import PROJECT
from flask.testing import FlaskClient
from tiny import Tiny
from werkzeug.test import TestResponse

from labelstudio_config.payloads import task_data
from labelstudio_config.project import SECRET_HEADER

FOREIGN = [
    "http://169.254.169.254/latest/meta-data/",
    "https://evil.example/a.png",
    "//evil.example/a.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "ftp://evil.example/a.png",
    "data:image/png;base64,iVBORw0KGgo=",
    "/data/local-files/?d=../../../../etc/passwd",
    "/data/local-files/?d=%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/data/local-files/?d=tiny/a.png%00/../../etc/passwd",
    "s3://bucket/key",
    "\\\\evil.example\\share\\a.png",
]


@pytest.fixture
def client(app: Any, home: Tiny) -> FlaskClient:
    client = app.test_client()
    password = home.settings.backend_password
    client.environ_base["HTTP_AUTHORIZATION"] = (
        "Basic " + base64.b64encode(f"label-studio:{password}".encode()).decode()
    )
    client.environ_base["HTTP_" + SECRET_HEADER.upper().replace("-", "_")] = home.settings.webhook_secret
    return client


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Files that are opened meanwhile; whoever opens a connection fails."""
    files: list[str] = []

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    def note(original: Any) -> Any:
        def opening(file: Any, *args: Any, **options: Any) -> Any:
            files.append(os.fspath(file) if not isinstance(file, int) else str(file))
            return original(file, *args, **options)

        return opening

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(builtins, "open", note(open))
    monkeypatch.setattr(io, "open", note(io.open))
    monkeypatch.setattr(os, "open", note(os.open))
    yield files
    monkeypatch.undo()


def ask(client: FlaskClient, tasks: list[dict[str, Any]]) -> TestResponse:
    return client.post("/predict", json={"tasks": tasks, "project": f"{PROJECT}.1700000000"})


@pytest.mark.parametrize("url", FOREIGN)
def test_an_url_in_a_task_is_never_looked_at(
    client: FlaskClient, home: Tiny, opened: list[str], url: str
) -> None:
    item = home.items()[0]
    record = home.store.images.get(home.name, item.image_id)
    data = task_data(record, item.tile, url, [url, url], url)
    answer = ask(client, [{"id": home.task_of(item), "data": data}])
    assert answer.status_code == 200, "what is shown is known from the store, whatever the task says"
    assert len(answer.get_json()["results"]) == 1
    pictures = [name for name in opened if name.endswith((".png", ".tif"))]
    inside = (str(home.home), str(Path(record.files[0]).parent))
    assert pictures, "it was computed now, so that the watch saw files of ours"
    assert [name for name in pictures if not name.startswith(inside)] == []
    assert [name for name in opened if "passwd" in name or "evil" in name] == []


@pytest.mark.parametrize("url", FOREIGN)
def test_an_image_is_known_by_the_store_and_by_nothing_else(
    client: FlaskClient, home: Tiny, opened: list[str], url: str
) -> None:
    item = home.items()[0]
    record = home.store.images.get(home.name, item.image_id)
    data = {**task_data(record, item.tile, url, []), "image_id": url}
    answer = ask(client, [{"id": home.task_of(item), "data": data}])
    assert answer.status_code == 400
    assert answer.get_json()["error"] == (
        f"task {home.task_of(item)}: image_id is {url!r}, expected {item.image_id!r}"
    )
    assert not [name for name in opened if "passwd" in name]


DEEP = b'{"tasks": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
WIDE = b'{"tasks": [' + b"[]," * 1_000_001 + b"0]}"


@pytest.mark.parametrize("path", ["/predict", "/setup"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (DEEP, "body: JSON nested more than 64 deep"),
        (WIDE, "body: JSON of 1000003 lists and objects, expected at most 1000000"),
    ],
    ids=["deep", "wide"],
)
def test_a_body_that_unfolds_is_refused(client: FlaskClient, path: str, body: bytes, message: str) -> None:
    answer = client.post(path, data=body)
    assert (answer.status_code, answer.get_json()["error"]) == (400, message)


def test_a_scripts_body_that_unfolds_is_refused(client: FlaskClient) -> None:
    answer = client.post("/api/v1/worklist/claim", data=DEEP, headers={"Authorization": "Bearer root-token"})
    assert (answer.status_code, answer.get_json()["error"]) == (400, "body: JSON nested more than 64 deep")


@pytest.mark.parametrize("body", [DEEP, WIDE], ids=["deep", "wide"])
def test_an_event_that_unfolds_is_told_and_keeps_no_other_waiting(
    client: FlaskClient, home: Tiny, body: bytes
) -> None:
    home.intake.drain()
    assert client.post("/webhook", data=body).status_code == 202, "an event is kept first, whatever it is"
    assert home.intake.drain() == 1
    (doubt,) = home.store.corrections.doubts()
    assert doubt["message"].startswith("webhook: JSON ")


@pytest.mark.parametrize(
    "changed",
    [
        {"id": 2**63},
        {"id": 10**400},
        {"id": True},
        {"data": {"tile": 2**63}},
        {"data": {"image_id": "\ud800"}},
        {"data": {"image_key": ["x" * 100_000] * 100}},
        {"data": {"image": {"a": [[[[[[1]]]]]]}}},
    ],
    ids=["beyond the database", "400 digits", "a truth", "tile", "half a character", "10 MB", "a document"],
)
def test_a_value_that_nothing_holds_is_refused_in_few_words(
    client: FlaskClient, home: Tiny, changed: dict[str, Any]
) -> None:
    item = home.items()[0]
    data = task_data(home.store.images.get(home.name, item.image_id), item.tile, "/a", [])
    task = {"id": home.task_of(item), **changed, "data": {**data, **changed.get("data", {})}}
    answer = ask(client, [task])
    assert answer.status_code == 400, answer.text
    assert len(answer.get_json()["error"]) < 2000


@pytest.mark.parametrize(
    "project", ["9" * 5000, "9" * 30, 2**63, [1], {"a": 1}, "-1", "1e5", "²"], ids=range(8)
)
def test_a_project_that_cannot_be_is_refused(client: FlaskClient, project: object) -> None:
    answer = client.post("/predict", json={"tasks": [], "project": project})
    assert answer.status_code == 400, answer.text
    assert "expected '<id>.<unix time>'" in answer.get_json()["error"]


HUGE = "9" * 5000


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/api/v1/cycles/{2**63}", 404),
        ("GET", f"/api/v1/cycles/{HUGE}", 404),
        ("DELETE", f"/api/v1/cycles/{2**63}", 404),
        ("GET", f"/api/v1/reports/{2**63}", 404),
        ("GET", f"/reports/{HUGE}", 404),
        ("GET", f"/api/v1/cycles?limit={2**63}", 400),
        ("GET", f"/api/v1/worklist?queue={HUGE}", 400),
        ("GET", f"/api/v1/queues/{HUGE}", 400),
        ("POST", f"/api/v1/models/{HUGE}/promote", 404),
    ],
)
def test_a_number_in_an_address_is_no_bug(client: FlaskClient, method: str, path: str, status: int) -> None:
    answer = client.open(path, method=method, headers={"Authorization": "Bearer root-token"})
    assert answer.status_code == status, answer.text
    assert len(answer.text) < 20_000
