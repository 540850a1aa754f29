"""Finished runs -> a document, a figure and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy import stats

from cytoloop.adapters.images import write_atomically
from trainer.learning.curves import FULL_SHARE, Comparison, Curve, compare
from trainer.learning.figure import StrategyCurves, learning_curves_figure
from trainer.results.datasets import Dataset

Document = Mapping[str, Any]
RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyResult:
    """What one strategy did beside random choice."""

    strategy: str
    seeds: tuple[int, ...]
    area: float
    """Mean over seeds of the mean score over the minutes: mean IoU."""
    mean_iou: Comparison | None
    """None for random choice itself, and below two seeds."""
    worst_class_iou: Comparison | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningSummary:
    """A study of simulated learning."""

    dataset: str
    minutes: float
    """Curves are compared from 0 to here."""
    strategies: tuple[StrategyResult, ...]
    correlations: Mapping[str, float]
    """Spearman correlation of each score with the minutes that a correction takes, mean over seeds."""
    figure: Path
    document: Path


def write_learning(
    folder: Path,
    dataset: Dataset,
    names: Sequence[str],
    bases: Mapping[int, Document | None],
    runs: Mapping[tuple[int, str], Document | None],
) -> LearningSummary:
    """Compare what is finished; a seed counts for a strategy once its random choice is done too."""
    seeds = [seed for seed, base in bases.items() if base is not None and runs.get((seed, RANDOM))]
    done = {name: [s for s in seeds if runs.get((s, name)) is not None] for name in names}
    documents = {key: run for key, run in runs.items() if run is not None}
    minutes = _common_minutes(documents, seeds)
    results = []
    drawn = []
    for name in names:
        if not done[name]:
            continue
        curves = {m: [_curve(documents[s, name], m) for s in done[name]] for m in _MEASURES}
        drawn.append(StrategyCurves(name=name, mean_iou=curves["mean"], worst_class_iou=curves["worst"]))
        results.append(
            StrategyResult(
                strategy=name,
                seeds=tuple(done[name]),
                area=fmean(curve.area(minutes) for curve in curves["mean"]),
                mean_iou=_compared("mean", name, done[name], documents, bases, minutes),
                worst_class_iou=_compared("worst", name, done[name], documents, bases, minutes),
            )
        )
    targets = [FULL_SHARE * _score(bases[s]["full"], "mean") for s in seeds]  # type: ignore[index]
    target = fmean(targets) if targets else None
    folder.mkdir(parents=True, exist_ok=True)
    figure = folder / "learning-curves.svg"
    svg = learning_curves_figure(dataset.name, drawn, minutes, target)
    write_atomically(figure, lambda path: path.write_text(svg, encoding="utf-8"))
    summary = LearningSummary(
        dataset=dataset.name,
        minutes=minutes,
        strategies=tuple(results),
        correlations=_correlations([base for base in bases.values() if base is not None]),
        figure=figure,
        document=folder / "learning.json",
    )
    text = json.dumps(_plain(asdict(summary)), indent=1, allow_nan=False)
    write_atomically(summary.document, lambda path: path.write_text(text, encoding="utf-8"))
    return summary


_MEASURES = ("mean", "worst")


def _compared(
    measure: str,
    name: str,
    seeds: Sequence[int],
    documents: Mapping[tuple[int, str], Document],
    bases: Mapping[int, Document | None],
    minutes: float,
) -> Comparison | None:
    if name == RANDOM or len(seeds) < 2:
        return None
    return compare(
        [_curve(documents[s, name], measure) for s in seeds],
        [_curve(documents[s, RANDOM], measure) for s in seeds],
        [FULL_SHARE * _score(bases[s]["full"], measure) for s in seeds],  # type: ignore[index]
        minutes,
    )


def _curve(run: Document, measure: str) -> Curve:
    # Where an item took longer than a stage, two points share their minutes: the later one stands.
    points = {point["minutes"]: _score(point, measure) for point in run["points"]}
    return Curve(minutes_P=np.array([*points]), score_P=np.array([*points.values()]))


def _score(point: Document, measure: str) -> float:
    values = [value for value in point["class_iou"] if value is not None]
    return float(point["mean_iou"] if measure == "mean" else min(values))


def _common_minutes(documents: Mapping[tuple[int, str], Document], seeds: Sequence[int]) -> float:
    """Minutes to which every curve goes."""
    ends = [run["points"][-1]["minutes"] for (seed, _), run in documents.items() if seed in seeds]
    return float(min(ends, default=1.0))


def _correlations(bases: Sequence[Document]) -> dict[str, float]:
    by_score: dict[str, list[float]] = {}
    for base in bases:
        truth = [item["minutes"] for item in base["items"]]
        columns = {name: [i["scores"][name] for i in base["items"]] for name in base["items"][0]["scores"]}
        columns["expected minutes"] = [item["expected_minutes"] for item in base["items"]]
        for name, column in columns.items():
            if len(set(column)) > 1 and len(set(truth)) > 1:
                by_score.setdefault(name, []).append(float(stats.spearmanr(column, truth).statistic))
    return {name: fmean(values) for name, values in by_score.items()}


def _plain(value: Any) -> Any:
    """As JSON has it: no infinities, no paths."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not np.isfinite(value) else value
