"""Bringing a version into force: a resumable saga over a window of tasks.

Invariant: the version in force has predictions for the whole window, so no score there is null
(null scores make Label Studio's order random without a word).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import LabelStudioRefused, StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.types import SPLITS, Item
from cytoloop.pipeline.predictors import Predictor
from labelstudio_config.canvas import proposals
from labelstudio_config.doubt import withdraw_doubts
from labelstudio_config.payloads import prediction
from labelstudio_config.ranking import MAKING, rank_everything, strategies_for
from labelstudio_config.renders import render_images

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

WINDOW = 500
"""Items of each queue beyond what is leased that hold predictions in Label Studio, the first ranked ones."""

DRAWN = 250
"""Items of each split, of the lowest lots, that batches draw from until the rest is ranked."""

PUSH_CHUNK = 500
"""Predictions handed to Label Studio at once, as many as its client puts into a call: each call costs some 0.2 s of
its own, and calls of 100 took twice the time of the bare ones (`cytoloop bench publish`)."""


def publish(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    predictor: Predictor,
    progress: Progress | None = None,
) -> int:
    """Bring a version into force; returns how many predictions Label Studio holds of it.

    Predicted and ranked before is what may be asked for next; whoever looks regularly ranks the rest afterwards
    (`rank_everything`), so that a plate of thousands does not hold a better model up.

    push (skipping tasks that hold it already; compare what was kept) -> PATCH ``model_version``
    (the commit point) -> set active -> delete older predictions. Leases stay as they are; the order of
    their lists is that of the new scores at once.

    Raises
    ------
    ConfigError
        If a queue's strategy needs what the version lacks; the old version stays in force.
    LabelStudioRefused
        If Label Studio kept fewer predictions than were sent; the old version stays in force.
    """
    version = predictor.version
    rank_everything(store, assay, predictor, progress, only=wanted_first(store, assay, version))
    window = window_of(store, assay, predictor)
    previous = store.assays.get(assay.name)["active_version"]
    publication = store.publications.begin(assay.name, version, previous, window)
    push(label_studio, store, assay, version, window, progress)
    store.publications.advance(publication, "commit")
    _finish(label_studio, store, assay, publication, version, previous)
    project_id = store.assays.get(assay.name)["project_id"]
    return int(label_studio.model_versions(project_id).get(version, 0))


def wanted_first(store: Store, assay: Assay, version: str) -> set[str] | None:
    """Images that may be asked for next by the ranking in force; None: all, where there is none to go by."""
    active = store.assays.get(assay.name)["active_version"]
    if active is None or active == version:
        return None
    rankings = [name for name in store.scores.strategies(assay.name, active) if not name.startswith(MAKING)]
    if not rankings:
        return None
    items = [lease.item for lease in store.leases.held(assay.name)]
    for ranking in rankings:
        following = store.worklist.open_items(assay.name, active, ranking, "train", WINDOW)
        items += [scored.item for scored in following]
    for split in SPLITS:
        drawn = store.worklist.open_items(assay.name, active, rankings[0], split, DRAWN, by="lot")
        items += [scored.item for scored in drawn]
    return {item.image_id for item in items}


def window_of(store: Store, assay: Assay, predictor: Predictor) -> list[Item]:
    """Leased items, and the next ones of each queue."""
    items = [lease.item for lease in store.leases.held(assay.name)]
    for strategy in strategies_for(store, assay, predictor.offers, predictor.version):
        ranked = store.worklist.open_items(assay.name, predictor.version, strategy.name, "train", WINDOW)
        items += [scored.item for scored in ranked]
    return list(dict.fromkeys(items))


def push(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    version: str,
    items: Sequence[Item],
    progress: Progress | None = None,
) -> int:
    """Give Label Studio a version's predictions of these items, where it has none yet; returns how many.

    What lies on an item (the version's mask, CIP's, or nothing) is what it was handed out with.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    tasks = store.images.tasks_of(assay.name, items)
    render_images(
        store, assay, [store.images.get(assay.name, i) for i in sorted({i.image_id for i in items})]
    )
    held = label_studio.prediction_tasks(project_id, version)
    todo = [item for item in items if item in tasks and tasks[item] not in held]
    for start in range(0, len(todo), PUSH_CHUNK):
        chunk = todo[start : start + PUSH_CHUNK]
        documents = documents_of(store, assay, version, chunk)
        created = label_studio.push_predictions(project_id, documents)
        if created != len(documents):
            raise LabelStudioRefused(
                f"pushing {version}: Label Studio kept {created} of {len(documents)} predictions of tasks "
                f"{tasks[chunk[0]]}…{tasks[chunk[-1]]}; is its labeling config the assay's?"
            )
        if progress:
            progress("push", start + len(chunk), len(todo))
    return len(todo)


def documents_of(store: Store, assay: Assay, version: str, items: Sequence[Item]) -> list[dict[str, object]]:
    """Predictions of items with a task, as Label Studio takes them."""
    tasks = store.images.tasks_of(assay.name, items)
    shown = proposals(store, assay, items)
    documents = []
    for item in items:
        stored = store.predictions.get(assay.name, version, item)
        if stored is None or item not in tasks:
            raise StateError(f"item {item.image_id}/{item.tile}: no prediction of {version} to push")
        result = shown.get(item, stored.result)
        documents.append(prediction(tasks[item], result, stored.confidence, version))
    return documents


def rescore(label_studio: LabelStudio, store: Store, assay: Assay, version: str) -> int:
    """Bring stored scores to predictions that Label Studio holds, leased items first; returns how many.

    After another strategy has ranked a version that is in force already: the tabs go by what Label Studio
    holds. A third of a second each.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    held = label_studio.prediction_tasks(project_id, version)
    tasks = store.images.tasks(assay.name)
    leased = [lease.item for lease in store.leases.held(assay.name)]
    stale = [item for item in dict.fromkeys([*leased, *tasks]) if tasks.get(item) in held]
    for start in range(0, len(stale), PUSH_CHUNK):
        documents = documents_of(store, assay, version, stale[start : start + PUSH_CHUNK])
        label_studio.replace_predictions(project_id, documents)
    logger.info("scores brought assay=%s version=%s predictions=%d", assay.name, version, len(stale))
    return len(stale)


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
        _finish(label_studio, store, assay, publication["id"], version, publication["previous"])
        return f"finished the publication of {version}"
    if version in label_studio.model_versions(project_id):
        label_studio.delete_model_version(project_id, version)
    store.publications.advance(publication["id"], "undone")
    return f"undid the half publication of {version}"


def _finish(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    publication: int,
    version: str,
    previous: str | None,
) -> None:
    project_id = store.assays.get(assay.name)["project_id"]
    # No tab is shown meanwhile: a claim under way would write the old version back.
    with exclusive(store.home, f"{assay.name}.tabs"):
        # what was leased since the window was computed is in it too, and shows what it was handed out with
        _push_leased(label_studio, store, assay, version)
        withdraw_doubts(store.home, assay)
        if version in label_studio.model_versions(project_id):  # an empty window has nothing to switch to
            label_studio.set_model_version(project_id, version)
        store.publications.advance(publication, "activate")
        store.models.activate(assay.name, version)
    store.publications.advance(publication, "clean")
    # The last version's predictions stay one promotion longer: an editor that is open began with one of
    # them, and Label Studio takes no annotation whose prediction is gone. More items of the version in force
    # are no promotion.
    for other in label_studio.model_versions(project_id) if version != previous else ():
        if other not in (version, previous):
            label_studio.delete_model_version(project_id, other)
    if previous is not None and previous != version:
        # The version before is kept: going back to it then predicts nothing anew.
        for other in store.predictions.versions(assay.name) - {version, previous}:
            store.predictions.forget(assay.name, other)
        for other in store.scores.versions(assay.name) - {version, previous}:
            store.scores.forget(assay.name, other)
    store.publications.advance(publication, "done")
    logger.info("published assay=%s version=%s", assay.name, version)


def _push_leased(label_studio: LabelStudio, store: Store, assay: Assay, version: str) -> None:
    leased = list(dict.fromkeys(lease.item for lease in store.leases.held(assay.name)))
    if not leased:
        return
    push(label_studio, store, assay, version, leased)
    # pushed before it was leased, an item may hold the version's mask where it is to hold another, or none
    roles = store.leases.roles(assay.name, leased)
    special = [item for item in leased if item in roles and roles[item].canvas != "model"]
    if special:
        project_id = store.assays.get(assay.name)["project_id"]
        label_studio.replace_predictions(project_id, documents_of(store, assay, version, special))
