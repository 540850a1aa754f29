from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny import Tiny, make_tiny

from cytoloop.commands import doctor
from cytoloop.commands.doctor import Check, run_doctor
from cytoloop.commands.home import Home
from cytoloop.config import LOCAL_FILE
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.project import EVENTS, SECRET_HEADER
from labelstudio_config.renders import render_folder
from labelstudio_config.schema import labeling_config
from labelstudio_config.server import free_port


class Patient:
    """The in-memory Label Studio, with what only the doctor asks for."""

    def __init__(self, tiny: Tiny) -> None:
        self._tiny = tiny
        self.config = labeling_config(tiny.assay)
        self.release = doctor.TESTED_LABEL_STUDIO
        self.hook: dict[str, Any] = {
            "id": 5,
            "url": f"{tiny.settings.backend_url}/webhook",
            "is_active": True,
            "headers": {SECRET_HEADER: tiny.settings.webhook_secret},
            "actions": list(EVENTS),
            "send_for_all_actions": False,
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tiny.studio, name)

    def whoami(self) -> dict[str, Any]:
        return {"email": "ada@lab.org"}

    def version(self) -> str:
        return self.release

    def get_project(self, project_id: int) -> dict[str, Any]:
        return {**self._tiny.studio.get_project(project_id), "label_config": self.config}

    def list_webhooks(self, project_id: int) -> list[dict[str, Any]]:
        return [self.hook]

    def get_task(self, task_id: int) -> dict[str, Any]:
        return self._tiny.studio.task(task_id)

    def download(self, url: str) -> bytes:
        return (render_folder(self._tiny.home, "tiny") / url.rsplit("/", 1)[1]).read_bytes()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    made.publish_active()
    yield made
    made.store.close()


@pytest.fixture
def patient(tiny: Tiny) -> Patient:
    return Patient(tiny)


@pytest.fixture
def home(tiny: Tiny, patient: Patient) -> Iterator[Home]:
    made = Home(tiny.settings)
    made.__dict__["label_studio"] = patient  # instead of the client it would make when asked
    yield made
    made.close()


@pytest.fixture
def answers(home: Home) -> Iterator[dict[str, Any]]:
    """A backend on loopback: change ``status`` and ``body`` to make it another program."""
    said: dict[str, Any] = {"status": 200, "body": {"status": "UP", "model_class": "cytoloop"}}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["authorization"] = self.headers.get("Authorization")
            self.send_response(said["status"])
            self.end_headers()
            self.wfile.write(json.dumps(said["body"]).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    home.settings = replace(home.settings, backend_url=f"http://127.0.0.1:{server.server_port}")
    home.label_studio.hook["url"] = f"{home.settings.backend_url}/webhook"  # type: ignore[attr-defined]
    yield said
    server.shutdown()
    thread.join()
    server.server_close()


def examine(home: Home) -> dict[str, Check]:
    return {check.name: check for check in run_doctor(home)}


def failing(home: Home) -> dict[str, Check]:
    return {name: check for name, check in examine(home).items() if check.state != "ok"}


def test_where_all_is_well_every_check_is_ok(home: Home, answers: dict[str, Any]) -> None:
    checks = examine(home)
    assert {name: c.detail for name, c in checks.items() if c.state != "ok"} == {}
    assert list(checks) == [
        *("disk", "secrets", "databases", "mask round trip", "Label Studio", "backend"),
        *("tiny: labeling config", "tiny: version in force", "tiny: webhook", "tiny: image access", "inbox"),
    ]
    assert "8 predictions" in checks["tiny: version in force"].detail


def test_label_studio_down_fails_what_depends_on_it_and_no_more(home: Home, answers: dict[str, Any]) -> None:
    with LabelStudioClient(f"http://127.0.0.1:{free_port()}", "t", first_wait_s=0) as client:
        home.__dict__["label_studio"] = client
        found = failing(home)
    assert set(found) == {
        "Label Studio",
        *(f"tiny: {w}" for w in ("labeling config", "version in force", "webhook", "image access")),
    }
    assert found["Label Studio"].state == "failed"
    assert "cytoloop up" in found["Label Studio"].fix


def test_a_wrong_token_is_named_but_not_shown(home: Home, answers: dict[str, Any]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(401, json={"detail": "Invalid token."}))
    with LabelStudioClient("http://ls", "wrong-token-12", transport=transport) as client:
        home.__dict__["label_studio"] = client
        found = failing(home)
    assert "401: Invalid token." in found["Label Studio"].detail
    assert "CYTOLOOP_LABEL_STUDIO_TOKEN" in found["Label Studio"].fix
    assert "wrong-token-12" not in str(found)


def test_no_address_of_label_studio(home: Home, answers: dict[str, Any]) -> None:
    home.__dict__.pop("label_studio")
    home.settings = replace(home.settings, label_studio_url=None)
    assert "CYTOLOOP_LABEL_STUDIO_URL is not set" in failing(home)["Label Studio"].detail


def test_another_release_of_label_studio_is_a_warning(
    home: Home, patient: Patient, answers: dict[str, Any]
) -> None:
    patient.release = "2.0.0"
    (found,) = failing(home).values()
    assert (found.name, found.state) == ("Label Studio", "warning")


def test_no_backend(home: Home) -> None:
    home.settings = replace(home.settings, backend_url=f"http://127.0.0.1:{free_port()}")
    assert "start it" in failing(home)["backend"].fix
    home.settings = replace(home.settings, backend_url=None)
    assert "CYTOLOOP_BACKEND_URL is not set" in failing(home)["backend"].detail


def test_the_backend_is_asked_with_its_password(home: Home, answers: dict[str, Any]) -> None:
    examine(home)
    assert answers["authorization"].startswith("Basic ")
    answers["status"] = 401
    assert "must agree" in failing(home)["backend"].fix


@pytest.mark.parametrize("body", [{"status": "UP"}, "hello", {}])
def test_another_program_on_the_port_is_no_backend(home: Home, answers: dict[str, Any], body: Any) -> None:
    """Label Studio answers /health as well."""
    answers["body"] = body
    found = failing(home)["backend"]
    assert found.state == "failed"
    assert "another program" in found.detail


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"headers": {}}, "no or another secret"),
        ({"headers": {SECRET_HEADER: "old"}}, "no or another secret"),
        ({"is_active": False}, "no active webhook"),
        ({"url": "http://127.0.0.1:1/webhook"}, "no active webhook"),
        ({"actions": ["ANNOTATION_CREATED"]}, "is not sent for ['ANNOTATIONS_CREATED'"),
    ],
)
def test_a_webhook_that_would_lose_events(
    home: Home, patient: Patient, answers: dict[str, Any], change: dict[str, Any], told: str
) -> None:
    patient.hook |= change
    (found,) = failing(home).values()
    assert (found.name, found.state) == ("tiny: webhook", "failed")
    assert told in found.detail
    assert str(home.settings.webhook_secret) not in found.detail


def test_a_webhook_for_all_actions_will_do(home: Home, patient: Patient, answers: dict[str, Any]) -> None:
    patient.hook |= {"actions": [], "send_for_all_actions": True}
    assert failing(home) == {}


def test_a_missing_webhook_secret(home: Home, patient: Patient, answers: dict[str, Any]) -> None:
    home.settings = replace(home.settings, webhook_secret=None)
    patient.hook["headers"] = {}
    assert "CYTOLOOP_WEBHOOK_SECRET is not set" in failing(home)["tiny: webhook"].detail


def test_labels_that_are_not_the_assays(home: Home, patient: Patient, answers: dict[str, Any]) -> None:
    patient.config = patient.config.replace('"Nucleus"', '"Vacuole"')
    (found,) = failing(home).values()
    assert found.name == "tiny: labeling config"
    assert "Vacuole" in found.detail


def test_a_version_that_is_shown_but_not_in_force(home: Home, tiny: Tiny, answers: dict[str, Any]) -> None:
    tiny.studio.model_version = "cdl-20200101-00000000"
    (found,) = failing(home).values()
    assert found.name == "tiny: version in force"
    assert "'cdl-20200101-00000000'" in found.detail


def _small_picture() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (3, 2)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "told"), [(b"<html>log in</html>", "cannot identify"), (_small_picture(), "is (3, 2)")]
)
def test_a_picture_that_is_not_the_tile(
    home: Home,
    patient: Patient,
    answers: dict[str, Any],
    content: bytes,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patient, "download", lambda url: content)
    (found,) = failing(home).values()
    assert found.name == "tiny: image access"
    assert told in found.detail


def test_a_raw_file_that_is_gone(
    home: Home, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    get = home.store.images.get

    def moved(assay: str, image_id: str) -> Any:
        return replace(get(assay, image_id), files=("/nowhere/a.png", "/nowhere/b.png"))

    monkeypatch.setattr(home.store.images, "get", moved)
    (found,) = failing(home).values()
    assert "/nowhere/a.png: no such file" in found.detail


def test_events_that_could_not_be_stored(home: Home, answers: dict[str, Any]) -> None:
    home.store.corrections.add_doubt("tiny", "webhook", "event 7", "label 'Vacuole' is not of the assay")
    (found,) = failing(home).values()
    assert (found.name, found.state) == ("inbox", "warning")
    assert "event 7" in found.detail
    assert "Vacuole" in found.detail


def test_a_damaged_database(home: Home, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home.store, "check", lambda: ["cytoloop.sqlite3: row 3 missing from index"])
    found = failing(home)["databases"]
    assert (found.state, found.fix) == ("failed", "restore a backup of the home")


def test_a_full_disk(home: Home, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1024**3})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    assert failing(home)["disk"].state == "warning"


def test_an_assay_file_that_is_broken(home: Home, tiny: Tiny, answers: dict[str, Any]) -> None:
    (tiny.home / "assays" / "tiny.yaml").write_text("name: [", encoding="utf-8")
    found = failing(home)
    assert "not YAML" in found["tiny: assay file"].detail


def test_a_deep_look_compares_every_annotation_and_reads_every_mask(
    home: Home, tiny: Tiny, answers: dict[str, Any]
) -> None:
    def deep() -> dict[str, Check]:
        return {check.name: check for check in run_doctor(home, deep=True)}

    for item in tiny.items()[:3]:
        tiny.correct(item)
    lacking = deep()["tiny: store against Label Studio"]
    assert lacking.state == "failed"
    assert lacking.detail.startswith("3 annotation(s) lack in the store, 0 differ")
    tiny.intake.reconcile(tiny.assay)
    found = deep()
    assert found["tiny: store against Label Studio"].state == "ok"
    assert "3 of 3 annotations of 8 tasks" in found["tiny: store against Label Studio"].detail
    assert found["tiny: masks"].detail == "3 masks of corrections read, each as its digest says"
    correction = next(iter(tiny.store.corrections.standing(tiny.name).values()))
    path = tiny.store.masks.path(correction.mask)
    path.write_bytes(path.read_bytes()[:-40])
    broken = deep()["tiny: masks"]
    assert broken.state == "failed"
    assert str(path) in broken.detail
    assert "restore a backup" in broken.fix


def test_a_file_of_secrets_that_others_may_read(home: Home, answers: dict[str, Any]) -> None:
    path = home.settings.home / LOCAL_FILE
    path.write_text("{}")
    path.chmod(0o640)
    found = failing(home)["secrets"]
    assert (found.state, found.detail) == ("warning", f"{path}: mode 0640, others may read it")
    assert found.fix.startswith(f"chmod 600 {path}")


def test_a_rotation_that_was_not_finished(home: Home, answers: dict[str, Any]) -> None:
    home.settings = replace(home.settings, webhook_secrets_before=("the-secret-before-this-one",))
    found = failing(home)["secrets"]
    assert found.detail == "a rotation is not finished: the secrets before are taken, too"


def test_a_secret_that_could_be_guessed(home: Home, answers: dict[str, Any]) -> None:
    home.settings = replace(home.settings, backend_password="letmein")
    found = failing(home)["secrets"]
    assert found.detail == "CYTOLOOP_BACKEND_PASSWORD: shorter than 16 characters"
    assert "letmein" not in found.detail + found.fix
