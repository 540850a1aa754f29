"""Dots in rows: the methods beside each other, and what the challenger gains or loses in the contest."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from trainer.report.contest import Contest, percent_of
from trainer.report.figures.style import BLUE, GREEN, INK, ORANGE, drawing, floats, svg_text
from trainer.report.methods import MethodRow

_FALLEN = "#a04000"


def method_dots(rows: Sequence[MethodRow], labels: Sequence[str]) -> str | None:
    """SVG of mean IoU, a row a version and a mark a split; None if nothing was measured.

    Parameters
    ----------
    labels : sequence of str
        What each version is called.
    """
    series = (
        ("validation: chose the challenger", floats([one.validation for one in rows]), GREEN, "o"),
        ("contest: decides", floats([one.contest for one in rows]), BLUE, "s"),
        ("sealed: only reported", floats([one.sealed for one in rows]), ORANGE, "^"),
    )
    known = [value for _, values, *_ in series for value in values if isfinite(value)]
    if not known:
        return None
    with drawing("method-dots", 1.35 + 0.5 * len(rows)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        for row, of_version in enumerate(zip(*(values for _, values, *_ in series), strict=True)):
            shown = [value for value in of_version if isfinite(value)]
            if shown:
                axes.plot(
                    (min(shown), max(shown)),
                    (row, row),
                    color="#d9dde1",
                    linewidth=5,
                    solid_capstyle="round",
                    zorder=1,
                )
        for place, (name, values, colour, marker) in enumerate(series):
            if any(isfinite(value) for value in values):
                axes.plot(
                    values, [row + 0.2 * (place - 1) for row in range(len(rows))], marker=marker, color=colour,
                    linestyle="none", markersize=6, label=name, clip_on=False,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(max(0.0, min(known) - 0.05), min(1.0, max(known) + 0.05))
        axes.set_xlabel("mean IoU (1 = as the expert drew it)")
        figure.legend(loc="outside upper left", ncols=1, fontsize=8.5)
        return svg_text(figure)


def difference_dots(contest: Contest) -> str | None:
    """SVG of challenger minus model in use: the mean with its lower bound, below it each class; None without any.

    The bound is one-sided: the line ends where the gain is surely not below, and says nothing to the right. The
    dashed line among the classes is the largest fall that is accepted.
    """
    names = ["mean of classes", *(one.name for one in contest.classes)]
    values = floats([contest.difference, *(one.difference for one in contest.classes)])
    if not isfinite(values[0]):
        return None
    with drawing("difference-dots", 1.5 + 0.36 * len(names)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        axes.axvline(0, color=INK, linewidth=1.1)
        ends = [*values, 0.0]
        if contest.lower_bound is not None:
            ends.append(contest.lower_bound)
            axes.plot(
                (contest.lower_bound, values[0]), (0, 0), color=BLUE, linewidth=2.5, solid_capstyle="butt",
                label=f"at least so much, with {percent_of(contest.confidence)} confidence",
            )  # fmt: skip
            axes.plot(contest.lower_bound, 0, marker="|", color=BLUE, markersize=14, markeredgewidth=2.5)
        if contest.max_class_drop is not None and contest.classes:
            ends.append(-contest.max_class_drop)
            axes.plot(
                (-contest.max_class_drop,) * 2, (0.5, len(names) - 0.5), color=_FALLEN, linewidth=1.2,
                linestyle="--", label=f"largest fall of a class that is accepted (−{contest.max_class_drop:g})",
            )  # fmt: skip
        is_fallen = [False, *(one.is_drop_too_large for one in contest.classes)]
        for row, (value, fallen) in enumerate(zip(values, is_fallen, strict=True)):
            axes.plot(
                value, row, marker="X" if fallen else "o", markersize=8 if fallen or row == 0 else 6,
                color=_FALLEN if fallen else BLUE, linestyle="none",
            )  # fmt: skip
            if isfinite(value):
                axes.annotate(
                    f"{value:+.3f}".replace("-", "−"), (value, row), xytext=(0, 6), textcoords="offset points",
                    ha="center", fontsize=8.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
                )  # fmt: skip
        axes.axhline(0.5, color="#b9c0c6", linewidth=0.8)
        low, high = min(e for e in ends if isfinite(e)), max(e for e in ends if isfinite(e))
        room = max(0.01, 0.14 * (high - low))
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(names) - 0.5, -0.7)
        axes.set_xlabel("IoU, challenger minus model in use")
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside upper left", ncols=1, fontsize=8.5)
        return svg_text(figure)
