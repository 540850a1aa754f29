"""How well a network does on labelled images it does not learn from, asked after every epoch.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.metrics import confusion_matrix, mean_ignoring_nan
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.nn.device import choose_device, computing_in
from cytoloop.nn.normalisation import normalise
from cytoloop.nn.train_config import TrainConfig
from cytoloop.nn.unet import UNet

VIEW_MARGIN = 48
"""Pixels of surroundings shown beyond what was looked at: what a pixel's answer depends on (44), rounded up to
the grid of the poolings."""


def mean_iou_score(
    labelled: Sequence[tuple[NDArray[Any], NDArray[np.uint8]]], config: TrainConfig, device: str
) -> Callable[[UNet], float] | None:
    """Mean IoU on labelled images, as a function of the network; None if nobody looked at any pixel.

    Over the classes that the masks hold: a single stray pixel of a class that occurs in none would
    otherwise take 1 / K from the score, and choose the epoch.

    Asked after every epoch, so images are normalised once, and only what was looked at goes through the
    network, with as much around it as an answer depends on.

    Parameters
    ----------
    labelled : sequence of (image_CHW, mask_HW)
        Raw grey values; 0…K-1, or 255 (not looked at).
    """
    views = [_view(*one, config) for one in labelled if (one[1] != IGNORE).any()]
    if not views:
        return None
    class_count, target = config.network.class_count, choose_device(device)

    def score(model: UNet) -> float:
        total = np.zeros((class_count, class_count), np.int64)
        model.eval().to(target)
        for image_CHW, mask_HW in views:
            image_1CHW = torch.from_numpy(image_CHW)[None].to(target)
            with torch.inference_mode(), computing_in(config.precision, target):
                pred_HW = model(image_1CHW)[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
            total += confusion_matrix(mask_HW, pred_HW, class_count)
        return float(mean_ignoring_nan(iou_of_present(total)))

    return score


def _view(
    image_CHW: NDArray[Any], mask_HW: NDArray[np.uint8], config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut an image, normalised as a whole, to what was looked at and a margin."""
    looked_at_HW = mask_HW != IGNORE
    step = 2**config.network.poolings
    window = []
    for axis in (1, 0):
        seen = np.flatnonzero(looked_at_HW.any(axis=axis))
        first = max(0, int(seen[0]) - VIEW_MARGIN) // step * step
        window.append(slice(first, int(seen[-1]) + 1 + VIEW_MARGIN))
    rows, columns = window
    normalised_CHW = normalise(image_CHW, config.normalisation)
    return np.ascontiguousarray(normalised_CHW[:, rows, columns]), mask_HW[rows, columns]
