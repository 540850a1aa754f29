from __future__ import annotations

import pytest

from cytoloop.adapters.assays import load_assay
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import Method
from cytoloop.nn.fit import TrainConfig
from trainer.presets import PRESETS, WEAK_WEIGHT, preset

LEARNED: tuple[Method, ...] = ("cdl", "mdl", "joint")


@pytest.mark.parametrize("is_validated", [True, False])
@pytest.mark.parametrize("method", LEARNED)
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("assay_name", ["rosella", "cells2ch", "nuclei"])
def test_every_preset_fits_every_shipped_assay(
    assay_name: str, name: str, method: Method, is_validated: bool
) -> None:
    assay = load_assay(assay_name)
    config = preset(name, method, assay, 5, is_validated=is_validated)
    assert config.network.in_channels == len(assay.channels)
    assert config.network.class_count == assay.class_count
    assert config.seed == 5
    assert TrainConfig.from_dict(config.to_dict()) == config, "it is stored with the version"


@pytest.mark.parametrize("name", PRESETS)
def test_a_joint_model_can_go_on_from_the_cdl_of_its_preset(name: str) -> None:
    assay = load_assay("rosella")
    cdl = preset(name, "cdl", assay, 0, is_validated=False)
    joint = preset(name, "joint", assay, 0, is_validated=True)
    assert cdl.network == joint.network
    assert cdl.normalisation == joint.normalisation
    assert joint.trusted_share is not None, "corrections are seen more often than weak labels"
    assert cdl.trusted_share is None


def test_a_cdl_nobody_watches_over_is_stopped_earlier() -> None:
    assay = load_assay("rosella")
    blind = preset("fast", "cdl", assay, 0, is_validated=False)
    watched = preset("fast", "cdl", assay, 0, is_validated=True)
    assert blind.epochs < watched.epochs


def test_an_mdl_learns_nothing_from_weak_labels() -> None:
    assert WEAK_WEIGHT["mdl"] == 0
    assert 0 < WEAK_WEIGHT["joint"] < WEAK_WEIGHT["cdl"] == 1


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'slow': expected one of fast, smoke"):
        preset("slow", "cdl", load_assay("rosella"), 0, is_validated=False)
