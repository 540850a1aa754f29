"""Figures of a home: counted by SQLite, so that a question asked every few seconds costs little."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, one
from cytoloop.adapters.store.corrections import LATEST, Corrections


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Events that are stored and not applied yet."""

    events: int
    oldest: datetime | None
    """When the one that waits longest came; None if none waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssayFigures:
    """One assay, counted."""

    items: int
    open_items: int
    """That can be handed out: with a task, held by nobody, neither corrected nor skipped."""
    corrected: int
    """Items with a mask that stands."""
    minutes: float
    """The editor was open for the masks that stand."""
    revisions: Mapping[str, int]
    """Ever stored, by kind."""
    leases: Mapping[tuple[str, str], int]
    """By queue and state."""
    cycles: Mapping[str, int]
    """By state."""
    active: str | None
    method: str | None
    """Of the active version."""
    predicted: int
    """Items that the active version has a prediction of."""
    looked_at: datetime | None
    """When the trainer last asked Label Studio for what no event told, and got its answer."""


class Figures:
    """Counts across the three databases of a home."""

    def __init__(
        self, file: SqliteFile, corrections: Corrections, predictions: SqliteFile, inbox: SqliteFile
    ) -> None:
        self._file = file
        self._corrections = corrections
        self._predictions = predictions
        self._inbox = inbox

    def waiting(self) -> Waiting:
        """What the inbox holds beyond what is applied."""
        applied = _number(self._file, "SELECT last_event AS n FROM inbox_progress")
        sql = "SELECT count(*) AS n, min(received_at) AS oldest FROM events WHERE id > ?"
        row = one(self._inbox.db, sql, [applied])
        assert row is not None, "an aggregate has one row"
        return Waiting(events=row["n"], oldest=_moment(row["oldest"]))

    def active_versions(self) -> dict[str, str | None]:
        """The version in force by assay; None where nothing was published yet."""
        rows = self._file.db.query("SELECT name, active_version FROM assays ORDER BY name")
        return {row["name"]: row["active_version"] for row in rows}

    def doubts(self) -> dict[tuple[str | None, str], int]:
        """What could not be stored, by assay (None: not known of which) and where it came from."""
        sql = "SELECT assay, source, count(*) AS n FROM doubts GROUP BY assay, source"
        return {(row["assay"], row["source"]): row["n"] for row in self._file.db.query(sql)}

    def of(self, assay: str) -> AssayFigures:
        """One assay, which is in the home."""
        file, named = self._file, {"assay": assay}
        corrected, seconds = self._corrections.standing_totals(assay)
        home = one(
            file.db,
            """SELECT active_version, looked_at, method FROM assays
            LEFT JOIN models ON version = active_version WHERE name = :assay""",
            named,
        )
        assert home is not None, "the assay is in the home"
        with_task = _number(
            file, "SELECT count(*) AS n FROM items WHERE assay = :assay AND task_id IS NOT NULL", named
        )
        closed = _number(
            file,
            f"""SELECT count(*) AS n FROM (
                SELECT image_id, tile FROM leases WHERE assay = :assay AND state IN ('held', 'done')
                UNION SELECT image_id, tile FROM ({LATEST}) WHERE kind != 'deleted')
            JOIN items USING (image_id, tile) WHERE assay = :assay AND task_id IS NOT NULL""",
            named,
        )
        return AssayFigures(
            items=_number(file, "SELECT count(*) AS n FROM items WHERE assay = :assay", named),
            open_items=with_task - closed,
            corrected=corrected,
            minutes=seconds / 60,
            revisions=_by(
                file, "SELECT kind, count(*) FROM corrections WHERE assay = :assay GROUP BY 1", named
            ),
            leases={
                (row["queue"], row["state"]): row["n"]
                for row in file.db.query(
                    "SELECT queue, state, count(*) AS n FROM leases WHERE assay = :assay GROUP BY queue, state",
                    named,
                )
            },
            cycles=_by(file, "SELECT state, count(*) FROM cycles WHERE assay = :assay GROUP BY 1", named),
            active=home["active_version"],
            method=home["method"],
            predicted=_number(
                self._predictions,
                "SELECT count(*) AS n FROM predictions WHERE assay = ? AND version = ?",
                [assay, home["active_version"]],
            ),
            looked_at=_moment(home["looked_at"]),
        )

    def unwritable(self, timeout_s: float) -> list[str]:
        """Databases that cannot be written now, and why; empty if all can. No paths: only names of files.

        Parameters
        ----------
        timeout_s : float
            How long another process may keep a database locked.
        """
        found = []
        for file in (self._file, self._predictions, self._inbox):
            try:
                file.probe(timeout_s)
            except (sqlite3.Error, OSError) as error:
                found.append(f"{file.path.name} cannot be written: {error}")
        return found


def _number(file: SqliteFile, sql: str, parameters: Mapping[str, Any] | Iterable[Any] = ()) -> int:
    row = one(file.db, sql, parameters)
    return 0 if row is None else int(row["n"])


def _by(file: SqliteFile, sql: str, parameters: Mapping[str, Any]) -> dict[str, int]:
    return {str(key): int(n) for key, n in file.db.execute(sql, parameters)}


def _moment(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored)
