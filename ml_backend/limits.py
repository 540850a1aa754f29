"""How much one caller may ask for: guesses at tokens, requests a minute, bytes in a body.

Counted in memory: there is one web process. Label Studio's calls with the right password are not counted, for an
event it cannot deliver is an event it forgets.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, Response, request
from flask.json.provider import DefaultJSONProvider
from flask_limiter import ApplicationLimit, Limiter
from flask_limiter.util import get_remote_address
from werkzeug.middleware.proxy_fix import ProxyFix

from cytoloop.domain.documents import check_json
from ml_backend.access import token_digest

LARGEST_BODY = 1024 * 1024
"""Of a form or a script's request; Label Studio's own routes take more."""
GUESSES = "100 per minute"
"""Refused credentials of one address, after which it is not listened to: what is asked for is 24 random bytes long."""
LOGINS = "10 per minute"
PACE = "6000 per minute"
"""Requests of one token: above what scripts and browsers do, below what keeps others from being served."""


def use_limits(app: Flask, proxies: int) -> None:
    """Let an app refuse what is too much: 413 for a body, 400 for one that unfolds, 429 (with ``Retry-After``) for the rest.

    Parameters
    ----------
    proxies : int
        How many reverse proxies stand in front. Their word is taken for the caller's address and scheme; with 0
        nobody's is, and all who come through one proxy count as one.
    """
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_BODY
    app.json = _BoundedJson(app)
    if proxies:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies, x_host=proxies)  # type: ignore[method-assign]
    Limiter(
        get_remote_address,
        app=app,
        storage_uri="memory://",
        headers_enabled=True,
        application_limits=[
            ApplicationLimit(
                LOGINS,
                key_function=lambda: f"login {get_remote_address()}",
                exempt_when=lambda: (request.method, request.path) != ("POST", "/login"),
                deduct_when=_is_refused,
                error_message="too many logins that failed; wait a minute",
            ),
            ApplicationLimit(
                GUESSES,
                key_function=lambda: f"{request.blueprint} {get_remote_address()}",
                deduct_when=_is_refused,
                error_message="too many requests without a valid token or password; wait a minute",
            ),
            ApplicationLimit(
                PACE,
                key_function=_caller,
                exempt_when=lambda: request.blueprint == "label_studio",
                error_message=f"more than {PACE}; slow down",
            ),
        ],
    )


class _BoundedJson(DefaultJSONProvider):
    """JSON of requests, refused before it takes all memory or stack."""

    def loads(self, s: str | bytes, **options: Any) -> Any:
        check_json(s.encode() if isinstance(s, str) else s, "body")
        return super().loads(s, **options)


def _caller() -> str:
    given = request.authorization
    token = None if given is None else given.token or given.password
    return token_digest(token) if token else get_remote_address()


def _is_refused(response: Response) -> bool:
    return response.status_code == 401
