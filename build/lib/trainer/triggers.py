"""What makes a cycle due: each trigger of the policy asked in turn, the first that holds tells why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cytoloop.adapters.cron import next_time
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.metrics import mean_ignoring_nan
from cytoloop.domain.metrics.pixels import confusion_matrix
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.trainer_policy import Triggers
from cytoloop.domain.types import Item
from labelstudio_config.payloads import drawn_mask

AGREEMENT_SAMPLE = 10
"""Corrections that the first and the latest agreement are each a mean of."""


def due(store: Store, assay: Assay, triggers: Triggers, now: datetime | None = None) -> str | None:
    """Why a cycle is due, in words; None if it is not.

    Counted is what came in since the last cycle began, whichever wells it is of: corrections of contest wells may
    decide for a candidate that waits. A failed cycle counts as one: what made it fail would else make it fail again
    at every look. Times that were missed (the machine was off) make one cycle, not many.
    """
    now = now or datetime.now(UTC)
    last = store.cycles.last_training(assay.name)
    since = last["started_at"] if last else ""
    new = [
        revision
        for revision in store.corrections.revisions(assay.name)
        if revision["kind"] == "submitted" and revision["received_at"] > since
    ]
    if triggers.corrections is not None and len(new) >= triggers.corrections:
        return f"{len(new)} corrections since the last cycle, {triggers.corrections} were waited for"
    minutes = sum(revision["lead_time_s"] or 0.0 for revision in new) / 60
    if triggers.minutes is not None and minutes >= triggers.minutes:
        return (
            f"{minutes:.0f} minutes of expert work since the last cycle, {triggers.minutes:g} were waited for"
        )
    if triggers.cron is not None and _is_time(triggers.cron, last, now):
        return f"the schedule {triggers.cron!r}"
    if triggers.agreement_fall is not None and new:
        return _fallen_agreement(store, assay, triggers.agreement_fall)
    return None


def _is_time(cron: str, last: Mapping[str, Any] | None, now: datetime) -> bool:
    """Whether the schedule has named a moment since the last cycle; before the first, any moment is as good."""
    if last is None:
        return True
    began = datetime.fromisoformat(last["started_at"]).astimezone()
    named = next_time(cron, began)
    return named is not None and named <= now


def _fallen_agreement(store: Store, assay: Assay, fall: float) -> str | None:
    """Whether experts change more of what the active version proposes than they did when it was new."""
    version = store.models.active(assay.name).version
    corrected = sorted(
        (c for c in store.corrections.standing(assay.name).values() if c.parent_version == version),
        key=lambda correction: correction.annotated_at,
    )
    if len(corrected) < 2 * AGREEMENT_SAMPLE:
        return None
    first = _agreement(store, assay, version, {c.item: c.mask for c in corrected[:AGREEMENT_SAMPLE]})
    latest = _agreement(store, assay, version, {c.item: c.mask for c in corrected[-AGREEMENT_SAMPLE:]})
    if first is None or latest is None or first - latest < fall:
        return None
    return (
        f"experts' agreement with {version} fell from {first:.2f} to {latest:.2f} mean Dice between its first and its "
        f"latest {AGREEMENT_SAMPLE} corrected items"
    )


def _agreement(store: Store, assay: Assay, version: str, masks: Mapping[Item, str]) -> float | None:
    """Mean Dice of the drawn classes between proposals and corrections, pixels summed over the items."""
    confusion_KK = np.zeros((assay.class_count, assay.class_count), np.int64)
    for item, digest in masks.items():
        stored = store.predictions.get(assay.name, version, item)
        if stored is None:
            continue
        record = store.images.get(assay.name, item.image_id)
        tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
        proposed = drawn_mask(stored.result, assay, (tile.height, tile.width), f"{item.image_id}/{item.tile}")
        confusion_KK += confusion_matrix(store.masks.get(digest), proposed.mask_HW, assay.class_count)
    drawn_K = np.arange(1, assay.class_count)
    sizes_K = (confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1))[drawn_K]
    both_K = confusion_KK.diagonal()[drawn_K]
    dice_K = np.divide(2.0 * both_K, sizes_K, out=np.full(len(drawn_K), np.nan), where=sizes_K > 0)
    mean = float(mean_ignoring_nan(dice_K))
    return None if np.isnan(mean) else mean
