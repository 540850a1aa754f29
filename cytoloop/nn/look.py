"""A network's whole look at an image: probabilities, doubt and features from one run of the encoder.

Legend: A augmentations, P passes, N batch, K classes, F features, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.domain.scoring import Look
from cytoloop.domain.strategies import Need
from cytoloop.nn.engine import Engine
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import Plane, TilePlan, channels_last, probabilities, run_over
from cytoloop.nn.unet import UNet

PASSES = 4
"""Stochastic passes of a look. Against 24 whole passes, by item, Spearman's correlation was 0.71 and 0.90 with one
pass, 0.82 and 0.93 with two, 0.94 and 0.96 with four, for two networks (a joint one, a CDL) on 48 items of a
simulated plate; eight whole passes against 16 others reached 0.88 and 0.97."""

_TINY = torch.finfo(torch.float32).tiny
_DEAD = 1e-4
"""A feature that hardly ever leaves 0 tells nothing, and would be blown up."""


def look_at(
    model: UNet,
    image_CHW: NDArray[Any],
    normalisation: Normalisation,
    device: torch.device | None = None,
    *,
    needs: Collection[Need] = (),
    passes: int = PASSES,
    seed: int = 0,
    plan: TilePlan | None = None,
    engine: Engine | None = None,
) -> Look:
    """Look at an image for all that strategies need; the encoder runs once.

    Parameters
    ----------
    model, image_CHW, normalisation, device, plan, engine
        As in :func:`cytoloop.nn.predict.predict_prob`. With an engine the probabilities are the same whatever is
        needed beside them; stochastic passes go on in PyTorch from what it gives.
    needs : collection of Need
        ``dropout`` for the mutual information of stochastic passes, by a shortcut: the passes share the
        encoder and the deepest decoder block, and leave features out after it only. ``augmentation`` for the
        disagreement of the image as it is, mirrored, upside down and turned by a quarter (three more
        predictions). ``features`` for the bottleneck (next to nothing). ``network`` and ``cip`` ask nothing.
    passes : int
        P, at least 1; each costs about 0.35 of a prediction on a CPU. For the mutual information of whole passes see
        :func:`cytoloop.nn.predict.stochastic_passes` and :func:`cytoloop.domain.scoring.mutual_information`.
    seed : int
        Of the dropout: same seed, same look.

    Returns
    -------
    Look
        Without a CIP mask. ``features_FHW`` has a cell for every ``2 ** poolings`` pixels, each feature
        less its mean and over its deviation as the last batch norm knows them from training.

    Raises
    ------
    ConfigError
        If ``dropout`` is asked of a network that was trained without.
    ShapeError
        As :func:`cytoloop.nn.predict.predict_prob`, and if ``passes`` is below 1.
    ImageUnreadable
        If a grey value is not finite.
    """
    if passes < 1:
        raise ShapeError(f"look: {passes} passes, expected at least 1")
    if "dropout" in needs and model.config.dropout == 0.0:
        raise ConfigError(
            "look: dropout asked of a network with dropout 0, expected one trained with dropout"
        )

    def run(image_1CHW: Tensor) -> list[Plane]:
        height, width = image_1CHW.shape[-2:]
        seen = _seen(model, engine, image_1CHW, needs)
        prob_1KHW = probabilities(seen.logits_NKHW)
        planes = [Plane(values=prob_1KHW[0])]
        if "dropout" in needs:
            assert seen.deepest_NFHW is not None, "asked for"
            generator = torch.Generator().manual_seed(seed)  # in each tile, as in `stochastic_passes`
            divergence_HW = torch.zeros_like(prob_1KHW[0, 0])
            for _ in range(passes):
                pass_1KHW = probabilities(
                    model.finish(seen.encoded, seen.deepest_NFHW, (height, width), generator, seen.shared)
                )
                divergence_HW += _divergence(pass_1KHW, prob_1KHW)[0]
            planes.append(Plane(values=divergence_HW[None] / passes))
        if "augmentation" in needs:
            planes.append(Plane(values=_augmented(model, engine, image_1CHW, prob_1KHW)[None]))
        if "features" in needs:
            planes.append(
                Plane(values=_features(model, seen.encoded[-1])[0], stride=2**model.config.poolings)
            )
        return planes

    found = iter(run_over(model, image_CHW, normalisation, device, plan, run))
    return Look(
        prob_KHW=next(found),
        mutual_information_HW=next(found)[0] if "dropout" in needs else None,
        augmentation_HW=next(found)[0] if "augmentation" in needs else None,
        features_FHW=next(found) if "features" in needs else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """A deterministic pass, and what of its inside is needed."""

    logits_NKHW: Tensor
    encoded: list[Tensor] = field(default_factory=list)
    """As :meth:`UNet.encode` gives it, of which an engine gives the last or nothing where that is enough."""
    deepest_NFHW: Tensor | None = None
    shared: list[Tensor] | None = None


def _seen(model: UNet, engine: Engine | None, image_1CHW: Tensor, needs: Collection[Need]) -> _Seen:
    if engine is None:
        encoded = model.encode(channels_last(image_1CHW))
        deepest_NFHW = model.begin(encoded)
        shared = model.share(encoded)  # without dropout too: what is looked for never changes what is seen
        height, width = image_1CHW.shape[-2:]
        logits_NKHW = model.finish(encoded, deepest_NFHW, (height, width), shared=shared)
    elif "dropout" in needs:
        logits_NKHW, skips, deepest = engine.with_parts(image_1CHW)
        encoded, deepest_NFHW = [channels_last(one) for one in skips], channels_last(deepest)
        shared = model.share(encoded)
    elif "features" in needs:
        logits_NKHW, bottleneck_NFHW = engine.with_bottleneck(image_1CHW)
        return _Seen(logits_NKHW=logits_NKHW, encoded=[bottleneck_NFHW])
    else:
        return _Seen(logits_NKHW=engine.logits(image_1CHW))
    return _Seen(logits_NKHW=logits_NKHW, encoded=encoded, deepest_NFHW=deepest_NFHW, shared=shared)


def _divergence(pass_NKHW: Tensor, prob_NKHW: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a pass from the deterministic prediction (N, H, W), nats, >= 0.

    Its mean over passes is the mutual information, with the deterministic prediction in place of the mean
    of all passes there could be. It stands in for that mean better than the mean of a few passes does,
    and lets one pass say something.
    """
    ratio_NKHW = (pass_NKHW.clamp_min(_TINY) / prob_NKHW.clamp_min(_TINY)).log_()
    divergence_NHW: Tensor = (pass_NKHW * ratio_NKHW).sum(dim=1).clamp_min_(0)
    return divergence_NHW


def _augmented(model: UNet, engine: Engine | None, image_1CHW: Tensor, prob_1KHW: Tensor) -> Tensor:
    """Disagreement (H, W) of four predictions: H(mean) - mean H, from 0 to ln min(K, 4)."""

    def predicted(turned_1CHW: Tensor) -> Tensor:
        logits = model(channels_last(turned_1CHW)) if engine is None else engine.logits(turned_1CHW)
        return probabilities(logits)

    predictions = [prob_1KHW]
    for flipped in (-1, -2):
        turned = predicted(image_1CHW.flip(flipped))
        predictions.append(turned.flip(flipped))
    turned = predicted(image_1CHW.rot90(1, (-2, -1)))
    predictions.append(turned.rot90(-1, (-2, -1)))
    mean_1KHW = torch.zeros_like(prob_1KHW)
    for one_1KHW in predictions:
        mean_1KHW += one_1KHW / len(predictions)
    # the mean divergence from the mean is H(mean) - mean H
    divergence_HW = torch.zeros_like(prob_1KHW[0, 0])
    for one_1KHW in predictions:
        divergence_HW += _divergence(one_1KHW, mean_1KHW)[0] / len(predictions)
    return divergence_HW


def _features(model: UNet, bottleneck_1FHW: Tensor) -> Tensor:
    """Each feature of the bottleneck less its mean, over its deviation, as in training.

    What enters the last ReLU has there the mean and the deviation of the batch norm before it, and is taken for
    normal. Features as they are would all be positive: every two items would look alike.
    """
    norm = next(m for m in reversed(list(model.bottleneck)) if isinstance(m, nn.BatchNorm2d))
    centre_F, spread_F = norm.bias, norm.weight.abs().clamp_min(_TINY)
    ratio_F = centre_F / spread_F
    above_F: Tensor = torch.special.ndtr(ratio_F)
    density_F = (-0.5 * ratio_F**2).exp() / math.sqrt(2.0 * math.pi)
    mean_F = centre_F * above_F + spread_F * density_F
    square_F = (centre_F**2 + spread_F**2) * above_F + centre_F * spread_F * density_F
    deviation_F = (square_F - mean_F**2).clamp_min(0).sqrt()
    is_alive_F = deviation_F > _DEAD
    gain_F = torch.where(is_alive_F, 1.0 / deviation_F.clamp_min(_DEAD), 0.0)
    standard_1FHW: Tensor = (bottleneck_1FHW - mean_F[:, None, None]) * gain_F[:, None, None]
    return standard_1FHW
