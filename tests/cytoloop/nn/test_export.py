"""A network as ONNX: the same probabilities, any size, and nothing written that is not checked."""

from __future__ import annotations

import logging
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytoloop.domain.errors import ConfigError, StateError
from cytoloop.nn import export
from cytoloop.nn.export import INPUT, LARGEST_DIFFERENCE, OPSET, OUTPUT, check_installed, write_onnx
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig

NORMALISATION = Normalisation(low=2.0, high=99.5, softness=8.0)


def network(poolings: int = 3, seed: int = 3) -> UNet:
    net = UNet(UNetConfig(in_channels=2, class_count=3, width=4, poolings=poolings), seed=seed)
    net(torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0)))  # moves the batch norms
    return net.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, UNet, float]:
    path = tmp_path_factory.mktemp("onnx") / "new" / "net.onnx"
    net = network()
    _, difference = write_onnx(path, net, NORMALISATION, {"version": "cdl-20240517-00000000"})
    return path, net, difference


def session_of(path: Path) -> Any:
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 9), (1, 17, 64), (2, 100, 31), (1, 128, 128)])
def test_any_batch_and_size_gives_what_the_network_gives(
    exported: tuple[Path, UNet, float], shape: tuple[int, int, int]
) -> None:
    path, net, _ = exported
    count, height, width = shape
    image_NCHW = np.random.default_rng(0).normal(0.4, 0.5, (count, 2, height, width)).astype(np.float32)
    (prob_NKHW,) = session_of(path).run([OUTPUT], {INPUT: image_NCHW})
    with torch.inference_mode():
        expected = net(torch.from_numpy(image_NCHW)).softmax(dim=1).numpy()
    assert prob_NKHW.dtype == np.float32
    np.testing.assert_allclose(prob_NKHW, expected, atol=LARGEST_DIFFERENCE)


def test_the_file_says_what_it_takes_and_gives_and_how_to_normalise(
    exported: tuple[Path, UNet, float],
) -> None:
    path, _, difference = exported
    session = session_of(path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("image", "tensor(float)", ["N", 2, "H", "W"])
    assert (given.name, given.type, given.shape) == ("probabilities", "tensor(float)", ["N", 3, "H", "W"])
    said = session.get_modelmeta().custom_metadata_map
    assert said["version"] == "cdl-20240517-00000000"
    numbers = {name: float(said[f"normalisation_{name}"]) for name in NORMALISATION.to_dict()}
    assert Normalisation.from_dict(numbers) == NORMALISATION
    assert said["smallest_side"] == "8"
    assert 0.0 <= difference < LARGEST_DIFFERENCE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "it is made to be passed on"


def test_the_file_is_valid_of_the_opset_named_and_tells_nothing_of_the_machine(
    exported: tuple[Path, UNet, float],
) -> None:
    onnx = pytest.importorskip("onnx")
    path, _, _ = exported
    document = onnx.load(path)
    onnx.checker.check_model(document, full_check=True)
    assert [(one.domain, one.version) for one in document.opset_import] == [("", OPSET)]
    content = path.read_bytes()
    for trace in (b".py", b"stack_trace", str(Path(export.__file__).parents[2]).encode()):
        assert trace not in content


def test_the_same_network_gives_the_same_file(exported: tuple[Path, UNet, float], tmp_path: Path) -> None:
    path, net, _ = exported
    write_onnx(tmp_path / "again.onnx", net, NORMALISATION, {"version": "cdl-20240517-00000000"})
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_more_poolings_need_a_larger_image_and_the_file_says_so(tmp_path: Path) -> None:
    metadata, _ = write_onnx(tmp_path / "deep.onnx", network(poolings=4), NORMALISATION, {})
    assert metadata["smallest_side"] == "16"


@pytest.mark.parametrize("difference", [2e-4, float("nan"), float("inf")])
def test_what_onnx_runtime_computes_otherwise_is_not_written(
    difference: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_exported", lambda model, metadata: b"")
    monkeypatch.setattr(export, "largest_difference", lambda *_: difference)
    path = tmp_path / "net.onnx"
    path.write_text("what was there")
    with pytest.raises(StateError, match=r"differ from PyTorch.s by up to .*, expected at most 0\.0001"):
        write_onnx(path, network(), NORMALISATION, {})
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_another_network_in_the_file_is_noticed(exported: tuple[Path, UNet, float]) -> None:
    path, net, _ = exported
    content = path.read_bytes()
    assert export.largest_difference(content, net) < LARGEST_DIFFERENCE
    assert export.largest_difference(content, network(seed=4)) > LARGEST_DIFFERENCE
    other = UNet(UNetConfig(in_channels=2, class_count=4, width=4))
    assert export.largest_difference(content, other) == float("inf")


def test_what_is_not_installed_is_named_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_installed()
    monkeypatch.setattr(export, "find_spec", lambda name: None if name.startswith("onnxr") else object())
    with pytest.raises(ConfigError, match=r"onnxruntime not installed.*pip install 'cytoloop\[onnx\]'"):
        write_onnx(tmp_path / "net.onnx", network(), NORMALISATION, {})


def test_the_exporters_own_log_is_as_before_afterwards(exported: tuple[Path, UNet, float]) -> None:
    assert logging.getLogger("torch.onnx._internal.exporter._registration").level != logging.ERROR
