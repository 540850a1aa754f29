"""Bars that compare versions: metrics, classes, boxes (the paper's Fig. 3 and 4) and error types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import isfinite

import numpy as np
from matplotlib.axes import Axes

from trainer.report import BoxedMethod, ClassErrors, VersionScores
from trainer.report.figures.style import BAR_COLOURS, HATCHES, INK, drawing, floats, svg_text

_BAR = 0.165  # inches: tall enough for the value beside it


@dataclass(frozen=True, slots=True, kw_only=True)
class BarPanel:
    """One set of grouped bars over a common axis."""

    title: str
    groups: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    """One row a version, one value a group, 0 … 1; None where it was not measured."""
    spreads: tuple[tuple[float | None, ...], ...] = ()
    """Standard deviations, likewise; empty: none are known."""


def metric_bars(scores: Sequence[VersionScores], labels: Sequence[str]) -> str | None:
    """SVG of the general metrics, one bar a version (the paper's Fig. 3a); None without versions.

    Parameters
    ----------
    scores : sequence of VersionScores
        Of one split.
    labels : sequence of str
        What each version is called in the legend.
    """
    rows = [
        (
            one.mean_iou,
            one.mean_accuracy,
            one.mean_bf,
            one.mean_bf_strict,
            one.global_accuracy,
            one.weighted_iou,
        )
        for one in scores
    ]
    names = (*("mean IoU", "mean accuracy", "mean BF", "mean BF, strict", "global accuracy", "weighted IoU"),)
    kept = [column for column in range(len(names)) if any(row[column] is not None for row in rows)]
    if not kept:
        return None
    panel = BarPanel(
        title="",
        groups=tuple(names[column] for column in kept),
        values=tuple(tuple(row[column] for column in kept) for row in rows),
    )
    return grouped_bars("metric-bars", [panel], labels)


def class_bars(scores: Sequence[VersionScores], labels: Sequence[str]) -> str | None:
    """SVG of IoU, accuracy and BF score per class (the paper's Fig. 3b); None if there is nothing to compare.

    Parameters
    ----------
    scores : sequence of VersionScores
        Of one split, with the same classes.
    labels : sequence of str
        What each version is called in the legend.
    """
    if not scores or not scores[0].classes:
        return None
    names = tuple(one.name for one in scores[0].classes)
    panels = []
    for title, field in (
        ("IoU", "iou"),
        ("Accuracy (share found)", "accuracy"),
        ("BF score (outlines)", "bf"),
    ):
        rows = []
        for version in scores:
            by_name = {one.name: getattr(one, field) for one in version.classes}
            rows.append(tuple(by_name.get(name) for name in names))
        if any(value is not None for row in rows for value in row):
            panels.append(BarPanel(title=title, groups=names, values=tuple(rows)))
    return grouped_bars("class-bars", panels, labels)


def box_ratios(methods: Sequence[BoxedMethod], labels: Sequence[str]) -> str | None:
    """SVG of overlapping events and of the false-positive and false-negative ratio (the paper's Fig. 4).

    Lines at the ends of bars are standard deviations over experts, where there are several. None
    without versions.
    """
    if not methods or not methods[0].classes:
        return None
    groups = tuple(one.name for one in methods[0].classes)
    panels = [
        BarPanel(
            title=title,
            groups=groups,
            values=tuple(tuple(getattr(one, field).mean for one in method.classes) for method in methods),
            spreads=tuple(tuple(getattr(one, field).sd for one in method.classes) for method in methods),
        )
        for title, field in (
            ("Overlapping events (more is better)", "overlapping_share"),
            ("False positives (less is better)", "false_positive_ratio"),
            ("False negatives (less is better)", "false_negative_ratio"),
        )
    ]
    return grouped_bars("box-ratios", panels, labels)


def grouped_bars(name: str, panels: Sequence[BarPanel], labels: Sequence[str]) -> str | None:
    """SVG of panels below each other, a bar a version in each group; None without panels or versions."""
    if not panels or not labels:
        return None
    heights = [0.42 + len(p.groups) * (_BAR * len(labels) + 0.13) for p in panels]
    with drawing(name, 0.35 + 0.2 * len(labels) + sum(heights)) as figure:
        column = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights, sharex=True)
        every: list[Axes] = list(column.flat)
        for axes, panel in zip(every, panels, strict=True):
            _grouped(axes, panel, labels)
        every[-1].set_xlabel(
            "0 = never … 1 = always" if name == "box-ratios" else "1 = as the expert drew it"
        )
        every[-1].set_xticks(np.linspace(0, 1, 6))
        every[-1].set_xlim(0, 1.13)
        handles, told = every[0].get_legend_handles_labels()
        figure.legend(handles, told, loc="outside upper left", ncols=1)
        return svg_text(figure)


def _grouped(axes: Axes, panel: BarPanel, labels: Sequence[str]) -> None:
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x")
    thickness = 0.84 / len(labels)
    for place, (label, values, spreads) in enumerate(
        zip_longest(labels, panel.values, panel.spreads, fillvalue=())
    ):
        lengths = floats(values)
        rows = np.arange(len(panel.groups)) + (place - (len(labels) - 1) / 2) * thickness
        sds = np.nan_to_num(floats(spreads or [None] * len(lengths)))
        axes.barh(
            rows, np.nan_to_num(lengths), height=thickness * 0.9, label=label,
            color=BAR_COLOURS[place % len(BAR_COLOURS)], hatch=HATCHES[place % len(HATCHES)], edgecolor="white",
            linewidth=0,
        )  # fmt: skip
        for row, length, sd in zip(rows, lengths, sds, strict=True):
            told = f"{length:.2f}" if isfinite(length) else "not measured"
            if sd > 0:
                told += f" ± {sd:.2f}"
                axes.plot((length - sd, length + sd), (row, row), color=INK, linewidth=1.1)
            axes.text(np.nan_to_num(length) + sd + 0.01, row, told, va="center", fontsize=7.5)
    axes.set_title(panel.title)
    axes.set_yticks(range(len(panel.groups)), panel.groups)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(panel.groups) - 0.5, -0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One piece of a stacked bar."""

    name: str
    colour: str
    hatch: str
    values: tuple[tuple[float, ...], ...]
    """One row a panel, one value a version."""
    is_left: bool = False
    """Drawn to the left of zero."""


def box_bands(methods: Sequence[BoxedMethod], labels: Sequence[str]) -> str | None:
    """SVG: of the experts' events, how many have a box that fits well, roughly, or none.

    Shares of the experts' boxes; the bands are box IoU in [0.5, 1] and [0.1, 0.5). None without any.
    """
    if not methods or not methods[0].classes:
        return None
    titles = [one.name for one in methods[0].classes]

    def share(c: int, m: int, field: str) -> float:
        one = methods[m].classes[c]
        part, whole = getattr(one, field).mean, one.expert.mean
        return part / whole if part is not None and whole else 0.0

    across, down = range(len(methods)), range(len(titles))
    upper = tuple(tuple(share(c, m, "in_upper_band") for m in across) for c in down)
    lower = tuple(tuple(share(c, m, "in_lower_band") for m in across) for c in down)
    none = tuple(
        tuple(
            max(0.0, 1 - upper[c][m] - lower[c][m]) if methods[m].classes[c].expert.mean else 0.0
            for m in across
        )
        for c in down
    )
    parts = (
        _Part(name="fits well (box IoU 0.5 to 1)", colour="#0072b2", hatch="", values=upper),
        _Part(name="roughly (0.1 to 0.5)", colour="#56b4e9", hatch="////", values=lower),
        _Part(name="no box", colour="#e2e2e2", hatch="---", values=none),
    )
    return _stacked("box-bands", titles, labels, parts, "share of the experts’ events", digits=2)


def error_bars(versions: Sequence[Sequence[ClassErrors]], labels: Sequence[str]) -> str | None:
    """SVG of objects by type of error, a panel a class, a stacked bar a version; None without any object.

    Right of zero, every object the experts drew: right, incomplete, misclassified or missed. Left of it,
    what was invented; a bar longer than all true objects together is cut, and says so.
    """
    if not versions or not any(one.truth + one.invented for version in versions for one in version):
        return None
    titles = [one.name for one in versions[0]]

    def counts(field: str) -> tuple[tuple[float, ...], ...]:
        return tuple(tuple(getattr(version[c], field) for version in versions) for c in range(len(titles)))

    parts = (
        _Part(name="right", colour="#0072b2", hatch="", values=counts("right")),
        _Part(name="incomplete", colour="#56b4e9", hatch="////", values=counts("incomplete")),
        _Part(name="misclassified", colour="#e69f00", hatch="xxxx", values=counts("misclassified")),
        _Part(name="missed", colour="#e2e2e2", hatch="---", values=counts("missed")),
        _Part(name="invented", colour="#cc79a7", hatch="++++", values=counts("invented"), is_left=True),
    )
    return _stacked("error-bars", titles, labels, parts, "objects; left of 0: invented", digits=0)


def _stacked(
    name: str, titles: Sequence[str], labels: Sequence[str], parts: Sequence[_Part], axis: str, digits: int
) -> str:
    """Stacked bars, a panel a title, a row a label; pieces wide enough carry their value."""
    right = max(
        sum(part.values[p][r] for part in parts if not part.is_left)
        for p in range(len(titles))
        for r in range(len(labels))
    )
    most_left = max((max(max(row) for row in part.values) for part in parts if part.is_left), default=0.0)
    # A network that has learned nothing invents thousands: its bar is cut, so that the others can be read.
    left = min(most_left, right) if right else most_left
    height = 1.0 + len(titles) * (0.4 + 0.27 * len(labels))
    with drawing(name, height) as figure:
        column = figure.subplots(len(titles), 1, squeeze=False, sharex=True)
        every: list[Axes] = list(column.flat)
        for p, axes in enumerate(every):
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x")
            begins = np.zeros(len(labels))
            for part in parts:
                widths = np.array(part.values[p], float)
                starts = -widths if part.is_left else begins
                axes.barh(
                    range(len(labels)), widths, left=starts, height=0.76, label=part.name, color=part.colour,
                    hatch=part.hatch, edgecolor="white" if part.colour != "#e2e2e2" else "#9a9a9a", linewidth=0,
                )  # fmt: skip
                for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
                    # Inventions are told however few; a piece too thin for its number is not.
                    if width > 0 and (part.is_left or width >= 0.09 * (left + right)):
                        is_cut = part.is_left and width > left
                        axes.text(
                            -left / 2 if is_cut else start + width / 2, row,
                            f"{'◂ ' if is_cut else ''}{width:.{digits}f}", ha="center", va="center", fontsize=8,
                            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
                        )  # fmt: skip
                if not part.is_left:
                    begins = begins + widths
            if left:
                axes.axvline(0, color=INK, linewidth=0.9)
            axes.set_title(titles[p])
            axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(len(labels) - 0.5, -0.5)
        every[-1].set_xlabel(axis + (" (◂ longer than drawn)" if most_left > left else ""))
        every[-1].set_xlim(-1.06 * left, 1.02 * right if right else 1.0)
        ticks = [tick for tick in every[-1].get_xticks() if -1.06 * left <= tick <= 1.02 * right]
        every[-1].set_xticks(ticks, [f"{abs(tick):g}" for tick in ticks])
        handles, told = every[0].get_legend_handles_labels()
        figure.legend(handles, told, loc="outside upper left", ncols=2, fontsize=8.5)
        return svg_text(figure)
