"""Splits: drawn once, by share, whatever the order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.splits import CAPS, FRACTIONS, assign_splits
from cytoloop.domain.types import HELD_OUT, SPLITS, Split

GROUPS = st.lists(st.text(min_size=1, max_size=6), max_size=60, unique=True)


@given(groups=GROUPS, data=st.data())
def test_order_and_repetition_do_not_matter(groups: list[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(groups))
    assert assign_splits({}, groups) == assign_splits({}, [*shuffled, *groups[:3]])


@given(groups=GROUPS, cut=st.integers(0, 60))
def test_a_group_is_drawn_once_and_for_all(groups: list[str], cut: int) -> None:
    first = assign_splits({}, groups[:cut])
    second = assign_splits(first, groups)
    assert first.keys().isdisjoint(second)
    assert first.keys() | second.keys() == set(groups)


def test_a_small_plate_has_every_split() -> None:
    assert set(assign_splits({}, [f"P/{n}" for n in range(8)]).values()) == set(SPLITS)
    assert list(assign_splits({}, ["only"]).values()) == ["train"]


@pytest.mark.parametrize("count", [20, 40, 96, 384, 2000])
def test_shares_are_kept_up_to_the_caps(count: int) -> None:
    drawn = Counter(assign_splits({}, [f"P/{n}" for n in range(count)]).values())
    assert sum(drawn.values()) == count
    for split in HELD_OUT:
        assert drawn[split] <= CAPS[split]
        assert drawn[split] == pytest.approx(min(FRACTIONS[split] * count, CAPS[split]), abs=1.5)


def test_a_second_plate_fills_what_is_behind() -> None:
    existing: dict[str, Split] = {f"P/{n}": "train" for n in range(10)}
    drawn = assign_splits(existing, [f"Q/{n}" for n in range(10)])
    assert "train" not in drawn.values()


def test_the_salt_draws_another_lot() -> None:
    groups = [f"P/{n}" for n in range(40)]
    assert assign_splits({}, groups, salt="a") != assign_splits({}, groups, salt="b")


def test_the_shares_are_the_whole() -> None:
    assert sum(FRACTIONS.values()) == pytest.approx(1.0)
    assert set(FRACTIONS) == set(SPLITS)
    assert "train" not in CAPS


def test_shares_can_be_given_and_a_split_without_one_gets_nothing() -> None:
    shares: dict[Split, float] = {"train": 0.85, "validation": 0.10, "sealed": 0.05}
    drawn = assign_splits({}, [f"P/{n}" for n in range(400)], fractions=shares, caps={})
    assert Counter(drawn.values()) == {"train": 340, "validation": 40, "sealed": 20}


def test_shares_that_are_none_are_refused() -> None:
    for wrong in ({"train": 0.9}, {"train": 1.2, "sealed": -0.2}):
        with pytest.raises(ConfigError, match="expected none below 0, and a sum of 1"):
            assign_splits({}, ["P/1"], fractions=wrong)  # type: ignore[arg-type]
