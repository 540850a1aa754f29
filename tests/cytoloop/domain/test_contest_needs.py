"""Which wells a contest lacks, by number and by name."""

from __future__ import annotations

import json

import pytest

from cytoloop.domain.contest_needs import ContestWell, Lacking, contest_needs, lacking_of, lacking_wells
from cytoloop.domain.trainer_policy import ContestPolicy

NAMES = ("background", "spot")
POLICY = ContestPolicy(min_groups=4, min_class_groups=2)
BOTH = frozenset(NAMES)


@pytest.mark.parametrize(
    ("counted", "spots", "wells", "expected"),
    [
        (4, 2, None, Lacking()),
        (3, 2, None, Lacking(groups=1)),
        (4, 1, None, Lacking(classes={"spot": 1})),
        (2, 0, None, Lacking(groups=2, classes={"spot": 2})),
        (7, 0, None, Lacking(classes={"spot": 2})),
        (8, 0, None, Lacking()),  # twice as many as are needed, and none with it
        (5, 0, 5, Lacking()),  # all there are
        (5, 1, 5, Lacking(classes={"spot": 1})),  # it exists: one well is no measure of it
        (3, 0, 3, Lacking(groups=1, classes={"spot": 2})),
    ],
)
def test_what_is_missing(counted: int, spots: int, wells: int | None, expected: Lacking) -> None:
    found = lacking_wells(counted, {"background": counted, "spot": spots}, POLICY, wells)
    assert found == expected
    assert bool(found) == bool(expected.groups or expected.classes)


def test_wells_are_named_by_what_they_need() -> None:
    wells = [
        ContestWell(group="P/A01", read=1, classes=BOTH),
        ContestWell(group="P/A02", read=2, classes=frozenset({"background"})),
        ContestWell(group="P/A03", read=1, waiting="read by 1 of 2 experts so far"),
        ContestWell(group="P/A04"),
        ContestWell(group="P/A05"),
    ]
    seen = {"spot": {"P/A01": 900, "P/A02": 500, "P/A04": 10, "P/A05": 40, "P/A03": 0}}
    lacking = lacking_of(wells, NAMES, POLICY)
    assert lacking == Lacking(groups=2, classes={"spot": 1})
    needs = contest_needs(wells, POLICY, lacking, assay="rosella", seen=seen)
    assert needs.uncorrected == ("P/A04", "P/A05")
    assert needs.waiting == {"P/A03": "read by 1 of 2 experts so far"}
    # the likeliest of those nobody read, then one whose other item holds none; never one that holds it already
    assert needs.probable == {"spot": ("P/A05", "P/A04", "P/A02")}
    assert needs.words() == (
        "The contest has 2 of the 4 wells it needs. No item is corrected yet in P/A04 and P/A05. "
        "What is corrected does not count yet in P/A03. "
        "spot is in 1 counted well, 2 are needed: the CIP sees it in P/A05, P/A04 and P/A02."
    )
    assert json.loads(json.dumps(needs.document()))["wells"] == 5


def test_a_home_with_too_few_wells_says_so() -> None:
    wells = [ContestWell(group="P/A01", read=1, classes=frozenset({"background"}))]
    needs = contest_needs(wells, POLICY, lacking_of(wells, NAMES, POLICY), assay="rosella", seen={})
    assert (
        "The home has only 1 contest well, 4 are needed: import more wells, or lower trainer.contest.min_groups of "
        "assay 'rosella'."
    ) in needs.words()
    assert (
        "spot is in 0 counted wells, 2 are needed: the CIP sees it in no other contest well." in needs.words()
    )
    assert "it is left out once 8 wells, or all there are, count and none shows it" in needs.words()


def test_nothing_lacking_says_nothing() -> None:
    wells = [ContestWell(group=f"P/A0{n}", read=1, classes=BOTH) for n in range(4)]
    needs = contest_needs(wells, POLICY, lacking_of(wells, NAMES, POLICY), assay="rosella", seen={})
    assert needs.words() == ""
    assert not needs.lacking
    assert needs.lacking.most == 0
