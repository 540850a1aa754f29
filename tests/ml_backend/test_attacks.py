"""Who tries to get in, and what each gets: the doors of the web process, tried from outside."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from tiny import Tiny
from werkzeug.test import TestResponse

from cytoloop.cli import run
from cytoloop.config import Settings, write_local
from cytoloop.domain.errors import ConfigError
from labelstudio_config.project import SECRET_HEADER
from ml_backend import limits
from ml_backend.access import Credentials, is_one_of
from ml_backend.app import create_app

TOKENS = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
OPEN = ("/health", "/versions")


@pytest.fixture
def made(home: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FlaskClient]]:
    """Makes the real application with other settings."""
    apps: list[Flask] = []
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: home.studio)

    def make(**changes: Any) -> FlaskClient:
        apps.append(create_app(replace(home.settings, **changes), start=False))
        return apps[-1].test_client()

    yield make
    for app in apps:
        app.extensions["cytoloop"]["store"].close()


def basic(password: str, user: str = "label-studio") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# --- without credentials: by choice, and from this machine ---


@pytest.mark.parametrize("missing", ["backend_password", "webhook_secret"])
def test_a_server_that_anyone_could_call_does_not_start(
    home: Tiny, made: Callable[..., FlaskClient], missing: str
) -> None:
    with pytest.raises(ConfigError, match=f"CYTOLOOP_{missing.upper()} is not set") as caught:
        made(**{missing: None})
    assert "cytoloop backend --open" in str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "cytoloop.hospital.example", "::"])
def test_an_open_server_listens_to_this_machine_alone(
    tmp_path: Path, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--home", str(tmp_path), "backend", "--open", "--host", host]) == 2
    assert f"--open with --host {host}: expected 127.0.0.1" in capsys.readouterr().err


def test_an_open_server_answers_programs_of_this_machine(made: Callable[..., FlaskClient]) -> None:
    client = made(backend_password=None, webhook_secret=None, is_open=True)
    assert [client.get(path).status_code for path in OPEN] == [200, 200]
    assert client.post("/webhook", json={"action": "X"}).status_code == 202
    assert client.get("/api/v1/models").status_code == 401, "scripts and people need their token all the same"


@pytest.mark.parametrize(
    ("environ", "headers"),
    [
        ({"REMOTE_ADDR": "192.168.1.9"}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
        ({}, {"X-Forwarded-For": "127.0.0.1"}),
        ({}, {"Host": "rebound.evil.example:9090"}),
    ],
    ids=["another machine", "a page's script", "a page's form", "through a proxy", "a name that leads here"],
)
def test_an_open_server_answers_nobody_else(
    made: Callable[..., FlaskClient], environ: dict[str, str], headers: dict[str, str]
) -> None:
    client = made(backend_password=None, webhook_secret=None, is_open=True)
    for path in OPEN:
        assert client.get(path, headers=headers, environ_overrides=environ).status_code == 401
    answer = client.post("/webhook", json={"action": "X"}, headers=headers, environ_overrides=environ)
    assert answer.status_code == 401


def test_what_is_set_is_asked_for_though_the_server_is_open(made: Callable[..., FlaskClient]) -> None:
    client = made(is_open=True)
    assert client.get("/health").status_code == 401
    assert client.post("/webhook", json={"action": "X"}).status_code == 401


# --- secrets ---


def test_nothing_given_is_never_the_secret() -> None:
    assert is_one_of("a", ["b", "a"])
    assert not is_one_of(None, ["a"])
    assert not is_one_of("", ["a"])
    assert not is_one_of("ä", ["a"])
    assert not is_one_of("", [])


def test_the_secret_before_is_taken_until_it_is_taken_out(made: Callable[..., FlaskClient]) -> None:
    settings = Settings.from_env(
        {
            "CYTOLOOP_WEBHOOK_SECRET": "secret-new secret-old",
            "CYTOLOOP_BACKEND_PASSWORD": "password-new password-old",
        }
    )
    assert (settings.webhook_secret, settings.backend_password) == ("secret-new", "password-new")
    names = ("webhook_secret", "webhook_secrets_before", "backend_password", "backend_passwords_before")
    client = made(**{name: getattr(settings, name) for name in names})
    for known in ("new", "old"):
        assert client.get("/health", headers=basic(f"password-{known}")).status_code == 200
        answer = client.post("/webhook", json={"action": "X"}, headers={SECRET_HEADER: f"secret-{known}"})
        assert answer.status_code == 202
    for guess in ("secret-new secret-old", "secret-", ""):
        answer = client.post("/webhook", json={"action": "X"}, headers={SECRET_HEADER: guess})
        assert answer.status_code == 401


def test_a_running_server_follows_the_secrets_of_its_home(
    home: Tiny, made: Callable[..., FlaskClient]
) -> None:
    write_local(home.home, {"webhook_secret": "secret-1", "backend_password": "password-1"})
    client = made(webhook_secret="secret-1", backend_password="password-1")

    def status(number: int) -> tuple[int, int]:
        event = client.post("/webhook", json={"action": "X"}, headers={SECRET_HEADER: f"secret-{number}"})
        return client.get("/health", headers=basic(f"password-{number}")).status_code, event.status_code

    assert (status(1), status(2)) == ((200, 202), (401, 401))
    write_local(
        home.home, {"webhook_secret": "secret-2 secret-1", "backend_password": "password-2 password-1"}
    )
    assert (status(1), status(2)) == ((200, 202), (200, 202))
    write_local(home.home, {"webhook_secret": "secret-2", "backend_password": "password-2"})
    assert (status(1), status(2)) == ((401, 401), (200, 202))


def test_secrets_of_the_environment_are_not_those_of_the_home(home: Tiny) -> None:
    write_local(home.home, {"webhook_secret": "secret-1", "backend_password": "password-1"})
    settings = replace(home.settings, webhook_secret="from-the-environment", backend_password="password-1")
    credentials = Credentials(settings)
    write_local(home.home, {"webhook_secret": "secret-2", "backend_password": "password-2"})
    assert credentials.webhook_secrets() == ("from-the-environment",)
    assert credentials.passwords() == ("password-2",)


# --- too much ---


def test_logins_that_fail_are_not_listened_to_for_long(
    made: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGINS", "3 per minute")
    client = made()

    def log_in(token: str, **more: Any) -> TestResponse:
        found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/login").text)
        assert found is not None
        return client.post("/login", data={"token": token, "csrf_token": found[1]}, **more)

    assert [log_in(f"guess-{n}").status_code for n in range(4)] == [401, 401, 401, 429]
    answer = log_in(TOKENS["admin"], headers={"Accept": "text/html"})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) in range(1, 61)
    assert "too many logins that failed; wait a minute" in answer.text
    elsewhere = {"REMOTE_ADDR": "127.0.0.9"}
    assert log_in(TOKENS["admin"], environ_overrides=elsewhere).status_code == 303


def test_guessing_tokens_ends_and_keeps_no_event_of_label_studio_away(
    made: Callable[..., FlaskClient], home: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GUESSES", "5 per minute")
    client = made()
    told = [client.get("/api/v1/models", headers={"Authorization": f"Bearer guess-{n}"}) for n in range(6)]
    assert [answer.status_code for answer in told] == [401] * 5 + [429]
    assert (
        told[-1].get_json()["error"] == "too many requests without a valid token or password; wait a minute"
    )
    event = client.post(
        "/webhook", json={"action": "X"}, headers={SECRET_HEADER: str(home.settings.webhook_secret)}
    )
    assert event.status_code == 202


def test_a_script_that_runs_wild_is_slowed_down_and_others_are_not(
    made: Callable[..., FlaskClient], home: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACE", "5 per minute")
    client = made()

    def ask(role: str) -> int:
        headers = {"Authorization": f"Bearer {TOKENS[role]}"}
        return client.get("/api/v1/worklist", headers=headers).status_code

    assert [ask("service") for _ in range(6)] == [200] * 5 + [429]
    assert ask("admin") == 200
    password = basic(str(home.settings.backend_password))
    assert [client.get("/health", headers=password).status_code for _ in range(20)] == [200] * 20


@pytest.mark.parametrize(
    ("proxies", "address"), [(0, "127.0.0.1"), (1, "203.0.113.7")], ids=["nobody's word", "the proxy's word"]
)
def test_a_callers_address_is_its_own_unless_a_proxy_is_known(
    made: Callable[..., FlaskClient], monkeypatch: pytest.MonkeyPatch, proxies: int, address: str
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(limits, "get_remote_address", lambda: seen.append(limits.request.remote_addr) or "x")
    client = made(proxies=proxies)
    client.get("/api/v1/models", headers={"X-Forwarded-For": "203.0.113.7"})
    assert set(seen) == {address}


def test_a_body_is_read_only_up_to_what_its_route_takes(made: Callable[..., FlaskClient], home: Tiny) -> None:
    client = made()
    token = {"Authorization": f"Bearer {TOKENS['admin']}"}
    body = b'{"queue": "' + b"x" * limits.LARGEST_BODY + b'"}'
    answer = client.post("/api/v1/worklist/claim", data=body, headers=token)
    assert answer.status_code == 413
    assert answer.get_json()["error"] == (
        f"the body is larger than this server takes here, {limits.LARGEST_BODY} bytes"
    )
    assert answer.headers["Connection"] == "close"
    event = {SECRET_HEADER: str(home.settings.webhook_secret)}
    assert client.post("/webhook", data=body, headers=event).status_code == 202, "masks are large"
    assert client.post("/webhook", data=body).status_code == 401, "of a stranger nothing is read"


# --- other sites ---


@pytest.mark.parametrize("path", ["/", "/login", "/livez", "/health", "/api/v1/models", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_no_page_of_another_site_may_read_an_answer(
    made: Callable[..., FlaskClient], path: str, method: str
) -> None:
    answer = made().open(
        path,
        method=method,
        headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
    )
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_whoever_came_by_https_stays_there(made: Callable[..., FlaskClient]) -> None:
    client = made()
    assert "Strict-Transport-Security" not in client.get("/livez").headers
    secure = client.get("/livez", base_url="https://cytoloop.example")
    assert secure.headers["Strict-Transport-Security"].startswith("max-age=")
