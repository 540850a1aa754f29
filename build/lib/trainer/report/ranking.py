"""What the ranking is worth, live: items it chose beside items drawn at random from the same wells.

Both kinds show the same proposals and are corrected by the same experts, so what differs is the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cytoloop.domain.metrics import iou_of, mean_ignoring_nan, number_or_none
from cytoloop.domain.types import Role
from trainer.report.changes import Changes, CorrectedItem

FEWEST_ITEMS = 5
"""Below which a median tells nothing, of either kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemWork:
    """What one item took."""

    minutes: float | None
    """By the editor's clock; None where it did not tell."""
    objects_changed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalAgreement:
    """How well the proposals of some items agreed with their corrections, and what the difference took."""

    items: int
    """Corrected items whose proposal is known; one that two experts read counts twice."""
    mean_iou: float | None
    """Of the pixels of all items together, over the classes that proposals or corrections hold. None over
    several cycles, whose proposals are of several versions."""
    minutes: float | None
    """Median of the items whose time is known."""
    objects_changed: float | None
    """Median: added, removed, of another class, or reshaped."""
    objects_per_minute: float | None
    """Median of the items whose time is known."""
    work: tuple[ItemWork, ...]
    """By item, so that cycles can be put together."""

    @classmethod
    def of_items(cls, compared: Sequence[tuple[CorrectedItem, Changes]]) -> ProposalAgreement:
        """Sum up items of one cycle."""
        tables = [changes.class_to_class for _, changes in compared]
        return _agreement(
            [
                ItemWork(minutes=item.minutes, objects_changed=changes.objects_changed)
                for item, changes in compared
            ],
            number_or_none(float(mean_ignoring_nan(iou_of(np.sum(tables, axis=0))))) if tables else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPoint:
    """Ranked items and items drawn at random that were corrected in one cycle.

    Items for several readers are in neither, though most are ranked: they are drawn from the ranked ones
    at random, so leaving them out favours nobody.
    """

    cycle: str
    expert_minutes: float
    """Since the beginning, all items."""
    ranked: ProposalAgreement
    audit: ProposalAgreement
    """Drawn at random from the wells that teach."""


def audit_point(cycle: str, expert_minutes: float, corrected: Sequence[CorrectedItem]) -> AuditPoint | None:
    """What a cycle's corrections say; None if none is of an item of either kind whose proposal is known."""
    ranked, audit = (ProposalAgreement.of_items(_compared(corrected, role)) for role in ("ranked", "audit"))
    if not ranked.items and not audit.items:
        return None
    return AuditPoint(cycle=cycle, expert_minutes=expert_minutes, ranked=ranked, audit=audit)


def together(parts: Sequence[ProposalAgreement]) -> ProposalAgreement:
    """The same kind of items over several cycles."""
    return _agreement([one for part in parts for one in part.work], None)


def worth_in_words(points: Sequence[AuditPoint], corrected: Sequence[CorrectedItem]) -> str:
    """One sentence on what the ranking is worth over all cycles; where that cannot be said, why."""
    if not points:
        return _why_nothing(corrected)
    ranked, audit = together([p.ranked for p in points]), together([p.audit for p in points])
    if not audit.items:
        return (
            f"Nothing to compare the {_count(ranked.items, 'ranked item')} with: no item drawn at random has "
            "been corrected yet. A queue’s audit_share says how many of a batch are."
        )
    if not ranked.items:
        return (
            f"Nothing to compare the {_count(audit.items, 'item')} drawn at random with: no item that the "
            "ranking chose has been corrected yet."
        )
    told = (
        f"Ranked items needed {_needed(ranked)} changed objects each, items drawn at random {_needed(audit)}"
    )
    if min(ranked.items, audit.items) < FEWEST_ITEMS:
        return (
            f"{told}; too few to tell: {_count(ranked.items, 'ranked item')} and {audit.items} drawn at "
            f"random, at least {FEWEST_ITEMS} of each are needed."
        )
    if ranked.objects_per_minute is None or audit.objects_per_minute is None:
        return f"{told}. What that is in expert time was not recorded."
    return (
        f"{told}: a minute of work changed {ranked.objects_per_minute:.1f} objects of a ranked item and "
        f"{audit.objects_per_minute:.1f} of one drawn at random."
    )


def _agreement(work: Sequence[ItemWork], mean_iou: float | None) -> ProposalAgreement:
    timed = [(one.minutes, one.objects_changed) for one in work if one.minutes is not None]
    return ProposalAgreement(
        items=len(work),
        mean_iou=mean_iou,
        minutes=_median([minutes for minutes, _ in timed]),
        objects_changed=_median([one.objects_changed for one in work]),
        # an item that was submitted at once has no rate
        objects_per_minute=_median([objects / minutes for minutes, objects in timed if minutes > 0]),
        work=tuple(work),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(median(values)) if values else None


def _compared(corrected: Sequence[CorrectedItem], role: Role) -> list[tuple[CorrectedItem, Changes]]:
    return [
        (one, one.changes)
        for one in corrected
        if one.role == role and one.start == "prediction" and one.changes is not None
    ]


def _why_nothing(corrected: Sequence[CorrectedItem]) -> str:
    if not corrected:
        return "Nothing to compare yet: nothing was corrected since the last cycle."
    chosen = [one for one in corrected if one.role in ("ranked", "audit")]
    if not chosen:
        return (
            f"Nothing to compare yet: none of the {_count(len(corrected), 'corrected item')} was handed out as "
            "ranked or as drawn at random."
        )
    return (
        f"Nothing to compare yet: {_count(len(chosen), 'item')} ranked or drawn at random had no proposal, or "
        "what was proposed is no longer known."
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _needed(agreement: ProposalAgreement) -> str:
    objects = f"{agreement.objects_changed:g}"
    return objects if agreement.minutes is None else f"{agreement.minutes:.1f} min and {objects}"
