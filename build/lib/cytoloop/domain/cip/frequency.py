"""Butterworth filters: keep structures by their size, smoothly, in the frequency domain.

A cut-off is a spatial frequency in cycles per pixel: 0.1 halves the power of what repeats every 10
pixels; 0.5 is the finest an image can show. The cosine transform is used instead of Fourier's: it
reflects the image at its borders, as the other operators do, where Fourier's would join left to
right. Legend: H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cytoloop.domain.cip.operators import Float
from cytoloop.domain.errors import ConfigError

NYQUIST = 0.5
"""Highest frequency an image can show, in cycles per pixel."""


def butterworth_low_pass(image_HW: Float, cutoff: float, order: float = 2.0) -> Float:
    """Keep what is coarser than the cut-off (Butterworth 1930, Wireless Engineer 7:536).

    The gain at frequency f is 1 / sqrt(1 + (f / cutoff)^(2 order)): 1 for a constant, 0.71 at the
    cut-off. Unlike a Gaussian it leaves coarse structures as bright as they were.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    cutoff : float
        Cycles per pixel, above 0 and at most 0.5.
    order : float
        Steepness, > 0; from about 4 on, edges ring.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Same unit and mean as the input.

    Raises
    ------
    ConfigError
        If the cut-off or the order is out of range.
    """
    return _filtered(image_HW, _low(_frequency(image_HW.shape), cutoff, order))


def butterworth_high_pass(image_HW: Float, cutoff: float, order: float = 2.0) -> Float:
    """Keep what is finer than the cut-off: gain 1 / sqrt(1 + (cutoff / f)^(2 order)), mean 0.

    Takes uneven light and diffuse background away. The powers of low- and high-pass add up to that
    of the image; the images themselves do not.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    cutoff : float
        Cycles per pixel, above 0 and at most 0.5.
    order : float
        Steepness, > 0.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Same unit as the input, mean 0.

    Raises
    ------
    ConfigError
        If the cut-off or the order is out of range.
    """
    return _filtered(image_HW, _high(_frequency(image_HW.shape), cutoff, order))


def butterworth_band_pass(image_HW: Float, low: float, high: float, order: float = 2.0) -> Float:
    """Keep what lies between two frequencies: the product of the high-pass at ``low`` and the low-pass at ``high``.

    Parameters
    ----------
    image_HW : ndarray of float32, shape (H, W)
    low, high : float
        Cycles per pixel, 0 < low < high <= 0.5. Spots of diameter d have most of their power near
        1 / (2 d).
    order : float
        Steepness of both flanks, > 0.

    Returns
    -------
    ndarray of float32, shape (H, W)
        Same unit as the input, mean 0.

    Raises
    ------
    ConfigError
        If the frequencies are not in that order, or anything is out of range.
    """
    if not low < high:
        raise ConfigError(f"Butterworth band from {low} to {high} cycles per pixel, expected low < high")
    frequency_HW = _frequency(image_HW.shape)
    return _filtered(image_HW, _high(frequency_HW, low, order) * _low(frequency_HW, high, order))


def _frequency(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Frequency of each cosine of the transform, in cycles per pixel: number k of n repeats every 2 n / k."""
    rows, columns = (np.arange(side) / (2.0 * side) for side in shape)
    return np.hypot(rows[:, np.newaxis], columns[np.newaxis, :])


def _low(frequency_HW: NDArray[np.float64], cutoff: float, order: float) -> NDArray[np.float64]:
    _check(cutoff, order)
    gain: NDArray[np.float64] = 1.0 / np.sqrt(1.0 + (frequency_HW / cutoff) ** (2.0 * order))
    return gain


def _high(frequency_HW: NDArray[np.float64], cutoff: float, order: float) -> NDArray[np.float64]:
    # (f / c)^n times the low-pass: the same as 1 / sqrt(1 + (c / f)^2n), and 0 rather than 1 / 0 at f = 0
    low = _low(frequency_HW, cutoff, order)
    gain: NDArray[np.float64] = (frequency_HW / cutoff) ** order * low
    return gain


def _check(cutoff: float, order: float) -> None:
    if not 0 < cutoff <= NYQUIST:
        raise ConfigError(
            f"Butterworth cut-off is {cutoff}, expected above 0 and at most {NYQUIST} cycles per pixel"
        )
    if not 0 < order < np.inf:
        raise ConfigError(f"Butterworth order is {order}, expected > 0")


def _filtered(image_HW: Float, gain_HW: NDArray[np.float64]) -> Float:
    waves_HW = fft.dctn(np.asarray(image_HW, dtype=np.float32), type=2, norm="ortho")
    filtered: Float = fft.idctn(waves_HW * gain_HW.astype(np.float32), type=2, norm="ortho").astype(
        np.float32
    )
    return filtered
