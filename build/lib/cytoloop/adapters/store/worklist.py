"""The read side of a queue: what an expert holds, and what comes next, out of a million items.

The rankings say what is worth asking; only corrections, leases and tasks say what may be asked. Hence
every item a ranking offers is looked up in the store before it comes up here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from cytoloop.adapters.store.corrections import Corrections
from cytoloop.adapters.store.images import Images
from cytoloop.adapters.store.leases import Leases
from cytoloop.adapters.store.predictions import Predictions
from cytoloop.adapters.store.scores import Scored, Scores
from cytoloop.domain.queue_policy import Return
from cytoloop.domain.types import Item, Lease, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A place in an expert's list."""

    item: Item
    task_id: int
    score: float
    """Higher = ask sooner; of the version asked for, or as it was when leased if that has none."""
    minutes: float | None
    """Expected minutes to correct, where known."""
    reason: str
    """In words; empty where the version has no score of the item."""
    lease: Lease | None
    """None: nobody holds the item yet."""


class Worklist:
    """What to open next."""

    def __init__(
        self,
        images: Images,
        corrections: Corrections,
        leases: Leases,
        scores: Scores,
        predictions: Predictions,
    ) -> None:
        self._predictions = predictions
        self._images = images
        self._corrections = corrections
        self._leases = leases
        self._scores = scores

    def of(
        self,
        assay: str,
        queue: str,
        expert: str,
        version: str,
        strategy: str,
        limit: int,
        *,
        is_leased_only: bool = False,
        skipped: Return = "return",
        deleted: Return = "return",
    ) -> list[Listed]:
        """What an expert holds in a queue, in the order of the tab; then the open training items that come next.

        Raises
        ------
        StateError
            If the version's scores are not ranked by this strategy.
        """
        held = {lease.item: lease for lease in self._leases.held(assay, queue, expert)}
        scored = self._scores.get(assay, version, strategy, held)
        # as Label Studio was told, whichever strategy ranks this queue: one score a task orders every tab
        told = self._predictions.confidences(assay, version, held)
        for item in held:
            told.setdefault(item, scored[item].candidate.confidence if item in scored else math.inf)
        order = sorted(held, key=lambda item: (told[item], item))
        tasks = self._images.tasks_of(assay, order)
        found = [_held(held[item], scored.get(item), tasks[item]) for item in order if item in tasks][:limit]
        if len(found) == limit or is_leased_only:
            return found
        following = self.open_items(
            assay,
            version,
            strategy,
            "train",
            limit - len(found),
            expert=expert,
            skipped=skipped,
            deleted=deleted,
        )
        tasks = self._images.tasks_of(assay, [one.item for one in following])
        return found + [_open(one, tasks[one.item]) for one in following]

    def open_items(
        self,
        assay: str,
        version: str,
        strategy: str,
        split: Split,
        limit: int,
        *,
        by: Literal["rank", "lot"] = "rank",
        expert: str | None = None,
        skipped: Return = "return",
        deleted: Return = "return",
    ) -> list[Scored]:
        """The first items of a split that may be handed out, by rank or by lot: what a batch is chosen from.

        Parameters
        ----------
        expert : str, optional
            For whom: what this expert skipped is left out.
        skipped, deleted : {'return', 'retire'}
            Whether what others skipped, or what was annotated and deleted, may come up.
        """
        first = self._scores.top if by == "rank" else self._scores.drawn
        closed = partial(self.closed, assay, expert=expert, skipped=skipped, deleted=deleted)
        return first(assay, version, strategy, split, limit, closed)

    def closed(
        self,
        assay: str,
        items: Sequence[Item],
        *,
        expert: str | None = None,
        skipped: Return = "return",
        deleted: Return = "return",
    ) -> set[Item]:
        """Those of these items that may not be handed out: finished, held, or without a task."""
        tasks = self._images.tasks_of(assay, items)
        shut = {item for item in items if item not in tasks} | self._leases.taken(assay, items)
        for item in items:
            if item in shut:
                continue
            said = self._corrections.of_item(assay, item)
            is_said = expert in said or any(k == "submitted" or skipped == "retire" for k in said.values())
            if is_said or (deleted == "retire" and self._corrections.was_deleted(assay, item)):
                shut.add(item)
        return shut

    def note(self, assay: str, items: Iterable[Item], *, skipped: Return = "return") -> None:
        """Bring the rankings' flags up to date, after items were claimed, finished or given back.

        Whatever the flags say, nothing closed comes up; but a list over many wrong ones is slow, and what
        is open and flagged closed does not come up at all.
        """
        asked = list(dict.fromkeys(items))
        shut = self.closed(assay, asked, skipped=skipped)
        self._scores.set_open(assay, [item for item in asked if item in shut], False)
        self._scores.set_open(assay, [item for item in asked if item not in shut], True)

    def note_all(self, assay: str, *, skipped: Return = "return") -> None:
        """``note`` all that experts ever had: after a ranking was written, whose flags know nothing of it."""
        self.note(assay, self._corrections.items(assay) | self._leases.items(assay), skipped=skipped)


def _held(lease: Lease, scored: Scored | None, task_id: int) -> Listed:
    return Listed(
        item=lease.item,
        task_id=task_id,
        score=lease.score if scored is None else scored.candidate.score,
        minutes=None if scored is None else scored.candidate.minutes,
        reason="" if scored is None else scored.reason,
        lease=lease,
    )


def _open(scored: Scored, task_id: int) -> Listed:
    return Listed(
        item=scored.item,
        task_id=task_id,
        score=scored.candidate.score,
        minutes=scored.candidate.minutes,
        reason=scored.reason,
        lease=None,
    )
