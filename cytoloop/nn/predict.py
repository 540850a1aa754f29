"""A trained network to class probabilities: whole images, tiles where they are too large, many passes.

Legend: P passes, N batch, K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.nn.engine import Engine
from cytoloop.nn.normalisation import Normalisation, normalise
from cytoloop.nn.unet import UNet


@dataclass(frozen=True, slots=True, kw_only=True)
class TilePlan:
    """When an image is cut for prediction, and how."""

    largest_whole: int = 2048 * 2048
    """Pixels up to which an image goes through the network in one piece."""
    core: int = 256
    """Side of the square that each tile contributes."""
    border: int = 32
    """Seen around the core and trimmed; mirrored at the image's edge. Both as in the paper's tool."""

    def __post_init__(self) -> None:
        for name, least in (("largest_whole", 0), ("core", 8), ("border", 8)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least or (name != "largest_whole" and value % 8):
                raise ConfigError(
                    f"prediction: {name} {value!r}, expected a whole number >= {least}"
                    + ("" if name == "largest_whole" else " and a multiple of 8, the grid of the poolings")
                )


def predict_prob(
    model: UNet,
    image_CHW: NDArray[Any],
    normalisation: Normalisation,
    device: torch.device | None = None,
    *,
    plan: TilePlan | None = None,
    engine: Engine | None = None,
) -> NDArray[np.float32]:
    """Return the class probabilities of every pixel, in one deterministic pass.

    Parameters
    ----------
    model : UNet
        Put into evaluation mode, and moved to ``device`` if one is given.
    image_CHW : ndarray of integer or float, shape (C, H, W)
        Raw grey values; H and W at least 8.
    normalisation : Normalisation
        The one the network was trained with; always taken over the whole image, never over a tile.
    device : torch.device, optional
        Default: where the model is.
    plan : TilePlan, optional
        When and how to cut the image.
    engine : Engine, optional
        The model's, to predict in its place.

    Returns
    -------
    prob_KHW : ndarray of float32, shape (K, H, W)
        0 to 1, sums to 1 over K.

    Raises
    ------
    ShapeError
        If the image has not the network's channels, or a side below 8.
    ImageUnreadable
        If a grey value is not finite.
    """

    def run(image_1CHW: Tensor) -> list[Plane]:
        logits_1KHW = model(channels_last(image_1CHW)) if engine is None else engine.logits(image_1CHW)
        return [Plane(values=probabilities(logits_1KHW)[0])]

    (prob_KHW,) = run_over(model, image_CHW, normalisation, device, plan, run)
    return prob_KHW


def stochastic_passes(
    model: UNet,
    image_CHW: NDArray[Any],
    normalisation: Normalisation,
    device: torch.device | None = None,
    *,
    passes: int = 8,
    seed: int = 0,
    plan: TilePlan | None = None,
) -> NDArray[np.float32]:
    """Return the probabilities of several passes with dropout on (Monte-Carlo dropout, arXiv:1506.02142).

    Dropout begins at the bottleneck, so the encoder is run once for all passes; batch norms stay in
    evaluation mode. Same seed, same passes.

    Parameters
    ----------
    model, image_CHW, normalisation, device, plan
        As in :func:`predict_prob`.
    passes : int
        P, at least 1.
    seed : int
        Of the dropout.

    Returns
    -------
    prob_PKHW : ndarray of float32, shape (P, K, H, W)

    Raises
    ------
    ShapeError
        As :func:`predict_prob`, and if ``passes`` is below 1.
    """
    if passes < 1:
        raise ShapeError(f"prediction: {passes} passes, expected at least 1")

    def run(image_1CHW: Tensor) -> list[Plane]:
        # Seeded for each tile: a pass leaves out the same feature maps in every tile of the image,
        # as it does when the image is seen whole. One pass at a time: a batch of P would hold P
        # times the decoder's memory, and is not faster on a CPU.
        generator = torch.Generator().manual_seed(seed)
        encoded = model.encode(channels_last(image_1CHW))
        shared = model.share(encoded)
        height, width = image_1CHW.shape[-2:]
        logits = [
            model.finish(encoded, model.begin(encoded, generator), (height, width), generator, shared)
            for _ in range(passes)
        ]
        return [Plane(values=probabilities(torch.cat(logits)))]

    (prob_PKHW,) = run_over(model, image_CHW, normalisation, device, plan, run)
    return prob_PKHW


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """Something a network says of a tile, on its grid or a coarser one."""

    values: Tensor
    """Rows and columns last: ceil(side / stride) of them."""
    stride: int = 1
    """Pixels of the tile to a cell."""


def probabilities(logits_NKHW: Tensor) -> Tensor:
    """Softmax over classes, in float32."""
    return logits_NKHW.float().softmax(dim=1)


def channels_last(image_NCHW: Tensor) -> Tensor:
    """The same values, as they lie in memory where PyTorch's convolutions are quickest."""
    return image_NCHW.contiguous(memory_format=torch.channels_last)


def run_over(
    model: UNet,
    image_CHW: NDArray[Any],
    normalisation: Normalisation,
    device: torch.device | None,
    plan: TilePlan | None,
    run: Callable[[Tensor], list[Plane]],
) -> list[NDArray[np.float32]]:
    """Call ``run`` on a whole image, or on its tiles, and put each of its planes together.

    Parameters
    ----------
    model, image_CHW, normalisation, device, plan
        As in :func:`predict_prob`.
    run : callable
        Of a normalised image or tile (1, C, H, W), on the device; the same planes for every tile.

    Returns
    -------
    list of ndarray of float32
        One for each plane, spanning the image.

    Raises
    ------
    ShapeError
        If the image has not the network's channels, or a side below 8.
    ConfigError
        If the tiles of the plan do not fit the grid of a plane.
    """
    if image_CHW.ndim != 3 or image_CHW.shape[0] != model.config.in_channels:
        raise ShapeError(f"prediction: image {image_CHW.shape}, expected ({model.config.in_channels}, H, W)")
    plan = plan or TilePlan()
    if device is None:
        device = next(model.parameters()).device
    model.eval().to(device)
    normalised_CHW = normalise(image_CHW, normalisation)
    _, height, width = normalised_CHW.shape

    def planes_of(tile_CHW: NDArray[np.float32]) -> list[tuple[NDArray[np.float32], int]]:
        image_1CHW = torch.from_numpy(tile_CHW)[None].to(device)
        planes = run(image_1CHW)
        return [(plane.values.float().cpu().contiguous().numpy(), plane.stride) for plane in planes]

    with torch.inference_mode():
        if height * width <= plan.largest_whole or max(height, width) <= plan.core:
            return [values for values, _ in planes_of(normalised_CHW)]
        return _stitched(normalised_CHW, plan, planes_of)


def _stitched(
    image_CHW: NDArray[np.float32],
    plan: TilePlan,
    planes_of: Callable[[NDArray[np.float32]], list[tuple[NDArray[np.float32], int]]],
) -> list[NDArray[np.float32]]:
    """Run tiles of core + border and keep their cores."""
    _, height, width = image_CHW.shape
    border = ((0, 0), (plan.border, plan.border), (plan.border, plan.border))
    padded_CHW = np.pad(image_CHW, border, mode="symmetric")
    wholes: list[NDArray[np.float32]] = []
    for top, left in _corners(height, width, plan.core):
        rows, columns = min(plan.core, height - top), min(plan.core, width - left)
        tile_CHW = np.ascontiguousarray(
            padded_CHW[:, top : top + rows + 2 * plan.border, left : left + columns + 2 * plan.border]
        )
        planes = planes_of(tile_CHW)
        if not wholes:
            wholes = [
                np.empty((*values.shape[:-2], -(-height // stride), -(-width // stride)), np.float32)
                for values, stride in planes
            ]
        for whole, (values, stride) in zip(wholes, planes, strict=True):
            if plan.core % stride or plan.border % stride:
                raise ConfigError(
                    f"prediction: core {plan.core}, border {plan.border}; expected multiples of {stride}"
                )
            edge, down, right = plan.border // stride, -(-rows // stride), -(-columns // stride)
            whole[..., top // stride : top // stride + down, left // stride : left // stride + right] = (
                values[..., edge : edge + down, edge : edge + right]
            )
    assert wholes, "an image has at least one tile"
    return wholes


def _corners(height: int, width: int, core: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, core):
        for left in range(0, width, core):
            yield top, left
