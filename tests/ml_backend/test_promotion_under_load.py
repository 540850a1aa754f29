"""Promotions while clients ask for predictions: the real web process, real networks, over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tiny import BATCH, Tiny, make_tiny

import labelstudio_config.publish as publishing
from cytoloop.adapters.store import Store
from cytoloop.domain.types import Item
from cytoloop.pipeline.predictors import Predictor, load_predictor
from labelstudio_config.prelabel import prelabel
from labelstudio_config.publish import publish
from labelstudio_config.ranking import strategies_for
from labelstudio_config.schema import labeling_config
from ml_backend.active_model import ActiveModel
from trainer.presets import smoke
from trainer.runs import RunResult, freeze, run_job

CLIENTS = 8
PROMOTIONS = 6


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tiny, list[Predictor]]]:
    """A home with two networks."""
    tiny = make_tiny(tmp_path_factory.mktemp("load"), wells=8)
    tiny.set_policy(BATCH)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = [train(tiny, seed) for seed in (0, 1)]
    yield tiny, made
    torch.set_num_threads(threads)
    tiny.store.close()


def train(tiny: Tiny, seed: int) -> Predictor:
    """A network that has learned next to nothing: what it says is its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "trainer.runs.preset",
            lambda name, method, assay, seed: replace(
                smoke(method, assay, seed), crop=32, batch=2, epochs=1, steps_per_epoch=4
            ),
        )
        frozen = freeze(
            tiny.store, tiny.assay, {}, method="cdl", preset_name="smoke", seed=seed, device="cpu"
        )
        model, result = run_job(tiny.store, tiny.registry, tiny.assay, frozen.job)
    assert RunResult.of(model.version, result).version == model.version
    return load_predictor(tiny.store, tiny.registry, tiny.assay, model, "cpu")


@pytest.fixture
def address(versions: tuple[Tiny, list[Predictor]]) -> Iterator[str]:
    """`cytoloop backend` on the home, in a process of its own."""
    tiny, _ = versions
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = tiny.settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CYTOLOOP_")} | {
        "CYTOLOOP_HOME": str(settings.home),
        "CYTOLOOP_LABEL_STUDIO_URL": "http://127.0.0.1:9",
        "CYTOLOOP_LABEL_STUDIO_TOKEN": str(settings.label_studio_token),
        "CYTOLOOP_BACKEND_PASSWORD": str(settings.backend_password),
        "CYTOLOOP_WEBHOOK_SECRET": str(settings.webhook_secret),
        "CYTOLOOP_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "cytoloop.cli", "backend", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(300):
            assert process.poll() is None, "the backend ended"
            try:
                if httpx.get(f"{url}/livez", timeout=1).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def says(tiny: Tiny, predictor: Predictor) -> dict[Item, list[dict[str, Any]]]:
    """What a version says of every item, as Label Studio is told."""
    strategy = strategies_for(tiny.store, tiny.assay, predictor.offers, predictor.version)[0]
    said = {}
    for record in tiny.store.images.all(tiny.name):
        look = predictor.look(record, strategy.needs)
        predictions, _ = prelabel(record, look, tiny.assay, predictor.version, strategy)
        said |= {stored.item: list(stored.result) for stored in predictions}
    return said


def test_promotions_while_eight_clients_ask(
    versions: tuple[Tiny, list[Predictor]], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, networks = versions
    monkeypatch.setattr(publishing, "WINDOW", 4)
    monkeypatch.setattr(publishing, "DRAWN", 2)
    first = load_predictor(tiny.store, tiny.registry, tiny.assay, tiny.store.models.active(tiny.name))
    publish(tiny.studio, tiny.store, tiny.assay, first)
    said = {predictor.version: says(tiny, predictor) for predictor in (first, *networks)}
    items = tiny.items()
    assert all(said[networks[0].version][item] != said[networks[1].version][item] for item in items[:3])
    documents = {item: {**tiny.studio.task(tiny.task_of(item)), "meta": {}} for item in items}
    failed: list[str] = []
    answered: Counter[str] = Counter()
    is_over = threading.Event()

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with httpx.Client(base_url=address, auth=("label-studio", "backend-password-91c2")) as client:
            while not is_over.is_set():
                asked = [items[n] for n in rng.choice(len(items), rng.integers(1, 5), replace=False)]
                body = {
                    "tasks": [documents[item] for item in asked],
                    "project": f"{tiny.studio.project_id}.1795343015",
                    "label_config": labeling_config(tiny.assay),
                    "params": {},
                }
                answer = client.post("/predict", json=body, timeout=60)
                if answer.status_code != 200:
                    failed.append(answer.text)
                    continue
                for item, result in zip(asked, answer.json()["results"], strict=True):
                    answered[result["model_version"]] += 1
                    if result["result"] != said[result["model_version"]][item]:
                        failed.append(f"{item}: not the mask of {result['model_version']}")

    clients = [threading.Thread(target=ask, args=(seed,)) for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    for turn in range(PROMOTIONS):
        time.sleep(1.2)
        coming = networks[turn % 2]
        store = Store(tiny.home)  # as the trainer does it: another connection than the clients' server has
        for version in store.predictions.versions(tiny.name) - {store.models.active(tiny.name).version}:
            store.predictions.forget(tiny.name, version)  # computed anew, under way
            store.scores.forget(tiny.name, version)
        publish(tiny.studio, store, tiny.assay, coming)
        store.close()
        assert tiny.active() == coming.version
    time.sleep(1)
    is_over.set()
    for client in clients:
        client.join(60)
    assert failed == []
    assert set(answered) >= {network.version for network in networks}
    assert sum(answered.values()) > 100


def test_the_coming_version_is_loaded_before_it_serves(versions: tuple[Tiny, list[Predictor]]) -> None:
    tiny, networks = versions
    coming = next(network for network in networks if network.version != tiny.active())
    active = ActiveModel(tiny.store, tiny.registry, "cpu")
    before = active.predictor(tiny.assay)
    assert active.prepare(tiny.assay) is None, "nothing comes"
    publication = tiny.store.publications.begin(tiny.name, coming.version, tiny.active(), [])
    assert active.prepare(tiny.assay) == coming.version
    assert active.prepare(tiny.assay) is None, "once"
    assert active.predictor(tiny.assay) is before, "the other one serves until it is in force"
    tiny.store.models.activate(tiny.name, coming.version)
    tiny.store.publications.advance(publication, "done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml_backend.active_model.load_predictor", lambda *_: pytest.fail("loaded again"))
        assert active.predictor(tiny.assay).version == coming.version
