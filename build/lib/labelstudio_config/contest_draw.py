"""How many contest items a batch draws, and of which wells first: more, for as long as the contest lacks wells.

A contest that lacks wells decides nothing, however good the challenger: until then nothing an expert could
correct is worth more. All of this is read from the store for each batch, and nothing is remembered.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.contest_needs import ContestWell, Lacking, lacking_of
from cytoloop.domain.errors import ImageUnreadable
from cytoloop.domain.queue_policy import SHARES, QueuePolicy
from cytoloop.pipeline.contest_wells import contest_wells

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestDraw:
    """How a batch draws its contest items."""

    policy: QueuePolicy
    """The queue's, with the contest share of this batch."""
    turns: Mapping[str, int] = field(default_factory=dict)
    """By contest well, its items that are corrected (or held, while wells are lacking): a well with fewer comes
    before one with more."""
    is_short: bool = False
    """Whether the contest lacks wells."""


def contest_draw(store: Store, assay: Assay, policy: QueuePolicy, places: int) -> ContestDraw:
    """How a batch of so many places draws its contest items.

    The share is raised to as many items as wells are lacking that nobody works on already, at most to half the
    batch, and is never lowered. A share of 0 stays 0: somebody chose it.
    """
    if not policy.contest_share:
        return ContestDraw(policy=policy)
    try:
        wells = contest_wells(store, assay)
    except (
        ImageUnreadable
    ) as error:  # the cycle fails by it; work that is there can be handed out all the same
        logger.warning("contest share as in the policy, a correction cannot be read: %s", error)
        return ContestDraw(policy=policy)
    lacking = lacking_of(wells, assay.class_names, assay.trainer.contest)
    if not lacking:
        return ContestDraw(policy=policy, turns={well.group: well.read for well in wells})
    held = _held(store, assay)
    wanted = wanted_items(lacking, wells, held)
    return ContestDraw(
        policy=with_contest_share(policy, min(wanted, places // 2) / places),
        turns={well.group: well.read + held[well.group] for well in wells},
        is_short=True,
    )


def wanted_items(lacking: Lacking, wells: Sequence[ContestWell], held: Mapping[str, int]) -> int:
    """Contest items, each of another well, that the contest lacks and nobody works on.

    A well is being worked on where somebody holds an item of it, or a corrected one waits for a second reader.

    Parameters
    ----------
    held : mapping of str to int
        By well, contest items that somebody holds.

    Examples
    --------
    >>> wells = [ContestWell(group=name) for name in "ABC"]
    >>> wanted_items(Lacking(groups=12), wells, {"B": 1})
    2
    """

    def wanted(missing: int, useful: Sequence[ContestWell]) -> int:
        begun = sum(bool(held.get(well.group) or well.waiting) for well in useful)
        return max(0, min(missing, len(useful)) - begun)

    asked = [wanted(lacking.groups, [well for well in wells if well.classes is None])]
    for name, missing in lacking.classes.items():
        asked.append(wanted(missing, [w for w in wells if w.classes is None or name not in w.classes]))
    return max(asked)


def with_contest_share(policy: QueuePolicy, share: float) -> QueuePolicy:
    """A policy whose contest share is at least so large; the others make room where all are more than 1.

    Examples
    --------
    >>> raised = with_contest_share(QueuePolicy(validation_share=0.6, audit_share=0.15, sealed_share=0), 0.5)
    >>> round(raised.validation_share, 3), round(raised.audit_share, 3)
    (0.4, 0.1)
    """
    if share <= policy.contest_share:
        return policy
    others = {key: getattr(policy, key) for key in SHARES if key != "contest_share"}
    total = sum(others.values())
    shrunk = min(1.0, (1.0 - share) / total) if total else 1.0
    return replace(policy, contest_share=share, **{key: shrunk * other for key, other in others.items()})


def _held(store: Store, assay: Assay) -> Counter[str]:
    """By well, contest items that somebody holds."""
    items = {lease.item for lease in store.leases.held(assay.name) if lease.role == "contest"}
    return Counter(store.images.get(assay.name, item.image_id).group for item in items)
