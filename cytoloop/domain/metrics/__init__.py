"""How a mask is judged against the truth: pixels, boundaries, and their summary over many images."""

from cytoloop.domain.metrics.boundary import (
    BoundaryScores,
    boundary_of,
    boundary_scores,
    boundary_tolerance,
)
from cytoloop.domain.metrics.pixels import (
    PixelMetrics,
    confusion_matrix,
    iou_of,
    mean_ignoring_nan,
    pixel_metrics,
)
from cytoloop.domain.metrics.summary import (
    ClassMetrics,
    DatasetMetrics,
    Evaluation,
    ImageMetrics,
    evaluate,
    number_or_none,
)

__all__ = [
    "BoundaryScores",
    "ClassMetrics",
    "DatasetMetrics",
    "Evaluation",
    "ImageMetrics",
    "PixelMetrics",
    "boundary_of",
    "boundary_scores",
    "boundary_tolerance",
    "confusion_matrix",
    "evaluate",
    "iou_of",
    "mean_ignoring_nan",
    "number_or_none",
    "pixel_metrics",
]
