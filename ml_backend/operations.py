"""What scripts can ask for: every route under /api/v1, the probes and the metrics, each written down once.

A route is registered from its operation and checks requests by it, and the OpenAPI document is made of the same:
what the document says is what the server does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ml_backend.access import MAY, Role
from ml_backend.schemas import (
    Alive,
    Answer,
    AssayRequest,
    ClaimRequest,
    Cycle,
    Cycles,
    CyclesQuery,
    Entries,
    Models,
    NotReady,
    Policy,
    PolicyInForce,
    Ready,
    Released,
    Report,
    Request,
    TaskPrediction,
    TaskQuery,
    WorklistQuery,
)

EVERYONE: tuple[Role, ...] = get_args(Role)
Method = Literal["GET", "POST", "PUT", "DELETE"]
Tag = Literal["worklists", "tasks", "queues", "models", "cycles", "health"]
READS = (503,)
"""What a route that reads the home may answer besides: the home is away."""
WRITES = (503, 507)
"""The home is full or read-only, or Label Studio is away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A variable part of an address."""

    words: str
    example: str
    spans: bool = False
    """Whether it may hold slashes (sent as they are, or as ``%2F``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer that is no refusal."""

    words: str
    model: type[Answer] | None = None
    """Of JSON; None: something else."""
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    """What it means, by its name."""
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One route."""

    name: str
    """The operation's id in the document, and the endpoint's here."""
    method: Method
    path: str
    """With variable parts in braces."""
    tag: Tag
    summary: str
    words: str = ""
    roles: tuple[Role, ...] | None = EVERYONE
    """Who may; None: anyone, without a token."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    query: type[Request] | None = None
    body: type[Request] | None = None
    needs_body: bool = True
    bodies: Mapping[str, Any] = field(default_factory=dict)
    """Examples, by what they are for."""
    replies: Mapping[int, Reply]
    refusals: tuple[int, ...] = ()
    """Statuses besides those that its token, query and body bring along."""
    is_token_optional: bool = False
    """Open to programs on this machine; others need a token of ``roles``."""

    @property
    def rule(self) -> str:
        """The address as Flask writes it."""

        def variable(found: re.Match[str]) -> str:
            return f"<path:{found[1]}>" if self.parts[found[1]].spans else f"<{found[1]}>"

        return re.sub(r"\{(\w+)\}", variable, self.path)

    @property
    def refused(self) -> tuple[int, ...]:
        """Every status of a refusal."""
        found = {429, *self.refusals}
        if self.roles is not None:
            found.add(401)
            if self.roles != EVERYONE:
                found.add(403)
        if self.query or self.body:
            found.add(400)
        if self.body:
            found.add(413)
        return tuple(sorted(found))


# --- examples --------------------------------------------------------------------------------------------

_ENTRY = {
    "rank": 1,
    "task_id": 22,
    "image_id": "rosella-s0-p1_B16_f2",
    "tile": 1,
    "score": 0.751,
    "reason": "55 objects differ from the CIP, 2 at a class boundary; est. 7 min",
    "strategy": "random+diverse",
    "model_version": "cip-20261122-c69b582a",
    "lease": "73",
    "url": "http://127.0.0.1:8080/projects/1/data?tab=1&task=22",
}
_CYCLE = {
    "id": "3a3f15276557",
    "assay": "rosella",
    "state": "queued",
    "step": "queued",
    "progress": 0.0,
    "kind": "train",
    "target": None,
    "asked_by": "robot",
    "why": "",
    "created_at": "2026-11-22T09:14:05.120437+00:00",
    "started_at": None,
    "finished_at": None,
    "outcome": None,
    "reason": None,
    "cancelled_by": None,
}
_MODEL = {
    "version": "cip-20261122-c69b582a",
    "assay": "rosella",
    "method": "cip",
    "status": "active",
    "digest": "c69b582a" * 8,
    "parent": None,
    "snapshot": None,
    "config": {"recipe": "rosella"},
    "metrics": {},
    "created_at": "2026-11-22T08:55:41.000000+00:00",
}
_POLICY = {
    "strategy": "entropy/minute+diverse",
    "experts": [{"name": "Ada", "email": "ada@lab.org"}],
    "minutes": 30,
}
_PREDICTION = {
    "task_id": 22,
    "assay": "rosella",
    "image_id": "rosella-s0-p1_B16_f2",
    "tile": 1,
    "height": 340,
    "width": 256,
    "model_version": "cip-20261122-c69b582a",
    "score": 0.751,
    "confidence": 0.2855,
    "reason": "55 objects differ from the CIP, 2 at a class boundary",
    "result": [],
}

# --- worklists -------------------------------------------------------------------------------------------

WORKLIST = Operation(
    name="worklist",
    method="GET",
    path="/api/v1/worklist",
    tag="worklists",
    summary="What to open next, and why",
    words="What the expert holds first, in the order of the tab in Label Studio; then what comes next, without a "
    "lease. An expert's token acts only as itself.",
    query=WorklistQuery,
    replies={200: Reply(words="the list", model=Entries, example={"entries": [_ENTRY]})},
    refusals=(403, 409, *READS),
)
CLAIM = Operation(
    name="claim",
    method="POST",
    path="/api/v1/worklist/claim",
    tag="worklists",
    summary="Lease the next batch to an expert",
    words="Leases are disjoint between experts and expire; the items appear in the expert's tab in Label Studio.",
    body=ClaimRequest,
    bodies={
        "one item": {"queue": "default", "count": 1},
        "half an hour of work for somebody": {
            "queue": "default",
            "expert": "ada@lab.org",
            "minutes": 30,
        },
    },
    replies={
        200: Reply(
            words="nothing new: the expert holds what the policy allows",
            model=Entries,
            example={"entries": []},
        ),
        201: Reply(words="the new entries", model=Entries, example={"entries": [_ENTRY]}),
    },
    refusals=(403, 409, *WRITES),
)
RELEASE = Operation(
    name="release",
    method="DELETE",
    path="/api/v1/leases/{lease}",
    tag="worklists",
    summary="Give an item back",
    words="An expert gives back what it holds; the other roles take back what anybody holds.",
    parts={"lease": Part(words="number of the lease, as the worklist tells it", example="73")},
    replies={200: Reply(words="given back", model=Released, example={"lease": "73", "state": "released"})},
    refusals=(400, 403, 404, 409, *WRITES),
)

# --- tasks -----------------------------------------------------------------------------------------------

_TASK = {"task": Part(words="Label Studio's number of the task, as the worklist tells it", example="22")}
_BLIND = (
    "Items that experts are to judge alone (contest, overlap, gold and empty-canvas items) are not shown to experts: "
    "it would lead their hands."
)
PREDICTION = Operation(
    name="prediction",
    method="GET",
    path="/api/v1/tasks/{task}/prediction",
    tag="tasks",
    summary="What the version in force says of an item",
    words=_BLIND,
    parts=_TASK,
    query=TaskQuery,
    replies={200: Reply(words="the prediction", model=TaskPrediction, example=_PREDICTION)},
    refusals=(403, 404, 409, *READS),
)
DOUBT = Operation(
    name="doubt",
    method="GET",
    path="/api/v1/tasks/{task}/doubt.png",
    tag="tasks",
    summary="What the version in force doubts of an item",
    words=f"The map that the editor shows: the item in grey, the doubt in yellow. {_BLIND}",
    parts=_TASK,
    query=TaskQuery,
    replies={200: Reply(words="a picture of the item's size", media="image/png")},
    refusals=(403, 404, 409, *READS),
)
MASK = Operation(
    name="mask",
    method="GET",
    path="/api/v1/tasks/{task}/mask.png",
    tag="tasks",
    summary="The best mask of an item that is known",
    words=f"The correction that stands, else the prediction of the version in force; a header says which. {_BLIND}",
    parts=_TASK,
    query=TaskQuery,
    replies={
        200: Reply(
            words="an indexed PNG of the item's size: 0 background, 1… the assay's classes, 255 not looked at",
            media="image/png",
            headers={
                "X-Cytoloop-Source": "`correction` or `prediction`",
                "X-Cytoloop-Model-Version": "of a prediction: the version it is of; of a correction: the version whose "
                "mask the expert began with, if any",
                "X-Cytoloop-Annotation": "of a correction: Label Studio's number of the annotation",
            },
        )
    },
    refusals=(403, 404, 409, *READS),
)

# --- queues ----------------------------------------------------------------------------------------------

_QUEUE = {"queue": Part(words="`queue`, or `assay/queue`", example="default", spans=True)}
_IN_FORCE = {
    "queue": "rosella/default",
    "policy": {**Policy.model_validate({}).model_dump(mode="json"), **_POLICY},
}
QUEUE = Operation(
    name="queue",
    method="GET",
    path="/api/v1/queues/{queue}",
    tag="queues",
    summary="The policy in force of a queue",
    roles=MAY["set queues"],
    parts=_QUEUE,
    replies={200: Reply(words="the policy, every key", model=PolicyInForce, example=_IN_FORCE)},
    refusals=(400, 404, *READS),
)
SET_QUEUE = Operation(
    name="set_queue",
    method="PUT",
    path="/api/v1/queues/{queue}",
    tag="queues",
    summary="Set a queue's policy",
    words="The next batch is made by it; what experts hold stays with them. All of it is taken, or nothing.",
    roles=MAY["set queues"],
    parts=_QUEUE,
    body=Policy,
    bodies={"half an hour a batch": _POLICY, "the defaults": {}},
    replies={200: Reply(words="the policy, every key", model=PolicyInForce, example=_IN_FORCE)},
    refusals=(404, *WRITES),
)

# --- models ----------------------------------------------------------------------------------------------

MODELS = Operation(
    name="models",
    method="GET",
    path="/api/v1/models",
    tag="models",
    summary="Every version",
    roles=MAY["see everyone"],
    replies={200: Reply(words="the versions", model=Models, example={"models": [_MODEL]})},
    refusals=READS,
)
PROMOTE = Operation(
    name="promote",
    method="POST",
    path="/api/v1/models/{version}/promote",
    tag="models",
    summary="Order a version into force",
    words="By a person's decision, without a contest. The trainer takes the order up at its next look.",
    roles=MAY["bring into force"],
    parts={"version": Part(words="name of the version", example="cdl-20261122-91cfd65c")},
    replies={
        202: Reply(
            words="the order",
            model=Cycle,
            example={**_CYCLE, "kind": "promote", "target": "cdl-20261122-91cfd65c", "asked_by": "admin"},
        )
    },
    refusals=(404, 409, *WRITES),
)
ROLLBACK = Operation(
    name="rollback",
    method="POST",
    path="/api/v1/models/rollback",
    tag="models",
    summary="Order the version before back into force",
    roles=MAY["bring into force"],
    body=AssayRequest,
    needs_body=False,
    bodies={"of one assay": {"assay": "rosella"}, "of the only one": {}},
    replies={
        202: Reply(
            words="the order",
            model=Cycle,
            example={**_CYCLE, "kind": "rollback", "target": "cip-20261122-c69b582a", "asked_by": "admin"},
        )
    },
    refusals=(409, *WRITES),
)

# --- cycles ----------------------------------------------------------------------------------------------

_ID = {"cycle": Part(words="id of the cycle", example="3a3f15276557")}
ASK_CYCLE = Operation(
    name="ask_cycle",
    method="POST",
    path="/api/v1/cycles",
    tag="cycles",
    summary="Ask for a training cycle",
    words="One that waits already serves this request too.",
    roles=MAY["train"],
    body=AssayRequest,
    needs_body=False,
    bodies={"of one assay": {"assay": "rosella"}, "of the only one": {}},
    replies={202: Reply(words="the cycle", model=Cycle, example=_CYCLE)},
    refusals=WRITES,
)
CYCLES = Operation(
    name="cycles",
    method="GET",
    path="/api/v1/cycles",
    tag="cycles",
    summary="Cycles, newest first",
    roles=MAY["see everyone"],
    query=CyclesQuery,
    replies={200: Reply(words="the cycles", model=Cycles, example={"cycles": [_CYCLE]})},
    refusals=READS,
)
CYCLE = Operation(
    name="cycle",
    method="GET",
    path="/api/v1/cycles/{cycle}",
    tag="cycles",
    summary="How far a cycle is",
    roles=MAY["see everyone"],
    parts=_ID,
    replies={200: Reply(words="the cycle", model=Cycle, example=_CYCLE)},
    refusals=(404, *READS),
)
CANCEL = Operation(
    name="cancel",
    method="DELETE",
    path="/api/v1/cycles/{cycle}",
    tag="cycles",
    summary="Call a cycle off",
    words="One that waits ends here, one that runs ends at its next step.",
    roles=MAY["cancel"],
    parts=_ID,
    replies={
        200: Reply(
            words="the cycle",
            model=Cycle,
            example={
                **_CYCLE,
                "state": "failed",
                "progress": 1.0,
                "outcome": "cancelled",
                "reason": "cancelled by robot before it began",
                "cancelled_by": "robot",
                "finished_at": "2026-11-22T09:15:00.000000+00:00",
            },
        )
    },
    refusals=(404, 409, *WRITES),
)
REPORT = Operation(
    name="report",
    method="GET",
    path="/api/v1/reports/{cycle}",
    tag="cycles",
    summary="A cycle's report",
    words="The same as a page, for people, at `/reports/{cycle}`.",
    parts=_ID,
    replies={200: Reply(words="the report", model=Report)},
    refusals=(404, *READS),
)

# --- is the loop healthy ---------------------------------------------------------------------------------

METRICS = Operation(
    name="metrics",
    method="GET",
    path="/metrics",
    tag="health",
    summary="Is the loop healthy: figures for Prometheus",
    words="Open to programs on this machine; from elsewhere with a token.",
    roles=MAY["see everyone"],
    is_token_optional=True,
    replies={200: Reply(words="Prometheus text format", media="text/plain")},
)
LIVEZ = Operation(
    name="livez",
    method="GET",
    path="/livez",
    tag="health",
    summary="Does the process answer",
    roles=None,
    replies={200: Reply(words="it does", model=Alive, example={"status": "alive"})},
)
READYZ = Operation(
    name="readyz",
    method="GET",
    path="/readyz",
    tag="health",
    summary="Can the loop do its work",
    words="The databases can be read and written, what Label Studio sends is applied, and an assay has a model in "
    "force.",
    roles=None,
    replies={
        200: Reply(
            words="it can",
            model=Ready,
            example={"status": "ready", "assays": ["rosella"], "inbox_waiting": 0},
        ),
        503: Reply(
            words="it cannot, and why",
            model=NotReady,
            example={"status": "not ready", "reasons": ["no assay has a model in force; import a plate"]},
        ),
    },
)

DOCUMENT = Operation(
    name="openapi",
    method="GET",
    path="/api/v1/openapi.json",
    tag="health",
    summary="This document",
    roles=None,
    replies={200: Reply(words="OpenAPI 3.1", model=Report)},
)

ALL: tuple[Operation, ...] = (
    *(WORKLIST, CLAIM, RELEASE),
    *(PREDICTION, DOUBT, MASK),
    *(QUEUE, SET_QUEUE),
    *(MODELS, PROMOTE, ROLLBACK),
    *(ASK_CYCLE, CYCLES, CYCLE, CANCEL, REPORT),
    *(DOCUMENT, METRICS, LIVEZ, READYZ),
)
