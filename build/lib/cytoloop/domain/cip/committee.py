"""Several teachers of one assay: what each of them runs, and what they decide together.

Where recipes or parameter sets agree, a weak label is more often right than where they do not. So
the share of teachers behind a pixel's class is kept beside the mask: training weighs pixels by it,
and leaves those below the assay's ``agreement`` out.

Legend: T teachers, K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE, Cip
from cytoloop.domain.errors import ShapeError

SURE = 255
"""Confidence of a pixel on which all teachers agree."""


def opinions(cip: Cip) -> tuple[Cip, ...]:
    """What each teacher runs, the first one first; a single one gives ``cip`` without its agreement.

    A further teacher's parameters are laid over the first one's where both run the same recipe.

    Examples
    --------
    >>> from cytoloop.domain.assay import Teacher
    >>> cip = Cip(recipe="nuclei", parameters={"sigma": 2}, teachers=(Teacher(parameters={"area": 9}),))
    >>> [dict(opinion.parameters) for opinion in opinions(cip)]
    [{'sigma': 2}, {'sigma': 2, 'area': 9}]
    """
    further = []
    for teacher in cip.teachers:
        recipe = cip.recipe if teacher.recipe is None else teacher.recipe
        inherited = cip.parameters if recipe == cip.recipe else {}
        further.append(Cip(recipe=recipe, parameters={**inherited, **teacher.parameters}))
    return (Cip(recipe=cip.recipe, parameters=cip.parameters), *further)


def vote(
    masks_THW: Sequence[NDArray[np.uint8]], class_count: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The class most teachers give each pixel, and the share of them that do.

    Of classes with equally many votes the first teacher's wins, else the lowest. A teacher that
    gives 255 to a pixel does not vote there, and counts as one who disagrees.

    Parameters
    ----------
    masks_THW : sequence of T ndarrays of uint8, shape (H, W)
        One mask a teacher, the first teacher's first: 0…K-1, or 255.
    class_count : int
        K, background included.

    Returns
    -------
    mask_HW : ndarray of uint8, shape (H, W)
        0…K-1; 255 where nobody voted.
    confidence_HW : ndarray of uint8, shape (H, W)
        Votes of that class / T, times 255 and rounded: 255 = all agree, 0 = nobody voted.

    Raises
    ------
    ShapeError
        If there is no mask, or they differ in size.

    Examples
    --------
    >>> mask_HW, confidence_HW = vote([np.array([[c]], np.uint8) for c in (1, 2, 2)], 3)
    >>> int(mask_HW[0, 0]), int(confidence_HW[0, 0])
    (2, 170)
    """
    shapes = sorted({mask_HW.shape for mask_HW in masks_THW})
    if len(shapes) != 1 or len(shapes[0]) != 2:
        raise ShapeError(f"votes: masks of {shapes}, expected at least one mask, all of one size (H, W)")
    first_HW = masks_THW[0]
    votes_KHW = np.zeros((class_count, *shapes[0]), np.uint16)
    for mask_HW in masks_THW:
        for value in range(class_count):
            votes_KHW[value] += mask_HW == value
    most_HW = votes_KHW.max(axis=0)
    winner_HW = votes_KHW.argmax(axis=0).astype(np.uint8)
    for value in range(class_count):
        winner_HW[(first_HW == value) & (votes_KHW[value] == most_HW)] = value
    winner_HW[most_HW == 0] = IGNORE
    confidence_HW = np.rint(most_HW * (SURE / len(masks_THW))).astype(np.uint8)
    return winner_HW, confidence_HW
