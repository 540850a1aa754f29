"""Whether the store holds what Label Studio holds: every annotation, its latest change, and nothing else.

Only looks; `labelstudio_config.intake` is what mends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import CytoloopError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.tiling import tiles_of
from labelstudio_config.intake import check_identity
from labelstudio_config.payloads import drawn_mask, parse_task_data, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Completeness:
    """Store and Label Studio side by side; each of the tuples says what, in words."""

    tasks: int
    annotations: int
    """In Label Studio, skipped ones too."""
    equal: int
    """Annotations whose mask, or skip, is in the store bit by bit."""
    missing: tuple[str, ...]
    """In Label Studio only."""
    different: tuple[str, ...]
    """In both, but not the same."""
    undeleted: tuple[str, ...]
    """In the store only: deleted in Label Studio, and not buried here."""
    unreadable: tuple[str, ...]
    """In Label Studio, and no mask of this assay: kept as doubts."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing lacks, differs or lives on."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[str, ...]:
        """All that lacks, differs or lives on."""
        return (*self.missing, *self.different, *self.undeleted)


def compare(store: Store, label_studio: LabelStudio, assay: Assay) -> Completeness:
    """Compare every annotation of an assay's project with the store.

    Masks are drawn anew from what Label Studio holds, and compared by their digest. What was changed while this
    looked may be told as different: look again.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    latest: dict[int, Mapping[str, Any]] = {}
    for row in store.corrections.revisions(assay.name):
        known = latest.get(row["annotation_id"])
        if known is None or row["annotated_at"] >= known["annotated_at"]:
            latest[row["annotation_id"]] = row
    tasks = equal = 0
    seen: set[int] = set()
    missing: list[str] = []
    different: list[str] = []
    unreadable: list[str] = []
    for task in label_studio.iter_tasks(project_id):
        tasks += 1
        for annotation in task.get("annotations") or []:
            annotation_id = annotation["id"]
            seen.add(annotation_id)
            where = f"task {task['id']}, annotation {annotation_id} of {annotation.get('updated_at')}"
            try:
                kind, mask = _theirs(store, assay, task, annotation)
            except CytoloopError as error:
                unreadable.append(f"{where}: {error}")
                continue
            ours = latest.get(annotation_id)
            if ours is None or ours["kind"] == "deleted":
                missing.append(f"{where}: {'not in the store' if ours is None else 'deleted in the store'}")
            elif (ours["kind"], ours["mask"]) != (kind, mask):
                moment = parse_time(annotation.get("updated_at"), where).isoformat()
                different.append(
                    f"{where}: the store has {ours['kind']} of {ours['annotated_at']}, not {kind} of {moment}"
                )
            else:
                equal += 1
    living = store.corrections.living_annotations(assay.name)
    return Completeness(
        tasks=tasks,
        annotations=len(seen),
        equal=equal,
        missing=tuple(missing),
        different=tuple(different),
        undeleted=tuple(
            f"task {task_id}, annotation {number}: not in Label Studio any more"
            for number, (_, task_id) in sorted(living.items())
            if number not in seen
        ),
        unreadable=tuple(unreadable),
    )


def _theirs(
    store: Store, assay: Assay, task: Mapping[str, Any], annotation: Mapping[str, Any]
) -> tuple[str, str | None]:
    """Kind and mask digest that the store must have of an annotation."""
    task_id = task["id"]
    item = check_identity(store, assay.name, task_id, parse_task_data(task.get("data"), f"task {task_id}"))
    if annotation.get("was_cancelled"):
        return "skipped", None
    record = store.images.get(assay.name, item.image_id)
    tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
    where = f"task {task_id}: annotation {annotation['id']}"
    drawn = drawn_mask(annotation.get("result"), assay, (tile.height, tile.width), where)
    return "submitted", digest_of_pixels(drawn.mask_HW)
