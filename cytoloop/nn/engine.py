"""Plain predictions on a CPU by ONNX Runtime: the network of a version, written down once more and checked.

The graph is written here, operator by operator, with the batch norms folded into the convolutions. That takes
hundredths of a second, where PyTorch's exporter takes many seconds and packages of its own
(`cytoloop.nn.export`, for files that are passed on). So nothing is kept on disk that could be stale: a network
is converted whenever it is loaded, and compared with PyTorch there and then.

Legend: N batch, K classes, C channels, H rows, W columns, F features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoloop.domain.errors import StateError
from cytoloop.nn.unet import UNet

logger = logging.getLogger(__name__)

OPSET, IR_VERSION = 18, 8
"""Of the ONNX format: what every ONNX Runtime since 1.14 reads."""
LARGEST_DIFFERENCE = 1e-4
"""From PyTorch: of a probability, and of a feature as a share of the largest one. Rounding gives some 1e-5."""
PROBES = ((1, 64, 96), (2, 61, 45))
"""(N, H, W) that both are asked about whenever a network is loaded; the second fits no pooling."""
ROOMY = 1024 * 1024
"""Pixels of a call beyond which its memory is given back at once, instead of being kept for the next one."""
_NEEDED = ("onnx", "onnxruntime")
_IMAGE, _LOGITS = "image", "logits"


class Engine:
    """A network's deterministic pass on the CPU, in float32. Any number of threads may call it at once."""

    def __init__(self, model: UNet, threads: int | None = None) -> None:
        """Convert a network.

        Parameters
        ----------
        threads : int, optional
            That share a call, default: as many as PyTorch has. What it computes does not depend on them.

        Raises
        ------
        StateError
            If it gives other numbers than the network does in PyTorch.
        """
        import onnxruntime

        self._model = model
        content, self._parts = _written(model)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone, not how it optimises
        options.intra_op_num_threads = threads or torch.get_num_threads()
        # Threads that wait do not spin: an annotator's request and a training share these cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._usual, self._large = onnxruntime.RunOptions(), onnxruntime.RunOptions()
        for run in (self._usual, self._large):
            run.only_execute_path_to_fetches = True
        self._large.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._check()

    def logits(self, image_NCHW: Tensor) -> Tensor:
        """Return the network's logits (N, K, H, W) for normalised images (N, C, H, W) on the CPU.

        Raises
        ------
        ShapeError
            As :meth:`UNet.forward`.
        """
        (logits_NKHW,) = self._run(image_NCHW, [_LOGITS])
        return logits_NKHW

    def with_bottleneck(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits, and the last of what :meth:`UNet.encode` gives."""
        logits_NKHW, bottleneck_NFHW = self._run(image_NCHW, [_LOGITS, self._parts[-2]])
        return logits_NKHW, bottleneck_NFHW

    def with_parts(self, image_NCHW: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Return the logits, what :meth:`UNet.encode` gives and what :meth:`UNet.begin` makes of it."""
        logits_NKHW, *encoded, deepest_NFHW = self._run(image_NCHW, [_LOGITS, *self._parts])
        return logits_NKHW, encoded, deepest_NFHW

    def _run(self, image_NCHW: Tensor, wanted: Sequence[str]) -> list[Tensor]:
        height, width = image_NCHW.shape[-2:]
        padded_NCHW = self._model.padded(image_NCHW)
        is_large = padded_NCHW.shape[0] * padded_NCHW.shape[-2] * padded_NCHW.shape[-1] > ROOMY
        found: list[NDArray[np.float32]] = self._session.run(
            wanted, {_IMAGE: padded_NCHW.contiguous().numpy()}, self._large if is_large else self._usual
        )
        logits_NKHW, *parts = (torch.from_numpy(array) for array in found)
        return [logits_NKHW[:, :, :height, :width], *parts]

    def _check(self) -> None:
        for name, theirs, ours in self._probed():
            largest = 1.0 if name == "probability" else max(1.0, float(ours.abs().max()))
            difference = float((theirs - ours).abs().max()) / largest
            if not difference <= LARGEST_DIFFERENCE:  # neither is a NaN
                raise StateError(
                    f"{self.name}: {name} differs from PyTorch's by {difference:.2g}, "
                    f"expected at most {LARGEST_DIFFERENCE:g}"
                )

    def _probed(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Everything it can give, by name, beside what the network gives in PyTorch."""
        noise = np.random.default_rng(0)
        for count, height, width in PROBES:
            # like a normalised image: dim, with a few bright places
            shape = (count, self._model.config.in_channels, height, width)
            image_NCHW = torch.from_numpy(noise.gamma(0.5, 0.6, shape).clip(max=10.0).astype(np.float32))
            logits_NKHW, *parts = self._run(image_NCHW, [_LOGITS, *self._parts])
            with torch.inference_mode():
                encoded = self._model.encode(image_NCHW)
                deepest_NFHW = self._model.begin(encoded)
                ours_NKHW = self._model.finish(encoded, deepest_NFHW, (height, width))
            yield "probability", logits_NKHW.softmax(dim=1), ours_NKHW.softmax(dim=1)
            yield from zip(self._parts, parts, [*encoded, deepest_NFHW], strict=True)


def engine_of(model: UNet, device: torch.device, threads: int | None = None) -> Engine | None:
    """Return the engine of a network in evaluation mode, or None where PyTorch itself is to predict.

    That is on a GPU, where ``cytoloop[engine]`` is not installed, and (told as a warning) where the two do
    not agree: slow, but never another mask.
    """
    if device.type != "cpu" or not is_installed():
        return None
    try:
        engine = Engine(model, threads)
    except Exception as error:  # whatever it is, PyTorch still predicts
        logger.warning("engine not used, PyTorch predicts: %s", error)
        return None
    logger.info("engine ready name=%r threads=%d", engine.name, threads or torch.get_num_threads())
    return engine


def is_installed() -> bool:
    """Whether the packages of ``cytoloop[engine]`` are there."""
    return all(find_spec(name) is not None for name in _NEEDED)


def _written(model: UNet) -> tuple[bytes, list[str]]:
    """The network as ONNX, and the names of its skips, bottleneck and deepest decoder block.

    Images have a multiple of the poolings' grid as sides: they are mirrored and cut outside.
    """
    writer = _Writer()
    x, parts = _IMAGE, []
    for block in model.encoder:
        x = writer.block(block, x)
        parts.append(x)
        x = writer.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = writer.block(model.bottleneck, x)
    skips = list(parts)
    parts.append(x)
    for level in range(len(skips) - 1, -1, -1):
        x = writer.up(model.up[level], x)
        x = writer.block(model.decoder[level], writer.add("Concat", [x, skips[level]], axis=1))
        if level == len(skips) - 1:
            parts.append(x)
    writer.add("Conv", [x, *writer.weights(model.head)], [_LOGITS], kernel_shape=[1, 1])
    return writer.content(model.config.in_channels, [_LOGITS, *parts]), parts


class _Writer:
    """Collects the operators and constants of an ONNX graph."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operator: str, inputs: list[str], outputs: list[str] | None = None, **values: Any) -> str:
        """Add an operator; the name of what it gives."""
        from onnx import helper

        outputs = outputs or [f"x{len(self._nodes)}"]
        self._nodes.append(helper.make_node(operator, inputs, outputs, **values))
        return outputs[0]

    def block(self, block: Any, x: str) -> str:
        """Convolution, batch norm and ReLU, as often as the block has them."""
        layers = list(block.children())
        for convolution, norm, _ in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
            given = [x, *self.weights(convolution, norm)]
            x = self.add("Relu", [self.add("Conv", given, kernel_shape=[3, 3], pads=[1, 1, 1, 1])])
        return x

    def up(self, up: Any, x: str) -> str:
        """A transposed convolution to twice the size."""
        return self.add("ConvTranspose", [x, *self.weights(up)], kernel_shape=[2, 2], strides=[2, 2])

    def weights(self, convolution: Any, norm: nn.BatchNorm2d | None = None) -> list[str]:
        """Names of its weight and bias, with the batch norm after it folded in."""
        weight, bias = convolution.weight.detach().double(), convolution.bias
        if norm is None:
            return [self._constant(weight), self._constant(bias.detach())]
        assert norm.running_var is not None, "as UNet makes it"
        assert norm.running_mean is not None, "as UNet makes it"
        gain_F = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
        bias_F = norm.bias.detach().double() - norm.running_mean.double() * gain_F
        return [self._constant(weight * gain_F[:, None, None, None]), self._constant(bias_F)]

    def _constant(self, values: Tensor) -> str:
        from onnx import numpy_helper

        name = f"w{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values.float().contiguous().numpy(), name))
        return name

    def content(self, channels: int, outputs: Sequence[str]) -> bytes:
        """The file, as bytes."""
        from onnx import TensorProto, helper

        image = helper.make_tensor_value_info(_IMAGE, TensorProto.FLOAT, ["N", channels, "H", "W"])
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs]
        graph = helper.make_graph(self._nodes, "cytoloop", [image], given, self._constants)
        document = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        content: bytes = document.SerializeToString()
        return content
