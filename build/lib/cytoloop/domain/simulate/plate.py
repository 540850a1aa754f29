"""A plate, field by field: which well, which treatment, which look, and the picture with its truth.

Legend: C channels (0 pHluorin, 1 DsRed), H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError
from cytoloop.domain.simulate.camera import (
    Illumination,
    Registration,
    draw_illumination,
    draw_registration,
    expose,
)
from cytoloop.domain.simulate.canvas import Canvas
from cytoloop.domain.simulate.cells import grow_cells
from cytoloop.domain.simulate.presets import Look, PlatePreset, preset_named
from cytoloop.domain.simulate.structures import place_structures

HEIGHT, WIDTH = 512, 680
MARGIN = 32
"""Pixels drawn beyond each edge, so that cells and structures are cut by the field as in life."""
WELLS = tuple(f"{row}{column:02d}" for row in "BCDEFGHIJKLMNO" for column in range(2, 24))
"""Inner wells of a 384-well plate; the outer ones evaporate and are left empty."""

# First word of the spawn key of each independent stream of randomness.
_WELL_ORDER, _TREATMENTS, _LOOKS, _ILLUMINATION, _FIELD, _REGISTRATION = range(6)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulatedField:
    """One field of view with pixel-exact truth."""

    image_id: str
    plate: str
    well: str
    """``B03``."""
    field: str
    """``1`` for the first field of the well."""
    treatment: str
    look: Look
    image_CHW: NDArray[np.uint16]
    """(2, 512, 680): pHluorin, DsRed."""
    truth_HW: NDArray[np.uint8]
    """0 background, 1 phagophore, 2 autolysosome: the outline before any blur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlan:
    """What is known of a field before it is drawn."""

    index: int
    image_id: str
    plate: str
    plate_number: int
    """From 0."""
    well: str
    field: str
    treatment: str
    look: Look


def plan_field(preset: str, seed: int, index: int) -> FieldPlan:
    """Say where field ``index`` lies and how it was treated, without drawing it.

    Wells are visited in an order shuffled by the seed; treatments and looks are dealt from shuffled
    decks, so that even a small plate is heterogeneous and no field depends on how many follow.

    Raises
    ------
    InputError
        If the preset is unknown, or seed or index negative.
    """
    rules = preset_named(preset)
    if seed < 0 or index < 0:
        raise InputError(f"simulated plate: seed {seed}, field {index}; expected both >= 0")
    number, place = divmod(index, len(WELLS) * rules.fields_per_well)
    visits = _stream(seed, _WELL_ORDER, number).permutation(len(WELLS))
    well = WELLS[int(visits[place // rules.fields_per_well])]
    well_number, field = divmod(index, rules.fields_per_well)
    treatment, untreated_before = _treatment_of(rules, seed, well_number)
    look: Look
    if treatment == "DMSO":
        deck: list[Look] = [name for name, count in rules.block_looks.items() for _ in range(count)]
        block, card = divmod(untreated_before * rules.fields_per_well + field, len(deck))
        look = deck[int(_stream(seed, _LOOKS, block).permutation(len(deck))[card])]
    else:
        look = "blocked" if treatment == "bafilomycin" else "induced"
    plate = f"{preset}-s{seed}-p{number + 1}"
    return FieldPlan(
        index=index,
        image_id=f"{plate}_{well}_f{field + 1}",
        plate=plate,
        plate_number=number,
        well=well,
        field=str(field + 1),
        treatment=treatment,
        look=look,
    )


def simulate_field(preset: str, seed: int, index: int) -> SimulatedField:
    """Draw one field; the same arguments always give the same pixels.

    Raises
    ------
    InputError
        If the preset is unknown, or seed or index negative.
    """
    plan = plan_field(preset, seed, index)
    rules = preset_named(preset)
    look = rules.looks[plan.look]
    rng = _stream(seed, _FIELD, index)
    cells = grow_cells(rng, (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN), rules.cells)
    canvas = Canvas(cells, len(rules.structures.planes))
    light, defocus = rng.uniform(*look.light), rng.uniform(*look.defocus)
    place_structures(rng, cells, canvas, rules.structures, look, defocus=defocus)
    image_CHW = expose(
        rng,
        canvas,
        rules.camera,
        rules.structures,
        light=light,
        defocus=defocus,
        margin=MARGIN,
        illumination=_illumination(preset, seed, plan.plate_number),
        registration=_registration(preset, seed, plan.plate_number),
    )
    return SimulatedField(
        image_id=plan.image_id,
        plate=plan.plate,
        well=plan.well,
        field=plan.field,
        treatment=plan.treatment,
        look=plan.look,
        image_CHW=image_CHW,
        truth_HW=np.ascontiguousarray(canvas.truth_HW[MARGIN:-MARGIN, MARGIN:-MARGIN]),
    )


def simulate_plate(preset: str, images: int, seed: int) -> Iterator[SimulatedField]:
    """Draw a heterogeneous Rosella plate, field by field.

    Each field has its own stream of randomness: field ``i`` is the same however many follow, and
    ``simulate_field(preset, seed, i)`` draws it alone. After 616 fields a new plate begins.

    Parameters
    ----------
    preset : str
        ``rosella`` or ``reference-1`` (frozen).
    images : int
        Number of fields, >= 1.
    seed : int
        >= 0.

    Raises
    ------
    InputError
        If an argument is out of range, before the first field is drawn.

    Notes
    -----
    The look follows Garcia Santa Cruz et al. 2022, doi:10.1038/s41598-022-15623-7: about 70 % typical
    fields; the others defocused, dim, with autophagy blocked or induced, or with ring-shaped
    autolysosomes. Background in the truth, though it may not look so: debris, red haze, green-only
    puncta, blobs out of focus, structures too dim or too deep for an expert to draw, and red structures
    with weak green (the two rare classes that the paper dropped). A tenth of either class is on its way
    from phagophore to autolysosome and has the class that its green over red says.
    """
    preset_named(preset)
    if images < 1 or seed < 0:
        raise InputError(f"simulated plate: {images} images, seed {seed}; expected images >= 1 and seed >= 0")
    return (simulate_field(preset, seed, index) for index in range(images))


def _stream(seed: int, purpose: int, index: int) -> np.random.Generator:
    """Independent randomness for one purpose: fields, wells and treatments never share a number."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose, index))))


def _treatment_of(rules: PlatePreset, seed: int, well_number: int) -> tuple[str, int]:
    """Treatment of the n-th well visited, and how many untreated wells came before it."""
    deck = [name for name, count in rules.block_wells.items() for _ in range(count)]
    block, card = divmod(well_number, len(deck))
    order = _stream(seed, _TREATMENTS, block).permutation(len(deck))
    before = sum(deck[int(position)] == "DMSO" for position in order[:card])
    return deck[int(order[card])], block * rules.block_wells["DMSO"] + before


@lru_cache(maxsize=8)
def _illumination(preset: str, seed: int, plate_number: int) -> tuple[Illumination, Illumination]:
    """Illumination of a plate: the lamp is not touched between its fields."""
    return draw_illumination(_stream(seed, _ILLUMINATION, plate_number), preset_named(preset).camera)


@lru_cache(maxsize=8)
def _registration(preset: str, seed: int, plate_number: int) -> Registration:
    """Alignment of the cameras, which are bolted down for a plate."""
    return draw_registration(_stream(seed, _REGISTRATION, plate_number), preset_named(preset).camera)
