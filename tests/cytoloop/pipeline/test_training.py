"""From a snapshot to a registered version, and its judgement."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from samples import Item

from cytoloop.adapters.images import read_image
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ImageUnreadable, InputError
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Method, Prediction, TrainingSnapshot
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import EpochReport, TrainConfig
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import load_weights
from cytoloop.pipeline.judging import judged_items
from cytoloop.pipeline.predictors import load_predictor
from cytoloop.pipeline.training import (
    fed_items,
    train_version,
    validation_score,
    weak_validation_images,
    weak_validation_items,
    weak_validation_score,
    write_weights,
)
from cytoloop.pipeline.training_data import CleanImage, training_items
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import SmallHome

TINY = TrainConfig(
    network=UNetConfig(in_channels=2, class_count=3, width=4),
    epochs=2,
    steps_per_epoch=2,
    batch=2,
    crop=32,
    cross_entropy_share=1.0,
    max_class_weight=1e-2,
)
TILES = tiles_of(64, 64, (2, 2))


def snapshot_of(home: SmallHome, method: Method) -> TrainingSnapshot:
    corrected = {item: c.mask for item, c in home.store.corrections.standing("rosella").items()}
    splits = {record.image_id: record.split for record in home.store.images.all("rosella")}
    return make_snapshot(
        "rosella",
        method,
        weak_masks(home.store, home.assay),
        corrected,
        splits,
        weak_validation=weak_validation_images(home.store, home.assay),
    )


def train(home: SmallHome, method: Method, **options):  # type: ignore[no-untyped-def]
    return train_version(
        home.store,
        home.registry,
        home.assay,
        snapshot_of(home, method),
        method=method,
        preset="tiny",
        weak_weight=0.5,
        device="cpu",
        **{"config": TINY, **options},
    )


# --- what is learnt from ---------------------------------------------------------------------------


def test_weak_labels_alone_are_items_of_training_wells(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    items, clean = training_items(home.store, home.assay, snapshot_of(home, "cdl"), 0.5)
    taught = home.of("train")
    assert len(items) == len(taught) < 6
    assert clean == []
    assert {item.weight for item in items} == {0.5}
    np.testing.assert_array_equal(items[0].image_CHW, read_image(taught[0], home.assay))


def test_where_a_correction_stands_the_weak_label_does_not(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    first = home.of("train")[0].image_id
    said = home.correct(first, 1)
    items, _ = training_items(home.store, home.assay, snapshot_of(home, "joint"), 0.5)
    strong, weak = items[0], items[1]
    assert (strong.weight, weak.weight) == (1.0, 0.5)
    np.testing.assert_array_equal(strong.mask_HW[TILES[1].slices], said)
    assert (strong.mask_HW != IGNORE).sum() == said.size
    assert (weak.mask_HW[TILES[1].slices] == IGNORE).all()
    stored = home.store.masks.get(weak_masks(home.store, home.assay)[first])
    np.testing.assert_array_equal(weak.mask_HW[TILES[2].slices], stored[TILES[2].slices])


def test_pixels_an_expert_left_out_as_doubtful_are_not_the_teachers_to_fill_in(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    first = home.of("train")[0].image_id
    unsure = np.full((32, 32), IGNORE, np.uint8)
    unsure[0] = 1
    home.correct(first, 0, unsure)
    items, _ = training_items(home.store, home.assay, snapshot_of(home, "joint"), 0.5)
    assert (items[1].mask_HW[0, :32] == IGNORE).all()
    assert (items[1].mask_HW[1:32, :32] == IGNORE).all()
    assert (items[1].mask_HW[32:] != IGNORE).all()


def test_a_wholly_corrected_image_has_no_weak_item(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    first = home.of("train")[0].image_id
    for tile in range(4):
        home.correct(first, tile)
    items, _ = training_items(home.store, home.assay, snapshot_of(home, "joint"), 0.5)
    assert [item.weight for item in items].count(1.0) == 1
    assert len(items) == len(home.of("train"))
    np.testing.assert_array_equal(items[0].mask_HW, home.truth[first])


def test_validation_wells_judge_and_contest_and_sealed_wells_are_never_read(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    for split in ("train", "validation", "contest", "sealed"):
        for record in home.of(split):
            home.correct(record.image_id, 0)
    for record in [*home.of("contest"), *home.of("sealed")]:
        (home.plate / f"{record.image_id}.tif").unlink()
    items, clean = training_items(home.store, home.assay, snapshot_of(home, "joint"), 0.5)
    assert len(items) == 2 * len(home.of("train"))
    assert len(clean) == len(home.of("validation")) > 0
    truth_HW = home.truth[home.of("validation")[0].image_id]
    np.testing.assert_array_equal(clean[0].truth_HW[TILES[0].slices], truth_HW[TILES[0].slices])
    assert (clean[0].truth_HW[32:] == IGNORE).all()


def test_a_mask_that_is_gone_or_changed_stops_the_run(home: SmallHome) -> None:
    home.correct(home.of("train")[0].image_id, 0)
    snapshot = snapshot_of(home, "mdl")
    home.store.masks.path(snapshot.rows[0].mask).unlink()
    with pytest.raises(ImageUnreadable, match="no such file"):
        training_items(home.store, home.assay, snapshot, 0.0)


# --- training --------------------------------------------------------------------------------------


def test_without_clean_pixels_nothing_chooses_an_epoch() -> None:
    image_CHW = np.zeros((2, 64, 64), np.float32)
    unseen = CleanImage(image_CHW=image_CHW, truth_HW=np.full((64, 64), IGNORE, np.uint8))
    assert validation_score([], TINY, "cpu") is None
    assert validation_score([unseen], TINY, "cpu") is None
    seen = CleanImage(image_CHW=image_CHW, truth_HW=np.zeros((64, 64), np.uint8))
    assert validation_score([unseen, seen], TINY, "cpu") is not None


def test_a_run_becomes_a_candidate_with_everything_it_was_made_of(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    home.correct(home.of("validation")[0].image_id, 0)
    told: list[EpochReport] = []
    model, result = train(home, "cdl", progress=told.append)
    assert home.store.models.get(model.version) == model
    assert (model.method, model.status, model.parent) == ("cdl", "candidate", None)
    assert model.snapshot == snapshot_of(home, "cdl").digest
    assert (model.config["weak_rows"], model.config["correction_rows"]) == (len(home.of("train")), 0)
    assert (model.config["validation_rows"], model.config["preset"]) == (1, "tiny")
    assert TrainConfig.from_dict(model.config["train"]) == TINY
    assert [epoch.epoch for epoch in told] == [1, 2]
    assert all(epoch.validation is not None for epoch in told)
    manifest = home.registry.manifest(model.version)
    assert (manifest["digest"], manifest["snapshot"]) == (model.digest, model.snapshot)
    loaded = load_weights(home.registry.folder(model.version), model.digest)
    for name, tensor in result.model.state_dict().items():
        assert torch.equal(tensor.cpu(), loaded.model.state_dict()[name])


def test_the_same_run_gives_the_same_version(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    first, _ = train(home, "cdl")
    again, _ = train(home, "cdl")
    other, _ = train(home, "cdl", config=replace(TINY, seed=1))
    assert again.digest == first.digest != other.digest
    assert {m.version for m in home.store.models.all("rosella")} == {first.version, other.version}


def test_a_joint_run_starts_from_its_base_and_remembers_what_it_saw(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    base, _ = train(home, "cdl")
    first = home.of("train")[0].image_id
    home.correct(first, 2)
    model, _ = train(home, "joint", base=base, config=replace(TINY, learning_rate=1e-6))
    assert (model.parent, home.registry.manifest(model.version)["parent"]) == (base.version, base.version)
    near, start = (
        load_weights(home.registry.folder(m.version), m.digest).model.head.weight for m in (model, base)
    )
    assert float((near - start).abs().max().detach()) < 1e-4
    seen = home.store.models.snapshot_masks(model.snapshot)
    assert [item for item, _ in seen] == [Item(image_id=first, tile=2)]


def test_weights_that_were_changed_do_not_serve(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    model, _ = train(home, "cdl")
    with pytest.raises(InputError, match="the file was changed"):
        load_predictor(home.store, home.registry, home.assay, replace(model, digest="0" * 64), "cpu")


def test_weights_can_be_written_outside_a_registry(home: SmallHome, tmp_path: Path) -> None:
    weak_label_store(home.store, home.assay)
    model, result = train(home, "cdl")
    assert write_weights(tmp_path / "new" / "cdl", result, TINY) == model.digest
    load_weights(tmp_path / "new" / "cdl", model.digest)


def test_the_epochs_and_the_sources_of_a_run_are_stored_with_the_version(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    base, _ = train(home, "cdl")
    assert base.config["sources"]["weak"]["loss_share"] == 1.0
    assert "corrections" not in base.config["sources"]
    taught = home.of("train")
    home.correct(taught[0].image_id, 2)
    model, result = train(home, "joint", base=base, config=replace(TINY, trusted_share=0.75))
    sources = home.registry.manifest(model.version)["config"]["sources"]
    assert sources == model.config["sources"]
    corrections, weak = sources["corrections"], sources["weak"]
    assert (corrections["items"], corrections["pixels"], corrections["weight"]) == (1, 32 * 32, 1.0)
    assert (weak["items"], weak["weight"], weak["drawn_share"]) == (len(taught), 0.5, 0.25)
    assert weak["loss_share"] == pytest.approx(0.5 * 0.25 / (0.5 * 0.25 + 0.75))
    assert [epoch["loss"] for epoch in model.config["history"]] == [e.loss for e in result.history]
    assert all(0.0 < epoch["weak_validation"] <= 1.0 for epoch in model.config["history"])
    assert [epoch["validation"] for epoch in model.config["history"]] == [None, None]


def test_weak_validation_looks_at_weak_labels_of_validation_wells(home: SmallHome) -> None:
    assert weak_validation_images(home.store, home.assay) == []
    weak_label_store(home.store, home.assay)
    snapshot = snapshot_of(home, "cdl")
    items = weak_validation_items(home.store, home.assay, snapshot)
    judges = home.of("validation")
    assert [row.image_id for row in snapshot.rows if row.split == "validation"] == [
        judge.image_id for judge in judges
    ]
    assert len(items) == len(judges) > 0
    stored = home.store.masks.get(weak_masks(home.store, home.assay)[judges[0].image_id])
    np.testing.assert_array_equal(items[0].mask_HW, stored)
    np.testing.assert_array_equal(items[0].image_CHW, read_image(judges[0], home.assay))


def test_scores_are_mean_iou_and_pixels_nobody_looked_at_do_not_count() -> None:
    """A network of weights 0 but for one bias calls every pixel class 1."""
    model = UNet(TINY.network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.head.bias[1] = 1.0
    mask_HW = np.full((64, 64), IGNORE, np.uint8)
    mask_HW[:3, 0], mask_HW[3, 0] = 1, 0
    item = TrainingItem(image_CHW=np.zeros((2, 64, 64), np.float32), mask_HW=mask_HW)
    for config in (TINY, replace(TINY, precision="bfloat16")):
        score = weak_validation_score([item], config, "cpu")
        assert score is not None
        assert score(model.eval()) == pytest.approx((3 / 4 + 0) / 2)
    assert weak_validation_score([], TINY, "cpu") is None


def test_where_items_go_in_whole_each_corrected_tile_is_one(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    first = home.of("train")[0].image_id
    for tile in (0, 3):
        home.correct(first, tile)
    items, _ = training_items(home.store, home.assay, snapshot_of(home, "joint"), 0.5)
    whole = replace(TINY, crop=None, steps_per_epoch=None)
    fed = fed_items(items, whole, "joint", home.assay.tiling)
    tiles = [item for item in fed if item.weight == 1.0]
    assert [item.area for item in tiles] == [TILES[0].slices, TILES[3].slices]
    for item in tiles:
        assert item.area is not None
        np.testing.assert_array_equal(item.mask_HW[item.area], home.truth[first][item.area])
        assert (item.mask_HW != IGNORE).sum() == 32 * 32
    assert len(fed) == len(items) + 1, "weak images stay whole"
    assert fed_items(items, TINY, "joint", home.assay.tiling) == items
    assert fed_items(tiles, whole, "cdl", home.assay.tiling) == tiles


# --- going on --------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def killed_in_epoch(epoch: int) -> Callable[[], bool]:
    steps = iter(range(100))

    def ask() -> bool:
        if next(steps) == 2 * (epoch - 1):
            raise Killed
        return False

    return ask


def test_a_killed_run_goes_on_to_the_same_version_and_leaves_nothing_behind(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    through, _ = train(home, "cdl")
    with pytest.raises(Killed):
        train(home, "cdl", cancelled=killed_in_epoch(2))
    assert len(list(home.store.home.glob("runs/*/checkpoint.safetensors"))) == 1
    again, result = train(home, "cdl")
    assert (result.resumed_after, again.version, again.digest) == (1, through.version, through.digest)
    assert list(home.store.home.glob("runs/*")) == []


def test_a_run_of_other_labels_begins_anew(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    with pytest.raises(Killed):
        train(home, "cdl", cancelled=killed_in_epoch(2))
    home.correct(home.of("train")[0].image_id, 0)
    assert train(home, "mdl")[1].resumed_after == 0
    assert train(home, "cdl", config=replace(TINY, seed=1))[1].resumed_after == 0
    assert train(home, "cdl")[1].resumed_after == 1


def test_a_checkpoint_that_cannot_be_used_does_not_stop_a_cycle(
    home: SmallHome, caplog: pytest.LogCaptureFixture
) -> None:
    weak_label_store(home.store, home.assay)
    through, _ = train(home, "cdl")
    with pytest.raises(Killed):
        train(home, "cdl", cancelled=killed_in_epoch(2))
    (left,) = home.store.home.glob("runs/*/checkpoint.safetensors")
    left.write_bytes(b"half a fi")
    again, result = train(home, "cdl")
    assert (again.digest, result.resumed_after) == (through.digest, 0)
    assert "the run begins anew" in caplog.text


def test_runs_that_nobody_went_on_with_are_cleared_away(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    for seed in (1, 2):
        with pytest.raises(Killed):
            train(home, "cdl", config=replace(TINY, seed=seed), cancelled=killed_in_epoch(2))
    old, recent = home.store.home.glob("runs/*/checkpoint.safetensors")
    long_ago = old.stat().st_mtime - 15 * 86_400
    os.utime(old, (long_ago, long_ago))
    train(home, "cdl")
    assert (old.parent.exists(), recent.exists()) == (False, True)


# --- judging ---------------------------------------------------------------------------------------


def test_corrected_items_are_judged_tile_by_tile_and_images_predicted_once(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    model, _ = train(home, "cdl")
    predictor = load_predictor(home.store, home.registry, home.assay, model, "cpu")
    contest = home.of("contest")[0]
    said = {tile: home.correct(contest.image_id, tile) for tile in (3, 0)}
    home.correct(home.of("train")[0].image_id, 0)
    asked: list[str] = []

    class Counting:
        version = model.version

        def predict(self, record):  # type: ignore[no-untyped-def]
            asked.append(record.image_id)
            return predictor.predict(record)

    standing = home.store.corrections.standing(home.assay.name).values()
    corrections = [c for c in standing if c.split == "contest"]
    judged = list(judged_items(home.store, home.assay, Counting(), corrections))
    assert asked == [contest.image_id]
    assert [item.name for item in judged] == [f"{contest.image_id}/0", f"{contest.image_id}/3"]
    prob_KHW = predictor.predict(contest)
    whole_HW = Prediction(version=model.version, image_key=contest.image_key, prob_KHW=prob_KHW).mask_HW
    for item in judged:
        tile = TILES[item.correction.item.tile]
        np.testing.assert_array_equal(item.truth_HW, said[tile.index])
        np.testing.assert_array_equal(item.pred_HW, whole_HW[tile.slices])
