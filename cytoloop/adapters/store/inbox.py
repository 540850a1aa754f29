"""The inbox: every event as it was received; it must never be lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one
from cytoloop.adapters.store.migrations import INBOX

CACHE_KB = 256
"""Events are written once and read once: what a connection of each thread would keep of them is memory for nothing."""


@dataclass(slots=True)
class _Waiting:
    """An event that a thread wants stored, and what became of it."""

    body: bytes
    number: int | None = None
    error: BaseException | None = None

    @property
    def is_settled(self) -> bool:
        return self.number is not None or self.error is not None


class Inbox:
    """Events as received; on disk before the sender gets its answer. Written by the backend alone.

    Threads that come at once share a commit. Each commit waits for the disk, and writers who find the database
    locked sleep up to a tenth of a second: one by one, eight senders would mostly wait for each other.
    """

    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path, INBOX, synchronous="FULL", cache_kb=CACHE_KB)
        self._waiting: list[_Waiting] = []
        self._joining = threading.Lock()
        self._writing = threading.Lock()

    def append(self, body: bytes) -> int:
        """Store one event durably; returns its number."""
        mine = _Waiting(body)
        with self._joining:
            self._waiting.append(mine)
        with self._writing:  # whoever had it before may have written ours too
            if not mine.is_settled:
                with self._joining:
                    together, self._waiting = self._waiting, []
                self._write(together)
        if mine.error is not None:
            raise mine.error
        assert mine.number is not None, "it is settled"
        return mine.number

    def after(self, event_id: int, limit: int = 100) -> Iterator[tuple[int, bytes]]:
        """(number, body) of events after a number, in order."""
        rows = self.file.db.query(
            "SELECT id, body FROM events WHERE id > ? ORDER BY id LIMIT ?", [event_id, limit]
        )
        for row in rows:
            yield row["id"], row["body"]

    def last(self) -> int:
        """Number of the latest event, 0 if none."""
        row = one(self.file.db, "SELECT max(id) AS last FROM events")
        return int(row["last"] or 0) if row else 0

    def _write(self, together: Sequence[_Waiting]) -> None:
        """Store events in one commit; where that fails, each for itself: a large one may lack room that others have."""
        try:
            numbers = self._commit([one.body for one in together])
        except BaseException as error:
            is_locked = getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
            if (
                len(together) > 1 and not is_locked
            ):  # a lock that has lasted so long is there for each of them
                for single in together:
                    self._write([single])
                return
            for refused in together:
                refused.error = error
            return
        for settled, number in zip(together, numbers, strict=True):
            settled.number = number

    def _commit(self, bodies: Sequence[bytes]) -> list[int]:
        with self.file.transaction() as db:
            sql = "INSERT INTO events (received_at, body) VALUES (?, ?)"
            return [int(db.execute(sql, [now_iso(), body]).lastrowid or 0) for body in bodies]
