"""One training run: `TrainConfig` and the plain loop `fit`.

Legend: N batch, K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cytoloop.domain.errors import ConfigError, CytoloopError, InputError, StateError
from cytoloop.nn.dataset import Batch, CropSampler, TrainingItem
from cytoloop.nn.device import choose_device
from cytoloop.nn.losses import EPS_PAPER, cross_entropy_loss, generalised_dice_loss
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig

Optimiser = Literal["adamw", "sgd"]
Schedule = Literal["one_cycle", "steps"]


class TrainingDiverged(CytoloopError):
    """The loss is no longer a number; the message says where it happened."""


class TrainingCancelled(StateError):
    """The caller's ``cancelled`` said so; no weights are left behind."""


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
    """Crops per step."""
    crop: int = 128
    """Side of a crop in pixels; a multiple of 2 ** poolings, so that nothing is padded."""
    foreground_share: float = 0.7
    """Share of crops placed around a foreground pixel, all classes alike; the rest around any
    background pixel. With 5 % foreground, even crops would mostly show nothing to learn."""
    trusted_share: float | None = None
    """Share of crops from the items of the greatest weight (corrections), where there are others of
    less (weak labels). None: all items alike."""
    jitter: float = 0.1
    """Spread of the random gain per channel (see `cytoloop.nn.augment.jitter_intensity`)."""
    optimiser: Optimiser = "adamw"
    learning_rate: float = 3e-3
    """The peak for ``one_cycle``, the start for ``steps``."""
    weight_decay: float = 1e-3
    """AdamW's, or the L2 penalty of SGD."""
    momentum: float = 0.9
    """SGD only."""
    schedule: Schedule = "one_cycle"
    """``one_cycle``: rises for a tenth of the run, then falls to 0 as a cosine; ``steps``: multiplied by
    ``decay`` every ``decay_epochs``."""
    decay: float = 0.8
    """``steps`` only."""
    decay_epochs: int = 3
    """``steps`` only."""
    dice_share: float = 1.0
    """Weight of the generalised Dice loss in the sum."""
    cross_entropy_share: float = 0.0
    """Weight of the cross-entropy in the sum."""
    dice_eps: float = EPS_PAPER
    max_class_weight: float | None = None
    """Clamp of the Dice class weights; None: the exact formula (see `generalised_dice_loss`)."""
    gradient_limit: float | None = None
    """Longest gradient (L2 norm over all weights) that is not shortened; None: any."""

    def __post_init__(self) -> None:
        self._check_whole(("epochs", 1), ("batch", 1), ("crop", 8), ("decay_epochs", 1), ("seed", 0))
        if self.steps_per_epoch is not None:
            self._check_whole(("steps_per_epoch", 1))
        step = 2**self.network.poolings
        if self.crop % step:
            raise ConfigError(f"training: crop {self.crop}, expected a multiple of {step}")
        self._check_range("foreground_share", 0.0, 1.0)
        if self.trusted_share is not None:
            self._check_range("trusted_share", 0.0, 1.0)
        for name in ("jitter", "weight_decay", "dice_share", "cross_entropy_share"):
            self._check_range(name, 0.0, math.inf)
        self._check_range("momentum", 0.0, 1.0)
        self._check_range("decay", 0.0, 1.0)
        for name in ("learning_rate", "dice_eps", "max_class_weight", "gradient_limit"):
            value = getattr(self, name)
            if value is not None and not (value > 0.0 and math.isfinite(value)):
                raise ConfigError(f"training: {name} {value}, expected a finite number > 0")
        if self.dice_share + self.cross_entropy_share == 0.0:
            raise ConfigError("training: dice_share and cross_entropy_share are 0, expected one above")
        if self.optimiser not in get_args(Optimiser):
            raise ConfigError(f"training: optimiser {self.optimiser!r}, expected {get_args(Optimiser)}")
        if self.schedule not in get_args(Schedule):
            raise ConfigError(f"training: schedule {self.schedule!r}, expected {get_args(Schedule)}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The reverse of :meth:`to_dict`; an unknown key raises ConfigError."""
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown or "network" not in values:
            raise ConfigError(f"training: unknown keys {unknown}, expected 'network' and known ones")
        plain = {key: value for key, value in values.items() if key not in ("network", "normalisation")}
        if "normalisation" in values:
            plain["normalisation"] = Normalisation.from_dict(values["normalisation"])
        return cls(network=UNetConfig.from_dict(values["network"]), **plain)

    def _check_whole(self, *names: tuple[str, int]) -> None:
        for name, least in names:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"training: {name} {value!r}, expected a whole number >= {least}")

    def _check_range(self, name: str, least: float, most: float) -> None:
        value = getattr(self, name)
        if not (least <= value <= most and math.isfinite(value)):
            raise ConfigError(f"training: {name} {value}, expected {least} to {most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """How far training is, told after each epoch."""

    epoch: int
    """From 1."""
    epochs: int
    loss: float
    """Mean over the steps of this epoch."""
    validation: float | None
    """Score on clean data, higher = better; None without validation."""
    seconds_left: float
    """At the pace so far."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitResult:
    """A trained network and how it came about."""

    model: UNet
    """Of the best epoch, on the device it was trained on, in evaluation mode."""
    history: tuple[EpochReport, ...]
    best_epoch: int
    """From 1: the highest validation, the earlier of equals; without validation the last."""
    seconds: float


def fit(
    config: TrainConfig,
    items: Sequence[TrainingItem],
    *,
    validate: Callable[[UNet], float] | None = None,
    initial: UNet | None = None,
    device: torch.device | str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> FitResult:
    """Train a network on weak labels, corrections, or both.

    With ``validate`` the epoch that scores best *on clean data* is kept: the fit to weak labels goes
    on improving long after the network has begun to repeat their mistakes
    (doi:10.1038/s41598-022-15623-7, "trusting the teacher too much"). Without it there is nothing to
    choose by, and the last epoch is kept; the number of steps is then what holds the network back.

    Parameters
    ----------
    config : TrainConfig
        All numbers.
    items : sequence of TrainingItem
        Each is read once; a sequence that loads lazily never holds all raw images.
    validate : callable, optional
        Takes the network in evaluation mode, gives a score; higher = better.
    initial : UNet, optional
        Training goes on from a copy of it, batch-norm statistics included. It is not changed.
    device : torch.device or str
        ``auto``, ``cpu``, ``cuda`` or a device.
    progress : callable, optional
        Called after each epoch.
    cancelled : callable, optional
        Asked before each step.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If no item has a pixel looked at, or items and network do not fit together.
    TrainingDiverged
        If the loss or the validation score is not finite.
    TrainingCancelled
        If ``cancelled`` returned True.
    """
    started = time.perf_counter()
    target = choose_device(device) if isinstance(device, str) else device
    sampler = _sampler(config, items)
    model = _first_model(config, sampler, initial).to(target)
    steps = config.steps_per_epoch or math.ceil(sampler.looked_at_pixels / (config.batch * config.crop**2))
    optimiser = _optimiser(config, model)
    schedule = _schedule(config, optimiser, steps)
    # Crops and first weights have generators of their own, so that changing one leaves the others.
    dropout = torch.Generator().manual_seed(config.seed)
    history: list[EpochReport] = []
    best_epoch, best_score, best_state = 0, -math.inf, None

    batches = _drawn_ahead(sampler, config.epochs * steps)
    try:
        for epoch in range(1, config.epochs + 1):
            model.train()
            # Summed on the device and read once an epoch: reading each loss would stall a GPU.
            total = torch.zeros((), device=target)
            for step in range(1, steps + 1):
                if cancelled is not None and cancelled():
                    raise TrainingCancelled(f"training: cancelled in epoch {epoch}, step {step} of {steps}")
                loss = _loss(config, model, next(batches), target, dropout)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                if config.gradient_limit is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_limit)
                optimiser.step()
                schedule.step()
                total += loss.detach()
            mean_loss = float(total) / steps
            if not math.isfinite(mean_loss):
                raise TrainingDiverged(
                    f"training: loss is {mean_loss} in epoch {epoch} of {config.epochs}; "
                    f"expected a finite number (learning_rate {config.learning_rate}, "
                    f"gradient_limit {config.gradient_limit}: try a smaller one)"
                )
            model.eval()
            score = _validated(model, validate, epoch)
            if score is None or score > best_score:
                best_epoch, best_score = epoch, -math.inf if score is None else score
                # Without validation the last epoch wins anyway: no copy needed.
                best_state = None if score is None else copy.deepcopy(model.state_dict())
            elapsed = time.perf_counter() - started
            report = EpochReport(
                epoch=epoch,
                epochs=config.epochs,
                loss=mean_loss,
                validation=score,
                seconds_left=elapsed / epoch * (config.epochs - epoch),
            )
            history.append(report)
            if progress is not None:
                progress(report)
    finally:
        batches.close()
    if best_state is not None:
        model.load_state_dict(best_state)
    return FitResult(
        model=model.eval(),
        history=tuple(history),
        best_epoch=best_epoch,
        seconds=time.perf_counter() - started,
    )


def _sampler(config: TrainConfig, items: Sequence[TrainingItem]) -> CropSampler:
    return CropSampler(
        items,
        class_count=config.network.class_count,
        normalisation=config.normalisation,
        crop=config.crop,
        batch=config.batch,
        foreground_share=config.foreground_share,
        trusted_share=config.trusted_share,
        jitter=config.jitter,
        seed=config.seed,
    )


def _first_model(config: TrainConfig, sampler: CropSampler, initial: UNet | None) -> UNet:
    if sampler.channels != config.network.in_channels:
        raise InputError(
            f"training: images of {sampler.channels} channels, network of {config.network.in_channels}"
        )
    if initial is None:
        return UNet(config.network, seed=config.seed)
    if initial.config != config.network:
        raise InputError(f"training: goes on from {initial.config}, expected {config.network}")
    return copy.deepcopy(initial)


def _optimiser(config: TrainConfig, model: UNet) -> torch.optim.Optimizer:
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)


def _schedule(
    config: TrainConfig, optimiser: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    every_step = config.epochs * steps
    warm_up = max(1, every_step // 10)

    def one_cycle(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, every_step - warm_up)))

    def in_steps(step: int) -> float:
        return float(config.decay ** (step // steps // config.decay_epochs))

    factor = one_cycle if config.schedule == "one_cycle" else in_steps
    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _drawn_ahead(sampler: CropSampler, count: int) -> Generator[Batch, None, None]:
    """Yield the batches 0…count-1, the next ones being drawn while the network is at work."""
    ahead = 3
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="crops") as pool:
        waiting = [pool.submit(sampler.batch, index) for index in range(min(ahead, count))]
        for index in range(count):
            batch = waiting.pop(0).result()
            if index + ahead < count:
                waiting.append(pool.submit(sampler.batch, index + ahead))
            yield batch


def _loss(
    config: TrainConfig, model: UNet, batch: Batch, device: torch.device, dropout: torch.Generator
) -> Tensor:
    image_NCHW = _moved(torch.from_numpy(batch.image_NCHW), device)
    target_NHW = _moved(torch.from_numpy(batch.mask_NHW), device)
    weight_N = _moved(torch.from_numpy(batch.weight_N), device)
    logits_NKHW = model(image_NCHW.contiguous(memory_format=torch.channels_last), dropout).float()
    loss = torch.zeros((), device=device)
    if config.dice_share > 0.0:
        loss = loss + config.dice_share * generalised_dice_loss(
            logits_NKHW.softmax(dim=1),
            target_NHW,
            eps=config.dice_eps,
            max_class_weight=config.max_class_weight,
            image_weight_N=weight_N,
        )
    if config.cross_entropy_share > 0.0:
        loss = loss + config.cross_entropy_share * cross_entropy_loss(
            logits_NKHW, target_NHW, image_weight_N=weight_N
        )
    return loss


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def _validated(model: UNet, validate: Callable[[UNet], float] | None, epoch: int) -> float | None:
    if validate is None:
        return None
    score = float(validate(model))
    if not math.isfinite(score):
        raise TrainingDiverged(f"training: validation gave {score} after epoch {epoch}, expected a number")
    return score
