"""`TrainConfig`: every number of a training run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from cytoloop.domain.errors import ConfigError
from cytoloop.nn.losses import EPS_PAPER, AbsentClass
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNetConfig

Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "constant", "steps"]

WARM_UP = 30
"""Steps in which the learning rate of the ``constant`` schedule rises."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Every number of a training run; stored with the version it made."""

    network: UNetConfig
    """Shape of the network; must equal that of ``initial`` where training goes on from a model."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    """How grey values are normalised, in training and ever after."""
    seed: int = 0
    """Decides the first weights, the crops and the dropout: same seed, same loss (on a CPU)."""
    epochs: int = 10
    """After each, the model is validated and progress is told."""
    steps_per_epoch: int | None = None
    """None: as many as show every pixel looked at once, on average."""
    batch: int = 8
    """Crops, or whole items, per step."""
    crop: int | None = 128
    """Side of a crop in pixels; a multiple of 2 ** poolings, so that nothing is padded. None: items go in
    whole, each once an epoch in a shuffled order, cut to what was looked at."""
    foreground_share: float = 0.7
    """Crops only. Share of crops placed around a foreground pixel, all classes alike; the rest around any
    background pixel. With 5 % foreground, even crops would mostly show nothing to learn."""
    trusted_share: float | None = None
    """Crops only. Share of crops from the items of the greatest weight (corrections), where there are others of
    less (weak labels). None: all items alike."""
    jitter: float = 0.1
    """Spread of the random gain per channel (see `cytoloop.nn.augment.jitter_intensity`)."""
    optimiser: Optimiser = "adamw"
    learning_rate: float = 3e-3
    """The peak for ``one_cycle``, the start for ``steps``."""
    weight_decay: float = 1e-3
    """AdamW's, on everything; or the L2 factor of SGD, on everything but the biases of convolutions,
    which is MATLAB's default (scale and offset of a batch norm included)."""
    momentum: float = 0.9
    """SGD only."""
    schedule: Schedule = "one_cycle"
    """``one_cycle``: rises for a tenth of the run, then falls to 0 as a cosine; ``constant``: rises for
    `WARM_UP` steps and stays, for runs that may stop at any epoch; ``steps``: multiplied by ``decay`` every
    ``decay_epochs``."""
    decay: float = 0.8
    """``steps`` only."""
    decay_epochs: int = 3
    """``steps`` only."""
    dice_share: float = 1.0
    """Weight of the generalised Dice loss in the sum."""
    cross_entropy_share: float = 0.0
    """Weight of the cross-entropy in the sum."""
    dice_eps: float = EPS_PAPER
    absent_class: AbsentClass = "clamp"
    """What the Dice loss does with a class that is absent from a crop: ``exact``, ``clamp`` or
    ``leave-out`` (see `generalised_dice_loss`)."""
    max_class_weight: float = 1e-4
    """``clamp`` only: the largest class weight of the Dice loss."""
    gradient_limit: float | None = None
    """Longest gradient (L2 norm over all weights) that is not shortened; None: any."""
    precision: Precision = "float32"
    """What the network computes in; weights and losses are float32 either way. ``bfloat16`` is quicker on a
    GPU, and on a CPU that has instructions for it."""
    average_decay: float | None = None
    """Decay per step of an exponential moving average of the weights (see `WeightAverage`), which is then
    validated and kept instead of the weights themselves. None: no average."""
    patience: int | None = None
    """With clean validation: stop after so many epochs without a better score. None: never."""
    stop_gain: float | None = None
    """Without clean validation, and with a weak one: stop, and keep the epoch, once one has removed less than
    this share of what still differs from the teacher on images not learned from. What a network learns
    first is what is regular in the weak labels; the slow rise that follows is the teacher's mistakes. A
    share and not a difference: a good teacher's labels go on being learned where 0.01 is much of what is
    left. None: never."""

    def __post_init__(self) -> None:
        self._check_whole(("epochs", 1), ("batch", 1), ("decay_epochs", 1), ("seed", 0))
        if self.steps_per_epoch is not None:
            self._check_whole(("steps_per_epoch", 1))
        self._check_crop()
        self._check_range("foreground_share", 0.0, 1.0)
        if self.trusted_share is not None:
            self._check_range("trusted_share", 0.0, 1.0)
        for name in ("jitter", "weight_decay", "dice_share", "cross_entropy_share"):
            self._check_range(name, 0.0, math.inf)
        self._check_range("momentum", 0.0, 1.0)
        self._check_range("decay", 0.0, 1.0)
        if self.average_decay is not None:
            self._check_range("average_decay", 0.0, 1.0)
        for name in ("learning_rate", "dice_eps", "max_class_weight"):
            self._check_positive(name)
        for name in ("gradient_limit", "stop_gain"):
            if getattr(self, name) is not None:
                self._check_positive(name)
        if self.patience is not None:
            self._check_whole(("patience", 1))
        if self.dice_share + self.cross_entropy_share == 0.0:
            raise ConfigError("training: dice_share and cross_entropy_share are 0, expected one above")
        self._check_choice("optimiser", get_args(Optimiser))
        self._check_choice("schedule", get_args(Schedule))
        self._check_choice("absent_class", get_args(AbsentClass))
        self._check_choice("precision", get_args(Precision))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The reverse of :meth:`to_dict`; an unknown key raises ConfigError.

        Before there was ``absent_class``, a ``max_class_weight`` of None meant the exact formula.
        """
        if "absent_class" not in values and "max_class_weight" in values:
            is_exact = values["max_class_weight"] is None
            values = {**values, "absent_class": "exact" if is_exact else "clamp"}
            if is_exact:
                values.pop("max_class_weight")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or "network" not in values:
            raise ConfigError(f"training: unknown keys {unknown}, expected 'network' and known ones")
        plain = {key: value for key, value in values.items() if key not in ("network", "normalisation")}
        if "normalisation" in values:
            plain["normalisation"] = Normalisation.from_dict(values["normalisation"])
        return cls(network=UNetConfig.from_dict(values["network"]), **plain)

    def _check_crop(self) -> None:
        if self.crop is None:
            for name in ("steps_per_epoch", "trusted_share"):
                if getattr(self, name) is not None:
                    raise ConfigError(
                        f"training: {name} {getattr(self, name)} without a crop, expected None: "
                        "an epoch shows every item whole, once"
                    )
            return
        self._check_whole(("crop", 8))
        step = 2**self.network.poolings
        if self.crop % step:
            raise ConfigError(f"training: crop {self.crop}, expected a multiple of {step}")

    def _check_positive(self, name: str) -> None:
        value = getattr(self, name)
        if value is None or not (value > 0.0 and math.isfinite(value)):
            raise ConfigError(f"training: {name} {value}, expected a finite number > 0")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise ConfigError(f"training: {name} {getattr(self, name)!r}, expected {choices}")

    def _check_whole(self, *names: tuple[str, int]) -> None:
        for name, least in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"training: {name} {value!r}, expected a whole number >= {least}")

    def _check_range(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not (least <= value <= most and math.isfinite(value)):
            raise ConfigError(f"training: {name} {value}, expected {least} to {most}")
