"""Bodies of requests as JSON, whatever was sent: what cannot be read is the caller's mistake, never ours."""

from __future__ import annotations

from flask import current_app, request

from cytoloop.domain.errors import InputError


def json_object() -> dict[str, object]:
    """The body, a JSON object.

    Raises
    ------
    InputError
        If it is anything else, or nothing.
    """
    body = _document()
    if not isinstance(body, dict):
        raise InputError(f"{request.path}: got {type(body).__name__}, expected a JSON object")
    return body


def json_object_or_nothing() -> dict[str, object]:
    """The body, a JSON object; an empty one where there is no body."""
    return json_object() if request.get_data() else {}


def _document() -> object:
    """What the body says; None if it is empty. Its content type is not asked for."""
    data = request.get_data()
    if not data:
        return None
    try:
        document: object = current_app.json.loads(data)  # the application's: it may set bounds
        return document
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are no text, endless digits
        raise InputError(
            f"{request.path}: got no JSON ({str(error)[:100]}), expected a JSON object"
        ) from error
