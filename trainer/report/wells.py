"""A plate well by well: what was corrected there, and how the version in use does where it may be judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cytoloop.domain.types import Split

_WELL = re.compile(r"(?P<row>[A-Z]{1,2})(?P<column>\d{1,2})")
FORMATS = ((2, 3), (4, 6), (8, 12), (16, 24), (32, 48))
"""Rows and columns of the plates there are, 6 to 1536 wells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WellScore:
    """One well of one plate."""

    plate: str
    well: str
    """``B03``."""
    split: Split
    treatment: str = ""
    """Empty where unknown, or where its fields differ."""
    items: int
    """In all."""
    corrected: int
    """Of them, by now."""
    minutes: float
    """Items of it were open in the editor, as far as that was recorded."""
    mean_iou: float | None = None
    """Of the version in use, on the corrected items of a well no model learned from; None elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateWells:
    """The wells of one plate."""

    plate: str
    wells: tuple[WellScore, ...]

    @property
    def corrected(self) -> tuple[WellScore, ...]:
        """Those in which something is corrected."""
        return tuple(one for one in self.wells if one.corrected)


def plates_of(wells: Iterable[WellScore]) -> list[PlateWells]:
    """Wells by plate, in order."""
    by_plate: dict[str, list[WellScore]] = {}
    for one in wells:
        by_plate.setdefault(one.plate, []).append(one)
    return [
        PlateWells(plate=plate, wells=tuple(sorted(of_plate, key=lambda one: one.well)))
        for plate, of_plate in sorted(by_plate.items())
    ]


def place_of(well: str) -> tuple[int, int] | None:
    """Row and column of a well from 0; None for a name that is no place on a plate.

    Examples
    --------
    >>> place_of("B03"), place_of("AF48"), place_of("left")
    ((1, 2), (31, 47), None)
    """
    found = _WELL.fullmatch(well)
    if found is None or int(found["column"]) < 1:
        return None
    row = 0
    for letter in found["row"]:
        row = row * 26 + ord(letter) - ord("A") + 1
    return row - 1, int(found["column"]) - 1


def format_of(places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Rows and columns of the smallest plate that has all these places; None if there is none."""
    return next(
        (
            (rows, columns)
            for rows, columns in FORMATS
            if all(row < rows and column < columns for row, column in places)
        ),
        None,
    )
