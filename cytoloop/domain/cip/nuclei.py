"""Nuclei in one channel: interior and boundary, the boundary also between touching nuclei.

Legend: C channels (one: DNA), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import find_boundaries, watershed

from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.recipe import Recipe

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
    image_CHW: NDArray[np.float32],
    parameters: Mapping[str, float],
    illumination_CHW: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Mask of one field: 0 background, 1 interior, 2 boundary two pixels thick.

    The boundary is the innermost pixel of a nucleus and the outermost pixel around it.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (1, H, W)
        Grey values, nuclei bright.
    parameters : mapping
        Every name of ``DEFAULTS``.
    illumination_CHW : optional
        Divided out where given.
    """
    dna_HW = image_CHW[0]
    if illumination_CHW is not None:
        dna_HW = op.flat_field(dna_HW, illumination_CHW[0])
    labels_HW = find_instances(dna_HW, parameters)
    mask_HW = np.where(labels_HW > 0, INTERIOR, 0).astype(np.uint8)
    mask_HW[find_boundaries(labels_HW, mode="thick")] = BOUNDARY
    return mask_HW


def find_instances(dna_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.int32]:
    """Nuclei 1…n: above ``otsu`` of the way from the darkest pixel to Otsu's threshold, cut at necks.

    Otsu's own threshold (doi:10.1109/TSMC.1979.4310076) lies inside the edge people draw. Necks are
    found by watershed of the distance transform, seeded at its peaks.
    """
    smooth = op.gaussian_blur(dna_HW, p["sigma"])
    if np.ptp(smooth) <= op.LEAST_CONTRAST * np.abs(smooth).max():
        return np.zeros(smooth.shape, dtype=np.int32)
    dark = smooth.min()
    limit = dark + (threshold_otsu(smooth) - dark) * p["otsu"]
    found = op.fill_small_holes(smooth > limit, np.inf)
    found = op.remove_small(found, p["area"])
    parts, _ = op.components(found)
    depth = ndimage.distance_transform_edt(found).astype(np.float32)
    if p["seed_sigma"] > 0:
        depth = op.gaussian_blur(depth, p["seed_sigma"])
    peaks = peak_local_max(depth, min_distance=int(p["seed_distance"]), labels=parts, exclude_border=False)
    markers = np.zeros(found.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels_HW: NDArray[np.int32] = watershed(-depth, markers, mask=found).astype(np.int32)
    return labels_HW


NUCLEI: Final = Recipe(
    name="nuclei",
    channel_count=1,
    class_count=3,
    defaults=DEFAULTS,
    run=label_nuclei,
)
