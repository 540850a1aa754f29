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
from cytoloop.domain.cip.recipe import Recipe

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
    image_CHW: NDArray[np.float32],
    parameters: Mapping[str, float],
    illumination_CHW: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Mask of one field: 0 background, 1 cytoplasm, 2 nucleus (which wins where both are).

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (2, H, W)
        Grey values >= 0: cell stain, DNA stain.
    parameters : mapping
        Every name of ``DEFAULTS``.
    illumination_CHW : optional
        Divided out where given; the recipe flattens the background of each image itself.
    """
    if illumination_CHW is not None:
        image_CHW = np.stack([op.flat_field(*pair) for pair in zip(image_CHW, illumination_CHW, strict=True)])
    mask_HW = np.zeros(image_CHW.shape[1:], dtype=np.uint8)
    mask_HW[find_cells(image_CHW[0], parameters)] = CYTOPLASM
    mask_HW[find_nuclei(image_CHW[1], parameters)] = NUCLEUS
    return mask_HW


def find_cells(stain_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.bool_]:
    """Everything brighter than the flattened background by ``cell_margin`` (natural log units)."""
    level = np.log1p(np.maximum(op.gaussian_blur(stain_HW, p["cell_sigma"]), 0))
    level = flatten_background(level, int(p["background_rounds"]))
    if np.ptp(level) <= op.LEAST_CONTRAST:
        return np.zeros(level.shape, dtype=bool)
    cells = op.remove_small(level > threshold_triangle(level) + p["cell_margin"], p["cell_area"])
    return op.fill_small_holes(cells, p["hole_area"])


def find_nuclei(dna_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.bool_]:
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
    labels_HW, count = op.components(op.remove_small(found, p["nucleus_area"]))
    around = objects.ring_outside(labels_HW, p["nucleus_reach"])
    dark = np.nan_to_num(objects.medians(smooth, around, count))
    level = dark + (objects.medians(smooth, labels_HW, count) - dark) * p["nucleus_level"]
    threshold_HW = np.concatenate([[np.inf], level])[labels_HW + around]
    redrawn = op.fill_small_holes(smooth > threshold_HW, np.inf)
    return op.remove_small(redrawn, p["nucleus_area"])


CELLS2CH: Final = Recipe(
    name="cells2ch",
    channel_count=2,
    class_count=3,
    defaults=DEFAULTS,
    run=label_cells2ch,
)
