"""The house style of figures: colours, marks, and how a drawing becomes SVG text.

Drawn about as wide as a phone's screen, so that their text stays readable there. Colours are of the
Okabe–Ito palette, which colour-blind readers can tell apart, and never carry a meaning alone: bars
have hatches, lines have marks, values are written beside them. Figures are made without ``pyplot``, which
would keep every one of them in memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import nan

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
BAR_COLOURS = ("#999999", "#56b4e9", "#e69f00", "#0072b2", "#009e73", "#cc79a7")
HATCHES = ("", "////", "---", "\\\\\\\\", "xxxx", "|||")
"""Beside the colours, in the same order: what is left of them in a grey print. No dots: an SVG
spells out each of them in curves."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK, FAINT = "#33393f", "#d9dde1"
WIDTH = 4.2
"""Inches."""
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a class may be called "a$b"
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


@contextmanager
def drawing(name: str, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """A figure in the house style, in inches; the name makes its SVG the same in every run."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def svg_text(figure: Figure) -> str:
    """The drawing as an ``<svg>`` element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def floats(numbers: Sequence[float | None]) -> list[float]:
    """Numbers for matplotlib, which leaves out NaN."""
    return [nan if number is None else float(number) for number in numbers]
