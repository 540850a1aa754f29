import numpy as np
import pytest
import torch

from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.nn.device import choose_device
from cytoloop.nn.unet import UNet, UNetConfig

CONFIG = UNetConfig(in_channels=2, class_count=3, width=4)


@pytest.mark.parametrize("size", [(340, 256), (347, 260), (9, 8), (8, 8), (15, 23), (64, 64)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    net = UNet(CONFIG).eval()
    with torch.inference_mode():
        logits = net(torch.zeros(2, 2, *size))
    assert tuple(logits.shape) == (2, 3, *size)
    assert bool(torch.isfinite(logits).all())


def test_deeper_network_still_takes_the_smallest_image() -> None:
    net = UNet(UNetConfig(in_channels=1, class_count=2, width=2, poolings=4)).eval()
    with torch.inference_mode():
        assert tuple(net(torch.zeros(1, 1, 8, 9)).shape) == (1, 2, 8, 9)


@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (1, 2, 7, 16), (2, 16, 16)])
def test_an_input_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="expected"):
        UNet(CONFIG)(torch.zeros(shape))


def test_same_seed_same_weights_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other, different = UNet(CONFIG, seed=1), UNet(CONFIG, seed=1), UNet(CONFIG, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    assert not torch.equal(one.head.weight, different.head.weight)


def test_first_logits_are_of_a_size_that_can_be_learnt_from() -> None:
    """Wrong initial variances show here: they would grow or vanish block by block."""
    net = UNet(UNetConfig(in_channels=2, class_count=3, width=16), seed=3).train()
    logits = net(torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert 0.3 < float(logits.detach().std()) < 5.0


def test_dropout_is_an_argument_and_follows_its_generator() -> None:
    net = UNet(UNetConfig(in_channels=2, class_count=3, width=8, dropout=0.3)).eval()
    image = torch.randn(1, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = net(image)
        assert torch.equal(plain, net(image))
        first = net(image, torch.Generator().manual_seed(1))
        again = net(image, torch.Generator().manual_seed(1))
        other = net(image, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)


def test_dropout_keeps_the_mean_of_the_features() -> None:
    net = UNet(UNetConfig(in_channels=1, class_count=2, width=2, dropout=0.25))
    dropped = net._drop(torch.ones(400, 50, 2, 2), torch.Generator().manual_seed(0))
    assert set(np.unique(dropped.numpy())) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


def test_a_batch_of_one_and_of_many_give_the_same() -> None:
    net = UNet(CONFIG).eval()
    images = torch.randn(3, 2, 40, 33, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together = net(images)
        alone = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_padding_does_not_move_the_grid() -> None:
    """The interior of an image does not change when rows are added far below it."""
    net = UNet(CONFIG).eval()
    image = torch.randn(1, 2, 160, 24, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, upper = net(image), net(image[:, :, :101])
    torch.testing.assert_close(whole[:, :, :40], upper[:, :, :40], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [{"in_channels": 0}, {"class_count": 1}, {"width": 0}, {"poolings": 0}, {"dropout": 1.0}, {"width": 1.5}],
)
def test_config_names_what_is_wrong(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        UNetConfig(**{"in_channels": 2, "class_count": 3, **values})  # type: ignore[arg-type]


def test_config_round_trip() -> None:
    assert UNetConfig.from_dict(CONFIG.to_dict()) == CONFIG
    with pytest.raises(ConfigError, match="depth"):
        UNetConfig.from_dict({**CONFIG.to_dict(), "depth": 3})


def test_device_names() -> None:
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match="tpu"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_without_a_gpu_is_an_error_not_a_slow_run() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        choose_device("cuda")
