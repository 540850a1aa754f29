"""One training run: the plain loop `fit` over the numbers of a `TrainConfig`.

Legend: N batch, K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cytoloop.domain.errors import CytoloopError, InputError, StateError
from cytoloop.nn.averaging import WeightAverage
from cytoloop.nn.checkpoint import Checkpoint, CheckpointRefused, load_checkpoint, save_checkpoint
from cytoloop.nn.dataset import Batch, CropSampler, Sampler, Source, TrainingItem, WholeSampler
from cytoloop.nn.device import choose_device, computing_in
from cytoloop.nn.losses import cross_entropy_loss, generalised_dice_loss
from cytoloop.nn.train_config import WARM_UP, TrainConfig
from cytoloop.nn.unet import UNet
from cytoloop.nn.weights import state_digest

__all__ = ["EpochReport", "FitResult", "TrainConfig", "TrainingCancelled", "TrainingDiverged", "fit"]

logger = logging.getLogger(__name__)


class TrainingDiverged(CytoloopError):
    """The loss is no longer a number; the message says where it happened."""


class TrainingCancelled(StateError):
    """The caller's ``cancelled`` said so; nothing is left behind but the checkpoint, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """How far training is, told after each epoch."""

    epoch: int
    """From 1."""
    epochs: int
    loss: float
    """Mean over the steps of this epoch."""
    validation: float | None
    """Score on clean data, higher = better; None without any. It alone chooses the epoch."""
    weak_validation: float | None = None
    """Score against weak labels of images not learnt from; None without any. Rises long after the clean
    score falls, so it chooses nothing: the gap between the two shows how far the teacher is trusted."""
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
    """Of all sittings, where the run went on from a checkpoint."""
    sources: tuple[Source, ...]
    """The items of the greatest weight, then the others if there are any."""
    resumed_after: int = 0
    """Epoch of the checkpoint that the run went on from; 0 = none."""


def fit(
    config: TrainConfig,
    items: Sequence[TrainingItem],
    *,
    validate: Callable[[UNet], float] | None = None,
    validate_weak: Callable[[UNet], float] | None = None,
    initial: UNet | None = None,
    device: torch.device | str = "auto",
    progress: Callable[[EpochReport], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    checkpoint: Path | None = None,
    validation_digest: str = "",
) -> FitResult:
    """Train a network on weak labels, corrections, or both.

    With ``validate`` the epoch that scores best *on clean data* is kept: the fit to weak labels goes
    on improving long after the network has begun to repeat their mistakes
    (doi:10.1038/s41598-022-15623-7, "trusting the teacher too much"). Without it the last epoch is kept, and
    what holds the network back is the number of steps, or ``stop_gain``: the first epoch that hardly
    raises the agreement with the teacher is the last.

    Parameters
    ----------
    config : TrainConfig
        All numbers.
    items : sequence of TrainingItem
        Each is read once; a sequence that loads lazily never holds all raw images.
    validate : callable, optional
        Takes the network in evaluation mode, gives a score; higher = better.
    validate_weak : callable, optional
        The same against weak labels; reported. It never chooses among epochs; with ``stop_gain`` and no
        clean data it ends the run.
    initial : UNet, optional
        Training goes on from a copy of it, batch-norm statistics included. It is not changed.
    device : torch.device or str
        ``auto``, ``cpu``, ``cuda`` or a device.
    progress : callable, optional
        Called after each epoch.
    cancelled : callable, optional
        Asked before each step.
    checkpoint : Path, optional
        Folder that keeps everything needed to go on after the last whole epoch. A run of the same
        config, items and ``initial`` that finds one goes on from there, and on a CPU ends with the
        very weights of a run that was never interrupted. The caller removes it
        (:func:`cytoloop.nn.checkpoint.remove_checkpoint`) once the weights are safe.

    validation_digest : str
        Of what the two validations look at: a checkpoint that was scored on other masks is refused.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        If no item has a pixel looked at, or items and network do not fit together.
    CheckpointRefused
        If the checkpoint belongs to another run (the message names what differs) or cannot be read.
    TrainingDiverged
        If the loss or the validation score is not finite.
    TrainingCancelled
        If ``cancelled`` returned True.
    """
    started = time.perf_counter()
    target = choose_device(device) if isinstance(device, str) else device
    sampler = _sampler(config, items)
    model = _first_model(config, sampler, initial).to(target)
    if target.type == "cuda":  # wants features last; a CPU is no quicker with them
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = _Run(config, model)
    identity: dict[str, Any] = {}
    if checkpoint is not None:
        identity = {
            "config": config.to_dict(),
            "items": sampler.digest(),
            "initial": None if initial is None else state_digest(initial),
            "validated": validate is not None,
            "validation": validation_digest,
        }
        found = load_checkpoint(checkpoint, identity)
        if found is not None:
            try:
                run.restore(found)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise CheckpointRefused(
                    f"{checkpoint}: what it holds is not of this run ({error}); remove the folder to begin anew"
                ) from error
            logger.info("training goes on after epoch %d of %d", run.epochs_done, config.epochs)
    resumed_after, earlier = run.epochs_done, run.seconds

    steps = config.steps_per_epoch or sampler.steps_per_epoch
    batches = _drawn_ahead(sampler, resumed_after * steps, config.epochs * steps, target)
    try:
        for epoch in range(resumed_after + 1, config.epochs + 1):
            if run.is_finished():  # stopped by itself, and then interrupted before the weights were safe
                break
            loss = _train_epoch(run, epoch, steps, batches, cancelled)
            model = run.kept.eval()
            score = _validated(model, validate, epoch)
            weak_score = _validated(model, validate_weak, epoch)
            run.keep_if_best(epoch, score)
            run.seconds = earlier + time.perf_counter() - started
            report = EpochReport(
                epoch=epoch,
                epochs=config.epochs,
                loss=loss,
                validation=score,
                weak_validation=weak_score,
                seconds_left=run.seconds / epoch * (config.epochs - epoch),
            )
            run.history.append(report)
            if checkpoint is not None:
                save_checkpoint(checkpoint, identity, run.tensors(), run.document())
            if progress is not None:
                progress(report)
            if run.is_finished():
                break
    finally:
        batches.close()
    return FitResult(
        model=run.best(),
        history=tuple(run.history),
        best_epoch=run.best_epoch,
        seconds=earlier + time.perf_counter() - started,
        sources=sampler.sources(),
        resumed_after=resumed_after,
    )


class _Run:
    """Everything that changes while a network is trained."""

    def __init__(self, config: TrainConfig, model: UNet) -> None:
        self.config = config
        self.model = model
        self.average = None if config.average_decay is None else WeightAverage(model, config.average_decay)
        self.optimiser = _optimiser(config, model)
        # Crops and first weights have generators of their own, so that changing one leaves the others.
        self.dropout = torch.Generator().manual_seed(config.seed)
        self.history: list[EpochReport] = []
        self.best_epoch = 0
        self.seconds = 0.0
        self._best_score = -math.inf
        self._best_state: dict[str, Tensor] | None = None

    @property
    def kept(self) -> UNet:
        """The network that is validated and kept: the average, where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    def is_finished(self) -> bool:
        """Whether the epochs so far say that more would not help (``patience``, ``stop_gain``)."""
        config, scores = self.config, [report.validation for report in self.history]
        if not scores:
            return False
        if scores[-1] is not None:
            return config.patience is not None and len(scores) - self.best_epoch >= config.patience
        weak = [report.weak_validation for report in self.history[-2:]]
        if config.stop_gain is None or len(weak) < 2 or weak[0] is None or weak[1] is None:
            return False
        return weak[1] - weak[0] < config.stop_gain * (1.0 - weak[0])

    def keep_if_best(self, epoch: int, score: float | None) -> None:
        if score is None or score > self._best_score:
            self.best_epoch = epoch
            if score is not None:  # Without validation the last epoch wins anyway: no copy needed.
                self._best_score = score
                self._best_state = copy.deepcopy(self.kept.state_dict())

    def best(self) -> UNet:
        """Return the network of the best epoch, in evaluation mode."""
        if self._best_state is not None:
            self.kept.load_state_dict(self._best_state)
        return self.kept.eval()

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that going on needs, by name."""
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average/{name}": t for name, t in self.average.model.state_dict().items()}
        if self._best_state is not None:
            tensors |= {f"best/{name}": tensor for name, tensor in self._best_state.items()}
        for name, parameter in self.model.named_parameters():
            state = self.optimiser.state.get(parameter, {})
            tensors |= {f"optimiser/{name}/{key}": tensor for key, tensor in state.items()}
        tensors["dropout"] = self.dropout.get_state()
        return tensors

    def document(self) -> dict[str, Any]:
        """Everything else that going on needs."""
        return {
            "epoch": self.epochs_done,
            "history": [asdict(report) for report in self.history],
            "best_epoch": self.best_epoch,
            "best_score": None if self._best_score == -math.inf else self._best_score,
            "seconds": self.seconds,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Stand where the run stood that gave these tensors and this document."""
        groups: dict[str, dict[str, Tensor]] = {}
        for name, tensor in checkpoint.tensors.items():
            group, _, below = name.partition("/")
            groups.setdefault(group, {})[below] = tensor
        self.model.load_state_dict(groups["model"])
        if self.average is not None:
            self.average.model.load_state_dict(groups["average"])
        self._best_state = groups.get("best")
        for name, parameter in self.model.named_parameters():
            prefix = f"{name}/"
            self.optimiser.state[parameter] = {
                below.removeprefix(prefix): _like(parameter, tensor)
                for below, tensor in groups.get("optimiser", {}).items()
                if below.startswith(prefix)
            }
        self.dropout.set_state(groups["dropout"][""])
        document = checkpoint.document
        self.history = [EpochReport(**report) for report in document["history"]]
        self.best_epoch = document["best_epoch"]
        self._best_score = -math.inf if document["best_score"] is None else document["best_score"]
        self.seconds = document["seconds"]


def _like(parameter: Tensor, state: Tensor) -> Tensor:
    """Give a piece of an optimiser's state the device and layout of its parameter; counters stay put."""
    return torch.empty_like(parameter).copy_(state) if state.shape == parameter.shape else state


def _train_epoch(
    run: _Run,
    epoch: int,
    steps: int,
    batches: Generator[_Tensors, None, None],
    cancelled: Callable[[], bool] | None,
) -> float:
    """Do the steps of one epoch; returns their mean loss."""
    config, model = run.config, run.model.train()
    device = next(model.parameters()).device
    # Summed on the device and read once an epoch: reading each loss would stall a GPU.
    total = torch.zeros((), device=device)
    for step in range(steps):
        if cancelled is not None and cancelled():
            raise TrainingCancelled(f"training: cancelled in epoch {epoch}, step {step + 1} of {steps}")
        done = (epoch - 1) * steps + step
        for group in run.optimiser.param_groups:
            group["lr"] = learning_rate(config, done, steps)
        loss = _loss(config, model, next(batches), device, run.dropout)
        run.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_limit is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.gradient_limit)
        run.optimiser.step()
        if run.average is not None:
            run.average.update(model, done)
        total += loss.detach()
    mean_loss = float(total) / steps
    if not math.isfinite(mean_loss):
        raise TrainingDiverged(
            f"training: loss is {mean_loss} in epoch {epoch} of {config.epochs}; "
            f"expected a finite number (learning_rate {config.learning_rate}, "
            f"gradient_limit {config.gradient_limit}: try a smaller one)"
        )
    return mean_loss


def _sampler(config: TrainConfig, items: Sequence[TrainingItem]) -> Sampler:
    class_count = config.network.class_count
    if config.crop is None:
        return WholeSampler(
            items,
            class_count=class_count,
            normalisation=config.normalisation,
            batch=config.batch,
            jitter=config.jitter,
            seed=config.seed,
        )
    return CropSampler(
        items,
        class_count=class_count,
        normalisation=config.normalisation,
        crop=config.crop,
        batch=config.batch,
        foreground_share=config.foreground_share,
        trusted_share=config.trusted_share,
        jitter=config.jitter,
        seed=config.seed,
    )


def _first_model(config: TrainConfig, sampler: Sampler, initial: UNet | None) -> UNet:
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
    if config.optimiser == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
    of_convolutions = [
        m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    biases = [m.bias for m in of_convolutions if m.bias is not None]
    ids = {id(bias) for bias in biases}
    others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    return torch.optim.SGD(
        [{"params": others, "weight_decay": config.weight_decay}, {"params": biases, "weight_decay": 0.0}],
        lr=config.learning_rate,
        momentum=config.momentum,
    )


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step, counted from 0 over the whole run."""
    if config.schedule == "steps":
        return config.learning_rate * config.decay ** (step // steps_per_epoch // config.decay_epochs)
    if config.schedule == "constant":
        return config.learning_rate * min(1.0, (step + 1) / WARM_UP)
    every_step = config.epochs * steps_per_epoch
    warm_up = max(1, every_step // 10)
    if step < warm_up:
        return config.learning_rate * (step + 1) / warm_up
    share_done = (step - warm_up) / max(1, every_step - warm_up)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share_done))


@dataclass(frozen=True, slots=True, eq=False)
class _Tensors:
    """A batch as tensors: on their way to a GPU, in memory it can read by itself."""

    image_NCHW: Tensor
    target_NHW: Tensor
    weight_N: Tensor
    confidence_NHW: Tensor | None


def _drawn_ahead(
    sampler: Sampler, first: int, stop: int, device: torch.device
) -> Generator[_Tensors, None, None]:
    """Yield the batches first…stop-1, the next ones being drawn while the network is at work.

    A GPU outruns one thread; on a CPU a second one would only take time from the network.
    """
    threads = 4 if device.type == "cuda" else 1
    ahead = threads + 2
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="batches") as pool:
        waiting = [
            pool.submit(_drawn, sampler, index, device) for index in range(first, min(first + ahead, stop))
        ]
        for index in range(first, stop):
            batch = waiting.pop(0).result()
            if index + ahead < stop:
                waiting.append(pool.submit(_drawn, sampler, index + ahead, device))
            yield batch


def _drawn(sampler: Sampler, index: int, device: torch.device) -> _Tensors:
    batch: Batch = sampler.batch(index)
    image_NCHW = torch.from_numpy(batch.image_NCHW).contiguous(memory_format=torch.channels_last)
    target_NHW, weight_N = torch.from_numpy(batch.mask_NHW), torch.from_numpy(batch.weight_N)
    confidence_NHW = None if batch.confidence_NHW is None else torch.from_numpy(batch.confidence_NHW)
    if device.type != "cuda":
        return _Tensors(image_NCHW, target_NHW, weight_N, confidence_NHW)
    return _Tensors(
        image_NCHW.pin_memory(),
        target_NHW.pin_memory(),
        weight_N.pin_memory(),
        None if confidence_NHW is None else confidence_NHW.pin_memory(),
    )


def _loss(
    config: TrainConfig, model: UNet, batch: _Tensors, device: torch.device, dropout: torch.Generator
) -> Tensor:
    image_NCHW = batch.image_NCHW.to(device, non_blocking=True)
    target_NHW = batch.target_NHW.to(device, non_blocking=True)
    weight_N = batch.weight_N.to(device, non_blocking=True)
    confidence_NHW = None
    if batch.confidence_NHW is not None:
        confidence_NHW = batch.confidence_NHW.to(device, non_blocking=True).float() / 255.0
    with computing_in(config.precision, device):
        logits_NKHW = model(image_NCHW, dropout)
    logits_NKHW = logits_NKHW.float()
    loss = torch.zeros((), device=device)
    if config.dice_share > 0.0:
        loss = loss + config.dice_share * generalised_dice_loss(
            logits_NKHW.softmax(dim=1),
            target_NHW,
            confidence_NHW,
            eps=config.dice_eps,
            absent_class=config.absent_class,
            max_class_weight=config.max_class_weight if config.absent_class == "clamp" else None,
            image_weight_N=weight_N,
        )
    if config.cross_entropy_share > 0.0:
        loss = loss + config.cross_entropy_share * cross_entropy_loss(
            logits_NKHW, target_NHW, confidence_NHW, image_weight_N=weight_N
        )
    return loss


def _validated(model: UNet, validate: Callable[[UNet], float] | None, epoch: int) -> float | None:
    if validate is None:
        return None
    score = float(validate(model))
    if not math.isfinite(score):
        raise TrainingDiverged(f"training: validation gave {score} after epoch {epoch}, expected a number")
    return score
