"""Audit of corrections: each is held against a model that learned without it.

The training wells are dealt into folds. For each fold a network learns from all the others, as a cycle
would train it, and says what it makes of the fold's corrections (:mod:`cytoloop.domain.label_quality`).
A joint run starts from the CDL of the home, which saw the weak labels of every training well but never a
correction.

Only training wells are audited. A model that had the masks revised that it is judged on would be judged by
its own opinion; so validation, contest and sealed items are never asked about. Nor are items of several
readers, which have been looked at more than once already.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from cytoloop.adapters.images import read_image
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, StateError
from cytoloop.domain.label_quality import LabelQuality, label_quality
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, Method, ModelVersion, Split
from cytoloop.nn.device import choose_device
from cytoloop.nn.fit import EpochReport, TrainConfig, fit
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet
from cytoloop.pipeline.consensus import agreed
from cytoloop.pipeline.training import base_model, fed_items, validation_score
from cytoloop.pipeline.training_data import training_items
from cytoloop.pipeline.weak_labels import weak_confidences, weak_masks

logger = logging.getLogger(__name__)
Progress = Callable[[str, float], None]
"""Words, and the share of the whole that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedCorrection:
    """A correction, and what a model that never saw it makes of it."""

    correction: StoredCorrection
    quality: LabelQuality


def folds_of(corrections: Mapping[str, int], folds: int) -> dict[str, int]:
    """Deal wells into folds of about equally many corrections, in an order that only their names decide.

    Parameters
    ----------
    corrections : mapping of group to int
        Corrections of each well.
    folds : int
        >= 2.

    Raises
    ------
    ConfigError
        If there are fewer than two folds.
    StateError
        If there are fewer wells than folds.

    Examples
    --------
    >>> folds_of({"A01": 4, "A02": 1, "A03": 1, "A04": 2}, 2)
    {'A01': 0, 'A04': 1, 'A03': 1, 'A02': 1}
    """
    if folds < 2:
        raise ConfigError(f"audit: {folds} fold(s), expected at least 2: one to learn from, one to judge")
    if len(corrections) < folds:
        raise StateError(
            f"audit: corrections of {len(corrections)} training well(s), expected at least {folds}, one a "
            "fold: correct more wells, or ask for fewer folds"
        )
    sizes = [0] * folds
    dealt = {}
    by_name = sorted(corrections, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    for group in sorted(by_name, key=lambda group: -corrections[group]):  # stable: equals stay as they are
        fold = sizes.index(min(sizes))
        dealt[group] = fold
        sizes[fold] += corrections[group]
    return dealt


def audit_corrections(
    store: Store,
    registry: Registry,
    assay: Assay,
    config: TrainConfig,
    *,
    method: Method,
    weak_weight: float,
    base: ModelVersion | None = None,
    folds: int = 3,
    device: str = "auto",
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> list[AuditedCorrection]:
    """Judge every correction of the training wells by a model of the other folds, the most doubtful first.

    Parameters
    ----------
    config : TrainConfig
        Numbers of each run; one a fold.
    method : Method
        *joint* or *mdl*.
    base : ModelVersion, optional
        The CDL that each run starts from.

    Raises
    ------
    StateError
        If there are fewer corrected training wells than folds.
    ConfigError
        If there are fewer than two folds, or the base does not go with the config.
    """
    held = agreed(store, assay)
    judged = [c for c in held.values() if c.split == "train" and not c.readers]
    dealt = folds_of(Counter(correction.group for correction in judged), folds)
    initial = None
    if base is not None:
        initial = base_model(registry.folder(base.version), config, base.digest)
    records = store.images.all(assay.name)
    splits = {record.image_id: record.split for record in records}
    fold_of = {record.image_id: dealt.get(record.group) for record in records}
    audited: list[AuditedCorrection] = []
    for fold in range(folds):
        # Wells of the fold are out of bounds for this run, like the sealed ones always are.
        without: dict[str, Split] = {
            image_id: "sealed" if fold_of[image_id] == fold else split for image_id, split in splits.items()
        }
        model = _learn(
            store,
            assay,
            config,
            without,
            {item: correction.mask for item, correction in held.items()},
            method=method,
            weak_weight=weak_weight,
            initial=initial,
            device=device,
            progress=_of_fold(progress, fold, folds),
            cancelled=cancelled,
        )
        mine = [correction for correction in judged if dealt[correction.group] == fold]
        audited += _judge(store, assay, model, config, mine, device)
        logger.info("audited assay=%s fold=%d corrections=%d", assay.name, fold + 1, len(mine))
    return sorted(audited, key=lambda one: (-one.quality.score, one.correction.item))


def _learn(
    store: Store,
    assay: Assay,
    config: TrainConfig,
    splits: Mapping[str, Split],
    corrected: Mapping[Item, str],
    *,
    method: Method,
    weak_weight: float,
    initial: UNet | None,
    device: str,
    progress: Callable[[EpochReport], None] | None,
    cancelled: Callable[[], bool] | None,
) -> UNet:
    """One run, as a cycle trains, but for the wells left out; nothing of it is registered."""
    snapshot = make_snapshot(
        assay.name,
        method,
        weak_masks(store, assay),
        corrected,
        splits,
        weak_confidences(store, assay),
        assay.cip.agreement,
    )
    items, clean = training_items(store, assay, snapshot, weak_weight)
    result = fit(
        config,
        fed_items(items, config, method, assay.tiling),
        validate=validation_score(clean, config, device),
        initial=initial,
        device=device,
        progress=progress,
        cancelled=cancelled,
    )
    return result.model


def _judge(
    store: Store,
    assay: Assay,
    model: UNet,
    config: TrainConfig,
    corrections: list[StoredCorrection],
    device: str,
) -> Iterator[AuditedCorrection]:
    """Each image once, then its corrected tiles."""
    target = choose_device(device)
    ordered = sorted(corrections, key=lambda correction: correction.item)
    for image_id, of_image in groupby(ordered, key=lambda correction: correction.item.image_id):
        record = store.images.get(assay.name, image_id)
        prob_KHW = predict_prob(model, read_image(record, assay), config.normalisation, target)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for correction in of_image:
            rows, columns = tiles[correction.item.tile].slices
            quality = label_quality(store.masks.get(correction.mask), prob_KHW[:, rows, columns])
            yield AuditedCorrection(correction=correction, quality=quality)


def _of_fold(progress: Progress | None, fold: int, folds: int) -> Callable[[EpochReport], None] | None:
    if progress is None:
        return None

    def tell(epoch: EpochReport) -> None:
        share = (fold + epoch.epoch / epoch.epochs) / folds
        progress(f"fold {fold + 1} of {folds}: epoch {epoch.epoch}, loss {epoch.loss:.3f}", share)

    return tell
