"""``cytoloop tune-cip``: a recipe's parameters against corrections, from the store or from folders."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.assays import cip_text
from cytoloop.adapters.images import read_mask, write_atomically
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import recipe_of
from cytoloop.domain.errors import ConfigError, PlateError, ShapeError
from cytoloop.domain.splits import assign_splits
from cytoloop.domain.types import ImageRecord, check_label_mask
from cytoloop.pipeline.tuning import (
    CorrectedField,
    Progress,
    Setting,
    Tuned,
    corrected_fields,
    fields_with_light,
    tune,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOptions:
    """What a search was asked for."""

    trials: int = 60
    seed: int = 0
    workers: int = 1
    parameters: tuple[str, ...] = ()
    """Names to change; empty for those the recipe searches by default."""
    images: Path | None = None
    labels: Path | None = None
    out: Path | None = None
    """Where the tuned ``cip:`` block goes, if it is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneSummary:
    """What a search found, beside what the assay says now."""

    assay: str
    recipe: str
    searched: dict[str, tuple[float, float]]
    """Bounds by parameter."""
    trials: int
    seed: int
    train_images: int
    validation_images: int
    classes: tuple[str, ...]
    present: Setting
    tuned: Setting | None
    """Of what the search proposed, the best on validation wells; None if nothing beat ``present`` on training wells."""
    is_better: bool
    """Whether ``tuned`` beats ``present`` on validation wells; if not, keep the present setting."""
    cip: str | None
    """What to paste into the assay file; None where the present setting is kept."""
    out: Path | None
    """Where it was written."""
    seconds: float


Count = Callable[[int, int], None]


def tune_from_store(
    home: Home,
    assay: Assay,
    options: TuneOptions,
    reading: Count | None = None,
    progress: Progress | None = None,
) -> TuneSummary:
    """Tune on the corrections of a home."""
    if options.labels is not None:
        raise ConfigError("tuning from the store: --labels was given without --images; expected both or none")
    _check(assay, options)
    return _tuned(assay, options, *corrected_fields(home.store, assay, reading), progress)


def tune_from_folders(
    assay: Assay, options: TuneOptions, reading: Count | None = None, progress: Progress | None = None
) -> TuneSummary:
    """Tune on folders alone; wells are split as a store that sees them first would split them.

    A plate that a store holds already may be split otherwise there: tune it from the store.

    Raises
    ------
    ConfigError
        If a folder is missing, or ``--out`` exists.
    PlateError
        If no image has a mask.
    """
    if options.images is None or options.labels is None:
        raise ConfigError("tuning from folders: --images and --labels are needed")
    _check(assay, options)
    records = read_plate(options.images, assay)
    drawn = assign_splits({}, [record.group for record in records], salt=assay.name)
    truth = _truth(options.labels, [replace(r, split=drawn[r.group]) for r in records], assay)
    split = {record.image_id: drawn[record.group] for record in records}
    fields: dict[str, list[CorrectedField]] = {"train": [], "validation": []}
    for image_id, field in fields_with_light(records, truth, assay, reading):
        fields[split[image_id]].append(field)
    return _tuned(assay, options, fields["train"], fields["validation"], progress)


def _check(assay: Assay, options: TuneOptions) -> None:
    """Refuse what would be found wrong only after minutes of work."""
    recipe_of(assay.cip).tuned(options.parameters)
    if options.out is not None and options.out.exists():
        raise ConfigError(f"{options.out}: exists; expected the name of a new file")


def _truth(folder: Path, records: list[ImageRecord], assay: Assay) -> Mapping[str, NDArray[np.uint8]]:
    """Masks of training and validation wells; those of the other wells are not looked at."""
    truth = {}
    for record in records:
        path = folder / f"{record.image_id}.png"
        if record.split not in ("train", "validation") or not path.is_file():
            continue
        mask_HW = check_label_mask(read_mask(path), assay.class_count, str(path))
        if mask_HW.shape != (record.height, record.width):
            raise ShapeError(f"{path}: mask {mask_HW.shape}, image ({record.height}, {record.width})")
        truth[record.image_id] = mask_HW
    if not truth:
        raise PlateError(f"{folder}: no mask <image_id>.png of a training or validation well")
    return truth


def _tuned(
    assay: Assay,
    options: TuneOptions,
    train: list[CorrectedField],
    validation: list[CorrectedField],
    progress: Progress | None,
) -> TuneSummary:
    begun = time.monotonic()
    found: Tuned = tune(
        assay.cip,
        train,
        validation,
        trials=options.trials,
        seed=options.seed,
        names=options.parameters,
        workers=options.workers,
        progress=progress,
    )
    text = None
    if found.best is not None and found.is_better:
        text = cip_text(replace(assay.cip, parameters=found.best.parameters))
        if options.out is not None:
            written = text
            write_atomically(options.out, lambda path: path.write_text(written, encoding="utf-8"))
    return TuneSummary(
        assay=assay.name,
        recipe=assay.cip.recipe,
        searched={name: (span.low, span.high) for name, span in found.searched.items()},
        trials=found.trials,
        seed=options.seed,
        train_images=len(train),
        validation_images=len(validation),
        classes=assay.class_names,
        present=found.present,
        tuned=found.best,
        is_better=found.is_better,
        cip=text,
        out=options.out if text is not None else None,
        seconds=time.monotonic() - begun,
    )
