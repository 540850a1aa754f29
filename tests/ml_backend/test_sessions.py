"""Logging in, staying in, being put out; what a form must bring; what a page may do."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from flask import Flask
from tiny import Tiny

from cytoloop.config import KEY_FILE
from cytoloop.domain.errors import ConfigError
from ml_backend.access import Role, add_token, token_digest
from ml_backend.app import create_app
from ml_backend.sessions import own_path, session_key

if TYPE_CHECKING:
    from conftest import Browser

FORMS = (
    "/login",
    "/logout",
    "/cycles",
    "/cycles/x/cancel",
    "/models/x/promote",
    "/models/rollback",
    "/queues/default",
)


# --- in ---


@pytest.mark.parametrize("role", ["expert", "admin", "service"])
def test_a_token_opens_the_dashboard(browser: Browser, role: Role) -> None:
    answer = browser.log_in(role)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert "State of the loop" in browser.reads()
    assert browser.client.get("/login").headers["Location"] == "/", "who is in needs no login"


@pytest.mark.parametrize("path", ["/", "/queues/default", "/reports/c1?part=2"])
def test_whoever_is_not_logged_in_is_led_to_the_login_and_back(browser: Browser, path: str) -> None:
    answer = browser.client.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    login = answer.headers["Location"]
    assert login.startswith("/login?next=")
    page = browser.client.get(login, headers={"Accept": "text/html"}).text
    assert f'name="next" value="{path}"' in page
    assert browser.log_in("admin", wanted=path).headers["Location"] == path


@pytest.mark.parametrize("path", ["/", "/queues/default", "/reports/c1"])
def test_a_program_without_a_session_is_told_so_in_json(browser: Browser, path: str) -> None:
    answer = browser.client.get(path)
    assert answer.status_code == 401
    assert "expected" in answer.get_json()["error"]


@pytest.mark.parametrize("wrong", ["", "guessed", "root", token_digest("root-token")])
def test_every_wrong_token_gets_the_same_answer(browser: Browser, wrong: str) -> None:
    answer = browser.send("/login", {"token": wrong}, on="/login")
    assert answer.status_code == 401
    assert "This is no token of this server, or not any more." in answer.text
    assert 'value="guessed"' not in answer.text
    browser.get("/", 303)


def test_a_token_that_was_pasted_with_a_line_break(browser: Browser) -> None:
    browser.send("/login", {"token": "root-token\r\n"}, on="/login")
    browser.get("/")


@pytest.mark.parametrize(
    "wanted",
    [
        *(
            "//evil.example",
            "https://evil.example/",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
        ),
        *("javascript:alert(1)", "evil.example", "//[", "", " /x", "/\r\nSet-Cookie: a=b"),
    ],
)
def test_nobody_is_led_to_another_host(browser: Browser, wanted: str) -> None:
    assert own_path(wanted) == "/"
    assert browser.log_in("admin", wanted).headers["Location"] == "/"


def test_own_paths_are_kept() -> None:
    assert own_path("/queues/rosella/default?a=//b") == "/queues/rosella/default?a=//b"


# --- the cookie ---


def test_the_cookie_is_for_this_server_and_no_script(browser: Browser) -> None:
    cookie = browser.log_in().headers["Set-Cookie"]
    assert cookie.startswith("cytoloop_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie, "over http it would not come back"
    assert "root-token" not in cookie


def test_over_https_the_cookie_is_for_https_only(browser: Browser) -> None:
    page = browser.client.get("/login", base_url="https://lab.example")
    assert "Secure" in page.headers["Set-Cookie"]
    answer = browser.client.post(
        "/login",
        base_url="https://lab.example",
        data={"token": "root-token", "csrf_token": browser.token(page.text)},
        headers={"Referer": "https://lab.example/login"},
    )
    assert answer.status_code == 303
    assert "Secure" in answer.headers["Set-Cookie"]


def test_a_session_outlives_a_restart(home: Tiny, browser: Browser, app: Flask) -> None:
    browser.log_in()
    cookie = browser.client.get_cookie("cytoloop_session")
    assert cookie is not None
    again = create_app(home.settings, start=False)
    client = again.test_client()
    client.set_cookie("cytoloop_session", cookie.value)
    assert client.get("/").status_code == 200
    again.extensions["cytoloop"]["store"].close()


def test_a_cookie_that_others_signed_is_nobody(home: Tiny, browser: Browser, app: Flask) -> None:
    browser.log_in()
    app.secret_key = b"another"
    browser.get("/", 303)


# --- out ---


def test_whoever_logs_out_is_out(browser: Browser) -> None:
    browser.log_in()
    assert browser.send("/logout").headers["Location"] == "/login"
    browser.get("/", 303)


def test_a_token_that_is_taken_back_ends_its_sessions(home: Tiny, browser: Browser) -> None:
    other = browser.another()
    browser.log_in("admin")
    other.log_in("expert")
    path = home.settings.api_tokens
    assert path is not None
    kept = [line for line in path.read_text().splitlines(keepends=True) if " root " not in line]
    path.write_text("".join(kept))
    browser.get("/", 303)
    other.get("/")


def test_a_session_ends_by_itself(browser: Browser, app: Flask) -> None:
    browser.log_in()
    cookie = browser.client.get_cookie("cytoloop_session")
    assert cookie is not None
    assert cookie.expires is not None
    assert timedelta(hours=11) < cookie.expires - datetime.now(UTC) < timedelta(hours=13)
    app.permanent_session_lifetime = timedelta(seconds=-1)
    browser.get("/", 303)


def test_a_role_that_is_changed_holds_at_once(home: Tiny, browser: Browser) -> None:
    browser.log_in("service")
    assert "Settings" not in browser.reads()
    path = home.settings.api_tokens
    assert path is not None
    path.write_text(path.read_text().replace("robot service", "robot admin"))
    assert "Settings" in browser.reads()


# --- forms ---


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("brought", ["", "guessed", "of another"])
def test_a_form_from_elsewhere_is_refused(home: Tiny, browser: Browser, path: str, brought: str) -> None:
    browser.log_in()
    if brought == "of another":
        other = browser.another()
        brought = other.token(other.get("/login"))
    fields = {"csrf_token": brought, "assay": "tiny", "token": "root-token"}
    answer = browser.client.post(path, data=fields, headers={"Accept": "text/html"})
    assert answer.status_code == 400
    assert "Go back, load the page again" in answer.text
    assert home.store.cycles.queued() == []
    browser.get("/")


@pytest.mark.parametrize("path", FORMS[1:])
def test_a_form_without_a_session_does_nothing(home: Tiny, browser: Browser, path: str) -> None:
    answer = browser.send(path, {"assay": "tiny"}, on="/login")
    assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (303, "/login")
    assert home.store.cycles.queued() == []


def test_a_session_opens_no_route_of_scripts(home: Tiny, browser: Browser) -> None:
    """The API has no form tokens: a session there could be ridden by any page."""
    browser.log_in()
    assert browser.client.post("/api/v1/cycles", json={}).status_code == 401
    assert browser.client.get("/api/v1/models").status_code == 401
    assert home.store.cycles.queued() == []


# --- headers, errors, the log ---


def test_a_page_may_load_and_run_nothing_from_elsewhere(browser: Browser) -> None:
    browser.log_in()
    for path in ("/", "/queues/default", "/nothing"):
        answer = browser.client.get(path, headers={"Accept": "text/html"})
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; img-src 'self' data:")
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<script" not in answer.text
        assert "http://" not in answer.text.replace("http://127.0.0.1:8080", ""), (
            "only Label Studio is linked"
        )


def test_an_error_is_a_page_for_people_and_json_for_programs(browser: Browser) -> None:
    page = browser.reads("/nothing", 404)
    assert "There is no page of that address." in page
    assert "Back to the first page" in page
    assert "error" in browser.client.get("/nothing").get_json()
    html = {"Accept": "text/html"}
    assert "error" in browser.client.get("/api/v1/nothing", headers=html).get_json()
    assert "error" in browser.client.get("/health", headers=html).get_json(), "Label Studio's"
    browser.log_in()
    assert "Something went wrong here" in browser.reads("/cycles", 405)


def test_our_own_bug_is_a_page_without_a_traceback(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    browser.log_in()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret of ours")

    monkeypatch.setattr("ml_backend.dashboard.Dashboard.overview", broken)
    page = browser.reads("/", 500)
    assert "an error of ours; the log has it under this id" in page
    assert "secret of ours" not in page
    assert "secret of ours" in caplog.text


def test_no_token_is_logged(browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    browser.send("/login", {"token": "guessed-token"}, on="/login")
    browser.log_in("admin")
    browser.client.post("/logout", data={"csrf_token": "guessed-form"}, headers={"Accept": "text/html"})
    assert caplog.text
    for hidden in ("guessed-token", "root-token", token_digest("root-token"), "guessed-form"):
        assert hidden not in caplog.text


# --- the key ---


def test_the_key_of_a_home_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    key = session_key(tmp_path)
    assert len(key) >= 32
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert session_key(tmp_path) == key
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE], "nothing is left behind"
    other = tmp_path / "other"
    other.mkdir()
    assert session_key(other) != key


@pytest.mark.parametrize("text", ["", "abc", "ä" * 64, "0" * 62])
def test_a_key_that_is_none_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    (tmp_path / KEY_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"session-key: expected a key of 32 bytes in hexadecimal"
    ) as caught:
        session_key(tmp_path)
    assert not text or text not in str(caught.value)


def test_a_login_from_another_computer_is_another_session(home: Tiny, browser: Browser) -> None:
    add_token(home.home / "api-tokens", "second-token", "second", "admin")
    other = browser.another()
    browser.log_in()
    other.send("/login", {"token": "second-token"}, on="/login")
    assert "root (admin)" in browser.reads()
    assert "second (admin)" in other.reads()
