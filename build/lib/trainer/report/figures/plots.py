"""Confusion matrices, rating violins, minutes beside the paper's, and the scale of doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D

from trainer.report import PAPER_MINUTES, HumanTime, RatingStudy
from trainer.report.figures.style import BAR_COLOURS, INK, MARKERS, drawing, svg_text
from trainer.report.names import TASKS

DOUBT_COLOURS = "cividis"
"""Dark blue (sure) to yellow (no idea): as bright in print as on a screen, for every eye."""


def confusion_matrix_figure(
    confusion: Sequence[Sequence[int]], names: Sequence[str], title: str
) -> str | None:
    """SVG of a confusion matrix: rows = truth, shares of each row printed in the cells; None without pixels.

    Parameters
    ----------
    confusion : sequence of sequence of int
        Pixels by true (row) and predicted (column) class.
    names : sequence of str
        By pixel value.
    title : str
        Whose it is.
    """
    counts = np.array(confusion, float)
    if counts.size == 0 or not counts.sum():
        return None
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.full_like(counts, np.nan), where=rows > 0)
    # The darkest blue would swallow black text, the whitest cell must still be seen on paper.
    colours = LinearSegmentedColormap.from_list("blues", colormaps["Blues"](np.linspace(0.04, 0.92, 128)))
    size = 1.2 + 0.5 * len(names)
    with drawing(f"confusion-{title}", size + 0.2, min(size + 0.55, 6.0)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(visible=False)
        axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for row in range(len(names)):
            for column in range(len(names)):
                share = shares[row, column]
                axes.text(
                    column, row, "none" if np.isnan(share) else f"{share * 100:.1f} %",
                    ha="center", va="center", fontsize=8.5, fontweight="bold" if row == column else "normal",
                    color="white" if share > 0.55 else "black",
                )  # fmt: skip
        short = [fill(name, 14) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), short)
        axes.tick_params(length=0)
        axes.set_xlabel("the model says")
        axes.set_ylabel("the expert says")
        axes.set_title(title)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xticks(np.arange(1, len(names)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
        axes.grid(which="minor", axis="both", color="white", linewidth=2)
        axes.tick_params(which="minor", length=0)
        return svg_text(figure)


def rating_violins(study: RatingStudy, labels: Mapping[str, str]) -> str | None:
    """SVG of all ratings: a violin a method, a point a rated item, its mark the expert; None without ratings.

    Parameters
    ----------
    labels : mapping of str to str
        What each method is called; others by their own name.
    """
    methods = [study.method_a, study.method_b]
    values = {m: [v for one in study.distributions if one.method == m for v in one.values] for m in methods}
    if not any(values.values()):
        return None
    experts = list(dict.fromkeys(one.expert for one in study.distributions))
    with drawing("rating-violins", 3.1 + 0.19 * len(experts)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        for place, method in enumerate(methods):
            # All ratings equal: there is no width to draw, the points say it.
            if len(set(values[method])) > 1:
                bodies = axes.violinplot(values[method], [place], orientation="horizontal", widths=0.8)
                for body in list(bodies["bodies"]):  # type: ignore[call-overload]
                    body.set(facecolor=BAR_COLOURS[place], alpha=0.45, edgecolor=INK, linewidth=0.8)
                for line in ("cbars", "cmins", "cmaxes"):
                    bodies[line].set(visible=False)
            if values[method]:
                mean = float(np.mean(values[method]))
                axes.plot((mean, mean), (place - 0.42, place + 0.42), color=INK, linewidth=1.8)
                axes.text(mean, place - 0.44, f"mean {mean:.1f}", ha="center", va="bottom", fontsize=8.5)
        handles: list[Line2D] = []
        rng = np.random.default_rng(0)  # where points lie within a violin means nothing
        for number, expert in enumerate(experts):
            told = [
                (one.method, value)
                for one in study.distributions
                if one.expert == expert
                for value in one.values
            ]
            handles += axes.plot(
                [value + rng.uniform(-0.13, 0.13) for _, value in told],
                [methods.index(method) + rng.uniform(-0.2, 0.2) for method, _ in told],
                linestyle="none", marker=MARKERS[number % len(MARKERS)], markersize=4,
                markerfacecolor="white", markeredgecolor=INK, markeredgewidth=0.8, alpha=0.9,
            )  # fmt: skip
        axes.set_yticks((0, 1), [fill(labels.get(m, m), 18) for m in methods])
        axes.set_ylim(1.6, -0.75)
        axes.set_xlim(0.5, 10.5)
        axes.set_xticks(range(1, 11))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("rating (1 useless … 10 nothing to correct)")
        # named one by one: by itself matplotlib leaves out who is called _something
        figure.legend(handles, experts, loc="outside upper left", ncols=1, fontsize=8.5)
        return svg_text(figure)


def human_time_figure(times: Sequence[HumanTime]) -> str | None:
    """SVG of median minutes per item beside the paper's ranges; None if nothing was timed."""
    if not any(one.minutes is not None for one in times):
        return None
    with drawing("human-times", 1.2 + 0.42 * len(times)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        for row, one in enumerate(times):
            low, high = PAPER_MINUTES[one.task]
            axes.barh(
                row, high - low, left=low, height=0.5, color="#cfd4d9", hatch="////", edgecolor="white",
                linewidth=0, label="the paper’s experts" if row == 0 else None,
            )  # fmt: skip
            if one.minutes is not None:
                axes.plot(one.minutes, row, marker="D", color="#0072b2", markersize=7, linestyle="none")
                axes.annotate(
                    f"{one.minutes:.1f}", (one.minutes, row), xytext=(0, 7), textcoords="offset points",
                    ha="center", fontsize=8.5,
                )  # fmt: skip
        axes.plot([], [], marker="D", color="#0072b2", linestyle="none", label="here (median)")
        axes.set_yticks(range(len(times)), [TASKS[one.task] for one in times])
        axes.set_ylim(len(times) - 0.4, -0.7)
        axes.set_xscale("log")
        measured = [one.minutes for one in times if one.minutes]
        axes.set_xlim(
            min(0.25, 0.6 * min(measured, default=1.0)), max(60.0, 1.6 * max(measured, default=1.0))
        )
        ticks = [tick for tick in (0.02, 0.1, 0.5, 1, 3, 10, 40, 120) if _between(tick, axes.get_xlim())]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("minutes per item")
        figure.legend(loc="outside upper left", ncols=2)
        return svg_text(figure)


def _between(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def doubt_scale() -> str:
    """SVG of the colours of a doubt map, with words at both ends."""
    with drawing("doubt-scale", 0.55, 3.2) as figure:
        axes: Axes = figure.subplots()
        axes.imshow(
            np.linspace(0, 1, 256)[np.newaxis], cmap=DOUBT_COLOURS, aspect="auto", extent=(0, 1, 0, 1)
        )
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.set_xticks((0, 0.5, 1), ("sure", "in doubt", "no idea"), fontsize=8.5)
        first, _, last = axes.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")
        axes.tick_params(length=2)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg_text(figure)
