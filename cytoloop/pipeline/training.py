"""One training run on the store: snapshot in, registered version out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cytoloop.adapters.images import read_image
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.digest import digest_of, digest_of_pixels
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Method, ModelVersion, TrainingSnapshot
from cytoloop.nn.checkpoint import CheckpointRefused, remove_checkpoint
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import EpochReport, FitResult, TrainConfig, fit
from cytoloop.nn.unet import UNet
from cytoloop.nn.validate import mean_iou_score
from cytoloop.nn.weights import load_weights, note_digest, save_weights
from cytoloop.pipeline.interrupted import forget_run, note_run, run_folder
from cytoloop.pipeline.provenance import provenance
from cytoloop.pipeline.training_data import CleanImage, is_watched, learning_items, training_items
from cytoloop.pipeline.weak_labels import weak_masks

logger = logging.getLogger(__name__)
Thing = TypeVar("Thing")


WEAK_VALIDATION_IMAGES = 8
"""Images that the weak validation of an epoch looks at: it only tells, so it must not cost much."""


def validation_score(
    clean: Sequence[CleanImage], config: TrainConfig, device: str
) -> Callable[[UNet], float] | None:
    """Mean IoU on corrected validation tiles, as a function of the network; None without any pixel.

    Weak labels never choose an epoch: the better a network fits them, the more of the teacher's
    mistakes it repeats.
    """
    return mean_iou_score([(image.image_CHW, image.truth_HW) for image in clean], config, device)


def weak_validation_score(
    weak: Sequence[TrainingItem], config: TrainConfig, device: str
) -> Callable[[UNet], float] | None:
    """Mean IoU against the weak labels of images of validation wells, likewise; tells, never chooses."""
    return mean_iou_score([(item.image_CHW, item.mask_HW) for item in weak], config, device)


def validation_digest(clean: Sequence[CleanImage], weak: Sequence[TrainingItem]) -> str:
    """SHA-256 (hex) of the masks that the two validations look at."""
    masks = [image.truth_HW for image in clean], [item.mask_HW for item in weak]
    return digest_of([[digest_of_pixels(mask_HW) for mask_HW in side] for side in masks])


def spread(things: Sequence[Thing], most: int) -> Sequence[Thing]:
    """At most so many of them, evenly spread.

    Examples
    --------
    >>> spread("abcdefg", 3)
    'adg'
    """
    return things[:: max(1, -(-len(things) // most))]


def weak_validation_images(store: Store, assay: Assay) -> list[str]:
    """Images of validation wells that have a weak label, as many as a run looks at."""
    masks = weak_masks(store, assay)
    records = [r for r in store.images.all(assay.name, ["validation"]) if r.image_id in masks]
    return [record.image_id for record in spread(records, WEAK_VALIDATION_IMAGES)]


def weak_validation_items(store: Store, assay: Assay, snapshot: TrainingSnapshot) -> list[TrainingItem]:
    """The images that a run looks at while it goes on, with their weak labels."""
    items: list[TrainingItem] = []
    for row in snapshot.rows:
        if is_watched(row):
            items += learning_items(
                read_image(store.images.get(assay.name, row.image_id), assay),
                None,
                store.masks.get(row.mask),
                1.0,
                None if row.confidence is None else store.masks.get(row.confidence),
                row.agreement,
            )
    return items


def fed_items(
    items: Sequence[TrainingItem], config: TrainConfig, method: Method, tiling: tuple[int, int]
) -> list[TrainingItem]:
    """What the network is fed with: where items go in whole, each corrected tile is one of its own.

    So the paper had it: weak images of 680 x 512, corrected quarters of 340 x 256.
    """
    if config.crop is not None or method == "cdl":
        return list(items)
    fed: list[TrainingItem] = []
    for item in items:
        if item.weight < 1.0:
            fed.append(item)
            continue
        height, width = item.mask_HW.shape
        for tile in tiles_of(height, width, tiling):
            mask_HW = np.full_like(item.mask_HW, IGNORE)
            mask_HW[tile.slices] = item.mask_HW[tile.slices]
            if (mask_HW != IGNORE).any():
                fed.append(replace(item, mask_HW=mask_HW, area=tile.slices))
    return fed


def base_model(folder: Path, config: TrainConfig, digest: str | None = None) -> UNet:
    """The network a run goes on from.

    Raises
    ------
    InputError
        If its weights are not those of the digest, by default the one noted beside them.
    ConfigError
        If it learned under another normalisation: it would see other images than it knows.
    """
    loaded = load_weights(folder, digest)
    if loaded.normalisation != config.normalisation:
        raise ConfigError(
            f"{folder}: learned with {loaded.normalisation}, expected {config.normalisation}; train a new CDL first"
        )
    return loaded.model


def sources_document(result: FitResult, config: TrainConfig, method: Method) -> dict[str, Any]:
    """What weak labels and corrections each had of a run: plain values, stored with the version.

    ``loss_share`` is the expected share of the summed weight of all crops (or whole items), hence of the
    gradient: the loss is a mean over the pixels of each, so that pixels do not count twice.
    """
    # by weight, not by place: a joint run may find no correction it can use
    named = {
        "corrections" if method != "cdl" and source.weight == 1.0 else "weak": source
        for source in result.sources
    }
    return {**{name: asdict(source) for name, source in named.items()}, "trusted_share": config.trusted_share}


def history_document(result: FitResult) -> list[dict[str, Any]]:
    """The epochs of a run as plain values."""
    return [
        {
            "epoch": report.epoch,
            "loss": report.loss,
            "validation": report.validation,
            "weak_validation": report.weak_validation,
        }
        for report in result.history
    ]


def train_version(
    store: Store,
    registry: Registry,
    assay: Assay,
    snapshot: TrainingSnapshot,
    *,
    method: Method,
    preset: str,
    config: TrainConfig,
    weak_weight: float,
    base: ModelVersion | None = None,
    device: str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[ModelVersion, FitResult]:
    """Train on a snapshot and register the outcome as a candidate.

    Parameters
    ----------
    base : ModelVersion, optional
        The CDL that a *joint* run starts from: always the base, never the last fine-tune, so that
        errors do not add up over a chain of runs.
    """
    items, clean = training_items(store, assay, snapshot, weak_weight)
    initial = None
    if base is not None:
        initial = base_model(registry.folder(base.version), config, base.digest)
    checkpoint = run_folder(store, snapshot, config, base)
    weak_validation = weak_validation_items(store, assay, snapshot)
    note_run(checkpoint, snapshot, method, config, base)

    def train() -> FitResult:
        return fit(
            config,
            fed_items(items, config, method, assay.tiling),
            validate=validation_score(clean, config, device),
            validate_weak=weak_validation_score(weak_validation, config, device),
            initial=initial,
            device=device,
            progress=progress,
            cancelled=cancelled,
            checkpoint=checkpoint,
            validation_digest=validation_digest(clean, weak_validation),
        )

    try:
        result = train()
    except CheckpointRefused as error:
        # Nobody is there to ask, and a checkpoint is worth less than a cycle.
        logger.warning("checkpoint left out, the run begins anew: %s", error)
        remove_checkpoint(checkpoint)
        result = train()
    document: dict[str, Any] = {
        "preset": preset,
        "train": config.to_dict(),
        "weak_weight": weak_weight,
        "recipe": recipe_digest(assay.cip),
        "agreement": assay.cip.agreement,
        "cip_code": CODE_VERSION,
        "weak_rows": sum(row.source == "weak" and row.split == "train" for row in snapshot.rows),
        "correction_rows": sum(row.source == "correction" and row.split == "train" for row in snapshot.rows),
        "validation_rows": sum(
            row.source == "correction" and row.split == "validation" for row in snapshot.rows
        ),
        "best_epoch": result.best_epoch,
        "history": history_document(result),
        "sources": sources_document(result, config, method),
        "environment": provenance(device, config.precision),
    }
    version, digest = registry.add(
        method,
        lambda folder: save_weights(folder, result.model, config.network, config.normalisation),
        {
            "assay": assay.document(),
            "snapshot": snapshot.digest,
            "parent": base.version if base else None,
            "config": document,
        },
    )
    store.models.add_snapshot(snapshot)
    model = ModelVersion(
        version=version,
        assay=assay.name,
        method=method,
        status="candidate",
        digest=digest,
        parent=base.version if base else None,
        snapshot=snapshot.digest,
        config=document,
        metrics={},
        created_at=datetime.now(UTC),
    )
    store.models.add(model)
    forget_run(checkpoint)
    logger.info("trained version=%s seconds=%.0f best_epoch=%d", version, result.seconds, result.best_epoch)
    return model, result


def write_weights(folder: Path, result: FitResult, config: TrainConfig) -> str:
    """Save a run's weights outside a registry, and beside them their digest, which is returned."""
    digest = save_weights(folder, result.model, config.network, config.normalisation)
    note_digest(folder, digest)
    return digest
