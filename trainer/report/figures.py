"""Figures of the cycle report: SVG for curves and bars, PNG for pictures of items.

Drawn about as wide as a phone's screen, so that their text stays readable there. Colours are of the
Okabe–Ito palette, which colour-blind readers can tell apart, and never carry a meaning alone.
Figures are made without ``pyplot``, which would keep every one of them in memory.

Legend: H rows, W columns of an item.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, nan
from typing import TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageColor

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics import boundary_of
from trainer.report import CurvePoint, TrainingRun, VersionScores

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
BAR_COLOURS = ("#999999", "#56b4e9", "#e69f00", "#0072b2", "#009e73", "#cc79a7")
_INK, _FAINT = "#33393f", "#d9dde1"
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a class may be called "a$b"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_PANEL_TARGET = 480  # pixels: small items are enlarged, large images thinned, to about this width
_GAP = 8


_Scalar = TypeVar("_Scalar", bound=np.generic)


@contextmanager
def _drawing(name: str, height: float) -> Iterator[Figure]:
    """A figure in the house style; the name makes its SVG the same in every run."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.2, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _values(numbers: Sequence[float | None]) -> list[float]:
    return [nan if number is None else float(number) for number in numbers]


def learning_curve(points: Sequence[CurvePoint]) -> str | None:
    """SVG of mean IoU against the minutes experts have spent; None if no cycle was measured.

    Each dot is one cycle, and the version that served after it.
    """
    series = (
        ("contest items", _values([p.contest_mean_iou for p in points]), BLUE, "o", "-"),
        ("sealed items", _values([p.sealed_mean_iou for p in points]), ORANGE, "s", "--"),
    )
    known = [
        (p.expert_minutes, v) for _, ys, *_ in series for p, v in zip(points, ys, strict=True) if isfinite(v)
    ]
    if not known:
        return None
    with _drawing("learning-curve", 2.9) as figure:
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
        return _svg(figure)


def training_curves(run: TrainingRun) -> str | None:
    """SVG of loss and validation by epoch; None if the run recorded none."""
    if not run.epochs:
        return None
    epochs = [e.epoch for e in run.epochs]
    losses = _values([e.loss for e in run.epochs])
    validation = _values([e.validation_loss for e in run.epochs])
    ious = _values([e.validation_mean_iou for e in run.epochs])
    has_iou = any(isfinite(v) for v in ious)
    with _drawing(f"training-{run.version}", 3.6 if has_iou else 2.4) as figure:
        panels: list[Axes] = list(figure.subplots(1 + has_iou, 1, sharex=True, squeeze=False).flat)
        panels[0].plot(epochs, losses, color=BLUE, marker=".", label="training")
        if any(isfinite(v) for v in validation):
            panels[0].plot(epochs, validation, color=ORANGE, marker=".", linestyle="--", label="validation")
        panels[0].set_ylabel("loss (no unit)")
        if has_iou:
            panels[1].plot(epochs, ious, color=ORANGE, marker=".", linestyle="--", label="validation")
            panels[1].set_ylabel("mean IoU (0–1)")
        if run.chosen_epoch is not None:
            for panel in panels:
                panel.axvline(run.chosen_epoch, color=_INK, linewidth=0.9, linestyle=":", label="epoch kept")
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        panels[0].legend(loc="best")
        return _svg(figure)


def class_bars(scores: Sequence[VersionScores], labels: Sequence[str]) -> str | None:
    """SVG of IoU per class, one bar a version; None if there is nothing to compare.

    Parameters
    ----------
    scores : sequence of VersionScores
        Of one split, with the same classes.
    labels : sequence of str
        What each version is called in the legend.
    """
    if not scores or not scores[0].classes:
        return None
    names = [one.name for one in scores[0].classes]
    with _drawing("class-bars", 0.8 + 0.2 * len(scores) + len(names) * (0.2 * len(scores) + 0.2)) as figure:
        axes: Axes = figure.subplots()
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x")
        thickness = 0.8 / len(scores)
        for place, (version, label) in enumerate(zip(scores, labels, strict=True)):
            by_name = {one.name: one.iou for one in version.classes}
            lengths = _values([by_name.get(name) for name in names])
            rows = np.arange(len(names)) + (place - (len(scores) - 1) / 2) * thickness
            axes.barh(
                rows, np.nan_to_num(lengths), height=thickness * 0.9, label=label,
                color=BAR_COLOURS[place % len(BAR_COLOURS)],
            )  # fmt: skip
            for row, length in zip(rows, lengths, strict=True):
                told = f"{length:.2f}" if isfinite(length) else "not measured"
                axes.text(np.nan_to_num(length) + 0.01, row, told, va="center", fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_xlabel("IoU (1 = as the expert drew it)")
        figure.legend(loc="outside upper left", ncols=1)
        return _svg(figure)


def case_picture(
    composite_HW3: NDArray[np.uint8],
    truth_HW: NDArray[np.uint8],
    pred_HW: NDArray[np.uint8],
    colours: Sequence[str],
) -> bytes:
    """PNG of three panels side by side: the image, the predicted outlines, the expert's outlines.

    Outlines run just outside the objects, so that no pixel of an object is hidden. What nobody looked
    at (255 in the truth) is greyed in the panels with outlines.

    Parameters
    ----------
    composite_HW3 : ndarray of uint8, shape (H, W, 3)
        The item as the editor shows it, RGB.
    truth_HW, pred_HW : ndarray of uint8, shape (H, W)
        Label masks: 0…K-1, or 255.
    colours : sequence of str
        ``#rrggbb`` by pixel value; the background's is not used.

    Returns
    -------
    bytes
        PNG; items narrower than about 480 px are enlarged by a whole number, wider ones thinned.

    Raises
    ------
    ShapeError
        If the three do not have the same rows and columns.
    """
    if composite_HW3.ndim != 3 or composite_HW3.shape[2] != 3 or composite_HW3.dtype != np.uint8:
        raise ShapeError(
            f"composite is {composite_HW3.dtype} {composite_HW3.shape}, expected uint8 (H, W, 3)"
        )
    for name, mask in (("truth", truth_HW), ("prediction", pred_HW)):
        if mask.shape != composite_HW3.shape[:2]:
            raise ShapeError(f"{name} {mask.shape}, image {composite_HW3.shape[:2]}: expected one shape")
    ignored_HW = truth_HW == IGNORE
    panels = [_fit(composite_HW3)]
    for mask_HW in (pred_HW, truth_HW):
        panel = (panels[0] * 0.6).astype(np.uint8)  # dimmed, so that outlines stand out
        unseen = _fit(ignored_HW)
        panel[unseen] = panel[unseen] // 2 + 90
        labels = _fit(mask_HW)
        for value, colour in tuple(enumerate(colours))[1:]:
            # The boundary of everything else, seen from the object: the ring around it. Padding keeps
            # the picture's own edge from being taken for a boundary.
            outside = np.pad(labels != value, 1, mode="edge")
            ring = boundary_of(outside)[1:-1, 1:-1] & (labels != value)
            panel[ring] = ImageColor.getrgb(colour)[:3]
        panels.append(panel)
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    picture = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _fit(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Enlarge or thin rows and columns by one whole number, without inventing values."""
    width = array.shape[1]
    if width > 1.5 * _PANEL_TARGET:
        step = round(width / _PANEL_TARGET)
        return array[::step, ::step]
    times = max(1, round(_PANEL_TARGET / width))
    return array.repeat(times, axis=0).repeat(times, axis=1)
