"""``cytoloop import``: a plate into the store and into Label Studio, pre-annotated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.mask_folder import masks_of
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError
from cytoloop.domain.scale import scale_warnings
from cytoloop.domain.types import SPLITS
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store
from labelstudio_config.handout import refill
from labelstudio_config.imported import check_masks, put_masks, show_masks
from labelstudio_config.project import connect, import_tasks, set_up_project
from labelstudio_config.publish import publish

Tell = Callable[[str, int, int], None]
"""(what is being done, done, total)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What an import brought in."""

    assay: str
    images: int
    new_images: int
    weak_labels: int
    new_tasks: int
    groups: dict[str, int]
    """Groups (wells) by split."""
    active_version: str
    project_id: int
    warnings: tuple[str, ...] = ()
    """What a person should know: images at another scale than the assay's."""
    masks: int = 0
    """Images with a mask from elsewhere, new or known."""
    masks_version: str | None = None
    """Under which name the new ones of them are kept; None if none is new."""


def import_plate(
    home: Home, source: Path, assay: Assay, tell: Tell, masks: Path | None = None
) -> ImportSummary:
    """Bring a plate in; the same plate again changes nothing.

    Every image is read before the first is stored: a plate with a bad image leaves no trace.

    Parameters
    ----------
    masks : Path, optional
        Folder of masks, ``<image_id>.png``, that experts are to edit and models learn from in the place of CIP's.
        Every one is checked, through the editor's regions and back, before the first image is stored.
    """
    store = home.store
    home.label_studio.whoami()  # before the first image is read: a wrong token is quick to mend
    records = read_plate(source, assay, progress=lambda done, total: tell("read images", done, total))
    files = [] if masks is None else masks_of(masks, records)
    digests = check_masks(files, assay, lambda done, total: tell("check masks", done, total))
    with exclusive(home.settings.home, assay.name, on_wait=lambda: tell("wait for a running cycle", 0, 1)):
        store.assays.ensure(assay)
        brought = put_masks(store, assay, files, digests)
        with store.transaction():
            new = store.images.add(assay, records)
            store.imported.add(assay.name, brought)
        weak = weak_label_store(store, assay, lambda done, total: tell("weak labels (CIP)", done, total))
        ensure_cip_version(store, home.registry, assay)
        project_id = set_up_project(home.label_studio, store, assay)
        tasks = import_tasks(home.label_studio, store, assay, tell)
        active = store.models.active(assay.name)
        if tasks or not store.leases.held(assay.name):
            predictor = load_predictor(store, home.registry, assay, active, home.settings.device)
            publish(home.label_studio, store, assay, predictor, tell)
            refill(home.label_studio, store, assay)
        if files:
            show_masks(home.label_studio, store, assay, digests.keys())
    splits = list(store.images.groups(assay.name).values())
    return ImportSummary(
        assay=assay.name,
        images=len(records),
        new_images=len(new),
        weak_labels=weak,
        new_tasks=tasks,
        groups={split: splits.count(split) for split in SPLITS},
        active_version=active.version,
        project_id=project_id,
        warnings=tuple(scale_warnings(records, assay)),
        masks=len(files),
        masks_version=brought[0].version if brought else None,
    )


def connect_backend(home: Home, assay: Assay) -> str | None:
    """Let Label Studio know the backend and send it events; what keeps it from that, None if nothing does.

    Label Studio asks the backend at once, so it must be running.
    """
    try:
        connect(home.label_studio, home.store, assay, home.settings)
    except CytoloopError as error:
        return str(error)
    return None
