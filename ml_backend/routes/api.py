"""The routes scripts call, under /api/v1: use cases behind the operations of ``ml_backend.operations``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response

from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.errors import Forbidden, UnknownLease
from cytoloop.domain.types import WorklistEntry
from ml_backend import operations
from ml_backend.access import ApiTokens, Caller
from ml_backend.asking import ask_promotion, ask_rollback, ask_training, call_off
from ml_backend.openapi import document_of
from ml_backend.reports import report_file
from ml_backend.routes.endpoints import Endpoints
from ml_backend.schemas import (
    AssayRequest,
    ClaimRequest,
    Cycle,
    Cycles,
    CyclesQuery,
    Entries,
    Entry,
    Model,
    Models,
    Policy,
    PolicyInForce,
    Released,
    TaskPrediction,
    TaskQuery,
    WorklistQuery,
)
from ml_backend.service import Backend
from ml_backend.tasks import Picture, Tasks


def blueprint(
    backend: Backend, tasks: Tasks, store: Store, tokens: ApiTokens, settings: Settings
) -> Blueprint:
    """Routes over the use cases; a bearer token says who asks."""
    routes = Blueprint("api", __name__)
    answers = Endpoints(routes, tokens)

    # --- worklists ---------------------------------------------------------------------------------------

    @answers(operations.WORKLIST)
    def worklist(who: Caller, query: WorklistQuery) -> Entries:
        expert = _acting_as(who, query.expert)
        return _entries(backend.worklist(query.queue, expert, query.limit))

    @answers(operations.CLAIM)
    def claim(who: Caller, body: ClaimRequest) -> tuple[Entries, int]:
        expert = _acting_as(who, body.expert)
        entries = _entries(backend.claim(body.queue, expert, body.count, body.minutes))
        return entries, 201 if entries.entries else 200

    @answers(operations.RELEASE)
    def release(who: Caller, lease: str) -> Released:
        # other scripts' digits, and more of them than any number here has, are no lease of ours
        if not (lease.isascii() and lease.isdecimal() and len(lease) <= 18):
            raise UnknownLease(f"lease {lease[:20]}: was never given")
        released = backend.release(int(lease), who.name if who.role == "expert" else None)
        return Released(lease=str(released.id), state=released.state)

    # --- tasks -------------------------------------------------------------------------------------------

    @answers(operations.PREDICTION)
    def prediction(who: Caller, task: str, query: TaskQuery) -> TaskPrediction:
        found = tasks.find(task, query.assay, who)
        stored = tasks.prediction(found)
        return TaskPrediction(
            task_id=found.id,
            assay=found.assay.name,
            image_id=found.item.image_id,
            tile=found.item.tile,
            height=found.tile.height,
            width=found.tile.width,
            model_version=stored.version,
            score=stored.score,
            confidence=stored.confidence,
            reason=stored.reason,
            result=stored.result,
        )

    @answers(operations.DOUBT)
    def doubt(who: Caller, task: str, query: TaskQuery) -> Response:
        return _png(tasks.doubt(tasks.find(task, query.assay, who)))

    @answers(operations.MASK)
    def mask(who: Caller, task: str, query: TaskQuery) -> Response:
        return _png(tasks.mask(tasks.find(task, query.assay, who)))

    # --- queues ------------------------------------------------------------------------------------------

    @answers(operations.QUEUE)
    def queue_of(who: Caller, queue: str) -> PolicyInForce:
        return PolicyInForce(**backend.queue(queue))

    @answers(operations.SET_QUEUE)
    def set_queue(who: Caller, queue: str, body: Policy) -> PolicyInForce:
        return PolicyInForce(**backend.set_queue(queue, body.model_dump(exclude_unset=True)))

    # --- models ------------------------------------------------------------------------------------------

    @answers(operations.MODELS)
    def models(who: Caller) -> Models:
        versions = [model for assay in store.assays.names() for model in store.models.all(assay)]
        return Models(
            models=[Model(**{**asdict(one), "created_at": one.created_at.isoformat()}) for one in versions]
        )

    @answers(operations.PROMOTE)
    def promote(who: Caller, version: str) -> tuple[Cycle, int]:
        return _cycle(ask_promotion(store, who, version)), 202

    @answers(operations.ROLLBACK)
    def roll_back(who: Caller, body: AssayRequest) -> tuple[Cycle, int]:
        return _cycle(ask_rollback(store, who, body.assay)), 202

    # --- cycles ------------------------------------------------------------------------------------------

    @answers(operations.ASK_CYCLE)
    def ask_cycle(who: Caller, body: AssayRequest) -> tuple[Cycle, int]:
        return _cycle(ask_training(store, who, body.assay)), 202

    @answers(operations.CYCLES)
    def cycles(who: Caller, query: CyclesQuery) -> Cycles:
        rows = [row for assay in store.assays.names() for row in store.cycles.all(assay)]
        rows.sort(key=lambda row: (row["created_at"], row["id"]), reverse=True)
        return Cycles(cycles=[_cycle(row) for row in rows[: query.limit]])

    @answers(operations.CYCLE)
    def cycle_of(who: Caller, cycle: str) -> Cycle:
        return _cycle(store.cycles.get(cycle))

    @answers(operations.CANCEL)
    def cancel(who: Caller, cycle: str) -> Cycle:
        return _cycle(call_off(store, who, cycle))

    @answers(operations.REPORT)
    def report(who: Caller, cycle: str) -> Response:
        document = report_file(store, settings.home, cycle, "report.json").read_bytes()
        return Response(document, mimetype="application/json")

    # --- about itself ------------------------------------------------------------------------------------

    document = json.dumps(document_of(operations.ALL), ensure_ascii=False)

    @answers(operations.DOCUMENT)
    def openapi() -> Response:
        return Response(document, mimetype="application/json")

    return routes


def _acting_as(who: Caller, expert: str | None) -> str | None:
    """Whose list is meant: an expert's token acts only as itself."""
    if who.role != "expert":
        return expert
    if expert not in (None, who.name):
        raise Forbidden(f"an expert's token acts only as itself ({who.name!r}), not as {expert!r}")
    return who.name


def _entries(entries: list[WorklistEntry]) -> Entries:
    return Entries(entries=[Entry(**asdict(entry)) for entry in entries])


def _cycle(row: dict[str, Any]) -> Cycle:
    return Cycle(**{name: row[name] for name in Cycle.model_fields})


def _png(picture: Picture) -> Response:
    return Response(picture.png, mimetype="image/png", headers=picture.headers)
