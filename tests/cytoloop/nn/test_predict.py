import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cytoloop.domain.errors import ConfigError, ImageUnreadable, ShapeError
from cytoloop.nn.normalisation import Normalisation, normalise
from cytoloop.nn.predict import TilePlan, predict_prob, stochastic_passes
from cytoloop.nn.unet import UNet, UNetConfig

NET = UNet(UNetConfig(in_channels=2, class_count=3, width=4, dropout=0.3), seed=1).eval()
PLAIN = Normalisation()


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(100, 4000, (2, height, width)).astype(np.uint16)


@pytest.mark.parametrize("size", [(340, 256), (347, 260), (9, 8)])
def test_probabilities_of_every_pixel(size: tuple[int, int]) -> None:
    prob = predict_prob(NET, image(*size), PLAIN)
    assert prob.shape == (3, *size)
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob.sum(axis=0), 1.0, atol=1e-5)


def test_tiles_whose_border_holds_all_the_network_sees_equal_the_whole() -> None:
    """Batch norm in evaluation mode is local, so tiles are exact once the border is wide enough."""
    raw = image(150, 171)
    whole = predict_prob(NET, raw, PLAIN)
    tiled = predict_prob(NET, raw, PLAIN, plan=TilePlan(largest_whole=0, core=64, border=64))
    # Away from the image's edge, where the whole image sees zeros and a tile sees its mirror image.
    inside = (slice(None), slice(64, -64), slice(64, -64))
    np.testing.assert_allclose(tiled[inside], whole[inside], atol=1e-4)
    narrow = predict_prob(NET, raw, PLAIN, plan=TilePlan(largest_whole=0, core=64, border=8))
    assert np.abs(narrow[inside] - whole[inside]).max() > 1e-4


@pytest.mark.parametrize("size", [(129, 65), (64, 200), (8, 300)])
def test_tiles_cover_images_of_any_size(size: tuple[int, int]) -> None:
    prob = predict_prob(NET, image(*size), PLAIN, plan=TilePlan(largest_whole=0, core=64, border=16))
    assert prob.shape == (3, *size)
    np.testing.assert_allclose(prob.sum(axis=0), 1.0, atol=1e-5)


def test_passes_differ_and_repeat_with_their_seed() -> None:
    raw = image(40, 48)
    first = stochastic_passes(NET, raw, PLAIN, passes=3, seed=5)
    assert first.shape == (3, 3, 40, 48)
    np.testing.assert_array_equal(first, stochastic_passes(NET, raw, PLAIN, passes=3, seed=5))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first, stochastic_passes(NET, raw, PLAIN, passes=3, seed=6))


def test_sharing_the_encoder_gives_what_whole_passes_give() -> None:
    raw = image(40, 48)
    generator = torch.Generator().manual_seed(5)
    batch = torch.from_numpy(normalise(raw, PLAIN))[None]
    with torch.inference_mode():
        whole = torch.cat([NET(batch, generator) for _ in range(3)]).softmax(1).numpy()
    np.testing.assert_allclose(stochastic_passes(NET, raw, PLAIN, passes=3, seed=5), whole, atol=1e-5)


def test_a_pass_is_the_same_model_in_every_tile() -> None:
    raw = image(150, 171)
    whole = stochastic_passes(NET, raw, PLAIN, passes=2)
    tiled = stochastic_passes(NET, raw, PLAIN, passes=2, plan=TilePlan(largest_whole=0, core=64, border=64))
    inside = (slice(None), slice(None), slice(64, -64), slice(64, -64))
    np.testing.assert_allclose(tiled[inside], whole[inside], atol=1e-4)


def test_without_dropout_all_passes_are_the_deterministic_one() -> None:
    sure = UNet(UNetConfig(in_channels=2, class_count=3, width=4, dropout=0.0))
    raw = image(24, 24)
    passes = stochastic_passes(sure, raw, PLAIN, passes=2)
    for prob in passes:
        np.testing.assert_allclose(prob, predict_prob(sure, raw, PLAIN), atol=1e-6)


def test_batch_norm_never_learns_while_predicting() -> None:
    net = UNet(NET.config).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    predict_prob(net, image(16, 16), PLAIN)
    stochastic_passes(net, image(16, 16), PLAIN, passes=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_what_cannot_be_predicted_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 16, 16\), expected \(2, H, W\)"):
        predict_prob(NET, image(16, 16)[:1], PLAIN)
    with pytest.raises(ShapeError, match="8 x 8"):
        predict_prob(NET, image(16, 7), PLAIN)
    with pytest.raises(ImageUnreadable, match="not finite"):
        predict_prob(NET, np.full((2, 16, 16), np.nan), PLAIN)
    with pytest.raises(ShapeError, match="0 passes"):
        stochastic_passes(NET, image(16, 16), PLAIN, passes=0)
    with pytest.raises(ConfigError, match="core"):
        TilePlan(core=100)
