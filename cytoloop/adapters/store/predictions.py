"""Stored predictions: derived, may be made again."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one
from cytoloop.adapters.store.migrations import PREDICTIONS
from cytoloop.domain.errors import InputError
from cytoloop.domain.types import Item, StoredPrediction


class Predictions:
    """What each version says of each item, ready to be sent."""

    def __init__(self, path: Path) -> None:
        self.file = SqliteFile(path, PREDICTIONS, synchronous="OFF")

    def put(self, assay: str, predictions: Iterable[StoredPrediction]) -> None:
        """Store predictions, replacing those of the same version and item; all or nothing.

        Raises
        ------
        InputError
            If a score or a confidence is not finite: it could not be ranked.
        """
        created = now_iso()
        with self.file.transaction() as db:
            db["predictions"].insert_all(
                (
                    {
                        "assay": assay,
                        "version": p.version,
                        "image_id": p.item.image_id,
                        "tile": p.item.tile,
                        "score": p.score,
                        "confidence": p.confidence,
                        "reason": p.reason,
                        "result": json.dumps(p.result, separators=(",", ":")),
                        "created_at": created,
                    }
                    for p in map(_checked, predictions)
                ),
                replace=True,
            )

    def get(self, assay: str, version: str, item: Item) -> StoredPrediction | None:
        """One prediction, if it was made."""
        row = one(
            self.file.db,
            "SELECT * FROM predictions WHERE assay = ? AND version = ? AND image_id = ? AND tile = ?",
            [assay, version, item.image_id, item.tile],
        )
        return _prediction(row) if row else None

    def confidences(self, assay: str, version: str, items: Iterable[Item]) -> dict[Item, float]:
        """Label Studio's score of these items, those that have a prediction."""
        sql = (
            "SELECT confidence FROM predictions WHERE assay = ? AND version = ? AND image_id = ? AND tile = ?"
        )
        found = ((item, one(self.file.db, sql, [assay, version, item.image_id, item.tile])) for item in items)
        return {item: row["confidence"] for item, row in found if row is not None}

    def ranked(self, assay: str, version: str) -> list[tuple[Item, float, float, str]]:
        """(item, score, confidence, reason) of every item, the most doubtful first."""
        rows = self.file.db.query(
            "SELECT image_id, tile, score, confidence, reason FROM predictions "
            "WHERE assay = ? AND version = ? ORDER BY confidence, image_id, tile",
            [assay, version],
        )
        return [
            (
                Item(image_id=row["image_id"], tile=row["tile"]),
                row["score"],
                row["confidence"],
                row["reason"],
            )
            for row in rows
        ]

    def images(self, assay: str, version: str) -> set[str]:
        """Ids of the images that a version has predictions of."""
        sql = "SELECT DISTINCT image_id FROM predictions WHERE assay = ? AND version = ?"
        return {row["image_id"] for row in self.file.db.query(sql, [assay, version])}

    def versions(self, assay: str) -> set[str]:
        """Versions that have predictions."""
        sql = "SELECT DISTINCT version FROM predictions WHERE assay = ?"
        return {row["version"] for row in self.file.db.query(sql, [assay])}

    def count(self, assay: str, version: str) -> int:
        """Items a version has predictions of."""
        sql = "SELECT count(*) AS n FROM predictions WHERE assay = ? AND version = ?"
        row = one(self.file.db, sql, [assay, version])
        return int(row["n"]) if row else 0

    def forget(self, assay: str, version: str) -> None:
        """Drop a version's predictions."""
        with self.file.transaction() as db:
            db.execute("DELETE FROM predictions WHERE assay = ? AND version = ?", [assay, version])


def _checked(prediction: StoredPrediction) -> StoredPrediction:
    for name in ("score", "confidence"):
        value = getattr(prediction, name)
        if not math.isfinite(value):
            raise InputError(
                f"{prediction.version}: image {prediction.item.image_id!r} tile {prediction.item.tile}: "
                f"{name} is {value}, expected a finite number"
            )
    return prediction


def _prediction(row: Mapping[str, Any]) -> StoredPrediction:
    return StoredPrediction(
        version=row["version"],
        item=Item(image_id=row["image_id"], tile=row["tile"]),
        score=row["score"],
        confidence=row["confidence"],
        reason=row["reason"],
        result=json.loads(row["result"]),
    )
