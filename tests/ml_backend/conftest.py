"""A home with a plate in it, and a browser that looks at it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from tiny import ADA, Tiny, make_tiny
from werkzeug.test import TestResponse

from ml_backend.access import Role, add_token
from ml_backend.app import create_app

TOKENS: dict[Role, str] = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
NAMES: dict[Role, str] = {"expert": ADA.email, "admin": "root", "service": "robot"}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Browser:
    """What a person does with a browser: looks, and sends forms with what the page put into them."""

    client: FlaskClient

    def get(self, path: str = "/", status: int = 200) -> str:
        answer = self.client.get(path, headers=HTML)
        assert answer.status_code == status, answer.text
        return answer.text

    def reads(self, path: str = "/", status: int = 200) -> str:
        """A page as it is read: without marks, spaces as one."""
        body = self.get(path, status).partition("<body>")[2]
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())

    def another(self) -> Browser:
        """A browser of somebody else, who is not logged in."""
        return Browser(self.client.application.test_client())

    def token(self, page: str) -> str:
        """What a form of a page is known by."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', page)
        assert found is not None, page
        return found[1]

    def send(self, path: str, fields: dict[str, str] | None = None, on: str = "/") -> TestResponse:
        """Send a form of the page ``on``."""
        page = self.client.get(on, headers=HTML).text
        body = {**(fields or {}), "csrf_token": self.token(page)}
        return self.client.post(path, data=body, headers=HTML)

    def log_in(self, role: Role = "admin", wanted: str = "/") -> TestResponse:
        return self.send("/login", {"token": TOKENS[role], "next": wanted}, on="/login")

    def does(self, path: str, fields: dict[str, str] | None = None, on: str = "/") -> str:
        """Send a form that is taken; the page it leads to, as it is read."""
        answer = self.send(path, fields, on)
        assert answer.status_code == 303, answer.text
        return self.reads(answer.headers["Location"])


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.listen()
    for role, token in TOKENS.items():
        add_token(made.home / "api-tokens", token, NAMES[role], role)
    yield made
    made.store.close()


@pytest.fixture
def app(home: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: home.studio)
    app = create_app(home.settings, start=False)
    yield app
    app.extensions["cytoloop"]["store"].close()


@pytest.fixture
def browser(app: Flask) -> Browser:
    return Browser(app.test_client())
