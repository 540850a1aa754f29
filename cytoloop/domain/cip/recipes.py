"""The recipes by name, their digests, and weak labels made with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip.cells2ch import CELLS2CH
from cytoloop.domain.cip.illumination import estimate_illumination
from cytoloop.domain.cip.nuclei import NUCLEI
from cytoloop.domain.cip.recipe import Recipe
from cytoloop.domain.cip.rosella import ROSELLA
from cytoloop.domain.digest import digest_of
from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.domain.types import WeakLabel

CODE_VERSION: Final = "cip-1"
"""Raised whenever an operator or recipe gives another mask for the same image and parameters."""

RECIPES: Final[Mapping[str, Recipe]] = {recipe.name: recipe for recipe in (ROSELLA, CELLS2CH, NUCLEI)}

MIN_IMAGES_FOR_ILLUMINATION: Final = 8
"""With fewer images of a plate, what they share may still be objects rather than light."""


def recipe_of(cip: Cip) -> Recipe:
    """The recipe an assay names.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    recipe = RECIPES.get(cip.recipe)
    if recipe is None:
        raise ConfigError(f"unknown CIP recipe {cip.recipe!r}, expected one of {sorted(RECIPES)}")
    return recipe


def effective_parameters(cip: Cip) -> dict[str, float]:
    """Every parameter of an assay's recipe, defaults spelled out.

    Raises
    ------
    ConfigError
        If the recipe or a parameter is unknown, or a value is not a finite number >= 0.
    """
    return recipe_of(cip).parameters(cip.parameters)


def recipe_digest(cip: Cip) -> str:
    """SHA-256 (hex) of the recipe's name and every parameter; a default spelled out changes nothing."""
    return digest_of({"recipe": cip.recipe, "parameters": effective_parameters(cip)})


def plate_illumination(images_CHW: Iterable[NDArray[np.float32]], cip: Cip) -> NDArray[np.float32] | None:
    """Illumination of a plate for ``make_weak_label``; None where it cannot or need not be known.

    Parameters
    ----------
    images_CHW : iterable of ndarray of float32, shape (C, H, W)
        Images of one plate, all of one size; may be a generator. Not looked at unless the recipe
        uses illumination.

    Returns
    -------
    illumination_CHW : ndarray of float32, shape (C, H, W), or None
        None if the recipe does not use it, or fewer than ``MIN_IMAGES_FOR_ILLUMINATION`` came.
    """
    if not recipe_of(cip).uses_illumination:
        return None
    offset = effective_parameters(cip)["camera_offset"]
    images = iter(images_CHW)
    first = list(islice(images, MIN_IMAGES_FOR_ILLUMINATION))
    if len(first) < MIN_IMAGES_FOR_ILLUMINATION:
        return None
    return estimate_illumination(chain(first, images), offset)


def make_weak_label(
    image_CHW: NDArray[np.float32],
    image_key: str,
    cip: Cip,
    illumination_CHW: NDArray[np.float32] | None = None,
) -> WeakLabel:
    """Label one field with an assay's recipe.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (C, H, W)
        Raw grey values, channels in the recipe's order.
    image_key : str
        Digest of the raw pixels; also names the image in messages.
    cip : Cip
        Recipe and parameters.
    illumination_CHW : ndarray of float32, shape (C, H, W), optional
        Of the plate, mean 1 per channel (``plate_illumination``).

    Raises
    ------
    ConfigError
        If the recipe or a parameter is unknown or out of range.
    ShapeError
        If the image has other channels than the recipe reads, is empty, or holds NaN or infinity;
        or the illumination has another shape.
    """
    recipe = recipe_of(cip)
    parameters = effective_parameters(cip)
    where = f"image {image_key}"
    if image_CHW.ndim != 3 or image_CHW.shape[0] != recipe.channel_count or 0 in image_CHW.shape:
        raise ShapeError(
            f"{where}: shape {image_CHW.shape}, recipe {recipe.name!r} expects ({recipe.channel_count}, H, W)"
        )
    broken = image_CHW.size - int(np.isfinite(image_CHW).sum())
    if broken:
        raise ShapeError(
            f"{where}: {broken} of {image_CHW.size} grey values are NaN or infinite, expected finite ones"
        )
    if illumination_CHW is not None and illumination_CHW.shape != image_CHW.shape:
        raise ShapeError(
            f"{where}: illumination {illumination_CHW.shape}, expected the image's shape {image_CHW.shape}"
        )
    return WeakLabel(
        image_key=image_key,
        mask_HW=recipe.run(image_CHW.astype(np.float32, copy=False), parameters, illumination_CHW),
        recipe=recipe.name,
        recipe_digest=recipe_digest(cip),
        code_version=CODE_VERSION,
    )
