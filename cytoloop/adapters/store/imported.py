"""Masks that came in from elsewhere: what they were, of which images, and which items show them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, now_iso, one
from cytoloop.domain.types import IMPORTED, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedMask:
    """A mask of a whole image that an earlier study or another program made."""

    image_id: str
    version: str
    """``imported-<YYYYMMDD>-<8 hex>``: one import."""
    mask: str
    """SHA-256 under which it is stored."""
    tiles: frozenset[int]
    """Items that show it; those that experts had finished before it came keep what they began with."""
    source: str
    """File it was read from."""


class Imported:
    """Every imported mask, the latest of an image being the one that is shown. Rows are never changed."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, assay: str, masks: Iterable[ImportedMask]) -> int:
        """Add masks, all or nothing; one that is an image's latest already is nothing new. Returns how many are."""
        new = 0
        with self._file.transaction() as db:
            for mask in masks:
                latest = self.get(assay, mask.image_id)
                if latest is not None and latest.mask == mask.mask:
                    continue
                db["imported_masks"].insert(
                    {
                        "assay": assay,
                        "image_id": mask.image_id,
                        "version": mask.version,
                        "mask": mask.mask,
                        "tiles": json.dumps(sorted(mask.tiles)),
                        "source": mask.source,
                        "imported_at": now_iso(),
                    }
                )
                new += 1
        return new

    def get(self, assay: str, image_id: str) -> ImportedMask | None:
        """The latest mask of an image."""
        sql = "SELECT * FROM imported_masks WHERE assay = ? AND image_id = ? ORDER BY id DESC"
        row = one(self._file.db, sql, [assay, image_id])
        return None if row is None else _mask(row)

    def shown(self, assay: str, items: Collection[Item]) -> dict[Item, ImportedMask]:
        """The mask that each of these items shows, of those that show one."""
        sql = "SELECT * FROM imported_masks WHERE assay = ? AND image_id = ? ORDER BY id"
        found: dict[Item, ImportedMask] = {}
        for image_id in {item.image_id for item in items}:
            for row in self._file.db.query(sql, [assay, image_id]):
                mask = _mask(row)  # a later import shows its mask only on what was not finished by then
                found |= {Item(image_id=image_id, tile=tile): mask for tile in mask.tiles}
        return {item: found[item] for item in items if item in found}

    def latest(self, assay: str) -> dict[str, str]:
        """Mask digest by ``image_id``, of all images that have one."""
        rows = self._file.db.query(
            "SELECT image_id, mask FROM imported_masks WHERE assay = ? ORDER BY id", [assay]
        )
        return {row["image_id"]: row["mask"] for row in rows}

    def of_version(self, assay: str, version: str) -> dict[str, str]:
        """Mask digest by ``image_id`` of one import."""
        rows = self._file.db.query(
            "SELECT image_id, mask FROM imported_masks WHERE assay = ? AND version = ? ORDER BY id",
            [assay, version],
        )
        return {row["image_id"]: row["mask"] for row in rows}


def is_imported(version: str | None) -> bool:
    """Whether a version names an import and no model."""
    return version is not None and version.startswith(f"{IMPORTED}-")


def _mask(row: Mapping[str, Any]) -> ImportedMask:
    return ImportedMask(
        image_id=row["image_id"],
        version=row["version"],
        mask=row["mask"],
        tiles=frozenset(json.loads(row["tiles"])),
        source=row["source"],
    )
