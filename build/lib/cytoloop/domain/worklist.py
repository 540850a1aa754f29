"""From scores to the batch an expert works through: chosen as a batch, then put in order.

A batch is made up of *draws* and of *ranked* items. Draws (contest, validation, sealed, audit, gold) are
random, whatever an item's score: they measure, and a measure may not lean on the ranking. Ranked items are
those that teach most: score times distance from what the batch holds already (k-centre).

Legend: N candidates, F features.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.queue_policy import QueuePolicy, item_name
from cytoloop.domain.strategies import strategy_named
from cytoloop.domain.types import Canvas, Item, Role, Split

CANDIDATES_PER_PLACE = 4
"""A diverse batch is spread over so many of the best scores for each ranked place: farther down, an item would
be taken for being odd alone."""
MOST_COMPARED = 1000
"""Items that a typical batch is chosen from: all are compared with all."""
NEAR_DUPLICATE = 0.99
"""Cosine similarity of features above which two items teach the same."""
BLANK_EFFORT = 4.0
"""Minutes from a blank canvas over minutes to correct: 20–40 against 5–10 (doi:10.1038/s41598-022-15623-7)."""

_LAID_ON: tuple[Role, ...] = ("overlap", "blank")
"""Roles of ranked items: what is done with them, not how they are chosen."""
_DRAWS: tuple[Role, ...] = ("contest", "validation", "sealed", "audit", "gold")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: it holds an array
class Candidate:
    """An item that may be asked for, as the ranking sees it."""

    item: Item
    split: Split
    group: str
    """The well: draws are spread over wells."""
    plate: str
    score: float
    """The strategy's value: higher = ask sooner, any finite number."""
    confidence: float
    """Label Studio's score: lower = ask sooner; what the tab is ordered by."""
    lot: float
    """``lot_of`` the item: its place in every draw."""
    minutes: float | None = None
    """Expected minutes to correct; None: not known, so no budget of minutes can be kept."""
    features_F: NDArray[np.floating] | None = None
    """What batches are spread by; its direction alone counts. None: not made."""
    is_gold: bool = False
    """Its mask is known, whether the policy lists it or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An item of a batch: why it is there, and how it is to be worked on."""

    candidate: Candidate
    role: Role
    canvas: Canvas
    readers: int
    """Experts who are to read it, each without seeing the others."""

    @property
    def item(self) -> Item:
        """The item."""
        return self.candidate.item

    @property
    def minutes(self) -> float | None:
        """Expected minutes on this canvas, of one reader."""
        if self.candidate.minutes is None:
            return None
        return self.candidate.minutes * (BLANK_EFFORT if self.canvas == "blank" else 1.0)


def lot_of(assay: str, item: Item) -> float:
    """An item's place in every draw: uniform in [0, 1), the same for ever.

    Items of the lowest lots are drawn first. Hence a store can offer the first few of a million items, and
    an item that a budget left out is the first of the next batch.
    """
    digest = hashlib.sha256(f"{assay}\0{item.image_id}\0{item.tile}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def choose_batch(
    candidates: Iterable[Candidate],
    policy: QueuePolicy,
    *,
    count: int,
    minutes: float | None = None,
    seed: str = "",
    known_NF: NDArray[np.floating] | None = None,
) -> list[Choice]:
    """Choose a batch as a batch, then order it by doubt.

    1. *Places.* Each share of ``count`` is a number of places; a remainder is settled by ``seed``, so that
       over many batches the shares hold even where a batch is small.
    2. *Draws*, by lowest lot, one a well before the second of any: contest, validation and sealed items
       from wells of that split, audit items from training wells, gold items from those whose mask is known.
    3. *Ranked* items from training wells fill the rest, and the places of draws that were too few: by score,
       or with a diverse strategy by score times distance (`spread_out`). Near-duplicates of an audit or
       ranked item of the batch are held back until all others are in. Among the ranked items those read by
       several experts (overlap) and those drawn from scratch (blank) are chosen at random.
    4. Where training items are too few, further contest, validation and sealed items fill up, in this order.
    5. *Quotas* a well and a plate hold for the whole batch; draws come first. A batch may then be short.
    6. *Budget.* Places are filled in random order while the expected minutes fit. A drawn item that does not
       fit ends its draw: it is the first of the next batch, for to pass it over would make the draw one of
       easy items. Only what alone exceeds the budget is passed over. A ranked item that does not fit is
       passed over. If nothing fits, the batch is its cheapest item.

    Parameters
    ----------
    candidates : iterable of Candidate
        Nobody has finished them (gold items apart). Either all there are, or, of each split, those with the
        lowest lots together with the highest scores: draws are random as long as there are more of the
        former than places, and of as many wells.
    policy : QueuePolicy
        Shares, quotas, strategy. Its ``size`` and ``cap`` are for the caller to ask for by ``count``.
    count : int
        Most items in the batch.
    minutes : float, optional
        Budget of expected minutes; None: the policy's.
    seed : str
        Name of this very batch: another one settles remainders and chances anew.
    known_NF : ndarray of float, shape (any, F), optional
        Features of what is corrected already: a batch is spread beside it, too.

    Returns
    -------
    list of Choice
        In order of ``confidence``, then item: the very order of the Label Studio tab.

    Raises
    ------
    InputError
        If ``count`` or ``minutes`` make no sense; if an item is there twice, has a score, confidence, lot
        or minutes that are not finite numbers, or lacks minutes where there is a budget.
    ShapeError
        If features are not finite vectors of one length; told by item.
    """
    budget = policy.minutes if minutes is None else minutes
    if count < 1:
        raise InputError(f"batch: count is {count}, expected at least 1")
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        raise InputError(f"batch: budget is {budget} minutes, expected a finite number above 0")
    offered = sorted(candidates, key=lambda c: (c.lot, c.item))
    _check(offered, budget)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    batch = _Batch(policy, offered, _places(policy, count, rng), known_NF)
    batch.draw()
    batch.rank(count, rng)
    batch.fill_up(count)
    chosen = batch.choices() if budget is None else _within(budget, batch.choices(), rng)
    return in_order(chosen)


def in_order(choices: Iterable[Choice]) -> list[Choice]:
    """The most doubtful first."""
    return sorted(choices, key=lambda c: (c.candidate.confidence, c.item))


def spread_out(
    score_N: NDArray[np.floating],
    features_NF: NDArray[np.floating],
    count: int,
    *,
    centres_NF: NDArray[np.floating] | None = None,
    near: float = 0.0,
    weigh_distance: bool = True,
    take: Callable[[int], bool] = lambda index: True,
) -> tuple[list[int], list[int]]:
    """Take items by score times distance from those taken before: greedy k-centre, weighted by score.

    The next item is that with the largest product of score and distance to the nearest item taken so far,
    as in the farthest-point heuristic (Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5; in active learning
    Sener & Savarese 2018, arXiv:1708.00489). Distance is half the chord between unit vectors,
    sqrt((1 - cosine) / 2): 0 for the same direction, 1 for opposite ones, and 1 while nothing is taken.
    Scores are shifted until none is below 0. Of equal products the higher score is next, then the earlier
    item.

    Parameters
    ----------
    score_N : ndarray of float, shape (N,)
        Finite; higher = sooner.
    features_NF : ndarray of float, shape (N, F)
        Rows of length 1.
    count : int
        Most items to take.
    centres_NF : ndarray of float, shape (any, F), optional
        Items that are taken already.
    near : float
        Distance below which an item is a near-duplicate of one taken: it is held back.
    weigh_distance : bool
        False: by score alone, near-duplicates held back all the same.
    take : callable
        Given the index of the next item; what it answers ``False`` for is left out.

    Returns
    -------
    taken, held_back : list of int
        Indices in the order in which they came up.

    Examples
    --------
    >>> features_NF = np.array([[1.0, 0.0], [0.8, 0.6], [-1.0, 0.0]])
    >>> spread_out(np.array([0.9, 0.8, 0.5]), features_NF, 3)[0]
    [0, 2, 1]
    """
    weight_N = np.asarray(score_N, np.float64)
    weight_N = weight_N - min(0.0, float(weight_N.min(initial=0.0)))
    distance_N = np.ones(len(weight_N))
    for centre_F in () if centres_NF is None else centres_NF:
        np.minimum(distance_N, _distances(features_NF, centre_F), out=distance_N)
    is_left_N = np.ones(len(weight_N), bool)
    taken: list[int] = []
    held_back: list[int] = []
    while len(taken) < count and is_left_N.any():
        value_N = np.where(is_left_N, weight_N * distance_N if weigh_distance else weight_N, -1.0)
        best = np.flatnonzero(value_N == value_N.max())
        index = int(best[np.argmax(weight_N[best])])
        is_left_N[index] = False
        if distance_N[index] < near:
            held_back.append(index)
        elif take(index):
            taken.append(index)
            np.minimum(distance_N, _distances(features_NF, features_NF[index]), out=distance_N)
    return taken, held_back


def cover(
    score_N: NDArray[np.floating],
    features_NF: NDArray[np.floating],
    *,
    centres_NF: NDArray[np.floating] | None = None,
) -> list[int]:
    """Order items so that the first few stand for as much of the scores of all as possible.

    Each item speaks for the others as far as they look like it (the cosine of their features, at least 0). The
    next item is that which adds most to what is spoken for, each item weighing as its score: greedy
    facility location (Nemhauser et al. 1978, doi:10.1007/BF01588971; for choosing training data Wei et al. 2015,
    ICML). What is typical comes first, then what is left unspoken for; oddities come last. Where there
    are few corrections, typical items teach more than doubtful ones (Hacohen et al. 2022,
    arXiv:2202.02794).

    Parameters
    ----------
    score_N : ndarray of float, shape (N,)
        Finite; shifted until none is below 0.
    features_NF : ndarray of float, shape (N, F)
        Rows of length 1.
    centres_NF : ndarray of float, shape (any, F), optional
        What is corrected already: what looks like it is spoken for.

    Returns
    -------
    list of int
        All indices; of equal gains the higher score is first, then the earlier item.

    Examples
    --------
    >>> features_NF = np.array([[0.0, 1.0], [0.8, 0.6], [1.0, 0.0]])
    >>> cover(np.ones(3), features_NF)
    [1, 0, 2]
    """
    weight_N = np.asarray(score_N, np.float64)
    weight_N = weight_N - min(0.0, float(weight_N.min(initial=0.0)))
    if not weight_N.any():
        weight_N = np.ones(len(weight_N))
    alike_NN = np.clip(features_NF @ features_NF.T, 0, None)
    spoken_N = np.zeros(len(weight_N))
    if centres_NF is not None and len(centres_NF):
        spoken_N = np.clip((features_NF @ centres_NF.T).max(axis=1), 0, None)
    order: list[int] = []
    is_left_N = np.ones(len(weight_N), bool)
    while is_left_N.any():
        gain_N = weight_N @ np.clip(alike_NN - spoken_N[:, None], 0, None)
        gain_N[~is_left_N] = -1.0
        best = np.flatnonzero(gain_N >= gain_N.max() - 1e-12)
        index = int(best[np.argmax(weight_N[best])])
        is_left_N[index] = False
        order.append(index)
        np.maximum(spoken_N, alike_NN[:, index], out=spoken_N)
    return order


class _Batch:
    """A batch while it is made: what is in it, and what the quotas still allow."""

    def __init__(
        self,
        policy: QueuePolicy,
        offered: Sequence[Candidate],
        places: Mapping[Role, int],
        known_NF: NDArray[np.floating] | None = None,
    ) -> None:
        self._policy = policy
        self._known = [] if known_NF is None else list(known_NF)
        self._places = places
        self._chosen: list[tuple[Candidate, Role]] = []
        self._items: set[Item] = set()
        self._groups: Counter[str] = Counter()
        self._plates: Counter[str] = Counter()
        listed = frozenset(policy.gold)
        pools: dict[str, list[Candidate]] = {}
        for candidate in offered:
            is_gold = candidate.is_gold or (bool(listed) and item_name(candidate.item) in listed)
            pools.setdefault("gold" if is_gold else candidate.split, []).append(candidate)
        self._train = pools.get("train", [])
        pools["audit"] = self._train
        self._draws = {role: iter(_spread(pools.get(role, []))) for role in _DRAWS}

    def draw(self) -> None:
        """Fill the places of the draws, as far as there are items."""
        for role in _DRAWS:
            self._draw(role, self._places[role])

    def rank(self, count: int, rng: np.random.Generator) -> None:
        """Fill what is left of ``count`` places with ranked items; lay overlap and blank on some of them."""
        free = [candidate for candidate in self._train if candidate.item not in self._items]
        free.sort(key=lambda c: (-c.score, c.confidence, c.item))
        wanted = count - len(self._chosen)
        ranked = self._ranked(free, wanted)
        laid_on = [role for role in _LAID_ON for _ in range(self._places[role])]
        roles: dict[int, Role] = dict(zip(rng.permutation(len(ranked)).tolist(), laid_on, strict=False))
        self._chosen += [(candidate, roles.get(n, "ranked")) for n, candidate in enumerate(ranked)]

    def fill_up(self, count: int) -> None:
        """Fill what is left of ``count`` places with further judging items."""
        for role in _DRAWS[:3]:
            self._draw(role, count - len(self._chosen))

    def choices(self) -> list[Choice]:
        """What is in the batch, each draw and the ranked items in the order they came in."""
        return [
            Choice(
                candidate=candidate,
                role=role,
                canvas=self._policy.canvas_of(role),
                readers=self._policy.readers_of(role),
            )
            for candidate, role in self._chosen
        ]

    def _draw(self, role: Role, wanted: int) -> None:
        draw = self._draws[role]
        while wanted > 0 and (candidate := next(draw, None)) is not None:
            if self._takes(candidate):
                self._chosen.append((candidate, role))
                wanted -= 1

    def _ranked(self, free: list[Candidate], wanted: int) -> list[Candidate]:
        """The best of ``free``, which is sorted by score, within the quotas."""
        strategy = strategy_named(self._policy.strategy)
        if not free or free[0].features_F is None or strategy.name == "random":
            return self._first(free, wanted)
        audited = [c.features_F for c, role in self._chosen if role == "audit" and c.features_F is not None]
        if strategy.spread == "typical":
            return self._typical(free[:MOST_COMPARED], wanted, [*self._known, *audited])
        # what is corrected already is no duplicate to be held back: it cannot be asked for again
        centres_NF = _directions([*self._known, *audited] if strategy.spread == "diverse" else audited)
        ranked: list[Candidate] = []
        duplicates: list[Candidate] = []
        step = CANDIDATES_PER_PLACE * max(1, wanted)
        for start in range(0, len(free), step):
            if len(ranked) == wanted:
                break
            pool = free[start : start + step]
            features_NF = _directions([c.features_F for c in pool if c.features_F is not None])
            taken, held_back = spread_out(
                np.array([c.score for c in pool]),
                features_NF,
                wanted - len(ranked),
                centres_NF=centres_NF,
                near=math.sqrt((1 - NEAR_DUPLICATE) / 2),
                weigh_distance=strategy.spread == "diverse",
                take=lambda index, pool=pool: self._takes(pool[index]),  # type: ignore[misc]
            )
            ranked += [pool[index] for index in taken]
            duplicates += [pool[index] for index in held_back]
            centres_NF = np.vstack([centres_NF.reshape(-1, features_NF.shape[1]), features_NF[taken]])
        return ranked + self._first(duplicates, wanted - len(ranked))

    def _typical(
        self, free: list[Candidate], wanted: int, centres: Sequence[NDArray[np.floating]]
    ) -> list[Candidate]:
        directions_NF = _directions([*centres, *(c.features_F for c in free if c.features_F is not None)])
        order = cover(
            np.array([c.score for c in free]),
            directions_NF[len(centres) :],
            centres_NF=directions_NF[: len(centres)],
        )
        return self._first([free[index] for index in order], wanted)

    def _first(self, candidates: Sequence[Candidate], wanted: int) -> list[Candidate]:
        found: list[Candidate] = []
        for candidate in candidates:
            if len(found) >= wanted:
                break
            if self._takes(candidate):
                found.append(candidate)
        return found

    def _takes(self, candidate: Candidate) -> bool:
        """Take an item in, if the quotas of its well and plate allow it."""
        group, plate = self._policy.max_per_group, self._policy.max_per_plate
        if group is not None and self._groups[candidate.group] >= group:
            return False
        if plate is not None and self._plates[candidate.plate] >= plate:
            return False
        self._groups[candidate.group] += 1
        self._plates[candidate.plate] += 1
        self._items.add(candidate.item)
        return True


def _places(policy: QueuePolicy, count: int, rng: np.random.Generator) -> dict[Role, int]:
    """Places in the batch by role, each within one of its share; on average over seeds exactly the share."""
    roles = (*_DRAWS, *_LAID_ON)
    ends = np.cumsum([getattr(policy, f"{role}_share") for role in roles]) * count
    # systematic sampling: one random start, then every whole number is a place; rounded, since 0.15 + 0.25
    # of 40 must be 16 places whatever the start
    marks = np.floor(np.round(np.concatenate([[0.0], ends]), 9) + rng.random())
    return {role: int(n) for role, n in zip(roles, np.diff(np.minimum(marks, count)), strict=True)}


def _within(budget: float, choices: Sequence[Choice], rng: np.random.Generator) -> list[Choice]:
    """Those that fit into so many minutes; which draw has its turn when is random."""
    lines: dict[str, list[Choice]] = {}
    for choice in choices:
        lines.setdefault(choice.role if choice.role in _DRAWS else "ranked", []).append(choice)
    turns = [name for name, line in lines.items() for _ in line]
    kept: list[Choice] = []
    spent = 0.0
    for turn in rng.permutation(len(turns)):
        name = turns[turn]
        line = lines[name]
        while line:
            cost = _cost(line[0])
            if spent + cost <= budget:
                kept.append(line.pop(0))
                spent += cost
                break
            if name != "ranked" and cost <= budget:
                line.clear()  # the first of the next batch
            else:
                line.pop(0)
    return kept or sorted(choices, key=lambda c: (_cost(c), c.item))[:1]


def _cost(choice: Choice) -> float:
    if choice.minutes is None:
        raise InputError(f"{_where(choice.candidate)}: minutes are not known, but the batch has a budget")
    return choice.minutes


def _spread(candidates: Sequence[Candidate]) -> list[Candidate]:
    """In the order given, but every well once before any twice."""
    turns: Counter[str] = Counter()
    keyed = []
    for candidate in candidates:
        keyed.append((turns[candidate.group], candidate))
        turns[candidate.group] += 1
    return [candidate for _, candidate in sorted(keyed, key=lambda pair: pair[0])]


def _check(candidates: Sequence[Candidate], budget: float | None) -> None:
    """Refuse what could not be ranked, drawn or counted, naming the item."""
    seen: set[Item] = set()
    for c in candidates:
        if c.item in seen:
            raise InputError(f"{_where(c)}: offered twice, expected each item once")
        seen.add(c.item)
        for name, value in (("score", c.score), ("confidence", c.confidence), ("lot", c.lot)):
            if not math.isfinite(value):
                raise InputError(f"{_where(c)}: {name} is {value}, expected a finite number")
        if c.minutes is None:
            if budget is not None:
                raise InputError(f"{_where(c)}: minutes are not known, but the batch has a budget")
        elif not (math.isfinite(c.minutes) and c.minutes >= 0):
            raise InputError(f"{_where(c)}: minutes are {c.minutes}, expected a finite number, not below 0")
    training = [c for c in candidates if c.split == "train"]
    first = next((c.features_F for c in training if c.features_F is not None), None)
    if first is None:
        return
    for c in training:
        if c.features_F is None or c.features_F.ndim != 1 or c.features_F.shape != first.shape:
            got = "none" if c.features_F is None else f"of shape {c.features_F.shape}"
            raise ShapeError(f"{_where(c)}: features are {got}, other items' of shape {first.shape}")
    features_NF = np.stack([c.features_F for c in training if c.features_F is not None])
    for n in np.flatnonzero(~np.isfinite(features_NF).all(axis=1)):
        raise ShapeError(f"{_where(training[n])}: features are not finite, expected finite numbers")


def _where(candidate: Candidate) -> str:
    return f"image {candidate.item.image_id!r} tile {candidate.item.tile}"


def _directions(vectors: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Vectors as rows of length 1; what has no direction, such as a blank frame's, gets one of its own."""
    if not vectors:
        return np.zeros((0, 0))
    rows_NF = np.stack(vectors).astype(np.float64)
    length_N1 = np.linalg.norm(rows_NF, axis=1, keepdims=True)
    is_zero_N1 = length_N1 == 0
    return np.hstack([rows_NF / np.where(is_zero_N1, 1, length_N1), is_zero_N1])


def _distances(features_NF: NDArray[np.floating], centre_F: NDArray[np.floating]) -> NDArray[np.floating]:
    """Half the chord from each row to a unit vector, 0…1."""
    distance_N: NDArray[np.floating] = np.sqrt(np.clip(1 - features_NF @ centre_F, 0, 2) / 2)
    return distance_N
