"""Curves: what the experts' time has bought, what the ranking is worth, how a training went, what a model knows."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from trainer.report import AuditPoint, CalibrationScores, CurvePoint, ReliabilityPoint, TrainingRun
from trainer.report.figures.style import BLUE, GREEN, INK, MARKERS, ORANGE, drawing, floats, svg_text
from trainer.report.ranking import FEWEST_ITEMS

FEWEST_PIXELS = 50
"""Below which a point of a reliability diagram is chance, and not drawn."""


def learning_curve(points: Sequence[CurvePoint]) -> str | None:
    """SVG of mean IoU against the minutes experts have spent; None if no cycle was measured.

    Each dot is one cycle, and the version that served after it.
    """
    series = (
        ("contest items", floats([p.contest_mean_iou for p in points]), BLUE, "o", "-"),
        ("sealed items", floats([p.sealed_mean_iou for p in points]), ORANGE, "s", "--"),
    )
    known = [
        (p.expert_minutes, v) for _, ys, *_ in series for p, v in zip(points, ys, strict=True) if isfinite(v)
    ]
    if not known:
        return None
    with drawing("learning-curve", 2.9) as figure:
        axes: Axes = figure.subplots()
        minutes = [p.expert_minutes for p in points]
        for name, ys, colour, marker, line in series:
            shown = [(x, y) for x, y in zip(minutes, ys, strict=True) if isfinite(y)]
            if shown:
                axes.plot(
                    *zip(*shown, strict=True), color=colour, marker=marker, linestyle=line, label=name,
                    clip_on=False, markersize=5,
                )  # fmt: skip
        axes.set_xlabel("expert time so far (minutes)")
        axes.set_ylabel("mean IoU (1 = as the expert drew it)")
        axes.set_xlim(0, max(1.0, max(x for x, _ in known) * 1.04))
        low = min(y for _, y in known)
        axes.set_ylim(max(0.0, np.floor(low * 10 - 0.5) / 10), 1.0)
        axes.legend(loc="best")
        return svg_text(figure)


def agreement_curves(points: Sequence[AuditPoint]) -> str | None:
    """SVG: mean IoU of proposals with their corrections against expert minutes; None if none was compared.

    One line of items drawn at random, one of ranked items; hollow where a cycle had too few of them to tell.
    """
    series = (
        ("drawn at random", [(p.expert_minutes, p.audit) for p in points], BLUE, "o", "-"),
        ("chosen by the ranking", [(p.expert_minutes, p.ranked) for p in points], ORANGE, "s", "--"),
    )
    known = [
        (name, shown, colour, marker, line)
        for name, agreements, colour, marker, line in series
        if (shown := [(x, a.mean_iou, a.items) for x, a in agreements if a.mean_iou is not None])
    ]
    if not known:
        return None
    with drawing("agreement-curves", 2.9) as figure:
        axes: Axes = figure.subplots()
        for name, shown, colour, marker, line in known:
            axes.plot(
                [x for x, *_ in shown], [y for _, y, _ in shown], color=colour, marker=marker,
                linestyle=line, label=name, clip_on=False, markersize=5,
            )  # fmt: skip
            few = [(x, y) for x, y, items in shown if items < FEWEST_ITEMS]
            axes.plot(
                [x for x, _ in few], [y for _, y in few], color=colour, marker=marker, linestyle="none",
                markerfacecolor="white", clip_on=False, markersize=5,
            )  # fmt: skip
        axes.set_xlabel("expert time so far (minutes)")
        axes.set_ylabel("mean IoU of proposal and correction")
        axes.set_xlim(0, max(1.0, max(x for _, shown, *_ in known for x, *_ in shown) * 1.04))
        low = min(y for _, shown, *_ in known for _, y, _ in shown)
        axes.set_ylim(max(0.0, np.floor(low * 10 - 0.5) / 10), 1.0)
        axes.legend(loc="best")
        return svg_text(figure)


def training_curves(run: TrainingRun) -> str | None:
    """SVG of loss and of clean and weak validation by epoch; None if the run recorded none."""
    if not run.epochs:
        return None
    epochs = [e.epoch for e in run.epochs]
    losses = floats([e.loss for e in run.epochs])
    validation = floats([e.validation_loss for e in run.epochs])
    ious = [
        (name, values, colour, marker, line)
        for name, values, colour, marker, line in (
            ("clean validation (corrections)", floats([e.validation_mean_iou for e in run.epochs]), ORANGE, "s", "--"),
            ("weak validation (CIP’s labels)", floats([e.weak_validation for e in run.epochs]), GREEN, "^", ":"),
        )
        if any(isfinite(v) for v in values)
    ]  # fmt: skip
    with drawing(f"training-{run.version}", 4.2 if ious else 2.4) as figure:
        panels: list[Axes] = list(figure.subplots(2 if ious else 1, 1, sharex=True, squeeze=False).flat)
        panels[0].plot(epochs, losses, color=BLUE, marker="o", markersize=3.5, label="training")
        if any(isfinite(v) for v in validation):
            panels[0].plot(
                epochs, validation, color=ORANGE, marker="s", markersize=3.5, linestyle="--", label="validation"
            )  # fmt: skip
        panels[0].set_ylabel("loss (no unit)")
        for name, values, colour, marker, line in ious:
            panels[1].plot(
                epochs, values, color=colour, marker=marker, markersize=4, linestyle=line, label=name
            )
            panels[1].set_ylabel("mean IoU (0–1)")
        if run.chosen_epoch is not None:
            for panel in panels:
                panel.axvline(run.chosen_epoch, color=INK, linewidth=0.9, linestyle="-.", label="epoch kept")
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].legend(loc="best")
        if ious:
            handles, names = panels[1].get_legend_handles_labels()
            # the line of the epoch kept is named above
            panels[1].legend(handles[: len(ious)], names[: len(ious)], loc="best")
        return svg_text(figure)


def reliability_diagram(scores: CalibrationScores) -> str | None:
    """SVG: how often the model is right, against how sure it was; None without pixels given to a class.

    Below it, how many pixels each point stands for. Points of fewer than 50 pixels are left out.
    """
    series = [("all drawn classes", scores.foreground, INK)]
    colours = (BLUE, ORANGE, GREEN, "#cc79a7", "#56b4e9", "#e69f00")
    for place, one in enumerate(scores.classes[1:]):
        series.append((one.name, one.points, colours[place % len(colours)]))
    shown = [(name, told, colour) for name, points, colour in series if (told := _told(points))]
    if not shown:
        return None
    with drawing(f"reliability-{scores.version}", 4.6) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot((0, 1), (0, 1), color=INK, linewidth=0.8, linestyle=":", label="as often right as sure")
        for place, (name, told, colour) in enumerate(shown):
            upper.plot(
                [p.confidence for p in told], [p.accuracy for p in told], color=colour, label=name,
                marker=MARKERS[place % len(MARKERS)], markersize=4.5, linewidth=2 if place == 0 else 1,
                linestyle="-" if place == 0 else "--", clip_on=False,
            )  # fmt: skip
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.set_ylabel("share of pixels that are right")
        upper.legend(loc="upper left", fontsize=8)
        bins = scores.foreground
        lower.bar(
            [(p.lower + p.upper) / 2 for p in bins], [p.pixels for p in bins],
            width=0.8 / max(1, len(bins)), color="#999999",
        )  # fmt: skip
        lower.set_yscale("symlog", linthresh=10)
        lower.set_ylim(bottom=0)
        ticks = {0: "0", 100: "100", 10_000: "10 000", 1_000_000: "1 million"}
        most = max(p.pixels for p in bins)
        shown_ticks = [tick for tick in ticks if tick <= most]
        lower.set_yticks(shown_ticks, [ticks[tick] for tick in shown_ticks])
        lower.minorticks_off()
        lower.set_ylabel("pixels")
        lower.set_xlabel("how sure the model was")
        return svg_text(figure)


def _told(points: Sequence[ReliabilityPoint]) -> list[ReliabilityPoint]:
    return [p for p in points if p.pixels >= FEWEST_PIXELS and p.confidence is not None]
