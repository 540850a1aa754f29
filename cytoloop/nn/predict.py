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
    prob_1KHW = _predict(model, image_CHW, normalisation, device, plan, model)
    prob_KHW: NDArray[np.float32] = prob_1KHW[0]
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

    def run(image_1CHW: Tensor) -> Tensor:
        # Seeded for each tile: a pass leaves out the same feature maps in every tile of the image,
        # as it does when the image is seen whole. One pass at a time: a batch of P would hold P
        # times the decoder's memory, and is not faster on a CPU.
        generator = torch.Generator().manual_seed(seed)
        features = model.encode(image_1CHW)
        height, width = image_1CHW.shape[-2:]
        return torch.cat([model.decode(features, (height, width), generator) for _ in range(passes)])

    return _predict(model, image_CHW, normalisation, device, plan, run)


def _predict(
    model: UNet,
    image_CHW: NDArray[Any],
    normalisation: Normalisation,
    device: torch.device | None,
    plan: TilePlan | None,
    run: Callable[[Tensor], Tensor],
) -> NDArray[np.float32]:
    if image_CHW.ndim != 3 or image_CHW.shape[0] != model.config.in_channels:
        raise ShapeError(f"prediction: image {image_CHW.shape}, expected ({model.config.in_channels}, H, W)")
    plan = plan or TilePlan()
    if device is None:
        device = next(model.parameters()).device
    model.eval().to(device)
    normalised_CHW = normalise(image_CHW, normalisation)
    _, height, width = normalised_CHW.shape

    def prob(tile_CHW: NDArray[np.float32]) -> NDArray[np.float32]:
        image_1CHW = torch.from_numpy(tile_CHW)[None].to(device)
        logits_PKHW = run(image_1CHW.contiguous(memory_format=torch.channels_last))
        prob_PKHW: NDArray[np.float32] = logits_PKHW.float().softmax(dim=1).cpu().contiguous().numpy()
        return prob_PKHW

    with torch.inference_mode():
        if height * width <= plan.largest_whole or max(height, width) <= plan.core:
            return prob(normalised_CHW)
        return _stitched(normalised_CHW, plan, prob)


def _stitched(
    image_CHW: NDArray[np.float32],
    plan: TilePlan,
    prob: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Run tiles of core + border and keep their cores."""
    _, height, width = image_CHW.shape
    border = ((0, 0), (plan.border, plan.border), (plan.border, plan.border))
    padded_CHW = np.pad(image_CHW, border, mode="symmetric")
    whole_PKHW: NDArray[np.float32] | None = None
    for top, left in _corners(height, width, plan.core):
        rows, columns = min(plan.core, height - top), min(plan.core, width - left)
        tile_CHW = np.ascontiguousarray(
            padded_CHW[:, top : top + rows + 2 * plan.border, left : left + columns + 2 * plan.border]
        )
        tile_PKHW = prob(tile_CHW)
        if whole_PKHW is None:
            whole_PKHW = np.empty((*tile_PKHW.shape[:2], height, width), dtype=np.float32)
        whole_PKHW[:, :, top : top + rows, left : left + columns] = tile_PKHW[
            :, :, plan.border : plan.border + rows, plan.border : plan.border + columns
        ]
    assert whole_PKHW is not None, "an image has at least one tile"
    return whole_PKHW


def _corners(height: int, width: int, core: int) -> Iterator[tuple[int, int]]:
    for top in range(0, height, core):
        for left in range(0, width, core):
            yield top, left
