"""Named sets of numbers for a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import Method, Split
from cytoloop.nn.device import quick_precision
from cytoloop.nn.losses import EPS_PAPER
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.train_config import TrainConfig
from cytoloop.nn.unet import UNetConfig

PRESETS = ("fast", "paper", "smoke")

WEAK_WEIGHT = {"cdl": 1.0, "mdl": 0.0, "joint": 0.1}
"""How much a weak label counts beside a correction (1.0), by method."""

STEPS_PER_EPOCH = 50

STOP_GAIN = 0.04
"""Share of what still differs from the teacher that an epoch must remove, or a CDL without clean data stops."""

TRUSTED_SHARE = 0.95
"""Share of a joint model's crops that come from corrections."""

PAPER_WIDTH = 32
"""Features at full resolution. The paper does not say how wide its network was."""

PAPER_SHARES: Mapping[Method, Mapping[Split, float]] = {
    "cdl": {"train": 0.85, "validation": 0.10, "sealed": 0.05},
    "mdl": {"train": 0.80, "validation": 0.10, "sealed": 0.10},
    # As for the CDL: what judges a joint model must not have taught its base.
    "joint": {"train": 0.85, "validation": 0.10, "sealed": 0.05},
}
"""Training, validation and test shares of the paper, drawn over groups; *sealed* is its test set."""


def preset(name: str, method: Method, assay: Assay, seed: int) -> TrainConfig:
    """The numbers of a preset.

    Raises
    ------
    ConfigError
        If there is no preset of that name.
    """
    if name == "fast":
        return fast(method, assay, seed)
    if name == "paper":
        return paper(method, assay, seed)
    if name == "smoke":
        return smoke(method, assay, seed)
    raise ConfigError(f"preset {name!r}: expected one of {', '.join(PRESETS)}")


def split_shares(name: str, method: Method) -> Mapping[Split, float] | None:
    """Shares of the groups that a preset asks for where it may draw them; None: the usual ones.

    A store draws its splits once, for all methods, when a well is first seen: no preset changes them.
    """
    return PAPER_SHARES[method] if name == "paper" else None


def paper(method: Method, assay: Assay, seed: int, *, width: int = PAPER_WIDTH) -> TrainConfig:
    """The paper's training to the letter (doi:10.1038/s41598-022-15623-7); hours on a CPU, minutes on a GPU.

    SGD with momentum 0.9 and L2 factor 0.001, learning rate 0.002 (CDL) or 0.001 (MDL), multiplied by
    0.8 every 3 epochs, 15 epochs, batch 4, items whole, random reflections and quarter turns, the exact
    generalised Dice loss with the authors' epsilon.

    Not given in the paper, and chosen here: the width of the network, its dropout and batch norms, the
    range of rotation (quarter turns keep pixels on pixels), the normalisation (percentiles), and that a
    weak image goes in as a whole and a correction as the tile it is. The network computes in bfloat16,
    losses and weights in float32: half the time on a CPU that can, and over four epochs of eight simulated
    quarters losses equal to 1e-4. MATLAB's momentum carries the
    learning rate of the step before, PyTorch's that of the step itself: they differ for a few
    steps after each drop of the rate.

    The paper has no *joint*: here it is the MDL's numbers, from the CDL, on corrections and weak labels.
    """
    return TrainConfig(
        network=UNetConfig(in_channels=len(assay.channels), class_count=assay.class_count, width=width),
        normalisation=Normalisation(**assay.normalisation),
        seed=seed,
        epochs=15,
        batch=4,
        crop=None,
        jitter=0.0,
        optimiser="sgd",
        learning_rate=0.002 if method == "cdl" else 0.001,
        weight_decay=0.001,
        momentum=0.9,
        schedule="steps",
        decay=0.8,
        decay_epochs=3,
        dice_share=1.0,
        cross_entropy_share=0.0,
        dice_eps=EPS_PAPER,
        absent_class="exact",
        precision="bfloat16",
    )


def fast(method: Method, assay: Assay, seed: int) -> TrainConfig:
    """Minutes on two CPU cores: a narrow network, small crops around foreground, AdamW, averaged weights.

    A *CDL* learns with cross-entropy alone: the Dice loss draws outlines as far out as the teacher
    does. Its learning rate is constant, so that it may stop at any epoch: where there are corrected items,
    four epochs after they were last served better; else once agreement with the teacher levels off.
    What it learns after that are the teacher's mistakes. An *MDL* and a *joint* model learn from masks that
    are right: one cycle to its end, with the clamped generalised Dice loss beside the cross-entropy. The
    average of the weights is what is kept: single steps scatter by several points of mean IoU.

    ``docs/results.md`` has what each of these is worth.
    """
    common = TrainConfig(
        network=UNetConfig(in_channels=len(assay.channels), class_count=assay.class_count, width=16),
        normalisation=Normalisation(**assay.normalisation),
        seed=seed,
        steps_per_epoch=STEPS_PER_EPOCH,
        batch=8,
        crop=128,
        cross_entropy_share=1.0,
        absent_class="clamp",
        max_class_weight=1e-4,
        gradient_limit=1.0,
        precision=quick_precision(),
        average_decay=0.98,
    )
    if method == "cdl":
        return replace(
            common,
            epochs=12,
            learning_rate=2e-3,
            schedule="constant",
            dice_share=0.0,
            patience=4,
            stop_gain=STOP_GAIN,
        )
    return replace(
        common, epochs=8, learning_rate=3e-3, trusted_share=TRUSTED_SHARE if method == "joint" else None
    )


def smoke(method: Method, assay: Assay, seed: int) -> TrainConfig:
    """Seconds: shows that the loop turns, not that the model is good."""
    network = UNetConfig(in_channels=len(assay.channels), class_count=assay.class_count, width=8)
    config = fast(method, assay, seed)
    return replace(config, network=network, epochs=2, steps_per_epoch=12, patience=None, stop_gain=None)


def is_trained_as(train: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether a stored run (`TrainConfig.to_dict`) had these numbers, but for the seed and the precision."""
    try:
        stored = TrainConfig.from_dict(train)
    except ConfigError:  # numbers this code does not know
        return False
    return replace(stored, seed=config.seed, precision=config.precision) == config
