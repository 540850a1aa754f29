"""What was handed out how: the tab of each expert, and how long corrections took beside what was expected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one
from cytoloop.domain.expected_effort import Timing
from cytoloop.domain.types import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Tab:
    """An expert's tab in Label Studio, as it was last set."""

    view_id: int
    items: tuple[Item, ...]
    """What it shows; those that are finished meanwhile among them."""


class Handouts:
    """Tabs and timings."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def tab(self, assay: str, queue: str, expert: str) -> Tab | None:
        """The tab of an expert of a queue; None before the first."""
        row = one(
            self._file.db,
            "SELECT view_id, items FROM tabs WHERE assay = ? AND queue = ? AND expert = ?",
            [assay, queue, expert],
        )
        if row is None:
            return None
        items = tuple(Item(image_id=i, tile=t) for i, t in json.loads(row["items"]))
        return Tab(view_id=row["view_id"], items=items)

    def set_tab(self, assay: str, queue: str, expert: str, view_id: int, items: Sequence[Item]) -> None:
        """Note what an expert's tab shows."""
        with self._file.transaction() as db:
            db["tabs"].insert(
                {
                    "assay": assay,
                    "queue": queue,
                    "expert": expert,
                    "view_id": view_id,
                    "items": json.dumps([[item.image_id, item.tile] for item in items]),
                    "set_at": now_iso(),
                },
                replace=True,
            )

    def add_timing(self, assay: str, annotation_id: int, timing: Timing) -> None:
        """Note what a correction took; of an annotation that is changed later the longest counts.

        Label Studio adds up the seconds an annotation was open.
        """
        with self._file.transaction() as db:
            db.execute(
                """INSERT INTO timings (assay, annotation_id, expert, expected_minutes, lead_time_s)
                VALUES (?, ?, ?, ?, ?) ON CONFLICT (assay, annotation_id) DO UPDATE
                SET lead_time_s = max(lead_time_s, excluded.lead_time_s)""",
                [assay, annotation_id, timing.expert, timing.expected_minutes, timing.lead_time_s],
            )

    def timings(self, assay: str) -> list[Timing]:
        """Every correction whose time is known."""
        rows = self._file.db.query(
            "SELECT expert, expected_minutes, lead_time_s FROM timings WHERE assay = ? ORDER BY annotation_id",
            [assay],
        )
        return [Timing(**row) for row in rows]
