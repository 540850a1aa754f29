"""Which runs a study is made of.

Every method of one data set, fold and seed sees the same images, the same corrected items (6 are among
the 18, the 18 among all) and the same validation items; only what it learns from differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from cytoloop.domain.types import Method

Variant = Literal[
    "",
    "teacher-curve",
    "dice",
    "no-average",
    "last-epoch",
    "stopped",
    "committee",
    "unanimous",
    "long",
    "paper",
]
"""What a run does otherwise than the preset ``fast``; see ``running.config_of``."""

AMOUNTS: tuple[int | None, ...] = (6, 18, None)
"""Corrected items an MDL or joint model learns from; None = all of the training wells."""

WEAK_AMOUNTS = (10, 30, 100)
"""Weak images a CDL learns from, beside all of them."""

REMEDIES: tuple[Variant, ...] = ("dice", "no-average", "last-epoch", "stopped", "committee", "unanimous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One thing to train (or the CIP, which needs no training) and to judge."""

    dataset: str
    fold: int
    seed: int
    method: Method
    corrected: int | None = None
    """Corrected items; None = all. Of no meaning for *cip* and *cdl*."""
    weak: int | None = None
    """Weak images; None = all. Of no meaning for *cip* and *mdl*."""
    variant: Variant = ""

    @property
    def key(self) -> str:
        """Name of its files."""
        parts = [self.dataset, f"fold{self.fold}", f"seed{self.seed}", self.method]
        if self.method in ("mdl", "joint"):
            parts.append(f"c{_amount(self.corrected)}")
        if self.weak is not None:
            parts.append(f"w{self.weak}")
        if self.variant:
            parts.append(self.variant)
        return "-".join(parts)

    @property
    def base(self) -> Run | None:
        """The CDL that a joint model starts from."""
        return self.plain_cdl if self.method == "joint" else None

    @property
    def plain_cdl(self) -> Run:
        """The CDL of all weak images, as the preset has it, of the same fold and seed."""
        return Run(dataset=self.dataset, fold=self.fold, seed=self.seed, method="cdl")


def plan(datasets: Sequence[tuple[str, int]], seeds: int, *, paper: bool) -> list[list[Run]]:
    """Every run, in stages: each stage needs only what earlier ones made.

    Parameters
    ----------
    datasets : sequence of (name, folds)
    seeds : int
        Of training and of the draw of corrected items.
    paper : bool
        Whether the paper's preset is trained too, on ``reference-1``: it costs more than all the rest.
    """
    first: list[Run] = []
    second: list[Run] = []
    methods: tuple[Method, ...] = ("mdl", "joint")
    for name, folds in datasets:
        first += [Run(dataset=name, fold=fold, seed=0, method="cip") for fold in range(folds)]
        # Seed by seed, and arm by arm over all folds: what is finished early can be looked at early.
        for seed in range(seeds):
            first += [Run(dataset=name, fold=fold, seed=seed, method="cdl") for fold in range(folds)]
            second += [
                Run(dataset=name, fold=fold, seed=seed, method=method, corrected=amount)
                for amount, method, fold in product(AMOUNTS, methods, range(folds))
            ]
        if name == "reference-1":
            second += _on_the_simulated_plate(name, seeds, paper=paper)
    return [first, second]


def _on_the_simulated_plate(name: str, seeds: int, *, paper: bool) -> Iterator[Run]:
    """How much weak data helps, what keeps a network from trusting its teacher, the paper's own numbers."""
    for seed in range(seeds):
        for amount in WEAK_AMOUNTS:
            yield Run(dataset=name, fold=0, seed=seed, method="cdl", weak=amount)
        for variant in (*REMEDIES, "teacher-curve"):
            yield Run(dataset=name, fold=0, seed=seed, method="cdl", variant=variant)
        # What all corrections can give: the measure of full supervision, trained twice as long.
        yield Run(dataset=name, fold=0, seed=seed, method="mdl", variant="long")
    if paper:
        yield Run(dataset=name, fold=0, seed=0, method="cdl", variant="paper")
        yield Run(dataset=name, fold=0, seed=0, method="mdl", variant="paper")


def _amount(number: int | None) -> str:
    return "all" if number is None else str(number)
