"""One run of a study: train, predict, judge; the outcome is a JSON document.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import PROVENANCE, read_image, read_mask, write_atomically
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.digest import digest_of
from cytoloop.domain.metrics import ImageMetrics, judge, number_or_none, summarise
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord
from cytoloop.files import read_json
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import EpochReport, FitResult, TrainConfig, fit
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet
from cytoloop.pipeline.training import (
    WEAK_VALIDATION_IMAGES,
    base_model,
    fed_items,
    validation_score,
    weak_validation_score,
    write_weights,
)
from cytoloop.pipeline.training_data import CleanImage, learning_items
from trainer.presets import WEAK_WEIGHT, preset
from trainer.results.datasets import Dataset, Fold
from trainer.results.plan import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a study keeps its files."""

    out: Path

    def document(self, run: Run) -> Path:
        """What a finished run is known by."""
        return self.out / "runs" / f"{run.key}.json"

    def weights(self, run: Run) -> Path:
        """Weights of a CDL that joint models start from."""
        return self.out / "weights" / run.key


def config_of(run: Run, assay: Assay) -> TrainConfig:
    """Numbers of a run: the preset ``fast``, or what a variant changes in it."""
    name = "paper" if run.variant == "paper" else "fast"
    config = preset(name, run.method, assay, run.seed)
    if run.variant == "dice":
        return replace(config, dice_share=1.0, cross_entropy_share=1.0)
    if run.variant == "no-average":
        return replace(config, average_decay=None)
    if run.variant == "long":
        return replace(config, epochs=2 * config.epochs)
    if run.variant in ("last-epoch", "teacher-curve"):
        return replace(config, stop_gain=None, patience=None)
    return config


def identity_of(run: Run, dataset: Dataset) -> str:
    """Digest of what decides a run: its numbers, its weak labels and its base. Another digest, another run.

    But for the precision, which is the machine's.
    """
    weak = committee_folder(dataset.weak) if run.variant in AGREEMENT else dataset.weak
    provenance = read_json(weak / PROVENANCE)
    train = None
    if run.method != "cip":
        train = replace(config_of(run, dataset.assay), precision="float32").to_dict()
    return digest_of(
        {
            "train": train,
            "weak_weight": WEAK_WEIGHT.get(run.method),
            "agreement": AGREEMENT.get(run.variant, 0.0),
            "recipe": provenance["recipe_digest"],
            "code": provenance["code_version"],
            "base": None if run.base is None else identity_of(run.base, dataset),
        }
    )


def finished(run: Run, dataset: Dataset, places: Places) -> dict[str, Any] | None:
    """The document of a run that was done as it would be done now; None if there is none."""
    path = places.document(run)
    if not path.is_file():
        return None
    document: dict[str, Any] = read_json(path)
    return document if document.get("identity") == identity_of(run, dataset) else None


def perform(
    run: Run,
    dataset: Dataset,
    places: Places,
    device: str,
    progress: Callable[[EpochReport], None] | None = None,
) -> dict[str, Any]:
    """Do a run and write its document; one that was done before is read back."""
    path = places.document(run)
    done = finished(run, dataset, places)
    if done is not None:
        return done
    begun = time.perf_counter()
    fold, assay = dataset.folds[run.fold], dataset.assay
    result: FitResult | None = None
    predict: Callable[[ImageRecord], NDArray[np.uint8]]
    if run.method == "cip":
        predict = dataset.weak_label
    else:
        result, config = _train(run, dataset, places, device, progress)
        if run == run.plain_cdl:
            write_weights(places.weights(run), result, config)
        predict = _predictor(result.model, config, assay)
    trained_s = time.perf_counter() - begun
    judged = [
        (record, item, metrics)
        for record in fold.test
        for item, metrics in _judged(record, predict(record), dataset)
    ]
    evaluation = summarise([metrics for _, _, metrics in judged], assay.class_names).to_dict()
    evaluation.pop("images")
    document = {
        "run": asdict(run),
        "identity": identity_of(run, dataset),
        "train_s": trained_s if result is not None else 0.0,
        "predict_s": time.perf_counter() - begun - trained_s,
        "history": [] if result is None else [asdict(epoch) for epoch in result.history],
        "best_epoch": None if result is None else result.best_epoch,
        "evaluation": evaluation,
        "items": [_item_document(record, item, metrics) for record, item, metrics in judged],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, allow_nan=False)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return document


def corrected_masks(
    fold: Fold, assay: Assay, seed: int, amount: int | None, truth: Callable[[ImageRecord], NDArray[np.uint8]]
) -> dict[str, NDArray[np.uint8]]:
    """Masks by image with ``amount`` tiles as an expert would leave them, 255 elsewhere.

    Tiles are drawn at random, one of every image before the second of any, and the first n of a
    larger draw are the draw of n.
    """
    rng = np.random.default_rng((seed, 1))
    tiles = assay.tiling[0] * assay.tiling[1]
    order = [rng.permutation(tiles) for _ in fold.train]
    images = rng.permutation(len(fold.train))
    drawn = [(int(i), int(order[i][turn])) for turn in range(tiles) for i in images]
    masks: dict[str, NDArray[np.uint8]] = {}
    for i, tile in drawn[: len(drawn) if amount is None else amount]:
        record = fold.train[i]
        mask_HW = masks.setdefault(record.image_id, np.full((record.height, record.width), IGNORE, np.uint8))
        slices = tiles_of(record.height, record.width, assay.tiling)[tile].slices
        mask_HW[slices] = truth(record)[slices]
    return masks


def _train(
    run: Run,
    dataset: Dataset,
    places: Places,
    device: str,
    progress: Callable[[EpochReport], None] | None,
) -> tuple[FitResult, TrainConfig]:
    fold, assay = dataset.folds[run.fold], dataset.assay
    # Judged by the clean truth of the test images: only to draw how the truth is left behind.
    is_curve = run.variant == "teacher-curve"
    has_clean = run.variant not in ("last-epoch", "stopped", "paper") and not is_curve
    clean = _one_tile_each(fold.validation, assay, dataset.truth) if has_clean else []
    config = config_of(run, assay)
    weak_validation = [
        TrainingItem(image_CHW=image.image_CHW, mask_HW=image.truth_HW)
        for image in _one_tile_each(fold.validation, assay, dataset.weak_label)[:WEAK_VALIDATION_IMAGES]
    ]
    if is_curve:
        clean = [
            CleanImage(image_CHW=read_image(record, assay), truth_HW=dataset.truth(record))
            for record in fold.test
        ]
    base = run.base
    result = fit(
        config,
        fed_items(_items(run, dataset), config, run.method, assay.tiling),
        validate=validation_score(clean, config, device),
        validate_weak=weak_validation_score(weak_validation, config, device),
        initial=None if base is None else base_model(places.weights(base), config),
        device=device,
        progress=progress,
    )
    return result, config


def _one_tile_each(
    records: Sequence[ImageRecord], assay: Assay, mask_of: Callable[[ImageRecord], NDArray[np.uint8]]
) -> list[CleanImage]:
    """One tile of each image with its mask, each in another corner."""
    images = []
    for number, record in enumerate(records):
        tiles = tiles_of(record.height, record.width, assay.tiling)
        slices = tiles[number % len(tiles)].slices
        mask_HW = np.full((record.height, record.width), IGNORE, np.uint8)
        mask_HW[slices] = mask_of(record)[slices]
        images.append(CleanImage(image_CHW=read_image(record, assay), truth_HW=mask_HW))
    return images


def _items(run: Run, dataset: Dataset) -> list[TrainingItem]:
    fold, assay = dataset.folds[run.fold], dataset.assay
    corrected: Mapping[str, NDArray[np.uint8]] = {}
    if run.method in ("mdl", "joint"):
        corrected = corrected_masks(fold, assay, run.seed, run.corrected, dataset.truth)
    weak: Sequence[ImageRecord] = fold.train if run.method in ("cdl", "joint") else ()
    if run.weak is not None:
        chosen = np.random.default_rng((run.seed, 2)).permutation(len(weak))[: run.weak]
        weak = [weak[i] for i in sorted(chosen)]
    weak_ids = {record.image_id for record in weak}
    items: list[TrainingItem] = []
    for record in fold.train:
        if record.image_id not in weak_ids and record.image_id not in corrected:
            continue
        weak_HW, confidence_HW = None, None
        if record.image_id in weak_ids:
            weak_HW = dataset.weak_label(record)
            if run.variant in AGREEMENT:
                weak_HW, confidence_HW = _voted(dataset, record)
        items += learning_items(
            read_image(record, assay),
            corrected.get(record.image_id),
            weak_HW,
            WEAK_WEIGHT[run.method],
            confidence_HW,
            AGREEMENT.get(run.variant, 0.0),
        )
    return items


AGREEMENT: Mapping[str, float] = {"committee": 0.0, "unanimous": 1.0}
"""Share of the teachers that must agree on a pixel for it to teach, in the variants that vote."""


def committee_folder(dataset_weak: Path) -> Path:
    """Where the committee's masks lie, beside those of the single teacher."""
    return dataset_weak.parent / "committee"


def _voted(dataset: Dataset, record: ImageRecord) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    folder = committee_folder(dataset.weak)
    name = f"{record.image_id}.png"
    return read_mask(folder / name), read_mask(folder / "confidence" / name)


def _predictor(model: UNet, config: TrainConfig, assay: Assay) -> Callable[[ImageRecord], NDArray[np.uint8]]:
    def predict(record: ImageRecord) -> NDArray[np.uint8]:
        prob_KHW = predict_prob(model, read_image(record, assay), config.normalisation)
        mask_HW: NDArray[np.uint8] = prob_KHW.argmax(axis=0).astype(np.uint8)
        return mask_HW

    return predict


def _judged(
    record: ImageRecord, pred_HW: NDArray[np.uint8], dataset: Dataset
) -> list[tuple[int, ImageMetrics]]:
    truth_HW, assay = dataset.truth(record), dataset.assay
    return [
        (
            tile.index,
            judge(
                f"{record.image_id}/{tile.index}",
                truth_HW[tile.slices],
                pred_HW[tile.slices],
                assay.class_count,
            ),
        )
        for tile in tiles_of(record.height, record.width, assay.tiling)
    ]


def _item_document(record: ImageRecord, tile: int, metrics: ImageMetrics) -> dict[str, Any]:
    return {
        "image": record.image_id,
        "tile": tile,
        "group": record.group,
        "confusion": metrics.confusion_KK.tolist(),
        "bf": [number_or_none(value) for value in metrics.bf_K],
        "bf_strict": [number_or_none(value) for value in metrics.bf_strict_K],
    }
