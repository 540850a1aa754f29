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

from cytoloop.adapters.store import Listed, Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, InputError, NotReadyYet, UnknownImage
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.types import Item, Lease, StoredPrediction, WorklistEntry
from labelstudio_config.batches import holder_of, policy_of, ranked_by, returned
from labelstudio_config.canvas import proposals
from labelstudio_config.handout import claim
from labelstudio_config.intake import Intake, check_identity
from labelstudio_config.payloads import PredictRequest, parse_task_data, predict_reply
from labelstudio_config.prelabel import prelabel
from labelstudio_config.ranking import check_policy, strategies_for
from labelstudio_config.schema import check_label_config
from labelstudio_config.tabs import withdraw
from ml_backend.active_model import ActiveModel

logger = logging.getLogger(__name__)

COMPUTED_AT_ONCE = 4
"""More missing predictions than this are computed in the background: nobody waits for a plate."""

INTAKE_RETRY_S = 5.0
PREPARE_EVERY_S = 1.0
"""How often a publication under way is looked for: pushing a window takes seconds."""
STOP_S = 30.0
"""For what a background thread is at; then it is left behind."""


class Backend:
    """The use cases of the web process."""

    def __init__(
        self,
        store: Store,
        active: ActiveModel,
        intake: Intake,
        load: Callable[[str], Assay],
        label_studio: LabelStudio,
        label_studio_url: str,
    ) -> None:
        self._label_studio = label_studio
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
        self._threads: list[threading.Thread] = []

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
        shown = proposals(self._store, assay, items)
        replies = [(item, found[item]) for item in items]
        return predict_reply(
            [(shown.get(i, p.result), p.confidence, p.version) for i, p in replies if p is not None]
        )

    def _compute(self, assay: Assay, item: Item) -> StoredPrediction:
        with self._computing:  # one forward pass at a time: two on the same cores are slower than one by one
            predictor = self._active.predictor(assay)
            stored = self._store.predictions.get(assay.name, predictor.version, item)
            if stored is not None:
                return stored
            record = self._store.images.get(assay.name, item.image_id)
            strategy = strategies_for(self._store, assay, predictor.offers, predictor.version)[0]
            look = predictor.look(record, strategy.needs)
            predictions, _ = prelabel(record, look, assay, predictor.version, strategy)
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

    def worklist(self, queue_name: str, expert: str | None, limit: int) -> list[WorklistEntry]:
        """What an expert holds in a queue, in the order of the tab; then what comes next, without a lease.

        Raises
        ------
        InputError
            If no assay of this home has the queue, or the queue has experts and this is none of them.
        """
        return worklist(self._store, self._load, self._label_studio_url, queue_name, expert, limit)

    def claim(
        self, queue_name: str, expert: str | None, count: int | None, minutes: float | None
    ) -> list[WorklistEntry]:
        """Lease the next batch to an expert, show it in the expert's tab; the new entries in its order.

        Raises
        ------
        InputError
            As ``worklist``, or if ``count`` or ``minutes`` make no sense.
        """
        assay, queue = find_queue(self._store, self._load, queue_name)
        leases = claim(self._label_studio, self._store, assay, queue, expert, count=count, minutes=minutes)
        new = {str(lease.id) for lease in leases}
        limit = max(1, policy_of(self._store, assay, queue).most_held)
        return [entry for entry in self.worklist(queue_name, expert, limit) if entry.lease in new]

    def release(self, lease_id: int, expert: str | None) -> Lease:
        """Give a leased item back; ``expert`` None: an administrator takes it back, whoever holds it.

        Raises
        ------
        UnknownLease, ForeignLease, LeaseEnded
            If there is no such lease, another expert holds it, or it is over.
        """
        lease = self._store.leases.get(lease_id)
        assay = self._load(lease.assay)
        holder = lease.expert
        if expert is not None:
            holder = holder_of(policy_of(self._store, assay, lease.queue), expert, lease.queue)
        released = self._store.leases.release(lease_id, holder)
        self._store.worklist.note(lease.assay, [lease.item])
        withdraw(self._label_studio, self._store, assay, lease.queue, lease.expert, [lease.item])
        return released

    def queue_named(self, queue_name: str) -> str:
        """The whole name of a queue, ``assay/queue``; InputError if there is none."""
        assay, queue = find_queue(self._store, self._load, queue_name)
        return f"{assay.name}/{queue}"

    def queue(self, queue_name: str) -> dict[str, Any]:
        """The policy in force of a queue, as JSON."""
        assay, queue = find_queue(self._store, self._load, queue_name)
        return {"queue": f"{assay.name}/{queue}", "policy": policy_of(self._store, assay, queue).document()}

    def set_queue(self, queue_name: str, document: object) -> dict[str, Any]:
        """Set a queue's policy; the next batch is made by it.

        Raises
        ------
        InputError
            If there is no such queue, or the policy is wrong; or its strategy needs what the model in force lacks.
        """
        assay, queue = find_queue(self._store, self._load, queue_name)
        try:
            policy = QueuePolicy.from_document(document, f"queue {queue_name!r}")
            check_policy(self._store, assay, policy, f"queue {queue_name!r}")
        except ConfigError as error:  # the caller's, not this server's
            raise InputError(str(error)) from error
        self._store.queues.set(assay.name, queue, policy.document())
        return self.queue(queue_name)

    # --- in the background ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the background threads: applying events, computing predictions, loading what is about to serve."""
        jobs = {
            "intake": self._run_intake,
            "predictions": self._run_predictions,
            "models": self._run_preparations,
        }
        for name, target in jobs.items():
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Ask the background threads to end, and wait for it: whoever closes the store may then do so."""
        self._stopping.set()
        self._arrived.set()
        self._to_compute.put(None)
        for thread in self._threads:
            thread.join(STOP_S)
        self._threads.clear()

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

    def _run_preparations(self) -> None:
        while not self._stopping.wait(PREPARE_EVERY_S):
            try:
                for name in self._store.assays.names():
                    self._active.prepare(self._load(name))
            except Exception:
                logger.exception("the coming model was not loaded ahead; the first request will load it")

    def _assay_of(self, project_id: int | None) -> Assay:
        if project_id is None:
            raise UnknownImage("request names no project; expected '<id>.<unix time>'")
        return self._load(self._store.assays.of_project(project_id))


def worklist(
    store: Store,
    load: Callable[[str], Assay],
    label_studio_url: str,
    queue_name: str,
    expert: str | None,
    limit: int,
) -> list[WorklistEntry]:
    """What an expert holds, then what comes next, with links into Label Studio."""
    if limit < 1:
        raise InputError(f"limit is {limit}, expected at least 1")
    assay, queue = find_queue(store, load, queue_name)
    policy = policy_of(store, assay, queue)
    holder = holder_of(policy, expert, queue)
    row = store.assays.get(assay.name)
    version = row["active_version"]
    if version is None or not store.scores.strategies(assay.name, version):
        return []
    strategy = ranked_by(store, assay, policy, version)
    listed = store.worklist.of(
        assay.name,
        queue,
        holder,
        version,
        strategy,
        limit,
        skipped=returned(policy, holder),
        deleted=policy.deleted,
    )
    roles = store.leases.roles(assay.name, [one.item for one in listed if one.lease is not None])
    reviews: dict[Item, str] = {}
    for review in store.reviews.open(assay.name):  # the most pressing first
        if review.expert != holder:
            reviews.setdefault(review.item, review.reason)
    page = _tab_page(store, label_studio_url, assay.name, queue, holder)
    entries: list[WorklistEntry] = []
    for rank, one in enumerate(listed, start=1):
        role = roles.get(one.item)
        # The page of a task shows what others drew on it; the stream of a tab does not.
        is_blind = one.lease is not None and (
            one.lease.role in READ_BY_OTHERS or (role is not None and role.readers > 1)
        )
        entries.append(
            WorklistEntry(
                rank=rank,
                task_id=one.task_id,
                image_id=one.item.image_id,
                tile=one.item.tile,
                score=one.score,
                reason=reason_of(one, reviews.get(one.item)),
                strategy=strategy,
                model_version=version,
                lease=None if one.lease is None else str(one.lease.id),
                url=f"{page}labeling=1" if is_blind else f"{page}task={one.task_id}",
            )
        )
    return entries


def stream_url(store: Store, label_studio_url: str, assay: str, queue: str, holder: str) -> str:
    """Where a holder works in Label Studio: the items of the tab one after the other."""
    return _tab_page(store, label_studio_url, assay, queue, holder) + "labeling=1"


def _tab_page(store: Store, label_studio_url: str, assay: str, queue: str, holder: str) -> str:
    """A holder's tab, for a parameter to follow; the whole project before there is a tab."""
    tab = store.handouts.tab(assay, queue, holder)
    page = f"{label_studio_url}/projects/{store.assays.get(assay)['project_id']}/data?"
    return page if tab is None else f"{page}tab={tab.view_id}&"


READ_BY_OTHERS = frozenset({"overlap", "gold", "review"})
"""Roles of items on which others have drawn, or will."""
_WHY = {
    "audit": "drawn at random, to measure the ranking",
    "contest": "drawn at random, to compare models",
    "validation": "drawn at random, to choose models",
    "sealed": "drawn at random, for the report",
    "overlap": "read by several experts",
    "gold": "its mask is known, to measure agreement",
    "review": "a second look at a correction",
}


def reason_of(listed: Listed, doubted: str | None = None) -> str:
    """Why an item is in the list: what the model saw, what it was drawn for, or why it is looked at again.

    What the model saw of an item that is to be judged alone would lead the expert.
    """
    lease = listed.lease
    if lease is not None and lease.role == "review":
        return "; ".join(part for part in (_WHY["review"], doubted) if part)
    if lease is None or lease.role in ("ranked", "validation", "sealed", "audit"):
        why = _WHY.get(lease.role) if lease is not None else None
        return listed.reason if why is None else f"{why}; {listed.reason}"
    canvas = {"blank": "an empty canvas", "cip": "on the CIP's mask", "model": ""}[lease.canvas]
    return "; ".join(part for part in (_WHY.get(lease.role, ""), canvas) if part)


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
