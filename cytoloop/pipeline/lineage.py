"""Where a version comes from and what became of it: all that the store and its folder tell of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.digest import digest_of
from cytoloop.domain.errors import CytoloopError, UnknownVersion
from cytoloop.domain.types import SPLITS, Item, Method, ModelStatus, ModelVersion, TrainingSnapshot
from cytoloop.pipeline.predictors import read_recipe, recipe_file_digest
from cytoloop.pipeline.pruning import PRUNED

METHOD_WORDS: Mapping[Method, str] = {
    "cip": "conventional image processing, nothing learned",
    "cdl": "a U-Net that learned from weak labels alone",
    "mdl": "a U-Net that learned from corrections alone",
    "joint": "a U-Net that went on from a CDL, on corrections and weak labels",
}
STATUS_WORDS: Mapping[ModelStatus, str] = {
    "candidate": "waits for a contest",
    "active": "in force",
    "retired": "was in force once",
    "rejected": "lost to another version",
    PRUNED: "its weights were removed to save space, its lineage is kept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor:
    """A version that another one was made from."""

    version: str | None
    """None: the CIP recipe of the weak labels is no version of this home."""
    method: Method
    status: ModelStatus | None
    created_at: datetime | None
    recipe: str | None = None
    """Digest of the recipe; CIP only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a snapshot holds."""

    digest: str
    weak: Mapping[str, int]
    """Weak labels by split; those of validation wells are only looked at."""
    corrections: Mapping[str, int]
    """Corrected items by split; those of validation wells choose the epoch."""
    experts: tuple[str, ...]
    """Who drew them, as far as the store still holds these very masks."""
    first_at: datetime | None
    """When the earliest of these corrections was saved."""
    last_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fought:
    """A contest that a version was in."""

    at: datetime
    cycle: str | None
    challenger: str
    active: str
    promoted: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A version's folder as it is now."""

    folder: Path | None
    """None: there is none."""
    size: int
    """Bytes."""
    problem: str
    """Why it cannot be used; empty where its digest is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All that is known of a version."""

    model: ModelVersion
    since: datetime | None
    """When its status became what it is; None where that was not written down."""
    parents: tuple[Ancestor, ...]
    """The nearest first; the last one is the CIP recipe, where weak labels were learned from."""
    learned: Learned | None
    """None: a CIP version, or its snapshot is not in this home."""
    contests: tuple[Fought, ...]
    files: Files

    def to_dict(self) -> dict[str, Any]:
        """The version and its lineage as one document."""
        derived = {name: getattr(self, name) for name in self.__slots__ if name != "model"}
        return {
            **asdict(self.model),
            "what": METHOD_WORDS[self.model.method],
            "status_in_words": STATUS_WORDS[self.model.status],
            **derived,
        }


def lineage_of(store: Store, registry: Registry, version: str) -> Lineage:
    """Gather it; the digest of the version's files is checked now.

    Raises
    ------
    UnknownVersion
        If the store has no such version.
    """
    model = store.models.get(version)
    return Lineage(
        model=model,
        since=_since(store, model),
        parents=_parents(store, model),
        learned=_learned(store, model),
        contests=_contests(store, model),
        files=look_at_files(registry, model),
    )


def look_at_files(registry: Registry, model: ModelVersion) -> Files:
    """Find a version's folder and compare its digest with the one that the store knows."""
    try:
        folder = registry.folder(model.version)
    except UnknownVersion as error:
        problem = STATUS_WORDS[PRUNED] if model.status == PRUNED else str(error)
        return Files(folder=None, size=0, problem=problem)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Files(folder=folder, size=size, problem=_problem(registry, folder, model))


def _problem(registry: Registry, folder: Path, model: ModelVersion) -> str:
    try:
        noted = registry.manifest(model.version)["digest"]
        found = _digest_of_files(folder, model)
    except CytoloopError as error:
        return str(error)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # whatever a file may hold
        return f"{folder}: cannot be read ({error})"
    for what, digest in (("files", found), ("manifest", noted)):
        if digest != model.digest:
            return (
                f"{folder}: digest of its {what} is {digest}, expected {model.digest}; the files were changed"
            )
    return ""


def _digest_of_files(folder: Path, model: ModelVersion) -> str:
    if model.method == "cip":
        return recipe_file_digest(read_recipe(folder), model.assay)
    from cytoloop.nn.weights import WEIGHTS_FILE  # torch: seconds that a CIP version need not cost

    with (folder / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _recipe_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """(digest, code version) of a recipe as a CIP version keeps it."""
    recipe = {key: value for key, value in document.items() if key != "code_version"}
    return digest_of(recipe), document["code_version"]


def _parents(store: Store, model: ModelVersion) -> tuple[Ancestor, ...]:
    chain, oldest, seen = [], model, {model.version}
    while oldest.parent is not None and oldest.parent not in seen:
        seen.add(oldest.parent)
        try:
            oldest = store.models.get(oldest.parent)
        except UnknownVersion:
            break
        chain.append(
            Ancestor(
                version=oldest.version,
                method=oldest.method,
                status=oldest.status,
                created_at=oldest.created_at,
            )
        )
    if oldest.config.get("weak_rows"):
        chain.append(_teacher(store, oldest))
    return tuple(chain)


def _teacher(store: Store, model: ModelVersion) -> Ancestor:
    """The recipe that made the weak labels a version learned from."""
    wanted = (model.config.get("recipe"), model.config.get("cip_code"))
    for known in store.models.all(model.assay):
        if known.method == "cip" and _recipe_of(known.config) == wanted:
            return Ancestor(
                version=known.version,
                method="cip",
                status=known.status,
                created_at=known.created_at,
                recipe=wanted[0],
            )
    return Ancestor(version=None, method="cip", status=None, created_at=None, recipe=wanted[0])


def _learned(store: Store, model: ModelVersion) -> Learned | None:
    if model.snapshot is None:
        return None
    try:
        snapshot = store.models.snapshot(model.snapshot)
    except UnknownVersion:
        return None
    drawn = _drawn(store, snapshot, model.created_at)
    dates = sorted(at for _, at in drawn)

    def by_split(source: str) -> dict[str, int]:
        counts = Counter(row.split for row in snapshot.rows if row.source == source)
        return {split: counts[split] for split in SPLITS if counts[split]}

    return Learned(
        digest=snapshot.digest,
        weak=by_split("weak"),
        corrections=by_split("correction"),
        experts=tuple(sorted({expert for expert, _ in drawn})),
        first_at=dates[0] if dates else None,
        last_at=dates[-1] if dates else None,
    )


def _drawn(store: Store, snapshot: TrainingSnapshot, made_at: datetime) -> list[tuple[str, datetime]]:
    """(expert, when) of every mask of a snapshot; of a consensus, every reading there was when it was made."""
    left = {
        Item(image_id=row.image_id, tile=row.tile): row.mask
        for row in snapshot.rows
        if row.source == "correction" and row.tile is not None
    }
    saved = [
        (Item(image_id=row["image_id"], tile=row["tile"]), row)
        for row in (store.corrections.revisions(snapshot.assay) if left else ())
        if row["kind"] == "submitted"
    ]
    own = [(item, row) for item, row in saved if row["mask"] == left.get(item)]
    agreed = left.keys() - {item for item, _ in own}
    own += [(item, row) for item, row in saved if item in agreed]
    drawn = [(row["expert"], datetime.fromisoformat(row["annotated_at"])) for _, row in own]
    return [(expert, at) for expert, at in drawn if at <= made_at]


def _contests(store: Store, model: ModelVersion) -> tuple[Fought, ...]:
    return tuple(
        Fought(
            at=datetime.fromisoformat(row["created_at"]),
            cycle=row["cycle_id"],
            challenger=row["challenger"],
            active=row["active"],
            promoted=bool(row["promoted"]),
            reason=row["reason"],
        )
        for row in store.models.contests(model.assay)
        if model.version in (row["challenger"], row["active"])
    )


def _since(store: Store, model: ModelVersion) -> datetime | None:
    """When a version's status became what it is, as far as cycles and contests tell it."""
    if model.status == "candidate":
        return model.created_at
    if model.status == "active":  # what is in force changed with the last cycle that changed it
        changes = [
            datetime.fromisoformat(cycle["finished_at"])
            for cycle in store.cycles.all(model.assay)
            if cycle["state"] == "done" and cycle["outcome"] in ("promoted", "rolled-back")
        ]
        return max(changes, default=model.created_at)
    ended = []
    for row in store.models.contests(model.assay):
        is_replaced = model.status == "retired" and row["active"] == model.version and row["promoted"]
        is_lost = (
            model.status == "rejected"
            and row["challenger"] == model.version
            and row["document"].get("lower_bound")
            is not None  # else it found too few wells and decided nothing
        )
        if is_replaced or is_lost:
            ended.append(datetime.fromisoformat(row["created_at"]))
    return max(ended, default=None)
