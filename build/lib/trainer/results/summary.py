"""Runs put together: a table of methods with intervals, paired comparisons, and the bars of the study.

Legend: S seeds, G groups, K classes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import mean_ignoring_nan, pixel_metrics
from cytoloop.domain.metrics.intervals import Interval, mean_iou_interval

Document = Mapping[str, Any]

VARIANT_TITLES = {"long": "trained twice as long", "paper": "preset paper"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is compared: a method, how much it learned from, and what it does otherwise."""

    method: str
    corrected: int | None = None
    weak: int | None = None
    variant: str = ""

    @property
    def title(self) -> str:
        """For a table.

        Examples
        --------
        >>> Arm(method="joint", corrected=18).title, Arm(method="mdl").title, Arm(method="cdl", weak=30).title
        ('joint, 18 corrected', 'MDL, all corrected', 'CDL, 30 weak images')
        """
        name = self.method if self.method == "joint" else self.method.upper()
        if self.method in ("mdl", "joint"):
            name += ", all corrected" if self.corrected is None else f", {self.corrected} corrected"
        if self.weak is not None:
            name += f", {self.weak} weak images"
        return name + (f" ({VARIANT_TITLES.get(self.variant, self.variant)})" if self.variant else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm over its seeds and folds."""

    arm: Arm
    seeds: int
    mean_iou: Interval
    seed_sd: float | None
    """Standard deviation of the mean IoU over seeds (n - 1); None for one seed."""
    class_iou: tuple[float, ...]
    class_accuracy: tuple[float, ...]
    class_bf: tuple[float, ...]
    mean_accuracy: float
    mean_bf: float
    mean_bf_strict: float
    train_s: float
    """Median seconds a run, one thread."""


def has_cip(documents: Iterable[Document], folds: int) -> bool:
    """Whether the CIP was judged on every fold: without it there is nothing to compare with."""
    return len([one for one in documents if one["run"]["method"] == "cip"]) == folds


class Study:
    """The finished runs of one data set.

    Parameters
    ----------
    documents : iterable of dict
        What `trainer.results.running.perform` gave.
    folds : int
        Of the data set. A seed of an arm that lacks a fold is left out: it would be judged on other wells.
    """

    def __init__(self, documents: Iterable[Document], folds: int = 1) -> None:
        of: defaultdict[Arm, defaultdict[int, list[Document]]] = defaultdict(lambda: defaultdict(list))
        for document in documents:
            run = document["run"]
            arm = Arm(
                method=run["method"],
                corrected=run["corrected"],
                weak=run["weak"],
                variant=run["variant"],
            )
            of[arm][run["seed"]].append(document)
        whole = {
            arm: {seed: runs for seed, runs in sorted(seeds.items()) if len(runs) == folds}
            for arm, seeds in of.items()
        }
        self._of = {arm: seeds for arm, seeds in whole.items() if seeds}
        if not self._of:
            raise InputError("results: no finished run, expected at least one")
        items = (
            item
            for seeds in self._of.values()
            for runs in seeds.values()
            for run in runs
            for item in run["items"]
        )
        self.groups = tuple(sorted({item["group"] for item in items}))

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Everything that was run."""
        return tuple(self._of)

    def has(self, arm: Arm) -> bool:
        """Whether there is a run of it."""
        return arm in self._of

    def documents(self, arm: Arm) -> list[Document]:
        """Every run of an arm."""
        return [one for runs in self._of[arm].values() for one in runs]

    def seeds(self, arm: Arm) -> frozenset[int]:
        """Seeds that were run to their end."""
        return frozenset(self._of[arm])

    def confusion(self, arm: Arm, seeds: frozenset[int] | None = None) -> NDArray[np.int64]:
        """Confusion matrices (S, G, K, K), rows = truth; folds put together. By default of all seeds."""
        place = {group: number for number, group in enumerate(self.groups)}
        sides = []
        for seed in sorted(self.seeds(arm) if seeds is None else seeds):
            items = [item for run in self._of[arm][seed] for item in run["items"]]
            class_count = len(items[0]["confusion"])
            one = np.zeros((len(place), class_count, class_count), np.int64)
            for item in items:
                one[place[item["group"]]] += np.array(item["confusion"], np.int64)
            sides.append(one)
        return np.stack(sides)

    def result(self, arm: Arm) -> ArmResult:
        """Means over seeds, with the interval over groups."""
        confusion_SGKK = self.confusion(arm)
        per_seed = [pixel_metrics(one.sum(axis=0)) for one in confusion_SGKK]
        ious = [one.mean_iou for one in per_seed]
        items = [item for run in self.documents(arm) for item in run["items"]]
        return ArmResult(
            arm=arm,
            seeds=len(per_seed),
            mean_iou=mean_iou_interval(confusion_SGKK),
            seed_sd=float(np.std(ious, ddof=1)) if len(ious) > 1 else None,
            class_iou=tuple(np.mean([one.iou_K for one in per_seed], axis=0).tolist()),
            class_accuracy=tuple(np.mean([one.accuracy_K for one in per_seed], axis=0).tolist()),
            class_bf=tuple(_over_items(items, "bf").tolist()),
            mean_accuracy=float(np.mean([one.mean_accuracy for one in per_seed])),
            mean_bf=_mean_of_items(items, "bf"),
            mean_bf_strict=_mean_of_items(items, "bf_strict"),
            train_s=float(np.median([run["train_s"] for run in self.documents(arm)])),
        )

    def gain(self, arm: Arm, over: Arm) -> Interval:
        """Paired difference in mean IoU: the same items and, where both have seeds, the same seeds."""
        if over.method == "cip":
            return mean_iou_interval(self.confusion(arm), self.confusion(over))
        both = self.seeds(arm) & self.seeds(over)
        if not both:
            raise InputError(f"results: {arm.title} and {over.title} have no seed in common")
        return mean_iou_interval(self.confusion(arm, both), self.confusion(over, both))


def _values(items: Sequence[Document], key: str) -> NDArray[np.float64]:
    return np.array([[np.nan if v is None else v for v in item[key]] for item in items], np.float64)


def _over_items(items: Sequence[Document], key: str) -> NDArray[np.float64]:
    return mean_ignoring_nan(_values(items, key), axis=0)


def _mean_of_items(items: Sequence[Document], key: str) -> float:
    """Mean over items of the mean over classes, what is undefined left out in both."""
    return float(mean_ignoring_nan(mean_ignoring_nan(_values(items, key))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What was to be shown, and whether it was."""

    text: str
    figure: str
    is_met: bool


FULL = Arm(method="mdl")
"""Full supervision: every tile of every training image corrected."""
FULL_LONG = Arm(method="mdl", variant="long")
"""The same, trained twice as long: the stricter measure, where it was run."""


def bars_of(study: Study) -> list[Bar]:
    """The study's bars, as far as their runs are there."""
    bars = []
    cip, cdl, joint18 = Arm(method="cip"), Arm(method="cdl"), Arm(method="joint", corrected=18)
    if study.has(cip) and study.has(cdl):
        gain = study.gain(cdl, cip)
        bars.append(
            Bar(
                text="CDL better than CIP in mean IoU, the interval above 0",
                figure=told(gain, signed=True),
                is_met=gain.low > 0,
            )
        )
    full = FULL_LONG if study.has(FULL_LONG) else FULL
    if study.has(joint18) and study.has(full):
        share = study.result(joint18).mean_iou.value / study.result(full).mean_iou.value
        bars.append(
            Bar(
                text="joint on 18 corrected items at least 95 % of full supervision’s mean IoU",
                figure=f"{100 * share:.1f} %",
                is_met=share >= 0.95,
            )
        )
    for amount in (6, 18, None):
        joint, mdl = Arm(method="joint", corrected=amount), Arm(method="mdl", corrected=amount)
        if study.has(joint) and study.has(mdl):
            gain = study.gain(joint, mdl)
            items = "all" if amount is None else str(amount)
            bars.append(
                Bar(
                    text=f"joint − MDL on {items} corrected items, lower bound above −0.005",
                    figure=told(gain, signed=True),
                    is_met=gain.low > -0.005,
                )
            )
    return bars


def told(interval: Interval, *, signed: bool = False) -> str:
    """Write an interval.

    Examples
    --------
    >>> told(Interval(value=0.1, low=-0.02, high=0.25), signed=True)
    '+0.100 (−0.020 … +0.250)'
    """
    form = "+.3f" if signed else ".3f"
    value, low, high = (
        format(one, form).replace("-", "−") for one in (interval.value, interval.low, interval.high)
    )
    return f"{value} ({low} … {high})"
