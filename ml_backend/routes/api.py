"""The routes scripts call, under /api/v1, and the probes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flask import Blueprint, jsonify, request, send_file
from flask.typing import ResponseReturnValue

from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.errors import Forbidden, InputError, UnknownVersion
from ml_backend.access import ApiTokens, Caller
from ml_backend.service import Backend

CYCLE_KEYS = (
    "id",
    "assay",
    "state",
    "step",
    "progress",
    "asked_by",
    "created_at",
    "started_at",
    "finished_at",
    "outcome",
    "reason",
)


def blueprint(backend: Backend, store: Store, tokens: ApiTokens, settings: Settings) -> Blueprint:
    """Routes over the use cases; a bearer token says who asks."""
    routes = Blueprint("api", __name__)

    def caller(*roles: str) -> Caller:
        given = request.authorization
        token = None
        if given is not None:
            # a browser cannot send a bearer token: it asks for name and password, the token being the latter
            token = given.token if given.type == "bearer" else given.password
        who = tokens.caller(token)
        if roles and who.role not in roles:
            raise Forbidden(f"role {who.role!r} may not do this; expected one of {list(roles)}")
        return who

    @routes.get("/api/v1/worklist")
    def worklist() -> ResponseReturnValue:
        who = caller()
        expert = request.args.get("expert", who.name)
        if who.role == "expert" and expert != who.name:
            raise Forbidden(f"an expert's token acts only as itself ({who.name!r}), not as {expert!r}")
        limit = _whole("limit", 100)
        entries = backend.worklist(request.args.get("queue", "default"), limit)
        return jsonify(entries=[asdict(entry) for entry in entries])

    @routes.get("/api/v1/models")
    def models() -> ResponseReturnValue:
        caller("admin", "service")
        listed: list[dict[str, Any]] = []
        for assay in store.assays.names():
            for model in store.models.all(assay):
                listed.append({**asdict(model), "created_at": model.created_at.isoformat()})
        return jsonify(models=listed)

    @routes.post("/api/v1/cycles")
    def ask_cycle() -> ResponseReturnValue:
        who = caller("admin", "service")
        body = request.get_json(force=True, silent=True)
        assay = body.get("assay") if isinstance(body, dict) else None
        names = store.assays.names()
        if assay is None and len(names) == 1:
            assay = names[0]
        if assay not in names:
            raise InputError(f"assay is {assay!r}, expected one of {names}")
        return jsonify(_cycle(store, store.cycles.ask(assay, who.name))), 202

    @routes.get("/api/v1/cycles/<cycle_id>")
    def cycle(cycle_id: str) -> ResponseReturnValue:
        caller("admin", "service")
        return jsonify(_cycle(store, cycle_id))

    @routes.get("/api/v1/reports/<cycle_id>")
    def report(cycle_id: str) -> ResponseReturnValue:
        caller()
        return send_file(_report_file(store, settings, cycle_id, "report.json"))

    @routes.get("/reports/<cycle_id>")
    def report_page(cycle_id: str) -> ResponseReturnValue:
        caller()
        return send_file(_report_file(store, settings, cycle_id, "report.html"))

    @routes.get("/livez")
    def livez() -> ResponseReturnValue:
        return jsonify(status="alive")

    @routes.get("/readyz")
    def readyz() -> ResponseReturnValue:
        waiting = store.inbox.last() - store.corrections.last_event()
        return jsonify(status="ready", assays=store.assays.names(), inbox_waiting=waiting)

    return routes


def _cycle(store: Store, cycle_id: str) -> dict[str, Any]:
    row = store.cycles.get(cycle_id)
    return {key: row[key] for key in CYCLE_KEYS}


def _report_file(store: Store, settings: Settings, cycle_id: str, name: str) -> Path:
    report: str | None = store.cycles.get(cycle_id)["report"]
    path = settings.home / report / name if report else None
    if path is None or not path.is_file():
        raise UnknownVersion(f"cycle {cycle_id!r} has no report")
    return path


def _whole(name: str, default: int) -> int:
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise InputError(f"{name} is {text!r}, expected a whole number from 1 to 10000")
    return int(text)
