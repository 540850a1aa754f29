"""Studies with people: which items are looked at, in which set, by whom.

The blind rating and the box surrogate share one plan (Garcia Santa Cruz et al. 2022,
doi:10.1038/s41598-022-15623-7): items are drawn at random and dealt into sets, and each set has its own
experts. An *item* is a whole tile, what an expert would correct: the paper's quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cytoloop.domain.errors import InputError
from cytoloop.domain.types import Item

PAPER_EXPERTS = 4
PAPER_SETS = 2


def default_experts(count: int = PAPER_EXPERTS) -> tuple[str, ...]:
    """Names for experts nobody has named.

    Examples
    --------
    >>> default_experts(2)
    ('expert-1', 'expert-2')
    """
    return tuple(f"expert-{number}" for number in range(1, count + 1))


def assign_experts(experts: Sequence[str], sets: int) -> tuple[int, ...]:
    """The set (from 1) of each expert: neighbours share one, and sets differ by at most one expert.

    Raises
    ------
    InputError
        If a name comes twice or a set would have nobody.

    Examples
    --------
    >>> assign_experts(["ada", "bob", "cyd", "dan"], 2)
    (1, 1, 2, 2)
    """
    doubled = sorted({name for name in experts if experts.count(name) > 1})
    if doubled:
        raise InputError(f"experts {', '.join(doubled)}: named twice, expected each once")
    if sets < 1 or len(experts) < sets:
        raise InputError(f"{len(experts)} expert(s) for {sets} set(s), expected at least one a set")
    return tuple(1 + number * sets // len(experts) for number in range(len(experts)))


def draw_sets(
    items: Sequence[Item], count: int, sets: int, rng: np.random.Generator
) -> tuple[tuple[Item, ...], ...]:
    """Draw ``count`` items and deal them into ``sets`` whose sizes differ by at most one.

    Every image gives one item before any gives a second: tiles of one image look alike.

    Parameters
    ----------
    items : sequence of Item
        What may be drawn, in any order.
    count : int
        How many, at least one a set.
    rng : numpy.random.Generator
        Decides everything; the order of ``items`` decides nothing.

    Raises
    ------
    InputError
        If there are fewer items than that.
    """
    if count < sets:
        raise InputError(f"{count} item(s) for {sets} sets, expected at least one a set")
    if len(items) < count:
        raise InputError(f"{count} items asked for, there are {len(items)}")
    tiles: dict[str, list[Item]] = {}
    for item in sorted(items):
        tiles.setdefault(item.image_id, []).append(item)
    images = [[of_image[t] for t in rng.permutation(len(of_image))] for of_image in tiles.values()]
    images = [images[i] for i in rng.permutation(len(images))]
    in_turn = [
        of_image[turn]
        for turn in range(max(len(of_image) for of_image in images))
        for of_image in images
        if turn < len(of_image)
    ]
    # Shuffled once more, so that second tiles do not all end up in the last set.
    drawn = [in_turn[i] for i in rng.permutation(count)]
    edges = [count * number // sets for number in range(sets + 1)]
    return tuple(tuple(drawn[start:stop]) for start, stop in pairwise(edges))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far one expert is."""

    expert: str
    set: int
    """From 1."""
    done: int
    total: int
    skipped: int = 0
    """Tasks that were skipped and are still open."""
    by_others: int = 0
    """Open tasks that somebody else did in this expert's project; they do not count."""
    project_id: int

    @property
    def left(self) -> int:
        """Tasks still open."""
        return self.total - self.done

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "left": self.left}


def missing_words(progress: Sequence[Progress]) -> str:
    """Who has how much left, as a sentence; empty when all is done.

    Examples
    --------
    >>> missing_words([Progress(expert="ada", set=1, done=3, total=40, project_id=7)])
    'Incomplete: 37 of 40 tasks are open (ada 37).'
    """
    open_ = [one for one in progress if one.left]
    if not open_:
        return ""
    who = ", ".join(f"{one.expert} {one.left}" for one in open_)
    left, total = sum(one.left for one in progress), sum(one.total for one in progress)
    return f"Incomplete: {left} of {total} tasks are open ({who})."
