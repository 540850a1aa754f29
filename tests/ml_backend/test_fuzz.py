"""Whatever is sent to the web process, it answers as its document says, and never falls.

Requests to the routes for scripts are made from the OpenAPI document, right ones and wrong ones, for every role.
Half of them name what there is in the home, so that orders are carried out: versions are promoted and rolled back,
leases given back, cycles called off. What Label Studio sends is made by spoiling what it really sends.

``CYTOLOOP_TEST_EXAMPLES`` makes the run longer: that many times as many requests.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import schemathesis
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)
from tiny import ADA, BATCH, BOB, Tiny, make_tiny

from labelstudio_config.project import SECRET_HEADER
from labelstudio_config.publish import publish
from ml_backend import limits
from ml_backend.access import add_token
from ml_backend.app import create_app
from ml_backend.operations import ALL

TIMES = int(os.environ.get("CYTOLOOP_TEST_EXAMPLES", "1"))
OF_A_ROUTE = 5 * TIMES
"""Requests for each route and role, of either kind."""
OF_LABEL_STUDIO = 150 * TIMES
TOKENS = {"expert": "ada-token", "admin": "root-token", "service": "robot-token", "nobody": None}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
DECLARED = (503, 507)
"""What Label Studio is told when something is away or full; any other 5xx is a bug."""


@dataclass
class Run:
    """A home that is thrown away, the application over it, and what it answered so far."""

    home: Tiny
    app: Flask
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    versions: tuple[str, ...] = ()
    schema: Any = None
    """The document as it is served."""

    @property
    def web(self) -> FlaskClient:
        return self.app.test_client()

    def known(self, part: str) -> list[str]:
        """What there is in the home of what an address may name; first what something can be done with."""
        store = self.home.store
        if part == "version":
            return sorted(self.versions, key=lambda version: version == self.home.active())
        if part == "cycle":
            waiting = store.cycles.ask(self.home.name, "test")
            return [waiting, *(row["id"] for row in store.cycles.all(self.home.name)[-4:])]
        if part == "lease":
            return [str(lease.id) for lease in store.leases.held(self.home.name)] or ["1"]
        if part == "task":
            return [str(number) for number in store.images.tasks(self.home.name).values()]
        return ["default", "tiny/default"]


def fuzz(examples: int, **made: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], None]:
    """A decorator that calls a function with so many made-up arguments, the same ones each time."""

    def call(function: Callable[..., None]) -> None:
        many = settings(
            max_examples=examples,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        many(given(**made)(function))()

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    home = make_tiny(tmp_path_factory.mktemp("fuzz"))
    home.listen()
    for role, token in TOKENS.items():
        if token is not None:
            add_token(home.home / "api-tokens", token, ADA.email if role == "expert" else role, role)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: home.studio)
        for name in ("PACE", "GUESSES", "LOGINS"):  # else it would be 429 and nothing but 429
            patch.setattr(limits, name, "1000000 per second")
        app = create_app(home.settings, start=False)
    home.publish_active()
    first = home.active()
    versions = ("cdl-20260101-0123abcd", "cdl-20260102-0123abcd")
    for version in versions:
        publish(home.studio, home.store, home.assay, home.add_version(version))
    home.store.cycles.ask(home.name, "test")
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    made = Run(home, app, versions=(first, *versions), schema=schema)
    yield made
    by_status = sorted(Counter(status for _, status in made.answers.elements()).items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nfuzzed: {made.answers.total()} requests, by status {dict(by_status)}, peak {peak:.0f} MB")
    assert home.store.check() == []
    app.extensions["cytoloop"]["store"].close()
    home.store.close()


@pytest.mark.parametrize("name", [operation.name for operation in ALL])
@pytest.mark.parametrize("role", TOKENS)
def test_scripts_are_answered_as_the_document_says(run: Run, role: str, name: str) -> None:
    operation = next(one for one in ALL if one.name == name)
    told = run.schema[operation.path][operation.method]
    headers = {} if TOKENS[role] is None else {"Authorization": f"Bearer {TOKENS[role]}"}
    examples = [
        {key: "tiny" if key == "assay" else value for key, value in body.items()}
        for body in operation.bodies.values()
    ]
    kinds = [told.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.parts or operation.query or operation.body:
        kinds.append(told.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    def send(case: Any, checks: Sequence[Any] = CHECKS) -> None:
        answer = case.call(headers=headers)
        run.answers[name, answer.status_code] += 1
        case.validate_response(answer, checks=list(checks))

    def send_as_made(case: Any) -> None:
        # what the document forbids is refused; a key of a query that nobody knows is passed over
        send(case, [*CHECKS, negative_data_rejection] if operation.body else CHECKS)

    for kind in kinds:
        fuzz(OF_A_ROUTE, case=kind)(send_as_made)
    if operation.parts or examples:

        def send_known(case: Any, chosen: int) -> None:
            for part in operation.parts:
                known = run.known(part)
                case.path_parameters[part] = known[chosen % len(known)]
            if examples and chosen % 3 == 0:  # of made-up policies few are right
                case.body, case.media_type = examples[chosen % len(examples)], "application/json"
            send(case)

        fuzz(OF_A_ROUTE, case=st.one_of(kinds), chosen=st.integers(0, 1000))(send_known)


def test_orders_were_carried_out_and_not_only_refused(run: Run) -> None:
    """The requests above reached what they are about: this is no test of refusals alone."""
    reached = {name for name, status in run.answers if status < 400}
    assert reached >= {operation.name for operation in ALL} - {"doubt", "report"}
    assert {status for _, status in run.answers} >= {200, 201, 202, 400, 401, 403, 404}
    # restored, for what follows
    run.home.set_policy(BATCH)


# --- Label Studio's side ---

NASTY = st.sampled_from(
    [
        *(2**63, -(2**63) - 1, 10**30, 0, -1, 1, 1.5, True, None, [], {}),
        *("\ud800", "\x00", "3.1", "tiny", "P-A01", "../../etc", "<!ENTITY x>", "9" * 30, "9" * 5000, ""),
    ]
)
"""Values that code trips over."""
JUNK = st.recursive(
    NASTY | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
MOST_OF_A_LIST = 3
"""Entries of a list that are spoiled: a mask is thousands of numbers."""


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    entries = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:MOST_OF_A_LIST])
        if isinstance(document, list)
        else ()
    )
    found = []
    for key, value in entries:
        found.append((document, key))
        found += places(value)
    return found


@st.composite
def spoiled(draw: Callable[..., Any], document: Any) -> Any:
    """A document with some of its parts replaced, taken out, or put somewhere else."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        where = places(made)
        if not where:
            break
        container, key = where[draw(st.integers(0, len(where) - 1))]
        if draw(st.booleans()) and isinstance(container, dict):
            del container[key]
        else:
            container[key] = draw(
                JUNK | st.sampled_from([copy.deepcopy(value[at]) for value, at in where[:8]])
            )
    return made


def body_of(document: Any) -> bytes:
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def sent(run: Run) -> dict[str, Any]:
    """What Label Studio really sends, by route."""
    home = run.home
    item = home.items()[0]
    task = home.studio.tasks[home.task_of(item)]
    project = f"{home.store.assays.get(home.name)['project_id']}.1700000000"
    before = home.store.inbox.last()
    number = home.studio.annotate(home.task_of(item), home.regions(item), parent_prediction=None)
    home.studio.update(number, result=home.regions(item))
    home.studio.delete_annotation(number)
    events = [json.loads(body) for _, body in home.store.inbox.after(before)]
    assert len(events) == 3
    home.intake.drain()
    return {
        "/setup": [
            {"project": project, "schema": "<View></View>", "hostname": "http://x", "access_token": "t"}
        ],
        "/predict": [
            {
                "tasks": [{"id": home.task_of(item), "data": task["data"], "annotations": []}],
                "project": project,
                "label_config": "<View></View>",
                "params": {"login": None, "password": None, "context": None},
            }
        ],
        "/webhook": events,
    }


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook"])
def test_label_studio_is_answered_whatever_it_sends(run: Run, sent: dict[str, Any], path: str) -> None:
    login = base64.b64encode(f"label-studio:{run.home.settings.backend_password}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", SECRET_HEADER: str(run.home.settings.webhook_secret)}
    web = run.web
    right = st.sampled_from([body_of(one) for one in sent[path]])
    wrong = st.one_of([spoiled(one) for one in sent[path]]).map(body_of)
    bodies = right | wrong | wrong | wrong | JUNK.map(body_of) | st.binary(max_size=200)

    def send(body: bytes) -> None:
        answer = web.post(path, data=body, headers=headers)
        run.answers[path, answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in DECLARED, answer.text
        if answer.status_code >= 400:
            assert set(answer.get_json()) == {"error", "request_id"}

    fuzz(OF_LABEL_STUDIO, body=bodies)(send)
    assert run.answers[path, 202 if path == "/webhook" else 200] > 0


def test_no_event_keeps_the_inbox_from_draining(run: Run) -> None:
    """What came to /webhook above is applied or becomes a doubt; none of it stops what comes after."""
    home = run.home
    assert home.store.figures.waiting().events >= OF_LABEL_STUDIO // 2
    home.intake.drain()
    assert home.store.figures.waiting().events == 0
    item = home.items()[5]
    home.correct(item)
    home.intake.drain()
    assert home.standing(item) is not None
    assert (home.store.masks.get(home.standing(item).mask) == home.truth_of(item)).all()


def test_strangers_are_told_nothing_whatever_they_send(run: Run) -> None:
    web = run.web

    def send(path: str, header: str, value: str, secret: str, body: bytes) -> None:
        method = "POST" if path in ("/setup", "/predict", "/webhook") else "GET"
        answer = web.open(
            path, method=method, data=body, headers={"Authorization": header + value, SECRET_HEADER: secret}
        )
        run.answers[path, answer.status_code] += 1
        assert answer.status_code == 401

    letters = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=40)
    fuzz(
        20 * TIMES,
        path=st.sampled_from(["/setup", "/predict", "/webhook", "/health", "/versions", "/api/v1/models"]),
        header=st.sampled_from(["Basic ", "Bearer ", "Digest ", "Negotiate ", ""]),
        value=letters,
        secret=letters,
        body=st.binary(max_size=50),
    )(send)


def test_nothing_that_was_sent_is_left_undone(run: Run) -> None:
    """After all of it the loop goes on: work is handed out, and the home is ready."""
    run.home.set_policy(BATCH.__class__.all_ranked(strategy="entropy", size=2, experts=(ADA, BOB)))
    headers = {"Authorization": "Bearer root-token"}
    claimed = run.web.post("/api/v1/worklist/claim", json={"expert": BOB.email}, headers=headers)
    assert claimed.status_code in (200, 201), claimed.text
    assert run.web.get("/readyz").status_code == 200
