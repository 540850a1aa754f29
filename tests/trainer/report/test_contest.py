"""The contest as the report keeps it: names, wells, what is missing, and those before it."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.contest_needs import ContestWell, contest_needs, lacking_of
from cytoloop.domain.promotion import ContestItem, decide
from cytoloop.domain.trainer_policy import ContestPolicy
from trainer.report.contest import Contest, WellsNeeded, past_contests

NAMES = ("background", "spot")
POLICY = ContestPolicy(min_groups=4, min_class_groups=3)


def held(wells: int, look: int = 1, *, spots: int | None = None) -> Contest:
    """A contest on one item a well; the first ``spots`` of them hold a spot."""
    both, empty = np.array([[90, 0], [1, 9]]), np.array([[100, 0], [0, 0]])
    items = [
        ContestItem(
            image_id=str(n),
            tile=0,
            group=f"W{n}",
            confusion_challenger=both if spots is None or n < spots else empty,
            confusion_active=both if spots is None or n < spots else empty,
        )
        for n in range(wells)
    ]
    return Contest.from_decision(
        decide(items, POLICY, NAMES, look=look), challenger="c", active="a", max_class_drop=0.02
    )


def test_a_contest_keeps_what_its_decision_was_made_of() -> None:
    contest = held(5, look=3, spots=4)
    assert (contest.look, contest.max_class_drop, contest.groups, contest.is_enough) == (3, 0.02, 5, True)
    assert [(one.name, one.groups) for one in contest.classes] == [("background", 5), ("spot", 4)]
    assert contest.confidence == pytest.approx(1 - 0.05 / 12)


def test_a_contest_of_too_few_wells_knows_what_lacks() -> None:
    contest = held(3, spots=1)
    assert (contest.lacking_groups, dict(contest.lacking_classes)) == (1, {"spot": 2})
    assert not contest.is_enough


def test_the_bar_is_told_with_the_number_of_the_contest() -> None:
    assert held(4).bar == (
        "It was the first contest of the model that was in use: the gain had to be above zero with 97.5 % confidence."
    )
    assert "It was the 3rd contest" in held(4, look=3).bar
    assert "with 99.58 % confidence" in held(4, look=3).bar


def needs(wells: list[ContestWell], seen: dict[str, int]) -> WellsNeeded:
    return WellsNeeded.from_needs(
        contest_needs(wells, POLICY, lacking_of(wells, NAMES, POLICY), assay="rosella", seen={"spot": seen})
    )


def test_wells_that_serve_two_needs_are_named_first() -> None:
    both = frozenset(NAMES)
    wells = [
        ContestWell(group="A1", read=1, classes=both),
        ContestWell(group="A2", read=1, classes=frozenset(["background"])),
        ContestWell(group="B1"),
        ContestWell(group="B2"),
        ContestWell(group="B3"),
    ]
    # two wells lack, and two with spots: B3 and A2 show some, but A2 is a well that counts already
    told = needs(wells, {"A2": 900, "B3": 50})
    assert told.wells == ("B3", "B1")
    assert "spot is in 1 counted well, 3 are needed" in told.words


def test_where_only_a_class_lacks_wells_without_it_are_not_named() -> None:
    wells = [
        ContestWell(group=f"A{n}", read=1, classes=frozenset(NAMES[: 1 + (n < 2)])) for n in range(5)
    ] + [ContestWell(group="B1")]
    assert needs(wells, {"A4": 10}).wells == ("A4",)
    assert needs(wells, {}).wells == ()


def test_earlier_contests_are_read_from_the_store_however_old() -> None:
    row = {
        "id": 1,
        "cycle_id": "7",
        "challenger": "c",
        "active": "a",
        "promoted": 1,
        "reason": "r",
        "created_at": "2026-11-23T03:00:00.000000+00:00",
    }
    document = {"difference": 0.1, "lower_bound": None, "confidence": 0.975, "groups": 5, "more": 1}
    new, old = past_contests([{**row, "document": document}, {**row, "document": {}, "promoted": 0}])
    assert (new.cycle, new.promoted, new.difference, new.lower_bound, new.groups) == ("7", True, 0.1, None, 5)
    assert (old.promoted, old.confidence, old.groups) == (False, None, None)
