"""A plate as seen from above: each well in the colour of what was measured in it."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Circle

from trainer.report.figures.style import FAINT, INK, drawing, svg_text
from trainer.report.wells import WellScore, format_of, place_of

_WORTH_WRITING = 12
"""Columns up to which a number fits into a well."""
_LIGHT_FROM = 0.6


def plate_map(wells: Sequence[WellScore]) -> str | None:
    """SVG of a plate: colour and number are the mean IoU, a grey well is corrected and not judged, an empty circle is
    imaged; None where no well has a place, or nothing is corrected."""
    placed = [(place, one) for one in wells if (place := place_of(one.well)) is not None]
    size = format_of([place for place, _ in placed])
    if size is None or not any(one.corrected for _, one in placed):
        return None
    rows, columns = size
    colours = matplotlib.colormaps["cividis"]
    with drawing("plate-map", 0.9 + 4.2 * rows / columns, width=5.0) as figure:
        axes: Axes = figure.subplots()
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        for (row, column), one in placed:
            face = "none"
            if one.mean_iou is not None:
                face = matplotlib.colors.to_hex(colours(one.mean_iou))
            elif one.corrected:
                face = "#b4bac0"
            axes.add_patch(
                Circle(
                    (column, row),
                    0.42,
                    facecolor=face,
                    edgecolor=INK if one.corrected else FAINT,
                    linewidth=0.7,
                )
            )
            if one.mean_iou is not None and columns <= _WORTH_WRITING:
                ink = INK if one.mean_iou >= _LIGHT_FROM else "#ffffff"
                axes.text(
                    column, row, f"{one.mean_iou:.2f}", ha="center", va="center", fontsize=6.5, color=ink
                )
        axes.set_xlim(-0.6, columns - 0.4)
        axes.set_ylim(rows - 0.4, -0.6)
        axes.set_aspect("equal")
        every = 1 if columns <= _WORTH_WRITING else 2
        axes.set_xticks(range(0, columns, every), [str(n + 1) for n in range(0, columns, every)], fontsize=7)
        axes.set_yticks(range(0, rows, every), [_letters(n) for n in range(0, rows, every)], fontsize=7)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        if any(one.mean_iou is not None for _, one in placed):
            bar = figure.colorbar(
                ScalarMappable(Normalize(0, 1), colours),
                ax=axes,
                orientation="horizontal",
                fraction=0.05,
                pad=0.04,
            )
            bar.set_label("mean IoU (1 = as the expert drew it)", fontsize=8)
            bar.ax.tick_params(labelsize=7)
        return svg_text(figure)


def _letters(row: int) -> str:
    return chr(ord("A") + row) if row < 26 else f"A{chr(ord('A') + row - 26)}"
