"""What is known of each well at the end of a cycle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.metrics import confusion_matrix, mean_ignoring_nan, number_or_none
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.types import ImageRecord
from cytoloop.pipeline.judging import JudgedItem
from trainer.report.wells import WellScore


def well_scores(
    store: Store,
    assay: Assay,
    standing: Iterable[StoredCorrection],
    judged: Iterable[JudgedItem],
) -> tuple[WellScore, ...]:
    """Every well of every plate, of plates that have wells.

    Parameters
    ----------
    standing : iterable of StoredCorrection
        The corrections that count as the truth.
    judged : iterable of JudgedItem
        What the version in use says of those of wells that no model learned from.
    """
    of_well: defaultdict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
    place: dict[str, tuple[str, str]] = {}
    for record in store.images.all(assay.name):
        if record.well:
            place[record.image_id] = record.plate, record.well
            of_well[place[record.image_id]].append(record)
    corrected: defaultdict[tuple[str, str], list[StoredCorrection]] = defaultdict(list)
    for correction in standing:
        if correction.item.image_id in place:
            corrected[place[correction.item.image_id]].append(correction)
    measured: defaultdict[tuple[str, str], list[JudgedItem]] = defaultdict(list)
    for one in judged:
        if one.correction.item.image_id in place:
            measured[place[one.correction.item.image_id]].append(one)
    tiles = assay.tiling[0] * assay.tiling[1]
    return tuple(
        WellScore(
            plate=plate,
            well=well,
            split=records[0].split,
            treatment=_one_of({record.treatment for record in records}),
            items=len(records) * tiles,
            corrected=len(corrected[plate, well]),
            minutes=sum(c.lead_time_s or 0.0 for c in corrected[plate, well]) / 60,
            mean_iou=_mean_iou(measured[plate, well], assay.class_count),
        )
        for (plate, well), records in sorted(of_well.items())
    )


def _one_of(treatments: set[str]) -> str:
    return next(iter(treatments)) if len(treatments) == 1 else ""


def _mean_iou(judged: Sequence[JudgedItem], class_count: int) -> float | None:
    """Mean IoU over the classes that the corrections hold, pixels of all items together, as in the contest."""
    if not judged:
        return None
    confusion_KK = sum(confusion_matrix(one.truth_HW, one.pred_HW, class_count) for one in judged)
    return number_or_none(float(mean_ignoring_nan(iou_of_present(np.asarray(confusion_KK)))))
