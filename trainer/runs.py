"""One training run on what the store holds, for a cycle and for the command line alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import Item, Method, ModelVersion, TrainingSnapshot
from cytoloop.nn.fit import EpochReport, FitResult
from cytoloop.pipeline.training import train_version
from cytoloop.pipeline.weak_labels import weak_confidences, weak_masks
from trainer.presets import WEAK_WEIGHT, preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run, and the version it made."""

    model: ModelVersion
    result: FitResult
    snapshot: TrainingSnapshot


def run_training(
    store: Store,
    registry: Registry,
    assay: Assay,
    standing: Mapping[Item, StoredCorrection],
    *,
    method: Method,
    preset_name: str,
    seed: int,
    base: ModelVersion | None = None,
    device: str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Trained:
    """Freeze a snapshot of weak labels and these corrections, train on it, register the candidate."""
    splits = {record.image_id: record.split for record in store.images.all(assay.name)}
    corrected = {item: correction.mask for item, correction in standing.items()}
    snapshot = make_snapshot(
        assay.name,
        method,
        weak_masks(store, assay),
        corrected,
        splits,
        weak_confidences(store, assay),
        assay.cip.agreement,
    )
    model, result = train_version(
        store,
        registry,
        assay,
        snapshot,
        method=method,
        preset=preset_name,
        config=preset(preset_name, method, assay, seed),
        weak_weight=WEAK_WEIGHT[method],
        base=base,
        device=device,
        progress=progress,
        cancelled=cancelled,
    )
    return Trained(model=model, result=result, snapshot=snapshot)
