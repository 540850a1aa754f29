"""Routes from operations: who asks, and what, is checked by the very words that the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from cytoloop.domain.errors import Forbidden
from ml_backend.access import ApiTokens, Caller
from ml_backend.bodies import json_object, json_object_or_nothing
from ml_backend.operations import Operation
from ml_backend.routes.label_studio import is_from_here
from ml_backend.schemas import Answer

View = Callable[..., Answer | tuple[Answer, int] | ResponseReturnValue]
"""Takes the parts of the address by name, and where its operation has them ``who``, ``query`` and ``body``."""


class Endpoints:
    """Registers views on a blueprint, each under its operation."""

    def __init__(self, routes: Blueprint, tokens: ApiTokens) -> None:
        self._routes = routes
        self._tokens = tokens

    def __call__(self, operation: Operation) -> Callable[[View], View]:
        """A decorator: the view answers the operation."""

        def register(view: View) -> View:
            def endpoint(**parts: str) -> ResponseReturnValue:
                given: dict[str, Any] = dict(parts)
                who = self._who(operation)
                if who is not None:
                    given["who"] = who
                if operation.query is not None:
                    given["query"] = operation.query.read(request.args.to_dict())
                if operation.body is not None:
                    body = json_object() if operation.needs_body else json_object_or_nothing()
                    where = ", ".join(f"{name} {value!r}" for name, value in parts.items())
                    given["body"] = operation.body.read(body, where=where)
                return _told(view(**given))

            self._routes.add_url_rule(operation.rule, operation.name, endpoint, methods=[operation.method])
            return view

        return register

    def _who(self, operation: Operation) -> Caller | None:
        if operation.roles is None or (operation.is_token_optional and is_from_here()):
            return None
        who = self._tokens.caller(given_token())
        if who.role not in operation.roles:
            raise Forbidden(f"role {who.role!r} may not do this; expected one of {list(operation.roles)}")
        return None if operation.is_token_optional else who


def given_token() -> str | None:
    """The token that came with this request; None without one."""
    given = request.authorization
    if given is None:
        return None
    # a browser cannot send a bearer token: it asks for name and password, the token being the latter
    return given.token if given.type == "bearer" else given.password


def _told(answer: Answer | tuple[Answer, int] | ResponseReturnValue) -> ResponseReturnValue:
    if isinstance(answer, Answer):
        return jsonify(answer.document())
    if isinstance(answer, tuple) and isinstance(answer[0], Answer):
        return jsonify(answer[0].document()), answer[1]
    return answer
