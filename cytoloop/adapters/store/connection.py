"""One SQLite connection a thread, migrations in one transaction, a newer schema refused."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlite_utils import Database

from cytoloop.domain.errors import StateError

Migration = Callable[[Database], None]
BUSY_TIMEOUT_S = 30.0
LARGEST_ID = 2**63 - 1
"""What SQLite holds; a larger number names no row."""
UNUSABLE = ("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_CANTOPEN", "SQLITE_READONLY")
"""What SQLite calls a file that is damaged, no database, or not ours to write."""


def now_iso() -> str:
    """The present in UTC, as stored: ISO 8601 with microseconds, sortable as text."""
    return to_iso(datetime.now(UTC))


def to_iso(moment: datetime) -> str:
    """A point in time as stored."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


class SqliteFile:
    """A database file: opens one connection for each thread that asks.

    Parameters
    ----------
    synchronous : str
        ``FULL`` makes every commit reach the disk before it returns; ``OFF`` is for what can be
        made again.
    cache_kb : int, optional
        What each connection keeps of the file in memory; None: SQLite's 2000.
    """

    def __init__(
        self,
        path: Path,
        migrations: Mapping[str, Migration],
        synchronous: str = "FULL",
        cache_kb: int | None = None,
    ) -> None:
        self.path = path
        self._cache_kb = cache_kb
        self._migrations = migrations
        self._synchronous = synchronous
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            self.close()
            if not getattr(error, "sqlite_errorname", "").startswith(UNUSABLE):
                raise
            raise StateError(
                f"{path}: cannot be opened ({error}); expected cytoloop's database: restore a backup"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def db(self) -> Database:
        """This thread's connection."""
        database = getattr(self._local, "database", None)
        if database is None:
            database = Database(self._connect())
            self._local.database = database
        return database

    @contextmanager
    def transaction(self) -> Iterator[Database]:
        """A write transaction that takes its lock at the start, so that it cannot fail half-way."""
        connection = self.db.conn
        if connection.in_transaction:  # a caller already holds one: be part of it
            yield self.db
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield self.db
            connection.commit()
        except BaseException:
            connection.rollback()  # of a commit that failed too: left open, it would swallow whatever comes next
            raise

    def check(self) -> list[str]:
        """What ``PRAGMA quick_check`` finds wrong; empty if nothing is."""
        try:
            found = [next(iter(row.values())) for row in self.db.query("PRAGMA quick_check")]
        except sqlite3.DatabaseError as error:  # too damaged to be looked through
            found = [str(error)]
        return [f"{self.path}: {problem}" for problem in found if problem != "ok"]

    def probe(self, timeout_s: float) -> None:
        """Write something that changes nothing, on a connection of its own; ``sqlite3.Error`` if that fails.

        Parameters
        ----------
        timeout_s : float
            How long to wait for a lock that another process holds.
        """
        # mode=rw: a file that is gone is an error, and is not made anew
        connection = sqlite3.connect(f"file:{quote(str(self.path))}?mode=rw", timeout=timeout_s, uri=True)
        try:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            (number,) = connection.execute("PRAGMA user_version").fetchone()
            connection.execute(f"PRAGMA user_version = {number}")  # written though it is the same
            connection.execute("COMMIT")
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connections of every thread."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        connection.isolation_level = None  # transactions are begun by name, in transaction()
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA foreign_keys = ON")
        if self._cache_kb is not None:
            connection.execute(f"PRAGMA cache_size = -{self._cache_kb}")
        self._opened.append(connection)
        return connection

    def _migrate(self) -> None:
        with self.transaction() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)"
            )
            applied = {row["name"] for row in db.query("SELECT name FROM migrations")}
            unknown = sorted(applied - set(self._migrations))
            if unknown:
                raise StateError(
                    f"{self.path}: written by a newer cytoloop (migrations {unknown}); "
                    "expected a schema this version knows: upgrade, or restore a backup"
                )
            for name, migrate in self._migrations.items():
                if name not in applied:
                    migrate(db)
                    db.execute("INSERT INTO migrations VALUES (?, ?)", [name, now_iso()])


def storable(text: str) -> str:
    """Text as SQLite takes it: half characters, which JSON can say and UTF-8 cannot, are spelled out.

    Examples
    --------
    >>> storable("ä \\ud800")
    'ä \\\\ud800'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def is_id(number: int) -> bool:
    """Whether a number can be a row's: others must not reach SQLite, which raises over them."""
    return 0 <= number <= LARGEST_ID


def one(db: Database, sql: str, parameters: Any = ()) -> dict[str, Any] | None:
    """The first row of a query, or None."""
    return next(iter(db.query(sql, parameters)), None)
