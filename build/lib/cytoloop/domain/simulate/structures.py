"""Phagophores and autolysosomes of a field, and everything that is mistaken for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.simulate.canvas import Canvas
from cytoloop.domain.simulate.cells import Cells, cloud
from cytoloop.domain.simulate.presets import LookModel, Range, StructureModel
from cytoloop.domain.simulate.shapes import Shape, clump, crescent, disc

BACKGROUND, PHAGOPHORE, AUTOLYSOSOME = 0, 1, 2
TYPICAL_CELL = 12_000.0
"""Pixels of cytoplasm to which expected numbers refer."""
TRIES = 12
"""Places tried for a structure before it is given up: a crowded cell holds no more."""

Spot = tuple[int, int]


def place_structures(
    rng: np.random.Generator,
    cells: Cells,
    canvas: Canvas,
    model: StructureModel,
    look: LookModel,
    *,
    defocus: float,
) -> None:
    """Draw the structures of every cell, then the confusers of the field, on ``canvas``.

    ``defocus`` is the blur of the whole field in pixels: it decides what an expert would still draw.
    """
    canvas.red_HW += cloud(rng, cells, rng.uniform(*model.haze))
    for cell in range(cells.count):
        pixels = np.flatnonzero(cells.owner_HW == cell)
        activity = float(np.exp(rng.normal(0.0, model.activity_sigma)))
        size = activity * pixels.size / TYPICAL_CELL
        vesicles = int(rng.poisson(model.autolysosomes_per_cell * look.autolysosomes * size))
        puncta = int(rng.poisson(model.phagophores_per_cell * look.phagophores * size))
        if pixels.size == 0:
            continue
        spots = _spots(rng, cells, pixels)
        # Large before small, as they would find no room later.
        diameters = _diameters(rng, vesicles, model.autolysosome_diameter, look.autolysosome_size)
        for diameter in diameters:
            _place_autolysosome(rng, spots, canvas, model, look, diameter, defocus)
        for diameter in _diameters(rng, puncta, model.phagophore_diameter, 1.0):
            _place_phagophore(rng, spots, canvas, model, diameter, defocus)
    _place_confusers(rng, cells, canvas, model)


def _spots(rng: np.random.Generator, cells: Cells, pixels: NDArray[np.intp]) -> Iterator[Spot]:
    """Endless places in a cell, more of them near the nucleus."""
    weights = np.exp(-1.2 * np.clip(cells.depth_HW.flat[pixels], 0.0, None))
    heaped = np.cumsum(weights)
    width = cells.owner_HW.shape[1]
    while True:
        drawn = pixels[np.searchsorted(heaped, rng.uniform(0.0, heaped[-1], 64))]
        for pixel in drawn:
            yield int(pixel) // width, int(pixel) % width


def _diameters(
    rng: np.random.Generator, number: int, law: tuple[float, float, float], factor: float
) -> list[float]:
    """Log-normal diameters, largest first."""
    median, sigma, largest = law
    drawn = median * factor * np.exp(rng.normal(0.0, sigma, number))
    return sorted((float(d) for d in np.clip(drawn, 2.0, largest)), reverse=True)


def _place_autolysosome(
    rng: np.random.Generator,
    spots: Iterator[Spot],
    canvas: Canvas,
    model: StructureModel,
    look: LookModel,
    diameter: float,
    defocus: float,
) -> None:
    # A ring needs a lumen that the microscope can resolve.
    is_ring = bool(rng.uniform() < look.ring_share) and diameter >= 9.0
    shape = disc(rng, diameter, rng.uniform(*model.autolysosome_axis_ratio), is_ring=is_ring)
    red = _log_uniform(rng, model.autolysosome_red)
    green, green_left = 0.0, rng.uniform(*model.autolysosome_green)
    if rng.uniform() < model.fading_share:
        green, green_left = red * rng.uniform(model.fading[0], model.fading_limit), 1.0
    plane = _plane(rng, model)
    value = AUTOLYSOSOME if _is_seen(red, diameter, plane, model, defocus) else BACKGROUND
    dimming = model.planes[plane].light
    is_touched = bool(rng.uniform() < model.touching_share)
    for _ in range(TRIES):
        spot = next(spots)
        if canvas.place(
            shape,
            spot,
            value=value,
            red=dimming * red,
            green=dimming * green,
            green_left=green_left,
            plane=plane,
        ):
            break
    else:
        return
    if is_touched:
        partner = float(np.clip(diameter * rng.uniform(0.4, 0.9), 4.0, 14.0))
        angle, reach = rng.uniform(0.0, 2 * np.pi), 0.5 * diameter + 0.3 * partner
        beside = round(spot[0] + reach * np.sin(angle)), round(spot[1] + reach * np.cos(angle))
        partner_red = _log_uniform(rng, model.phagophore_red)
        canvas.place(
            clump(rng, partner),
            beside,
            value=PHAGOPHORE,
            red=partner_red,
            green=partner_red * _log_uniform(rng, model.phagophore_green),
            may_touch=True,
        )


def _place_phagophore(
    rng: np.random.Generator,
    spots: Iterator[Spot],
    canvas: Canvas,
    model: StructureModel,
    diameter: float,
    defocus: float,
) -> None:
    red = _log_uniform(rng, model.phagophore_red)
    if rng.uniform() < model.fading_share:
        # It has closed and rounds off on its way to an autolysosome.
        shape = disc(rng, diameter, rng.uniform(*model.autolysosome_axis_ratio))
        green = red * rng.uniform(model.fading_limit, model.fading[1])
    else:
        is_crescent = 6.0 <= diameter <= 13.0 and bool(rng.uniform() < model.crescent_share)
        shape = crescent(rng, diameter) if is_crescent else clump(rng, diameter)
        green = red * _log_uniform(rng, model.phagophore_green)
    plane = _plane(rng, model)
    value = PHAGOPHORE if _is_seen(red, diameter, plane, model, defocus) else BACKGROUND
    dimming = model.planes[plane].light
    for _ in range(TRIES):
        spot = next(spots)
        if canvas.place(shape, spot, value=value, red=dimming * red, green=dimming * green, plane=plane):
            return


def _log_uniform(rng: np.random.Generator, ends: Range) -> float:
    """Brightness varies by factors: as many structures at half of it as at twice."""
    low, high = ends
    return float(low * (high / low) ** rng.uniform())


def _plane(rng: np.random.Generator, model: StructureModel) -> int:
    """Index of the plane a structure lies in."""
    heaped = np.cumsum([plane.share for plane in model.planes])
    return min(int(np.searchsorted(heaped, heaped[-1] * rng.uniform())), len(model.planes) - 1)


def _is_seen(red: float, diameter: float, plane: int, model: StructureModel, defocus: float) -> bool:
    """Whether an expert would draw it: what is left of its brightness at its depth is enough."""
    depth = model.planes[plane]
    # A Gaussian spot of this width, blurred by a Gaussian.
    spread = diameter**2 / (diameter**2 + 16.0 * (depth.sigma**2 + defocus**2))
    return red * depth.light * spread >= model.least_seen


def _place_confusers(rng: np.random.Generator, cells: Cells, canvas: Canvas, model: StructureModel) -> None:
    """Draw what is background in the truth and looks as if it were not."""
    pixels = np.flatnonzero(cells.owner_HW >= 0)
    in_cells = _spots(rng, cells, pixels) if pixels.size else _anywhere(rng, canvas)
    for _ in range(int(rng.poisson(model.ambiguous))):
        shape = disc(rng, rng.uniform(5.0, 12.0), rng.uniform(0.8, 1.0))
        red, green = rng.uniform(*model.ambiguous_red), rng.uniform(*model.ambiguous_green)
        _try(canvas, shape, in_cells, red, green)
    for _ in range(int(rng.poisson(model.green_only))):
        shape = clump(rng, rng.uniform(3.0, 7.0))
        _try(canvas, shape, in_cells, 0.0, rng.uniform(*model.green_only_brightness))
    for _ in range(int(rng.poisson(model.unfocused))):
        shape = disc(rng, rng.uniform(12.0, 30.0), rng.uniform(0.6, 1.0))
        red = rng.uniform(*model.unfocused_brightness)
        green = red * rng.choice([0.0, 0.3, 1.0])
        canvas.glow(shape, next(in_cells), red=red, green=green)
    everywhere = _anywhere(rng, canvas)
    for _ in range(int(rng.poisson(model.debris))):
        shape = clump(rng, rng.uniform(8.0, 26.0))
        red, green = rng.uniform(*model.debris_brightness), rng.uniform(*model.debris_brightness)
        if rng.uniform() < 0.5:
            canvas.glow(shape, next(everywhere), red=red, green=green)
        else:
            _try(canvas, shape, everywhere, 0.7 * red, green)


def _anywhere(rng: np.random.Generator, canvas: Canvas) -> Iterator[Spot]:
    """Endless places, inside cells or not."""
    height, width = canvas.truth_HW.shape
    while True:
        yield int(rng.integers(height)), int(rng.integers(width))


def _try(canvas: Canvas, shape: Shape, spots: Iterator[Spot], red: float, green: float) -> None:
    for _ in range(TRIES):
        if canvas.place(shape, next(spots), value=BACKGROUND, red=red, green=green):
            return
