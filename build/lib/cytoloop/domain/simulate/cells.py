"""Cells in colonies: who owns which pixel, where the nuclei are, how bright the cytoplasm is.

Legend: H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.simulate.noise import smooth_noise
from cytoloop.domain.simulate.presets import CellModel

Floats = NDArray[np.float64]
FAR = 9.0
"""Distance of what no cell reaches, in cell radii."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cells:
    """The cells of one field and their light before any structure is placed."""

    owner_HW: NDArray[np.int16]
    """Index of the cell a pixel of cytoplasm belongs to; -1 in nuclei and outside."""
    depth_HW: Floats
    """0 at the nucleus, 1 at the cell's edge, more outside."""
    green_HW: Floats
    red_HW: Floats
    """Display units."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nucleus:
    row: float
    column: float
    radius: float
    axis_ratio: float
    angle: float
    cell_radius: float


def grow_cells(rng: np.random.Generator, shape: tuple[int, int], model: CellModel) -> Cells:
    """Draw the cells of a field.

    Each cell is the set of pixels nearer to its nucleus than to any other, up to a radius, in
    coordinates bent by smooth noise: neighbours share straight walls, free edges are irregular.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where the randomness comes from.
    shape : (int, int)
        Rows and columns of the canvas.
    model : CellModel
        How cells look.
    """
    nuclei = _place_nuclei(rng, shape, model)
    rows_HW, columns_HW = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    warped_rows = rows_HW + model.outline_warp * smooth_noise(rng, shape, 38.0)
    warped_columns = columns_HW + model.outline_warp * smooth_noise(rng, shape, 38.0)
    edge_noise = 0.1 * smooth_noise(rng, shape, 14.0) + 0.03 * smooth_noise(rng, shape, 4.0)

    nearest_HW = np.full(shape, FAR)
    second_HW = np.full(shape, FAR)
    owner_HW = np.full(shape, -1, np.int16)
    nucleus_HW = np.zeros(shape)
    nucleoli_HW = np.zeros(shape)
    expression = np.exp(rng.normal(0.0, model.expression_sigma, len(nuclei)))
    for index, nucleus in enumerate(nuclei):
        near = _around(nucleus.row, nucleus.column, 1.4 * nucleus.cell_radius + 3.5 * model.outline_warp)
        distance_HW = _elliptic(nucleus, warped_rows[near], warped_columns[near]) / nucleus.cell_radius
        is_nearer = distance_HW < nearest_HW[near]
        second_HW[near] = np.where(is_nearer, nearest_HW[near], np.minimum(second_HW[near], distance_HW))
        nearest_HW[near] = np.where(is_nearer, distance_HW, nearest_HW[near])
        owner_HW[near][is_nearer] = index
        # The nucleus is stiffer than the cell: bent by a quarter of the warp only.
        bent_rows = 0.75 * rows_HW[near] + 0.25 * warped_rows[near]
        bent_columns = 0.75 * columns_HW[near] + 0.25 * warped_columns[near]
        inside_HW = nucleus.radius - _elliptic(nucleus, bent_rows, bent_columns)
        nucleus_HW[near] = np.maximum(nucleus_HW[near], np.clip(inside_HW / 3.0 + 0.5, 0.0, 1.0))
        for _ in range(int(rng.integers(1, 4))):
            angle, reach = rng.uniform(0.0, 2 * np.pi), nucleus.radius * rng.uniform(0.1, 0.55)
            size = nucleus.radius * rng.uniform(0.1, 0.2)
            row, column = nucleus.row + reach * np.sin(angle), nucleus.column + reach * np.cos(angle)
            near = _around(row, column, 2.0 * size)
            away_HW = np.sqrt((rows_HW[near] - row) ** 2 + (columns_HW[near] - column) ** 2)
            nucleoli_HW[near] = np.maximum(nucleoli_HW[near], np.clip(1.5 - away_HW / size, 0.0, 1.0))

    reach_HW = nearest_HW + edge_noise
    thickness_HW = np.clip((1.0 - reach_HW) / 0.3, 0.0, 1.0)
    thickness_HW = thickness_HW * (2.0 - thickness_HW)
    # Where two cells meet, both are thin and the membranes hold no dye.
    wall_HW = 1.0 - 0.4 * np.exp(-(((second_HW - nearest_HW) / 0.05) ** 2))
    grain_HW = 0.7 * smooth_noise(rng, shape, 7.0) + 0.7 * smooth_noise(rng, shape, 2.5)
    body_HW = thickness_HW * wall_HW * expression[owner_HW]
    nuclear_share_HW = model.nucleus_green * (1.0 - 0.3 * nucleoli_HW)
    in_nucleus_HW = nucleus_HW * (1.0 - nuclear_share_HW)
    light_HW = body_HW * np.clip(1.0 + model.texture * grain_HW, 0.3, None) * (1.0 - in_nucleus_HW)
    is_cytoplasm_HW = (reach_HW < 0.94) & (nucleus_HW < 0.05)
    inner = np.array([n.radius / n.cell_radius for n in nuclei])[owner_HW]
    return Cells(
        owner_HW=np.where(is_cytoplasm_HW, owner_HW, -1).astype(np.int16),
        depth_HW=(reach_HW - inner) / (1.0 - inner),
        green_HW=model.outside_green + model.cytoplasm_green * light_HW,
        red_HW=model.outside_red + model.cytoplasm_red * light_HW,
        count=len(nuclei),
    )


def _place_nuclei(rng: np.random.Generator, shape: tuple[int, int], model: CellModel) -> list[_Nucleus]:
    """Nuclei around colony centres, none over another; may lie partly beyond the edge."""
    wanted = int(rng.integers(model.cells[0], model.cells[1] + 1))
    colonies = int(rng.integers(model.colonies[0], model.colonies[1] + 1))
    centres = rng.uniform(0.2, 0.8, (colonies, 2)) * np.array(shape)
    nuclei: list[_Nucleus] = []
    for _ in range(60 * wanted):
        if len(nuclei) == wanted:
            break
        row, column = centres[rng.integers(colonies)] + rng.normal(0.0, model.colony_spread, 2)
        radius = 0.5 * rng.uniform(*model.nucleus_diameter)
        nucleus = _Nucleus(
            row=row,
            column=column,
            radius=radius,
            axis_ratio=rng.uniform(*model.nucleus_axis_ratio),
            angle=rng.uniform(0.0, np.pi),
            cell_radius=radius * rng.uniform(*model.cell_to_nucleus),
        )
        is_on_canvas = 0 <= row < shape[0] and 0 <= column < shape[1]
        is_apart = all(np.hypot(row - n.row, column - n.column) > 1.25 * (radius + n.radius) for n in nuclei)
        if is_on_canvas and is_apart:
            nuclei.append(nucleus)
    return nuclei


def _elliptic(nucleus: _Nucleus, rows_HW: Floats, columns_HW: Floats) -> Floats:
    """Distance from the nucleus in pixels, stretched so that the nucleus is a disc of its radius."""
    cosine, sine = np.cos(nucleus.angle), np.sin(nucleus.angle)
    stretch = np.sqrt(nucleus.axis_ratio)
    down, right = rows_HW - nucleus.row, columns_HW - nucleus.column
    along_HW = (cosine * right + sine * down) * stretch
    across_HW = (cosine * down - sine * right) / stretch
    distance_HW: Floats = np.sqrt(along_HW**2 + across_HW**2)
    return distance_HW


def _around(row: float, column: float, reach: float) -> tuple[slice, slice]:
    """Square of the canvas around a point; slices beyond the far edges are cut by numpy."""
    return (
        slice(max(int(row - reach), 0), max(int(row + reach) + 1, 0)),
        slice(max(int(column - reach), 0), max(int(column + reach) + 1, 0)),
    )


def cloud(rng: np.random.Generator, cells: Cells, peak: float) -> Floats:
    """Faint red haze of the cytoplasm near the nuclei, in display units, at most about ``peak``."""
    near_HW = np.where(cells.owner_HW >= 0, np.exp(-2.0 * np.clip(cells.depth_HW, 0.0, None)), 0.0)
    height, width = near_HW.shape
    patches_HW = np.clip(smooth_noise(rng, (height, width), 22.0), 0.0, 2.0) / 2.0
    haze_HW: Floats = ndimage.gaussian_filter(peak * near_HW * patches_HW, 5.0, truncate=3.0)
    return haze_HW
