"""``cytoloop simulate-learning``: strategies against random choice, in minutes of a simulated expert."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoloop.commands.results import plate_of, use_one_thread, weakly_labelled
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.strategies import Need, needs_of, strategy_named
from trainer.learning.page import RANDOM, LearningSummary, write_learning
from trainer.learning.setting import Setting, setting, stages_of
from trainer.learning.simulation import Places, finished, learn, make_base
from trainer.results.datasets import BUILDERS, Dataset, labelled_folder, open_dataset

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningOptions:
    """What a simulated study was asked for."""

    strategies: tuple[str, ...]
    """Compared with ``random``, which is always there."""
    seeds: int
    first_seed: int
    """Screen strategies on some seeds, then confirm the winner on others."""
    data: Path | None
    """A labelled folder of ``assay``; or, with ``dataset``, the folder of the real data sets."""
    assay: Assay | None
    dataset: str
    """Used where ``assay`` is not given."""
    out: Path
    """Plates, weak labels and runs: kept, so that a stopped study goes on."""
    preset: str
    workers: int
    device: str
    so_far: bool = False
    """Train nothing: the page of the runs that are finished."""


def simulate_learning_command(options: LearningOptions, tell: Tell) -> LearningSummary:
    """Prepare the data, do every run that is not done, write figure and JSON.

    Raises
    ------
    ConfigError
        If a strategy or data set is not known, or the data are not at hand.
    """
    names = tuple(dict.fromkeys((RANDOM, *options.strategies)))
    for name in names:
        strategy_named(name)
    dataset = _dataset(options, tell)
    stages = stages_of(dataset)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    settings = [setting(dataset, seed, stages, options.preset) for seed in seeds]
    if not options.so_far:
        _perform(settings, names, options, tell)
    places = Places(out=options.out)
    bases = {s.seed: finished(s, "base", places) for s in settings}
    runs = {(s.seed, name): finished(s, name, places) for s in settings for name in names}
    return write_learning(options.out / dataset.name, dataset, names, bases, runs)


def _dataset(options: LearningOptions, tell: Tell) -> Dataset:
    if options.assay is not None:
        if options.data is None:
            raise ConfigError("--assay: says how a folder is labelled; expected --data with that folder")
        weak = options.out / options.data.resolve().name / "weak"
        dataset = labelled_folder(options.data, weak, options.assay)
    else:
        if options.dataset not in BUILDERS:
            raise ConfigError(f"--dataset {options.dataset!r}: expected one of {', '.join(BUILDERS)}")
        plate = plate_of(options.dataset, options.out, options.data, tell)
        if plate is None:
            raise ConfigError(
                f"--dataset {options.dataset}: not in {options.data}; expected --data with the folder that holds it"
            )
        dataset = open_dataset(options.dataset, plate, options.out / options.dataset / "weak")
    weakly_labelled(dataset, options.workers, tell)
    return dataset


def _perform(settings: Sequence[Setting], names: Sequence[str], options: LearningOptions, tell: Tell) -> None:
    places = Places(out=options.out)
    bases = [(s, "base") for s in settings if finished(s, "base", places) is None]
    runs = [(s, name) for s in settings for name in names if finished(s, name, places) is None]
    total = len(settings) * (len(names) + 1)
    done = total - len(bases) - len(runs)
    tell("runs", done, total)
    for stage in (bases, runs):
        for _ in _finished(stage, places, options):
            done += 1
            tell("runs", done, total)


def _finished(
    todo: Sequence[tuple[Setting, str]], places: Places, options: LearningOptions
) -> Iterator[dict[str, Any]]:
    # Spawned, not forked: a fork of a process whose libraries run threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context, initializer=use_one_thread) as pool:
        needs = needs_of(strategy_named(name) for name in (RANDOM, *options.strategies))
        jobs = [pool.submit(_one, where, name, places, options.device, needs) for where, name in todo]
        try:
            for future in as_completed(jobs):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _one(where: Setting, name: str, places: Places, device: str, needs: frozenset[Need]) -> dict[str, Any]:
    def quiet(step: str) -> None:
        """Steps of one run are of no interest beside those of all."""

    if name == "base":
        return make_base(where, places, device, quiet, needs)
    return learn(where, name, places, device, quiet)
