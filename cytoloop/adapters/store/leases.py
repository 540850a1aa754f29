"""Leases: who holds which item until when. A queue is a promise, and it is kept here.

An item has as many *seats* as experts are to read it. A lease takes one: while it is held, and for good
once its expert has submitted. Two partial unique indexes make SQLite itself refuse a second hand-out.

::

    held ──> done      the expert submitted; the seat stays taken
      ├────> skipped   the expert will not do it; the seat is free, for others
      ├────> released  given back, or the annotation was deleted; free for all
      └────> expired   time is over; free for all, and a late submit is still kept
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from sqlite_utils import Database

from cytoloop.adapters.store.connection import SqliteFile, is_id, to_iso
from cytoloop.adapters.store.corrections import Corrections
from cytoloop.domain.errors import ForeignLease, InputError, LeaseEnded, UnknownImage, UnknownLease
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.types import Item, ItemRole, Lease, LeaseState, Role
from cytoloop.domain.worklist import Choice

LATER_ROLES: tuple[Role, ...] = ("overlap", "gold", "review")
"""Roles that an item may get again after its first: the lease tells them, the item keeps its own."""


class Leases:
    """Claims on items, and what an item was handed out for."""

    def __init__(self, file: SqliteFile, corrections: Corrections) -> None:
        self._file = file
        self._corrections = corrections

    # --- handing out -------------------------------------------------------------------------------

    def claim(
        self,
        assay: str,
        queue: str,
        expert: str,
        choices: Iterable[Choice],
        until: datetime,
        cap: int,
        *,
        strategy: str,
        version: str,
        count: int | None = None,
        now: datetime | None = None,
    ) -> list[Lease]:
        """Lease items to an expert, in the order of the choices, in one transaction.

        Passed over is what someone else took meanwhile, and what the expert has or had: nobody gets an
        item twice, except for review. Gold items have a seat for every expert. A lease whose time is over blocks its seat until it is ended by
        ``expire``, so that a draft can be looked for first.

        Parameters
        ----------
        cap : int
            Most leases the expert holds in the queue at a time.
        count : int, optional
            Most leases to give now.

        Raises
        ------
        InputError
            If cap, count, readers or a score make no sense, or ``until`` is over.
        UnknownImage
            If a choice is no item of the assay; nothing is leased.
        """
        now = now or datetime.now(UTC)
        _check_claim(expert, until, cap, count, now)
        given: list[Lease] = []
        with self._file.transaction() as db:
            room = cap - _held_count(db, assay, queue, expert)
            if count is not None:
                room = min(room, count)
            for choice in choices:
                if len(given) >= room:
                    break
                _check_choice(assay, choice)
                stored = _role(db, assay, choice.item)
                readers = max(choice.readers, stored.readers if stored else 1)
                seat = self._free_seat(db, assay, choice.item, expert, choice.role, readers)
                if seat is None:
                    continue
                kept = stored or ItemRole(
                    item=choice.item,
                    role=choice.role,
                    canvas=choice.canvas,
                    readers=readers,
                    queue=queue,
                    strategy=strategy,
                    version=version,
                    given_at=now,
                )
                lease = Lease(
                    id=0,
                    assay=assay,
                    queue=queue,
                    expert=expert,
                    item=choice.item,
                    seat=seat,
                    role=choice.role if choice.role in LATER_ROLES else kept.role,
                    canvas=kept.canvas,
                    strategy=strategy,
                    version=version,
                    score=choice.candidate.score,
                    claimed_at=now,
                    expires_at=until,
                    state="held",
                    ended_at=None,
                )
                given.append(_insert(db, lease, kept, readers))
        return given

    def open_seats(self, assay: str, queue: str, expert: str, limit: int) -> list[ItemRole]:
        """Items that others of the queue read or hold and this expert is to read too, oldest first."""
        found: list[ItemRole] = []
        db = self._file.db
        rows = db.execute(
            """SELECT * FROM item_roles
            WHERE assay = ? AND queue = ? AND taken > 0 AND taken < readers
            ORDER BY given_at, image_id, tile""",
            [assay, queue],
        )
        for row in rows:
            if len(found) >= limit:
                break
            known = _item_role(row)
            if self._free_seat(db, assay, known.item, expert, known.role, known.readers) is not None:
                found.append(known)
        rows.close()
        return found

    def _free_seat(
        self, db: Database, assay: str, item: Item, expert: str, role: Role, readers: int
    ) -> int | None:
        """The lowest seat that this expert may take, None if there is none.

        A correction without a lease (an expert opened the task alone, or before there were leases) is
        a reading like any other.
        """
        rows = _rows_of_item(db, assay, item)
        held = [row for row in rows if row["state"] == "held"]
        done = [row for row in rows if row["state"] == "done"]
        if role == "review":
            if held:
                return None
        else:
            said = self._corrections.of_item(assay, item)
            mine = (row["state"] for row in rows if row["expert"] == expert)
            if expert in said or any(state in ("held", "done", "skipped") for state in mine):
                return None
            submitted = sum(kind == "submitted" for kind in said.values())
            if role != "gold" and len(held) + max(len(done), submitted) >= readers:
                return None
        return _lowest_free(held + done)

    # --- how a lease goes on, and ends -------------------------------------------------------------

    def finish(
        self,
        assay: str,
        item: Item,
        expert: str,
        state: Literal["done", "skipped"] = "done",
        at: datetime | None = None,
    ) -> Lease | None:
        """An expert submitted or skipped an item: end the lease; None if none was ever given.

        The same again changes nothing. A late submit, after the lease ended, is kept: in its old seat,
        or where another expert was given that one, in a further one. The other's lease stays as it is.
        """
        with self._file.transaction() as db:
            row = _lease_to_finish(_rows_of_item(db, assay, item), expert)
            if row is None:
                return None
            if row["state"] == state:
                return _lease(row)
            others = [
                other
                for other in _rows_of_item(db, assay, item)
                if other["state"] in ("held", "done") and other["id"] != row["id"]
            ]
            seat = row["seat"]
            if state == "done" and any(other["seat"] == seat for other in others):
                seat = _lowest_free(others)
            return _end(db, row, state, at or datetime.now(UTC), seat=seat)

    def reopen(self, assay: str, item: Item, expert: str, at: datetime | None = None) -> Lease | None:
        """An annotation was deleted, or a skipped item goes back: free the seat for all, its expert too."""
        with self._file.transaction() as db:
            ended = [
                row
                for row in _rows_of_item(db, assay, item)
                if row["expert"] in (expert, SHARED) and row["state"] in ("done", "skipped")
            ]
            return _end(db, ended[-1], "released", at or datetime.now(UTC)) if ended else None

    def release(self, lease_id: int, expert: str, now: datetime | None = None) -> Lease:
        """An expert gives an item back.

        Raises
        ------
        UnknownLease
            If there is no such lease.
        ForeignLease
            If another expert holds it.
        LeaseEnded
            If it is not held any more, or its time is over.
        """
        now = now or datetime.now(UTC)
        with self._file.transaction() as db:
            row = _row(db, lease_id)
            if row["expert"] != expert:
                raise ForeignLease(f"lease {lease_id}: belongs to another expert, expected one of {expert!r}")
            _check_held(row)
            if row["expires_at"] <= to_iso(now):
                raise LeaseEnded(
                    f"lease {lease_id}: ran out at {row['expires_at']}, expected one that is held"
                )
            return _end(db, row, "released", now)

    def release_all(self, assay: str, queue: str, expert: str, now: datetime | None = None) -> int:
        """Take back all that an expert holds in a queue, as when he leaves it; how many that were."""
        with self._file.transaction() as db:
            rows = _held_rows(db, assay, queue, expert)
            for row in rows:
                _end(db, row, "released", now or datetime.now(UTC))
            return len(rows)

    def extend(self, lease_id: int, until: datetime) -> Lease:
        """Let a held lease last longer, never shorter; also one whose time is over but that was not ended.

        Raises
        ------
        UnknownLease, LeaseEnded
            If there is no such lease, or it is not held any more.
        """
        with self._file.transaction() as db:
            row = _row(db, lease_id)
            _check_held(row)
            db.execute(
                "UPDATE leases SET expires_at = max(expires_at, ?) WHERE id = ?", [to_iso(until), lease_id]
            )
            return _lease(_row(db, lease_id))

    def renew(self, assay: str, queue: str, expert: str, until: datetime) -> int:
        """An expert is at work: all that he holds in the queue lasts until then; how many leases."""
        with self._file.transaction() as db:
            cursor = db.execute(
                """UPDATE leases SET expires_at = max(expires_at, ?)
                WHERE assay = ? AND queue = ? AND expert = ? AND state = 'held'""",
                [to_iso(until), assay, queue, expert],
            )
            return int(cursor.rowcount)

    def expired(self, assay: str, now: datetime | None = None) -> list[Lease]:
        """Held leases whose time is over, the longest first; look for drafts, then ``expire`` or ``extend``."""
        rows = self._file.db.execute(
            "SELECT * FROM leases WHERE state = 'held' AND expires_at <= ? AND assay = ? ORDER BY expires_at, id",
            [to_iso(now or datetime.now(UTC)), assay],
        )
        return [_lease(row) for row in rows]

    def expire(self, lease_id: int, now: datetime | None = None) -> bool:
        """End a lease whose time is over; False if it was renewed or ended meanwhile.

        Raises
        ------
        UnknownLease
            If there is no such lease.
        """
        now = now or datetime.now(UTC)
        with self._file.transaction() as db:
            row = _row(db, lease_id)
            if row["state"] != "held" or row["expires_at"] > to_iso(now):
                return False
            _end(db, row, "expired", now)
            return True

    # --- reading -----------------------------------------------------------------------------------

    def get(self, lease_id: int) -> Lease:
        """One lease; ``UnknownLease`` if there is none of that id."""
        return _lease(_row(self._file.db, lease_id))

    def held(self, assay: str, queue: str | None = None, expert: str | None = None) -> list[Lease]:
        """Leases in force, in the order they were given; one whose time is over too, until it is ended."""
        return [_lease(row) for row in _held_rows(self._file.db, assay, queue, expert)]

    def of_item(self, assay: str, item: Item) -> list[Lease]:
        """Every lease an item ever had, oldest first."""
        return [_lease(row) for row in _rows_of_item(self._file.db, assay, item)]

    def items(self, assay: str) -> set[Item]:
        """Items that were ever leased."""
        sql = "SELECT DISTINCT image_id, tile FROM leases WHERE assay = ?"
        return {Item(**row) for row in self._file.db.query(sql, [assay])}

    def taken(self, assay: str, items: Iterable[Item]) -> set[Item]:
        """Those of these items that somebody holds or has done."""
        db = self._file.db
        return {
            item
            for item in items
            if db.execute(
                """SELECT 1 FROM leases WHERE assay = ? AND image_id = ? AND tile = ?
                AND state IN ('held', 'done') LIMIT 1""",
                [assay, item.image_id, item.tile],
            ).fetchone()
        }

    def roles(self, assay: str, items: Iterable[Item] | None = None) -> dict[Item, ItemRole]:
        """What items were first handed out for: of all that ever were, or of these."""
        db = self._file.db
        if items is not None:
            return {item: known for item in items if (known := _role(db, assay, item)) is not None}
        rows = db.execute("SELECT * FROM item_roles WHERE assay = ? ORDER BY image_id, tile", [assay])
        return {known.item: known for known in map(_item_role, rows)}


def _check_claim(expert: str, until: datetime, cap: int, count: int | None, now: datetime) -> None:
    if not expert:
        raise InputError("claim: expert is '', expected an e-mail")
    if cap < 1 or (count is not None and count < 1):
        raise InputError(f"claim of {expert}: cap is {cap}, count {count}; expected at least 1")
    if until <= now:
        raise InputError(
            f"claim of {expert}: lasts until {until.isoformat()}, expected after {now.isoformat()}"
        )


def _check_choice(assay: str, choice: Choice) -> None:
    if not math.isfinite(choice.candidate.score):
        raise InputError(
            f"{_where(assay, choice.item)}: score is {choice.candidate.score}, expected a finite number"
        )
    if choice.readers < 1:
        raise InputError(f"{_where(assay, choice.item)}: readers is {choice.readers}, expected at least 1")


def _where(assay: str, item: Item) -> str:
    return f"assay {assay!r}: image {item.image_id!r} tile {item.tile}"


def _held_rows(db: Database, assay: str, queue: str | None, expert: str | None) -> list[sqlite3.Row]:
    sql, parameters = "SELECT * FROM leases WHERE state = 'held' AND assay = ?", [assay]
    for column, value in (("queue", queue), ("expert", expert)):
        if value is not None:
            sql += f" AND {column} = ?"
            parameters.append(value)
    return list(db.execute(sql + " ORDER BY id", parameters))


def _held_count(db: Database, assay: str, queue: str, expert: str) -> int:
    row = db.execute(
        """SELECT count(*) FROM leases WHERE state = 'held' AND assay = ? AND queue = ? AND expert = ?""",
        [assay, queue, expert],
    ).fetchone()
    return int(row[0])


def _row(db: Database, lease_id: int) -> sqlite3.Row:
    sql = "SELECT * FROM leases WHERE id = ?"
    row: sqlite3.Row | None = db.execute(sql, [lease_id]).fetchone() if is_id(lease_id) else None
    if row is None:
        raise UnknownLease(f"lease {lease_id}: was never given")
    return row


def _rows_of_item(db: Database, assay: str, item: Item) -> list[sqlite3.Row]:
    return list(
        db.execute(
            "SELECT * FROM leases WHERE assay = ? AND image_id = ? AND tile = ? ORDER BY id",
            [assay, item.image_id, item.tile],
        )
    )


def _lowest_free(rows: Iterable[sqlite3.Row]) -> int:
    seats = {row["seat"] for row in rows}
    return next(seat for seat in range(len(seats) + 1) if seat not in seats)


def _lease_to_finish(rows: list[sqlite3.Row], expert: str) -> sqlite3.Row | None:
    """The lease that an expert's annotation ends: held before ended, own before shared, late before early."""
    mine = [row for row in rows if row["expert"] in (expert, SHARED)]
    return max(
        mine, key=lambda row: (row["state"] == "held", row["expert"] == expert, row["id"]), default=None
    )


def _check_held(row: sqlite3.Row) -> None:
    if row["state"] != "held":
        raise LeaseEnded(
            f"lease {row['id']}: is {row['state']} since {row['ended_at']}, expected one that is held"
        )


def _insert(db: Database, lease: Lease, kept: ItemRole, readers: int) -> Lease:
    item = [lease.assay, lease.item.image_id, lease.item.tile]
    try:
        cursor = db.execute(
            """INSERT INTO leases (assay, image_id, tile, queue, expert, seat, role, canvas, strategy, version,
                score, claimed_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            [
                *item,
                *(lease.queue, lease.expert, lease.seat, lease.role, lease.canvas),
                *(lease.strategy, lease.version, lease.score),
                *(to_iso(lease.claimed_at), to_iso(lease.expires_at)),
            ],
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorname != "SQLITE_CONSTRAINT_FOREIGNKEY":
            raise
        raise UnknownImage(f"{_where(lease.assay, lease.item)}: is not in the store") from error
    if lease.role != "review":  # a second look says nothing of how the item was drawn
        db.execute(
            """INSERT INTO item_roles (assay, image_id, tile, role, canvas, readers, queue, strategy, version,
                given_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET readers = excluded.readers""",
            [
                *item,
                *(kept.role, kept.canvas, readers, kept.queue, kept.strategy, kept.version),
                to_iso(kept.given_at),
            ],
        )
    if readers > 1:
        _recount(db, item)
    return replace(lease, id=int(cursor.lastrowid or 0))


def _end(db: Database, row: sqlite3.Row, state: LeaseState, at: datetime, seat: int | None = None) -> Lease:
    db.execute(
        "UPDATE leases SET state = ?, ended_at = ?, seat = ? WHERE id = ?",
        [state, to_iso(at), row["seat"] if seat is None else seat, row["id"]],
    )
    _recount(db, [row["assay"], row["image_id"], row["tile"]])
    return _lease(_row(db, row["id"]))


def _recount(db: Database, item: list[Any]) -> None:
    """Keep how many seats of an item for several are taken, for the index of those short of readers."""
    db.execute(
        """UPDATE item_roles SET taken = (
            SELECT count(*) FROM leases WHERE assay = ?1 AND image_id = ?2 AND tile = ?3
                AND state IN ('held', 'done'))
        WHERE assay = ?1 AND image_id = ?2 AND tile = ?3 AND readers > 1""",
        item,
    )


def _role(db: Database, assay: str, item: Item) -> ItemRole | None:
    row = db.execute(
        "SELECT * FROM item_roles WHERE assay = ? AND image_id = ? AND tile = ?",
        [assay, item.image_id, item.tile],
    ).fetchone()
    return None if row is None else _item_role(row)


def _item_role(row: sqlite3.Row) -> ItemRole:
    return ItemRole(
        item=Item(image_id=row["image_id"], tile=row["tile"]),
        role=row["role"],
        canvas=row["canvas"],
        readers=row["readers"],
        queue=row["queue"],
        strategy=row["strategy"],
        version=row["version"],
        given_at=datetime.fromisoformat(row["given_at"]),
    )


def _lease(row: sqlite3.Row) -> Lease:
    return Lease(
        id=row["id"],
        assay=row["assay"],
        queue=row["queue"],
        expert=row["expert"],
        item=Item(image_id=row["image_id"], tile=row["tile"]),
        seat=row["seat"],
        role=row["role"],
        canvas=row["canvas"],
        strategy=row["strategy"],
        version=row["version"],
        score=row["score"],
        claimed_at=datetime.fromisoformat(row["claimed_at"]),
        expires_at=datetime.fromisoformat(row["expires_at"]),
        state=row["state"],
        ended_at=datetime.fromisoformat(row["ended_at"]) if row["ended_at"] else None,
    )
