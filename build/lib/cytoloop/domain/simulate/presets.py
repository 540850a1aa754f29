"""What a simulated plate is made of, as numbers: one frozen record per preset.

No field has a default and ``reference-1`` writes every value out, so that tuning another preset can
never change it. Brightness is told in *display units* (0…255 of an 8-bit display, camera offset
removed), the unit in which the look of real Rosella images is known (doi:10.1038/s41598-022-15623-7);
lengths are pixels of 0.2152 µm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from cytoloop.domain.errors import InputError

Look = Literal["typical", "defocused", "dim", "blocked", "induced", "rings"]
"""What sets a field apart; *blocked* and *induced* belong to the well's treatment."""
LOOKS: tuple[Look, ...] = get_args(Look)

SIMULATOR_VERSION = 2
"""Raised whenever the code draws other pixels from the same preset and seed."""

Range = tuple[float, float]
"""Lower and upper end of a uniform draw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellModel:
    """Cells in colonies: how many, how large, how green."""

    cells: tuple[int, int]
    """Fewest and most cells of a field, both inclusive; those cut by the edge count."""
    colonies: tuple[int, int]
    colony_spread: float
    """Standard deviation of the distance of a cell from the centre of its colony, pixels."""
    nucleus_diameter: Range
    nucleus_axis_ratio: Range
    cell_to_nucleus: Range
    """Radius of the cell over the radius of its nucleus."""
    outline_warp: float
    """How far smooth noise moves the outlines, pixels."""
    cytoplasm_green: float
    nucleus_green: float
    """Share of the cytoplasm's green that is seen in the nucleus."""
    expression_sigma: float
    """Sigma of the log-normal brightness of a cell."""
    texture: float
    """Relative standard deviation of the cytoplasm's granular texture."""
    cytoplasm_red: float
    outside_green: float
    outside_red: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """A depth at which structures lie."""

    share: float
    """Share of the structures that lie there."""
    sigma: float
    """Blur added to the point spread function, pixels."""
    light: float
    """Share of the light that comes from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureModel:
    """The two drawn classes, and what is mistaken for them."""

    phagophores_per_cell: float
    autolysosomes_per_cell: float
    """Expected number in a cell of 12 000 px of cytoplasm."""
    activity_sigma: float
    """Sigma of the log-normal autophagic activity of a cell."""
    phagophore_diameter: tuple[float, float, float]
    """Median, sigma of the log and largest equivalent diameter, pixels."""
    phagophore_red: Range
    """Brightness before blur, which takes four tenths off the small ones; uniform in the logarithm."""
    phagophore_green: Range
    """Green over red; uniform in the logarithm."""
    crescent_share: float
    autolysosome_diameter: tuple[float, float, float]
    autolysosome_red: Range
    autolysosome_green: Range
    """Share of the local cytoplasm's green that is left inside."""
    autolysosome_axis_ratio: Range
    touching_share: float
    """Share of autolysosomes that a phagophore touches."""
    planes: tuple[Plane, ...]
    """Depths, the focal plane (no blur) first."""
    least_seen: float
    """Red brightness, after depth and defocus have dimmed and spread it, below which no expert draws a
    structure: it is in the picture and background in the truth."""
    fading_share: float
    """Share of either class that is round, red and on its way from one class to the other."""
    fading: Range
    """Green over red of those."""
    fading_limit: float
    """Green over red above which one of those is a phagophore, below which an autolysosome."""
    ambiguous: float
    """Expected number per field of red structures with weak green: the two rare classes the paper
    dropped. Background in the truth."""
    ambiguous_red: Range
    ambiguous_green: Range
    green_only: float
    """Expected number per field of green puncta without red. Background in the truth."""
    green_only_brightness: Range
    unfocused: float
    """Expected number per field of blobs far out of focus. Background in the truth."""
    unfocused_brightness: Range
    debris: float
    debris_brightness: Range
    haze: Range
    """Brightness of the faint red clouds in the cytoplasm, at their peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraModel:
    """From light to grey values, as (green, red) where the two cameras differ."""

    psf_sigma: Range
    """Gaussian blur in focus, pixels."""
    halo_share: float
    halo_sigma: float
    """Light from other planes that the spinning disk lets through: share and blur in pixels."""
    falloff: Range
    """Loss of light in the corner of the field."""
    bleed_green_to_red: float
    bleed_red_to_green: float
    """Share of one channel's light, in display units, that is seen in the other."""
    camera_shift: Range
    """Distance between what the two cameras see at the centre of the field, pixels."""
    camera_distortion: float
    """Largest stretch and turn of one camera against the other, as a share of the distance from the
    centre (425 px in the corners)."""
    grey_per_unit: tuple[float, float]
    """Grey values per display unit: pHluorin is the brighter dye."""
    grey_per_electron: float
    offset: float
    read_noise: float
    """Grey values."""
    expectation_grid: float
    """Electrons; expectations are rounded to this before noise is drawn, so that processors that
    differ in the last bit still draw the same picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookModel:
    """How a look departs from a typical field."""

    phagophores: float
    autolysosomes: float
    """Factors on the expected numbers."""
    autolysosome_size: float
    """Factor on the median diameter."""
    ring_share: float
    """Share of the autolysosomes that are rings."""
    defocus: Range
    """Blur added to the point spread function, pixels."""
    light: Range
    """Factor on all light."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatePreset:
    """Everything that decides what a plate looks like, except the seed."""

    name: str
    cells: CellModel
    structures: StructureModel
    camera: CameraModel
    looks: Mapping[Look, LookModel]
    fields_per_well: int
    block_wells: Mapping[str, int]
    """Wells of each treatment in a block; treatments are shuffled block by block."""
    block_looks: Mapping[Look, int]
    """Looks of untreated (DMSO) fields in a block; shuffled block by block."""


REFERENCE_1 = PlatePreset(
    name="reference-1",
    cells=CellModel(
        cells=(12, 18),
        colonies=(1, 2),
        colony_spread=165.0,
        nucleus_diameter=(60.0, 96.0),
        nucleus_axis_ratio=(0.68, 0.95),
        cell_to_nucleus=(1.5, 2.0),
        outline_warp=16.0,
        cytoplasm_green=80.0,
        nucleus_green=0.45,
        expression_sigma=0.22,
        texture=0.15,
        cytoplasm_red=9.0,
        outside_green=11.0,
        outside_red=3.0,
    ),
    structures=StructureModel(
        phagophores_per_cell=15.5,
        autolysosomes_per_cell=9.0,
        activity_sigma=0.45,
        phagophore_diameter=(6.5, 0.58, 24.0),
        phagophore_red=(90.0, 560.0),
        phagophore_green=(0.5, 1.15),
        crescent_share=0.15,
        autolysosome_diameter=(10.5, 0.43, 46.0),
        autolysosome_red=(75.0, 330.0),
        autolysosome_green=(0.04, 0.3),
        autolysosome_axis_ratio=(0.82, 1.0),
        touching_share=0.22,
        planes=(
            Plane(share=0.68, sigma=0.0, light=1.0),
            Plane(share=0.22, sigma=1.2, light=0.9),
            Plane(share=0.1, sigma=2.4, light=0.75),
        ),
        least_seen=42.0,
        fading_share=0.1,
        fading=(0.05, 0.6),
        fading_limit=0.3,
        ambiguous=7.0,
        ambiguous_red=(70.0, 160.0),
        ambiguous_green=(18.0, 55.0),
        green_only=12.0,
        green_only_brightness=(60.0, 150.0),
        unfocused=8.0,
        unfocused_brightness=(25.0, 70.0),
        debris=1.2,
        debris_brightness=(80.0, 260.0),
        haze=(15.0, 60.0),
    ),
    camera=CameraModel(
        psf_sigma=(1.15, 1.5),
        halo_share=0.14,
        halo_sigma=9.0,
        falloff=(0.15, 0.35),
        bleed_green_to_red=0.05,
        bleed_red_to_green=0.01,
        camera_shift=(0.2, 0.7),
        camera_distortion=0.001,
        grey_per_unit=(24.0, 10.0),
        grey_per_electron=8.0,
        offset=110.0,
        read_noise=12.0,
        expectation_grid=0.125,
    ),
    looks={
        "typical": LookModel(
            phagophores=1.0,
            autolysosomes=1.0,
            autolysosome_size=1.0,
            ring_share=0.05,
            defocus=(0.0, 0.0),
            light=(0.85, 1.15),
        ),
        "defocused": LookModel(
            phagophores=1.0,
            autolysosomes=1.0,
            autolysosome_size=1.0,
            ring_share=0.05,
            defocus=(2.0, 3.2),
            light=(0.85, 1.15),
        ),
        "dim": LookModel(
            phagophores=1.0,
            autolysosomes=1.0,
            autolysosome_size=1.0,
            ring_share=0.05,
            defocus=(0.0, 0.3),
            light=(0.2, 0.35),
        ),
        "blocked": LookModel(
            phagophores=1.35,
            autolysosomes=0.04,
            autolysosome_size=0.8,
            ring_share=0.0,
            defocus=(0.0, 0.0),
            light=(0.85, 1.15),
        ),
        "induced": LookModel(
            phagophores=1.25,
            autolysosomes=1.6,
            autolysosome_size=1.25,
            ring_share=0.1,
            defocus=(0.0, 0.0),
            light=(0.85, 1.15),
        ),
        "rings": LookModel(
            phagophores=0.9,
            autolysosomes=0.75,
            autolysosome_size=1.6,
            ring_share=0.85,
            defocus=(0.0, 0.0),
            light=(0.85, 1.15),
        ),
    },
    fields_per_well=2,
    block_wells={"bafilomycin": 1, "rapamycin": 1, "DMSO": 14},
    block_looks={"typical": 22, "defocused": 2, "dim": 2, "rings": 2},
)
"""Frozen. Its digest over the first fields is tested; a change needs a new name."""

ROSELLA = replace(REFERENCE_1, name="rosella")
"""The default; tune it here, by replacing what differs from the reference."""

PRESETS: Mapping[str, PlatePreset] = {preset.name: preset for preset in (ROSELLA, REFERENCE_1)}


def preset_named(name: str) -> PlatePreset:
    """The preset of that name.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in PRESETS:
        raise InputError(f"simulated plate: preset {name!r}, expected one of {sorted(PRESETS)}")
    return PRESETS[name]
