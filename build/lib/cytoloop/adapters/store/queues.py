"""Policies of the queues, as an administrator last set them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one


class Queues:
    """One policy document a queue; what it may say is ``domain.queue_policy``'s to judge."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def policy(self, assay: str, queue: str) -> dict[str, Any] | None:
        """The policy of a queue; None where nobody has set one."""
        row = one(self._file.db, "SELECT document FROM queues WHERE assay = ? AND queue = ?", [assay, queue])
        return None if row is None else dict(json.loads(row["document"]))

    def set(self, assay: str, queue: str, document: Mapping[str, Any]) -> None:
        """Set the policy of a queue, in place of an earlier one."""
        with self._file.transaction() as db:
            db["queues"].insert(
                {
                    "assay": assay,
                    "queue": queue,
                    "document": json.dumps(document, allow_nan=False),
                    "changed_at": now_iso(),
                },
                replace=True,
            )

    def all(self, assay: str) -> dict[str, dict[str, Any]]:
        """Policies by queue, of the queues that have one."""
        rows = self._file.db.query(
            "SELECT queue, document FROM queues WHERE assay = ? ORDER BY queue", [assay]
        )
        return {row["queue"]: dict(json.loads(row["document"])) for row in rows}
