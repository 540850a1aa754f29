"""``cytoloop results``: the methods compared on data whose truth is known, from nothing to the page."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cytoloop.adapters.images import PROVENANCE
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.commands.weak_label import weak_label_command
from cytoloop.domain.assay import Assay, Teacher
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.simulate.presets import preset_named
from cytoloop.files import read_json
from trainer.results.datasets import BUILDERS, REFERENCE_SEED, REFERENCE_WELLS, Dataset, open_dataset
from trainer.results.page import write_page
from trainer.results.plan import Run, plan
from trainer.results.running import Places, committee_folder, finished, perform
from trainer.results.summary import Study, has_cip

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsOptions:
    """What a study was asked for."""

    out: Path
    """Plates, weak labels and runs: kept, so that a stopped study goes on."""
    page: Path
    data: Path | None
    """Folder of the real data sets; those that are not there are left out."""
    datasets: tuple[str, ...]
    """Empty: all that are there."""
    seeds: int
    workers: int
    paper: bool
    device: str
    so_far: bool = False
    """Train nothing: the page of the runs that are finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsSummary:
    """What a study made."""

    page: Path
    figures: tuple[Path, ...]
    runs: int
    left_out: tuple[str, ...]
    """Data sets that were not at hand."""


def results_command(options: ResultsOptions, tell: Tell) -> ResultsSummary:
    """Prepare the data, do every run that is not done, write the page.

    Raises
    ------
    ConfigError
        If a data set is not known.
    InputError
        If none of those asked for is at hand.
    """
    unknown = sorted(set(options.datasets) - set(BUILDERS))
    if unknown:
        raise ConfigError(f"data sets {unknown}: expected any of {', '.join(BUILDERS)}")
    wanted = options.datasets or tuple(BUILDERS)
    plates = {name: plate_of(name, options.out, options.data, tell) for name in wanted}
    left_out = tuple(name for name, plate in plates.items() if plate is None)
    found = {name: plate for name, plate in plates.items() if plate is not None}
    if not found:
        raise InputError(f"--data {options.data}: holds none of {', '.join(wanted)}")
    datasets = [_weakly_labelled(name, plate, options, tell) for name, plate in found.items()]
    stages = plan([(d.name, len(d.folds)) for d in datasets], options.seeds, paper=options.paper)
    if not options.so_far:
        _perform_all(stages, {d.name: d for d in datasets}, options, tell)
    found_runs = {d.name: _documents(d, stages, Places(out=options.out)) for d in datasets}
    studies = [
        (d, Study(found_runs[d.name], len(d.folds)))
        for d in datasets
        if has_cip(found_runs[d.name], len(d.folds))
    ]
    page, *figures = write_page(options.page, studies, _command(options))
    return ResultsSummary(
        page=page,
        figures=tuple(figures),
        runs=sum(len(runs) for runs in found_runs.values()),
        left_out=left_out,
    )


def plate_of(name: str, out: Path, data: Path | None, tell: Tell) -> Path | None:
    """Folder of a data set's images; simulated into ``out`` where it is, None where it is not at hand."""
    if name != "reference-1":
        plate = None if data is None else data / name
        return plate if plate is not None and plate.is_dir() else None
    plate = out / name / "plate"
    images = preset_named(name).fields_per_well * sum(REFERENCE_WELLS.values())
    if not (plate / "index.csv").is_file():
        simulate_plate_command(
            plate, name, images, REFERENCE_SEED, lambda done, total: tell("simulate", done, total)
        )
    return plate


def weakly_labelled(dataset: Dataset, workers: int, tell: Tell) -> None:
    """Make the weak labels of a data set, unless they are there already."""
    _weak_label(
        dataset.plate,
        dataset.weak,
        dataset.assay,
        workers,
        lambda done, total: tell(f"weak labels {dataset.name}", done, total),
    )


def _weakly_labelled(name: str, plate: Path, options: ResultsOptions, tell: Tell) -> Dataset:
    dataset = open_dataset(name, plate, options.out / name / "weak")
    assay = dataset.assay
    weakly_labelled(dataset, options.workers, tell)
    if name == "reference-1":
        _weak_label(
            plate,
            committee_folder(dataset.weak),
            replace(assay, cip=replace(assay.cip, teachers=COMMITTEE, agreement=0.0)),
            options.workers,
            lambda done, total: tell("committee", done, total),
        )
    return dataset


COMMITTEE = (
    Teacher(
        parameters={
            "red_threshold": 1600,
            "tophat_threshold": 4800,
            "big_threshold": 4000,
            "green_threshold": 4000,
            "green_log_threshold": 8000,
        }
    ),
    Teacher(parameters={"acid_threshold": 1e6}),
)
"""Beside the recipe as published: one that is four times as strict, one that sees no acidic dips."""


def _weak_label(
    plate: Path, out: Path, assay: Assay, workers: int, progress: Callable[[int, int], None]
) -> None:
    path = out / PROVENANCE  # written last
    made = read_json(path) if path.is_file() else {}
    if (made.get("recipe_digest"), made.get("code_version")) != (recipe_digest(assay.cip), CODE_VERSION):
        weak_label_command(plate, out, assay, workers, progress)


def _perform_all(
    stages: Sequence[Sequence[Run]], datasets: dict[str, Dataset], options: ResultsOptions, tell: Tell
) -> None:
    total = sum(len(stage) for stage in stages)
    places = Places(out=options.out)
    done = 0
    for stage in stages:
        todo = [run for run in stage if finished(run, datasets[run.dataset], places) is None]
        done += len(stage) - len(todo)
        tell("runs", done, total)
        for _ in _finished(todo, datasets, places, options):
            done += 1
            tell("runs", done, total)


def _finished(
    todo: Sequence[Run], datasets: dict[str, Dataset], places: Places, options: ResultsOptions
) -> Iterator[Run]:
    # Spawned, not forked: a fork of a process whose libraries run threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.workers, mp_context=context, initializer=use_one_thread) as pool:
        jobs = [
            pool.submit(
                _perform_one,
                run,
                datasets[run.dataset].plate,
                datasets[run.dataset].weak,
                places,
                options.device,
            )
            for run in todo
        ]
        try:
            for future in as_completed(jobs):
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def use_one_thread() -> None:
    """Let each worker keep one core busy: two networks on a core each outrun one on both."""
    import torch

    torch.set_num_threads(1)


def _perform_one(run: Run, plate: Path, weak: Path, places: Places, device: str) -> Run:
    perform(run, open_dataset(run.dataset, plate, weak), places, device)
    return run


def _documents(dataset: Dataset, stages: Sequence[Sequence[Run]], places: Places) -> list[dict[str, Any]]:
    runs = (run for stage in stages for run in stage if run.dataset == dataset.name)
    return [done for run in runs if (done := finished(run, dataset, places)) is not None]


def _command(options: ResultsOptions) -> str:
    parts = ["cytoloop results", f"--seeds {options.seeds}"]
    if options.data is not None:
        parts.append("--data …")
    if options.paper:
        parts.append("--paper")
    return " ".join(parts)
