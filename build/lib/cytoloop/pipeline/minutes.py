"""How long experts take beside what the fixed prices expect, fitted on their lead times so far."""

from __future__ import annotations

from cytoloop.adapters.store import Store
from cytoloop.domain.expected_effort import MinutesModel, Timing, fit_minutes
from cytoloop.domain.types import Correction, Item


def minutes_model(store: Store, assay: str) -> MinutesModel:
    """The model of all corrections of training wells so far; the fixed prices before the first."""
    return fit_minutes(store.handouts.timings(assay))


def note_time(store: Store, assay: str, correction: Correction) -> bool:
    """Learn from the time a correction took, where it is known what it was expected to take.

    Only training wells teach, and only what was corrected from the proposal that the estimate was made for.
    """
    version, seconds = correction.parent_version, correction.lead_time_s
    if version is None or seconds is None:
        return False
    item = Item(image_id=correction.image_id, tile=correction.tile)
    for strategy in store.scores.strategies(assay, version)[:1]:
        scored = store.scores.get(assay, version, strategy, [item]).get(item)
        expected = None if scored is None else scored.candidate.minutes
        if scored is not None and scored.candidate.split == "train" and expected:
            timing = Timing(expert=correction.expert, expected_minutes=expected, lead_time_s=seconds)
            store.handouts.add_timing(assay, correction.annotation_id, timing)
            return True
    return False
