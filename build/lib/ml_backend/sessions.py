"""Logging in with a browser: a token given once, then a signed cookie that says whose it was.

The cookie holds the token's digest, never the token. It is looked up in the token file on every request,
so a token that is taken out of the file ends its sessions too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from flask_wtf.csrf import CSRFProtect  # type: ignore[import-untyped]

from cytoloop.config import KEY_FILE
from cytoloop.domain.errors import AccessDenied, ConfigError
from ml_backend.access import ApiTokens, Caller, token_digest

KEY_BYTES = 32
LONGEST_SESSION = timedelta(hours=12)
"""Without a click; a working day."""
_TOKEN = "token_digest"  # noqa: S105 - a name, no secret
HOME_PAGE = "/"


class _Cookies(SecureCookieSessionInterface):
    """Flask's signed cookie, *Secure* wherever the browser came by https."""

    def get_cookie_secure(self, app: Flask) -> bool:
        return request.is_secure


def use_sessions(app: Flask, home: Path) -> CSRFProtect:
    """Let an app have sessions; what is returned checks the token of a form when it is asked to.

    It is asked by the pages alone: bearer tokens and Label Studio's requests do not ride on a cookie.
    """
    app.secret_key = session_key(home)
    app.session_interface = _Cookies()
    app.permanent_session_lifetime = LONGEST_SESSION
    app.config.update(
        SESSION_COOKIE_NAME="cytoloop_session",  # cookies know no ports: Label Studio has its own on this host
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,  # a page stays open for a day; its token ends with the session
    )
    return CSRFProtect(app)


def log_in(tokens: ApiTokens, token: str) -> Caller:
    """Begin a session; ``AccessDenied``, in the same words for whatever is wrong, if it is no token of ours."""
    token = token.strip()  # pasted with a line break
    try:
        who = tokens.caller(token)
    except AccessDenied:
        raise AccessDenied("This is no token of this server, or not any more.") from None
    session.clear()
    session.permanent = True
    session[_TOKEN] = token_digest(token)
    return who


def log_out() -> None:
    """End the session."""
    session.clear()


def logged_in(tokens: ApiTokens) -> Caller | None:
    """Whose session this is; None without one, or if its token is not in the file any more."""
    digest = session.get(_TOKEN)
    return tokens.holder(digest) if isinstance(digest, str) else None


def own_path(wanted: str | None) -> str:
    """Where to go after the login: a path of this server, the first page in place of anything else.

    Examples
    --------
    >>> own_path("/reports/c1?a=b"), own_path("//evil.example/"), own_path("https://evil.example"), own_path(None)
    ('/reports/c1?a=b', '/', '/', '/')
    """
    # browsers take a backslash for a slash, and pass over control characters: /\t/evil.example is another host
    if not wanted or "\\" in wanted or not wanted.isprintable() or not wanted.startswith("/"):
        return HOME_PAGE
    try:
        parts = urlsplit(wanted)
    except ValueError:  # as //[
        return HOME_PAGE
    return HOME_PAGE if parts.scheme or parts.netloc or wanted.startswith("//") else wanted


def session_key(home: Path) -> bytes:
    """The key of this home, made on first use, readable by its owner alone.

    Raises
    ------
    ConfigError
        If the file holds something else; the message does not show it.
    """
    path = home / KEY_FILE
    if not path.is_file():
        _make_key(path)
    text = path.read_text(encoding="ascii", errors="replace").strip()
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES:
        raise ConfigError(
            f"{path}: expected a key of {KEY_BYTES} bytes in hexadecimal; delete the file and a new one is made"
        )
    return key


def _make_key(path: Path) -> None:
    """Write a key whole and once: of two processes that start together both go on with the first one's."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
