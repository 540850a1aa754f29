"""kill -9 at any moment of a cycle, of the trainer or of the training: nothing is lost, nothing is half made.

``CYTOLOOP_TEST_KILLS=50`` kills that often; what is done in between grows with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from remote import Desk
from tiny import BATCH, Tiny, make_tiny
from victim import trainer_of

from cytoloop.adapters.registry import Registry
from cytoloop.domain.types import Item
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.payloads import prediction_result

KILLS = int(os.environ.get("CYTOLOOP_TEST_KILLS", "3"))
SEED = int(os.environ.get("CYTOLOOP_TEST_SEED", "1"))
LONGEST_S = 20.0
"""A cycle with three trainings takes about as long."""
SUPPORT = Path(__file__).parents[1] / "support"


@dataclass
class Laboratory:
    """A home, Label Studio, a trainer that is killed, and what experts have done."""

    tiny: Tiny
    desk: Desk
    rng: np.random.Generator
    drawn: dict[int, tuple[Item, NDArray[np.uint8]]] = field(default_factory=dict)
    """What stands in Label Studio, by annotation."""
    happened: Counter[str] = field(default_factory=Counter)

    def correct(self, count: int) -> None:
        """Experts submit, change and delete; one event in three gets lost."""
        tiny, rng = self.tiny, self.rng
        for _ in range(count):
            with self.desk.lock:
                tiny.studio.listener = tiny.store.inbox.append if rng.random() > 1 / 3 else None
                held = tiny.held() or tiny.items()
                item = held[rng.integers(len(held))]
                mask_HW = tiny.truth_of(item).copy()
                mask_HW[: rng.integers(1, 4)] = 0  # so that no two are equal by accident
                result = prediction_result(mask_HW, tiny.assay)
                choice = rng.random()
                if self.drawn and choice < 0.15:
                    annotation = list(self.drawn)[rng.integers(len(self.drawn))]
                    item = self.drawn[annotation][0]
                    mask_HW = tiny.truth_of(item).copy()
                    mask_HW[:, : rng.integers(1, 4)] = 0
                    tiny.studio.update(annotation, result=prediction_result(mask_HW, tiny.assay))
                elif self.drawn and choice < 0.2:
                    annotation = list(self.drawn)[rng.integers(len(self.drawn))]
                    del self.drawn[annotation]
                    tiny.studio.delete_annotation(annotation)
                    continue
                else:
                    annotation = tiny.studio.annotate(tiny.task_of(item), result)
                self.drawn[annotation] = (item, mask_HW)

    def ask(self) -> None:
        """Somebody asks for a cycle, or for another version."""
        store, name = self.tiny.store, self.tiny.name
        kind = self.rng.choice(["train", "promote", "rollback"], p=[0.6, 0.2, 0.2])
        ready = [
            m.version for m in store.models.all(name) if m.status in ("rejected", "retired", "candidate")
        ]
        if kind == "promote" and ready:
            store.cycles.ask(name, "ada", kind="promote", target=str(self.rng.choice(ready)))
        elif kind == "rollback" and store.publications.previous(name) is not None:
            store.cycles.ask(name, "ada", kind="rollback")
        else:
            store.cycles.ask(name, "ada")

    def kill(self, target: str, after_s: float) -> None:
        """Start a trainer and kill -9 it, its training, or both."""
        log = (self.tiny.home / "victim.log").open("ab")
        victim = subprocess.Popen(
            [sys.executable, str(SUPPORT / "victim.py"), str(self.tiny.home), str(self.desk.socket)],
            stdout=subprocess.PIPE,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n", (self.tiny.home / "victim.log").read_text()[-2000:]
        time.sleep(after_s)
        assert victim.poll() is None, (self.tiny.home / "victim.log").read_text()[-2000:]
        running = [row for row in self.tiny.store.cycles.all(self.tiny.name) if row["state"] == "running"]
        at = running[-1]["step"].partition(":")[0].split(" ")[0] if running else "looking"
        children = psutil.Process(victim.pid).children()
        if target == "child" and children:
            at = "training alone"
            for child in children:
                child.send_signal(signal.SIGKILL)
            time.sleep(min(2.0, LONGEST_S / 10))  # it is started again; then the trainer, too
        victim.kill()
        victim.wait()
        victim.stdout.close()
        log.close()
        self.happened[at] += 1
        psutil.wait_procs(children, timeout=20)
        assert not [child for child in children if child.is_running()], "an orphan trains on"

    def check(self) -> None:
        """At once, before anything is repaired: the databases, the registry, and the version in force."""
        store, name = self.tiny.store, self.tiny.name
        assert store.check() == []
        registry = Registry(self.tiny.home / "models")
        for model in store.models.all(name):
            if model.status != "pruned":
                assert registry.manifest(model.version)["digest"] == model.digest
                load_predictor(store, registry, self.tiny.assay, model, "cpu")
        assert [m.status for m in store.models.all(name)].count("active") == 1

    def check_after_start(self) -> None:
        """The next start's first look, without the cycles it is asked for."""
        tiny = self.tiny
        with self.desk.lock:
            tiny.studio.listener = None
        starter = trainer_of(tiny.home, self.desk.socket)
        assert starter._look_after(tiny.name, None), "looked"
        starter.close()
        version = tiny.active()
        assert tiny.store.publications.unfinished(tiny.name) is None
        assert tiny.studio.model_version == version
        scores = tiny.studio.scores()
        held = tiny.held()
        assert held
        assert [item for item in held if scores[tiny.task_of(item)] is None] == [], "a score is null"
        pairs = [(p["task"], p["model_version"]) for p in tiny.studio.predictions.values()]
        assert len(pairs) == len(set(pairs)), "a task holds a version twice"
        living = tiny.store.corrections.living_annotations(tiny.name)
        assert set(living) == set(self.drawn)
        kept = {
            row["annotation_id"]: row["mask"]
            for row in tiny.store.corrections.revisions(tiny.name)
            if row["kind"] == "submitted"
        }
        for annotation, (item, mask_HW) in self.drawn.items():
            stored_HW = tiny.store.masks.get(kept[annotation])
            assert (stored_HW == mask_HW).all(), f"annotation {annotation} of {item}"


@pytest.fixture
def laboratory(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    tiny = make_tiny(tmp_path, wells=16 if KILLS <= 10 else 32)
    desk = Desk(tiny.studio, tmp_path_factory.mktemp("s") / "studio")
    tiny.publish_active(BATCH)
    yield Laboratory(tiny, desk, np.random.default_rng(SEED))
    desk.close()
    tiny.store.close()


@pytest.mark.timeout(60 + 40 * KILLS)
def test_killed_at_any_moment(laboratory: Laboratory, capsys: pytest.CaptureFixture[Any]) -> None:
    rng = laboratory.rng
    laboratory.correct(8)
    for _ in range(KILLS):
        laboratory.correct(int(rng.integers(1, 4)))
        laboratory.ask()
        laboratory.kill(str(rng.choice(["trainer", "child"])), float(rng.uniform(0, LONGEST_S)))
        laboratory.check()
        laboratory.check_after_start()
    assert sum(laboratory.happened.values()) == KILLS
    with capsys.disabled():
        if KILLS > 10:
            states = Counter(
                row["outcome"] or row["state"] for row in laboratory.tiny.store.cycles.all("tiny")
            )
            print(
                f"\nkilled at {dict(laboratory.happened)}; cycles {dict(states)}; "
                f"{len(laboratory.drawn)} corrections; {len(laboratory.tiny.store.models.all('tiny'))} versions"
            )
