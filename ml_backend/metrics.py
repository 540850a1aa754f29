"""Is the loop healthy, in figures for Prometheus: what the store holds, and how this process answers.

Figures of the store are read when they are asked for. A part that cannot be read is left out, and named in
``cytoloop_unreadable``: metrics that tell whether the loop is healthy must not fail with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import get_args

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from cytoloop.adapters.store import AssayFigures, Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.types import LeaseState

logger = logging.getLogger(__name__)

CYCLE_STATES = ("queued", "running", "done", "failed")
KINDS = ("submitted", "skipped", "deleted")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
OTHER = "other"
"""Label of routes and methods that are none of ours: whoever makes them up must not fill the memory."""
NOBODY = "unknown"
"""Label of doubts whose assay is not known."""


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self, store: Store, load: Callable[[str], Assay]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StoreFigures(store, load))
        self._requests = Counter(
            "cytoloop_http_requests",
            "Requests answered, by route, method and status. Growing 5xx: look into logs/backend.log.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "cytoloop_http_request_seconds",
            "Seconds a request took, by route, method and status.",
            ["route", "method", "status"],
            registry=self._registry,
        )

    def watch(self, app: Flask) -> None:
        """Count every request of an app."""
        app.before_request(self._begin)
        app.after_request(self._end)

    def text(self) -> bytes:
        """All figures now, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _begin(self) -> None:
        g.began = time.perf_counter()

    def _end(self, response: Response) -> Response:
        route = OTHER if request.url_rule is None else request.url_rule.rule
        method = request.method if request.method in METHODS else OTHER
        labels = (route, method, str(response.status_code))
        self._requests.labels(*labels).inc()
        if "began" in g:
            self._seconds.labels(*labels).observe(time.perf_counter() - g.began)
        return response


class StoreFigures(Collector):
    """What the store says, read anew each time."""

    def __init__(self, store: Store, load: Callable[[str], Assay]) -> None:
        self._store = store
        self._load = load

    def collect(self) -> Iterator[Metric]:
        """Every figure; see the module."""
        unreadable = GaugeMetricFamily(
            "cytoloop_unreadable",
            "1 if these figures could not be read from the home and are missing here; expected 0.",
            labels=["part"],
        )
        for part, read in (("inbox", self._inbox), ("doubts", self._doubts), ("assays", self._assays)):
            found: list[Metric] = []
            try:
                found = list(read())  # all of a part or none of it
            except Exception:  # whatever it is, the other figures are wanted
                logger.exception("metrics: %s cannot be read", part)
            unreadable.add_metric([part], 0 if found else 1)
            yield from found
        yield unreadable

    def _inbox(self) -> Iterable[Metric]:
        waiting = self._store.figures.waiting()
        yield GaugeMetricFamily(
            "cytoloop_inbox_waiting_events",
            "Events of Label Studio that are stored and not applied yet. They are applied within seconds: growing "
            "means that Label Studio is away or refuses our token.",
            value=waiting.events,
        )
        yield GaugeMetricFamily(
            "cytoloop_inbox_oldest_waiting_seconds",
            "Age of the event that waits longest; 0 if none waits. Above 120 /readyz says that the inbox is not "
            "draining.",
            value=_age(waiting.oldest),
        )

    def _doubts(self) -> Iterable[Metric]:
        told = GaugeMetricFamily(
            "cytoloop_doubts_open",
            "What Label Studio sent or holds and could not be stored; the dashboard lists it. Expected 0.",
            labels=["assay", "source"],
        )
        for (assay, source), count in self._store.figures.doubts().items():
            told.add_metric([assay or NOBODY, source], count)
        yield told

    def _assays(self) -> Iterable[Metric]:
        names = self._store.assays.names()
        figures = {name: self._store.figures.of(name) for name in names}

        def gauge(name: str, words: str, value: Callable[[AssayFigures], float | None]) -> Metric:
            told = GaugeMetricFamily(name, words, labels=["assay"])
            for assay, one in figures.items():
                number = value(one)
                if number is not None:
                    told.add_metric([assay], number)
            return told

        yield gauge(
            "cytoloop_reconciliation_lag_seconds",
            "Seconds since the trainer last asked Label Studio for what no event told, and got its answer. It looks "
            "every 15 s, less often while it publishes: some minutes mean that the trainer or Label Studio is away. "
            "Missing before the first look.",
            lambda one: None if one.looked_at is None else _age(one.looked_at),
        )
        yield gauge("cytoloop_items", "Items of the assay.", lambda one: one.items)
        yield gauge(
            "cytoloop_items_open",
            "Items that can still be handed out: held by nobody, neither corrected nor skipped. At 0 experts have "
            "nothing left to do.",
            lambda one: one.open_items,
        )
        yield gauge("cytoloop_items_corrected", "Items with a mask of an expert.", lambda one: one.corrected)
        yield gauge(
            "cytoloop_expert_minutes",
            "Minutes that the editor was open for the masks that stand.",
            lambda one: one.minutes,
        )
        yield gauge(
            "cytoloop_predictions_missing",
            "Items that the version in force has not predicted yet. They follow in the background after an import or "
            "a promotion; a number that stays means that the trainer is not running.",
            lambda one: None if one.active is None else max(0, one.items - one.predicted),
        )
        yield self._active(figures)
        yield from _counted(figures)
        yield from self._leases(figures)

    def _active(self, figures: dict[str, AssayFigures]) -> Metric:
        told = InfoMetricFamily(
            "cytoloop_active_model",
            "The version in force of each assay; none before the first import.",
            labels=["assay"],
        )
        for assay, one in figures.items():
            if one.active is not None:
                told.add_metric([assay], {"version": one.active, "method": one.method or ""})
        return told

    def _leases(self, figures: dict[str, AssayFigures]) -> Iterator[Metric]:
        leases = GaugeMetricFamily(
            "cytoloop_leases",
            "Leases ever given, by what became of them. Many expired: batches are larger than experts' time.",
            labels=["assay", "queue", "state"],
        )
        depth = GaugeMetricFamily(
            "cytoloop_queue_depth",
            "Items that experts hold in a queue and have not finished. At 0 its tabs in Label Studio are empty.",
            labels=["assay", "queue"],
        )
        for assay, one in figures.items():
            known = dict.fromkeys([*self._load(assay).queues, *(queue for queue, _ in one.leases)])
            for queue in known:
                for state in get_args(LeaseState):
                    leases.add_metric([assay, queue, state], one.leases.get((queue, state), 0))
                depth.add_metric([assay, queue], one.leases.get((queue, "held"), 0))
        yield leases
        yield depth


def _counted(figures: dict[str, AssayFigures]) -> Iterator[Metric]:
    corrections = CounterMetricFamily(
        "cytoloop_corrections",
        "What experts did, ever: masks submitted, items skipped, annotations deleted; a changed mask counts again.",
        labels=["assay", "kind"],
    )
    cycles = GaugeMetricFamily(
        "cytoloop_cycles",
        "Cycles by state. Queued for long: the trainer is not running; failed: read the report.",
        labels=["assay", "state"],
    )
    for assay, one in figures.items():
        for kind in KINDS:
            corrections.add_metric([assay, kind], one.revisions.get(kind, 0))
        for state in CYCLE_STATES:
            cycles.add_metric([assay, state], one.cycles.get(state, 0))
    yield corrections
    yield cycles


def _age(since: datetime | None) -> float:
    """Seconds since then, never below 0: two clocks may differ."""
    return 0.0 if since is None else max(0.0, (datetime.now(UTC) - since).total_seconds())
