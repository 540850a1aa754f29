"""An assay's project in Label Studio: made once, repaired on every start, filled by import."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, LabelStudioRefused, StateError
from cytoloop.domain.types import ImageRecord, Item
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.connection import LabelStudioNotFound
from labelstudio_config.doubt import doubt_url, ensure_doubts
from labelstudio_config.intake import forget_tasks
from labelstudio_config.payloads import DOUBT_KEY, ITEM_KEY, task_data
from labelstudio_config.renders import render_folder, render_images, view_urls
from labelstudio_config.schema import labeling_config

logger = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]

SECRET_HEADER = "X-Cytoloop-Secret"  # noqa: S105 - a name, no secret
BACKEND_TITLE = "cytoloop"
EVENTS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_DELETED",
)
INSTRUCTION = (
    "<p>Open the link of <b>your worklist</b>, or its tab: press the arrow beside <b>Label All Tasks</b>, then "
    "<b>Label Tasks As Displayed</b>. Label All Tasks itself knows no worklists, and a row of the table shows what others "
    "drew. Items come in the order in which a look at them helps most; at the end of the list, open the link again "
    "for the next one.</p><p>Select a region in the list on the right, then "
    "<b>B</b> paints and <b>E</b> erases. Paint <b>Ignore</b> where nobody could tell. <b>Submit</b> when "
    "the masks are right: what is not painted counts as background.</p>"
    "<p><b>Doubt</b> shows in yellow where the model is unsure: look there first, but not there alone. Some items show "
    "none, so that it leads nobody's hand.</p>"
)

FRAMING = (
    "<p>No time for the whole item? Draw <b>Reviewed region</b> around what you looked at: all that lies outside "
    "counts as not looked at.</p>"
)


def set_up_project(label_studio: LabelStudioClient, store: Store, assay: Assay) -> int:
    """Make the assay's project, or bring the one there is into shape; returns its id."""
    store.assays.ensure(assay)
    project_id: int | None = store.assays.get(assay.name)["project_id"]
    config = labeling_config(assay)
    fields: dict[str, Any] = {
        "expert_instruction": INSTRUCTION + (FRAMING if assay.reviewed_region else ""),
        "show_instruction": False,
        "show_collab_predictions": True,
        "enable_empty_annotation": True,
        "sampling": "Sequential sampling",
        "evaluate_predictions_automatically": False,
    }
    if project_id is not None and not _exists(label_studio, project_id):
        raise StateError(
            f"assay {assay.name!r}: project {project_id} is not in Label Studio; expected it there, "
            "since its corrections are stored here. Restore Label Studio, or start a new home"
        )
    if project_id is None:
        project_id = label_studio.create_project(f"cytoloop {assay.name}", config, **fields)
        store.assays.update(assay.name, project_id=project_id)
    else:
        # First the tasks: one that lacks what the config shows gives an editor with an error in it.
        _complete_tasks(label_studio, store, assay, project_id)
        label_studio.update_project(project_id, label_config=config, **fields)
    folder = render_folder(store.home, assay.name)
    folder.mkdir(parents=True, exist_ok=True)
    label_studio.ensure_local_storage(project_id, str(folder), f"cytoloop {assay.name}")
    return project_id


def _complete_tasks(label_studio: LabelStudioClient, store: Store, assay: Assay, project_id: int) -> None:
    """Give tasks that were imported before there were doubt maps the URL of theirs.

    Label Studio takes a labeling config that shows what a task lacks without a word. Tasks that are not
    ours are left alone.
    """
    lacking = label_studio.tasks_lacking(project_id, DOUBT_KEY)
    if not lacking:
        return
    # Told by what the tasks say of themselves: Label Studio gives ids anew.
    items = {f"{item.image_id}/{item.tile}": item for item in store.images.tasks(assay.name)}
    records = {record.image_id: record for record in store.images.all(assay.name)}
    ours = [(task, items[name]) for task in lacking if (name := str(task["data"].get(ITEM_KEY))) in items]
    for task, item in ours:
        record = records[item.image_id]
        ensure_doubts(store.home, assay, record)
        url = doubt_url(record, item.tile, assay)
        label_studio.set_task_data(task["id"], {**task["data"], DOUBT_KEY: url})
    logger.info("tasks have a doubt map now assay=%s tasks=%d", assay.name, len(ours))


def connect(label_studio: LabelStudioClient, store: Store, assay: Assay, settings: Settings) -> None:
    """Connect the backend (which must be running: Label Studio asks it) and set the webhook."""
    row = store.assays.get(assay.name)
    if settings.backend_url is None or settings.webhook_secret is None or settings.backend_password is None:
        raise ConfigError(
            f"assay {assay.name!r}: CYTOLOOP_BACKEND_URL, CYTOLOOP_BACKEND_PASSWORD and CYTOLOOP_WEBHOOK_SECRET "
            "are needed to connect the backend"
        )
    host = urlsplit(settings.backend_url).hostname or ""
    if not re.search(r"[.:]", host) and host != "localhost":
        raise ConfigError(
            f"CYTOLOOP_BACKEND_URL is {settings.backend_url!r}: Label Studio takes no webhook of a host name without a "
            "dot; expected another name of that host, as http://backend.internal:9090"
        )
    backend_id = label_studio.connect_backend(
        row["project_id"],
        settings.backend_url,
        BACKEND_TITLE,
        settings.backend_user,
        settings.backend_password,
    )
    webhook_id = label_studio.ensure_webhook(
        row["project_id"],
        f"{settings.backend_url}/webhook",
        {SECRET_HEADER: settings.webhook_secret},
        EVENTS,
    )
    store.assays.update(assay.name, backend_id=backend_id, webhook_id=webhook_id)


def import_tasks(
    label_studio: LabelStudioClient, store: Store, assay: Assay, progress: Progress | None = None
) -> int:
    """Render and import every item that has no task yet; returns how many."""
    project_id = store.assays.get(assay.name)["project_id"]
    if not _missing(store, assay):
        return 0
    present = label_studio.task_ids(project_id)
    # A task that was deleted unheard may give its id to one of the new ones.
    forget_tasks(store, assay.name, _known(store, assay) - present)
    missing = _missing(store, assay)
    records = {record.image_id: record for record in store.images.all(assay.name)}
    wanted = [records[image_id] for image_id in sorted({item.image_id for item in missing})]
    render_images(
        store, assay, wanted, (lambda done, total: progress("render", done, total)) if progress else None
    )
    if present - _known(store, assay):
        missing = _not_yet_imported(label_studio, store, assay, missing)
    documents = [_document(records[item.image_id], item, assay) for item in missing]
    task_ids = label_studio.import_tasks(project_id, documents)
    if len(task_ids) != len(missing):
        raise LabelStudioRefused(
            f"import into project {project_id}: {len(task_ids)} tasks for {len(missing)} items"
        )
    store.images.set_tasks(assay.name, dict(zip(missing, task_ids, strict=True)))
    logger.info("imported assay=%s tasks=%d", assay.name, len(task_ids))
    return len(task_ids)


def _missing(store: Store, assay: Assay) -> list[Item]:
    return [item for item, task in store.images.tasks(assay.name).items() if task is None]


def _known(store: Store, assay: Assay) -> set[int]:
    return {task for task in store.images.tasks(assay.name).values() if task is not None}


def _not_yet_imported(
    label_studio: LabelStudioClient, store: Store, assay: Assay, missing: Sequence[Item]
) -> list[Item]:
    """Adopt tasks that an interrupted import left behind, so that no item gets two."""
    known = _known(store, assay)
    wanted = {f"{item.image_id}/{item.tile}": item for item in missing}
    adopted: dict[Item, int] = {}
    for task in label_studio.iter_tasks(store.assays.get(assay.name)["project_id"]):
        data = task.get("data") or {}
        item = wanted.get(f"{data.get('image_id')}/{data.get('tile')}")
        if item is not None and task["id"] not in known:
            adopted[item] = task["id"]
    store.images.set_tasks(assay.name, adopted)
    return [item for item in missing if item not in adopted]


def _document(record: ImageRecord, item: Item, assay: Assay) -> dict[str, object]:
    composite, *channels = view_urls(record, item.tile, assay)
    return task_data(record, item.tile, composite, channels, doubt_url(record, item.tile, assay))


def _exists(label_studio: LabelStudioClient, project_id: int) -> bool:
    try:
        label_studio.get_project(project_id)
    except LabelStudioNotFound:
        return False
    return True
