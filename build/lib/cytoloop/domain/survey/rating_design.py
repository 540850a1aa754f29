"""The design of a blind rating: who sees which mask, in which order, on which side.

The paper's (Garcia Santa Cruz et al. 2022, doi:10.1038/s41598-022-15623-7) is the default: 40 items, each
shown once with the mask of either method, in two sets of 20 items, each set rated from 1 to 10 by two
experts who do not know which method they look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.study import assign_experts, draw_sets
from cytoloop.domain.types import Item

PAPER_IMAGES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One item with the mask of one method; the token is all that leaves this machine."""

    token: str
    """Names the files and the task; says nothing about the method."""
    item: Item
    method: str
    set: int
    """From 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One task of one expert."""

    token: str
    is_mask_left: bool
    """Whether the mask stands left of the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rater:
    """One expert and the tasks, in the order in which they come."""

    expert: str
    set: int
    showings: tuple[Showing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingDesign:
    """Who rates what: the key that turns tokens back into methods."""

    methods: tuple[str, str]
    """a and b; differences are b minus a."""
    pictures: tuple[Picture, ...]
    raters: tuple[Rater, ...]

    def picture(self, token: str) -> Picture | None:
        """What a token stands for; None if it is not of this design."""
        return next((one for one in self.pictures if one.token == token), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "methods": list(self.methods),
            "pictures": [
                {
                    "token": one.token,
                    "image_id": one.item.image_id,
                    "tile": one.item.tile,
                    "method": one.method,
                    "set": one.set,
                }
                for one in self.pictures
            ],
            "raters": [
                {
                    "expert": one.expert,
                    "set": one.set,
                    "showings": [{"token": s.token, "is_mask_left": s.is_mask_left} for s in one.showings],
                }
                for one in self.raters
            ],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> RatingDesign:
        """What ``to_dict`` gave."""
        a, b = document["methods"]
        return cls(
            methods=(a, b),
            pictures=tuple(
                Picture(
                    token=one["token"],
                    item=Item(image_id=one["image_id"], tile=one["tile"]),
                    method=one["method"],
                    set=one["set"],
                )
                for one in document["pictures"]
            ),
            raters=tuple(
                Rater(
                    expert=one["expert"],
                    set=one["set"],
                    showings=tuple(Showing(**showing) for showing in one["showings"]),
                )
                for one in document["raters"]
            ),
        )


def draw_design(
    items: Sequence[Item],
    methods: tuple[str, str],
    experts: Sequence[str],
    images: int,
    sets: int,
    rng: np.random.Generator,
    new_token: Callable[[], str],
) -> RatingDesign:
    """Plan a blind rating: every expert sees each item of the own set once a method.

    Parameters
    ----------
    items : sequence of Item
        What may be drawn (``study.draw_sets``).
    methods : tuple of str
        The two methods, a and b.
    images : int
        Items drawn; there are twice as many pictures.
    rng : numpy.random.Generator
        Decides items, sets, each expert's order, and the side of each mask: left for half of an expert's
        pictures of a method, so that neither order nor side can speak for a method.
    new_token : callable
        Gives a new random token. It is not taken from ``rng``: whoever guesses the seed learns no key.

    Raises
    ------
    InputError
        If the methods are one, there are too few items, or a set would have no expert.
    """
    if methods[0] == methods[1]:
        raise InputError(f"rating {methods[0]} against itself, expected two methods")
    set_of = assign_experts(experts, sets)
    pictures = tuple(
        Picture(token=new_token(), item=item, method=method, set=number)
        for number, of_set in enumerate(draw_sets(items, images, sets, rng), start=1)
        for item in of_set
        for method in methods
    )
    if len({one.token for one in pictures}) < len(pictures):
        raise InputError("tokens of a rating: two are equal, expected random ones")
    raters = []
    for expert, number in zip(experts, set_of, strict=True):
        showings: list[Showing] = []
        for method in methods:
            tokens = [one.token for one in pictures if one.set == number and one.method == method]
            # Of an odd number, the one left over goes to a side at random.
            is_left = (np.arange(len(tokens)) + rng.integers(2)) % 2 == 0
            for token, left in zip(tokens, rng.permutation(is_left), strict=True):
                showings.append(Showing(token=token, is_mask_left=bool(left)))
        order = rng.permutation(len(showings))
        raters.append(Rater(expert=expert, set=number, showings=tuple(showings[i] for i in order)))
    return RatingDesign(methods=methods, pictures=pictures, raters=tuple(raters))
