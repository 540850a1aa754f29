"""Whether the loop can do its work, and if not, why: what ``/readyz`` says."""

from __future__ import annotations

import sqlite3
import threading
import time
from datetime import UTC, datetime

from cytoloop.adapters.store import Store

LONGEST_WAIT_S = 120
"""An event is applied within seconds; one that waits longer is not being applied."""
PROBE_EVERY_S = 1.0
"""How often the databases are written to at most: the route is open, and each time costs a flush to the disk."""
LOCKED_S = 2.0
"""How long another process may keep a database locked; a transaction of ours takes some 20 ms."""


class Health:
    """Looks at a home."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._probed_at: float | None = None
        self._unwritable: list[str] = []

    def problems(self, now: datetime | None = None) -> list[str]:
        """Why the loop cannot do its work, in words without paths or secrets; empty if it can."""
        found = [*self._written()]
        try:
            waiting = self._store.figures.waiting()
            active = self._store.figures.active_versions()
        except (sqlite3.Error, OSError) as error:
            return [*found, f"the databases cannot be read: {error}"]
        if waiting.oldest is not None:
            age_s = ((now or datetime.now(UTC)) - waiting.oldest).total_seconds()
            if age_s > LONGEST_WAIT_S:
                found.append(
                    f"{waiting.events} event(s) of Label Studio wait to be applied, the oldest for {age_s:.0f} s; "
                    f"expected at most {LONGEST_WAIT_S} s"
                )
        if not any(version is not None for version in active.values()):
            found.append("no assay has a version in force; expected an import first (`cytoloop import`)")
        return found

    def _written(self) -> list[str]:
        with self._lock:
            now = time.monotonic()
            if self._probed_at is None or now - self._probed_at >= PROBE_EVERY_S:
                self._unwritable = self._store.figures.unwritable(LOCKED_S)
                self._probed_at = time.monotonic()
            return self._unwritable
