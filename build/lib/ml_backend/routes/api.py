"""The routes scripts call, under /api/v1, and the probes."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from flask import Blueprint, jsonify, request, send_file
from flask.typing import ResponseReturnValue

from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.errors import Forbidden, InputError
from ml_backend.access import ApiTokens, Caller
from ml_backend.asking import ask_promotion, ask_rollback, ask_training, call_off
from ml_backend.reports import report_file
from ml_backend.service import Backend

MOST_CLAIMED = 1000
"""Items in one claim; a policy's cap is usually far below."""
CYCLE_KEYS = (
    "id",
    "assay",
    "state",
    "step",
    "progress",
    "kind",
    "target",
    "asked_by",
    "why",
    "created_at",
    "started_at",
    "finished_at",
    "outcome",
    "reason",
    "cancelled_by",
)


def blueprint(backend: Backend, store: Store, tokens: ApiTokens, settings: Settings) -> Blueprint:
    """Routes over the use cases; a bearer token says who asks."""
    routes = Blueprint("api", __name__)

    def caller(*roles: str) -> Caller:
        who = tokens.caller(given_token())
        if roles and who.role not in roles:
            raise Forbidden(f"role {who.role!r} may not do this; expected one of {list(roles)}")
        return who

    def acting_as(who: Caller, expert: object) -> str | None:
        """Whose list is meant: an expert's token acts only as itself."""
        if expert is not None and not isinstance(expert, str):
            raise InputError(f"expert is {expert!r}, expected a name or an e-mail")
        if who.role != "expert":
            return expert
        if expert not in (None, who.name):
            raise Forbidden(f"an expert's token acts only as itself ({who.name!r}), not as {expert!r}")
        return who.name

    @routes.get("/api/v1/worklist")
    def worklist() -> ResponseReturnValue:
        expert = acting_as(caller(), request.args.get("expert"))
        limit = _whole("limit", 100)
        entries = backend.worklist(request.args.get("queue", "default"), expert, limit)
        return jsonify(entries=[asdict(entry) for entry in entries])

    @routes.post("/api/v1/worklist/claim")
    def claim() -> ResponseReturnValue:
        who = caller()
        body = _object()
        queue, expert = body.get("queue", "default"), acting_as(who, body.get("expert"))
        if not isinstance(queue, str):
            raise InputError(f"queue is {queue!r}, expected a name")
        count, minutes = body.get("count"), body.get("minutes")
        if count is not None and (not _is_number(count, int) or not 1 <= count <= MOST_CLAIMED):
            raise InputError(f"count is {count!r}, expected a whole number from 1 to {MOST_CLAIMED}")
        if minutes is not None and (not _is_number(minutes, int, float) or not 0 < minutes < math.inf):
            raise InputError(f"minutes is {minutes!r}, expected a number above 0")
        entries = backend.claim(queue, expert, count, minutes)
        return jsonify(entries=[asdict(entry) for entry in entries]), 201 if entries else 200

    @routes.delete("/api/v1/leases/<int:lease_id>")
    def release(lease_id: int) -> ResponseReturnValue:
        who = caller()
        lease = backend.release(lease_id, who.name if who.role == "expert" else None)
        return jsonify(lease=str(lease.id), state=lease.state)

    @routes.get("/api/v1/queues/<path:name>")
    def queue(name: str) -> ResponseReturnValue:
        caller("admin")
        return jsonify(backend.queue(name))

    @routes.put("/api/v1/queues/<path:name>")
    def set_queue(name: str) -> ResponseReturnValue:
        caller("admin")
        return jsonify(backend.set_queue(name, _object()))

    @routes.get("/api/v1/models")
    def models() -> ResponseReturnValue:
        caller("admin", "service")
        listed: list[dict[str, Any]] = []
        for assay in store.assays.names():
            for model in store.models.all(assay):
                listed.append({**asdict(model), "created_at": model.created_at.isoformat()})
        return jsonify(models=listed)

    @routes.post("/api/v1/models/<version>/promote")
    def promote(version: str) -> ResponseReturnValue:
        return jsonify(_told(ask_promotion(store, caller(), version))), 202

    @routes.post("/api/v1/models/rollback")
    def roll_back() -> ResponseReturnValue:
        return jsonify(_told(ask_rollback(store, caller(), _asked_assay()))), 202

    @routes.post("/api/v1/cycles")
    def ask_cycle() -> ResponseReturnValue:
        return jsonify(_told(ask_training(store, caller(), _asked_assay()))), 202

    @routes.get("/api/v1/cycles")
    def cycles() -> ResponseReturnValue:
        caller("admin", "service")
        rows = [row for assay in store.assays.names() for row in store.cycles.all(assay)]
        rows.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        return jsonify(cycles=[_told(row) for row in rows[: _whole("limit", 100)]])

    @routes.get("/api/v1/cycles/<cycle_id>")
    def cycle(cycle_id: str) -> ResponseReturnValue:
        caller("admin", "service")
        return jsonify(_told(store.cycles.get(cycle_id)))

    @routes.delete("/api/v1/cycles/<cycle_id>")
    def cancel(cycle_id: str) -> ResponseReturnValue:
        return jsonify(_told(call_off(store, caller(), cycle_id)))

    @routes.get("/api/v1/reports/<cycle_id>")
    def report(cycle_id: str) -> ResponseReturnValue:
        caller()
        return send_file(report_file(store, settings.home, cycle_id, "report.json"))

    @routes.get("/livez")
    def livez() -> ResponseReturnValue:
        return jsonify(status="alive")

    @routes.get("/readyz")
    def readyz() -> ResponseReturnValue:
        waiting = store.inbox.last() - store.corrections.last_event()
        return jsonify(status="ready", assays=store.assays.names(), inbox_waiting=waiting)

    return routes


def given_token() -> str | None:
    """The token that came with this request; None without one."""
    given = request.authorization
    if given is None:
        return None
    # a browser cannot send a bearer token: it asks for name and password, the token being the latter
    return given.token if given.type == "bearer" else given.password


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in CYCLE_KEYS}


def _asked_assay() -> object:
    """The assay that a body names, if there is a body and it does."""
    body = request.get_json(force=True, silent=True)
    return body.get("assay") if isinstance(body, dict) else None


def _object() -> dict[str, Any]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise InputError(f"{request.path}: got {type(body).__name__}, expected a JSON object")
    return body


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _whole(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise InputError(f"{name} is {text!r}, expected a whole number from 1 to 10000")
    return int(text)
