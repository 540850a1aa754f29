"""What is known of one item, asked for by Label Studio's number of its task: prediction, doubt, mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cytoloop.adapters.images import encode_mask, palette_of
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import Forbidden, StateError, UnknownImage
from cytoloop.domain.queue_policy import item_name
from cytoloop.domain.tiling import Tile, tiles_of
from cytoloop.domain.types import ImageRecord, Item, StoredPrediction
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.doubt import doubt_folder, doubt_name
from labelstudio_config.payloads import drawn_mask
from ml_backend.access import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task and the item it shows."""

    id: int
    assay: Assay
    item: Item
    record: ImageRecord

    @property
    def tile(self) -> Tile:
        """Where the item lies in its image."""
        return tiles_of(self.record.height, self.record.width, self.assay.tiling)[self.item.tile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG, and what is to be said of it in headers."""

    png: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Tasks:
    """Reads what a home knows of tasks; nothing is computed for a request."""

    def __init__(self, store: Store, load: Callable[[str], Assay]) -> None:
        self._store = store
        self._load = load

    def find(self, number: str, assay: str | None, who: Caller) -> Task:
        """The task of that number.

        Parameters
        ----------
        number : str
            As it was written.
        assay : str, optional
            Its assay, where several once had a task of that number: Label Studio gives the ids of deleted
            tasks again.

        Raises
        ------
        UnknownImage
            If it shows no item of this home.
        StateError
            If it could be of several assays.
        Forbidden
            If an expert asks for an item that is to be judged without a model's word or another expert's.
        """
        # no more digits than SQLite holds; int() would take other scripts' digits and raise over endless ones
        task_id = int(number) if number.isascii() and number.isdecimal() and len(number) <= 18 else None
        names = self._store.assays.names()
        found: dict[str, Item] = {}
        for name in names if assay is None else [assay]:
            try:
                if task_id is not None and name in names:
                    found[name] = self._store.images.item_of_task(name, task_id)
            except UnknownImage:
                continue
        if not found:
            raise UnknownImage(
                f"task {number[:20]}: shows no item of "
                + (f"assay {assay!r}" if assay is not None else f"this home's assays {names}")
            )
        if len(found) > 1:
            raise StateError(
                f"task {number}: known in several assays; expected ?assay= with one of {list(found)}"
            )
        assert task_id is not None, "one was found by it"
        ((name, item),) = found.items()
        loaded = self._load(name)
        if who.role == "expert" and hidden_doubts(self._store, loaded, [item]):
            raise Forbidden(
                f"task {task_id}: role 'expert' may not see this: the item is to be judged without a model's word "
                "or another expert's"
            )
        return Task(id=task_id, assay=loaded, item=item, record=self._store.images.get(name, item.image_id))

    def prediction(self, task: Task) -> StoredPrediction:
        """What the version in force says.

        Raises
        ------
        UnknownImage
            If it has not looked at the item yet.
        StateError
            If no version is in force.
        """
        version = self._store.models.active(task.assay.name).version
        stored = self._store.predictions.get(task.assay.name, version, task.item)
        if stored is None:
            raise UnknownImage(
                f"task {task.id}: {version} has no prediction of item {item_name(task.item)!r} yet"
            )
        return stored

    def doubt(self, task: Task) -> Picture:
        """The doubt map that the editor shows.

        Raises
        ------
        UnknownImage
            If there is none, or the item shows none to anybody.
        StateError
            If no version is in force.
        """
        version = self._store.models.active(task.assay.name).version
        path = doubt_folder(self._store.home, task.assay.name) / doubt_name(task.record, task.item.tile)
        where = f"task {task.id}: item {item_name(task.item)!r}"
        if path.is_symlink() and path.readlink().name.startswith("hidden_"):
            raise UnknownImage(f"{where} shows no doubt map: it is to be judged without a model's word")
        try:
            if path.is_symlink():
                raise FileNotFoundError
            return Picture(png=path.read_bytes())
        except FileNotFoundError:
            raise UnknownImage(f"{where} has no doubt map of {version} yet") from None

    def mask(self, task: Task) -> Picture:
        """The correction that stands, else the prediction of the version in force.

        Raises
        ------
        UnknownImage
            If there is neither.
        StateError
            If there is no correction, and no version in force.
        """
        palette = palette_of(task.assay)
        correction = self._store.corrections.standing_of(task.assay.name, task.item)
        if correction is not None:
            headers = {
                "X-Cytoloop-Source": "correction",
                "X-Cytoloop-Annotation": str(correction.annotation_id),
            }
            if correction.parent_version is not None:
                headers["X-Cytoloop-Model-Version"] = correction.parent_version
            return Picture(png=encode_mask(self._store.masks.get(correction.mask), palette), headers=headers)
        stored = self.prediction(task)
        size = (task.tile.height, task.tile.width)
        drawn = drawn_mask(stored.result, task.assay, size, f"task {task.id}: prediction of {stored.version}")
        return Picture(
            png=encode_mask(drawn.mask_HW, palette),
            headers={"X-Cytoloop-Source": "prediction", "X-Cytoloop-Model-Version": stored.version},
        )
