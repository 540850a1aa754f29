"""``cytoloop bench uncached``: items without a stored prediction, asked for by several at once.

Beside it, in the same minutes and on the same machine, what a server does that computes each item as it is asked
for, one after the other: the eager network over the item, and nothing else; no file is read, nothing is sent.
"""

from __future__ import annotations

import threading
import time

import numpy as np

from cytoloop.adapters.images import read_image
from cytoloop.commands.bench.beside import learn_network
from cytoloop.commands.bench.clients import Times, at_once, basic
from cytoloop.commands.bench.figures import Figure, Tell
from cytoloop.commands.bench.serving import Served, served
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item

ITEMS, CLIENTS = 20, 4
ROUNDS = 5
HEALTH_EVERY_S = 0.01
TIMES_FASTER, HEALTH_MS = 2.0, 20.0


def uncached_figures(tell: Tell) -> list[Figure]:
    """How much more is served than one after the other, and how long ``/health`` takes meanwhile."""
    ratios: list[float] = []
    seconds: list[float] = []
    work: list[float] = []
    times = Times()
    with served(tell) as server:
        tell("learn", 0, 1)
        home = server.home
        network = learn_network(home.store, home.registry, home.assay)
        home.store.models.activate(home.assay.name, network.version)
        tell("learn", 1, 1)
        task_ids = sorted(home.tasks)
        wanted, other = task_ids[:ITEMS], task_ids[-1]
        _ask_all(server, [other], Times())  # loads the network, and PyTorch with it
        eager = _Eager(server, network.version, wanted)
        eager.seconds()  # warms up
        worker = server.worker()
        for done in range(ROUNDS):
            home.store.predictions.forget(home.assay.name, network.version)
            before = sum(worker.cpu_times()[:2])
            seconds.append(_ask_all(server, wanted, times))
            served_work = sum(worker.cpu_times()[:2]) - before
            before = time.process_time()
            ratios.append(eager.seconds() / seconds[-1])
            work.append((time.process_time() - before) / served_work)
            tell("uncached", done + 1, ROUNDS)
    health = times.routes()["/health"]
    images = len({home.tasks[task_id]["image_id"] for task_id in wanted})
    asked = f"{ITEMS} uncached items of {images} image(s), {CLIENTS} clients"
    return [
        Figure(
            name=f"{asked}: throughput",
            value=float(np.median(ratios)),
            unit="x one after the other through the eager network",
            bar=TIMES_FASTER,
            is_floor=True,
        ),
        Figure(
            name="processor time of the eager network over the server's",
            value=float(np.median(work)),
            unit="x",
        ),
        Figure(name=f"{asked}: all", value=float(np.median(seconds)), unit="s"),
        Figure(name="errors", value=len(times.errors), unit="", bar=0),
        Figure(name="/health meanwhile, median", value=float(np.median(health)), unit="ms", bar=HEALTH_MS),
        Figure(
            name="/health meanwhile, p99", value=float(np.percentile(health, 99)), unit="ms", bar=HEALTH_MS
        ),
    ]


def _ask_all(server: Served, task_ids: list[int], times: Times) -> float:
    """Seconds until all are answered; ``/health`` is asked all the while."""
    settings = server.home.settings
    headers = basic(settings.backend_user, settings.backend_password or "")
    is_over = threading.Event()

    def watch() -> None:
        client = server.client(times)
        while not is_over.wait(HEALTH_EVERY_S):
            client.ask("/health", "GET", "/health", None, headers)
        client.close()

    def ask(number: int) -> None:
        client = server.client(times)
        for task_id in task_ids[number::CLIENTS]:
            client.ask("/predict", "POST", "/predict", server.home.predict_body([task_id]), headers)
        client.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        begun = time.perf_counter()
        at_once(CLIENTS, ask)
        return time.perf_counter() - begun
    finally:
        is_over.set()
        watcher.join()


class _Eager:
    """The network as PyTorch runs it, over items that lie in memory."""

    def __init__(self, server: Served, version: str, task_ids: list[int]) -> None:
        from cytoloop.nn.weights import load_weights

        home = server.home
        self._loaded = load_weights(home.registry.folder(version), home.store.models.get(version).digest)
        self._images = []
        for task_id in task_ids:
            item = Item(image_id=home.tasks[task_id]["image_id"], tile=home.tasks[task_id]["tile"])
            record = home.store.images.get(home.assay.name, item.image_id)
            tile = tiles_of(record.height, record.width, home.assay.tiling)[item.tile]
            self._images.append(read_image(record, home.assay)[(slice(None), *tile.slices)])

    def seconds(self) -> float:
        """Seconds of all items, one after the other."""
        from cytoloop.nn.predict import predict_prob

        begun = time.perf_counter()
        for image_CHW in self._images:
            predict_prob(self._loaded.model, image_CHW, self._loaded.normalisation)
        return time.perf_counter() - begun
