"""A network's look: one run of the encoder, all that strategies need."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.domain.scoring import mutual_information
from cytoloop.nn.look import look_at
from cytoloop.nn.normalisation import Normalisation, normalise
from cytoloop.nn.predict import TilePlan, predict_prob
from cytoloop.nn.unet import UNet, UNetConfig

NET = UNet(UNetConfig(in_channels=2, class_count=3, width=4, dropout=0.3), seed=1).eval()
PLAIN = Normalisation()
ALL = ("network", "dropout", "augmentation", "features")


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(100, 4000, (2, height, width)).astype(np.uint16)


def test_only_what_is_asked_for_is_made() -> None:
    raw = image(40, 51)
    bare = look_at(NET, raw, PLAIN)
    np.testing.assert_allclose(bare.prob_KHW, predict_prob(NET, raw, PLAIN), atol=1e-6)
    assert bare.mutual_information_HW is bare.augmentation_HW is bare.features_FHW is bare.cip_HW is None
    whole = look_at(NET, raw, PLAIN, needs=ALL)
    np.testing.assert_array_equal(whole.prob_KHW, bare.prob_KHW)
    assert whole.mutual_information_HW is not None
    assert whole.augmentation_HW is not None
    assert whole.features_FHW is not None
    assert whole.mutual_information_HW.shape == whole.augmentation_HW.shape == (40, 51)
    assert whole.features_FHW.shape == (32, 5, 7)


def test_the_encoder_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    encode = NET.encode
    monkeypatch.setattr(NET, "encode", lambda x: runs.append(x.shape) or encode(x))
    look_at(NET, image(24, 24), PLAIN, needs=("dropout", "features"), passes=5)
    assert len(runs) == 1


def test_information_is_the_mean_divergence_of_passes_that_drop_after_the_deepest_block() -> None:
    raw = image(24, 32)
    batch = torch.from_numpy(normalise(raw, PLAIN))[None]
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        encoded = NET.encode(batch)
        deepest = NET.begin(encoded)
        passes = torch.cat([NET.finish(encoded, deepest, (24, 32), generator) for _ in range(3)]).softmax(1)
        sure = NET(batch).softmax(1)
        by_hand = (passes * (passes / sure).log()).sum(1).mean(0).numpy()
    found = look_at(NET, raw, PLAIN, needs=("dropout",), passes=3, seed=7).mutual_information_HW
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
    assert found is not None
    assert (found >= 0).all()
    assert found.max() > 0


def test_beginning_and_finishing_is_decoding() -> None:
    batch = torch.from_numpy(normalise(image(24, 32), PLAIN))[None]
    with torch.inference_mode():
        encoded = NET.encode(batch)
        one, other = (torch.Generator().manual_seed(3) for _ in range(2))
        whole = NET.decode(encoded, (24, 32), one)
        deepest = NET.begin(encoded, other)
        state = other.get_state()
        parts = NET.finish(encoded, deepest, (24, 32), other)
        other.set_state(state)
        shared = NET.finish(encoded, deepest, (24, 32), other, NET.share(encoded))
    torch.testing.assert_close(whole, parts, rtol=0, atol=0)
    torch.testing.assert_close(whole, shared, rtol=1e-4, atol=1e-5)


def test_augmentations_disagree_as_much_as_the_predictions_turned_back() -> None:
    raw = image(24, 33)
    predictions = [
        predict_prob(NET, raw, PLAIN),
        predict_prob(NET, raw[:, :, ::-1], PLAIN)[:, :, ::-1],
        predict_prob(NET, raw[:, ::-1], PLAIN)[:, ::-1],
        np.rot90(predict_prob(NET, np.rot90(raw, axes=(1, 2)), PLAIN), -1, axes=(1, 2)),
    ]
    found = look_at(NET, raw, PLAIN, needs=("augmentation",)).augmentation_HW
    np.testing.assert_allclose(found, mutual_information(np.stack(predictions)), atol=1e-5)


def test_a_network_that_is_symmetric_never_disagrees_with_itself() -> None:
    """Convolutions by their middle weight alone see one pixel: no flip or turn can matter."""
    symmetric = UNet(UNetConfig(in_channels=2, class_count=3, width=4), seed=1).eval()
    with torch.no_grad():
        for module in symmetric.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
                module.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
            elif isinstance(module, torch.nn.ConvTranspose2d):
                module.weight.copy_(module.weight.mean(dim=(2, 3), keepdim=True).expand_as(module.weight))
    found = look_at(symmetric, image(32, 40), PLAIN, needs=("augmentation",)).augmentation_HW
    np.testing.assert_allclose(found, 0, atol=1e-5)


def test_features_are_standard_where_the_batch_norm_knows_the_data() -> None:
    """A network that never trained expects normal features of mean 0 and deviation 1, cut at 0."""
    net = UNet(UNetConfig(in_channels=2, class_count=3, width=4), seed=1)
    batches = [torch.from_numpy(normalise(image(64, 64, seed), PLAIN))[None] for seed in range(4)]
    net.train()
    with torch.no_grad():
        for _ in range(40):
            net.encode(torch.cat(batches))
    found = [look_at(net, image(64, 64, seed), PLAIN, needs=("features",)).features_FHW for seed in range(4)]
    values = np.stack([one for one in found if one is not None])
    assert abs(values.mean()) < 0.2
    assert 0.7 < values.std() < 1.3


def test_a_feature_that_is_dead_tells_nothing() -> None:
    net = UNet(NET.config, seed=1).eval()
    with torch.no_grad():
        norm: Any = net.bottleneck[4]
        norm.weight[0], norm.bias[0] = 1e-7, -1.0
    found = look_at(net, image(24, 24), PLAIN, needs=("features",)).features_FHW
    assert found is not None
    assert (found[0] == 0).all()
    assert np.isfinite(found).all()


def test_tiles_give_what_the_whole_image_gives() -> None:
    raw = image(152, 176)  # sides on the grid of the poolings: a flip shifts nothing
    whole = look_at(NET, raw, PLAIN, needs=ALL, passes=2)
    plan = TilePlan(largest_whole=0, core=64, border=64)
    tiled = look_at(NET, raw, PLAIN, needs=ALL, passes=2, plan=plan)
    inside = (slice(64, -64), slice(64, -64))
    for name in ("mutual_information_HW", "augmentation_HW"):
        np.testing.assert_allclose(getattr(tiled, name)[inside], getattr(whole, name)[inside], atol=1e-4)
    assert whole.features_FHW is not None
    assert tiled.features_FHW is not None
    assert tiled.features_FHW.shape == whole.features_FHW.shape == (32, 19, 22)
    np.testing.assert_allclose(
        tiled.features_FHW[:, 8:11, 8:13], whole.features_FHW[:, 8:11, 8:13], atol=1e-3
    )


def test_what_cannot_be_looked_at_is_named() -> None:
    never = UNet(UNetConfig(in_channels=2, class_count=3, width=4, dropout=0.0))
    with pytest.raises(ConfigError, match="dropout asked of a network with dropout 0"):
        look_at(never, image(16, 16), PLAIN, needs=("dropout",))
    with pytest.raises(ShapeError, match="0 passes"):
        look_at(NET, image(16, 16), PLAIN, needs=("dropout",), passes=0)
    deep = UNet(UNetConfig(in_channels=2, class_count=3, width=2, poolings=4))
    with pytest.raises(ConfigError, match="core 40, border 24; expected multiples of 16"):
        look_at(
            deep,
            image(64, 64),
            PLAIN,
            needs=("features",),
            plan=TilePlan(largest_whole=0, core=40, border=24),
        )
