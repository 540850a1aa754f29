"""A network as ONNX, for programs without PyTorch; written only once ONNX Runtime gives what PyTorch gives.

Legend: N batch, K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cytoloop.domain.errors import ConfigError, StateError
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import probabilities
from cytoloop.nn.unet import SMALLEST_SIDE, UNet
from cytoloop.nn.weights import write_whole

OPSET = 18
"""Of the ONNX operators: the oldest that PyTorch's exporter writes by itself, and that the most programs read."""
INPUT, OUTPUT = "image", "probabilities"
LARGEST_DIFFERENCE = 1e-4
"""Of a probability between ONNX Runtime and PyTorch, beyond which nothing is written; rounding gives some 1e-6."""
CHECKED_SIZES = ((1, 256, 340), (1, 512, 680), (2, 61, 45))
"""(N, H, W) that both are asked about: the paper's quarter and image, and a batch that no pooling divides."""
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write_onnx(
    path: Path, model: UNet, normalisation: Normalisation, described: Mapping[str, str]
) -> tuple[dict[str, str], float]:
    """Write a network as ONNX, with softmax, for images of any size; checked first, whole or not at all.

    The file holds ``image``, float32 (N, C, H, W), *normalised*, to ``probabilities``, float32 (N, K, H, W).
    N, H and W are free; mirroring to a multiple of the poolings, and cutting back, is done inside. Percentiles
    are taken over a whole image, never over a tile, and the graph cannot know which of the two it is given:
    normalising is the caller's (:func:`cytoloop.nn.normalisation.normalise`), and its numbers are in the file.

    Parameters
    ----------
    path : Path
        Replaced if it is there.
    model : UNet
    normalisation : Normalisation
        The one the network was trained with.
    described : mapping of str to str
        What else the file is to say of itself.

    Returns
    -------
    metadata : dict of str to str
        What the file says of itself: ``described``, ``input``, ``output``, ``smallest_side`` and a key
        ``normalisation_…`` a number.
    difference : float
        The largest difference of a probability from PyTorch's, over `CHECKED_SIZES`.

    Raises
    ------
    ConfigError
        If the packages it needs are not installed.
    StateError
        If ONNX Runtime gives other probabilities than PyTorch.
    """
    check_installed()
    metadata = {
        **described,
        "input": f"{INPUT}: float32 (N, C, H, W), normalised",
        "output": f"{OUTPUT}: float32 (N, K, H, W), softmax over K",
        "smallest_side": str(max(SMALLEST_SIDE, 2**model.config.poolings)),
        **{f"normalisation_{name}": repr(value) for name, value in normalisation.to_dict().items()},
    }
    content = _exported(model, metadata)
    difference = largest_difference(content, model, normalisation.ceiling)
    if not difference <= LARGEST_DIFFERENCE:  # neither is a NaN
        raise StateError(
            f"{path}: not written: ONNX Runtime's probabilities differ from PyTorch's by up to {difference:.2g}, "
            f"expected at most {LARGEST_DIFFERENCE:g}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    path.chmod(0o644)  # to be passed on
    return metadata, difference


def check_installed() -> None:
    """Raise ConfigError, with what to install, if a package is missing that only this needs."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"ONNX export: {', '.join(missing)} not installed; expected after: pip install 'cytoloop[onnx]'"
        )


def largest_difference(content: bytes, model: UNet, ceiling: float = 10.0) -> float:
    """The largest difference of a probability between an ONNX file's content and a network, over `CHECKED_SIZES`.

    Parameters
    ----------
    ceiling : float
        Largest grey value of the noise that both are shown, as of a normalised image.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone, not how it optimises
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    noise = np.random.default_rng(0)
    model = model.eval()
    device = next(model.parameters()).device
    worst = 0.0
    for count, height, width in CHECKED_SIZES:
        # like a normalised image: dim, with a few bright places
        shape = (count, model.config.in_channels, height, width)
        image_NCHW = noise.gamma(0.5, 0.6, shape).clip(max=ceiling).astype(np.float32)
        (theirs_NKHW,) = session.run([OUTPUT], {INPUT: image_NCHW})
        with torch.inference_mode():
            ours_NKHW = probabilities(model(torch.from_numpy(image_NCHW).to(device))).cpu().numpy()
        if theirs_NKHW.shape != ours_NKHW.shape:
            return float("inf")
        worst = max(worst, float(np.abs(theirs_NKHW - ours_NKHW).max()))
    return worst


class _Probabilities(nn.Module):
    """What is exported: the network and its softmax."""

    def __init__(self, model: UNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        return probabilities(self.model(image))


def _exported(model: UNet, metadata: Mapping[str, str]) -> bytes:
    """The content of the file."""
    # Sides that neither the poolings divide nor that are alike: nothing is taken for fixed, or for equal.
    example_NCHW = torch.zeros(2, model.config.in_channels, 45, 61, device=next(model.parameters()).device)
    with _quiet_exporter():
        program: Any = torch.onnx.export(
            _Probabilities(model).eval(),
            (example_NCHW,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes={"image": {0: "N", 2: "H", 3: "W"}},
            verbose=False,
        )
    document = program.model_proto
    _forget_the_making(document)
    sides = document.graph.output[0].type.tensor_type.shape.dim
    sides[2].dim_param, sides[3].dim_param = (
        "H",
        "W",
    )  # the exporter has expressions of paddings, equal to these
    for key, value in sorted(metadata.items()):
        document.metadata_props.add(key=key, value=value)
    content: bytes = document.SerializeToString(deterministic=True)
    return content


def _forget_the_making(document: Any) -> None:
    """Drop notes of the exporter: paths of this machine, lines of our code, shapes of what lies between."""
    graph = document.graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    graph.ClearField("value_info")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep back what PyTorch's exporter says of itself: that torchvision is not there, and a deprecation of its own."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated", category=FutureWarning
            )
            yield
    finally:
        logger.setLevel(level)
