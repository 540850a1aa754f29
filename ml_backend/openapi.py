"""The OpenAPI 3.1 document, made of the operations and their types.

pydantic writes the schemas; what is left to do is less than what a library for it (spectree, flask-openapi3, APIFlask)
would bring along: refusals of its own beside ours, and pages whose scripts come from other hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ml_backend.operations import EVERYONE, Operation, Reply
from ml_backend.schemas import Problem

References = Mapping[tuple[Any, JsonSchemaMode], Any]
"""Where the schema of a type is found, as a request or as an answer."""
OPENAPI = "3.1.0"
SCHEMAS = "#/components/schemas/"
ABOUT = (
    "What scripts ask of cytoloop. Every refusal is a JSON object with `error` (where, what was got, what was "
    "expected) and `request_id`."
)
BEARER = (
    "A token of `cytoloop tokens add NAME --role expert|admin|service`. Where a program can only send a name and a "
    "password (Basic), the token is taken as the password."
)
TAGS = {
    "worklists": "what to open next, and leases",
    "tasks": "what is known of one item, by Label Studio's number of its task",
    "queues": "policies of the queues",
    "models": "versions, and which of them serves",
    "cycles": "training cycles and their reports",
    "health": "is the loop healthy",
}
REFUSALS = {
    400: "the request is wrong; the message says where",
    401: "no token, or none of this server",
    403: "this role may not, or may not for somebody else",
    404: "there is no such thing",
    409: "the right request at the wrong moment",
    413: "the body is too large",
    429: "too many requests; `Retry-After` says for how many seconds",
    503: "Label Studio or the home is away, or nothing can be written; nothing was changed",
    507: "the disk of the home is full; nothing was changed",
}
"""What each status means, wherever it is an error."""
REFUSAL_HEADERS = {
    401: {"WWW-Authenticate": "how to prove who asks"},
    429: {"Retry-After": "seconds to wait"},
}


def document_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of these operations, as JSON."""
    listed = list(operations)
    references, definitions = models_json_schema(
        sorted({*_models(listed), (Problem, "serialization")}, key=lambda pair: (pair[0].__name__, pair[1])),
        ref_template=SCHEMAS + "{model}",
    )
    schemas = definitions.get("$defs", {})
    problem = references[Problem, "serialization"]
    paths: dict[str, dict[str, Any]] = {}
    for operation in listed:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": OPENAPI,
        "info": {"title": "cytoloop", "version": version("cytoloop"), "description": ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": words} for name, words in TAGS.items()],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": BEARER}},
            "schemas": schemas,
            "responses": {f"Refused{status}": _refusal(status, problem) for status in REFUSALS},
        },
    }


def _models(operations: Iterable[Operation]) -> set[tuple[type[BaseModel], JsonSchemaMode]]:
    found: set[tuple[type[BaseModel], JsonSchemaMode]] = set()
    for operation in operations:
        if operation.body is not None:
            found.add((operation.body, "validation"))
        found |= {(reply.model, "serialization") for reply in operation.replies.values() if reply.model}
    return found


def _operation(operation: Operation, references: References) -> dict[str, Any]:
    roles = list(EVERYONE if operation.roles is None else operation.roles)
    if operation.roles is None:
        who = "Open: no token is asked for."
    elif operation.is_token_optional:
        who = f"From elsewhere: {' or '.join(roles)}."
    else:
        who = f"Roles: {', '.join(roles)}."
    answers = {status: _reply(reply, references) for status, reply in operation.replies.items()}
    answers |= {
        status: {"$ref": f"#/components/responses/Refused{status}"}
        for status in operation.refused
        if status not in answers
    }
    told: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": f"{operation.words} {who}".strip(),
        "x-roles": roles,
        "responses": {str(status): answers[status] for status in sorted(answers)},
    }
    if operation.roles is None:
        told["security"] = []
    elif operation.is_token_optional:
        told["security"] = [{}, {"bearer": []}]
    parameters = [*_parts(operation), *_query(operation)]
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        told["requestBody"] = {
            "required": operation.needs_body,
            "content": {
                "application/json": {
                    "schema": references[operation.body, "validation"],
                    "examples": {name: {"value": value} for name, value in operation.bodies.items()},
                }
            },
        }
    return told


def _parts(operation: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": part.words,
            "schema": {"type": "string", "minLength": 1},
            "example": part.example,
        }
        for name, part in operation.parts.items()
    ]


def _query(operation: Operation) -> list[dict[str, Any]]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": field.pop("description"),
            "example": field.pop("examples")[0],
            "schema": _without_null(field),
        }
        for name, field in schema["properties"].items()
    ]


def _without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    """A query cannot say null: what may be left out is left out."""
    kept = {key: value for key, value in field.items() if key not in ("anyOf", "title")}
    if kept.get("default", 0) is None:
        del kept["default"]
    for choice in field.get("anyOf", ()):
        if choice != {"type": "null"}:
            kept |= choice
    return kept


def _reply(reply: Reply, references: References) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if reply.model is not None:
        content["schema"] = references[reply.model, "serialization"]
    elif reply.media.startswith("text/"):
        content["schema"] = {"type": "string"}
    if reply.example is not None:
        content["example"] = reply.example
    told: dict[str, Any] = {"description": reply.words, "content": {reply.media: content}}
    if reply.headers:
        told["headers"] = _headers(reply.headers)
    return told


def _refusal(status: int, problem: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "description": REFUSALS[status],
        "content": {"application/json": {"schema": problem}},
    }
    if status in REFUSAL_HEADERS:
        told["headers"] = _headers(REFUSAL_HEADERS[status])
    return told


def _headers(words: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": said, "schema": {"type": "string"}} for name, said in words.items()}
