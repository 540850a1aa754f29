"""What experts did -> the store: events from the inbox, and reconciliation for what they missed.

Both ways end in the same append, keyed by (annotation, updated_at): delivered once, twice, late or
by the poll alone, a correction is one row.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.documents import is_whole, parse_json, told
from cytoloop.domain.errors import (
    CytoloopError,
    InputError,
    LabelStudioRefused,
    LabelStudioUnavailable,
    StateError,
)
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import SHARED, policy_in_force
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item
from cytoloop.pipeline.minutes import note_time
from labelstudio_config.canvas import began_with
from labelstudio_config.payloads import (
    Event,
    TaskData,
    correction_from_annotation,
    parse_event,
    parse_task_data,
    parse_time,
)

logger = logging.getLogger(__name__)

OVERLAP = timedelta(seconds=10)
"""The poll looks this far behind the last change it saw: Label Studio stamps a task before it waits for its database,
five seconds at most on SQLite, and a later change may be seen first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What a reconciliation found that the store did not know."""

    tasks: int = 0
    """Tasks that had changed."""
    added: int = 0
    deleted: int = 0
    doubts: int = 0


class Intake:
    """Applies Label Studio's events and annotations to the store."""

    def __init__(self, store: Store, label_studio: LabelStudio, load: Callable[[str], Assay]) -> None:
        self._store = store
        self._label_studio = label_studio
        self._load = load
        self._emails: dict[int, str] = {}
        self._versions: dict[int, str | None] = {}

    def drain(self) -> int:
        """Apply every event the inbox holds; returns how many.

        An event that cannot be applied becomes a doubt and is not tried again: reconciliation will
        look at its task. If Label Studio does not answer, or refuses our token, the rest waits; so it
        does if our own disk or database fails.
        """
        applied = 0
        while events := list(self._store.inbox.after(self._store.corrections.last_event())):
            for event_id, body in events:
                try:
                    self._apply(body)
                except (LabelStudioUnavailable, LabelStudioRefused) as error:
                    logger.warning("intake waits event=%d reason=%s", event_id, error)
                    return applied
                except (OSError, sqlite3.Error):
                    raise
                except CytoloopError as error:
                    logger.warning("event refused id=%d reason=%s", event_id, error)
                    self._store.corrections.add_doubt(None, "webhook", f"event {event_id}", str(error))
                except Exception as error:  # one event that trips us must not keep all others waiting
                    logger.exception("event failed id=%d", event_id)
                    problem = f"{type(error).__name__}: {error}"
                    self._store.corrections.add_doubt(None, "webhook", f"event {event_id}", problem)
                self._store.corrections.set_last_event(event_id)
                applied += 1
        return applied

    def _apply(self, body: bytes) -> None:
        event: Event = parse_event(parse_json(body, "webhook"))
        if event.project_id is None:
            return
        assay = self._load(self._store.assays.of_project(event.project_id))
        for annotation_id in event.deleted_annotation_ids:
            bury(self._store, assay.name, annotation_id)
        if event.deleted_task_ids:
            forget_tasks(self._store, assay.name, set(event.deleted_task_ids))
        if event.action == "START_TRAINING":
            self._store.cycles.ask(assay.name, "label-studio")
        if event.annotations and len(event.annotations) != len(event.tasks):
            raise InputError(
                f"webhook {event.action}: {len(event.annotations)} annotation(s) for {len(event.tasks)} task(s), "
                "expected one task each"
            )
        if event.annotations:
            for annotation, task in zip(event.annotations, event.tasks, strict=True):
                if not self._is_of_the_dead(assay, annotation):
                    self.take(assay, task, annotation)

    def _is_of_the_dead(self, assay: Assay, annotation: Mapping[str, Any]) -> bool:
        """Whether an event comes so late that its annotation is deleted by now: it must not live again.

        An event older than what the last look saw, or of an annotation that is buried here, proves nothing of the
        present, and no later look at changes would find it out: Label Studio is asked, which is rare.
        """
        annotation_id = annotation.get("id")
        if not is_whole(annotation_id):
            return False  # told by what takes it
        until = self._store.assays.get(assay.name)["reconciled_until"]
        moment = parse_time(annotation.get("updated_at"), f"annotation {annotation_id}: updated_at")
        is_late = until is not None and moment <= datetime.fromisoformat(until)
        if not is_late and not self._store.corrections.is_deleted(assay.name, annotation_id):
            return False
        if self._label_studio.get_annotation(annotation_id) is not None:
            return False
        bury(self._store, assay.name, annotation_id)
        logger.info(
            "late event of a deleted annotation left out assay=%s annotation=%d", assay.name, annotation_id
        )
        return True

    def take(self, assay: Assay, task: Mapping[str, Any], annotation: Mapping[str, Any]) -> bool:
        """Append one annotation; False if this revision is stored already.

        Raises
        ------
        InputError
            If the task does not show the item it claims, or the annotation cannot be understood.
        """
        task_id = task.get("id")
        if not is_whole(task_id):
            raise InputError(f"task: id is {told(task_id)}, expected a number")
        data = parse_task_data(task.get("data"), f"task {task_id}")
        item = self._check_identity(assay, task_id, data)
        expert = self._email(annotation.get("completed_by"))
        if annotation.get("was_cancelled"):
            annotation_id = annotation.get("id")
            if not is_whole(annotation_id):
                raise InputError(
                    f"task {task_id}: annotation: id is {told(annotation_id)}, expected a number"
                )
            where = f"task {task_id}: annotation {annotation_id}: updated_at"
            moment = parse_time(annotation.get("updated_at"), where)
            with self._store.transaction():
                skipped = self._store.corrections.append_skip(
                    assay.name, item, annotation_id, task_id, moment, expert
                )
                if skipped:
                    self._end_lease(assay, item, expert, "skipped")
            self._store.worklist.note(assay.name, [item])
            return skipped
        record = self._store.images.get(assay.name, item.image_id)
        tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
        correction = correction_from_annotation(
            annotation,
            task_id,
            data,
            assay,
            tile.height,
            tile.width,
            expert,
            began_with(self._store, assay, item, self._parent_version(annotation.get("parent_prediction"))),
        )
        self._keep_for_others(assay, item, task_id, expert)
        mask = self._store.masks.put(correction.mask_HW)
        with self._store.transaction():
            added = self._store.corrections.append(assay.name, correction, mask)
            if added:
                self._end_lease(assay, item, expert, "done")
        if added:
            self._store.worklist.note(assay.name, [item])
            note_time(self._store, assay.name, correction)
            logger.info(
                "correction stored task=%d image=%s tile=%d expert=%s conflicts=%d",
                task_id,
                item.image_id,
                item.tile,
                expert,
                correction.conflict_pixels,
            )
        return added

    def reconcile(self, assay: Assay, *, everything: bool = False) -> Reconciled:
        """Ask Label Studio what changed since the last time, and store what was missed.

        Parameters
        ----------
        everything : bool
            Look at every task, not only at those changed since.
        """
        row = self._store.assays.get(assay.name)
        project_id = row["project_id"]
        until = row["reconciled_until"]
        latest = datetime.fromisoformat(until) if until else None
        since = latest - OVERLAP if latest and not everything else None
        tasks = added = deleted = doubts = 0
        # Noted before Label Studio is asked: what an expert submits while its answer is on the way is
        # in the store and not in the answer, and must not pass for deleted.
        known = self._living_by_task(assay.name)
        seen: dict[int, set[int]] = {}
        for task in self._label_studio.iter_tasks(project_id, updated_after=since):
            tasks += 1
            annotations = task.get("annotations") or []
            for annotation in annotations:
                try:
                    added += self.take(assay, task, annotation)
                except InputError as error:
                    doubts += 1
                    reference = f"annotation {told(annotation.get('id'))} at {annotation.get('updated_at')}"
                    self._store.corrections.add_doubt(assay.name, "reconcile", reference, str(error))
            alive = seen[task["id"]] = {annotation["id"] for annotation in annotations}
            for annotation_id in known.get(task["id"], ()):
                if annotation_id not in alive:
                    deleted += bury(self._store, assay.name, annotation_id)
            changed = parse_time(task.get("updated_at"), f"task {task['id']}: updated_at")
            latest = changed if latest is None else max(latest, changed)
        ours = {t for t in self._store.images.tasks(assay.name).values() if t is not None}
        theirs = self._label_studio.task_ids(project_id)
        if ours and not theirs:
            raise StateError(
                f"assay {assay.name!r}: project {project_id} has no task left, expected {len(ours)}; nothing was "
                "taken for deleted. Restore Label Studio's data, or start a new home"
            )
        deleted += forget_tasks(self._store, assay.name, ours - theirs)
        if latest is not None:
            self._store.assays.update(assay.name, reconciled_until=latest.isoformat())
            deleted += self._bury_meanwhile(assay, known, seen, latest)
        self._store.assays.note_look(assay.name)
        result = Reconciled(tasks=tasks, added=added, deleted=deleted, doubts=doubts)
        logger.info(
            "reconciled assay=%s tasks=%d added=%d deleted=%d doubts=%d",
            assay.name,
            tasks,
            added,
            deleted,
            doubts,
        )
        return result

    def _bury_meanwhile(
        self, assay: Assay, known: Mapping[int, list[int]], seen: Mapping[int, set[int]], latest: datetime
    ) -> int:
        """Bury what came in while a look was on its way, and was deleted before its task was listed; how many.

        The look that follows begins where this one ended, and would not list the task again.
        """
        buried = 0
        for annotation_id, (annotated_at, task_id) in self._store.corrections.living_annotations(
            assay.name
        ).items():
            is_settled = annotation_id in known.get(task_id, ()) or annotation_id in seen.get(task_id, ())
            if is_settled or datetime.fromisoformat(annotated_at) > latest:
                continue
            if self._label_studio.get_annotation(annotation_id) is None:
                buried += bury(self._store, assay.name, annotation_id)
        return buried

    def _keep_for_others(self, assay: Assay, item: Item, task_id: int, expert: str) -> None:
        """See to it that Label Studio still hands an item to those who hold it.

        To Label Studio a task is finished once it has as many annotations as readers. One that comes late, or
        from an expert who opened the task unasked, would take the item from whoever holds it now. Done before
        the correction is stored, so that what fails is tried again with it.
        """
        said = {
            e for e, kind in self._store.corrections.of_item(assay.name, item).items() if kind == "submitted"
        }
        if expert in said:
            return
        leases = self._store.leases.of_item(assay.name, item)
        others = {lease.expert for lease in leases if lease.state == "held"} - {expert, SHARED}
        role = self._store.leases.roles(assay.name, [item]).get(item)
        readings = len(said | others | {expert})
        if others and readings > (1 if role is None else role.readers):
            try:
                self._label_studio.set_readers(task_id, readings)
            except LabelStudioRefused as error:  # deleted meanwhile: then there is nothing to hand out
                logger.warning("task not kept for its other readers task=%d: %s", task_id, error)

    def _end_lease(self, assay: Assay, item: Item, expert: str, state: Literal["done", "skipped"]) -> None:
        """An expert finished an item: the seat is settled, and the rest of the expert's list lasts longer."""
        lease = self._store.leases.finish(assay.name, item, expert, state)
        if lease is not None:
            policy = policy_in_force(assay, lease.queue, self._store.queues.policy(assay.name, lease.queue))
            until = datetime.now(UTC) + timedelta(minutes=policy.lease_minutes)
            self._store.leases.renew(assay.name, lease.queue, lease.expert, until)

    def _living_by_task(self, assay: str) -> dict[int, list[int]]:
        by_task: dict[int, list[int]] = {}
        for annotation_id, (_, task_id) in self._store.corrections.living_annotations(assay).items():
            by_task.setdefault(task_id, []).append(annotation_id)
        return by_task

    def _check_identity(self, assay: Assay, task_id: int, data: TaskData) -> Item:
        return check_identity(self._store, assay.name, task_id, data)

    def _email(self, user: object) -> str:
        user_id = user.get("id") if isinstance(user, Mapping) else user
        if not isinstance(user_id, int):
            raise InputError(f"annotation: completed_by is {told(user)}, expected a user id")
        if user_id not in self._emails:
            self._emails = {u["id"]: u["email"].lower() for u in self._label_studio.list_users()}
        return self._emails.get(user_id, f"user-{user_id}")

    def _parent_version(self, prediction: object) -> str | None:
        if not is_whole(prediction):
            return None
        if prediction not in self._versions:
            self._versions[prediction] = self._label_studio.prediction_version(prediction)
        return self._versions[prediction]


def bury(store: Store, assay: str, annotation_id: int) -> bool:
    """Bury a deleted annotation; its item goes back to the queue. False if it is not known, or buried."""
    with store.transaction():
        if not store.corrections.append_deletion(assay, annotation_id):
            return False
        last = store.corrections.of_annotation(assay, annotation_id)
        assert last is not None, "it was buried"
        item, expert = last
        store.leases.reopen(assay, item, expert)
    store.worklist.note(assay, [item])
    return True


def forget_tasks(store: Store, assay: str, task_ids: set[int]) -> int:
    """Bury the annotations of deleted tasks, whose ids Label Studio may give to others; how many.

    Who held them holds them no longer: what cannot be opened must not take up a place in a batch.
    """
    buried = 0
    held = store.leases.held(assay) if task_ids else []
    tasks = store.images.tasks_of(assay, [lease.item for lease in held])
    for lease in held:
        if tasks.get(lease.item) in task_ids:
            now = datetime.now(UTC)
            _ = store.leases.expire(lease.id, now) or store.leases.release(lease.id, lease.expert, now)
            # while it has a task: flagged closed, it would not come up once it is imported again
            store.worklist.note(assay, [lease.item])
    for task_id in sorted(task_ids):
        for annotation_id in store.corrections.living_annotations(assay, task_id):
            buried += bury(store, assay, annotation_id)
    store.images.forget_tasks(assay, task_ids)
    return buried


def check_identity(store: Store, assay: str, task_id: int, data: TaskData) -> Item:
    """The item a task shows, if what the task carries agrees with the store.

    Label Studio reuses task ids, so an id alone proves nothing.

    Raises
    ------
    UnknownImage
        If the task is none of ours.
    InputError
        If its ``image_id``, ``image_key`` or ``tile`` are another item's.
    """
    item = store.images.item_of_task(assay, task_id)
    record = store.images.get(assay, item.image_id)
    got = (data.image_id, data.image_key, data.tile)
    expected = (item.image_id, record.image_key, item.tile)
    if got != expected:
        names = ("image_id", "image_key", "tile")
        wrong = [
            f"{name} is {told(g)}, expected {e!r}"
            for name, g, e in zip(names, got, expected, strict=True)
            if g != e
        ]
        raise InputError(f"task {task_id}: {'; '.join(wrong)}")
    return item
