"""The backend as a process under mixed traffic: no errors, and what it acknowledged is there, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from cytoloop.adapters.store import Store
from cytoloop.commands.bench import serving as bench_serving
from cytoloop.commands.bench import uncached as bench_uncached
from cytoloop.commands.bench.clients import Times
from cytoloop.commands.bench.home import annotation_of
from cytoloop.commands.bench.serving import CLIENTS, SHARES, Served, compare_inbox, served, serving_figures
from cytoloop.commands.bench.uncached import uncached_figures


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nothing_beside(*_: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(epochs=0, images=0)

    for name, value in {"PREDICT_S": 0.3, "INTAKE_S": 0.5, "PAUSE_S": 0.001, "SAMPLE_EVERY_S": 0.2}.items():
        monkeypatch.setattr(bench_serving, name, value)
    monkeypatch.setattr(bench_serving, "FIELDS", 1)
    monkeypatch.setattr(bench_serving, "COPIES", 8)
    monkeypatch.setattr(bench_serving, "learn_network", lambda *_: SimpleNamespace(version="none"))
    monkeypatch.setattr(bench_serving, "training_beside", nothing_beside)


def test_mixed_traffic_meets_no_error_and_every_acknowledged_event_is_there_once() -> None:
    figures = {figure.name: figure for figure in serving_figures(0.05, lambda *_: None)}
    errors = {name: f.value for name, f in figures.items() if name.endswith(": errors")}
    assert errors == dict.fromkeys(errors, 0)
    asked = ("stored /predict, nothing beside", "stored /predict", "/webhook")
    assert {
        f"{part}: errors" for part in (*asked, *(f"mixed: {route}" for route in (*SHARES, "release")))
    } <= set(errors)
    assert figures["acknowledged events that are not in the inbox"].value == 0
    assert figures["events that are in the inbox twice"].value == 0
    assert figures["events acknowledged"].value >= figures["/webhook: requests"].value > 0
    assert all(figures[f"mixed: {route}: requests"].value > 0 for route in SHARES)
    assert figures["memory of the server at the end"].value > 50
    assert figures["/webhook: events"].is_floor
    assert {name for name, f in figures.items() if f.bar is not None and f.unit == "ms"} == {
        "stored /predict, nothing beside: p99",
        "stored /predict: p99",
        "/webhook: p99",
    }


def test_a_stop_amid_traffic_loses_no_acknowledged_event() -> None:
    with served(lambda *_: None) as server:
        times = Times()
        half = threading.Barrier(CLIENTS + 1)

        def send(_: int) -> None:
            client = server.client(times)
            for n in range(10_000):
                if n == 20:
                    half.wait(30)
                if not server.send_event(client):  # it was told to stop, and is away
                    break
            client.close()

        clients = [threading.Thread(target=send, args=(n,)) for n in range(CLIENTS)]
        for thread in clients:
            thread.start()
        half.wait(30)
        server.child.stop(timeout_s=20)
        for thread in clients:
            thread.join(30)
        assert server.child.exit_code == 0, "it ended by itself"
        assert len(server.acknowledged) >= 20 * CLIENTS
        assert compare_inbox(server.home.store, server.acknowledged) == (0, 0)
        stored = [annotation_of(body) for _, body in server.home.store.inbox.after(0, limit=10**6)]
        assert len(stored) - len(server.acknowledged) <= CLIENTS, "one each whose answer was lost, at most"


def test_items_without_a_prediction_are_asked_for_anew_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CIP in force, and in the place of the eager network a second for all items: no PyTorch, no minutes."""
    computed: list[int] = []

    class Eager:
        def __init__(self, server: Served, version: str, task_ids: list[int]) -> None:
            self._store, self._version = server.home.store, version

        def seconds(self) -> float:
            computed.append(self._store.predictions.count("rosella", self._version))
            return 1.0

    monkeypatch.setattr(bench_uncached, "ROUNDS", 2)
    monkeypatch.setattr(bench_uncached, "_Eager", Eager)
    monkeypatch.setattr(
        bench_uncached, "learn_network", lambda store, registry, assay: store.models.active(assay.name)
    )
    figures = {figure.name: figure for figure in uncached_figures(lambda *_: None)}
    assert computed == [32, 20, 20], "forgotten before each round, and all of it asked for"
    assert figures["errors"].value == 0
    seconds = figures["20 uncached items of 5 image(s), 4 clients: all"].value
    speed = figures["20 uncached items of 5 image(s), 4 clients: throughput"]
    assert speed.value == pytest.approx(1 / seconds, rel=0.5)
    assert (speed.bar, speed.is_floor) == (2, True)
    assert 0 < figures["/health meanwhile, median"].value <= figures["/health meanwhile, p99"].value


def test_what_is_lost_and_what_is_there_twice_is_counted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    events = {n: b'{"annotation": {"id": %d}}' % n for n in range(4)}
    for n in (0, 1, 1, 2):
        store.inbox.append(events[n])
    assert compare_inbox(store, events) == (1, 1)
    store.inbox.append(b'{"annotation": {"id": 2}, "other": 1}')
    assert compare_inbox(store, events) == (1, 2), "the same annotation in other words"
    store.close()
