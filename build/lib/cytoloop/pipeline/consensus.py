"""What experts hold together: the correction of each item that training, contests and reports take.

One reader's mask stands as it is. Of several readers of an item a consensus is made
(:mod:`cytoloop.domain.consensus`), stored like any mask, under its content.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from math import isnan

from cytoloop.adapters.masks import Masks
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.agreement import compare
from cytoloop.domain.assay import Assay
from cytoloop.domain.consensus import consensus_of
from cytoloop.domain.types import Item

logger = logging.getLogger(__name__)

LEAST_DICE = 0.7
"""Mean Dice over the foreground classes from which a second reader agrees with the first."""


def readings(store: Store, assay: Assay) -> dict[Item, list[StoredCorrection]]:
    """What each expert says of each item, the latest last.

    A mask that was looked at again, because an audit asked for it, gives way to the answer: who looked again
    did not read blindly, and where the two differ the first is the one in doubt.
    """
    answered = store.reviews.answered(assay.name)
    found = {}
    for item, of_item in store.corrections.readings(assay.name).items():
        left = [
            reading
            for reading in of_item
            if (asked := answered.get((item, reading.mask))) is None
            or not any(o.expert != reading.expert and o.annotated_at > asked for o in of_item)
        ]
        # two who each answered a doubt about the other's mask: what was said last holds
        found[item] = left or of_item[-1:]
    return found


def agreed(store: Store, assay: Assay) -> dict[Item, StoredCorrection]:
    """The correction that holds for each item.

    Where several experts read it, ``mask`` is their consensus, ``readers`` are their names,
    ``lead_time_s`` is the time of all of them, and everything else is the latest reading's.
    """
    held: dict[Item, StoredCorrection] = {}
    settled: dict[str, int] = {}
    for item, of_item in readings(store, assay).items():
        last = of_item[-1]
        if len(of_item) == 1:
            held[item] = last
            continue
        mask, method = _consensus_mask(
            store.masks, tuple(sorted(reading.mask for reading in of_item)), assay.class_count
        )
        settled[method] = settled.get(method, 0) + 1
        names = tuple(sorted(reading.expert for reading in of_item))
        times = [reading.lead_time_s for reading in of_item if reading.lead_time_s is not None]
        held[item] = replace(
            last,
            mask=mask,
            expert=f"consensus of {', '.join(names)}",
            readers=names,
            lead_time_s=sum(times) if times else None,
        )
    if settled:
        told = " ".join(f"{method}={count}" for method, count in sorted(settled.items()))
        logger.info("consensus assay=%s %s", assay.name, told)
    return held


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Corrections that may judge models, and those that may not yet."""

    corrections: dict[Item, StoredCorrection]
    waiting: dict[Item, str]
    """Why an item does not count yet, in words."""


def counted(
    store: Store,
    assay: Assay,
    corrections: Mapping[Item, StoredCorrection],
    wanted: Mapping[Item, int],
    *,
    least_dice: float = LEAST_DICE,
) -> Counted:
    """Hold back items that wait for a second reader, or whose readers do not agree.

    Parameters
    ----------
    corrections : mapping of Item to StoredCorrection
        As :func:`agreed` gives them; items of other splits may be among them.
    wanted : mapping of Item to int
        How many experts must agree on an item; items that are not named count as they are.
    least_dice : float
        Mean Dice over the foreground classes that either reader has, 0…1, from which two agree. Two
        empty masks agree.

    Returns
    -------
    Counted
        An item counts once so many of its readers agree with each other, two by two; a further
        reader may settle what two did not.
    """
    found = readings(store, assay)
    kept: dict[Item, StoredCorrection] = {}
    waiting: dict[Item, str] = {}
    for item, correction in corrections.items():
        reason = _why_not(store.masks, assay, found.get(item, []), wanted.get(item, 1), least_dice)
        if reason is None:
            kept[item] = correction
        else:
            waiting[item] = reason
    return Counted(corrections=kept, waiting=waiting)


def _why_not(
    masks: Masks, assay: Assay, of_item: Sequence[StoredCorrection], wanted: int, least_dice: float
) -> str | None:
    """None if an item counts."""
    if wanted <= 1:
        return None
    if len(of_item) < wanted:
        names = ", ".join(reading.expert for reading in of_item) or "nobody"
        return f"read by {len(of_item)} of {wanted} experts so far ({names})"
    read = {reading.expert: masks.get(reading.mask) for reading in of_item}
    dice = {
        frozenset(pair): compare(read[pair[0]], read[pair[1]], assay.class_count).mean_dice
        for pair in combinations(read, 2)
    }
    for some in combinations(read, wanted):
        if all(dice[frozenset(pair)] >= least_dice for pair in combinations(some, 2)):
            return None
    known = {pair: value for pair, value in dice.items() if not isnan(value)}
    if not known:
        return f"{' and '.join(sorted(read))} have no pixel that two of them looked at"
    best = max(known, key=lambda pair: known[pair])
    return (
        f"{' and '.join(sorted(best))} agree by a mean Dice of {known[best]:.2f}, expected at least "
        f"{least_dice:.2f}: a further reader may settle it"
    )


@lru_cache(maxsize=4096)
def _consensus_mask(masks: Masks, digests: tuple[str, ...], class_count: int) -> tuple[str, str]:
    """Digest of the consensus of stored masks, and how it came about; every cycle asks for the same ones."""
    consensus = consensus_of([masks.get(digest) for digest in digests], class_count)
    return masks.put(consensus.mask_HW), consensus.method
