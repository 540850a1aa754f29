"""A moving average of a network's weights: steadier than the weights of any one step."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from cytoloop.nn.unet import UNet


class WeightAverage:
    """An exponential moving average of weights and batch-norm statistics.

    The decay rises to its full value, min(decay, (1 + n) / (10 + n)) at step n: otherwise the first,
    untrained weights would weigh most in a run of a few hundred steps.
    """

    def __init__(self, model: UNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        """The average, as a network that can predict."""
        self._decay = decay

    @torch.no_grad()
    def update(self, model: UNet, step: int) -> None:
        """Take in the weights after ``step`` (from 0, counted over the whole run)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(_floats(self.model), _floats(model), 1.0 - decay)


def _floats(model: UNet) -> list[Tensor]:
    """Weights and running statistics; the batch norms' step counters are not numbers to average."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
