from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cytoloop.adapters.assays import load_assay
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import Method
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import TrainConfig, fit, learning_rate
from cytoloop.nn.normalisation import Normalisation
from trainer.presets import PRESETS, WEAK_WEIGHT, is_trained_as, paper, preset, split_shares

LEARNED: tuple[Method, ...] = ("cdl", "mdl", "joint")


@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("assay_name", ["rosella", "cells2ch", "nuclei"])
def test_every_preset_fits_every_shipped_assay(assay_name: str, name: str, method: Method) -> None:
    assay = load_assay(assay_name)
    config = preset(name, method, assay, 5)
    assert config.network.in_channels == len(assay.channels)
    assert config.network.class_count == assay.class_count
    assert config.seed == 5
    assert TrainConfig.from_dict(config.to_dict()) == config, "it is stored with the version"


@pytest.mark.parametrize("name", PRESETS)
def test_a_joint_model_can_go_on_from_the_cdl_of_its_preset(name: str) -> None:
    assay = load_assay("rosella")
    cdl = preset(name, "cdl", assay, 0)
    joint = preset(name, "joint", assay, 0)
    assert cdl.network == joint.network
    assert cdl.normalisation == joint.normalisation
    assert cdl.trusted_share is None
    if joint.crop is not None:
        assert joint.trusted_share is not None, "corrections are seen more often than weak labels"


def test_a_cdl_may_stop_and_models_of_corrections_run_to_the_end() -> None:
    assay = load_assay("rosella")
    cdl = preset("fast", "cdl", assay, 0)
    assert cdl.patience is not None
    assert cdl.stop_gain is not None
    assert cdl.schedule == "constant", "a cycle that is cut short ends at its peak"
    for method in ("mdl", "joint"):
        config = preset("fast", method, assay, 0)
        assert (config.patience, config.stop_gain, config.schedule) == (None, None, "one_cycle")


def test_a_stored_run_is_known_again_whatever_its_seed_and_machine() -> None:
    assay = load_assay("rosella")
    config = preset("fast", "cdl", assay, 0)
    other = replace(config, seed=7, precision="float32")
    assert is_trained_as(other.to_dict(), config)
    assert not is_trained_as(replace(config, normalisation=Normalisation(softness=3)).to_dict(), config)
    assert not is_trained_as({**config.to_dict(), "momentums": 1}, config)


def test_an_assays_normalisation_reaches_training_and_the_weights() -> None:
    assay = load_assay("cells2ch")
    assert preset("fast", "mdl", assay, 0).normalisation.softness == 10
    assert preset("paper", "mdl", assay, 0).normalisation.softness == 10
    assert preset("fast", "mdl", load_assay("rosella"), 0).normalisation.softness == 0


def test_an_mdl_learns_nothing_from_weak_labels() -> None:
    assert WEAK_WEIGHT["mdl"] == 0
    assert 0 < WEAK_WEIGHT["joint"] < WEAK_WEIGHT["cdl"] == 1


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'slow': expected one of fast, paper, smoke"):
        preset("slow", "cdl", load_assay("rosella"), 0)


@pytest.mark.parametrize(("method", "rate"), [("cdl", 0.002), ("mdl", 0.001)])
def test_paper_is_the_papers_table(method: Method, rate: float) -> None:
    config = preset("paper", method, load_assay("rosella"), 0)
    assert (config.optimiser, config.momentum, config.weight_decay) == ("sgd", 0.9, 0.001)
    assert [learning_rate(config, 100 * epoch, 100) for epoch in (0, 2, 3, 14)] == pytest.approx(
        [rate, rate, 0.8 * rate, 0.8**4 * rate]
    )
    assert (config.batch, config.epochs, config.crop, config.steps_per_epoch) == (4, 15, None, None)
    assert (config.dice_share, config.cross_entropy_share) == (1.0, 0.0)
    assert (config.absent_class, config.dice_eps) == ("exact", 1e-8)
    assert (config.gradient_limit, config.jitter, config.average_decay) == (None, 0.0, None)
    assert (config.network.poolings, config.network.class_count) == (3, 3)


def test_the_width_that_the_paper_leaves_open_is_a_parameter() -> None:
    assert paper("cdl", load_assay("rosella"), 0, width=64).network.width == 64


def test_paper_splits_as_the_paper_and_the_others_as_the_store() -> None:
    assert split_shares("paper", "cdl") == {"train": 0.85, "validation": 0.10, "sealed": 0.05}
    assert split_shares("paper", "mdl") == {"train": 0.80, "validation": 0.10, "sealed": 0.10}
    assert split_shares("paper", "joint") == split_shares("paper", "cdl"), "its wells did not teach its base"
    assert split_shares("fast", "cdl") is None


@pytest.mark.parametrize("assay_name", ["rosella", "nuclei"])
def test_paper_learns_on_tiny_fields(assay_name: str) -> None:
    assay = load_assay(assay_name)
    config = paper("cdl", assay, 0, width=4)
    rng = np.random.default_rng(0)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:20, 10:30] = 1
    items = [
        TrainingItem(image_CHW=rng.poisson(50 + 200 * mask, (len(assay.channels), 32, 48)), mask_HW=mask)
        for _ in range(5)
    ]
    result = fit(replace(config, epochs=3), items, device="cpu")
    assert all(0.0 < report.loss <= 1.0 for report in result.history)
