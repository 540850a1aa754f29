"""The figure of learning curves: a score against an expert's minutes, by strategy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats

from trainer.learning.curves import FULL_SHARE, Curve
from trainer.report.figures.style import BAR_COLOURS, INK, MARKERS, drawing, svg_text

_COLOURS = ("#777777", *BAR_COLOURS[3:], "#d55e00", *BAR_COLOURS[1:3])
"""Random choice comes first, and is grey."""
_GRID = 60
_FEW = 3
"""Bands of more strategies than this would hide one another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyCurves:
    """The curves of one strategy, one a seed."""

    name: str
    mean_iou: Sequence[Curve]
    worst_class_iou: Sequence[Curve]


def learning_curves_figure(
    name: str, strategies: Sequence[StrategyCurves], minutes: float, target: float | None
) -> str:
    """SVG: mean IoU and worst class's IoU against minutes; means over seeds, with their 95 % t-intervals.

    Parameters
    ----------
    minutes : float
        Right end of the axis: every curve goes so far.
    target : float, optional
        Mean IoU of 95 % of full supervision, as a line.
    """
    with drawing(f"learning-curves-{name}", 5.4) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True)
        grid = np.linspace(0.0, minutes, _GRID)
        for number, one in enumerate(strategies):
            with_band = len(strategies) <= _FEW
            _draw(upper, grid, one.mean_iou, number, one.name, with_band)
            _draw(lower, grid, one.worst_class_iou, number, None, with_band)
        if target is not None:
            upper.axhline(target, color=INK, linestyle=":", linewidth=1)
            upper.annotate(
                f"{FULL_SHARE:.0%} of full supervision",
                (minutes, target),
                xytext=(0, -3),
                textcoords="offset points",
                ha="right",
                va="top",
                fontsize=8,
            )
        upper.set_ylabel("mean IoU")
        lower.set_ylabel("IoU of the worst class")
        lower.set_xlabel("minutes of an expert's work")
        lower.set_xlim(0, minutes)
        figure.legend(loc="outside upper left", ncols=2)
        return svg_text(figure)


def _draw(
    axes: Axes,
    grid: NDArray[np.floating],
    curves: Sequence[Curve],
    number: int,
    label: str | None,
    with_band: bool,
) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], MARKERS[number % len(MARKERS)]
    scores_SG = np.array([[curve.at(x) for x in grid] for curve in curves])
    mean_G = scores_SG.mean(axis=0)
    axes.plot(
        grid, mean_G, color=colour, marker=marker, markevery=(3 * number % 10, 12), markersize=4, label=label
    )
    if with_band and len(curves) > 1:
        half_G = stats.sem(scores_SG, axis=0) * stats.t.ppf(0.975, len(curves) - 1)
        axes.fill_between(grid, mean_G - half_G, mean_G + half_G, color=colour, alpha=0.15, linewidth=0)
