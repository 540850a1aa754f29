"""``cytoloop train``: one training run, from the store or from folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cytoloop.adapters.images import read_image, read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, PlateError, ShapeError
from cytoloop.domain.splits import assign_splits
from cytoloop.domain.types import ImageRecord, Method, check_label_mask
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import EpochReport, FitResult, fit
from cytoloop.nn.weights import load_weights
from cytoloop.pipeline.training import validation_score, write_weights
from cytoloop.pipeline.training_data import CleanImage, learning_items
from trainer.presets import WEAK_WEIGHT, preset
from trainer.runs import run_training

Progress = Callable[[EpochReport], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What a run was asked for."""

    method: Method
    preset: str
    seed: int
    device: str
    images: Path | None = None
    labels: Path | None = None
    weak: Path | None = None
    base: Path | None = None
    """Weights of the CDL that a joint run starts from."""
    out: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSummary:
    """What a run made."""

    version: str | None
    folder: str
    digest: str
    best_epoch: int
    validation_mean_iou: float | None
    seconds: float
    history: list[dict[str, Any]]


def train_from_store(home: Home, assay: Assay, options: TrainOptions, progress: Progress) -> TrainSummary:
    """Train on what the store holds; the outcome is a candidate for the next cycle's contest."""
    given = [name for name in ("labels", "weak", "base", "out") if getattr(options, name) is not None]
    if given:
        raise ConfigError(
            f"training from the store: --{given[0]} was given without --images; expected both or none"
        )
    bases = [m for m in home.store.models.all(assay.name) if m.method == "cdl"]
    if options.method == "joint" and not bases:
        raise ConfigError(
            f"assay {assay.name!r}: joint training starts from a CDL; expected one first (--method cdl)"
        )
    trained = run_training(
        home.store,
        home.registry,
        assay,
        home.store.corrections.standing(assay.name),
        method=options.method,
        preset_name=options.preset,
        seed=options.seed,
        base=bases[-1] if options.method == "joint" else None,
        device=options.device,
        progress=progress,
    )
    model = trained.model
    return _summary(trained.result, str(home.registry.folder(model.version)), model.digest, model.version)


def train_from_folders(assay: Assay, options: TrainOptions, progress: Progress) -> TrainSummary:
    """Train on folders alone; wells are split as the store would split them.

    Raises
    ------
    ConfigError
        If a folder that the method needs was not given.
    PlateError
        If no image has a mask.
    """
    if options.images is None or options.out is None:
        raise ConfigError("training from folders: --images and --out are needed")
    given = {"--weak": options.weak, "--labels": options.labels, "--base": options.base}
    needed = {"cdl": ("--weak",), "mdl": ("--labels",), "joint": ("--weak", "--labels", "--base")}
    if any(given[name] is None for name in needed[options.method]):
        raise ConfigError(
            f"training from folders: method {options.method!r} needs {', '.join(needed[options.method])}"
        )
    records = read_plate(options.images, assay)
    drawn = assign_splits({}, [record.group for record in records], salt=assay.name)
    items: list[TrainingItem] = []
    clean: list[CleanImage] = []
    for record in (replace(r, split=drawn[r.group]) for r in records):
        image_CHW = read_image(record, assay)
        label = _mask(options.labels, record, assay)
        weak = _mask(options.weak, record, assay)
        if record.split == "validation" and label is not None:
            clean.append(CleanImage(image_CHW=image_CHW, truth_HW=label))
        if record.split != "train":
            continue
        items += learning_items(
            image_CHW,
            label if options.method in ("mdl", "joint") else None,
            weak if options.method in ("cdl", "joint") else None,
            WEAK_WEIGHT[options.method],
        )
    if not items:
        raise PlateError(f"{options.images}: no training well has a mask for method {options.method!r}")
    config = preset(options.preset, options.method, assay, options.seed, is_validated=bool(clean))
    result = fit(
        config,
        items,
        validate=validation_score(clean, config, options.device),
        initial=load_weights(options.base).model if options.base else None,
        device=options.device,
        progress=progress,
    )
    digest = write_weights(options.out, result, config)
    return _summary(result, str(options.out), digest, None)


def _mask(folder: Path | None, record: ImageRecord, assay: Assay) -> Any:
    if folder is None:
        return None
    path = folder / f"{record.image_id}.png"
    if not path.is_file():
        return None
    mask_HW = check_label_mask(read_mask(path), assay.class_count, str(path))
    if mask_HW.shape != (record.height, record.width):
        raise ShapeError(f"{path}: mask {mask_HW.shape}, image ({record.height}, {record.width})")
    return mask_HW


def _summary(result: FitResult, folder: str, digest: str, version: str | None) -> TrainSummary:
    best = result.history[result.best_epoch - 1]
    return TrainSummary(
        version=version,
        folder=folder,
        digest=digest,
        best_epoch=result.best_epoch,
        validation_mean_iou=best.validation,
        seconds=result.seconds,
        history=[{"epoch": e.epoch, "loss": e.loss, "validation": e.validation} for e in result.history],
    )
