"""A simulated expert works through worklists; models are trained as the minutes go by.

Every seed has a *base*: the first model (a CDL), what full supervision would reach, and what each item
would cost. Every strategy of the seed then starts from it: rank the pool by the model in force, correct in that
order until the stage's minutes are spent, train, judge, and so on. Minutes are those of the fixed cost
model (`cytoloop.domain.effort`), from the proposal of the model in force to the truth.

Legend: C channels, K classes, H rows, W columns.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import PROVENANCE, read_image, write_atomically
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.digest import digest_of
from cytoloop.domain.effort import correction_minutes
from cytoloop.domain.metrics import confusion_matrix, mean_ignoring_nan, number_or_none
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.scoring import ItemScores, Look, score_item
from cytoloop.domain.strategies import NEEDS, Need, Strategy, strategy_named
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, Method
from cytoloop.domain.worklist import Candidate, choose_batch
from cytoloop.files import read_json
from cytoloop.nn.fit import FitResult, TrainConfig, fit
from cytoloop.nn.look import look_at
from cytoloop.nn.unet import UNet
from cytoloop.pipeline.training import (
    WEAK_VALIDATION_IMAGES,
    base_model,
    weak_validation_score,
    write_weights,
)
from cytoloop.pipeline.training_data import learning_items
from trainer.learning.setting import Setting
from trainer.presets import WEAK_WEIGHT, preset

EPOCHS = 2
"""Of a joint model (100 steps): a stage's model is trained in some twenty seconds. The same for full supervision."""
BATCH = 24
"""Items in a worklist: more than anyone corrects within a stage."""
ALGORITHM = 1
"""Raised when a change here makes finished runs another study's."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the files of simulated learning lie."""

    out: Path

    def base(self, setting: Setting) -> Path:
        """Folder of a seed's first model."""
        return self.out / setting.dataset.name / f"seed{setting.seed}"

    def document(self, setting: Setting, name: str) -> Path:
        """What a finished base (``base``) or strategy is known by."""
        return self.base(setting) / f"{name.replace('/', '-per-')}.json"


def training_config(setting: Setting, method: Method) -> TrainConfig:
    """The setting's preset; a joint model is trained for fewer steps, since there are so many."""
    config = preset(setting.preset, method, setting.dataset.assay, setting.seed)
    return config if method == "cdl" else replace(config, epochs=EPOCHS)


def identity_of(setting: Setting, name: str) -> str:
    """Digest of what decides a run, but for the precision, which is the machine's."""
    dataset = setting.dataset
    provenance = read_json(dataset.weak / PROVENANCE)
    methods: tuple[Method, ...] = ("cdl", "joint")
    return digest_of(
        {
            "algorithm": ALGORITHM,
            "name": name,
            "seed": setting.seed,
            "pool": [record.image_key for record in setting.pool],
            "test": [record.image_key for record in setting.test],
            "stages": list(setting.stages),
            "batch": BATCH,
            "train": [replace(training_config(setting, m), precision="float32").to_dict() for m in methods],
            "recipe": provenance["recipe_digest"],
            "code": provenance["code_version"],
        }
    )


def finished(setting: Setting, name: str, places: Places) -> dict[str, Any] | None:
    """The document of a base or strategy that was run as it would be now; None if there is none."""
    path = places.document(setting, name)
    if not path.is_file():
        return None
    document: dict[str, Any] = read_json(path)
    return document if document.get("identity") == identity_of(setting, name) else None


def make_base(
    setting: Setting,
    places: Places,
    device: str,
    progress: Progress,
    needs: Collection[Need] = NEEDS,
) -> dict[str, Any]:
    """Train a seed's first model, and what full supervision reaches; score and price every item.

    ``needs`` says which scores are made, to be held against the minutes; what strategies do does not depend
    on it, so a base that was made with others is read back.
    """
    done = finished(setting, "base", places)
    if done is not None:
        return done
    begun = time.perf_counter()
    project = _Project(setting, places, device)
    progress("first model")
    first = project.train_first()
    write_weights(places.base(setting) / "first", first, training_config(setting, "cdl"))
    project.model = first.model
    start = project.judged()
    progress("scores")
    looks = project.scores(frozenset(needs) | {"features", "cip"})
    items = [
        {
            "item": [scored.item.image_id, scored.item.tile],
            "scores": dict(scored.scores.values),
            "expected_minutes": scored.scores.minutes,
            "minutes": project.minutes(scored),
            "mean_iou": project.agreement(scored),
        }
        for scored in looks
    ]
    progress("full supervision")
    for scored in looks:
        project.correct(scored)
    project.train()
    document = {
        "identity": identity_of(setting, "base"),
        "dataset": setting.dataset.name,
        "seed": setting.seed,
        "start": start,
        "full": project.judged(),
        "cip": project.judged(project.dataset.weak_label),
        "items": items,
        "seconds": time.perf_counter() - begun,
    }
    return _written(places.document(setting, "base"), document)


def learn(setting: Setting, name: str, places: Places, device: str, progress: Progress) -> dict[str, Any]:
    """Let an expert follow a strategy; the base must be there.

    Returns
    -------
    dict
        ``points``: after each stage the minutes spent, items corrected, and IoU by class on the judging
        images.
    """
    done = finished(setting, name, places)
    if done is not None:
        return done
    begun = time.perf_counter()
    strategy = strategy_named(name)
    base = make_base(setting, places, device, progress, strategy.needs)
    project = _Project(setting, places, device)
    project.model = base_model(places.base(setting) / "first", training_config(setting, "joint"))
    points = [{"minutes": 0.0, "items": 0, **base["start"]}]
    spent = 0.0
    order: list[list[Any]] = []
    for number, stage in enumerate(setting.stages):
        progress(f"stage {number + 1}/{len(setting.stages)}")
        looked = project.scores(strategy.needs | {"features"})
        while spent < stage and len(order) < len(looked):
            # an estimate that was too high leaves time: then there is another batch
            for scored in project.worklist(looked, strategy, stage - spent):
                if spent < stage:
                    spent += project.correct(scored)
                    order.append([scored.item.image_id, scored.item.tile])
        project.train()
        points.append({"minutes": spent, "items": len(order), **project.judged()})
    document = {
        "identity": identity_of(setting, name),
        "dataset": setting.dataset.name,
        "seed": setting.seed,
        "strategy": name,
        "points": points,
        "order": order,
        "seconds": time.perf_counter() - begun,
    }
    return _written(places.document(setting, name), document)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Scored:
    """An item of the pool, what the model in force says of it, and the truth."""

    record: ImageRecord
    item: Item
    slices: tuple[slice, slice]
    scores: ItemScores
    proposal_HW: NDArray[np.uint8]


class _Project:
    """One expert's project: what is corrected so far, and the model in force."""

    def __init__(self, setting: Setting, places: Places, device: str) -> None:
        self.dataset = setting.dataset
        self.model: UNet | None = None
        self._setting = setting
        self._places = places
        self._device = device
        self._config = training_config(setting, "joint")
        self._corrected: dict[str, NDArray[np.uint8]] = {}
        self._done: set[Item] = set()
        self._images: dict[str, NDArray[np.float32]] = {}
        self._truths: dict[str, NDArray[np.uint8]] = {}

    # --- the expert ------------------------------------------------------------------------------------

    def worklist(self, looked: Sequence[_Scored], strategy: Strategy, minutes: float) -> list[_Scored]:
        """The next batch for so many expected minutes, in the order in which it is worked through."""
        by_item = {scored.item: scored for scored in looked if scored.item not in self._done}
        features = [s.scores.features_F for s in looked if s.item in self._done]
        known = [features_F for features_F in features if features_F is not None]
        # the lots of a seed stay: random choice is one random order from the first stage to the last
        all_lots = np.random.default_rng((self._setting.seed, 4)).random(len(looked))
        lot_of = {scored.item: lot for scored, lot in zip(looked, all_lots, strict=True)}
        lots = [lot_of[item] for item in by_item]
        candidates = [
            Candidate(
                item=item,
                split="train",
                group=scored.record.group,
                plate=scored.record.plate,
                score=(score := strategy.value(scored.scores, float(lot))),
                confidence=-score,
                minutes=scored.scores.minutes,
                lot=float(lot),
                features_F=scored.scores.features_F,
            )
            for (item, scored), lot in zip(by_item.items(), lots, strict=True)
        ]
        policy = QueuePolicy.all_ranked(strategy=strategy.name, size=BATCH)
        chosen = choose_batch(
            candidates,
            policy,
            count=BATCH,
            minutes=max(minutes, 0.1),
            known_NF=np.stack(known) if known else None,
        )
        return [by_item[choice.candidate.item] for choice in chosen]

    def correct(self, scored: _Scored) -> float:
        """Put an item right; returns the minutes it took."""
        record = scored.record
        blank_HW = np.full((record.height, record.width), IGNORE, np.uint8)
        mask_HW = self._corrected.setdefault(record.image_id, blank_HW)
        mask_HW[scored.slices] = self._truth(record)[scored.slices]
        self._done.add(scored.item)
        return self.minutes(scored)

    def minutes(self, scored: _Scored) -> float:
        """What correcting the proposal takes."""
        return correction_minutes(scored.proposal_HW, self._truth(scored.record)[scored.slices])

    def agreement(self, scored: _Scored) -> float | None:
        """Mean IoU of the proposal over the classes that are there."""
        truth_HW = self._truth(scored.record)[scored.slices]
        confusion_KK = confusion_matrix(truth_HW, scored.proposal_HW, self.dataset.assay.class_count)
        return number_or_none(float(mean_ignoring_nan(iou_of_present(confusion_KK))))

    # --- the machine -----------------------------------------------------------------------------------

    def scores(self, needs: frozenset[Need]) -> list[_Scored]:
        """What the model in force says of every item of the pool."""
        assay = self.dataset.assay
        scored = []
        for record in self._setting.pool:
            look = self._look(record, needs)
            mask_HW = look.prob_KHW.argmax(axis=0).astype(np.uint8)
            scored += [
                _Scored(
                    record=record,
                    item=Item(image_id=record.image_id, tile=tile.index),
                    slices=tile.slices,
                    scores=score_item(look, tile.slices),
                    proposal_HW=mask_HW[tile.slices],
                )
                for tile in tiles_of(record.height, record.width, assay.tiling)
            ]
        return scored

    def train_first(self) -> FitResult:
        """A CDL of the pool's weak labels, stopped by the preset's own rule: no clean mask is known."""
        config = training_config(self._setting, "cdl")
        held_out = self.dataset.folds[0].validation[:WEAK_VALIDATION_IMAGES] or self._setting.pool[:2]
        validation = [
            item
            for record in held_out
            for item in learning_items(self._image(record), None, self.dataset.weak_label(record), 1.0)
        ]
        return fit(
            config,
            [
                item
                for record in self._setting.pool
                for item in learning_items(self._image(record), None, self.dataset.weak_label(record), 1.0)
            ],
            validate_weak=weak_validation_score(validation, config, self._device),
            device=self._device,
        )

    def train(self) -> None:
        """A joint model of everything corrected so far, from the first model."""
        items = [
            item
            for record in self._setting.pool
            for item in learning_items(
                self._image(record),
                self._corrected.get(record.image_id),
                self.dataset.weak_label(record),
                WEAK_WEIGHT["joint"],
            )
        ]
        first = base_model(self._places.base(self._setting) / "first", self._config)
        self.model = fit(self._config, items, initial=first, device=self._device).model

    def judged(self, predict: Callable[[ImageRecord], NDArray[np.uint8]] | None = None) -> dict[str, Any]:
        """IoU by class on the judging images, and their mean."""
        class_count = self.dataset.assay.class_count
        confusion_KK = np.zeros((class_count, class_count), np.int64)
        for record in self._setting.test:
            pred_HW = (predict or self._predict)(record)
            confusion_KK += confusion_matrix(self._truth(record), pred_HW, class_count)
        iou_K = iou_of_present(confusion_KK)
        by_class = [number_or_none(float(value)) for value in iou_K]
        return {"mean_iou": number_or_none(float(mean_ignoring_nan(iou_K))), "class_iou": by_class}

    def _predict(self, record: ImageRecord) -> NDArray[np.uint8]:
        mask_HW: NDArray[np.uint8] = self._look(record, frozenset()).prob_KHW.argmax(axis=0).astype(np.uint8)
        return mask_HW

    def _look(self, record: ImageRecord, needs: frozenset[Need]) -> Look:
        assert self.model is not None, "a model is trained before it is asked"
        look = look_at(self.model, self._image(record), self._config.normalisation, needs=needs)
        return replace(look, cip_HW=self.dataset.weak_label(record))

    def _image(self, record: ImageRecord) -> NDArray[np.float32]:
        if record.image_id not in self._images:
            self._images[record.image_id] = read_image(record, self.dataset.assay)
        return self._images[record.image_id]

    def _truth(self, record: ImageRecord) -> NDArray[np.uint8]:
        if record.image_id not in self._truths:
            self._truths[record.image_id] = self.dataset.truth(record)
        return self._truths[record.image_id]


def _written(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, allow_nan=False)
    write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
    return document
