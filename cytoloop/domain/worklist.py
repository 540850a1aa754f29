"""From scores to the list an expert works through."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import Item, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePolicy:
    """How a queue's batches are made up. Shares are of the batch; the rest is ranked by doubt."""

    size: int = 40
    """Items in a batch."""
    contest_share: float = 0.25
    """Drawn at random from contest wells: without them no model can ever win a contest."""
    validation_share: float = 0.15
    """Drawn at random from validation wells: they choose the epoch and the challenger."""
    sealed_share: float = 0.05
    """Drawn at random from sealed wells: only reported."""

    def __post_init__(self) -> None:
        shares = (self.contest_share, self.validation_share, self.sealed_share)
        if self.size < 1 or not all(s >= 0 for s in shares) or not sum(shares) <= 1:
            raise ConfigError(
                f"queue policy: size {self.size}, shares {shares}; expected size >= 1, shares >= 0 of at most 1 in all"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An item that nobody has finished, as the ranking sees it."""

    item: Item
    split: Split
    group: str
    """The well: draws are spread over wells."""
    confidence: float
    """Label Studio's score: lower = ask sooner."""


def choose_batch(candidates: Iterable[Candidate], policy: QueuePolicy, seed: str = "") -> list[Candidate]:
    """Choose a batch as a batch, then order it by doubt.

    Items of the contest, validation and sealed wells come in by share and at random, so that they
    measure a model without the ranking's bias, one a well before the second of any: wells are what a
    contest counts. Training items come in by doubt. Where a split has
    too few left, the most doubtful training items fill up, and the other way round.

    Returns
    -------
    list of Candidate
        At most ``policy.size``, in order of ``confidence`` (then item): the very order of the
        Label Studio tab.
    """
    by_split: dict[Split, list[Candidate]] = {}
    for candidate in candidates:
        by_split.setdefault(candidate.split, []).append(candidate)
    chosen: list[Candidate] = []
    spare: list[Candidate] = []
    shares: tuple[tuple[Split, float], ...] = (
        ("contest", policy.contest_share),
        ("validation", policy.validation_share),
        ("sealed", policy.sealed_share),
    )
    for split, share in shares:
        drawn = _spread(by_split.get(split, []), seed)
        # each share is rounded on its own: together they may be more than the batch
        wanted = min(round(share * policy.size), policy.size - len(chosen))
        chosen += drawn[:wanted]
        spare += drawn[wanted:]
    ranked = in_order(by_split.get("train", []))
    chosen += ranked[: policy.size - len(chosen)]
    chosen += spare[: policy.size - len(chosen)]
    return in_order(chosen)


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The most doubtful first."""
    return sorted(candidates, key=lambda c: (c.confidence, c.item))


def _spread(candidates: Sequence[Candidate], seed: str) -> list[Candidate]:
    """At random, but every well once before any twice."""
    drawn = sorted(candidates, key=lambda c: _lot(c.item, seed))
    turn: dict[str, int] = {}
    place: dict[Item, int] = {}
    for candidate in drawn:
        place[candidate.item] = turn.get(candidate.group, 0)
        turn[candidate.group] = place[candidate.item] + 1
    return sorted(drawn, key=lambda c: place[c.item])


def _lot(item: Item, seed: str) -> str:
    return hashlib.sha256(f"{seed}\0{item.image_id}\0{item.tile}".encode()).hexdigest()
