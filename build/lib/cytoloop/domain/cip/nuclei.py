"""Nuclei in one channel: interior and boundary, the boundary also between touching nuclei.

Legend: C channels (one: DNA), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu
from skimage.segmentation import find_boundaries

from cytoloop.domain.cip import objects
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.recipe import Range, Recipe, Step, Watch, sieve, without_light

INTERIOR: Final = 1
BOUNDARY: Final = 2

DEFAULTS: Final[Mapping[str, float]] = {
    "sigma": 0.7,
    "otsu": 0.9,
    "area": 20,
    "seed_sigma": 1.0,
    "seed_distance": 5,
}


def label_nuclei(
    flat_CHW: NDArray[np.float32], parameters: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.uint8]:
    """Mask of one field: 0 background, 1 interior, 2 boundary two pixels thick.

    The boundary is the innermost pixel of a nucleus and the outermost pixel around it.

    Parameters
    ----------
    flat_CHW : ndarray of float32, shape (1, H, W)
        Grey values, nuclei bright; uneven light divided out where it is known.
    parameters : mapping
        Every name of ``DEFAULTS``.
    watch : callable, optional
        Told each of ``STEPS``; all but the last are left out where the image has no contrast.
    """
    labels_HW = find_instances(flat_CHW[0], parameters, watch)
    mask_HW = np.where(labels_HW > 0, INTERIOR, 0).astype(np.uint8)
    mask_HW[find_boundaries(labels_HW, mode="thick")] = BOUNDARY
    if watch:
        watch("classes", mask_HW, "classes")
    return mask_HW


def find_instances(
    dna_HW: NDArray[np.float32], p: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.int32]:
    """Nuclei 1…n: above ``otsu`` of the way from the darkest pixel to Otsu's threshold, cut at necks.

    Otsu's own threshold (doi:10.1109/TSMC.1979.4310076) lies inside the edge people draw. Necks are
    found by watershed of the distance transform, seeded at its peaks.
    """
    smooth = op.gaussian_blur(dna_HW, p["sigma"])
    if np.ptp(smooth) <= op.LEAST_CONTRAST * np.abs(smooth).max():
        return np.zeros(smooth.shape, dtype=np.int32)
    dark = smooth.min()
    limit = dark + (threshold_otsu(smooth) - dark) * p["otsu"]
    bright = op.fill_small_holes(smooth > limit, np.inf)
    found = op.remove_small(bright, p["area"])
    depth = objects.depth(found)
    if p["seed_sigma"] > 0:
        depth = op.gaussian_blur(depth, p["seed_sigma"])
    seeds_HW = objects.peaks(depth, found, max(1, int(p["seed_distance"])))
    labels_HW = objects.split_touching(found, depth, seeds_HW)
    # Without a peak of its own a part is a fringe of a thicker neighbour, seen through the smoothing.
    labels_HW[labels_HW > seeds_HW.max()] = 0
    if watch:
        watch("smooth", smooth, "grey")
        watch("found", sieve(bright, found), "sieve")
        watch("instances", labels_HW, "labels")
    return labels_HW


STEPS: Final[Mapping[str, Step]] = {
    "smooth": Step(title="DNA stain, smoothed", text="Gaussian of sigma {sigma} px against noise."),
    "found": Step(
        title="Brighter than the background",
        text="Looks for pixels above {otsu} of the way from the darkest pixel to Otsu's threshold of the "
        "image. Holes are filled. Dropped: fewer than {area} px.",
        channel=0,
    ),
    "instances": Step(
        title="Touching nuclei, cut apart",
        text="Each thick place (a peak of the distance to the edge, smoothed by {seed_sigma} px, at least "
        "{seed_distance} px from a higher one) becomes a nucleus; cuts run along the necks.",
        channel=0,
    ),
    "classes": Step(title="The mask", text="What the recipe says: the weak label of this image."),
}

TUNABLE: Final[Mapping[str, Range]] = {
    "sigma": Range(low=0.3, high=3.0),
    "otsu": Range(low=0.4, high=1.3),
    "area": Range(low=5, high=200, integer=True),
    "seed_sigma": Range(low=0.3, high=5.0),
    "seed_distance": Range(low=2, high=20, integer=True),
}

NUCLEI: Final = Recipe(
    name="nuclei",
    channel_count=1,
    class_count=3,
    defaults=DEFAULTS,
    prepare=without_light,
    prepared_by=frozenset(),
    label=label_nuclei,
    steps=STEPS,
    tunable=TUNABLE,
)
