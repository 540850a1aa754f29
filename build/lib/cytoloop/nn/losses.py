"""Losses that never see a pixel nobody looked at.

All sums are float32, whatever the network computed in. Legend: N batch, K classes, H rows, W columns.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ConfigError, ShapeError

EPS_PAPER = 1e-8
"""The authors' epsilon; MATLAB's built-in layer has 1.19e-7."""

AbsentClass = Literal["exact", "clamp", "leave-out"]
"""What the generalised Dice loss does with a class that an image's truth lacks."""


def generalised_dice_loss(
    prob_NKHW: Tensor,
    target_NHW: Tensor,
    weight_NHW: Tensor | None = None,
    *,
    eps: float = EPS_PAPER,
    absent_class: AbsentClass = "exact",
    max_class_weight: float | None = None,
    image_weight_N: Tensor | None = None,
) -> Tensor:
    """One minus the generalised Dice overlap, as the paper has it (doi:10.1038/s41598-022-15623-7).

    Per image, with Y the probability and T the one-hot target, over the pixels looked at:
    class weight w_k = 1 / (area_k² + eps), D = [2 Σ_k w_k Σ YT + eps] / [Σ_k w_k Σ (Y² + T²) + eps].
    Unlike Sudre 2017 (doi:10.1007/978-3-319-67558-9_28) the denominator holds squares.

    Parameters
    ----------
    prob_NKHW : Tensor of float, shape (N, K, H, W)
        Class probabilities; each pixel sums to 1 over K.
    target_NHW : Tensor of integer, shape (N, H, W)
        0…K-1, or 255 (not looked at).
    weight_NHW : Tensor of float, shape (N, H, W), optional
        How much each pixel counts *within* its image, in all three sums and in the area. Dice is a
        ratio: one common factor for an image cancels out, so use ``image_weight_N`` for that.
    eps : float
        1e-8 in the paper.
    absent_class : {"exact", "clamp", "leave-out"}
        ``exact`` is the formula, with its trap: a class that is absent from the image gets
        w_k = 1 / eps and takes the loss over, whatever the other classes do. ``clamp``: no w_k is
        larger than ``max_class_weight``, so that an absent class weighs as one of
        ``max_class_weight ** -0.5`` pixels; so do all smaller ones. ``leave-out``: w_k = 0; what is
        wrongly called an absent class is then missed by the class it is taken from, and by no other.
    max_class_weight : float, optional
        Largest w_k; with ``clamp``, and only there.
    image_weight_N : Tensor of float, shape (N,), optional
        Factor of each image's loss before the mean over N.

    Returns
    -------
    Tensor, scalar, float32
        0 (all pixels certain and right) to 1. An image without any pixel looked at gives 0.

    Raises
    ------
    ShapeError
        If the shapes do not belong together.
    ConfigError
        If ``absent_class`` is none of the three, or has not the ``max_class_weight`` it needs.

    Examples
    --------
    >>> certain = functional.one_hot(torch.tensor([[[0, 1]]]), 2).permute(0, 3, 1, 2).float()
    >>> float(generalised_dice_loss(certain, torch.tensor([[[0, 1]]])))
    0.0
    """
    if (absent_class == "clamp") != (max_class_weight is not None):
        raise ConfigError(
            f"loss: absent_class {absent_class!r} with max_class_weight {max_class_weight}; "
            "expected a number with 'clamp', and only there"
        )
    target_NKHW, counted_NHW = _one_hot(prob_NKHW, target_NHW)
    if weight_NHW is not None:
        if weight_NHW.shape != target_NHW.shape:
            raise ShapeError(f"loss: weight {tuple(weight_NHW.shape)}, target {tuple(target_NHW.shape)}")
        counted_NHW = counted_NHW * weight_NHW.float()
    prob_NKHW = prob_NKHW.float()
    counted_N1HW = counted_NHW[:, None]
    # T is 0 or 1, so T² = T, and its sum is the area.
    area_NK = (target_NKHW * counted_N1HW).sum(dim=(2, 3))
    overlap_NK = (prob_NKHW * target_NKHW * counted_N1HW).sum(dim=(2, 3))
    squares_NK = (prob_NKHW.square() * counted_N1HW).sum(dim=(2, 3)) + area_NK
    class_weight_NK = 1.0 / (area_NK.square() + eps)
    if absent_class == "clamp":
        class_weight_NK = class_weight_NK.clamp(max=max_class_weight)
    elif absent_class == "leave-out":
        class_weight_NK = torch.where(area_NK > 0.0, class_weight_NK, torch.zeros_like(class_weight_NK))
    elif absent_class != "exact":
        raise ConfigError(f"loss: absent_class {absent_class!r}, expected one of {get_args(AbsentClass)}")
    dice_N = (2.0 * (class_weight_NK * overlap_NK).sum(dim=1) + eps) / (
        (class_weight_NK * squares_NK).sum(dim=1) + eps
    )
    return _mean_over_images(1.0 - dice_N, image_weight_N)


def cross_entropy_loss(
    logits_NKHW: Tensor,
    target_NHW: Tensor,
    weight_NHW: Tensor | None = None,
    *,
    class_weight_K: Tensor | None = None,
    image_weight_N: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the pixels looked at, per image, then the mean over images.

    It steadies the Dice loss where that is flat: in crops without foreground, and before the first
    object is found.

    Parameters
    ----------
    logits_NKHW : Tensor of float, shape (N, K, H, W)
        Before the softmax.
    target_NHW : Tensor of integer, shape (N, H, W)
        0…K-1, or 255 (not looked at).
    weight_NHW : Tensor of float, shape (N, H, W), optional
        How much each pixel counts within its image.
    class_weight_K : Tensor of float, shape (K,), optional
        How much a pixel of each true class counts.
    image_weight_N : Tensor of float, shape (N,), optional
        Factor of each image's loss before the mean over N.

    Returns
    -------
    Tensor, scalar, float32
        Nats, from 0; an image without any pixel looked at gives 0.
    """
    _check(logits_NKHW, target_NHW)
    loss_NHW = functional.cross_entropy(
        logits_NKHW.float(),
        target_NHW.long(),
        weight=class_weight_K,
        ignore_index=IGNORE,
        reduction="none",
    )
    counted_NHW = (target_NHW != IGNORE).float()
    if weight_NHW is not None:
        counted_NHW = counted_NHW * weight_NHW.float()
    if class_weight_K is not None:
        # The usual weighted mean: divided by the weights, not by the pixels.
        index_NHW = torch.where(target_NHW == IGNORE, torch.zeros_like(target_NHW), target_NHW).long()
        share_NHW = counted_NHW * class_weight_K[index_NHW]
    else:
        share_NHW = counted_NHW
    total_N = share_NHW.sum(dim=(1, 2))
    loss_N = (loss_NHW * counted_NHW).sum(dim=(1, 2)) / total_N.clamp(min=torch.finfo(torch.float32).tiny)
    return _mean_over_images(loss_N, image_weight_N)


def _check(scores_NKHW: Tensor, target_NHW: Tensor) -> None:
    n, _, height, width = scores_NKHW.shape if scores_NKHW.ndim == 4 else (-1, -1, -1, -1)
    if tuple(target_NHW.shape) != (n, height, width):
        raise ShapeError(
            f"loss: network gave {tuple(scores_NKHW.shape)}, target is {tuple(target_NHW.shape)}; "
            "expected (N, K, H, W) and (N, H, W)"
        )


def _one_hot(prob_NKHW: Tensor, target_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """Targets as float32 one-hot, all 0 where not looked at, and 1 where looked at."""
    _check(prob_NKHW, target_NHW)
    classes_K = torch.arange(prob_NKHW.shape[1], device=target_NHW.device)
    target_NKHW = (target_NHW[:, None].long() == classes_K[None, :, None, None]).float()
    return target_NKHW, (target_NHW != IGNORE).float()


def _mean_over_images(loss_N: Tensor, image_weight_N: Tensor | None) -> Tensor:
    # Divided by N, not by the weights: a batch of weak labels alone must pull less than one of
    # corrections, not the same.
    return (loss_N if image_weight_N is None else loss_N * image_weight_N.float()).mean()
