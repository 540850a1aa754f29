"""Figures of the cycle report: plain data in, SVG text (or PNG bytes of an item) out; nothing is read or written."""

from trainer.report.figures.bars import (
    BarPanel,
    box_bands,
    box_ratios,
    class_bars,
    error_bars,
    grouped_bars,
    metric_bars,
)
from trainer.report.figures.cases import doubt_panel, image_panel, outline_panel
from trainer.report.figures.curves import (
    agreement_curves,
    learning_curve,
    reliability_diagram,
    training_curves,
)
from trainer.report.figures.dots import difference_dots, method_dots
from trainer.report.figures.plate import plate_map
from trainer.report.figures.plots import (
    confusion_matrix_figure,
    doubt_scale,
    human_time_figure,
    rating_violins,
)

__all__ = [
    "BarPanel",
    "agreement_curves",
    "box_bands",
    "box_ratios",
    "class_bars",
    "confusion_matrix_figure",
    "difference_dots",
    "doubt_panel",
    "doubt_scale",
    "error_bars",
    "grouped_bars",
    "human_time_figure",
    "image_panel",
    "learning_curve",
    "method_dots",
    "metric_bars",
    "outline_panel",
    "plate_map",
    "rating_violins",
    "reliability_diagram",
    "training_curves",
]
