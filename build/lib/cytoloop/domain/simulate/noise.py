"""Smooth random fields: the irregularity of outlines, textures and clouds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> NDArray[np.float64]:
    """Draw a smooth Gaussian random field.

    White noise on a coarse lattice, interpolated by Gaussian kernels: two small matrix products
    instead of a wide filter over the whole field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the noise comes from; consumes one normal per lattice point.
    shape : (int, int)
        Rows and columns of the field.
    scale : float
        Distance in pixels over which the field forgets itself, >= 1.

    Returns
    -------
    field_HW : ndarray of float64, shape (H, W)
        Mean 0, standard deviation 1 over the field.
    """
    row_weights = _kernel(shape[0], scale)
    column_weights = _kernel(shape[1], scale)
    lattice = rng.standard_normal((row_weights.shape[1], column_weights.shape[1]))
    field_HW: NDArray[np.float64] = row_weights @ lattice @ column_weights.T
    field_HW -= field_HW.mean()
    field_HW /= field_HW.std()
    return field_HW


def _kernel(length: int, scale: float) -> NDArray[np.float64]:
    """Gaussian weights (pixels, lattice points); the lattice reaches two steps beyond both ends."""
    knots = (np.arange(int(np.ceil(length / scale)) + 5) - 2) * scale
    distance = (np.arange(length)[:, None] - knots[None, :]) / scale
    return np.exp(-0.5 * (distance / 0.7) ** 2)
