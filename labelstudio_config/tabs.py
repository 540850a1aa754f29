"""An expert's tab in Label Studio: what it shows, how its items are laid out, and how they leave it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.types import Item, ItemRole, Lease
from labelstudio_config.batches import email_of, policy_of
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.publish import documents_of, push
from labelstudio_config.renders import render_doubts

logger = logging.getLogger(__name__)

ORDERING = ("tasks:predictions_score",)
"""The least confident first."""


def show_tab(label_studio: LabelStudio, store: Store, assay: Assay, queue: str, holder: str) -> int | None:
    """Make an expert's tab show what the expert holds, in the order of the scores; its id.

    None where the expert holds nothing: the tab stays as it was.
    """
    held = store.leases.held(assay.name, queue, holder)
    tasks = store.images.tasks_of(assay.name, [lease.item for lease in held])
    shown = [lease for lease in held if lease.item in tasks]
    before = store.handouts.tab(assay.name, queue, holder)
    if not shown:
        return None if before is None else before.view_id
    version = store.models.active(assay.name).version
    row = store.assays.get(assay.name)
    items = [lease.item for lease in shown]
    push(label_studio, store, assay, version, items)
    if label_studio.get_project(row["project_id"]).get("model_version") != version:
        # none can be set while there is no prediction: where all was finished, or deleted by hand
        label_studio.set_model_version(row["project_id"], version)
    fresh = items if before is None else [item for item in items if item not in before.items]
    _prepare(label_studio, store, assay, version, fresh)
    view_id = label_studio.ensure_view(
        row["project_id"],
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
                hiding = [{**d, "model_version": other} for d in documents if d["task"] in held]
                label_studio.replace_predictions(row["project_id"], hiding)
    render_doubts(store, assay, [], hidden_doubts(list(roles.values())))
    for item in items:
        readings = _readings_wanted(store, assay, item, roles.get(item))
        if readings > 1:
            label_studio.set_readers(tasks[item], readings)


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


def withdraw(label_studio: LabelStudio, store: Store, assay: Assay, leases: Collection[Lease]) -> None:
    """Take items of ended leases out of pages that are open: a page keeps to the list it was loaded with.

    Nothing can be taken out of an open page of a list that everyone shares; its tab is shortened.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    for holder in {lease.expert for lease in leases if lease.expert != SHARED}:
        items = [lease.item for lease in leases if lease.expert == holder]
        try:
            user = user_id(label_studio, holder)
        except StateError:  # gone from Label Studio, and the pages with him
            continue
        task_ids = sorted(store.images.tasks_of(assay.name, items).values())
        if user is not None and task_ids:
            label_studio.withdraw_tasks(project_id, task_ids, user)
    for queue in {lease.queue for lease in leases if lease.expert == SHARED}:
        if store.handouts.tab(assay.name, queue, SHARED) is not None:
            left = store.images.tasks_of(
                assay.name, [lease.item for lease in store.leases.held(assay.name, queue, SHARED)]
            )
            title = view_title(store, assay, queue, SHARED)
            view_id = label_studio.ensure_view(project_id, title, list(left.values()), ORDERING)
            store.handouts.set_tab(assay.name, queue, SHARED, view_id, list(left))
