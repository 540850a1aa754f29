"""An expert's tab in Label Studio: what it shows, how its items are laid out, and how they leave it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.types import Item, ItemRole
from labelstudio_config.batches import email_of, policy_of
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.publish import documents_of, push
from labelstudio_config.renders import render_doubts

ORDERING = ("tasks:predictions_score",)
"""The least confident first."""


def show_tab(label_studio: LabelStudio, store: Store, assay: Assay, queue: str, holder: str) -> int | None:
    """Make an expert's tab show what the expert holds, in the order of the scores; its id.

    None where the expert holds nothing: the tab stays as it was.
    """
    with exclusive(store.home, f"{assay.name}.tabs"):  # neither a promotion nor another list in between
        held = store.leases.held(assay.name, queue, holder)
        tasks = store.images.tasks_of(assay.name, [lease.item for lease in held])
        items = [lease.item for lease in held if lease.item in tasks]
        before = store.handouts.tab(assay.name, queue, holder)
        if not items:
            return None if before is None else before.view_id
        version = store.models.active(assay.name).version
        project_id = store.assays.get(assay.name)["project_id"]
        push(label_studio, store, assay, version, items)
        if label_studio.get_project(project_id).get("model_version") != version:
            # none can be set while there is no prediction: where all was finished, or deleted by hand
            label_studio.set_model_version(project_id, version)
        fresh = items if before is None else [item for item in items if item not in before.items]
        _prepare(label_studio, store, assay, version, fresh)
        view_id = label_studio.ensure_view(
            project_id,
            view_title(store, assay, queue, holder),
            [tasks[item] for item in items],
            ORDERING,
            user_id(label_studio, holder),
        )
        store.handouts.set_tab(assay.name, queue, holder, view_id, items)
        return view_id


def _prepare(
    label_studio: LabelStudio, store: Store, assay: Assay, version: str, items: Sequence[Item]
) -> None:
    """Lay out the canvas of items that were just leased, hide doubt where it would lead, open second seats."""
    roles = store.leases.roles(assay.name, items)
    tasks = store.images.tasks_of(assay.name, items)
    row = store.assays.get(assay.name)
    special = [item for item in items if item in roles and roles[item].canvas != "model"]
    if special:
        documents = documents_of(store, assay, version, special)
        label_studio.replace_predictions(row["project_id"], documents)
        # The page of a task offers the last version's prediction beside the one in force.
        for other in label_studio.model_versions(row["project_id"]):
            if other != version:
                held = label_studio.prediction_tasks(row["project_id"], other)
                hiding = [
                    {
                        **document,
                        "model_version": other,
                        "score": _score_of(store, assay, other, item, document),
                    }
                    for item, document in zip(special, documents, strict=True)
                    if document["task"] in held
                ]
                label_studio.replace_predictions(row["project_id"], hiding)
    render_doubts(store, assay, [], hidden_doubts(store, assay, items))
    for item in items:
        readings = _readings_wanted(store, assay, item, roles.get(item))
        if readings > 1:
            label_studio.set_readers(tasks[item], readings)


def _score_of(store: Store, assay: Assay, version: str, item: Item, document: Mapping[str, Any]) -> float:
    """A version's own score of an item: it may be about to come into force."""
    stored = store.predictions.get(assay.name, version, item)
    return float(document["score"]) if stored is None else stored.confidence


def _readings_wanted(store: Store, assay: Assay, item: Item, role: ItemRole | None) -> int:
    """To how many Label Studio must hand a task: its readers, and whoever takes a place beside them."""
    leases = store.leases.of_item(assay.name, item)
    held = sum(lease.state == "held" for lease in leases)
    said = sum(kind == "submitted" for kind in store.corrections.of_item(assay.name, item).values())
    return max(1 if role is None else role.readers, held + said)


def view_title(store: Store, assay: Assay, queue: str, holder: str) -> str:
    """Title of an expert's tab."""
    if holder == SHARED:
        return f"Worklist {queue}"
    names = {email_of(expert): expert.name for expert in policy_of(store, assay, queue).experts}
    # The name first: Label Studio cuts titles off after some 16 letters.
    return f"{names.get(holder, holder)}: worklist {queue}"


def user_id(label_studio: LabelStudio, holder: str) -> int | None:
    """Label Studio's id of an expert; None for a list that everyone shares.

    Raises
    ------
    StateError
        If nobody in Label Studio has the expert's e-mail.
    """
    if holder == SHARED:
        return None
    users = label_studio.list_users()
    for user in users:
        if str(user["email"]).casefold() == holder.casefold():
            return int(user["id"])
    known = sorted(str(user["email"]) for user in users)
    raise StateError(f"expert {holder}: nobody in Label Studio has this e-mail; expected one of {known}")


def withdraw(
    label_studio: LabelStudio, store: Store, assay: Assay, queue: str, holder: str, items: Collection[Item]
) -> None:
    """Take items out of an expert's tab, and out of a page of it that is open: a page keeps to its list.

    Nothing can be taken out of an open page of a list that everyone shares; its tab is shortened.
    """
    with exclusive(store.home, f"{assay.name}.tabs"):
        tab = store.handouts.tab(assay.name, queue, holder)
        if tab is None or not items:
            return
        project_id = store.assays.get(assay.name)["project_id"]
        left = [item for item in tab.items if item not in items]
        if holder == SHARED:
            tasks = store.images.tasks_of(assay.name, left)
            title = view_title(store, assay, queue, holder)
            label_studio.ensure_view(project_id, title, [tasks[i] for i in left if i in tasks], ORDERING)
        else:
            task_ids = sorted(store.images.tasks_of(assay.name, items).values())
            try:
                user = user_id(label_studio, holder)
            except StateError:  # gone from Label Studio, and the pages with him
                user = None
            if user is not None and task_ids:
                label_studio.withdraw_tasks(project_id, task_ids, user)
        store.handouts.set_tab(assay.name, queue, holder, tab.view_id, left)


def left_over(store: Store, assay: Assay, queue: str, holder: str) -> list[Item]:
    """What a tab shows that its expert lost: an end of leases that Label Studio did not hear of."""
    tab = store.handouts.tab(assay.name, queue, holder)
    found = []
    for item in () if tab is None else tab.items:
        states = [lease.state for lease in store.leases.of_item(assay.name, item) if lease.expert == holder]
        if states and "held" not in states and states[-1] in ("expired", "released"):
            found.append(item)
    return found
