"""A disk that is full or read-only: a clear answer, and nothing is lost that was acknowledged."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import NoDisk, fill, small_disk
from flask import Flask
from flask.testing import FlaskClient
from tiny import Tiny, make_tiny, open_tiny

from cytoloop.adapters.storage import storage_error
from labelstudio_config.project import SECRET_HEADER
from ml_backend.app import create_app

DISK_MB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(small_disk(tmp_path / "disk", DISK_MB))
        except NoDisk as error:
            pytest.skip(str(error))
        yield place


@pytest.fixture
def tiny(disk: Path, tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.store.close()
    shutil.copytree(made.home, disk / "home", symlinks=True)
    moved = open_tiny(disk / "home", made.studio, made.truth)
    yield moved
    moved.store.close()


@pytest.fixture
def app(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: tiny.studio)
    app = create_app(tiny.settings, start=False)
    yield app
    app.extensions["cytoloop"]["store"].close()


def send(web: FlaskClient, bodies: list[bytes]) -> list[int]:
    """What each event was answered."""
    secret = {SECRET_HEADER: "webhook-secret-5d0e"}
    answers = [web.post("/webhook", data=body, headers=secret) for body in bodies]
    for answer in answers:
        if answer.status_code != 202:
            assert answer.get_json()["error"].startswith(
                ("the disk of the home is full", "the home cannot be")
            )
    return [answer.status_code for answer in answers]


def events_of(tiny: Tiny, count: int) -> list[bytes]:
    """Corrections, as the events that tell of them."""
    bodies: list[bytes] = []
    tiny.studio.listener = bodies.append
    for item in tiny.items()[:count]:
        tiny.correct(item)
    return bodies


def test_a_full_disk_loses_nothing_that_was_acknowledged(tiny: Tiny, app: Flask, disk: Path) -> None:
    web = app.test_client()
    bodies = events_of(tiny, 12)
    assert send(web, bodies[:4]) == [202] * 4
    ballast = fill(disk)
    answers = send(web, bodies[4:] * 6)  # the last pages that SQLite holds already take a few
    assert 507 in answers
    assert set(answers) <= {202, 507}
    for _ in range(3):  # as the background thread does meanwhile
        failed: Exception | None = None
        try:
            tiny.intake.drain()
        except Exception as error:
            failed = error
        assert failed is None or storage_error(failed) is not None
    assert tiny.store.check() == []
    ballast.unlink()
    acknowledged = 4 + answers.count(202)
    assert tiny.store.inbox.last() == acknowledged
    tiny.intake.drain()
    assert tiny.store.corrections.last_event() == acknowledged
    assert send(web, bodies) == [202] * 12
    tiny.intake.drain()
    standing = tiny.store.corrections.standing(tiny.name)
    assert len(standing) == 12
    for item, correction in standing.items():
        assert (tiny.store.masks.get(correction.mask) == tiny.truth_of(item)).all()


def test_a_read_only_disk_is_told(tiny: Tiny, app: Flask) -> None:
    web = app.test_client()
    bodies = events_of(tiny, 3)
    assert send(web, bodies[:1]) == [202]
    inbox = app.extensions["cytoloop"]["store"].inbox.file.db
    inbox.execute("PRAGMA query_only = ON")  # SQLite says what it says of a disk that is mounted read-only
    assert send(web, bodies[1:2]) == [503]
    inbox.execute("PRAGMA query_only = OFF")
    assert send(web, bodies[1:]) == [202] * 2
    tiny.intake.drain()
    assert len(tiny.store.corrections.standing(tiny.name)) == 3


def test_a_full_disk_is_told_by_the_probe_before_it_costs_anything(
    disk: Path, tiny: Tiny, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.health.PROBE_EVERY_S", 0.0)
    web = app.test_client()
    assert web.get("/readyz").status_code == 200
    fill(disk)
    # what SQLite has room for in its files already is used up first
    told = next(answer for answer in (web.get("/readyz") for _ in range(2000)) if answer.status_code != 200)
    assert told.status_code == 503
    assert "cannot be written: database or disk is full" in " ".join(told.get_json()["reasons"])
    (disk / "ballast").unlink()
    assert web.get("/readyz").status_code == 200
