"""Errors and headers at the edge: one translation for programs (JSON), one for people (a page)."""

from __future__ import annotations

import logging

from flask import Response, g, jsonify, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError  # type: ignore[import-untyped]
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from cytoloop.adapters.storage import storage_error
from cytoloop.domain.errors import AccessDenied, CytoloopError

logger = logging.getLogger(__name__)

OURS = "an error of ours; the log has it under this id"
TITLES = {
    400: "This could not be understood",
    401: "Please log in",
    403: "Not for this login",
    404: "Nothing is here",
    409: "Not now",
    413: "Too large",
    429: "Too often",
    503: "Something is away",
    507: "The disk is full",
}
TOO_LARGE = "the body is larger than this server takes here, {limit} bytes"
PLAIN = {404: "There is no page of that address.", 405: "This address is no page; a form leads here."}
"""In the place of the library's words, on pages."""
STALE_FORM = "The form is from before your last login, or not from this site. Go back, load the page again, and repeat it."
CLOSED = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
PAGE_POLICY = f"default-src 'none'; style-src 'self'; img-src 'self' data:; {CLOSED}"
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
A_YEAR_S = 365 * 24 * 3600
REPORT_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {CLOSED}"
"""A report is one file: its style and its pictures are inside."""


def explain(error: Exception) -> ResponseReturnValue:
    """One translation of every error: a message and a request id, never a traceback."""
    request_id = g.get("request_id", "")
    about_disk = storage_error(error)
    if about_disk is not None:
        logger.error("%s %s %s request=%s: %r", about_disk, request.method, request.path, request_id, error)
        error = about_disk
    if isinstance(error, CytoloopError):
        logger.info("refused %s %s request=%s: %s", request.method, request.path, request_id, error)
        status, message = error.http_status, str(error)
    elif isinstance(error, CSRFError):
        logger.info(
            "refused %s %s request=%s: %s", request.method, request.path, request_id, error.description
        )
        status, message = 400, STALE_FORM
    elif isinstance(error, RequestEntityTooLarge):
        status, message = 413, TOO_LARGE.format(limit=request.max_content_length)
    elif isinstance(error, HTTPException):
        status, message = error.code or 500, error.description or ""
        if wants_page():
            message = PLAIN.get(status, message)
    else:
        logger.exception("bug in %s %s request=%s", request.method, request.path, request_id)
        status, message = 500, OURS
    return _page(status, message) if wants_page() else _document(error, status, message)


def wants_page() -> bool:
    """Whether a person reads the answer: a browser asks for HTML by name, programs do not."""
    if request.path.startswith("/api/") or request.blueprint == "label_studio":
        return False
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def _page(status: int, message: str) -> ResponseReturnValue:
    if status == AccessDenied.http_status:
        wanted = request.full_path.rstrip("?") if request.method == "GET" else "/"
        return redirect(url_for("dashboard.login", next=wanted), 303)
    title = TITLES.get(status, "Something went wrong here")
    page = render_template(
        "error.html", title=title, message=message, request_id=g.get("request_id", ""), status=status
    )
    return page, status


def _document(error: Exception, status: int, message: str) -> ResponseReturnValue:
    response = jsonify(error=message, request_id=g.get("request_id", ""))
    if isinstance(error, RequestEntityTooLarge):
        response.headers["Connection"] = "close"  # what was not read is in the way of the next request
    if isinstance(error, AccessDenied):
        response.headers["WWW-Authenticate"] = 'Basic realm="cytoloop"'
    return response, status


def guard(response: Response) -> Response:
    """Headers of every answer: nothing from elsewhere, no script, no frame, nothing kept, nothing for other sites.

    No answer names another origin (CORS), so that a page of another site reads none of them.
    """
    is_page = response.mimetype == "text/html"
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    # not no-referrer: over https a form is known by it (Flask-WTF)
    headers["Referrer-Policy"] = "same-origin"
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if is_page else DATA_POLICY)
    if request.endpoint != "static":
        headers["Cache-Control"] = "no-store"
    if request.is_secure:
        headers["Strict-Transport-Security"] = f"max-age={A_YEAR_S}"
    return response
