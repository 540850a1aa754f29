"""Is the loop healthy: the probes, and the metrics."""

from __future__ import annotations

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from cytoloop.adapters.store import Store
from ml_backend import operations
from ml_backend.access import ApiTokens
from ml_backend.health import Health
from ml_backend.metrics import Metrics
from ml_backend.routes.endpoints import Endpoints
from ml_backend.schemas import Alive, NotReady, Ready


def blueprint(store: Store, tokens: ApiTokens, health: Health, metrics: Metrics) -> Blueprint:
    """Routes that other programs watch this one by."""
    routes = Blueprint("health", __name__)
    answers = Endpoints(routes, tokens)

    @answers(operations.LIVEZ)
    def livez() -> Alive:
        return Alive(status="alive")

    @answers(operations.READYZ)
    def readyz() -> Ready | tuple[NotReady, int]:
        problems = health.problems()
        if problems:
            return NotReady(status="not ready", reasons=problems), 503
        waiting = store.figures.waiting()
        return Ready(status="ready", assays=store.assays.names(), inbox_waiting=waiting.events)

    @answers(operations.METRICS)
    def figures() -> Response:
        return Response(metrics.text(), content_type=CONTENT_TYPE_LATEST)

    return routes
