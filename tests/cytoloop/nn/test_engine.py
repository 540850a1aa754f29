"""The engine: what PyTorch computes, quicker, or nothing."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cytoloop.domain.errors import ShapeError, StateError
from cytoloop.nn import engine
from cytoloop.nn.engine import Engine, engine_of
from cytoloop.nn.look import look_at
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import TilePlan, predict_prob
from cytoloop.nn.unet import UNet, UNetConfig

pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")
PLAIN = Normalisation()
ALL = ("network", "dropout", "augmentation", "features")


def network(poolings: int = 3, seed: int = 3, channels: int = 2) -> UNet:
    net = UNet(UNetConfig(in_channels=channels, class_count=3, width=4, poolings=poolings), seed=seed)
    noise = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    for _ in range(20):
        net(3 * noise + 1)  # moves the batch norms away from where folding them changes nothing
    return net.eval()


def image(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(100, 4000, (2, height, width)).astype(np.uint16)


@pytest.mark.parametrize("poolings", [1, 3, 4])
@pytest.mark.parametrize("size", [(64, 96), (61, 45), (8, 9)])
def test_it_gives_the_networks_probabilities(poolings: int, size: tuple[int, int]) -> None:
    net = network(poolings)
    made = predict_prob(net, image(*size), PLAIN, engine=Engine(net))
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, predict_prob(net, image(*size), PLAIN), atol=2e-5)


def test_large_images_go_through_it_in_tiles() -> None:
    net, plan = network(), TilePlan(largest_whole=0, core=64, border=16)
    made = predict_prob(net, image(100, 90), PLAIN, plan=plan, engine=Engine(net))
    np.testing.assert_allclose(made, predict_prob(net, image(100, 90), PLAIN, plan=plan), atol=2e-5)


def test_a_look_is_that_of_pytorch_and_its_mask_the_plain_predictions() -> None:
    net, raw = network(), image(40, 51)
    made = Engine(net)
    plain = predict_prob(net, raw, PLAIN, engine=made)
    ours = look_at(net, raw, PLAIN, needs=ALL)
    theirs = look_at(net, raw, PLAIN, needs=ALL, engine=made)
    for name in ("prob_KHW", "mutual_information_HW", "augmentation_HW", "features_FHW"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(ours, name), atol=2e-4, err_msg=name)
    for needs in ((), ("features",), ("dropout",), ("augmentation",), ALL):
        np.testing.assert_array_equal(look_at(net, raw, PLAIN, needs=needs, engine=made).prob_KHW, plain)


def test_the_network_itself_is_not_run_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    made = Engine(net)
    for name in ("forward", "encode", "decode", "begin", "finish"):
        monkeypatch.setattr(net, name, lambda *_, **__: pytest.fail("computed twice"))
    predict_prob(net, image(24, 24), PLAIN, engine=made)
    look_at(net, image(24, 24), PLAIN, needs=("features", "augmentation"), engine=made)


def test_many_threads_at_once_get_each_their_own() -> None:
    net = network()
    made = Engine(net)
    raws = [image(40 + 3 * n, 70 - 2 * n, seed=n) for n in range(12)]
    alone = [predict_prob(net, raw, PLAIN, engine=made) for raw in raws]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda raw: predict_prob(net, raw, PLAIN, engine=made), raws))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_fit_the_network_is_refused_as_it_refuses_it() -> None:
    made = Engine(network())
    with pytest.raises(ShapeError, match="at least 8 x 8"):
        made.logits(torch.zeros(1, 2, 7, 20))
    with pytest.raises(ShapeError, match=r"expected \(N, 2, H, W\)"):
        made.logits(torch.zeros(1, 3, 16, 16))


def test_an_engine_that_computes_otherwise_is_never_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = engine._Writer.weights

    def drifted(self: engine._Writer, convolution: torch.nn.Module, norm: object = None) -> list[str]:
        with torch.no_grad():
            convolution.weight.mul_(1.001)
            names = weights(self, convolution, norm)  # type: ignore[arg-type]
            convolution.weight.div_(1.001)
        return names

    monkeypatch.setattr(engine._Writer, "weights", drifted)
    with pytest.raises(StateError, match=r"differs from PyTorch's by \S+, expected at most 0.0001"):
        Engine(network())
    with caplog.at_level(logging.WARNING):
        assert engine_of(network(), CPU) is None
    assert "PyTorch predicts" in caplog.text


def test_a_network_of_no_numbers_is_left_to_pytorch() -> None:
    net = network()
    with torch.no_grad():
        net.head.weight.fill_(float("nan"))
    assert engine_of(net, CPU) is None


def test_pytorch_predicts_where_it_is_not_installed_or_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert engine_of(network(), CPU) is not None
    assert engine_of(network(), torch.device("cuda")) is None
    monkeypatch.setattr(engine, "find_spec", lambda name: None if name == "onnxruntime" else object())
    assert engine_of(network(), CPU) is None


def test_memory_of_a_large_image_is_given_back() -> None:
    psutil = pytest.importorskip("psutil")
    net = network()
    made, process = Engine(net), psutil.Process()
    made.logits(torch.zeros(1, 2, 64, 64))
    before = process.memory_info().rss
    for _ in range(2):
        made.logits(torch.zeros(1, 2, 2048, 2048))
    # the layers of such an image take some 800 MiB, of which the runtime keeps a few hundred
    assert process.memory_info().rss - before < 450 * 2**20
