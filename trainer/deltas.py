"""What experts changed since the last cycle: each correction against the prediction it started from."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.adapters.store.imported import is_imported
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import ErrorTypes, correction_delta, no_errors
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, Role
from cytoloop.pipeline.consensus import readings
from cytoloop.pipeline.judging import predicted_masks
from cytoloop.pipeline.predictors import Predictor
from trainer.report import Changes, CorrectedItem, ProposalErrors, Start, class_errors

logger = logging.getLogger(__name__)


def fresh_corrections(
    store: Store, assay: Assay, cycle_id: str, standing: Mapping[Item, StoredCorrection]
) -> list[StoredCorrection]:
    """Those saved since the last finished cycle began; all of them before the first.

    Of a consensus they are the readings it was made of: what an expert changed is told by the expert's own mask.
    """
    done = [c for c in store.cycles.all(assay.name) if c["state"] == "done" and c["id"] != cycle_id]
    since = datetime.fromisoformat(done[-1]["started_at"]) if done else None
    fresh = [c for c in standing.values() if since is None or c.annotated_at > since]
    if not any(c.readers for c in fresh):
        return fresh
    own = readings(store, assay)
    return [
        reading
        for held in fresh
        for reading in (own.get(held.item, []) if held.readers else [held])
        # what came after ``standing`` was read is of the next cycle
        if reading.annotated_at <= held.annotated_at and (since is None or reading.annotated_at > since)
    ]


def _role(store: Store, assay: str, correction: StoredCorrection) -> Role | None:
    """What this expert was given the item for; a second look or a gold reading is no sample of the ranking."""
    of_expert = [
        lease.role
        for lease in store.leases.of_item(assay, correction.item)
        if lease.expert in (correction.expert, SHARED)
    ]
    return of_expert[-1] if of_expert else None


def start_of(correction: StoredCorrection) -> Start:
    """What an expert began with.

    A mask from elsewhere is no prediction: no model is to be credited with it. No known version and only regions drawn by hand (or none): an empty canvas. Regions of a prediction
    whose version Label Studio had forgotten before it was asked, or of a script: unknown.
    """
    if is_imported(correction.parent_version):
        return "imported"
    if correction.parent_version is not None:
        return "prediction"
    return "blank" if set(correction.origins) <= {"manual"} else "unknown"


def corrected_items(
    store: Store,
    assay: Assay,
    corrections: Iterable[StoredCorrection],
    predictor_of: Callable[[str], Predictor],
) -> tuple[tuple[CorrectedItem, ...], tuple[ProposalErrors, ...]]:
    """Compare each correction with what the expert was shown.

    The store knows the version whose prediction was shown, not its mask: that version is asked again.
    Where it is unknown, or its files are gone, the item says so and has no changes.

    Parameters
    ----------
    predictor_of : callable
        Opens a version; raises ``InputError`` where that is no longer possible.

    Returns
    -------
    items : tuple of CorrectedItem
        By image, tile and expert.
    proposals : tuple of ProposalErrors
        What was wrong with the predictions shown, by version; corrections taken as the truth.
    """
    corrections = list(corrections)
    roles = {
        (correction.item, correction.expert): _role(store, assay.name, correction)
        for correction in corrections
    }
    by_version: defaultdict[str, list[StoredCorrection]] = defaultdict(list)
    told: list[CorrectedItem] = []
    for correction in corrections:
        start = start_of(correction)
        if start == "prediction" and correction.parent_version is not None:
            by_version[correction.parent_version].append(correction)
        elif start == "imported" and (before_HW := _imported_mask(store, assay, correction)) is not None:
            truth_HW = store.masks.get(correction.mask)
            told.append(_compared(assay, correction, start, before_HW, truth_HW)[0])
        elif start == "blank":
            truth_HW = store.masks.get(correction.mask)
            told.append(_compared(assay, correction, start, np.zeros_like(truth_HW), truth_HW)[0])
        else:
            told.append(_item(correction, start))
    proposals = []
    for version, of_version in sorted(by_version.items()):
        try:
            predictor = predictor_of(version)
        except InputError as error:
            logger.warning("corrections not compared version=%s: %s", version, error)
            told += [_item(correction, "prediction") for correction in of_version]
            continue
        masks = dict(predicted_masks(store, assay, predictor, (c.item for c in of_version)))
        errors = no_errors(assay.class_count)
        for correction in of_version:
            item, found = _compared(
                assay, correction, "prediction", masks[correction.item], store.masks.get(correction.mask)
            )
            told.append(item)
            errors += found
        proposals.append(
            ProposalErrors(
                version=version, items=len(of_version), classes=class_errors(errors, assay.class_names)
            )
        )
    with_roles = [
        replace(one, role=roles.get((Item(image_id=one.image_id, tile=one.tile), one.expert))) for one in told
    ]
    return tuple(sorted(with_roles, key=lambda one: (one.image_id, one.tile, one.expert))), tuple(proposals)


def _imported_mask(store: Store, assay: Assay, correction: StoredCorrection) -> NDArray[np.uint8] | None:
    """What was imported for an item that was begun with it."""
    version, item = correction.parent_version, correction.item
    digest = None if version is None else store.imported.of_version(assay.name, version).get(item.image_id)
    if digest is None:
        return None
    mask_HW = store.masks.get(digest)
    return mask_HW[tiles_of(mask_HW.shape[0], mask_HW.shape[1], assay.tiling)[item.tile].slices]


def _compared(
    assay: Assay,
    correction: StoredCorrection,
    start: Start,
    before_HW: NDArray[np.uint8],
    after_HW: NDArray[np.uint8],
) -> tuple[CorrectedItem, ErrorTypes]:
    delta = correction_delta(before_HW, after_HW, assay.class_count)
    return _item(correction, start, Changes.from_delta(delta)), delta.errors


def _item(correction: StoredCorrection, start: Start, changes: Changes | None = None) -> CorrectedItem:
    seconds = correction.lead_time_s
    return CorrectedItem(
        image_id=correction.item.image_id,
        tile=correction.item.tile,
        expert=correction.expert,
        start=start,
        version=correction.parent_version,
        minutes=None if seconds is None else seconds / 60,
        changes=changes,
    )
