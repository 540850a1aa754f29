"""Pixel operators of conventional image processing: pure functions with named parameters.

All take float32 (H, W) arrays of grey values, or boolean masks, and return new arrays. OpenCV does
the separable and the large filters; its borders are set to mean the same as in SciPy (half-sample
reflection). Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.errors import ConfigError, ShapeError

Float = NDArray[np.float32]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

LEAST_CONTRAST: Final = 1e-4
"""Share of the grey values below which differences are float32 rounding, and no threshold is sought."""

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def use_one_thread() -> None:
    """Keep OpenCV to the calling thread: worker processes already share the cores among them."""
    cv2.setNumThreads(1)


def gaussian_blur(image_HW: Float, sigma: float) -> Float:
    """Gaussian smoothing, cut off at 4 sigma, borders reflected.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    sigma : float
        Standard deviation in pixels, > 0.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Same unit and mean as the input (up to the borders).

    Raises
    ------
    ConfigError
        If sigma is not positive.
    """
    if not sigma > 0:
        raise ConfigError(f"Gaussian sigma is {sigma}, expected > 0 pixels")
    side = 2 * int(4.0 * sigma + 0.5) + 1
    return _float32(cv2.GaussianBlur(_float32(image_HW), (side, side), sigma, borderType=cv2.BORDER_REFLECT))


def difference_of_gaussians(image_HW: Float, narrow: float, wide: float) -> Float:
    """Band-pass: Gaussian of sigma ``narrow`` minus Gaussian of sigma ``wide``, in grey values.

    Bright spots of a radius between the two sigmas are positive; a constant image gives 0.

    Raises
    ------
    ConfigError
        Unless 0 < narrow < wide.
    """
    if not narrow < wide:
        raise ConfigError(
            f"difference of Gaussians with sigmas {narrow} and {wide}, expected the first smaller"
        )
    return gaussian_blur(image_HW, narrow) - gaussian_blur(image_HW, wide)


def laplacian_of_gaussian(image_HW: Float, sigma: float) -> Float:
    """Laplacian of the Gaussian-smoothed image, not scale-normalised: negative on bright spots.

    Raises
    ------
    ConfigError
        If sigma is not positive.
    """
    if not sigma > 0:
        raise ConfigError(f"Laplacian of Gaussian with sigma {sigma}, expected > 0 pixels")
    return _float32(ndimage.gaussian_laplace(_float32(image_HW), sigma))


def flat_field(image_HW: Float, illumination_HW: Float) -> Float:
    """Divide by the illumination (mean 1), so that equal light means equal grey value everywhere.

    Raises
    ------
    ShapeError
        If sizes differ, or the illumination is not positive everywhere.
    """
    if image_HW.shape != illumination_HW.shape:
        raise ShapeError(f"illumination {illumination_HW.shape}, image {image_HW.shape}: expected equal")
    lowest = float(illumination_HW.min())
    if not lowest > 0:
        raise ShapeError(f"illumination has values down to {lowest}, expected > 0 (mean 1)")
    return _float32(image_HW / illumination_HW)


def richardson_lucy(image_HW: Float, psf_sigma: float, iterations: int = 10) -> Float:
    """Richardson–Lucy deconvolution with a Gaussian point-spread function.

    Maximum-likelihood estimate under Poisson noise (doi:10.1364/JOSA.62.000055,
    doi:10.1086/111605); few iterations, as it sharpens noise too. A Gaussian is symmetric and
    separable, so each iteration is two separable blurs.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
        Grey values; negative ones count as 0.
    psf_sigma : float
        Standard deviation of the point-spread function in pixels, > 0.
    iterations : int
        At least 0 (which gives the image back).

    Returns
    -------
    ndarray of float32, shape (H, W)
        Not negative; the total of the image is kept up to the borders.
    """
    if iterations < 0:
        raise ConfigError(f"Richardson–Lucy with {iterations} iterations, expected >= 0")
    observed = np.maximum(_float32(image_HW), 0)
    estimate = observed.copy()
    tiny = np.float32(1e-6)  # keeps 0/0 at 0 in dark regions
    for _ in range(iterations):
        ratio = observed / np.maximum(gaussian_blur(estimate, psf_sigma), tiny)
        estimate = estimate * gaussian_blur(ratio, psf_sigma)
    return estimate


def rescale_to_peak(image_HW: Float, percentile: float = 100.0, peak: float = 65535.0) -> Float:
    """Scale so that ``percentile`` of the pixels becomes ``peak``; above it values are cut to ``peak``.

    With percentile 100 the brightest pixel becomes the peak. A dark image (percentile 0) stays 0.
    """
    if not 0 <= percentile <= 100:
        raise ConfigError(f"scaling percentile is {percentile}, expected 0…100")
    top = float(image_HW.max() if percentile == 100.0 else np.percentile(image_HW, percentile))
    if top <= 0:
        return np.zeros_like(image_HW, dtype=np.float32)
    return _float32(np.clip(image_HW * np.float32(peak / top), 0, peak))


def disk(radius: int) -> NDArray[np.uint8]:
    """Structuring element of all pixels within ``radius`` of the centre, shape (2r + 1, 2r + 1)."""
    if radius < 1:
        raise ConfigError(f"disk of radius {radius}, expected >= 1 pixel")
    offset = np.arange(-radius, radius + 1)
    return (offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2).astype(np.uint8)


def shrink(image_HW: Float, factor: int) -> Float:
    """Means of blocks of about ``factor`` x ``factor`` pixels that together cover the image."""
    height, width = image_HW.shape
    size = (max(1, width // factor), max(1, height // factor))
    return _float32(cv2.resize(_float32(image_HW), size, interpolation=cv2.INTER_AREA))


def white_tophat_disk(image_HW: Float, radius: int) -> Float:
    """Image minus its opening with a disk: what is bright and narrower than the disk, >= 0.

    Pixels outside the image take no part in the opening.
    """
    return _float32(cv2.morphologyEx(_float32(image_HW), cv2.MORPH_TOPHAT, disk(radius)))


def components(mask_HW: Mask) -> tuple[Labels, int]:
    """Connected components (8 neighbours) as labels 1…n in reading order, and their number n."""
    labels_HW = np.empty(mask_HW.shape, dtype=np.int32)
    count = ndimage.label(mask_HW, structure=_EIGHT_NEIGHBOURS, output=labels_HW)
    return labels_HW, int(count)


def keep_objects(labels_HW: Labels, keep: NDArray[np.bool_]) -> Mask:
    """Mask of the labels i for which ``keep[i - 1]``; the background is never kept."""
    chosen = np.concatenate([[False], keep])
    mask_HW: Mask = chosen[labels_HW]
    return mask_HW


def keep_areas(mask_HW: Mask, smallest: float, largest: float = np.inf) -> Mask:
    """Components whose area in pixels lies in ``smallest``…``largest``, both inclusive."""
    labels_HW, count = components(mask_HW)
    area = np.bincount(labels_HW.ravel(), minlength=count + 1)[1:]
    return keep_objects(labels_HW, (area >= smallest) & (area <= largest))


def remove_small(mask_HW: Mask, smallest: float) -> Mask:
    """Drop components of fewer than ``smallest`` pixels."""
    return keep_areas(mask_HW, smallest)


def remove_touching_border(mask_HW: Mask) -> Mask:
    """Drop components with a pixel on the edge of the image: they are seen in part only."""
    labels_HW, count = components(mask_HW)
    keep = np.ones(count + 1, dtype=bool)
    for edge in (labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]):
        keep[edge] = False
    return keep_objects(labels_HW, keep[1:])


def fill_small_holes(mask_HW: Mask, largest: float) -> Mask:
    """Fill holes of at most ``largest`` pixels; larger ones may be real gaps between cells."""
    filled: Mask = ndimage.binary_fill_holes(mask_HW)
    return mask_HW | keep_areas(filled & ~mask_HW, 1, largest)


def _float32(array: Any) -> Float:
    return np.asarray(array, dtype=np.float32)
