"""Local thresholds: a level for each pixel, from its surroundings.

For fields whose background or staining differs from place to place, where no single threshold is
right. Each function gives the level; the mask is ``image_HW > level_HW``. Where the surroundings
are even, a level from them is a level inside the noise: ask for a minimal contrast besides, or use
Sauvola's. Legend: H rows, W columns.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from skimage.filters import threshold_local, threshold_niblack, threshold_sauvola
from skimage.filters.rank import otsu

from cytoloop.domain.cip.operators import Float, disk
from cytoloop.domain.errors import ConfigError

_BINS: Final = 255
"""Steps of grey that local Otsu tells apart."""


def local_mean_level(image_HW: Float, window: int, offset: float = 0.0) -> Float:
    """Adaptive mean: the mean of the window around each pixel, plus ``offset``.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    window : int
        Side of the window in pixels, odd, >= 3; wider than the objects.
    offset : float
        Grey values above the mean, so that noise on an even background stays below.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Level in grey values; borders are reflected.

    Raises
    ------
    ConfigError
        If the window is even or too small.
    """
    _check_window(window)
    level: Float = threshold_local(
        image_HW.astype(np.float64), window, method="mean", offset=-offset, mode="reflect"
    ).astype(np.float32)
    return level


def niblack_level(image_HW: Float, window: int, k: float = 0.2) -> Float:
    """Niblack's level: mean + k x standard deviation of the window around each pixel.

    Niblack 1986, *An Introduction to Digital Image Processing*, for bright objects (his text is dark
    on white). The share of an even background that passes is fixed by k: about 42 % at 0.2.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    window : int
        Side of the window in pixels, odd, >= 3.
    k : float
        Standard deviations above the mean.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Level in grey values.

    Raises
    ------
    ConfigError
        If the window is even or too small.
    """
    _check_window(window)
    # scikit-image's k counts downwards: its level is mean - k x deviation
    level: Float = threshold_niblack(image_HW.astype(np.float64), window, k=-k).astype(np.float32)
    return level


def sauvola_level(image_HW: Float, window: int, k: float = 0.2, spread: float | None = None) -> Float:
    """Sauvola's level for bright objects: the more even the window, the higher above its mean.

    Sauvola & Pietikäinen 2000 (doi:10.1016/S0031-3203(99)00055-2) write, for dark objects,
    mean x (1 + k (deviation / spread - 1)). Bright objects are dark ones of the negative: with m the
    image's brightest value, the level is m - [the same of m - image]. So noise on an even background
    stays below the level, which Niblack's lets through.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    window : int
        Side of the window in pixels, odd, >= 3.
    k : float
        Above 0: how far the level moves where the window is even, as a share of m - mean.
    spread : float, optional
        Grey values, > 0: the standard deviation at which the level is the mean. Default: half of
        the image's range, the largest there can be.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Level in grey values; an image of one grey value gives that value.

    Raises
    ------
    ConfigError
        If the window is even or too small, or ``spread`` is not positive.
    """
    _check_window(window)
    if spread is not None and not spread > 0:
        raise ConfigError(f"Sauvola's spread is {spread}, expected > 0 grey values")
    brightest = float(image_HW.max())
    spread = spread or float(np.ptp(image_HW)) / 2
    if spread == 0:
        return np.full(image_HW.shape, brightest, dtype=np.float32)
    level = brightest - threshold_sauvola(brightest - image_HW.astype(np.float64), window, k=k, r=spread)
    result: Float = level.astype(np.float32)
    return result


def local_otsu_level(image_HW: Float, radius: int) -> Float:
    """Otsu's threshold (doi:10.1109/TSMC.1979.4310076) of the disk around each pixel.

    Every disk is cut in two, even one that holds background alone.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    radius : int
        Of the disk in pixels, >= 1; wider than the objects. Pixels outside the image take no part.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Level in grey values, in steps of 1/255 of the image's range; the upper end of its step, so
        that ``image_HW > level_HW`` is the upper class.

    Raises
    ------
    ConfigError
        If the radius is below 1.
    """
    lowest = float(image_HW.min())
    step = float(np.ptp(image_HW)) / _BINS
    footprint = disk(radius)
    if step == 0:
        return np.full(image_HW.shape, lowest, dtype=np.float32)
    grey_HW = np.rint((image_HW - lowest) / step).astype(np.uint8)
    level: Float = (lowest + (otsu(grey_HW, footprint) + 0.5) * step).astype(np.float32)
    return level


def _check_window(window: int) -> None:
    if window < 3 or window % 2 == 0:
        raise ConfigError(f"window of {window} pixels, expected odd and >= 3")
