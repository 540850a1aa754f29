"""Outlines of single structures, each in a small window with its relative brightness.

Legend: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """One structure in a square window of odd side, centred on its middle pixel."""

    mask_HW: NDArray[np.bool_]
    profile_HW: Floats
    """Brightness relative to the structure's own level; 0 outside the mask."""


def clump(rng: np.random.Generator, diameter: float) -> Shape:
    """Irregular clump with the area of a disc of ``diameter`` pixels: a bent chain of merging blobs."""
    rows_HW, columns_HW = _window(rng, 1.1 * diameter + 3.0)
    heading = rng.uniform(0.0, 2 * np.pi)
    row = column = 0.0
    height_HW = np.zeros(rows_HW.shape)
    for _ in range(1 + int(rng.poisson(1.0 + diameter / 4.0))):
        sigma = diameter * rng.uniform(0.12, 0.3)
        height_HW += np.exp(-0.5 * ((rows_HW - row) ** 2 + (columns_HW - column) ** 2) / sigma**2)
        heading += rng.normal(0.0, 1.1)
        row += 0.4 * diameter * np.sin(heading)
        column += 0.4 * diameter * np.cos(heading)
        row, column = np.clip([row, column], -0.7 * diameter, 0.7 * diameter)
    # Roughness grows with the clump: the large ones are lumpy, not frayed.
    coarse = 0.8 + diameter / 14.0
    rough_HW = coarse * ndimage.gaussian_filter(rng.standard_normal(height_HW.shape), coarse, truncate=2.5)
    return _highest(height_HW * (1.0 + 0.8 * rough_HW), diameter, _mottle(rng, height_HW.shape))


def crescent(rng: np.random.Generator, diameter: float) -> Shape:
    """Cup-shaped phagophore with the area of a disc of ``diameter`` pixels, seen from the side."""
    area = np.pi * diameter**2 / 4.0
    span = rng.uniform(2.4, 4.2)
    thickness = max(2.0, rng.uniform(0.28, 0.4) * diameter)
    radius = max(area / (span * thickness), 0.6 * thickness)
    rows_HW, columns_HW = _window(rng, radius + thickness + 2.0)
    middle = rng.uniform(0.0, 2 * np.pi)
    angle_HW = np.abs(np.angle(np.exp(1j * (np.arctan2(rows_HW, columns_HW) - middle))))
    beyond_end_HW = radius * np.clip(angle_HW - span / 2.0, 0.0, None)
    away_HW = np.hypot(np.hypot(rows_HW, columns_HW) - radius, beyond_end_HW)
    return _highest(-away_HW, diameter, _mottle(rng, away_HW.shape))


def disc(rng: np.random.Generator, diameter: float, axis_ratio: float, *, is_ring: bool = False) -> Shape:
    """Round vesicle, slightly elliptic; a ring is dark inside but its mask is the whole disc."""
    rows_HW, columns_HW = _window(rng, 0.6 * diameter + 2.0)
    turn = rng.uniform(0.0, np.pi)
    along_HW = np.cos(turn) * columns_HW + np.sin(turn) * rows_HW
    across_HW = np.cos(turn) * rows_HW - np.sin(turn) * columns_HW
    stretch = np.sqrt(axis_ratio)
    wobble_HW = 1.0 + 0.04 * np.cos(3.0 * np.arctan2(across_HW, along_HW) + rng.uniform(0.0, 2 * np.pi))
    reach_HW = np.hypot(along_HW * stretch, across_HW / stretch) / (0.5 * diameter * wobble_HW)
    mask_HW = reach_HW <= 1.0
    if is_ring:
        profile_HW = 0.28 + 0.9 * np.exp(-(((reach_HW - 0.85) / 0.2) ** 2))
    else:
        profile_HW = 0.8 + 0.3 * np.sqrt(np.clip(1.0 - reach_HW**2, 0.0, 1.0))
    mottled_HW = profile_HW * _mottle(rng, mask_HW.shape)
    return Shape(mask_HW=mask_HW, profile_HW=np.where(mask_HW, mottled_HW, 0.0))


def _window(rng: np.random.Generator, reach: float) -> tuple[Floats, Floats]:
    """Row and column offsets from a centre that lies anywhere within the middle pixel."""
    half = int(np.ceil(reach))
    offsets = np.arange(-half, half + 1, dtype=np.float64)
    row, column = rng.uniform(-0.5, 0.5, 2)
    rows_HW, columns_HW = np.meshgrid(offsets - row, offsets - column, indexing="ij")
    return rows_HW, columns_HW


def _mottle(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Uneven brightness, about ±15 % from one pixel and a half to the next."""
    noise_HW: Floats = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2, truncate=2.5)
    return np.clip(1.0 + 0.6 * noise_HW, 0.4, 1.6)


def _highest(height_HW: Floats, diameter: float, profile_HW: Floats) -> Shape:
    """The connected part, nearest the peak, of the highest pixels that fill a disc of ``diameter``."""
    area = min(max(2, round(np.pi * diameter**2 / 4.0)), height_HW.size // 2)
    threshold = np.partition(height_HW, -area, axis=None)[-area]
    labels_HW, _ = ndimage.label(height_HW >= threshold)
    mask_HW = ndimage.binary_fill_holes(labels_HW == labels_HW.flat[int(np.argmax(height_HW))])
    return Shape(mask_HW=mask_HW, profile_HW=np.where(mask_HW, profile_HW, 0.0))
