"""The contest of a cycle and those before it, as plain values and in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import floor, log10
from typing import Any

from cytoloop.domain.contest_needs import MOST_NAMED, ContestNeeds
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.promotion import ContestDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestClass:
    """One class in the contest."""

    name: str
    iou_challenger: float | None
    iou_active: float | None
    difference: float | None
    is_drop_too_large: bool
    groups: int | None = None
    """Wells whose truth holds it; None in reports older than this field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """The decision, with the names of the two versions it was about."""

    challenger: str
    active: str
    promote: bool
    reason: str
    mean_iou_challenger: float | None
    mean_iou_active: float | None
    difference: float | None
    lower_bound: float | None
    confidence: float
    groups: int
    items: int
    classes: tuple[ContestClass, ...] = ()
    left_out: tuple[str, ...] = ()
    look: int = 1
    """Which contest the active version stood, from 1."""
    max_class_drop: float | None = None
    """Largest fall of one class's IoU that the policy accepts; None in reports older than this field."""
    lacking_groups: int = 0
    """Wells that are missing before anything can be judged."""
    lacking_classes: Mapping[str, int] = field(default_factory=dict)
    """Likewise wells that hold a class."""

    @classmethod
    def from_decision(
        cls, decision: ContestDecision, *, challenger: str, active: str, max_class_drop: float | None = None
    ) -> Contest:
        """Name the two sides of a decision; NaN becomes None."""
        return cls(
            challenger=challenger,
            active=active,
            promote=decision.promote,
            reason=decision.reason,
            mean_iou_challenger=number_or_none(decision.mean_iou_challenger),
            mean_iou_active=number_or_none(decision.mean_iou_active),
            difference=number_or_none(decision.difference),
            lower_bound=number_or_none(decision.lower_bound),
            confidence=decision.confidence,
            groups=decision.groups,
            items=decision.items,
            classes=tuple(
                ContestClass(
                    name=one.name,
                    iou_challenger=number_or_none(one.iou_challenger),
                    iou_active=number_or_none(one.iou_active),
                    difference=number_or_none(one.difference),
                    is_drop_too_large=one.is_drop_too_large,
                    groups=one.groups,
                )
                for one in decision.classes
            ),
            left_out=decision.left_out,
            look=decision.look,
            max_class_drop=max_class_drop,
            lacking_groups=decision.lacking.groups,
            lacking_classes=dict(decision.lacking.classes),
        )

    @property
    def is_enough(self) -> bool:
        """Whether there were wells enough to judge by."""
        return not self.lacking_groups and not self.lacking_classes

    @property
    def bar(self) -> str:
        """How sure the gain must be, and why, in one sentence."""
        sure = f"the gain had to be above zero with {percent_of(self.confidence)} confidence."
        if self.look == 1:
            return f"It was the first contest of the model that was in use: {sure}"
        return (
            f"It was the {ordinal(self.look)} contest of the model that was in use. Each is one more chance to lose by "
            f"luck, so the bar rises from contest to contest: {sure}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WellsNeeded:
    """What has to be corrected before a contest can be judged."""

    words: str
    wells: tuple[str, ...]
    """To begin with, the best first: as many as would do at the least."""

    @classmethod
    def from_needs(cls, needs: ContestNeeds) -> WellsNeeded:
        """Wells without any correction that probably hold a class that lacks go first: they count twice."""
        probable = list(dict.fromkeys(group for groups in needs.probable.values() for group in groups))
        fresh = [group for group in probable if group in needs.uncorrected]
        others = needs.uncorrected if needs.lacking.groups else ()
        ranked = dict.fromkeys((*fresh, *others, *probable))
        return cls(words=needs.words(), wells=tuple(ranked)[: min(needs.lacking.most, MOST_NAMED)])


@dataclass(frozen=True, slots=True, kw_only=True)
class PastContest:
    """One contest of the assay."""

    held_at: datetime
    cycle: str | None
    challenger: str
    active: str
    promoted: bool
    reason: str
    difference: float | None = None
    """Challenger minus active, mean IoU; None where too little was measured."""
    lower_bound: float | None = None
    """None where there were too few wells: the contest decided nothing, and did not count."""
    confidence: float | None = None
    groups: int | None = None


def past_contests(rows: Iterable[Mapping[str, Any]]) -> tuple[PastContest, ...]:
    """Contests as the store keeps them; their documents may be older than some of the fields."""
    return tuple(
        PastContest(
            held_at=datetime.fromisoformat(row["created_at"]),
            cycle=row["cycle_id"],
            challenger=row["challenger"],
            active=row["active"],
            promoted=bool(row["promoted"]),
            reason=row["reason"],
            **{
                key: row["document"].get(key) for key in ("difference", "lower_bound", "confidence", "groups")
            },
        )
        for row in rows
    )


def percent_of(confidence: float) -> str:
    """Write a confidence with two digits of what it leaves: near 100 % it is those that count.

    Examples
    --------
    >>> [percent_of(one) for one in (0.9, 0.95, 0.975, 0.99583333, 0.99954545)]
    ['90 %', '95 %', '97.5 %', '99.58 %', '99.955 %']
    """
    places = max(0, 1 - floor(log10(100 * (1 - confidence))))
    told = f"{100 * confidence:.{places}f}"
    return f"{told.rstrip('0').rstrip('.') if '.' in told else told} %"


def ordinal(number: int) -> str:
    """Write a place in a row.

    Examples
    --------
    >>> [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '102nd', '111th']
    """
    if 11 <= number % 100 <= 13:
        return f"{number}th"
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"
