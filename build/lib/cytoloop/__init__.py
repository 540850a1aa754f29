"""cytoloop: from conventional image processing to an expert-grade segmentation model, in a loop."""

__version__ = "0.1.0"
