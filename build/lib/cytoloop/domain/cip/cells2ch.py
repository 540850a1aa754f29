"""Cells in two channels: cytoplasm from a cell stain, nuclei from a DNA stain.

Made for images that were stretched one by one: every threshold comes from the image itself. Cells
are found on log grey values, where a few very bright dying cells weigh little and vignetting is a
sum; the triangle threshold (Zack et al. 1977, doi:10.1177/25.7.70454) suits a background that is
one tall peak with a long tail of cells to its right. Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu, threshold_triangle

from cytoloop.domain.cip import objects
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.illumination import flatten_background
from cytoloop.domain.cip.recipe import Range, Recipe, Step, Watch, sieve, without_light

CYTOPLASM: Final = 1
NUCLEUS: Final = 2

DEFAULTS: Final[Mapping[str, float]] = {
    "cell_sigma": 1.5,
    "background_rounds": 2,
    "cell_margin": 0.05,
    "cell_area": 500,
    "hole_area": 400,
    "nucleus_narrow": 1.0,
    "nucleus_wide": 40.0,
    "nucleus_otsu": 0.8,
    "nucleus_level": 0.35,
    "nucleus_reach": 5,
    "nucleus_area": 60,
}


def label_cells2ch(
    flat_CHW: NDArray[np.float32], parameters: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.uint8]:
    """Mask of one field: 0 background, 1 cytoplasm, 2 nucleus (which wins where both are).

    Parameters
    ----------
    flat_CHW : ndarray of float32, shape (2, H, W)
        Grey values >= 0: cell stain, DNA stain. The illumination may be divided out or not: the
        recipe flattens the background of each image itself.
    parameters : mapping
        Every name of ``DEFAULTS``.
    watch : callable, optional
        Told each of ``STEPS``; those of a channel without contrast are left out.
    """
    mask_HW = np.zeros(flat_CHW.shape[1:], dtype=np.uint8)
    mask_HW[find_cells(flat_CHW[0], parameters, watch)] = CYTOPLASM
    mask_HW[find_nuclei(flat_CHW[1], parameters, watch)] = NUCLEUS
    if watch:
        watch("classes", mask_HW, "classes")
    return mask_HW


def find_cells(
    stain_HW: NDArray[np.float32], p: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.bool_]:
    """Everything brighter than the flattened background by ``cell_margin`` (natural log units)."""
    level = np.log1p(np.maximum(op.gaussian_blur(stain_HW, p["cell_sigma"]), 0))
    level = flatten_background(level, int(p["background_rounds"]))
    if np.ptp(level) <= op.LEAST_CONTRAST:
        return np.zeros(level.shape, dtype=bool)
    bright = level > threshold_triangle(level) + p["cell_margin"]
    cells = op.remove_small(bright, p["cell_area"])
    filled = op.fill_small_holes(cells, p["hole_area"])
    if watch:
        watch("cell-level", level, "grey")
        watch("cells", sieve(bright, cells), "sieve")
        watch("cells-filled", filled, "mask")
    return filled


def find_nuclei(
    dna_HW: NDArray[np.float32], p: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.bool_]:
    """Nuclei, each with an edge of its own.

    Otsu's threshold on a difference of Gaussians finds them, but cuts dim ones too small and
    bright ones too large; then each is redrawn, up to ``nucleus_reach`` pixels around it, at
    ``nucleus_level`` of the way from its surroundings' median to its own.
    """
    smooth = op.gaussian_blur(dna_HW, p["nucleus_narrow"])
    band = smooth - op.gaussian_blur(dna_HW, p["nucleus_wide"])
    if np.ptp(band) <= op.LEAST_CONTRAST * np.abs(smooth).max():
        return np.zeros(band.shape, dtype=bool)
    found = op.fill_small_holes(band > threshold_otsu(band) * p["nucleus_otsu"], np.inf)
    large = op.remove_small(found, p["nucleus_area"])
    labels_HW, count = op.components(large)
    around = objects.ring_outside(labels_HW, p["nucleus_reach"])
    dark = np.nan_to_num(objects.medians(smooth, around, count))
    level = dark + (objects.medians(smooth, labels_HW, count) - dark) * p["nucleus_level"]
    threshold_HW = np.concatenate([[np.inf], level])[labels_HW + around]
    redrawn = op.fill_small_holes(smooth > threshold_HW, np.inf)
    nuclei = op.remove_small(redrawn, p["nucleus_area"])
    if watch:
        watch("nucleus-band", band, "grey")
        watch("nuclei-found", sieve(found, large), "sieve")
        watch("nuclei", sieve(redrawn, nuclei), "sieve")
    return nuclei


STEPS: Final[Mapping[str, Step]] = {
    "cell-level": Step(
        title="Cell stain on a log scale, background flattened",
        text="Smoothed (sigma {cell_sigma} px), logarithm, and uneven light removed by a smooth surface fitted "
        "to the background in {background_rounds} rounds.",
    ),
    "cells": Step(
        title="Brighter than the background",
        text="Looks for pixels above the image's own triangle threshold plus {cell_margin} (log units). "
        "Dropped: fewer than {cell_area} px.",
        channel=0,
    ),
    "cells-filled": Step(
        title="Cells", text="Holes of up to {hole_area} px are filled; larger ones are gaps.", channel=0
    ),
    "nucleus-band": Step(
        title="DNA stain without its surroundings",
        text="Difference of Gaussians ({nucleus_narrow} − {nucleus_wide} px): what is bright beside its "
        "neighbourhood.",
    ),
    "nuclei-found": Step(
        title="Nuclei, first look",
        text="Above {nucleus_otsu} times Otsu's threshold of that picture. Dropped: fewer than "
        "{nucleus_area} px.",
        channel=1,
    ),
    "nuclei": Step(
        title="Nuclei, redrawn one by one",
        text="Each edge lies {nucleus_level} of the way from its surroundings ({nucleus_reach} px) to its own "
        "brightness. Dropped: fewer than {nucleus_area} px.",
        channel=1,
    ),
    "classes": Step(title="The mask", text="What the recipe says: the weak label of this image."),
}

TUNABLE: Final[Mapping[str, Range]] = {
    "cell_sigma": Range(low=0.5, high=4.0),
    "cell_margin": Range(low=0.005, high=0.6),
    "cell_area": Range(low=50, high=4000, integer=True),
    "hole_area": Range(low=20, high=4000, integer=True),
    "nucleus_narrow": Range(low=0.5, high=3.0),
    "nucleus_wide": Range(low=10, high=120),
    "nucleus_otsu": Range(low=0.3, high=1.5),
    "nucleus_level": Range(low=0.1, high=0.8),
    "nucleus_area": Range(low=15, high=400, integer=True),
}

CELLS2CH: Final = Recipe(
    name="cells2ch",
    channel_count=2,
    class_count=3,
    defaults=DEFAULTS,
    prepare=without_light,
    prepared_by=frozenset(),
    label=label_cells2ch,
    steps=STEPS,
    tunable=TUNABLE,
)
