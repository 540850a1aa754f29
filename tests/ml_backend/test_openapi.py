"""The OpenAPI document: whole, valid, and true of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from places import ROOT
from prometheus_client.parser import text_string_to_metric_families
from tiny import Tiny

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.queue_policy import SHARES, QueuePolicy
from cytoloop.domain.strategies import STRATEGIES
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.publish import publish
from ml_backend import limits
from ml_backend.app import create_app
from ml_backend.openapi import document_of
from ml_backend.operations import ALL, EVERYONE, Operation
from ml_backend.schemas import Policy

TOKENS = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
DOCUMENT = json.loads(json.dumps(document_of(ALL)))
ELSEWHERE = {"REMOTE_ADDR": "192.168.1.9"}
"""Metrics are open to this machine."""
BY_NAME = {operation.name: operation for operation in ALL}


@pytest.fixture
def web(home: Tiny, app: Flask) -> FlaskClient:
    home.publish_active()
    return app.test_client()


def check(schema: Mapping[str, Any], value: Any) -> None:
    """That a value is what a schema of the document says."""
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)


def told(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return found


def answer_of(operation: Operation, status: int) -> dict[str, Any]:
    """What the document says of an answer."""
    found: dict[str, Any] = told(operation)["responses"][str(status)]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


def send(
    web: FlaskClient,
    operation: Operation,
    role: str | None,
    parts: Mapping[str, str] | None = None,
    **more: Any,
) -> Any:
    """Send a request, and hold its answer against the document."""
    values = {name: part.example for name, part in operation.parts.items()} | dict(parts or {})
    answer = web.open(
        operation.path.format(**values),
        method=operation.method,
        headers={} if role is None else {"Authorization": f"Bearer {TOKENS.get(role, role)}"},
        environ_overrides=ELSEWHERE,
        **more,
    )
    assert str(answer.status_code) in told(operation)["responses"], answer.text
    said = answer_of(operation, answer.status_code)
    (media,) = said["content"]
    assert answer.mimetype == media
    if media == "application/json":
        check(said["content"][media]["schema"], answer.get_json())
    for name in said.get("headers", ()):
        if operation.name != "mask":  # whose headers depend on where it comes from
            assert name in answer.headers
    return answer


# --- whole and valid ---


def test_the_document_is_served_without_a_token(web: FlaskClient) -> None:
    answer = web.get("/api/v1/openapi.json", environ_overrides=ELSEWHERE)
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    assert answer.get_json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1.")


def test_the_document_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_route_for_scripts_is_in_the_document_and_no_other(app: Flask) -> None:
    served = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method)
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/") or rule.endpoint.startswith(("api.", "health."))
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    written = {(path, method.upper()) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert served == written
    assert len(written) == len(ALL)


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_every_operation_tells_what_it_does_and_who_may(operation: Operation) -> None:
    said = told(operation)
    assert said["summary"]
    for role in said["x-roles"]:
        assert role in said["description"] or operation.roles is None
    assert ("401" in said["responses"]) == (operation.roles is not None)
    assert said.get("security", DOCUMENT["security"]) == (
        []
        if operation.roles is None
        else [{}, {"bearer": []}]
        if operation.is_token_optional
        else [{"bearer": []}]
    )
    assert all(parameter["description"] for parameter in said.get("parameters", ()))


GUIDE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_the_guide_names_every_route_and_who_may(operation: Operation) -> None:
    (row,) = (
        line
        for line in GUIDE.splitlines()
        if line.startswith("| `") and f"{operation.path}`" in line and f"`{operation.method}" in line
    )
    who = row.split("|")[2]
    if operation.roles is None:
        assert who.strip() == "open"
    elif operation.roles == EVERYONE:
        assert who.strip() == "all"
    else:
        assert [role for role in EVERYONE if role in who] == [r for r in EVERYONE if r in operation.roles]


def test_the_guide_names_every_figure_and_no_other(web: FlaskClient) -> None:
    families = text_string_to_metric_families(web.get("/metrics").text)
    served = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
    told = set(re.findall(r"cytoloop_[a-z_]+", GUIDE))
    assert served - told == set()
    assert told - served == set()


# --- true ---


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_who_may_is_who_is_let_in(web: FlaskClient, operation: Operation) -> None:
    for role in (None, "guess", *TOKENS):
        status = send(web, operation, role).status_code
        if operation.roles is None:
            assert status not in (401, 403)
        elif role not in TOKENS:
            assert status == 401
        else:
            assert (status == 403) == (role not in operation.roles), role


def real_parts(home: Tiny, operation: Operation) -> dict[str, str]:
    """In the place of the examples, what there is in the home."""
    version = "cdl-20260101-0123abcd"
    publish(home.studio, home.store, home.assay, home.add_version(version))
    publish(home.studio, home.store, home.assay, home.add_version("cdl-20260102-0123abcd"))
    cycle = home.store.cycles.ask(home.name, "test")
    if operation.name == "report":
        folder = home.home / "reports" / "one"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text('{"cycle": "one"}', encoding="utf-8")
        home.store.cycles.finish(cycle, "done", "kept", "", "reports/one")
    item = min(set(home.held()) - hidden_doubts(home.store, home.assay, home.items()))
    known = {
        "lease": str(home.store.leases.held(home.name)[0].id),
        "task": str(home.task_of(item)),
        "version": version,
        "cycle": cycle,
    }
    return {name: known[name] for name in operation.parts if name in known}


def bodies() -> list[Any]:
    return [
        pytest.param(operation, body, id=f"{operation.name}: {name or 'no body'}")
        for operation in ALL
        for name, body in ({"": None} | dict(operation.bodies)).items()
        if (body is None) == (not operation.bodies)
    ]


@pytest.mark.parametrize(("operation", "body"), bodies())
def test_every_example_of_a_request_is_right_and_is_answered_as_told(
    home: Tiny, web: FlaskClient, operation: Operation, body: Any
) -> None:
    parts = real_parts(home, operation)
    if body is not None:
        check(told(operation)["requestBody"]["content"]["application/json"]["schema"], body)
        body = {**body, "assay": "tiny"} if "assay" in body else body
    query = {
        parameter["name"]: "tiny" if parameter["name"] == "assay" else parameter["example"]
        for parameter in told(operation).get("parameters", ())
        if parameter["in"] == "query"
    }
    for parameter in told(operation).get("parameters", ()):
        check(parameter["schema"], parameter["example"])
    if (
        operation.name == "set_queue" and body
    ):  # a strategy that the network in force cannot follow is refused
        body = {**body, "strategy": "entropy+diverse"}
    answer = send(web, operation, "admin", parts, json=body, query_string=query)
    if operation.name == "doubt":
        assert answer.status_code == 404, "nothing has drawn one here"
    else:
        assert answer.status_code < 300, answer.text


@pytest.mark.parametrize("operation", ALL, ids=lambda one: one.name)
def test_every_example_of_an_answer_is_right(operation: Operation) -> None:
    for status, reply in operation.replies.items():
        if reply.example is not None:
            check(answer_of(operation, status)["content"][reply.media]["schema"], reply.example)
    has_json = [r for r in operation.replies.values() if r.model is not None and r.example is None]
    assert not has_json or operation.name in ("openapi", "report"), "every JSON answer has an example"


@pytest.mark.parametrize("operation", [one for one in ALL if one.body], ids=lambda one: one.name)
def test_a_body_that_is_wrong_or_too_large_is_refused_as_told(web: FlaskClient, operation: Operation) -> None:
    assert send(web, operation, "admin", data=b"[]").status_code == 400
    large = b'{"queue": "' + b"x" * (1024 * 1024) + b'"}'
    assert send(web, operation, "admin", data=large).status_code == 413


def test_what_is_refused_for_its_pace_is_refused_as_told(
    home: Tiny, monkeypatch: pytest.MonkeyPatch, app: Flask
) -> None:
    monkeypatch.setattr(limits, "PACE", "1 per minute")
    slow = create_app(home.settings, start=False)
    assert send(slow.test_client(), BY_NAME["worklist"], "admin").status_code == 200
    assert send(slow.test_client(), BY_NAME["worklist"], "admin").status_code == 429
    slow.extensions["cytoloop"]["store"].close()


# --- a policy is the domain's ---


def test_a_policy_has_the_domains_keys_and_defaults() -> None:
    assert list(Policy.model_fields) == [field.name for field in fields(QueuePolicy)]
    assert Policy.model_validate({}).model_dump(mode="json") == QueuePolicy().document()


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, 2, 3, -1, 0.5, 1.5, 10_000, 10_001, 10**30, 525_600, 525_601.0, float("nan")]),
    st.sampled_from([*STRATEGIES, "cip", "blank", "model", "return", "retire", "luck", ""]),
    st.lists(st.sampled_from(["P-A01/0", "P-A01", "", 3]), max_size=2),
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["Ada", "", " Ada", "a" * 65, 3]),
                "email": st.sampled_from(["ada@lab.org", "ada", 3]),
                "age": st.just(3),
            },
        ),
        max_size=2,
    ),
)


@settings(max_examples=300)
@given(key=st.sampled_from([*Policy.model_fields, "sise"]), value=VALUES)
def test_the_schema_takes_what_the_domain_takes(key: str, value: Any) -> None:
    """And refuses what the domain refuses, but for rules that no schema can say."""
    schema = told(BY_NAME["set_queue"])["requestBody"]["content"]["application/json"]["schema"]
    whole = {**schema, "components": DOCUMENT["components"]}
    document = {**dict.fromkeys(SHARES, 0.0), key: value}
    is_told = Draft202012Validator(whole).is_valid(document) and value == value
    refused = refusal(document)
    if refused is None:
        assert is_told, document
        Policy.read(document, where="queue")
    else:
        beyond = ("is there twice", "name is ", "email is ", "expected <image id>", "readers")
        assert not is_told or any(words in refused for words in beyond), (document, refused)


def refusal(document: Mapping[str, Any]) -> str | None:
    """Why the domain does not take a policy; None if it does."""
    try:
        QueuePolicy.from_document(document, "queue")
    except ConfigError as error:
        return str(error)
    return None
