"""Secrets made anew: cut off at Label Studio, gone on with, and what the environment gives left alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import make_tiny

from cytoloop.commands import rotation
from cytoloop.commands.home import Home
from cytoloop.commands.rotation import rotate
from cytoloop.config import Settings, read_local, write_local
from cytoloop.domain.errors import LabelStudioUnavailable, StateError

FIRST = {"backend_password": "password-1", "webhook_secret": "secret-1"}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What Label Studio was told; no connection is made."""
    told: list[Settings] = []
    monkeypatch.setattr(rotation, "connect", lambda studio, store, assay, settings: told.append(settings))
    monkeypatch.setattr(Home, "label_studio", None)
    return told


@pytest.fixture
def home(tmp_path: Path, told: list[Settings]) -> Iterator[Home]:
    tiny = make_tiny(tmp_path)
    write_local(tiny.home, FIRST)
    (tiny.home / "assays").mkdir(exist_ok=True)
    tiny.store.close()
    opened = Home(Settings.from_env({}, tiny.home))
    opened.load = lambda name: tiny.assay  # type: ignore[method-assign]
    yield opened
    opened.close()


def test_label_studio_is_told_the_new_while_the_old_is_taken(home: Home, told: list[Settings]) -> None:
    rotate(home, {})
    (settings,) = told
    assert settings.webhook_secrets_before == ("secret-1",)
    assert settings.backend_passwords_before == ("password-1",)
    local = read_local(home.settings.home)
    assert (local["webhook_secret"], local["backend_password"]) == (
        settings.webhook_secret,
        settings.backend_password,
    )
    assert set(FIRST.values()).isdisjoint(local.values())


def test_a_rotation_that_is_cut_off_is_gone_on_with(
    home: Home, told: list[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise LabelStudioUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(rotation, "connect", away)
        with pytest.raises(LabelStudioUnavailable):
            rotate(home, {})
    between = Settings.from_env({}, home.settings.home)
    assert between.webhook_secrets_before == ("secret-1",), "what Label Studio may still send is taken"
    rotate(home, {})
    assert told[0].webhook_secret == between.webhook_secret, "what it may have been told already"
    assert Settings.from_env({}, home.settings.home).webhook_secrets_before == ()


def test_what_the_environment_gives_is_told_and_not_changed(home: Home, told: list[Settings]) -> None:
    environ = {"CYTOLOOP_WEBHOOK_SECRET": "secret-new secret-old"}
    done = rotate(home, environ)
    assert (done.renewed, done.from_environment) == (("backend_password",), ("webhook_secret",))
    assert (told[0].webhook_secret, told[0].webhook_secrets_before) == ("secret-new", ("secret-old",))
    assert read_local(home.settings.home)["webhook_secret"] == "secret-1"


def test_without_a_project_there_is_nothing_to_rotate(tmp_path: Path) -> None:
    home = Home(Settings.from_env({}, tmp_path))
    with pytest.raises(StateError, match="no assay has a project"):
        rotate(home, {})
    home.close()
