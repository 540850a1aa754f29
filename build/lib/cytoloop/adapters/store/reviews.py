"""Corrections worth a second look: which, why, and what became of it.

A review is asked for once a mask. It is open for as long as that mask stands and nobody has looked again:
it closes by itself when its expert saves another mask or takes it back, when somebody has done a lease
of role *review* on the item, or when it is dismissed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one
from cytoloop.adapters.store.corrections import Corrections
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.types import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One mask somebody should look at again."""

    item: Item
    expert: str
    """Who drew it; better somebody else looks."""
    mask: str
    """SHA-256 under which it is stored."""
    score: float
    """Higher = ask sooner, any finite number."""
    reason: str
    """In words, for the expert."""


class Reviews:
    """The masks that an audit asked about."""

    def __init__(self, file: SqliteFile, corrections: Corrections) -> None:
        self._file = file
        self._corrections = corrections

    def ask(self, assay: str, reviews: Iterable[Review]) -> int:
        """Ask for second looks, all or nothing; returns how many are new.

        A mask that was asked about before keeps its date and what became of it, and gets the new score
        and reason.

        Raises
        ------
        InputError
            If a score is not finite, naming the item.
        """
        new = 0
        with self._file.transaction() as db:
            for review in reviews:
                item = review.item
                if not math.isfinite(review.score):
                    raise InputError(
                        f"assay {assay!r}: image {item.image_id!r} tile {item.tile}: review score is "
                        f"{review.score}, expected a finite number"
                    )
                key = [assay, item.image_id, item.tile, review.mask]
                known = one(
                    db,
                    "SELECT 1 FROM reviews WHERE assay = ? AND image_id = ? AND tile = ? AND mask = ?",
                    key,
                )
                new += known is None
                db.execute(
                    """INSERT INTO reviews (assay, image_id, tile, mask, expert, score, reason, created_at)
                    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
                    ON CONFLICT DO UPDATE SET score = excluded.score, reason = excluded.reason""",
                    [*key, review.expert, review.score, review.reason, now_iso()],
                )
        return new

    def open(self, assay: str, limit: int | None = None) -> list[Review]:
        """Reviews nobody has done yet, the most pressing first."""
        rows = self._file.db.query(
            f"""SELECT * FROM reviews WHERE assay = ? AND dismissed_at IS NULL AND NOT EXISTS ({_DONE})
            ORDER BY score DESC, image_id, tile, id""",
            [assay],
        )
        asked = [_review(row) for row in rows]
        readings = self._corrections.readings(assay) if asked else {}
        standing = (
            review
            for review in asked
            if any((r.mask, r.expert) == (review.mask, review.expert) for r in readings.get(review.item, ()))
        )
        return list(islice(standing, limit))

    def dismiss(self, assay: str, item: Item, by: str) -> int:
        """Somebody decided that an item's masks need no second look; returns how many open reviews that ends.

        Raises
        ------
        StateError
            If the item has no open review.
        """
        with self._file.transaction() as db:
            open_masks = [review.mask for review in self.open(assay) if review.item == item]
            if not open_masks:
                raise StateError(
                    f"assay {assay!r}: image {item.image_id!r} tile {item.tile}: has no open review, "
                    "expected one to dismiss"
                )
            for mask in open_masks:
                db.execute(
                    """UPDATE reviews SET dismissed_by = ?, dismissed_at = ?
                    WHERE assay = ? AND image_id = ? AND tile = ? AND mask = ?""",
                    [by, now_iso(), assay, item.image_id, item.tile, mask],
                )
            return len(open_masks)

    def answered(self, assay: str) -> dict[tuple[Item, str], datetime]:
        """(item, mask) that somebody was sent to look at again and did, with the moment it was asked for.

        A mask that another expert saved of the item since then is the answer, and goes before it.
        """
        rows = self._file.db.query(f"SELECT * FROM reviews WHERE assay = ? AND EXISTS ({_DONE})", [assay])
        return {
            (Item(image_id=row["image_id"], tile=row["tile"]), row["mask"]): datetime.fromisoformat(
                row["created_at"]
            )
            for row in rows
        }


_DONE = """SELECT 1 FROM leases WHERE leases.assay = reviews.assay AND leases.image_id = reviews.image_id
    AND leases.tile = reviews.tile AND role = 'review' AND state = 'done' AND claimed_at >= reviews.created_at"""
"""A lease to look again, given since the review was asked for, that was done."""


def _review(row: Mapping[str, Any]) -> Review:
    return Review(
        item=Item(image_id=row["image_id"], tile=row["tile"]),
        expert=row["expert"],
        mask=row["mask"],
        score=row["score"],
        reason=row["reason"],
    )
