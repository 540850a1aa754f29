"""What else a machine does while people are served: one training after another, and everything scored anew.

Both as the trainer does them: the training in its own process that steps back, the scoring in that of the trainer.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.commands.home import find_assay
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ExternalError
from cytoloop.domain.trainer_policy import Limits
from cytoloop.domain.types import ModelVersion

LEARNING_STEPS = 60
"""Of the network that scores. It must have learned that most is background, or its masks are of thousands of specks."""
READY_TIMEOUT_S = 300.0


class _Stopped(Exception):
    """The block that all this runs beside is over."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What was done beside, so far."""

    _epochs: Any
    _images: Any

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return int(self._epochs.value)

    @property
    def images(self) -> int:
        """Images scored."""
        return int(self._images.value)


def learn_network(store: Store, registry: Registry, assay: Assay) -> ModelVersion:
    """A network of the fast preset's size that has learned for a moment, as a candidate."""
    from cytoloop.pipeline.training import train_version
    from trainer.presets import WEAK_WEIGHT, preset
    from trainer.runs import freeze

    frozen = freeze(store, assay, {}, method="cdl", preset_name="fast", seed=0, device="cpu")
    config = replace(
        preset("fast", "cdl", assay, 0),
        epochs=1,
        steps_per_epoch=LEARNING_STEPS,
        patience=None,
        stop_gain=None,
    )
    model, _ = train_version(
        store,
        registry,
        assay,
        store.models.snapshot(frozen.job.snapshot),
        method="cdl",
        preset="fast",
        config=config,
        weak_weight=WEAK_WEIGHT["cdl"],
        device="cpu",
    )
    return model


@contextmanager
def training_beside(home: Path, assay: str, version: str) -> Iterator[Beside]:
    """Train and score in other processes for the length of a block, which begins when both are under way.

    Parameters
    ----------
    version : str
        The network that scores all images, again and again.
    """
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    epochs, images, problem = context.Value("i", 0), context.Value("i", 0), context.Queue()
    arguments = (home, assay, version, stopping, epochs, images, problem)
    process = context.Process(target=_work, args=arguments)
    process.start()
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not (epochs.value and images.value):
            if time.monotonic() > deadline or process.exitcode is not None:
                why = problem.get(timeout=1) if process.exitcode else "it is still not under way"
                raise ExternalError(f"training and scoring beside the server: {why}")
            time.sleep(0.2)
        yield Beside(epochs, images)
        if process.exitcode is not None:
            raise ExternalError(
                f"training and scoring beside the server ended early: {problem.get(timeout=1)}"
            )
    finally:
        stopping.set()
        process.join(30)
        if process.exitcode is None:
            process.kill()
            process.join()


def _work(home: Path, name: str, version: str, stopping: Any, epochs: Any, images: Any, problem: Any) -> None:
    """In the process beside: the training in a thread, which mostly waits for its child; the scoring here."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            _train(home, name, stopping, epochs)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, name="training")
    thread.start()
    try:
        _score(home, name, version, stopping, images, failures)
    except BaseException as error:
        failures.append(error)
    stopping.set()
    thread.join()
    if failures:
        problem.put(repr(failures[0]))
        raise SystemExit(1)


def _train(home: Path, name: str, stopping: Any, epochs: Any) -> None:
    from cytoloop.nn.fit import EpochReport, TrainingCancelled
    from trainer.isolation import ChildProcess
    from trainer.runs import freeze

    def count(_: EpochReport) -> None:
        epochs.value += 1

    store, assay = Store(home), find_assay(home, name)
    try:
        run, seed = ChildProcess(home, Limits()), 0
        while not stopping.is_set():
            seed += 1
            frozen = freeze(store, assay, {}, method="cdl", preset_name="fast", seed=seed, device="cpu")
            try:
                run(frozen.job, progress=count, cancelled=stopping.is_set)
            except TrainingCancelled:
                return
    finally:
        store.close()


def _score(
    home: Path, name: str, version: str, stopping: Any, images: Any, failures: list[BaseException]
) -> None:
    from cytoloop.pipeline.predictors import load_predictor
    from labelstudio_config.ranking import rank_everything

    def count(*_: object) -> None:
        images.value += 1
        if stopping.is_set() or failures:
            raise _Stopped

    store, assay = Store(home), find_assay(home, name)
    try:
        predictor = load_predictor(store, Registry(home / "models"), assay, store.models.get(version), "cpu")
        while True:
            rank_everything(store, assay, predictor, count)
            store.predictions.forget(name, version)
            store.scores.forget(name, version)
    except _Stopped:
        pass
    finally:
        store.close()
