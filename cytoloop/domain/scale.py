"""Whether a plate was taken at the scale its assay was made for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cytoloop.domain.assay import Assay
from cytoloop.domain.types import ImageRecord

TOLERANCE = 0.01
"""Relative difference of pixel sizes that passes for rounding."""


def scale_warnings(records: Iterable[ImageRecord], assay: Assay) -> list[str]:
    """What to tell a person of images whose pixels are larger or smaller than the assay's; a line a size and plate.

    Recipes and networks know sizes in pixels: at another scale they look for objects of another size.
    """
    if assay.pixel_size_um is None:
        return []
    found: Counter[tuple[str, float]] = Counter()
    for record in records:
        size = record.pixel_size_um
        if size is not None and abs(size - assay.pixel_size_um) > TOLERANCE * assay.pixel_size_um:
            found[record.plate, size] += 1
    return [
        f"plate {plate!r}: {count} image(s) with pixels of {size:g} µm, assay {assay.name!r} is made for "
        f"{assay.pixel_size_um:g} µm: objects are {assay.pixel_size_um / size:.2g} times the size it expects"
        for (plate, size), count in sorted(found.items())
    ]
