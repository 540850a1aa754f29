"""Figures of the results page: SVG files that stand beside the Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from cytoloop.domain.metrics.intervals import Interval
from trainer.report.figures.style import BLUE, GREEN, ORANGE, drawing, svg_text
from trainer.results.summary import Arm, ArmResult

_GREY = "#777777"


def learning_figure(
    name: str, results: Mapping[Arm, ArmResult], amounts: Sequence[int | None], total: int
) -> str:
    """SVG: mean IoU against corrected items for MDL and joint, with CIP and CDL as lines.

    Parameters
    ----------
    amounts : sequence of int or None
        Corrected items, ascending; None = all.
    total : int
        How many *all* is.
    """
    with drawing(f"learning-{name}", 3.0) as figure:
        axes: Axes = figure.subplots()
        places = np.arange(len(amounts), dtype=float)
        for method, colour, marker, shift in (("mdl", ORANGE, "s", -0.05), ("joint", BLUE, "o", 0.05)):
            shown = [
                (place + shift, results[arm].mean_iou)
                for place, amount in zip(places, amounts, strict=True)
                if (arm := Arm(method=method, corrected=amount)) in results
            ]
            if shown:
                label = "MDL (from scratch)" if method == "mdl" else "joint (from the CDL)"
                _with_intervals(axes, shown, colour, marker, label)
        for method, colour, line in (("cip", _GREY, ":"), ("cdl", GREEN, "--")):
            if Arm(method=method) in results:
                result = results[Arm(method=method)]
                label = "CIP" if method == "cip" else "CDL (no correction)"
                axes.axhline(result.mean_iou.value, color=colour, linestyle=line, label=label)
        axes.set_xticks(places, [f"all {total}" if amount is None else str(amount) for amount in amounts])
        axes.set_xlabel("corrected items")
        axes.set_ylabel("mean IoU (1 = the truth)")
        axes.set_xlim(-0.4, len(amounts) - 0.6)
        figure.legend(loc="outside upper left", ncols=2)
        return svg_text(figure)


def weak_figure(results: Sequence[tuple[int, ArmResult]], cip: ArmResult) -> str:
    """SVG: mean IoU of a CDL against the number of weak images it learned from."""
    with drawing("weak-images", 2.6) as figure:
        axes: Axes = figure.subplots()
        places = np.arange(len(results), dtype=float)
        shown = [(place, result.mean_iou) for place, (_, result) in zip(places, results, strict=True)]
        _with_intervals(axes, shown, GREEN, "o", "CDL")
        axes.axhline(cip.mean_iou.value, color=_GREY, linestyle=":", label="CIP, its teacher")
        axes.set_xticks(places, [str(count) for count, _ in results])
        axes.set_xlabel("weak images")
        axes.set_ylabel("mean IoU (1 = the truth)")
        figure.legend(loc="outside upper left", ncols=2)
        return svg_text(figure)


def teacher_figure(
    steps: Sequence[int], truth: Sequence[Sequence[float]], weak: Sequence[Sequence[float]], cip: float
) -> str:
    """SVG: agreement with the teacher and with the truth while a CDL is trained, a line a seed.

    Parameters
    ----------
    steps : sequence of int
        Training steps at the end of each epoch.
    truth, weak : sequence of sequence of float
        Mean IoU against truth and against weak labels, by seed and epoch.
    cip : float
        The teacher's own mean IoU against the truth.
    """
    with drawing("teacher", 3.0) as figure:
        axes: Axes = figure.subplots()
        for runs, colour, line, label in (
            (weak, ORANGE, "--", "with weak labels not learned from"),
            (truth, BLUE, "-", "with the truth"),
        ):
            for number, values in enumerate(runs):
                axes.plot(steps, values, color=colour, linestyle=line, label=label if number == 0 else None)
        axes.axhline(cip, color=_GREY, linestyle=":", label="the teacher (CIP) with the truth")
        axes.set_xlabel("training steps")
        axes.set_ylabel("mean IoU of the CDL")
        figure.legend(loc="outside upper left", ncols=1)
        return svg_text(figure)


def _with_intervals(
    axes: Axes, shown: Sequence[tuple[float, Interval]], colour: str, marker: str, label: str
) -> None:
    places = [place for place, _ in shown]
    values = [interval.value for _, interval in shown]
    reach = [
        [interval.value - interval.low for _, interval in shown],
        [interval.high - interval.value for _, interval in shown],
    ]
    axes.errorbar(
        places, values, yerr=reach, color=colour, marker=marker, label=label, capsize=3, linewidth=1.2
    )
