"""Rankings: what each version's scores say of every item, ready to be asked for the top of a million.

A *ranking* is the scores of one assay by one version under one strategy. It lies in a table of its own, so
that it can be written without indexes, indexed once, shown at a stroke and dropped whole. It is derived:
the flags of what is open may be stale, and whoever hands out checks them again (see ``worklist.py``).
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Literal

import numpy as np
from sqlite_utils import Database

from cytoloop.adapters.store.connection import SqliteFile, now_iso, to_iso
from cytoloop.domain.errors import InputError, ShapeError, StateError
from cytoloop.domain.types import Item, Split
from cytoloop.domain.worklist import Candidate

VALUES: Mapping[str, str] = {
    "entropy": "entropy",
    "margin": "margin",
    "mutual-information": "mutual_information",
    "disagreement": "disagreement",
    "augmentation": "augmentation",
    "effort": "effort",
}
"""Column by score."""
CHUNK = 2_000
"""Rows a transaction: some 30 ms, so that predictions can be stored in between."""
BULK: Mapping[str, int] = {"cache_size": -65_536, "wal_autocheckpoint": 10_000, "secure_delete": 0}
"""SQLite's settings while a ranking is written: 64 MB for building indexes, where its own 2 MB would be all
spilling; fewer copies from log to file; nothing here is worth overwriting when it is dropped."""
LARGEST = float(np.finfo(np.float16).max)
"""What a feature may be at most, as it is kept."""
ABANDONED = timedelta(days=1)
"""After so long, a ranking that was never finished is what a crash left."""

_OPEN_ITEMS: Mapping[str, str] = {
    "rank": "rank_score DESC, image_id, tile",
    "lot": "lot, image_id, tile",
}
_COLUMNS = (
    *(
        "image_id",
        "tile",
        "split",
        "group_id",
        "plate",
        "is_open",
        "rank_score",
        "confidence",
        "lot",
        "minutes",
    ),
    *VALUES.values(),
    *("reason", "features"),
)

Closed = Callable[[Sequence[Item]], Collection[Item]]
"""Those of some items that must not come up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: a candidate holds an array
class Scored:
    """What a version says of one item, as its place in a ranking."""

    candidate: Candidate
    """Its features are kept with half the digits; whether it is gold is not kept."""
    values: Mapping[str, float] = field(default_factory=dict)
    """The scores by name (``scoring.SCORES``), those that could be made."""
    reason: str = ""
    """In words, for the worklist."""

    @property
    def item(self) -> Item:
        """The item."""
        return self.candidate.item


class Scores:
    """The rankings of a home."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    # --- writing -----------------------------------------------------------------------------------

    def put(
        self, assay: str, version: str, strategy: str, rows: Iterable[Scored], finished: Collection[Item] = ()
    ) -> int:
        """Write a ranking from a stream; it takes the place of an earlier one of the same name at the end.

        Until then, and if the stream fails, the earlier one is what is read.

        Parameters
        ----------
        finished : collection of Item
            Items that are not open; a set, since every row is looked up.

        Returns
        -------
        int
            Items in the ranking.

        Raises
        ------
        InputError
            If a number is not finite, a score has no known name, or an item comes twice; named by version,
            image and tile.
        ShapeError
            If features are not a vector.
        """
        self._drop_abandoned(assay)
        with self._bulk() as db:
            ranking = self._begin(assay, version, strategy)
            try:
                stream = (_row(version, scored, scored.item not in finished) for scored in rows)
                while chunk := list(islice(stream, CHUNK)):
                    with self._file.transaction():
                        db.conn.executemany(_insert(ranking), chunk)
                self._index(ranking, version)
                return self._show(ranking, assay, version, strategy)
            except BaseException:
                with self._file.transaction():
                    _drop(db, ranking)
                raise

    def add(self, assay: str, version: str, strategy: str, rows: Iterable[Scored]) -> int:
        """Add items to a ranking, or score some of its items again, all or nothing; how many.

        Raises
        ------
        StateError
            If there is no such ranking.
        InputError, ShapeError
            As ``put``.
        """
        written = [_row(version, scored, True) for scored in rows]
        updated = ", ".join(
            f"{c} = excluded.{c}" for c in _COLUMNS if c not in ("image_id", "tile", "is_open")
        )
        with self._file.transaction() as db:
            ranking = _ranking(db, assay, version, strategy)
            conflict = f" ON CONFLICT (image_id, tile) DO UPDATE SET {updated}"
            db.conn.executemany(_insert(ranking) + conflict, written)
        return len(written)

    def set_open(self, assay: str, items: Iterable[Item], is_open: bool) -> None:
        """Say in every ranking of an assay that items are open, or finished or held."""
        keys = [[is_open, item.image_id, item.tile] for item in items]
        with self._file.transaction() as db:
            for ranking in _rankings(db, assay):
                db.conn.executemany(
                    f"UPDATE scores_{ranking} SET is_open = ? WHERE image_id = ? AND tile = ?", keys
                )

    def forget(self, assay: str, version: str, strategy: str | None = None) -> None:
        """Drop a version's rankings, or that of one strategy."""
        with self._bulk() as db:
            for ranking in _rankings(db, assay, version, strategy):
                with self._file.transaction():
                    _drop(db, ranking)

    # --- reading -----------------------------------------------------------------------------------

    def strategies(self, assay: str, version: str) -> list[str]:
        """Strategies under which a version's scores are ranked."""
        rows = self._file.db.execute(
            "SELECT strategy FROM rankings WHERE assay = ? AND version = ? AND is_ready ORDER BY strategy",
            [assay, version],
        )
        return [row["strategy"] for row in rows]

    def versions(self, assay: str) -> set[str]:
        """Versions that have a ranking, whole or not."""
        rows = self._file.db.execute("SELECT DISTINCT version FROM rankings WHERE assay = ?", [assay])
        return {row["version"] for row in rows}

    def count(self, assay: str, version: str, strategy: str) -> int:
        """Items in a ranking."""
        with self._reading() as db:
            ranking = _ranking(db, assay, version, strategy)
            return int(db.execute(f"SELECT count(*) FROM scores_{ranking}").fetchone()[0])

    def images(self, assay: str, version: str, strategy: str) -> set[str]:
        """Ids of the images that a ranking has items of."""
        with self._reading() as db:
            ranking = _ranking(db, assay, version, strategy)
            return {row[0] for row in db.execute(f"SELECT DISTINCT image_id FROM scores_{ranking}")}

    def get(self, assay: str, version: str, strategy: str, items: Iterable[Item]) -> dict[Item, Scored]:
        """What a ranking says of these items, those that it has."""
        with self._reading() as db:
            ranking = _ranking(db, assay, version, strategy)
            rows = (
                db.execute(
                    f"SELECT * FROM scores_{ranking} WHERE image_id = ? AND tile = ?",
                    [item.image_id, item.tile],
                ).fetchone()
                for item in items
            )
            return {scored.item: scored for row in rows if row is not None for scored in [_scored(row)]}

    def top(
        self,
        assay: str,
        version: str,
        strategy: str,
        split: Split,
        limit: int,
        closed: Closed | None = None,
    ) -> list[Scored]:
        """The open items of a split that are to be asked for first, at most ``limit``; of equals by item.

        Parameters
        ----------
        closed : callable, optional
            What must not come up whatever the flags say; as many more items are looked at.

        Raises
        ------
        StateError
            If there is no such ranking.
        """
        return self._first(assay, version, strategy, split, limit, closed, "rank")

    def drawn(
        self,
        assay: str,
        version: str,
        strategy: str,
        split: Split,
        limit: int,
        closed: Closed | None = None,
    ) -> list[Scored]:
        """The open items of a split with the lowest lots, whatever their scores; as ``top``."""
        return self._first(assay, version, strategy, split, limit, closed, "lot")

    def all(self, assay: str, version: str, strategy: str) -> Iterator[Scored]:
        """Every item of a ranking as it was written, read in pieces: to rank it by another strategy."""
        last = 0
        while True:
            with self._reading() as db:
                ranking = _ranking(db, assay, version, strategy)
                rows = db.execute(
                    f"SELECT * FROM scores_{ranking} WHERE place > ? ORDER BY place LIMIT ?", [last, CHUNK]
                ).fetchall()
            if not rows:
                return
            last = rows[-1]["place"]
            yield from map(_scored, rows)

    def _first(
        self,
        assay: str,
        version: str,
        strategy: str,
        split: Split,
        limit: int,
        closed: Closed | None,
        by: Literal["rank", "lot"],
    ) -> list[Scored]:
        if limit < 1:
            raise InputError(f"limit is {limit}, expected at least 1")
        found: list[Scored] = []
        with self._reading() as db:
            ranking = _ranking(db, assay, version, strategy)
            cursor = db.execute(
                f"SELECT * FROM scores_{ranking} WHERE is_open AND split = ? ORDER BY {_OPEN_ITEMS[by]}",
                [split],
            )
            try:
                while len(found) < limit and (rows := cursor.fetchmany(limit)):
                    items = [Item(image_id=row["image_id"], tile=row["tile"]) for row in rows]
                    shut = closed(items) if closed else ()
                    left = (row for row, item in zip(rows, items, strict=True) if item not in shut)
                    found += map(_scored, islice(left, limit - len(found)))
            finally:
                cursor.close()
        return found

    # --- the life of a table -----------------------------------------------------------------------

    def _begin(self, assay: str, version: str, strategy: str) -> int:
        with self._file.transaction() as db:
            cursor = db.execute(
                "INSERT INTO rankings (assay, version, strategy, made_at) VALUES (?, ?, ?, ?)",
                [assay, version, strategy, now_iso()],
            )
            ranking = int(cursor.lastrowid or 0)
            scores = ", ".join(f"{column} REAL" for column in VALUES.values())
            db.execute(
                f"""CREATE TABLE scores_{ranking} (
                    place INTEGER PRIMARY KEY, image_id TEXT NOT NULL, tile INTEGER NOT NULL,
                    split TEXT NOT NULL, group_id TEXT NOT NULL, plate TEXT NOT NULL, is_open INTEGER NOT NULL,
                    rank_score REAL NOT NULL, confidence REAL NOT NULL, lot REAL NOT NULL, minutes REAL,
                    {scores}, reason TEXT NOT NULL, features BLOB)"""
            )
            return ranking

    def _index(self, ranking: int, version: str) -> None:
        table = f"scores_{ranking}"
        indexes = (
            f"CREATE UNIQUE INDEX {table}_by_item ON {table} (image_id, tile)",
            *(
                f"CREATE INDEX {table}_by_{by} ON {table} (split, {order}) WHERE is_open"
                for by, order in _OPEN_ITEMS.items()
            ),
        )
        for sql in indexes:  # a transaction each: nobody waits longer than for one
            try:
                with self._file.transaction() as db:
                    db.execute(sql)
            except sqlite3.IntegrityError as error:
                twice = self._file.db.execute(
                    f"SELECT image_id, tile FROM {table} GROUP BY image_id, tile HAVING count(*) > 1"
                ).fetchone()
                raise InputError(
                    f"{_where(version, Item(**twice))}: is scored twice, expected once"
                ) from error

    def _show(self, ranking: int, assay: str, version: str, strategy: str) -> int:
        """Put a finished ranking in force; the one it replaces goes."""
        with self._file.transaction() as db:
            for earlier in _rankings(db, assay, version, strategy):
                _drop(db, earlier)
            db.execute("UPDATE rankings SET is_ready = 1 WHERE id = ?", [ranking])
            return int(db.execute(f"SELECT count(*) FROM scores_{ranking}").fetchone()[0])

    def _drop_abandoned(self, assay: str) -> None:
        with self._file.transaction() as db:
            rows = db.execute(
                "SELECT id FROM rankings WHERE assay = ? AND NOT is_ready AND made_at < ?",
                [assay, to_iso(datetime.now(UTC) - ABANDONED)],
            ).fetchall()
            for row in rows:
                _drop(db, row["id"])

    @contextmanager
    def _bulk(self) -> Iterator[Database]:
        """This thread's connection, set for much at once."""
        db = self._file.db
        before = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in BULK}
        for name, value in BULK.items():
            db.execute(f"PRAGMA {name} = {value}").fetchone()
        try:
            yield db
        finally:
            for name, value in before.items():
                db.execute(f"PRAGMA {name} = {value}").fetchone()

    @contextmanager
    def _reading(self) -> Iterator[Database]:
        """One view of the database: the table that is looked up is not dropped before it is read."""
        db = self._file.db
        if db.conn.in_transaction:
            yield db
            return
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.conn.rollback()


def _rankings(db: Database, assay: str, version: str | None = None, strategy: str | None = None) -> list[int]:
    sql, parameters = "SELECT id FROM rankings WHERE is_ready AND assay = ?", [assay]
    for column, value in (("version", version), ("strategy", strategy)):
        if value is not None:
            sql += f" AND {column} = ?"
            parameters.append(value)
    return [row["id"] for row in db.execute(sql, parameters)]


def _ranking(db: Database, assay: str, version: str, strategy: str) -> int:
    found = _rankings(db, assay, version, strategy)
    if not found:
        rows = db.execute("SELECT version, strategy FROM rankings WHERE is_ready AND assay = ?", [assay])
        known = [f"{row['version']} by {row['strategy']}" for row in rows]
        raise StateError(f"assay {assay!r}: no ranking of {version} by {strategy!r}; there are {known}")
    return found[0]


def _drop(db: Database, ranking: int) -> None:
    db.execute(f"DROP TABLE scores_{ranking}")
    db.execute("DELETE FROM rankings WHERE id = ?", [ranking])


def _insert(ranking: int) -> str:
    return f"INSERT INTO scores_{ranking} ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


def _where(version: str, item: Item) -> str:
    return f"{version}: image {item.image_id!r} tile {item.tile}"


def _row(version: str, scored: Scored, is_open: bool) -> tuple[Any, ...]:
    c, values = scored.candidate, scored.values
    numbers = (c.score, c.confidence, c.lot, 0.0 if c.minutes is None else c.minutes)
    # one sum is not finite if any number is not; which one, only where it matters
    if not math.isfinite(sum(values.values(), sum(numbers))):
        named = zip(("score", "confidence", "lot", "minutes"), numbers, strict=True)
        for name, value in (*named, *values.items()):
            if not math.isfinite(value):
                raise InputError(f"{_where(version, c.item)}: {name} is {value}, expected a finite number")
    if not values.keys() <= VALUES.keys():
        unknown = sorted(values.keys() - VALUES.keys())
        raise InputError(
            f"{_where(version, c.item)}: scores {unknown} are not known, expected {list(VALUES)}"
        )
    return (
        *(c.item.image_id, c.item.tile, c.split, c.group, c.plate, is_open),
        *(c.score, c.confidence, c.lot, c.minutes),
        *map(values.get, VALUES),
        *(scored.reason, _packed(version, c)),
    )


def _packed(version: str, candidate: Candidate) -> bytes | None:
    """Features as float16: a thousandth of their size is lost, and half the space saved."""
    if candidate.features_F is None:
        return None
    features_F = np.asarray(candidate.features_F)
    # one product instead of a look at each number: not finite, or too large, if any number is
    if features_F.ndim != 1 or not float(features_F @ features_F) < LARGEST**2:
        raise ShapeError(
            f"{_where(version, candidate.item)}: features are {features_F.shape}, largest "
            f"{np.abs(features_F).max(initial=0.0)}; expected a vector (F,) of finite numbers up to {LARGEST:g}"
        )
    return features_F.astype(np.float16).tobytes()


def _scored(row: sqlite3.Row) -> Scored:
    features = row["features"]
    return Scored(
        candidate=Candidate(
            item=Item(image_id=row["image_id"], tile=row["tile"]),
            split=row["split"],
            group=row["group_id"],
            plate=row["plate"],
            score=row["rank_score"],
            confidence=row["confidence"],
            lot=row["lot"],
            minutes=row["minutes"],
            features_F=None if features is None else np.frombuffer(features, np.float16).astype(np.float32),
        ),
        values={name: row[column] for name, column in VALUES.items() if row[column] is not None},
        reason=row["reason"],
    )
