"""What a version can be asked for, and what its look holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from samples import make_model

from cytoloop.adapters.images import read_image
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.scoring import image_features, score_item, soften
from cytoloop.domain.strategies import STRATEGIES, strategy_named
from cytoloop.domain.tiling import tiles_of
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import save_weights
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import CipMasks, NetworkPredictor, load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks

if TYPE_CHECKING:
    from conftest import SmallHome


def network(home: SmallHome, folder: Path, dropout: float = 0.3, cip: bool = True) -> NetworkPredictor:
    config = UNetConfig(in_channels=2, class_count=3, width=4, dropout=dropout)
    digest = save_weights(folder, UNet(config, seed=2), config, Normalisation())
    masks = CipMasks(home.store, home.assay, home.assay.cip, "v")
    return NetworkPredictor("cdl-1", home.assay, folder, digest, "cpu", (lambda: masks) if cip else None)


def test_cip_can_be_ranked_and_spread_before_there_is_a_network(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    version = ensure_cip_version(home.store, home.registry, home.assay)
    predictor = load_predictor(home.store, home.registry, home.assay, version)
    record = home.store.images.get("rosella", "P_B01_f1")
    strategy = strategy_named("entropy/minute+diverse")
    strategy.check(predictor.offers, predictor.version)
    look = predictor.look(record, strategy.needs)
    mask_HW = home.store.masks.get(weak_masks(home.store, home.assay)["P_B01_f1"])
    np.testing.assert_array_equal(look.prob_KHW, soften(mask_HW, 3))
    np.testing.assert_array_equal(
        look.features_FHW, image_features(read_image(record, home.assay), mask_HW, 3)
    )
    assert look.is_cip
    assert look.cip_HW is look.mutual_information_HW is look.augmentation_HW is None
    for tile in tiles_of(64, 64, home.assay.tiling):
        scores = score_item(look, tile.slices)
        assert strategy.value(scores, 0.5) >= 0
        assert np.linalg.norm(scores.features_F) == pytest.approx(1, abs=1e-5)
    assert predictor.look(record, ()).features_FHW is None


@pytest.mark.parametrize("name", ["mutual-information", "disagreement", "augmentation/minute"])
def test_cip_is_refused_what_only_a_network_has(home: SmallHome, name: str) -> None:
    version = ensure_cip_version(home.store, home.registry, home.assay)
    predictor = load_predictor(home.store, home.registry, home.assay, version)
    with pytest.raises(ConfigError, match=f"strategy {name} needs .*a network.*, which version cip-"):
        strategy_named(name).check(predictor.offers, predictor.version)
    with pytest.raises(ConfigError, match=r"a look needs .*, which version cip-"):
        predictor.look(home.store.images.get("rosella", "P_B01_f1"), strategy_named(name).needs)


def test_a_network_offers_all_and_looks_once_for_all(home: SmallHome, tmp_path: Path) -> None:
    predictor = network(home, tmp_path / "net")
    record = home.store.images.get("rosella", "P_B01_f1")
    for strategy in STRATEGIES.values():
        strategy.check(predictor.offers, predictor.version)
    look = predictor.look(record, predictor.offers)
    np.testing.assert_allclose(look.prob_KHW, predictor.predict(record), atol=1e-6)
    fresh = make_weak_label(read_image(record, home.assay), record.image_key, home.assay.cip)
    np.testing.assert_array_equal(look.cip_HW, fresh.mask_HW)
    assert not look.is_cip
    scores = score_item(look, tiles_of(64, 64, home.assay.tiling)[3].slices)
    for strategy in STRATEGIES.values():
        assert strategy.value(scores, 0.5) >= 0
    again = predictor.look(record, {"dropout"})
    np.testing.assert_array_equal(again.mutual_information_HW, look.mutual_information_HW)
    assert again.features_FHW is again.cip_HW is None


def test_a_network_lacks_what_it_was_not_trained_or_opened_with(home: SmallHome, tmp_path: Path) -> None:
    predictor = network(home, tmp_path / "net", dropout=0.0, cip=False)
    assert predictor.offers == {"network", "augmentation", "features"}
    for name in ("mutual-information", "disagreement"):
        with pytest.raises(ConfigError, match="which version cdl-1 lacks"):
            strategy_named(name).check(predictor.offers, predictor.version)


def test_a_network_differs_from_the_cip_that_the_assay_names(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    stored = home.store.masks.get(weak_masks(home.store, home.assay)["P_B01_f1"])
    config = UNetConfig(in_channels=2, class_count=3, width=4)
    version, digest = home.registry.add(
        "cdl", lambda folder: save_weights(folder, UNet(config), config, Normalisation()), {}
    )
    model = replace(make_model(), version=version, digest=digest)
    predictor = load_predictor(home.store, home.registry, home.assay, model, "cpu")
    record = home.store.images.get("rosella", "P_B01_f1")
    np.testing.assert_array_equal(predictor.look(record, {"cip"}).cip_HW, stored)


def test_a_networks_masks_are_made_by_the_engine_whatever_is_asked(
    home: SmallHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    record = home.store.images.get("rosella", "P_B01_f1")
    with_engine = network(home, tmp_path)
    assert with_engine.engine.startswith("onnxruntime ")
    monkeypatch.setattr("cytoloop.nn.engine.is_installed", lambda: False)
    without = network(home, tmp_path)
    assert without.engine.startswith("torch ")
    prob_KHW = with_engine.predict(record)
    np.testing.assert_allclose(prob_KHW, without.predict(record), atol=2e-5)
    for needs in ((), ("features", "cip"), ("dropout", "features")):
        np.testing.assert_array_equal(with_engine.look(record, needs).prob_KHW, prob_KHW)
    monkeypatch.setattr(UNet, "forward", lambda *_: pytest.fail("PyTorch predicted"))
    with_engine.predict(record)
