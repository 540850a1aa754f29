"""Rosella: phagophores and autolysosomes from pHluorin (green) and DsRed (red), 16 bit.

A per-plane 2-D port of the published pipeline behind Garcia Santa Cruz et al. 2022
(doi:10.1038/s41598-022-15623-7). DsRed marks every autophagic structure; pHluorin is quenched by
acid, so a structure with both colours is a phagophore and one in red alone an autolysosome.

Thresholds of the difference of Gaussians, the top-hat and the 75th percentiles are in grey values
of a deconvolved channel whose brightest pixel is 65 535; ratio, acidic rings and the floor use the
flat-fielded raw channels. The relative scale is the recipe's weakness as much as its strength: one
bright speck hides the rest of a dim field.

The ratio is meant without the camera's offset, which the published numbers leave in: tell
``camera_offset`` where it is known. With the offset told (110), simulated fields give a mean IoU of
0.60 to 0.62. The acidic dips (``find_acid``) take gaps between cells for acid there and cost some
0.03; real fields may differ, so they stay.

Legend: C channels (0 green, 1 red), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.cip import objects
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.recipe import Recipe

PHAGOPHORE: Final = 1
AUTOLYSOSOME: Final = 2

DEFAULTS: Final[Mapping[str, float]] = {
    # Preparation. At 60x/1.2 and 0.2152 um a pixel diffraction alone gives a sigma near 0.5 px;
    # light from out of focus about doubles it.
    "camera_offset": 0.0,
    "psf_sigma": 1.0,
    "iterations": 10,
    "scale_percentile": 100.0,
    # Red, small: puncta.
    "red_narrow": 1.0,
    "red_wide": 7.0,
    "red_threshold": 400.0,
    "tophat_radius": 25,
    "tophat_threshold": 1200.0,
    "tophat_area": 500,
    "tophat_covered": 0.10,
    "red_area": 7,
    # Red, big: discs.
    "big_narrow": 1.0,
    "big_wide": 6.0,
    "big_threshold": 1000.0,
    "big_area": 200,
    "big_area_max": 2000,
    # Green.
    "green_narrow": 1.0,
    "green_wide": 5.0,
    "green_threshold": 1000.0,
    "green_log_sigma": 1.0,
    "green_log_threshold": 2000.0,
    "green_area": 10,
    # Ratio and acidic rings.
    "ratio_sigma": 2.0,
    "acid_radius": 15,
    "acid_threshold": 1.5,
    "acid_ring": 7,
    "acid_contrast": 1.5,
    "acid_area": 100,
    # Classes.
    "red_floor": 300.0,
    "share": 0.25,
    "share_without_green": 0.10,
    "neutral_ratio": 2.0,
    "bright_green": 7500.0,
    "bright_red": 4000.0,
    "centre_contrast": 1.25,
}


def label_rosella(
    image_CHW: NDArray[np.float32],
    parameters: Mapping[str, float],
    illumination_CHW: NDArray[np.float32] | None,
) -> NDArray[np.uint8]:
    """Mask of one field: 0 background, 1 phagophore, 2 autolysosome.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (2, H, W)
        Raw 16-bit grey values: pHluorin, DsRed.
    parameters : mapping
        Every name of ``DEFAULTS``.
    illumination_CHW : ndarray of float32, shape (2, H, W), optional
        Mean 1 per channel; None leaves the field as it is.
    """
    p = parameters
    raw_CHW = np.maximum(image_CHW - np.float32(p["camera_offset"]), 0)
    if illumination_CHW is not None:
        raw_CHW = np.stack([op.flat_field(*pair) for pair in zip(raw_CHW, illumination_CHW, strict=True)])
    green_raw, red_raw = raw_CHW[0], raw_CHW[1]
    green, red = (_sharpen(channel_HW, p) for channel_HW in (green_raw, red_raw))

    red_mask = find_red(red, p)
    green_mask = find_green(green, p)
    ratio = green_to_red(green_raw, red_raw, p["ratio_sigma"])
    acid_mask = find_acid(ratio, green_raw, p)

    labels_HW, count = op.components(red_mask | acid_mask)
    labels_HW, count = op.components(
        op.keep_objects(labels_HW, objects.means(red_raw, labels_HW, count) > p["red_floor"])
    )
    kind = _classes(labels_HW, count, red_mask, green_mask, acid_mask, ratio, green_raw, green, red, p)
    return kind[labels_HW]


def _sharpen(raw_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.float32]:
    sharp = op.richardson_lucy(raw_HW, p["psf_sigma"], int(p["iterations"]))
    return op.rescale_to_peak(sharp, p["scale_percentile"])


def find_red(red_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.bool_]:
    """Red structures: puncta and discs of a deconvolved, rescaled channel."""
    small = op.difference_of_gaussians(red_HW, p["red_narrow"], p["red_wide"]) > p["red_threshold"]
    tophat = op.white_tophat_disk(red_HW, int(p["tophat_radius"])) > p["tophat_threshold"]
    candidates, count = op.components(op.remove_small(tophat, p["tophat_area"] + 1))
    # A candidate the puncta already fill would only melt them together; its overlap is in `small`.
    unseen = objects.means(small, candidates, count) <= p["tophat_covered"]
    small = op.remove_small(small | op.keep_objects(candidates, unseen), p["red_area"])

    big = op.difference_of_gaussians(red_HW, p["big_narrow"], p["big_wide"]) > p["big_threshold"]
    big = op.remove_touching_border(op.keep_areas(big, p["big_area"], p["big_area_max"]))
    return op.remove_small(objects.split_by_seeds(big, small) | small, p["red_area"])


def find_green(green_HW: NDArray[np.float32], p: Mapping[str, float]) -> NDArray[np.bool_]:
    """Green structures of a deconvolved, rescaled channel."""
    band = op.difference_of_gaussians(green_HW, p["green_narrow"], p["green_wide"]) > p["green_threshold"]
    spots = op.laplacian_of_gaussian(green_HW, p["green_log_sigma"]) < -p["green_log_threshold"]
    return op.remove_small(band | op.remove_small(spots, p["green_area"]), p["green_area"])


def green_to_red(
    green_HW: NDArray[np.float32], red_HW: NDArray[np.float32], sigma: float
) -> NDArray[np.float32]:
    """Ratio of the smoothed raw channels, finite everywhere; low means acidic.

    Where red is 0, the ratio is the 99th percentile of the finite ones (green alone) or their
    first (no light at all). Without any finite ratio it is 0.
    """
    green, red = op.gaussian_blur(green_HW, sigma), op.gaussian_blur(red_HW, sigma)
    ratio = np.full_like(green, np.nan)
    np.divide(green, red, out=ratio, where=red > 0)
    finite = np.isfinite(ratio)
    low, high = np.percentile(ratio[finite], (1, 99)) if finite.any() else (0.0, 0.0)
    result: NDArray[np.float32] = np.where(finite, ratio, np.where(green > 0, high, low)).astype(np.float32)
    return result


def find_acid(
    ratio_HW: NDArray[np.float32], green_HW: NDArray[np.float32], p: Mapping[str, float]
) -> NDArray[np.bool_]:
    """Acidic discs and rings: dips of the ratio whose surroundings are greener than they are."""
    dips = op.white_tophat_disk(-ratio_HW, int(p["acid_radius"])) > p["acid_threshold"]
    labels_HW, count = op.components(dips)
    inside = objects.medians(green_HW, labels_HW, count)
    outside = objects.medians(green_HW, objects.ring_outside(labels_HW, p["acid_ring"]), count)
    keep = (outside > p["acid_contrast"] * inside) & (objects.areas(labels_HW, count) >= p["acid_area"])
    return op.keep_objects(labels_HW, keep)


def _classes(
    labels_HW: NDArray[np.int32],
    count: int,
    red_mask: NDArray[np.bool_],
    green_mask: NDArray[np.bool_],
    acid_mask: NDArray[np.bool_],
    ratio: NDArray[np.float32],
    green_raw: NDArray[np.float32],
    green: NDArray[np.float32],
    red: NDArray[np.float32],
    p: Mapping[str, float],
) -> NDArray[np.uint8]:
    """Class of each label, shape (count + 1,); comparisons with NaN (no pixel there) are false."""
    in_red = objects.means(red_mask, labels_HW, count)
    in_green = objects.means(green_mask, labels_HW, count)
    acid = objects.means(acid_mask, labels_HW, count) > 0
    q = objects.medians(ratio, labels_HW, count)
    bright = (objects.quantiles(green, labels_HW, count, 0.75) > p["bright_green"]) & (
        objects.quantiles(red, labels_HW, count, 0.75) > p["bright_red"]
    )
    centre = objects.medians(green_raw, objects.centre(labels_HW, count), count)
    rim = objects.medians(green_raw, objects.rim(labels_HW), count)
    outside = objects.medians(green_raw, objects.ring_outside(labels_HW, 1), count)

    yellow = (in_green > p["share"]) & (in_red > p["share"]) & (q >= p["neutral_ratio"]) & ~acid
    phagophore = yellow | (bright & ~acid) | (centre > p["centre_contrast"] * outside)
    red_only = (in_red > p["share"]) & (in_green < p["share_without_green"])
    autolysosome = ~phagophore & (red_only | (q <= p["neutral_ratio"]) | (centre <= rim))

    kind = np.zeros(count + 1, dtype=np.uint8)
    kind[1:][phagophore] = PHAGOPHORE
    kind[1:][autolysosome] = AUTOLYSOSOME
    return kind


ROSELLA: Final = Recipe(
    name="rosella",
    channel_count=2,
    class_count=3,
    defaults=DEFAULTS,
    run=label_rosella,
    uses_illumination=True,
)
