"""The recipes by name, their digests, and weak labels made with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import Cip, Teacher
from cytoloop.domain.cip.cells2ch import CELLS2CH
from cytoloop.domain.cip.committee import opinions, vote
from cytoloop.domain.cip.illumination import estimate_illumination
from cytoloop.domain.cip.nuclei import NUCLEI
from cytoloop.domain.cip.recipe import Recipe, Watch
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
    """Every parameter of an assay's recipe (its first teacher), defaults spelled out.

    Raises
    ------
    ConfigError
        If the recipe or a parameter is unknown, or a value is not a finite number >= 0.
    """
    return recipe_of(cip).parameters(cip.parameters)


def teachers_of(cip: Cip) -> tuple[tuple[Recipe, dict[str, float]], ...]:
    """Recipe and every parameter of each teacher, the first one first.

    Raises
    ------
    ConfigError
        If a recipe or a parameter is unknown, a value is not a finite number >= 0, a teacher reads
        other channels or gives other classes than the first one, or says what another one says.
    """
    first = recipe_of(cip)
    found = [(first, effective_parameters(cip))]
    for index, opinion in enumerate(opinions(cip)[1:]):
        where = f"cip.teachers.{index}"
        try:
            recipe = recipe_of(opinion)
        except ConfigError as error:
            raise ConfigError(f"{where}.recipe: {error}") from None
        reads, gives = recipe.channel_count, recipe.class_count
        if (reads, gives) != (first.channel_count, first.class_count):
            raise ConfigError(
                f"{where}.recipe: {recipe.name!r} reads {reads} channel(s) and gives {gives} classes, "
                f"expected {first.channel_count} and {first.class_count} as {first.name!r}"
            )
        try:
            parameters = recipe.parameters(opinion.parameters)
        except ConfigError as error:
            raise ConfigError(f"{where}.parameters: {error}") from None
        for other, known in enumerate(found):
            if known == (recipe, parameters):
                name = "the first teacher" if other == 0 else f"cip.teachers.{other - 1}"
                raise ConfigError(f"{where}: the same as {name}, expected another recipe or other parameters")
        found.append((recipe, parameters))
    return tuple(found)


def cip_document(cip: Cip) -> dict[str, Any]:
    """What makes the masks, as JSON: recipe and every parameter, and those of further teachers."""
    (first, parameters), *further = teachers_of(cip)
    document: dict[str, Any] = {"recipe": first.name, "parameters": parameters}
    if further:  # left out where there are none, so that digests of single recipes stay
        document["teachers"] = [{"recipe": recipe.name, "parameters": own} for recipe, own in further]
    return document


def cip_of(document: Mapping[str, Any]) -> Cip:
    """The recipe and teachers of a ``cip_document``; its ``agreement``, which makes no masks, is 0."""
    teachers = (Teacher(recipe=t["recipe"], parameters=t["parameters"]) for t in document.get("teachers", ()))
    return Cip(recipe=document["recipe"], parameters=document["parameters"], teachers=tuple(teachers))


def recipe_digest(cip: Cip) -> str:
    """SHA-256 (hex) of the teachers' recipes and parameters; a default spelled out changes nothing."""
    return digest_of(cip_document(cip))


def plate_illumination(images_CHW: Iterable[NDArray[np.float32]], cip: Cip) -> NDArray[np.float32] | None:
    """Illumination of a plate for ``make_weak_label``; None where it cannot or need not be known.

    Parameters
    ----------
    images_CHW : iterable of ndarray of float32, shape (C, H, W)
        Images of one plate, all of one size; may be a generator. Not looked at unless a teacher
        uses illumination; the camera's offset is that of the first who does.

    Returns
    -------
    illumination_CHW : ndarray of float32, shape (C, H, W), or None
        None if no teacher uses it, or fewer than ``MIN_IMAGES_FOR_ILLUMINATION`` came.
    """
    offsets = [own["camera_offset"] for recipe, own in teachers_of(cip) if recipe.uses_illumination]
    if not offsets:
        return None
    images = iter(images_CHW)
    first = list(islice(images, MIN_IMAGES_FOR_ILLUMINATION))
    if len(first) < MIN_IMAGES_FOR_ILLUMINATION:
        return None
    return estimate_illumination(chain(first, images), offsets[0])


def make_weak_label(
    image_CHW: NDArray[np.float32],
    image_key: str,
    cip: Cip,
    illumination_CHW: NDArray[np.float32] | None = None,
    watch: Watch | None = None,
) -> WeakLabel:
    """Label one field with an assay's recipe, or by the vote of its teachers.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (C, H, W)
        Raw grey values, channels in the recipe's order.
    image_key : str
        Digest of the raw pixels; also names the image in messages.
    cip : Cip
        Recipe and parameters; further teachers.
    illumination_CHW : ndarray of float32, shape (C, H, W), optional
        Of the plate, mean 1 per channel (``plate_illumination``).
    watch : callable, optional
        Told each step of the first teacher's recipe (``Recipe.steps``) as it is done; without it
        nothing is kept.

    Raises
    ------
    ConfigError
        If the recipe or a parameter is unknown or out of range.
    ShapeError
        If the image has other channels than the recipe reads, is empty, or holds NaN or infinity;
        or the illumination has another shape.
    """
    teachers = teachers_of(cip)
    recipe, _ = teachers[0]
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
    masks = _opinions_of(image_CHW.astype(np.float32, copy=False), teachers, illumination_CHW, watch)
    mask_HW, confidence_HW = (masks[0], None) if len(masks) == 1 else vote(masks, recipe.class_count)
    return WeakLabel(
        image_key=image_key,
        mask_HW=mask_HW,
        recipe=recipe.name,
        recipe_digest=recipe_digest(cip),
        code_version=CODE_VERSION,
        confidence_HW=confidence_HW,
    )


def _opinions_of(
    image_CHW: NDArray[np.float32],
    teachers: tuple[tuple[Recipe, dict[str, float]], ...],
    illumination_CHW: NDArray[np.float32] | None,
    watch: Watch | None,
) -> list[NDArray[np.uint8]]:
    """A mask a teacher; what they prepare alike (deconvolution, the slow part) is prepared once."""
    prepared: dict[tuple[Any, ...], NDArray[np.float32]] = {}
    masks = []
    for index, (recipe, parameters) in enumerate(teachers):
        key = (recipe.name, *(parameters[name] for name in sorted(recipe.prepared_by)))
        if key not in prepared:
            prepared[key] = recipe.prepare(image_CHW, parameters, illumination_CHW)
        masks.append(recipe.label(prepared[key], parameters, watch if index == 0 else None))
    return masks
