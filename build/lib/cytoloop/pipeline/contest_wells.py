"""How far the contest wells of a home are, read from the store: for a report by name, for a queue by number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import numpy as np

from cytoloop.adapters.masks import Masks
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.contest_needs import ContestNeeds, ContestWell, contest_needs, lacking_of
from cytoloop.domain.promotion import ContestDecision
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.trainer_policy import ContestPolicy
from cytoloop.domain.types import Item
from cytoloop.pipeline.weak_labels import weak_masks

BLANK = "no pixel of it was looked at"
"""Why a correction that left every pixel out does not count."""


def needed_wells(
    store: Store,
    assay: Assay,
    decision: ContestDecision | None = None,
    waiting: Mapping[Item, str] | None = None,
    standing: Mapping[Item, StoredCorrection] | None = None,
    policy: ContestPolicy | None = None,
) -> ContestNeeds:
    """Name the wells that the contest of an assay needs.

    Reads a weak mask for each contest image where a class is lacking: for once a cycle, not for each batch.

    Parameters
    ----------
    decision : ContestDecision, optional
        What it lacked; None: what it would lack now.
    waiting : mapping of Item to str, optional
        Corrected items that do not count yet, and why, as ``consensus.counted`` gives them; None: those that
        fewer experts have read than are to.
    standing : mapping of Item to StoredCorrection, optional
        The corrections the contest was held with; None: those that stand now. Other splits may be among them.
    policy : ContestPolicy, optional
        None: that of the assay's ``trainer`` block.
    """
    policy = policy or assay.trainer.contest
    if standing is None:
        standing = store.corrections.standing(assay.name)
    wells = contest_wells(store, assay, waiting, standing)
    lacking = lacking_of(wells, assay.class_names, policy) if decision is None else decision.lacking
    seen = _seen_by_cip(store, assay, lacking.classes, standing) if lacking.classes else {}
    return contest_needs(wells, policy, lacking, assay=assay.name, seen=seen)


def contest_wells(
    store: Store,
    assay: Assay,
    waiting: Mapping[Item, str] | None = None,
    standing: Mapping[Item, StoredCorrection] | None = None,
) -> list[ContestWell]:
    """How far every contest well is; parameters as for `needed_wells`.

    Looks at corrections alone, of which there are few beside images.
    """
    if standing is None:
        standing = store.corrections.standing(assay.name)
    contest = {item: c for item, c in standing.items() if c.split == "contest"}
    if waiting is None:
        waiting = _short_of_readers(store, assay, contest)
    of_group: dict[str, list[StoredCorrection]] = {
        group: [] for group, split in store.images.groups(assay.name).items() if split == "contest"
    }
    for correction in contest.values():
        of_group[correction.group].append(correction)
    return [_well(store.masks, assay, group, found, waiting) for group, found in sorted(of_group.items())]


def _well(
    masks: Masks,
    assay: Assay,
    group: str,
    corrections: Iterable[StoredCorrection],
    waiting: Mapping[Item, str],
) -> ContestWell:
    read, held, reasons = 0, set[int](), []
    for correction in corrections:
        read += 1
        if correction.item in waiting:
            reasons.append(waiting[correction.item])
        elif values := _values_in(masks, correction.mask, assay.class_count):
            held |= values
        else:
            reasons.append(BLANK)
    return ContestWell(
        group=group,
        read=read,
        classes=frozenset(assay.class_names[value] for value in held) if held else None,
        waiting="" if held or not reasons else reasons[0],
    )


def _short_of_readers(store: Store, assay: Assay, items: Iterable[Item]) -> dict[Item, str]:
    """Items that too few experts have read so far.

    Whether those who did agree is not looked at: where they do not, a further reader settles it, and no other well.
    """
    roles = store.leases.roles(assay.name, items).values()
    shared = {role.item: role.readers for role in roles if role.role == "contest" and role.readers > 1}
    if not shared:
        return {}
    readings = store.corrections.readings(assay.name)
    return {
        item: f"read by {count} of {wanted} experts so far"
        for item, wanted in shared.items()
        if (count := len(readings.get(item, ()))) < wanted
    }


def _seen_by_cip(
    store: Store, assay: Assay, names: Iterable[str], corrected: Collection[Item]
) -> dict[str, dict[str, int]]:
    """By class, then contest well: its pixels in the weak masks of items that nobody corrected."""
    seen: dict[str, dict[str, int]] = {name: {} for name in names}
    masks = weak_masks(store, assay)
    for record in store.images.all(assay.name, ["contest"]):
        if record.image_id not in masks:
            continue
        mask_HW = store.masks.get(masks[record.image_id])
        for tile in tiles_of(record.height, record.width, assay.tiling):
            if Item(image_id=record.image_id, tile=tile.index) in corrected:
                continue
            pixels_K = np.bincount(mask_HW[tile.slices].ravel(), minlength=assay.class_count)
            for name, pixels in seen.items():
                more = int(pixels_K[assay.class_names.index(name)])
                pixels[record.group] = pixels.get(record.group, 0) + more
    return seen


@lru_cache(maxsize=4096)
def _values_in(masks: Masks, digest: str, class_count: int) -> frozenset[int]:
    """Classes of a stored mask by pixel value; a mask never changes, and each batch asks for the same ones."""
    pixels_K = np.bincount(masks.get(digest).ravel(), minlength=class_count)[:class_count]
    return frozenset(np.flatnonzero(pixels_K).tolist())
