"""``cytoloop bench serving``: the real backend as a process, eight clients at once, a training and a re-scoring beside.

Three parts: predictions that are stored, asked for without a pause; events, sent without a pause; then minutes of all
that people, Label Studio and scripts ask, mixed, with the memory of the server watched. At the end every event that
was acknowledged must lie in the inbox, once, byte by byte.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from cytoloop.adapters.store import Store
from cytoloop.commands.bench.beside import learn_network, training_beside
from cytoloop.commands.bench.clients import Client, Times, at_once, basic, bearer
from cytoloop.commands.bench.figures import Figure, Tell
from cytoloop.commands.bench.home import BATCH, BenchHome, annotation_of, make_bench_home
from cytoloop.commands.bench.studio import stand_in
from cytoloop.commands.processes import Child, start_backend
from labelstudio_config.project import SECRET_HEADER
from labelstudio_config.server import free_port

logger = logging.getLogger(__name__)

CLIENTS = 8
FIELDS, COPIES = 12, 8
PREDICT_S = INTAKE_S = 15.0
"""How long each of the first two parts takes."""
PAUSE_S = 0.05
"""Mean pause of a client in the mixed part: with answers at once, eight ask 160 times a second."""
SAMPLE_EVERY_S = 1.0
WARM_UP = 0.25
"""Share of the mixed part after which memory is to be flat: every route was asked, every thread has its connections."""
PREDICT_MS = INTAKE_MS = 50.0
EVENTS_PER_S = 200.0
GROWTH_PERCENT = 2.0
MOST_ERRORS = 10
"""Told in words; the rest is counted."""
SHARES = {
    "/predict": 0.3,
    "/webhook": 0.2,
    "worklist": 0.2,
    "dashboard": 0.1,
    "claim": 0.05,
    "/health": 0.1,
    "/readyz": 0.05,
}
"""Of the requests of the mixed part; what was claimed is released one by one."""


@dataclass(kw_only=True)
class Served:
    """A backend at work, and what was sent to it."""

    home: BenchHome
    port: int
    child: Child
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Of annotations: no two events have the same."""
    acknowledged: dict[int, bytes] = field(default_factory=dict)
    """Events that were answered with 202, by annotation."""

    def client(self, times: Times) -> Client:
        """A new client."""
        return Client(self.port, times)

    def predict(self, client: Client, rng: np.random.Generator) -> None:
        """Ask for a prediction that is stored, as Label Studio does when a task is opened."""
        settings = self.home.settings
        body = self.home.predict_body([int(rng.integers(1, len(self.home.tasks) + 1))])
        client.ask(
            "/predict",
            "POST",
            "/predict",
            body,
            basic(settings.backend_user, settings.backend_password or ""),
        )

    def send_event(self, client: Client) -> bool:
        """Send an event, and note it if it was acknowledged."""
        number = next(self.numbers)
        body = self.home.event(number)
        headers = {SECRET_HEADER: self.home.settings.webhook_secret or ""}
        if client.ask("/webhook", "POST", "/webhook", body, headers, expected=(202,)) is None:
            return False
        self.acknowledged[number] = body
        return True

    def worker(self) -> psutil.Process:
        """The process that answers; the child itself only starts it again."""
        (worker,) = psutil.Process(self.child.pid).children()
        return worker


@contextmanager
def served(tell: Tell) -> Iterator[Served]:
    """A backend over a new home, for the length of a block."""
    port, studio_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cytoloop-bench-") as folder:
        home = make_bench_home(Path(folder), f"http://127.0.0.1:{studio_port}", FIELDS, COPIES, tell)
        try:
            with stand_in(studio_port, home.version, home.tasks, home.users):
                child = start_backend(home.settings, port, environ=without_ours(os.environ))
                try:
                    yield Served(home=home, port=port, child=child)
                finally:
                    child.stop(timeout_s=30)
        finally:
            home.close()


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment that names no home, Label Studio or secret of this machine's."""
    return {name: value for name, value in environ.items() if not name.startswith("CYTOLOOP_")}


def serving_figures(minutes: float, tell: Tell) -> list[Figure]:
    """Predictions alone and under load, events under load, then ``minutes`` of mixed requests."""
    with served(tell) as server:
        tell("predictions, nothing beside", 0, 1)
        alone = closed_loop(server, PREDICT_S, lambda client, rng: server.predict(client, rng))
        tell("predictions, nothing beside", 1, 1)
        tell("learn", 0, 1)
        network = learn_network(server.home.store, server.home.registry, server.home.assay)
        tell("learn", 1, 1)
        home = server.home
        with training_beside(home.settings.home, home.assay.name, network.version) as beside:
            tell("predictions", 0, 1)
            loaded = closed_loop(server, PREDICT_S, lambda client, rng: server.predict(client, rng))
            tell("predictions", 1, 1)
            tell("events", 0, 1)
            begun = time.perf_counter()
            intake = closed_loop(server, INTAKE_S, lambda client, _: server.send_event(client))
            rate = len(server.acknowledged) / (time.perf_counter() - begun)
            tell("events", 1, 1)
            mixed, memory = _mixed_part(server, 60 * minutes, tell)
        for error in [e for times in (alone, loaded, intake, mixed) for e in times.errors][:MOST_ERRORS]:
            logger.warning("serving: %s", error)
        lost, double = compare_inbox(home.store, server.acknowledged)
        return [
            *_told("stored /predict, nothing beside", alone, "/predict", PREDICT_MS),
            *_told("stored /predict", loaded, "/predict", PREDICT_MS),
            *_told("/webhook", intake, "/webhook", INTAKE_MS),
            Figure(name="/webhook: events", value=rate, unit="/s", bar=EVENTS_PER_S, is_floor=True),
            *(figure for route in mixed.routes() for figure in _told(f"mixed: {route}", mixed, route, None)),
            *_memory_figures(memory),
            Figure(name="events acknowledged", value=len(server.acknowledged), unit=""),
            Figure(name="acknowledged events that are not in the inbox", value=lost, unit="", bar=0),
            Figure(name="events that are in the inbox twice", value=double, unit="", bar=0),
            Figure(name="epochs trained beside", value=beside.epochs, unit=""),
            Figure(name="images scored beside", value=beside.images, unit=""),
        ]


def closed_loop(
    server: Served, seconds: float, ask: Callable[[Client, np.random.Generator], object]
) -> Times:
    """Clients who ask again as soon as they have an answer."""
    times, until = Times(), time.monotonic() + seconds

    def work(number: int) -> None:
        client, rng = server.client(times), np.random.default_rng(number)
        try:
            while time.monotonic() < until:
                ask(client, rng)
        finally:
            client.close()

    at_once(CLIENTS, work)
    return times


def mixed_traffic(server: Served, seconds: float) -> Times:
    """Clients who each do a bit of everything, with a pause in between."""
    times, until = Times(), time.monotonic() + seconds

    def work(number: int) -> None:
        client, rng = server.client(times), np.random.default_rng(number)
        user, token = server.home.users[number], server.home.tokens[number]
        client.log_in(token)
        try:
            while time.monotonic() < until:
                route = str(rng.choice(list(SHARES), p=list(SHARES.values())))
                ask_one(server, client, route, str(user["email"]), token, rng)
                time.sleep(rng.exponential(PAUSE_S))
        finally:
            client.close()

    at_once(CLIENTS, work)
    return times


def ask_one(
    server: Served, client: Client, route: str, email: str, token: str, rng: np.random.Generator
) -> None:
    """One request of the mixed part; a claim is followed by the releases."""
    settings = server.home.settings
    if route == "/predict":
        server.predict(client, rng)
    elif route == "/webhook":
        server.send_event(client)
    elif route == "worklist":
        client.ask(route, "GET", f"/api/v1/worklist?limit=100&expert={email}", None, bearer(token))
    elif route == "dashboard":
        client.ask(route, "GET", "/", None, client.session)
    elif route == "claim":
        body = json.dumps({"expert": email, "count": BATCH}).encode()
        claimed = client.ask(route, "POST", "/api/v1/worklist/claim", body, bearer(token), (200, 201))
        for entry in json.loads(claimed)["entries"] if claimed else ():
            # 409: an event has finished it meanwhile
            client.ask(
                "release", "DELETE", f"/api/v1/leases/{entry['lease']}", None, bearer(token), (200, 409)
            )
    elif route == "/health":
        client.ask(route, "GET", route, None, basic(settings.backend_user, settings.backend_password or ""))
    else:
        client.ask(route, "GET", route)


def compare_inbox(store: Store, acknowledged: dict[int, bytes]) -> tuple[int, int]:
    """How many of these events are not in the inbox as they were sent, and how many are there more than once."""
    found: Counter[bytes] = Counter(body for _, body in store.inbox.after(0, limit=10**9))
    lost = sum(body not in found for body in acknowledged.values())
    twice = Counter(annotation_of(body) for body in found.elements())
    return lost, sum(count > 1 for count in twice.values())


# --- what is told ------------------------------------------------------------------------------------------


def _mixed_part(server: Served, seconds: float, tell: Tell) -> tuple[Times, NDArray[np.float64]]:
    """The mixed part, and (seconds, MB) of the server's resident memory meanwhile."""
    samples: list[tuple[float, float]] = []
    is_over = threading.Event()
    worker, begun = server.worker(), time.monotonic()

    def watch() -> None:
        while not is_over.wait(SAMPLE_EVERY_S):
            after = time.monotonic() - begun
            samples.append((after, worker.memory_info().rss / 1e6))
            tell("mixed", min(round(after), round(seconds)), round(seconds))

    samples.append((0.0, worker.memory_info().rss / 1e6))
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        times = mixed_traffic(server, seconds)
    finally:
        is_over.set()
        watcher.join()
    samples.append((time.monotonic() - begun, worker.memory_info().rss / 1e6))
    return times, np.array(samples)


def _told(name: str, times: Times, route: str, bar_ms: float | None) -> list[Figure]:
    took = times.routes()[route]
    return [
        Figure(name=f"{name}: requests", value=len(took), unit=""),
        Figure(name=f"{name}: errors", value=times.errors_of(route), unit="", bar=0),
        *(
            Figure(
                name=f"{name}: {what}",
                value=float(np.percentile(took, share)),
                unit="ms",
                bar=bar_ms if what == "p99" else None,
            )
            for what, share in (("p50", 50), ("p95", 95), ("p99", 99), ("max", 100))
        ),
    ]


def _memory_figures(memory_N2: NDArray[np.float64]) -> list[Figure]:
    """At the start, after the warm-up, at the end; growth and slope from the warm-up on."""
    after_N, mb_N = memory_N2.T
    warm = after_N >= WARM_UP * after_N[-1]
    slope = np.polyfit(after_N[warm] / 60, mb_N[warm], 1)[0] if warm.sum() > 1 else 0.0
    level, end = mb_N[warm][0], mb_N[-1]
    return [
        Figure(name="memory of the server at the start", value=float(mb_N[0]), unit="MB"),
        Figure(name="memory of the server, warm", value=float(level), unit="MB"),
        Figure(name="memory of the server at the end", value=float(end), unit="MB"),
        Figure(
            name="growth from warm to end", value=float(100 * (end / level - 1)), unit="%", bar=GROWTH_PERCENT
        ),
        Figure(name="slope from warm to end", value=float(slope), unit="MB/min"),
    ]
