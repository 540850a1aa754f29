"""Images, groups, items and weak labels in the store."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cytoloop.adapters.store.connection import SqliteFile, is_id, now_iso, one
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, StateError, UnknownImage
from cytoloop.domain.splits import assign_splits
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, Split


class Images:
    """What was imaged, in which group and split, and which Label Studio task shows each tile."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def add(self, assay: Assay, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Store new fields with their groups and items, all or nothing; the same again is nothing new.

        A group's split is drawn when the group is first seen and never changes.

        Returns
        -------
        list of ImageRecord
            The records that were new, each with its split.

        Raises
        ------
        InputError
            If an ``image_id`` is known with other pixels: two files with one id.
        """
        with self._file.transaction() as db:
            known = {
                row["image_id"]: row["image_key"]
                for row in db.query("SELECT image_id, image_key FROM images WHERE assay = ?", [assay.name])
            }
            stored_before = frozenset(known)
            fresh: dict[str, ImageRecord] = {}
            for record in records:
                stored = known.setdefault(record.image_id, record.image_key)
                if stored != record.image_key:
                    raise InputError(
                        f"{record.files[0]}: image id {record.image_id!r} is already stored with other pixels "
                        f"(digest {stored[:12]}, got {record.image_key[:12]}); expected one image an id"
                    )
                if record.image_id not in stored_before:
                    fresh.setdefault(record.image_id, record)
            new = list(fresh.values())
            splits: dict[str, Split] = {
                row["group_id"]: row["split"]
                for row in db.query("SELECT group_id, split FROM groups WHERE assay = ?", [assay.name])
            }
            drawn = assign_splits(splits, [record.group for record in new], salt=assay.name)
            seen_at = now_iso()
            db["groups"].insert_all(
                {"assay": assay.name, "group_id": group, "split": split, "first_seen": seen_at}
                for group, split in drawn.items()
            )
            splits |= drawn
            new = [replace(record, split=splits[record.group]) for record in new]
            db["images"].insert_all(_image_row(assay.name, record, seen_at) for record in new)
            db["items"].insert_all(
                {"assay": assay.name, "image_id": record.image_id, "tile": tile.index, "task_id": None}
                for record in new
                for tile in tiles_of(record.height, record.width, assay.tiling)
            )
            return new

    def get(self, assay: str, image_id: str) -> ImageRecord:
        """One field; ``UnknownImage`` if there is none."""
        row = one(self._file.db, _SELECT + " AND image_id = ?", [assay, image_id])
        if row is None:
            raise UnknownImage(f"image {image_id!r} is not in assay {assay!r}")
        return _record(row)

    def all(self, assay: str, splits: Iterable[Split] | None = None) -> list[ImageRecord]:
        """Every field of an assay, or of some splits, in order of ``image_id``."""
        records = [_record(r) for r in self._file.db.query(_SELECT + " ORDER BY image_id", [assay])]
        wanted = set(splits) if splits is not None else None
        return [r for r in records if wanted is None or r.split in wanted]

    def set_tasks(self, assay: str, tasks: Mapping[Item, int]) -> None:
        """Record which Label Studio task shows an item."""
        with self._file.transaction() as db:
            for item, task_id in tasks.items():
                # Label Studio gives the ids of deleted tasks again; what it says last is true
                db.execute(
                    "UPDATE items SET task_id = NULL WHERE assay = ? AND task_id = ?", [assay, task_id]
                )
                db.execute(
                    "UPDATE items SET task_id = ? WHERE assay = ? AND image_id = ? AND tile = ?",
                    [task_id, assay, item.image_id, item.tile],
                )

    def forget_tasks(self, assay: str, task_ids: Iterable[int]) -> None:
        """Forget tasks that Label Studio deleted; it may give their ids to others."""
        with self._file.transaction() as db:
            for task_id in task_ids:
                db.execute(
                    "UPDATE items SET task_id = NULL WHERE assay = ? AND task_id = ?", [assay, task_id]
                )

    def tasks(self, assay: str) -> dict[Item, int | None]:
        """Task id by item, None where the item has no task yet."""
        rows = self._file.db.query(
            "SELECT image_id, tile, task_id FROM items WHERE assay = ? ORDER BY image_id, tile", [assay]
        )
        return {Item(image_id=row["image_id"], tile=row["tile"]): row["task_id"] for row in rows}

    def tasks_of(self, assay: str, items: Iterable[Item]) -> dict[Item, int]:
        """Task id by item, of those of these items that have a task."""
        found = {}
        for item in items:
            row = self._file.db.execute(
                "SELECT task_id FROM items WHERE assay = ? AND image_id = ? AND tile = ?",
                [assay, item.image_id, item.tile],
            ).fetchone()
            if row is not None and row["task_id"] is not None:
                found[item] = int(row["task_id"])
        return found

    def item_of_task(self, assay: str, task_id: int) -> Item:
        """The item a task shows; ``UnknownImage`` if it shows none of ours."""
        sql = "SELECT image_id, tile FROM items WHERE assay = ? AND task_id = ?"
        row = one(self._file.db, sql, [assay, task_id]) if is_id(task_id) else None
        if row is None:
            raise UnknownImage(f"task {task_id}: shows no item of assay {assay!r}")
        return Item(**row)

    def groups(self, assay: str) -> dict[str, Split]:
        """Split by group."""
        rows = self._file.db.query("SELECT group_id, split FROM groups WHERE assay = ?", [assay])
        return {row["group_id"]: row["split"] for row in rows}

    def display_ranges(self, assay: str, plate: str) -> dict[str, tuple[float, float]]:
        """Black and white point by channel, as fixed when the plate was first rendered."""
        rows = self._file.db.query(
            "SELECT channel, low, high FROM display_ranges WHERE assay = ? AND plate = ?", [assay, plate]
        )
        return {row["channel"]: (row["low"], row["high"]) for row in rows}

    def set_display_ranges(self, assay: str, plate: str, ranges: Mapping[str, tuple[float, float]]) -> None:
        """Fix the display of a plate."""
        with self._file.transaction() as db:
            db["display_ranges"].insert_all(
                (
                    {"assay": assay, "plate": plate, "channel": channel, "low": low, "high": high}
                    for channel, (low, high) in ranges.items()
                ),
                replace=True,
            )

    def add_weak_label(
        self,
        assay: str,
        record: ImageRecord,
        recipe: str,
        digest: str,
        code_version: str,
        mask: str,
        confidence: str | None = None,
    ) -> None:
        """Record that a recipe gave a mask (stored under ``mask``) for a field, and how sure it was."""
        with self._file.transaction() as db:
            db["weak_labels"].insert(
                {
                    "assay": assay,
                    "image_id": record.image_id,
                    "image_key": record.image_key,
                    "recipe": recipe,
                    "recipe_digest": digest,
                    "code_version": code_version,
                    "mask": mask,
                    "confidence": confidence,
                    "created_at": now_iso(),
                },
                replace=True,
            )

    def weak_labels(self, assay: str, recipe_digest: str, code_version: str) -> dict[str, str]:
        """Mask digest by ``image_id`` of one recipe and code version."""
        rows = self._file.db.query(
            "SELECT image_id, mask FROM weak_labels WHERE assay = ? AND recipe_digest = ? "
            "AND code_version = ? ORDER BY image_id",
            [assay, recipe_digest, code_version],
        )
        return {row["image_id"]: row["mask"] for row in rows}

    def weak_label(
        self, assay: str, image_id: str, recipe_digest: str, code_version: str
    ) -> tuple[str, str | None] | None:
        """Digests of one image's mask and of its confidence, where teachers voted; None if it has none."""
        row = one(
            self._file.db,
            "SELECT mask, confidence FROM weak_labels WHERE assay = ? AND image_id = ? AND recipe_digest = ? "
            "AND code_version = ?",
            [assay, image_id, recipe_digest, code_version],
        )
        return None if row is None else (row["mask"], row["confidence"])

    def weak_confidences(self, assay: str, recipe_digest: str, code_version: str) -> dict[str, str]:
        """Digest of the confidence by ``image_id``, of those weak labels that teachers voted for."""
        rows = self._file.db.query(
            "SELECT image_id, confidence FROM weak_labels WHERE assay = ? AND recipe_digest = ? "
            "AND code_version = ? AND confidence IS NOT NULL ORDER BY image_id",
            [assay, recipe_digest, code_version],
        )
        return {row["image_id"]: row["confidence"] for row in rows}


class Assays:
    """Which assays this home serves, and their places in Label Studio."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def ensure(self, assay: Assay) -> None:
        """Remember an assay; refuse to change what its stored masks depend on.

        Raises
        ------
        StateError
            If classes, channels or tiling differ from those the home was filled with.
        """
        with self._file.transaction() as db:
            row = one(db, "SELECT document FROM assays WHERE name = ?", [assay.name])
            if row is not None:
                _check_same_meaning(json.loads(row["document"]), json.loads(json.dumps(assay.document())))
                db.execute(
                    "UPDATE assays SET document = ?, digest = ? WHERE name = ?",
                    [json.dumps(assay.document()), assay.digest, assay.name],
                )
                return
            db["assays"].insert(
                {"name": assay.name, "document": json.dumps(assay.document()), "digest": assay.digest}
            )

    def names(self) -> list[str]:
        """Assays of this home."""
        return [row["name"] for row in self._file.db.query("SELECT name FROM assays ORDER BY name")]

    def get(self, name: str) -> dict[str, Any]:
        """project_id, backend_id, webhook_id, active_version, reconciled_until, looked_at of an assay."""
        row = one(self._file.db, "SELECT * FROM assays WHERE name = ?", [name])
        if row is None:
            raise UnknownImage(f"assay {name!r} is not in this home; it holds {self.names()}")
        return row

    def of_project(self, project_id: int) -> str:
        """The assay whose Label Studio project this is."""
        sql = "SELECT name FROM assays WHERE project_id = ?"
        row = one(self._file.db, sql, [project_id]) if is_id(project_id) else None
        if row is None:
            raise UnknownImage(f"project {project_id}: belongs to no assay of this home ({self.names()})")
        return str(row["name"])

    def note_look(self, name: str) -> None:
        """Label Studio was asked for what no event told, and answered to the end, just now."""
        self.update(name, looked_at=now_iso())

    def update(self, name: str, **fields: Any) -> None:
        """Set columns of an assay's row."""
        with self._file.transaction() as db:
            db["assays"].update(name, fields)


_SELECT = (
    "SELECT images.*, groups.split FROM images JOIN groups USING (assay, group_id) WHERE images.assay = ?"
)


def _image_row(assay: str, record: ImageRecord, added_at: str) -> dict[str, Any]:
    return {
        "assay": assay,
        "image_id": record.image_id,
        "image_key": record.image_key,
        "files": json.dumps(record.files),
        "height": record.height,
        "width": record.width,
        "plate": record.plate,
        "well": record.well,
        "field": record.field,
        "treatment": record.treatment,
        "group_id": record.group,
        "z_plane": record.z_plane,
        "pixel_size_um": record.pixel_size_um,
        "added_at": added_at,
    }


def _record(row: Mapping[str, Any]) -> ImageRecord:
    return ImageRecord(
        image_id=row["image_id"],
        image_key=row["image_key"],
        files=tuple(json.loads(row["files"])),
        height=row["height"],
        width=row["width"],
        plate=row["plate"],
        well=row["well"],
        field=row["field"],
        treatment=row["treatment"],
        group=row["group_id"],
        split=row["split"],
        z_plane=row["z_plane"],
        pixel_size_um=row["pixel_size_um"],
    )


def _check_same_meaning(stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    def meaning(document: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "channels": [c["name"] for c in document["channels"]],
            "classes": [c["name"] for c in document["classes"]],
            "ignore": document["ignore"]["name"],
            "tiling": list(document["tiling"]),
        }

    before, after = meaning(stored), meaning(given)
    for key, value in before.items():
        if after[key] != value:
            raise StateError(
                f"assay {given['name']!r}: {key} is {after[key]}, this home was filled with {value}; "
                "expected the same: give a changed assay a new name"
            )
