"""What the web process does, without the web: answer predictions, take events, hand out work.

Reads top to bottom like the loop: Label Studio asks for a prediction, an expert's correction comes
in as an event, the next item is handed out. Nothing here trains.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, NotReadyYet, UnknownImage
from cytoloop.domain.types import Item, StoredPrediction, WorklistEntry
from labelstudio_config.intake import Intake, check_identity
from labelstudio_config.payloads import PredictRequest, parse_task_data, predict_reply
from labelstudio_config.prelabel import prelabel
from labelstudio_config.schema import check_label_config
from ml_backend.active_model import ActiveModel

logger = logging.getLogger(__name__)

COMPUTED_AT_ONCE = 4
"""More missing predictions than this are computed in the background: nobody waits for a plate."""

INTAKE_RETRY_S = 5.0
STRATEGY = "foreground-entropy"


class Backend:
    """The use cases of the web process."""

    def __init__(
        self,
        store: Store,
        active: ActiveModel,
        intake: Intake,
        load: Callable[[str], Assay],
        label_studio_url: str,
    ) -> None:
        self._store = store
        self._active = active
        self._intake = intake
        self._load = load
        self._label_studio_url = label_studio_url
        self._computing = threading.Lock()
        self._to_compute: queue.Queue[tuple[Assay, Item] | None] = queue.Queue()
        self._queued: set[tuple[str, Item]] = set()
        self._arrived = threading.Event()
        self._stopping = threading.Event()

    # --- Label Studio asks -------------------------------------------------------------------------

    def set_up(self, project_id: int | None, label_config: str) -> str:
        """Check that a project speaks its assay's language; returns the version in force."""
        assay = self._assay_of(project_id)
        if label_config:
            check_label_config(label_config, assay)
        return self._active.version(assay.name)

    def versions(self) -> list[str]:
        """The version in force of every assay."""
        return [self._active.version(name) for name in self._store.assays.names()]

    def predict(self, request: PredictRequest) -> dict[str, Any]:
        """Answer from the store; compute a few missing predictions now, many in the background.

        Raises
        ------
        NotReadyYet
            If more than four are missing; they are queued.
        InputError
            If a task does not show the item it claims.
        """
        assay = self._assay_of(request.project_id)
        version = self._active.version(assay.name)
        items = [
            check_identity(
                self._store, assay.name, task.task_id, parse_task_data(task.data, f"task {task.task_id}")
            )
            for task in request.tasks
        ]
        found = {item: self._store.predictions.get(assay.name, version, item) for item in items}
        missing = [item for item, stored in found.items() if stored is None]
        if len(missing) > COMPUTED_AT_ONCE:
            self._enqueue(assay, missing)
            raise NotReadyYet(
                f"{len(missing)} of {len(items)} predictions of {version} are being computed; ask again"
            )
        for item in missing:
            found[item] = self._compute(assay, item)
        replies = [found[item] for item in items]
        return predict_reply([(p.result, p.confidence, p.version) for p in replies if p is not None])

    def _compute(self, assay: Assay, item: Item) -> StoredPrediction:
        with self._computing:  # one forward pass at a time: two on the same cores are slower than one by one
            predictor = self._active.predictor(assay)
            stored = self._store.predictions.get(assay.name, predictor.version, item)
            if stored is not None:
                return stored
            record = self._store.images.get(assay.name, item.image_id)
            predictions = prelabel(record, predictor.predict(record), assay, predictor.version)
            self._store.predictions.put(assay.name, predictions)
            return next(p for p in predictions if p.item == item)

    def _enqueue(self, assay: Assay, items: list[Item]) -> None:
        for item in items:
            if (assay.name, item) not in self._queued:
                self._queued.add((assay.name, item))
                self._to_compute.put((assay, item))

    # --- an expert did something ---------------------------------------------------------------------

    def take_event(self, body: bytes) -> int:
        """Put an event into the inbox, on disk when this returns; it is applied in the background."""
        event_id = self._store.inbox.append(body)
        self._arrived.set()
        return event_id

    # --- who comes next ------------------------------------------------------------------------------

    def worklist(self, queue_name: str, limit: int) -> list[WorklistEntry]:
        """What to open next in a queue, the most doubtful first: the order of its tab.

        Raises
        ------
        InputError
            If no assay of this home has the queue.
        """
        return worklist(self._store, self._load, self._label_studio_url, queue_name, limit)

    # --- in the background ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the two background threads: applying events, and computing predictions."""
        for target, name in ((self._run_intake, "intake"), (self._run_predictions, "predictions")):
            threading.Thread(target=target, name=name, daemon=True).start()

    def stop(self) -> None:
        """Ask the background threads to end."""
        self._stopping.set()
        self._arrived.set()
        self._to_compute.put(None)

    def _run_intake(self) -> None:
        while not self._stopping.is_set():
            try:
                self._intake.drain()
            except Exception:
                logger.exception("intake failed; the events stay in the inbox")
            self._arrived.wait(INTAKE_RETRY_S)
            self._arrived.clear()

    def _run_predictions(self) -> None:
        while (job := self._to_compute.get()) is not None:
            assay, item = job
            try:
                self._compute(assay, item)
            except Exception:
                logger.exception("prediction failed assay=%s image=%s", assay.name, item.image_id)
            finally:
                self._queued.discard((assay.name, item))

    def _assay_of(self, project_id: int | None) -> Assay:
        if project_id is None:
            raise UnknownImage("request names no project; expected '<id>.<unix time>'")
        return self._load(self._store.assays.of_project(project_id))


def worklist(
    store: Store, load: Callable[[str], Assay], label_studio_url: str, queue_name: str, limit: int
) -> list[WorklistEntry]:
    """The batch of a queue without what is finished, with links into Label Studio."""
    if limit < 1:
        raise InputError(f"limit is {limit}, expected at least 1")
    assay, name = find_queue(store, load, queue_name)
    batch = store.publications.batch(assay.name, name)
    if batch is None:
        return []
    project_id = store.assays.get(assay.name)["project_id"]
    finished = store.corrections.finished_items(assay.name)
    tasks = store.images.tasks(assay.name)
    ranked = {
        item: (score, reason)
        for item, score, _, reason in store.predictions.ranked(assay.name, batch["version"])
    }
    entries: list[WorklistEntry] = []
    for item in batch["items"]:
        task_id = tasks.get(item)
        if item in finished or task_id is None or item not in ranked:
            continue
        score, reason = ranked[item]
        entries.append(
            WorklistEntry(
                rank=len(entries) + 1,
                task_id=task_id,
                image_id=item.image_id,
                tile=item.tile,
                score=score,
                reason=reason,
                strategy=STRATEGY,
                model_version=batch["version"],
                lease=None,
                url=f"{label_studio_url}/projects/{project_id}/data?tab={batch['view_id']}&task={task_id}",
            )
        )
    return entries[:limit]


def find_queue(store: Store, load: Callable[[str], Assay], queue_name: str) -> tuple[Assay, str]:
    """The assay and queue meant by ``queue`` or ``assay/queue``.

    Raises
    ------
    InputError
        If there is no such queue, or several assays have one of that name.
    """
    assays = [load(name) for name in store.assays.names()]
    known = [(assay, name) for assay in assays for name in assay.queues]
    found = [(a, n) for a, n in known if queue_name in (n, f"{a.name}/{n}")]
    if len(found) != 1:
        names = [f"{assay.name}/{name}" for assay, name in known]
        problem = "is not known" if not found else "is in several assays"
        raise InputError(f"queue {queue_name!r} {problem}; expected one of {names}")
    return found[0]
