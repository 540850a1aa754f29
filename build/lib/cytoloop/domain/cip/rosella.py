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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.cip import objects
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.recipe import DROPPED, Range, Recipe, Step, Watch, sieve, without_light

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


def prepare_rosella(
    image_CHW: NDArray[np.float32],
    parameters: Mapping[str, float],
    illumination_CHW: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Flat-fielded and deconvolved channels of one field.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (2, H, W)
        Raw 16-bit grey values: pHluorin, DsRed.
    parameters : mapping
        Every name of ``DEFAULTS``.
    illumination_CHW : ndarray of float32, shape (2, H, W), optional
        Mean 1 per channel; None leaves the field as it is.

    Returns
    -------
    ndarray of float32, shape (4, H, W)
        Flat-fielded pHluorin and DsRed, then both deconvolved; grey values >= 0.
    """
    p = parameters
    raw_CHW = np.maximum(image_CHW - np.float32(p["camera_offset"]), 0)
    raw_CHW = without_light(raw_CHW, p, illumination_CHW)
    sharp = [op.richardson_lucy(raw_HW, p["psf_sigma"], int(p["iterations"])) for raw_HW in raw_CHW]
    return np.concatenate([raw_CHW, np.stack(sharp)])


def label_prepared(
    prepared_CHW: NDArray[np.float32], parameters: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.uint8]:
    """Mask of one prepared field: 0 background, 1 phagophore, 2 autolysosome.

    Parameters
    ----------
    prepared_CHW : ndarray of float32, shape (4, H, W)
        What ``prepare_rosella`` gave.
    parameters : mapping
        Every name of ``DEFAULTS``.
    watch : callable, optional
        Told each of ``STEPS``.
    """
    p = parameters
    green_raw, red_raw = prepared_CHW[:2]
    green, red = (op.rescale_to_peak(sharp_HW, p["scale_percentile"]) for sharp_HW in prepared_CHW[2:])
    if watch:
        watch("flat-field-green", green_raw, "grey")
        watch("flat-field-red", red_raw, "grey")
        watch("sharp-green", green, "grey")
        watch("sharp-red", red, "grey")

    red_mask = find_red(red, p, watch)
    green_mask = find_green(green, p, watch)
    ratio = green_to_red(green_raw, red_raw, p["ratio_sigma"])
    if watch:
        watch("ratio", ratio, "grey")
    acid_mask = find_acid(ratio, green_raw, p, watch)

    found_HW, found = op.components(red_mask | acid_mask)
    mean_red = objects.means(red_raw, found_HW, found)
    kept_HW = op.keep_objects(found_HW, mean_red > p["red_floor"])
    labels_HW, count = op.components(kept_HW)
    measures = _measure(labels_HW, count, red_mask, green_mask, acid_mask, ratio, green_raw, green, red)
    kind = _classes(measures, p)
    mask_HW = kind[labels_HW]
    if watch:
        watch("floor", sieve(found_HW > 0, kept_HW), "sieve")
        watch("class-rule", sieve(kept_HW, mask_HW > 0), "sieve")
        dim = _dropped(found_HW, mean_red <= p["red_floor"], "too dim in red", _told_dim(mean_red, p))
        unclear = _dropped(labels_HW, kind[1:] == 0, "fits neither class", _told_unclear(measures, p))
        watch("dropped", np.concatenate([dim, unclear]), "dropped")
        watch("classes", mask_HW, "classes")
    return mask_HW


def find_red(
    red_HW: NDArray[np.float32], p: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.bool_]:
    """Red structures: puncta and discs of a deconvolved, rescaled channel."""
    puncta = op.difference_of_gaussians(red_HW, p["red_narrow"], p["red_wide"]) > p["red_threshold"]
    tophat = op.white_tophat_disk(red_HW, int(p["tophat_radius"])) > p["tophat_threshold"]
    candidates, count = op.components(op.remove_small(tophat, p["tophat_area"] + 1))
    # A candidate the puncta already fill would only melt them together; its overlap is in `puncta`.
    unseen = objects.means(puncta, candidates, count) <= p["tophat_covered"]
    patches = op.keep_objects(candidates, unseen)
    small = op.remove_small(puncta | patches, p["red_area"])

    discs = op.difference_of_gaussians(red_HW, p["big_narrow"], p["big_wide"]) > p["big_threshold"]
    big = op.remove_touching_border(op.keep_areas(discs, p["big_area"], p["big_area_max"]))
    red = op.remove_small(objects.split_by_seeds(big, small) | small, p["red_area"])
    if watch:
        watch("red-spots", sieve(puncta, puncta & small), "sieve")
        watch("red-patches", sieve(candidates > 0, patches), "sieve")
        watch("red-discs", sieve(discs, big), "sieve")
        watch("red", red, "mask")
    return red


def find_green(
    green_HW: NDArray[np.float32], p: Mapping[str, float], watch: Watch | None = None
) -> NDArray[np.bool_]:
    """Green structures of a deconvolved, rescaled channel."""
    band = op.difference_of_gaussians(green_HW, p["green_narrow"], p["green_wide"]) > p["green_threshold"]
    spots = op.laplacian_of_gaussian(green_HW, p["green_log_sigma"]) < -p["green_log_threshold"]
    green = op.remove_small(band | op.remove_small(spots, p["green_area"]), p["green_area"])
    if watch:
        watch("green", sieve(band | spots, green), "sieve")
    return green


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
    ratio_HW: NDArray[np.float32],
    green_HW: NDArray[np.float32],
    p: Mapping[str, float],
    watch: Watch | None = None,
) -> NDArray[np.bool_]:
    """Acidic discs and rings: dips of the ratio whose surroundings are greener than they are."""
    dips = op.white_tophat_disk(-ratio_HW, int(p["acid_radius"])) > p["acid_threshold"]
    labels_HW, count = op.components(dips)
    inside = objects.medians(green_HW, labels_HW, count)
    outside = objects.medians(green_HW, objects.ring_outside(labels_HW, p["acid_ring"]), count)
    keep = (outside > p["acid_contrast"] * inside) & (objects.areas(labels_HW, count) >= p["acid_area"])
    acid = op.keep_objects(labels_HW, keep)
    if watch:
        watch("acid", sieve(dips, acid), "sieve")
    return acid


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Measures:
    """What the class rule looks at; shape (count,) each, NaN where an object has no such pixel."""

    in_red: objects.Values
    in_green: objects.Values
    acid: NDArray[np.bool_]
    ratio: objects.Values
    green_75: objects.Values
    red_75: objects.Values
    centre: objects.Values
    rim: objects.Values
    outside: objects.Values


def _measure(
    labels_HW: NDArray[np.int32],
    count: int,
    red_mask: NDArray[np.bool_],
    green_mask: NDArray[np.bool_],
    acid_mask: NDArray[np.bool_],
    ratio: NDArray[np.float32],
    green_raw: NDArray[np.float32],
    green: NDArray[np.float32],
    red: NDArray[np.float32],
) -> _Measures:
    return _Measures(
        in_red=objects.means(red_mask, labels_HW, count),
        in_green=objects.means(green_mask, labels_HW, count),
        acid=objects.means(acid_mask, labels_HW, count) > 0,
        ratio=objects.medians(ratio, labels_HW, count),
        green_75=objects.quantiles(green, labels_HW, count, 0.75),
        red_75=objects.quantiles(red, labels_HW, count, 0.75),
        centre=objects.medians(green_raw, objects.centre(labels_HW, count), count),
        rim=objects.medians(green_raw, objects.rim(labels_HW), count),
        outside=objects.medians(green_raw, objects.ring_outside(labels_HW, 1), count),
    )


def _classes(m: _Measures, p: Mapping[str, float]) -> NDArray[np.uint8]:
    """Class of each label, shape (count + 1,); comparisons with NaN (no pixel there) are false."""
    bright = (m.green_75 > p["bright_green"]) & (m.red_75 > p["bright_red"])
    yellow = (m.in_green > p["share"]) & (m.in_red > p["share"]) & (m.ratio >= p["neutral_ratio"]) & ~m.acid
    phagophore = yellow | (bright & ~m.acid) | (m.centre > p["centre_contrast"] * m.outside)
    red_only = (m.in_red > p["share"]) & (m.in_green < p["share_without_green"])
    autolysosome = ~phagophore & (red_only | (m.ratio <= p["neutral_ratio"]) | (m.centre <= m.rim))

    kind = np.zeros(len(m.ratio) + 1, dtype=np.uint8)
    kind[1:][phagophore] = PHAGOPHORE
    kind[1:][autolysosome] = AUTOLYSOSOME
    return kind


def _dropped(
    labels_HW: NDArray[np.int32], drop: NDArray[np.bool_], reason: str, told: Callable[[int], str]
) -> NDArray[Any]:
    """Rows of ``DROPPED`` for the labels i with ``drop[i - 1]``."""
    chosen = np.flatnonzero(drop) + 1
    middles = ndimage.center_of_mass(labels_HW > 0, labels_HW, chosen) if len(chosen) else []
    area = objects.areas(labels_HW, len(drop))
    rows = [
        (round(row), round(column), area[label - 1], reason, told(label - 1))
        for label, (row, column) in zip(chosen, middles, strict=True)
    ]
    return np.array(rows, dtype=DROPPED)


def _told_dim(mean_red: objects.Values, p: Mapping[str, float]) -> Callable[[int], str]:
    return lambda i: f"mean red {mean_red[i]:.0f}, expected above {p['red_floor']:g}"


def _told_unclear(m: _Measures, p: Mapping[str, float]) -> Callable[[int], str]:
    """Why an object is no phagophore; then why it is no autolysosome."""
    return lambda i: (
        f"no phagophore: green over {m.in_green[i]:.0%} and red over {m.in_red[i]:.0%} of it (both above "
        f"{p['share']:.0%} needed), green centre {m.centre[i]:.0f} against {m.outside[i]:.0f} outside; "
        f"no autolysosome: ratio {m.ratio[i]:.2f} above {p['neutral_ratio']:g}, "
        f"green rim {m.rim[i]:.0f} darker than its centre"
    )


STEPS: Final[Mapping[str, Step]] = {
    "flat-field-green": Step(
        title="pHluorin, light evened out",
        text="Raw grey values less the camera's offset ({camera_offset}), divided by the plate's illumination "
        "where it is known. What is not visible here cannot be found later.",
    ),
    "flat-field-red": Step(
        title="DsRed, light evened out",
        text="As before, in the other channel. Every structure that is searched for shines here.",
    ),
    "sharp-green": Step(
        title="pHluorin, sharpened",
        text="Deconvolved ({iterations} rounds of Richardson–Lucy, blur of sigma {psf_sigma} px) and scaled so "
        "that percentile {scale_percentile} of the pixels is 65 535. One very bright speck makes all "
        "the rest dim.",
    ),
    "sharp-red": Step(
        title="DsRed, sharpened",
        text="The same for red. Thresholds of the next steps are grey values of this picture.",
    ),
    "red-spots": Step(
        title="Small red spots",
        text="Looks for spots: difference of Gaussians ({red_narrow} − {red_wide} px) above {red_threshold}. "
        "Dropped: fewer than {red_area} px.",
        channel=1,
    ),
    "red-patches": Step(
        title="Wide red patches the spots overlook",
        text="Looks for patches brighter than their surroundings (top-hat, disk of {tophat_radius} px, above "
        "{tophat_threshold}) of more than {tophat_area} px. Dropped: those of which small spots cover "
        "more than {tophat_covered} (a share) already.",
        channel=1,
    ),
    "red-discs": Step(
        title="Big red discs",
        text="Looks for discs: difference of Gaussians ({big_narrow} − {big_wide} px) above {big_threshold}. "
        "Dropped: smaller than {big_area} px, larger than {big_area_max} px, or cut by the image's edge. "
        "What is dropped here may still stand as small spots.",
        channel=1,
    ),
    "red": Step(
        title="All that counts as red",
        text="Spots, patches and discs together; discs are cut between the spots they hold.",
        channel=1,
    ),
    "green": Step(
        title="All that counts as green",
        text="Difference of Gaussians ({green_narrow} − {green_wide} px) above {green_threshold}, or sharp spots "
        "(Laplacian of Gaussian, {green_log_sigma} px, below −{green_log_threshold}). Dropped: fewer than "
        "{green_area} px. Green alone makes no object; it decides the class of a red one.",
        channel=0,
    ),
    "ratio": Step(
        title="Ratio of green to red",
        text="Both channels smoothed (sigma {ratio_sigma} px), then divided. Dark is acidic: red whose green is "
        "quenched.",
    ),
    "acid": Step(
        title="Acidic discs and rings",
        text="Looks for dips of the ratio (top-hat, disk of {acid_radius} px, above {acid_threshold}). Dropped: "
        "fewer than {acid_area} px, or green {acid_ring} px around not above {acid_contrast} times "
        "the green inside.",
        channel=0,
    ),
    "floor": Step(
        title="Objects bright enough in red",
        text="Red and acidic pixels that touch are one object. Dropped: a mean DsRed of {red_floor} or less.",
        channel=1,
    ),
    "class-rule": Step(
        title="Objects that fit a class",
        text="Phagophore: green and red each over more than {share} of it (a share), ratio at least "
        "{neutral_ratio}, not acidic; or very bright in both; or a green centre {centre_contrast} times its "
        "surroundings. Autolysosome: red with green over less than {share_without_green} of it, or ratio "
        "at most {neutral_ratio}, or a green centre no brighter than its rim. Dropped: neither.",
        channel=1,
    ),
    "dropped": Step(
        title="Objects found and then dropped",
        text="Each with its place, size and the rule it failed; numbers in the picture are those of the table.",
        channel=1,
    ),
    "classes": Step(
        title="The mask",
        text="What the recipe says: the weak label of this image.",
    ),
}

TUNABLE: Final[Mapping[str, Range]] = {
    "psf_sigma": Range(low=0.5, high=2.0, by_default=False),  # each value is a deconvolution of its own
    "scale_percentile": Range(low=99.0, high=100.0, log=False),
    "red_threshold": Range(low=100, high=2000),
    "tophat_threshold": Range(low=300, high=6000),
    "red_area": Range(low=3, high=40, integer=True),
    "big_threshold": Range(low=250, high=4000),
    "green_threshold": Range(low=250, high=4000),
    "green_log_threshold": Range(low=500, high=8000),
    "acid_threshold": Range(low=0.5, high=10),
    "acid_contrast": Range(low=1.0, high=4.0),
    "red_floor": Range(low=50, high=1500),
    "share": Range(low=0.05, high=0.6),
    "share_without_green": Range(low=0.02, high=0.4),
    "neutral_ratio": Range(low=0.5, high=8.0),
    "bright_green": Range(low=2000, high=30000, by_default=False),
    "bright_red": Range(low=1000, high=20000, by_default=False),
    "centre_contrast": Range(low=1.0, high=2.5),
}

ROSELLA: Final = Recipe(
    name="rosella",
    channel_count=2,
    class_count=3,
    defaults=DEFAULTS,
    prepare=prepare_rosella,
    prepared_by=frozenset({"camera_offset", "psf_sigma", "iterations"}),
    label=label_prepared,
    steps=STEPS,
    tunable=TUNABLE,
    uses_illumination=True,
)
