"""What experts changed since the last cycle: each correction against the prediction it started from."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import ErrorTypes, correction_delta, no_errors
from cytoloop.domain.types import Item
from cytoloop.pipeline.judging import predicted_masks
from cytoloop.pipeline.predictors import Predictor
from trainer.report import Changes, CorrectedItem, ProposalErrors, Start, class_errors

logger = logging.getLogger(__name__)


def fresh_corrections(
    store: Store, assay: str, cycle_id: str, standing: Mapping[Item, StoredCorrection]
) -> list[StoredCorrection]:
    """Those saved since the last finished cycle began; all of them before the first."""
    done = [c for c in store.cycles.all(assay) if c["state"] == "done" and c["id"] != cycle_id]
    since = datetime.fromisoformat(done[-1]["started_at"]) if done else None
    return [c for c in standing.values() if since is None or c.annotated_at > since]


def start_of(correction: StoredCorrection) -> Start:
    """What an expert began with.

    No known version and only regions drawn by hand (or none): an empty canvas. Regions of a prediction
    whose version Label Studio had forgotten before it was asked, or of a script: unknown.
    """
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
        By image and tile.
    proposals : tuple of ProposalErrors
        What was wrong with the predictions shown, by version; corrections taken as the truth.
    """
    by_version: defaultdict[str, list[StoredCorrection]] = defaultdict(list)
    told: list[CorrectedItem] = []
    for correction in corrections:
        start = start_of(correction)
        if correction.parent_version is not None:
            by_version[correction.parent_version].append(correction)
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
    return tuple(sorted(told, key=lambda one: (one.image_id, one.tile))), tuple(proposals)


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
