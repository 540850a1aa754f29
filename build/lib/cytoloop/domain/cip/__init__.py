"""Conventional image processing: an image in, a weak label out, nothing learned.

``operators`` are filters of pixels, ``objects`` measures of labels; each recipe is a module of its
own; ``recipes`` finds them by name and makes weak labels; ``committee`` lets several of them vote.
"""

from __future__ import annotations

from cytoloop.domain.cip.recipe import Recipe, Watch
from cytoloop.domain.cip.recipes import (
    CODE_VERSION,
    MIN_IMAGES_FOR_ILLUMINATION,
    RECIPES,
    cip_document,
    cip_of,
    effective_parameters,
    make_weak_label,
    plate_illumination,
    recipe_digest,
    recipe_of,
    teachers_of,
)

__all__ = [
    "CODE_VERSION",
    "MIN_IMAGES_FOR_ILLUMINATION",
    "RECIPES",
    "Recipe",
    "Watch",
    "cip_document",
    "cip_of",
    "effective_parameters",
    "make_weak_label",
    "plate_illumination",
    "recipe_digest",
    "recipe_of",
    "teachers_of",
]
