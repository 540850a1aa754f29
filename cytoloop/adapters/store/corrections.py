"""Corrections: append-only revisions; what stands is read, never written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one, storable, to_iso
from cytoloop.domain.types import Correction, Item, Split

Kind = Literal["submitted", "skipped", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCorrection:
    """One revision as it lies in the store."""

    item: Item
    revision: int
    annotation_id: int
    task_id: int
    annotated_at: datetime
    expert: str
    mask: str
    """SHA-256 under which the mask is stored."""
    parent_version: str | None
    lead_time_s: float | None
    conflict_pixels: int
    split: Split
    group: str
    origins: Mapping[str, int] = field(default_factory=dict)
    """Regions by what the expert did: ``prediction``, ``prediction-changed``, ``manual``."""
    readers: tuple[str, ...] = ()
    """Whose consensus the mask is; empty for a mask that one person saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much experts did, counted by the database: a page asks for it each time it is looked at."""

    corrected: int
    """Items whose mask stands."""
    seconds: float
    """Experts spent on the masks that stand, where it is known."""
    new: int
    """Masks saved since the moment asked for, changed ones too."""
    new_seconds: float
    last_received: str | None
    """When the latest mask came in, as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """That an expert said something of an item which holds, and when."""

    item: Item
    expert: str
    annotated_at: datetime


class Corrections:
    """Every mask a person saved, skipped or took back."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def append(self, assay: str, correction: Correction, mask: str) -> bool:
        """Append a submitted mask; False if this very revision is known already.

        A revision is known by (annotation, ``annotated_at``), so delivering an event twice, or by
        webhook and by reconciliation, gives one row.
        """
        return self._append(
            assay,
            Item(image_id=correction.image_id, tile=correction.tile),
            "submitted",
            annotation_id=correction.annotation_id,
            task_id=correction.task_id,
            annotated_at=to_iso(correction.annotated_at),
            expert=correction.expert,
            mask=mask,
            parent_version=correction.parent_version,
            lead_time_s=correction.lead_time_s,
            conflict_pixels=correction.conflict_pixels,
            origins=json.dumps(dict(correction.origins), sort_keys=True),
        )

    def append_skip(
        self, assay: str, item: Item, annotation_id: int, task_id: int, annotated_at: datetime, expert: str
    ) -> bool:
        """Append that an expert skipped an item."""
        return self._append(
            assay,
            item,
            "skipped",
            annotation_id=annotation_id,
            task_id=task_id,
            annotated_at=to_iso(annotated_at),
            expert=expert,
        )

    def append_deletion(self, assay: str, annotation_id: int) -> bool:
        """Append a tombstone after the last revision of an annotation; False if there is none to bury."""
        with self._file.transaction() as db:
            last = one(
                db,
                "SELECT * FROM corrections WHERE assay = ? AND annotation_id = ? ORDER BY annotated_at DESC, id DESC",
                [assay, annotation_id],
            )
            if last is None or last["kind"] == "deleted":
                return False
            return self._append(
                assay,
                Item(image_id=last["image_id"], tile=last["tile"]),
                "deleted",
                annotation_id=annotation_id,
                task_id=last["task_id"],
                annotated_at=last["annotated_at"],
                expert=last["expert"],
            )

    def _append(self, assay: str, item: Item, kind: Kind, **columns: Any) -> bool:
        with self._file.transaction() as db:
            known = one(
                db,
                "SELECT id FROM corrections WHERE assay = ? AND annotation_id = ? AND annotated_at = ? AND kind = ?",
                [assay, columns["annotation_id"], columns["annotated_at"], kind],
            )
            if known is not None:
                return False
            row = one(
                db,
                "SELECT count(*) AS n FROM corrections WHERE assay = ? AND image_id = ? AND tile = ?",
                [assay, item.image_id, item.tile],
            )
            revisions = row["n"] if row else 0
            db["corrections"].insert(
                {
                    "assay": assay,
                    "image_id": item.image_id,
                    "tile": item.tile,
                    "revision": revisions + 1,
                    "kind": kind,
                    "received_at": now_iso(),
                    **columns,
                }
            )
            return True

    def standing(self, assay: str) -> dict[Item, StoredCorrection]:
        """The correction that stands for each item: the latest annotation not skipped or deleted."""
        return {
            item: _stored(row)
            for item, row in self._last_of_items(assay).items()
            if row["kind"] == "submitted"
        }

    def standing_of(self, assay: str, item: Item) -> StoredCorrection | None:
        """The correction that stands for one item, as ``standing`` has it, without reading all others."""
        row = one(
            self._file.db,
            """SELECT said.*, groups.split, images.group_id FROM corrections AS said
            JOIN images USING (assay, image_id) JOIN groups USING (assay, group_id)
            WHERE assay = ? AND image_id = ? AND tile = ? AND kind = 'submitted' AND NOT EXISTS (
                SELECT 1 FROM corrections AS later
                WHERE later.assay = said.assay AND later.annotation_id = said.annotation_id
                    AND (later.annotated_at, later.id) > (said.annotated_at, said.id))
            ORDER BY annotated_at DESC, said.id DESC LIMIT 1""",
            [assay, item.image_id, item.tile],
        )
        return None if row is None else _stored(row)

    def readings(self, assay: str) -> dict[Item, list[StoredCorrection]]:
        """What each expert says of each item, the latest last: every living, submitted mask.

        Of several annotations of one expert the latest counts. The last reading of an item is the one that
        stands.
        """
        rows = self._file.db.query(_LIVING + " AND kind = 'submitted' ORDER BY annotated_at, id", [assay])
        latest: dict[Item, dict[str, StoredCorrection]] = {}
        for row in rows:
            reading = _stored(row)
            of_item = latest.setdefault(reading.item, {})
            of_item.pop(reading.expert, None)  # an expert's later mask goes to the end of the line
            of_item[reading.expert] = reading
        return {item: list(latest[item].values()) for item in sorted(latest)}

    def totals(self, assay: str, since: str | None) -> Totals:
        """Counts of an assay; ``new`` since a moment as stored, None: since ever."""
        rows = self._file.db.execute(
            """SELECT count(*), total(lead_time_s), max(received_at) FROM corrections
            WHERE assay = ? AND kind = 'submitted' AND received_at > ?""",
            [assay, since or ""],
        )
        new, new_seconds, latest = rows.fetchone()
        if latest is None and since is not None:
            latest = self.totals(assay, None).last_received
        corrected, seconds = self.standing_totals(assay)
        return Totals(
            corrected=corrected, seconds=seconds, new=new, new_seconds=new_seconds, last_received=latest
        )

    def standing_totals(self, assay: str) -> tuple[int, float]:
        """How many items have a mask that stands, and the seconds experts spent on those masks."""
        rows = self._file.db.execute(
            f"""SELECT count(*), total(lead_time_s) FROM (
                SELECT lead_time_s, row_number() OVER (
                    PARTITION BY image_id, tile ORDER BY annotated_at DESC, id DESC) AS place
                FROM ({LATEST}) WHERE kind = 'submitted')
            WHERE place = 1""",
            {"assay": assay},
        )
        corrected, seconds = rows.fetchone()
        return corrected, seconds

    def who_read(self, assay: str) -> list[Reading]:
        """``readings`` without the masks: of each expert and item one, the latest that holds."""
        rows = self._file.db.execute(
            f"""SELECT image_id, tile, expert, max(annotated_at) FROM ({LATEST})
            WHERE kind = 'submitted' GROUP BY image_id, tile, expert""",
            {"assay": assay},
        )
        return [
            Reading(
                item=Item(image_id=image_id, tile=tile),
                expert=expert,
                annotated_at=datetime.fromisoformat(annotated_at),
            )
            for image_id, tile, expert, annotated_at in rows
        ]

    def finished_items(self, assay: str) -> set[Item]:
        """Items nobody needs to open: corrected, or skipped by their expert."""
        return {item for item, row in self._last_of_items(assay).items() if row["kind"] != "deleted"}

    def items(self, assay: str) -> set[Item]:
        """Items that anything was ever said of."""
        sql = "SELECT DISTINCT image_id, tile FROM corrections WHERE assay = ?"
        return {Item(**row) for row in self._file.db.query(sql, [assay])}

    def of_item(self, assay: str, item: Item) -> dict[str, Kind]:
        """What stands of an item by expert, ``submitted`` or ``skipped``; a mask goes before a skip."""
        rows = self._file.db.execute(
            """SELECT expert, kind FROM corrections AS said
            WHERE assay = ? AND image_id = ? AND tile = ? AND kind != 'deleted' AND NOT EXISTS (
                SELECT 1 FROM corrections AS later
                WHERE later.assay = said.assay AND later.annotation_id = said.annotation_id
                    AND (later.annotated_at, later.id) > (said.annotated_at, said.id))
            ORDER BY kind = 'submitted'""",
            [assay, item.image_id, item.tile],
        )
        return {row["expert"]: row["kind"] for row in rows}

    def of_annotation(self, assay: str, annotation_id: int) -> tuple[Item, str] | None:
        """The item of an annotation, living or deleted, and its expert; None if it is not known."""
        row = one(
            self._file.db,
            "SELECT image_id, tile, expert FROM corrections WHERE assay = ? AND annotation_id = ? ORDER BY id DESC",
            [assay, annotation_id],
        )
        return None if row is None else (Item(image_id=row["image_id"], tile=row["tile"]), row["expert"])

    def is_deleted(self, assay: str, annotation_id: int) -> bool:
        """Whether an annotation is known to be deleted."""
        row = one(
            self._file.db,
            "SELECT kind FROM corrections WHERE assay = ? AND annotation_id = ? ORDER BY annotated_at DESC, id DESC",
            [assay, annotation_id],
        )
        return row is not None and row["kind"] == "deleted"

    def latest_items(self, assay: str, limit: int) -> list[Item]:
        """Items of the last so many revisions, each once, the latest first."""
        rows = self._file.db.query(
            "SELECT image_id, tile FROM corrections WHERE assay = ? ORDER BY id DESC LIMIT ?", [assay, limit]
        )
        return list(dict.fromkeys(Item(image_id=row["image_id"], tile=row["tile"]) for row in rows))

    def was_deleted(self, assay: str, item: Item) -> bool:
        """Whether an annotation of the item was ever deleted."""
        sql = "SELECT 1 FROM corrections WHERE assay = ? AND image_id = ? AND tile = ? AND kind = 'deleted'"
        return one(self._file.db, sql, [assay, item.image_id, item.tile]) is not None

    def is_finished(self, assay: str, items: Iterable[Item]) -> set[Item]:
        """Those of these items that are among ``finished_items``."""
        return {item for item in items if self.of_item(assay, item)}

    def _last_of_items(self, assay: str) -> dict[Item, Mapping[str, Any]]:
        """By item, the last revision of its latest living annotation; a tombstone if all are dead."""
        rows = self._file.db.query(
            _LIVING + " ORDER BY image_id, tile, kind = 'submitted', kind = 'skipped', annotated_at, id",
            [assay],
        )
        return {Item(image_id=row["image_id"], tile=row["tile"]): row for row in rows}

    def living_annotations(self, assay: str, task_id: int | None = None) -> dict[int, tuple[str, int]]:
        """(``annotated_at``, task) by id of every annotation not known to be deleted."""
        sql = f"SELECT * FROM ({LATEST}) WHERE kind != 'deleted'"
        if task_id is not None:
            sql += " AND task_id = :task_id"
        rows = self._file.db.query(sql, {"assay": assay, "task_id": task_id})
        return {row["annotation_id"]: (row["annotated_at"], row["task_id"]) for row in rows}

    def revisions(self, assay: str) -> list[dict[str, Any]]:
        """Every row, in the order it was appended."""
        return list(self._file.db.query("SELECT * FROM corrections WHERE assay = ? ORDER BY id", [assay]))

    def add_doubt(self, assay: str | None, source: str, reference: str, message: str) -> None:
        """Remember something that could not be stored, so that a person sees it; once."""
        with self._file.transaction() as db:
            db["doubts"].insert(
                {
                    "assay": assay,
                    "source": source,
                    "reference": storable(reference),
                    "message": storable(message),
                    "created_at": now_iso(),
                },
                ignore=True,
            )

    def doubts(self) -> list[dict[str, Any]]:
        """What could not be stored, and why."""
        return list(self._file.db.query("SELECT * FROM doubts ORDER BY id"))

    def last_event(self) -> int:
        """Up to which event of the inbox everything is stored."""
        row = one(self._file.db, "SELECT last_event FROM inbox_progress")
        return int(row["last_event"]) if row else 0

    def set_last_event(self, event_id: int) -> None:
        """Everything up to this event is stored."""
        with self._file.transaction() as db:
            db.execute("UPDATE inbox_progress SET last_event = max(last_event, ?)", [event_id])


LATEST = """SELECT * FROM (
    SELECT id, annotation_id, task_id, image_id, tile, expert, kind, annotated_at, lead_time_s,
        row_number() OVER (PARTITION BY annotation_id ORDER BY annotated_at DESC, id DESC) AS age
    FROM corrections WHERE assay = :assay) WHERE age = 1"""
"""The last revision of every annotation of an assay: what it is about, without its mask."""

_LIVING = """SELECT * FROM (
    SELECT corrections.*, groups.split, images.group_id,
        row_number() OVER (PARTITION BY annotation_id ORDER BY annotated_at DESC, id DESC) AS age
    FROM corrections
    JOIN images USING (assay, image_id) JOIN groups USING (assay, group_id)
    WHERE assay = ?)
WHERE age = 1"""
"""The last revision of every annotation of an assay, with its image's group and split."""


def _stored(row: Mapping[str, Any]) -> StoredCorrection:
    return StoredCorrection(
        item=Item(image_id=row["image_id"], tile=row["tile"]),
        revision=row["revision"],
        annotation_id=row["annotation_id"],
        task_id=row["task_id"],
        annotated_at=datetime.fromisoformat(row["annotated_at"]),
        expert=row["expert"],
        mask=row["mask"],
        parent_version=row["parent_version"],
        lead_time_s=row["lead_time_s"],
        conflict_pixels=row["conflict_pixels"],
        split=row["split"],
        group=row["group_id"],
        origins=json.loads(row["origins"] or "{}"),
    )
