"""``cytoloop bench step``: a training step with all that is around it, beside the bare step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import in_turn, machine, teach

if TYPE_CHECKING:
    from cytoloop.nn.fit import _Tensors

STEPS, REPEATS = 10, 11
BAR = 1.15


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """Steps of a run (drawing, augmenting, learning, averaging) over bare steps on one batch in memory."""
    import torch

    from cytoloop.nn.fit import _drawn, _drawn_ahead, _loss, _Run, _sampler, _train_epoch, learning_rate

    taught = teach(tell)
    cpu = torch.device("cpu")
    config = replace(taught.config, epochs=1_000_000, steps_per_epoch=STEPS)
    sampler = _sampler(config, taught.items)
    run, bare = _Run(config, deepcopy(taught.model)), _Run(config, deepcopy(taught.model))
    # as slow as the run's: numbers that drift would take other times
    for group in bare.optimiser.param_groups:
        group["lr"] = learning_rate(config, 0, STEPS)
    batches: Generator[_Tensors, None, None] = _drawn_ahead(sampler, 0, 1_000_000, cpu)
    held, epochs = _drawn(sampler, 0, cpu), count(1)

    def bare_steps() -> None:
        model = bare.model.train()
        for _ in range(STEPS):
            loss = _loss(config, model, held, cpu, bare.dropout)
            bare.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            bare.optimiser.step()

    asked: Mapping[str, Callable[[], object]] = {
        "run": lambda: _train_epoch(run, next(epochs), STEPS, batches, None),
        "bare": bare_steps,
    }
    try:
        spent = in_turn(asked, tell, f"{STEPS} steps", REPEATS)
    finally:
        batches.close()
    figures = (
        Figure(name="bare step", value=spent["bare"].wall / STEPS, unit="s"),
        Figure(
            name="a step of a run", value=spent["run"].wall / spent["bare"].wall, unit="x a bare one", bar=BAR
        ),
        Figure(
            name="its processor time", value=spent["run"].work / spent["bare"].work, unit="x a bare one's"
        ),
    )
    title = f"Training steps of the fast preset, batch {config.batch} of {config.crop} pixels, {config.precision}; {machine()}"
    return Measured(name="step", title=title, figures=figures)
