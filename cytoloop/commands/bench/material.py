"""What several benchmarks measure on: simulated fields, a network that has learned a little, a fair comparison."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoloop.adapters.assays import load_assay
from cytoloop.commands.bench.figures import Figure, Tell
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.simulate.plate import simulate_field

if TYPE_CHECKING:
    from cytoloop.nn.dataset import TrainingItem
    from cytoloop.nn.train_config import TrainConfig
    from cytoloop.nn.unet import UNet

ROUNDS = 5
FIELDS = 3
LEARNING_STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Taught:
    """A network of the fast preset, and what it learned from."""

    assay: Assay
    images: list[NDArray[np.uint16]]
    """Fields of 680 x 512, (C, H, W)."""
    items: list[TrainingItem]
    config: TrainConfig
    model: UNet


def teach(tell: Tell) -> Taught:
    """Train for a moment on the CIP's masks of simulated fields: it must see objects, since they are counted."""
    from cytoloop.nn.dataset import TrainingItem
    from cytoloop.nn.fit import fit
    from trainer.presets import preset

    assay = load_assay("rosella")
    tell("learn", 0, 1)
    images = [simulate_field("reference-1", 1, index).image_CHW for index in range(FIELDS)]
    items = [
        TrainingItem(
            image_CHW=image.astype(np.float32),
            mask_HW=make_weak_label(image.astype(np.float32), str(number), assay.cip).mask_HW,
        )
        for number, image in enumerate(images)
    ]
    config = replace(preset("fast", "cdl", assay, 0), epochs=1, steps_per_epoch=LEARNING_STEPS)
    model = fit(config, items, device="cpu").model
    tell("learn", 1, 1)
    return Taught(assay=assay, images=images, items=items, config=config, model=model)


def write_plate(folder: Path, images: list[NDArray[np.uint16]], count: int) -> None:
    """``count`` fields of a plate, a well each, of these pixels in turn; a corner tells them apart."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image_CHW = images[number % len(images)].copy()
        image_CHW[0, 0, 0] = number  # equal pixels would be one key
        name = f"P{number // 384:02d}_{chr(ord('A') + number % 384 // 24)}{number % 24 + 1:02d}_f1.tif"
        tifffile.imwrite(folder / name, image_CHW, photometric="minisblack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds, medians over the rounds."""

    wall: float
    """What somebody waits."""
    work: float
    """Of all cores: what is left of a comparison where others keep the machine busy."""


def in_turn(
    asked: Mapping[str, Callable[[], Any]],
    tell: Tell,
    what: str,
    rounds: int | None = None,
    clocks: tuple[Callable[[], float], Callable[[], float]] = (time.perf_counter, time.process_time),
) -> dict[str, Spent]:
    """What each takes, all measured in turn, round by round: a busy machine slows all alike.

    A first round warms up and does not count.
    """
    count = ROUNDS if rounds is None else rounds
    wall, work = clocks
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in asked}
    for number in range(count + 1):
        for name, ask in asked.items():
            begun = wall(), work()
            ask()
            if number:
                taken[name].append((wall() - begun[0], work() - begun[1]))
        tell(what, number, count)
    return {
        name: Spent(wall=median(one[0] for one in of_name), work=median(one[1] for one in of_name))
        for name, of_name in taken.items()
    }


def share(name: str, ours: float, theirs: float, bar: float | None = None) -> Figure:
    """Our time beside that of a reference."""
    return Figure(name=name, value=ours / theirs, unit="x", bar=bar)


def machine() -> str:
    """Where it was measured, and how busy that was."""
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
