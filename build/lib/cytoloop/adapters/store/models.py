"""Model versions, snapshots, contests, cycles and publications in the store."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one, to_iso
from cytoloop.domain.errors import InvalidTransition, StateError, UnknownVersion
from cytoloop.domain.types import CycleKind, Item, ModelStatus, ModelVersion, SnapshotRow, TrainingSnapshot

TRANSITIONS: Mapping[ModelStatus, tuple[ModelStatus, ...]] = {
    "candidate": ("active", "rejected"),
    "rejected": ("candidate", "active", "pruned"),
    "active": ("retired",),
    "retired": ("active", "pruned"),
    "pruned": ("candidate",),
}


class Models:
    """Versions and what became of them."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, model: ModelVersion) -> None:
        """Register a version; the same version again is nothing new, unless its weights had been removed."""
        row = asdict(model)
        row["config"] = json.dumps(model.config)
        row["metrics"] = json.dumps(model.metrics)
        row["created_at"] = to_iso(model.created_at)
        with self._file.transaction() as db:
            db["models"].insert(row, ignore=True)
            if model.status == "candidate" and self.get(model.version).status == "pruned":
                self.set_status(model.version, "candidate")

    def get(self, version: str) -> ModelVersion:
        """One version; ``UnknownVersion`` naming those that exist."""
        row = one(self._file.db, "SELECT * FROM models WHERE version = ?", [version])
        if row is None:
            known = [r["version"] for r in self._file.db.query("SELECT version FROM models")]
            raise UnknownVersion(f"model {version!r} is not in this home; it holds {known}")
        return _model(row)

    def all(self, assay: str) -> list[ModelVersion]:
        """Versions of an assay, oldest first."""
        rows = self._file.db.query(
            "SELECT * FROM models WHERE assay = ? ORDER BY created_at, version", [assay]
        )
        return [_model(row) for row in rows]

    def active(self, assay: str) -> ModelVersion:
        """The version in force: always one, since CIP is a version too."""
        row = one(self._file.db, "SELECT active_version FROM assays WHERE name = ?", [assay])
        if row is None or row["active_version"] is None:
            raise StateError(f"assay {assay!r} has no active version yet; expected an import first")
        return self.get(row["active_version"])

    def set_status(self, version: str, status: ModelStatus) -> None:
        """Move a version along; ``InvalidTransition`` names where it could go."""
        with self._file.transaction() as db:
            current = self.get(version).status
            if current == status:
                return
            if status not in TRANSITIONS[current]:
                raise InvalidTransition(
                    f"model {version}: {current} cannot become {status}, only {' or '.join(TRANSITIONS[current])}"
                )
            db["models"].update(version, {"status": status})

    def activate(self, assay: str, version: str) -> None:
        """Make a version the one in force and retire its predecessor, in one transaction."""
        with self._file.transaction() as db:
            row = one(db, "SELECT active_version FROM assays WHERE name = ?", [assay])
            previous = row["active_version"] if row else None
            if previous is not None and previous != version:
                self.set_status(previous, "retired")
            self.set_status(version, "active")
            db["assays"].update(assay, {"active_version": version})

    def set_metrics(self, version: str, metrics: Mapping[str, Any]) -> None:
        """Attach what was measured of a version."""
        with self._file.transaction() as db:
            db["models"].update(version, {"metrics": json.dumps(metrics)})

    def add_snapshot(self, snapshot: TrainingSnapshot) -> None:
        """Keep the exact rows a run saw."""
        rows = json.dumps([asdict(row) for row in snapshot.rows])
        with self._file.transaction() as db:
            db["snapshots"].insert(
                {
                    "digest": snapshot.digest,
                    "assay": snapshot.assay,
                    "rows": rows,
                    "created_at": now_iso(),
                },
                ignore=True,
            )

    def snapshot(self, digest: str) -> TrainingSnapshot:
        """The exact rows of a snapshot; ``UnknownVersion`` if this home has none of that digest."""
        row = one(self._file.db, "SELECT * FROM snapshots WHERE digest = ?", [digest])
        if row is None:
            raise UnknownVersion(f"snapshot {digest!r} is not in this home")
        rows = tuple(SnapshotRow(**fields) for fields in json.loads(row["rows"]))
        return TrainingSnapshot(assay=row["assay"], rows=rows, digest=digest)

    def snapshot_masks(self, digest: str | None) -> set[tuple[Item, str]]:
        """(item, mask) of every correction a snapshot held; empty if there is no such snapshot."""
        row = one(self._file.db, "SELECT rows FROM snapshots WHERE digest = ?", [digest])
        rows = json.loads(row["rows"]) if row else []
        return {
            (Item(image_id=r["image_id"], tile=r["tile"]), r["mask"])
            for r in rows
            if r["source"] == "correction"
        }

    def add_contest(
        self,
        assay: str,
        cycle_id: str | None,
        challenger: str,
        active: str,
        promoted: bool,
        reason: str,
        document: Any,
    ) -> None:
        """Record a contest, whatever came of it."""
        with self._file.transaction() as db:
            db["contests"].insert(
                {
                    "assay": assay,
                    "cycle_id": cycle_id,
                    "challenger": challenger,
                    "active": active,
                    "promoted": int(promoted),
                    "reason": reason,
                    "document": json.dumps(document),
                    "created_at": now_iso(),
                }
            )

    def looks(self, assay: str, active: str) -> int:
        """Contests that a version has stood since it last came into force, those that found too few wells not counted.

        Each was a chance to replace it by mistake: the next one must be judged the more strictly.
        """
        last_loss = one(
            self._file.db,
            "SELECT max(id) AS id FROM contests WHERE assay = ? AND promoted = 1",
            [assay],
        )
        since = (last_loss or {}).get("id") or 0
        rows = self._file.db.query(
            "SELECT document FROM contests WHERE assay = ? AND active = ? AND id > ?", [assay, active, since]
        )
        return sum(json.loads(row["document"]).get("lower_bound") is not None for row in rows)

    def contests(self, assay: str) -> list[dict[str, Any]]:
        """Every contest, oldest first."""
        rows = self._file.db.query("SELECT * FROM contests WHERE assay = ? ORDER BY id", [assay])
        return [{**row, "document": json.loads(row["document"])} for row in rows]


class Cycles:
    """Training cycles: asked for, running, done or failed."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def ask(
        self,
        assay: str,
        asked_by: str,
        why: str = "",
        *,
        kind: CycleKind = "train",
        target: str | None = None,
    ) -> str:
        """Queue a cycle; one of the same kind that waits already serves this request too.

        Parameters
        ----------
        why : str
            In words: what made it due.
        target : str, optional
            The version to bring into force, where ``kind`` is *promote*.
        """
        with self._file.transaction() as db:
            queued = one(
                db,
                "SELECT id FROM cycles WHERE assay = ? AND state = 'queued' AND kind = ? AND target IS ?",
                [assay, kind, target],
            )
            if queued is not None:
                return str(queued["id"])
            cycle_id = uuid.uuid4().hex[:12]
            db["cycles"].insert(
                {
                    "id": cycle_id,
                    "assay": assay,
                    "state": "queued",
                    "step": "queued",
                    "asked_by": asked_by,
                    "why": why,
                    "kind": kind,
                    "target": target,
                    "created_at": now_iso(),
                }
            )
            return cycle_id

    def last_training(self, assay: str) -> dict[str, Any] | None:
        """The last training cycle that came to an end by itself, well or not: triggers count from its start."""
        return one(
            self._file.db,
            "SELECT * FROM cycles WHERE assay = ? AND kind = 'train' AND state IN ('done', 'failed') "
            "AND outcome != 'abandoned' AND started_at IS NOT NULL ORDER BY created_at DESC, id DESC",
            [assay],
        )

    def queued(self) -> list[dict[str, Any]]:
        """Cycles that wait, oldest first."""
        return list(
            self._file.db.query("SELECT * FROM cycles WHERE state = 'queued' ORDER BY created_at, id")
        )

    def start(self, cycle_id: str) -> None:
        """Mark a cycle as running; one training at a time an assay.

        Raises
        ------
        StateError
            If another cycle of the assay is running.
        """
        with self._file.transaction() as db:
            cycle = self.get(cycle_id)
            if cycle["state"] != "queued":
                raise InvalidTransition(f"cycle {cycle_id}: {cycle['state']}, only a queued one can start")
            running = one(
                db,
                "SELECT id FROM cycles WHERE assay = ? AND state = 'running' AND kind = 'train'",
                [cycle["assay"]],
            )
            # going back to an older version does not wait for hours of training
            if running is not None and cycle["kind"] == "train":
                raise StateError(
                    f"assay {cycle['assay']!r}: cycle {running['id']} is running; expected one at a time"
                )
            db["cycles"].update(cycle_id, {"state": "running", "step": "reconcile", "started_at": now_iso()})

    def set_target(self, cycle_id: str, target: str) -> None:
        """Write down which version a cycle brings, before it begins: tried again, it must not go back twice."""
        with self._file.transaction() as db:
            db["cycles"].update(cycle_id, {"target": target})

    def step(self, cycle_id: str, step: str, progress: float) -> None:
        """Say how far a cycle is: progress from 0 to 1."""
        with self._file.transaction() as db:
            db["cycles"].update(cycle_id, {"step": step, "progress": progress})

    def finish(self, cycle_id: str, state: str, outcome: str, reason: str, report: str | None = None) -> None:
        """Close a cycle as ``done`` or ``failed``."""
        with self._file.transaction() as db:
            db["cycles"].update(
                cycle_id,
                {
                    "state": state,
                    "outcome": outcome,
                    "reason": reason,
                    "report": report,
                    "finished_at": now_iso(),
                    "progress": 1.0,
                },
            )

    def cancel(self, cycle_id: str, by: str) -> dict[str, Any]:
        """Call a cycle off: one that waits ends here, one that runs ends at its next step; the row as it is then.

        Asked for twice, the first one counts.

        Raises
        ------
        UnknownVersion
            If there is no such cycle.
        StateError
            If it is over.
        """
        with self._file.transaction() as db:
            cycle = self.get(cycle_id)
            if cycle["state"] not in ("queued", "running"):
                raise StateError(
                    f"cycle {cycle_id} is {cycle['state']}; only a queued or running one can be cancelled"
                )
            if cycle["cancelled_by"] is None:
                db["cycles"].update(cycle_id, {"cancelled_by": by})
            if cycle["state"] == "queued":
                self.finish(cycle_id, "failed", "cancelled", f"cancelled by {by} before it began")
            return self.get(cycle_id)

    def cancelled_by(self, cycle_id: str) -> str | None:
        """Who called a cycle off, or None."""
        by: str | None = self.get(cycle_id)["cancelled_by"]
        return by

    def close_abandoned(self, assay: str) -> list[str]:
        """Close cycles of an assay that a killed process left running; call it holding the assay's lock."""
        with self._file.transaction() as db:
            left = [
                row["id"]
                for row in db.query("SELECT id FROM cycles WHERE state = 'running' AND assay = ?", [assay])
            ]
            for cycle_id in left:
                self.finish(cycle_id, "failed", "abandoned", "its process stopped before the cycle was done")
            return left

    def get(self, cycle_id: str) -> dict[str, Any]:
        """One cycle; ``UnknownVersion`` if there is none of that id."""
        row = one(self._file.db, "SELECT * FROM cycles WHERE id = ?", [cycle_id])
        if row is None:
            raise UnknownVersion(f"cycle {cycle_id!r} is not in this home")
        return row

    def all(self, assay: str) -> list[dict[str, Any]]:
        """Cycles of an assay, oldest first."""
        return list(
            self._file.db.query("SELECT * FROM cycles WHERE assay = ? ORDER BY created_at, id", [assay])
        )


class Publications:
    """The saga of bringing a version into force, step by step."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def begin(self, assay: str, version: str, previous: str | None, window: Sequence[Item]) -> int:
        """Write down what is going to be published; returns the publication's id."""
        with self._file.transaction() as db:
            rows = json.dumps([[item.image_id, item.tile] for item in window])
            cursor = db.execute(
                "INSERT INTO publications (assay, version, previous, step, window, started_at) "
                "VALUES (?, ?, ?, 'push', ?, ?)",
                [assay, version, previous, rows, now_iso()],
            )
            return int(cursor.lastrowid or 0)

    def advance(self, publication: int, step: str) -> None:
        """Note the next step to do."""
        with self._file.transaction() as db:
            finished = now_iso() if step in ("done", "undone") else None
            db["publications"].update(publication, {"step": step, "finished_at": finished})

    def previous(self, assay: str) -> str | None:
        """The version in force before the one that is: where going back leads to; None if there was none.

        Whoever goes back and then back again does not come forward: what was gone back from is forgotten.
        """
        history: list[str] = []
        rows = self._file.db.query(
            "SELECT version, previous FROM publications WHERE assay = ? AND step = 'done' ORDER BY id",
            [assay],
        )
        for row in rows:
            if not history and row["previous"] is not None:
                history.append(row["previous"])
            if row["version"] in history:
                del history[history.index(row["version"]) + 1 :]
            else:
                history.append(row["version"])
        return history[-2] if len(history) > 1 else None

    def since(self, assay: str, version: str) -> datetime | None:
        """When a version last took the place of another one; None if it never did.

        More items of a version that is in force already are published under its own name, and count for nothing.
        """
        row = one(
            self._file.db,
            "SELECT finished_at FROM publications WHERE assay = ? AND version = ? AND step = 'done' "
            "AND previous IS NOT version ORDER BY id DESC",
            [assay, version],
        )
        return None if row is None else datetime.fromisoformat(row["finished_at"])

    def unfinished(self, assay: str) -> dict[str, Any] | None:
        """A publication that was interrupted, with its window as items."""
        row = one(
            self._file.db,
            "SELECT * FROM publications WHERE assay = ? AND step NOT IN ('done', 'undone') ORDER BY id DESC",
            [assay],
        )
        if row is None:
            return None
        return {**row, "window": [Item(image_id=i, tile=t) for i, t in json.loads(row["window"])]}


def _model(row: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        version=row["version"],
        assay=row["assay"],
        method=row["method"],
        status=row["status"],
        digest=row["digest"],
        parent=row["parent"],
        snapshot=row["snapshot"],
        config=json.loads(row["config"]),
        metrics=json.loads(row["metrics"]),
        created_at=datetime.fromisoformat(row["created_at"]),
    )
