"""Bringing a version into force: a resumable saga over a window of tasks.

Invariant: the version in force has predictions for the whole window, so no score there is null
(null scores make Label Studio's order random without a word).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import LabelStudioRefused, StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.types import Item
from cytoloop.domain.worklist import Candidate, QueuePolicy, choose_batch
from cytoloop.pipeline.predictors import Predictor
from labelstudio_config.payloads import prediction
from labelstudio_config.prelabel import prelabel
from labelstudio_config.renders import render_images

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

WINDOW = 500
"""Items beyond the batch that hold predictions in Label Studio, the most doubtful first."""

PUSH_CHUNK = 100
ORDERING = ("tasks:predictions_score",)


def predict_everything(
    store: Store, assay: Assay, predictor: Predictor, progress: Progress | None = None
) -> int:
    """Predict every image that this version has not seen; returns how many images that were."""
    known = {item for item, *_ in store.predictions.ranked(assay.name, predictor.version)}
    todo = [
        record
        for record in store.images.all(assay.name)
        if Item(image_id=record.image_id, tile=0) not in known
    ]
    for done, record in enumerate(todo, start=1):
        prob_KHW = predictor.predict(record)
        store.predictions.put(assay.name, prelabel(record, prob_KHW, assay, predictor.version))
        if progress:
            progress("predict", done, len(todo))
    return len(todo)


def open_candidates(store: Store, assay: Assay, version: str) -> list[Candidate]:
    """Items nobody has finished that have a task, as the ranking sees them."""
    finished = store.corrections.finished_items(assay.name)
    tasks = store.images.tasks(assay.name)
    records = {record.image_id: record for record in store.images.all(assay.name)}
    return [
        Candidate(
            item=item,
            split=records[item.image_id].split,
            group=records[item.image_id].group,
            confidence=confidence,
        )
        for item, _, confidence, _ in store.predictions.ranked(assay.name, version)
        if item not in finished and tasks.get(item) is not None
    ]


def publish(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    predictor: Predictor,
    policies: dict[str, QueuePolicy],
    progress: Progress | None = None,
) -> int:
    """Bring a version into force; returns how many predictions Label Studio holds of it.

    push (skipping tasks that hold it already; compare what was kept) -> PATCH ``model_version``
    (the commit point) -> set active -> new batches -> delete older predictions.

    Raises
    ------
    LabelStudioRefused
        If Label Studio kept fewer predictions than were sent; the old version stays in force.
    """
    version = predictor.version
    predict_everything(store, assay, predictor, progress)
    candidates = open_candidates(store, assay, version)
    batches: dict[str, list[Candidate]] = {}
    for queue, policy in policies.items():
        batches[queue] = _choose(assay, queue, version, policy, candidates, batches.values())
    in_batches = [candidate.item for batch in batches.values() for candidate in batch]
    window = list(dict.fromkeys([*in_batches, *(candidate.item for candidate in candidates[:WINDOW])]))
    previous = store.assays.get(assay.name)["active_version"]
    publication = store.publications.begin(assay.name, version, previous, window)
    held = push(label_studio, store, assay, version, window, progress)
    store.publications.advance(publication, "commit")
    _finish(label_studio, store, assay, publication, version)
    for queue, batch in batches.items():
        show_batch(label_studio, store, assay, queue, version, [candidate.item for candidate in batch])
    if previous is not None and previous != version:
        store.predictions.forget(assay.name, previous)
    return held


def _choose(
    assay: Assay,
    queue: str,
    version: str,
    policy: QueuePolicy,
    candidates: Iterable[Candidate],
    taken: Iterable[Iterable[Candidate]],
) -> list[Candidate]:
    """A queue's batch, without what other queues hold: no item is handed to two experts unasked."""
    held = {candidate.item for batch in taken for candidate in batch}
    free = [candidate for candidate in candidates if candidate.item not in held]
    return choose_batch(free, policy, seed=f"{assay.name}/{queue}/{version}")


def push(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    version: str,
    items: Sequence[Item],
    progress: Progress | None = None,
) -> int:
    """Give Label Studio a version's predictions of these items, where it has none yet."""
    project_id = store.assays.get(assay.name)["project_id"]
    tasks = store.images.tasks(assay.name)
    render_images(
        store, assay, [store.images.get(assay.name, i) for i in sorted({i.image_id for i in items})]
    )
    held = label_studio.prediction_tasks(project_id, version)
    todo = [item for item in items if tasks[item] is not None and tasks[item] not in held]
    for start in range(0, len(todo), PUSH_CHUNK):
        chunk = todo[start : start + PUSH_CHUNK]
        documents = []
        for item in chunk:
            stored = store.predictions.get(assay.name, version, item)
            task_id = tasks[item]
            if stored is None or task_id is None:
                raise StateError(f"item {item.image_id}/{item.tile}: no prediction of {version} to push")
            documents.append(prediction(task_id, stored.result, stored.confidence, version))
        created = label_studio.push_predictions(project_id, documents)
        if created != len(documents):
            raise LabelStudioRefused(
                f"pushing {version}: Label Studio kept {created} of {len(documents)} predictions of tasks "
                f"{tasks[chunk[0]]}…{tasks[chunk[-1]]}; is its labeling config the assay's?"
            )
        if progress:
            progress("push", start + len(chunk), len(todo))
    return len(held) + len(todo)


def resume(label_studio: LabelStudio, store: Store, assay: Assay) -> str | None:
    """Finish or undo a publication that was interrupted; says which, or None if there was none.

    Label Studio's ``model_version`` decides: once it names the new version, experts see it. More
    items of a version that is in force already are always finished: there is nothing to go back to.
    """
    publication = store.publications.unfinished(assay.name)
    if publication is None:
        return None
    row = store.assays.get(assay.name)
    project_id = row["project_id"]
    version = publication["version"]
    shown = label_studio.get_project(project_id).get("model_version")
    if version in (shown, row["active_version"]):
        if publication["step"] == "push":
            push(label_studio, store, assay, version, publication["window"])
        _finish(label_studio, store, assay, publication["id"], version)
        return f"finished the publication of {version}"
    if version in label_studio.model_versions(project_id):
        label_studio.delete_model_version(project_id, version)
    store.publications.advance(publication["id"], "undone")
    return f"undid the half publication of {version}"


def _finish(label_studio: LabelStudio, store: Store, assay: Assay, publication: int, version: str) -> None:
    project_id = store.assays.get(assay.name)["project_id"]
    if version in label_studio.model_versions(project_id):  # an empty window has nothing to switch to
        label_studio.set_model_version(project_id, version)
    store.publications.advance(publication, "activate")
    store.models.activate(assay.name, version)
    store.publications.advance(publication, "clean")
    for other in label_studio.model_versions(project_id):
        if other != version:
            label_studio.delete_model_version(project_id, other)
    store.publications.advance(publication, "done")
    logger.info("published assay=%s version=%s", assay.name, version)


def show_batch(
    label_studio: LabelStudio, store: Store, assay: Assay, queue: str, version: str, items: Sequence[Item]
) -> int:
    """Make a queue's tab show exactly these items, in the order of their score."""
    project_id = store.assays.get(assay.name)["project_id"]
    tasks = store.images.tasks(assay.name)
    task_ids = [task for item in items if (task := tasks[item]) is not None]
    view_id = label_studio.ensure_view(project_id, view_title(queue), task_ids, ORDERING)
    store.publications.set_batch(assay.name, queue, version, items, view_id)
    return view_id


def refill(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    policies: dict[str, QueuePolicy],
) -> int:
    """Give a queue whose batch is worked through the next one; returns how many queues that were.

    A batch of another version than that in force is what an interrupted publication left: its order is
    no longer that of the scores, so it makes way too.
    """
    version = store.models.active(assay.name).version
    finished = store.corrections.finished_items(assay.name)
    tasks = store.images.tasks(assay.name)
    project_id = store.assays.get(assay.name)["project_id"]
    refilled = 0
    for queue, policy in policies.items():
        batch = store.publications.batch(assay.name, queue)
        if (
            batch is not None
            and batch["version"] == version
            and any(item not in finished and tasks.get(item) is not None for item in batch["items"])
        ):
            continue
        candidates = open_candidates(store, assay, version)
        others = [
            set(held["items"])
            for name in policies
            if name != queue and (held := store.publications.batch(assay.name, name)) is not None
        ]
        taken = [[c for c in candidates if c.item in items] for items in others]
        chosen = _choose(assay, queue, version, policy, candidates, taken)
        if not chosen:
            continue
        items = [candidate.item for candidate in chosen]
        push(label_studio, store, assay, version, items)
        if label_studio.get_project(project_id).get("model_version") != version:
            # none can be set while there is no prediction: where all was finished, or deleted by hand
            label_studio.set_model_version(project_id, version)
        show_batch(label_studio, store, assay, queue, version, items)
        refilled += 1
    return refilled


def view_title(queue: str) -> str:
    """Title of a queue's tab."""
    return f"Worklist {queue}"
