"""One training run on the store: snapshot in, registered version out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.metrics import confusion_matrix, pixel_metrics
from cytoloop.domain.types import Method, ModelVersion, TrainingSnapshot
from cytoloop.nn.device import choose_device
from cytoloop.nn.fit import EpochReport, FitResult, TrainConfig, fit
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet
from cytoloop.nn.weights import load_weights, save_weights
from cytoloop.pipeline.training_data import CleanImage, training_items

logger = logging.getLogger(__name__)


def validation_score(
    clean: Sequence[CleanImage], config: TrainConfig, device: str
) -> Callable[[UNet], float] | None:
    """Mean IoU on corrected validation tiles, as a function of the network; None without any pixel.

    Weak labels never choose an epoch: the better a network fits them, the more of the teacher's
    mistakes it repeats.
    """
    clean = [image for image in clean if (image.truth_HW != IGNORE).any()]
    if not clean:
        return None
    class_count = config.network.class_count

    def score(model: UNet) -> float:
        total = np.zeros((class_count, class_count), np.int64)
        for image in clean:
            prob_KHW = predict_prob(model, image.image_CHW, config.normalisation, choose_device(device))
            pred_HW = prob_KHW.argmax(axis=0).astype(np.uint8)
            total += confusion_matrix(image.truth_HW, pred_HW, class_count)
        return float(pixel_metrics(total).mean_iou)

    return score


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
        initial = load_weights(registry.folder(base.version), base.digest).model
    result = fit(
        config,
        items,
        validate=validation_score(clean, config, device),
        initial=initial,
        device=device,
        progress=progress,
        cancelled=cancelled,
    )
    document: dict[str, Any] = {
        "preset": preset,
        "train": config.to_dict(),
        "weak_weight": weak_weight,
        "recipe": recipe_digest(assay.cip),
        "cip_code": CODE_VERSION,
        "weak_rows": sum(row.source == "weak" for row in snapshot.rows),
        "correction_rows": sum(row.source == "correction" and row.split == "train" for row in snapshot.rows),
        "validation_rows": sum(row.split == "validation" for row in snapshot.rows),
        "best_epoch": result.best_epoch,
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
    logger.info("trained version=%s seconds=%.0f best_epoch=%d", version, result.seconds, result.best_epoch)
    return model, result


def write_weights(folder: Path, result: FitResult, config: TrainConfig) -> str:
    """Save a run's weights outside a registry; returns their digest."""
    folder.mkdir(parents=True, exist_ok=True)
    return save_weights(folder, result.model, config.network, config.normalisation)
