"""``cytoloop train``: one training run, from the store or from folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image, read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.commands.weak_label import CONFIDENCE
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, PlateError, ShapeError
from cytoloop.domain.splits import assign_splits
from cytoloop.domain.types import ImageRecord, Method, check_label_mask
from cytoloop.nn.checkpoint import remove_checkpoint
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import EpochReport, FitResult, TrainConfig, fit
from cytoloop.pipeline.training import (
    WEAK_VALIDATION_IMAGES,
    base_model,
    fed_items,
    history_document,
    sources_document,
    spread,
    validation_digest,
    validation_score,
    weak_validation_score,
    write_weights,
)
from cytoloop.pipeline.training_data import CleanImage, learning_items
from trainer.presets import WEAK_WEIGHT, preset, split_shares
from trainer.runs import freeze, run_job

Progress = Callable[[EpochReport], None]
Counted = Callable[[int, int], None]
"""``done`` of ``total`` images read."""

CHECKPOINT = "checkpoint"
"""Folder in ``--out`` that a run goes on from if it is killed; gone once the weights are written."""


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
    """On corrected items of validation wells, at the kept epoch."""
    weak_validation_mean_iou: float | None
    """Against weak labels of validation wells, at the kept epoch."""
    seconds: float
    resumed_after_epoch: int
    """0 = the run began anew."""
    sources: dict[str, Any]
    """What weak labels and corrections each had of the loss."""
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
    frozen = freeze(
        home.store,
        assay,
        home.store.corrections.standing(assay.name),
        method=options.method,
        preset_name=options.preset,
        seed=options.seed,
        base=bases[-1] if options.method == "joint" else None,
        device=options.device,
    )
    model, result = run_job(home.store, home.registry, assay, frozen.job, progress=progress)
    folder = str(home.registry.folder(model.version))
    return _summary(result, folder, model.digest, model.version, model.config["sources"])


def train_from_folders(
    assay: Assay, options: TrainOptions, progress: Progress, reading: Counted | None = None
) -> TrainSummary:
    """Train on folders alone; wells are split by the preset's shares, else as a store that sees
    them first would. A plate that a store holds already may be split otherwise there.

    A run that was killed leaves ``out/checkpoint``, from which the same run goes on.

    Parameters
    ----------
    reading : callable, optional
        Told how many images of training wells are read.

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
    groups, shares = [record.group for record in records], split_shares(options.preset, options.method)
    if shares is None:
        drawn = assign_splits({}, groups, salt=assay.name)
    else:
        drawn = assign_splits({}, groups, salt=assay.name, fractions=shares, caps={})
    taught: list[tuple[ImageRecord, list[TrainingItem]]] = []
    clean: list[CleanImage] = []
    weakly: list[tuple[ImageRecord, NDArray[np.uint8], NDArray[np.uint8] | None]] = []
    for record in (replace(r, split=drawn[r.group]) for r in records):
        label = _mask(options.labels, record, assay)
        weak = _mask(options.weak, record, assay)
        confidence = _confidence(options.weak, record)
        if record.split == "validation":
            if label is not None:
                clean.append(CleanImage(image_CHW=read_image(record, assay), truth_HW=label))
            if weak is not None:
                weakly.append((record, weak, confidence))
        if record.split != "train":
            continue
        items = learning_items(
            _unread(record, assay),
            label if options.method in ("mdl", "joint") else None,
            weak if options.method in ("cdl", "joint") else None,
            WEAK_WEIGHT[options.method],
            confidence,
            assay.cip.agreement,
        )
        if items:
            taught.append((record, items))
    if not taught:
        raise PlateError(f"{options.images}: no training well has a mask for method {options.method!r}")
    weak_items = [
        item
        for record, weak, confidence in spread(weakly, WEAK_VALIDATION_IMAGES)
        for item in learning_items(
            read_image(record, assay), None, weak, 1.0, confidence, assay.cip.agreement
        )
    ]
    config = preset(options.preset, options.method, assay, options.seed)
    result = fit(
        config,
        _ReadWhenAsked(taught, config, options.method, assay, reading),
        validate=validation_score(clean, config, options.device),
        validate_weak=weak_validation_score(weak_items, config, options.device),
        initial=None if options.base is None else base_model(options.base, config),
        device=options.device,
        progress=progress,
        checkpoint=options.out / CHECKPOINT,
        validation_digest=validation_digest(clean, weak_items),
    )
    digest = write_weights(options.out, result, config)
    remove_checkpoint(options.out / CHECKPOINT)
    sources = sources_document(result, config, options.method)
    return _summary(result, str(options.out), digest, None, sources)


class _ReadWhenAsked(Sequence[TrainingItem]):
    """What a network is fed with, each image read when its item is asked for: 4000 would not fit at once."""

    def __init__(
        self,
        taught: Sequence[tuple[ImageRecord, list[TrainingItem]]],
        config: TrainConfig,
        method: Method,
        assay: Assay,
        tell: Counted | None,
    ) -> None:
        self._items = [
            (record, item)
            for record, items in taught
            for item in fed_items(items, config, method, assay.tiling)
        ]
        self._assay = assay
        self._tell = tell

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        record, item = self._items[index]
        if self._tell is not None:
            self._tell(index + 1, len(self._items))
        return replace(item, image_CHW=read_image(record, self._assay))


def _unread(record: ImageRecord, assay: Assay) -> NDArray[np.float32]:
    """Stand in for an image that is read later: its shape, and no memory."""
    return np.broadcast_to(np.float32(0.0), (len(assay.channels), record.height, record.width))


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


def _confidence(weak: Path | None, record: ImageRecord) -> NDArray[np.uint8] | None:
    """What ``cytoloop weak-label`` wrote beside a mask that several teachers voted for."""
    if weak is None:
        return None
    path = weak / CONFIDENCE / f"{record.image_id}.png"
    if not path.is_file():
        return None
    confidence_HW = read_mask(path)
    if confidence_HW.shape != (record.height, record.width):
        raise ShapeError(f"{path}: confidence {confidence_HW.shape}, image ({record.height}, {record.width})")
    return confidence_HW


def _summary(
    result: FitResult, folder: str, digest: str, version: str | None, sources: dict[str, Any]
) -> TrainSummary:
    best = result.history[result.best_epoch - 1]
    return TrainSummary(
        version=version,
        folder=folder,
        digest=digest,
        best_epoch=result.best_epoch,
        validation_mean_iou=best.validation,
        weak_validation_mean_iou=best.weak_validation,
        seconds=result.seconds,
        resumed_after_epoch=result.resumed_after,
        sources=sources,
        history=history_document(result),
    )
