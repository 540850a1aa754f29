"""A batch: drawn by share, ordered by doubt."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Item

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.types import SPLITS, Split
from cytoloop.domain.worklist import Candidate, QueuePolicy, choose_batch, in_order


def candidates(split: Split, count: int, per_well: int = 2, doubt: float = 0.0) -> list[Candidate]:
    return [
        Candidate(
            item=Item(image_id=f"{split}-{n:03d}", tile=0),
            split=split,
            group=f"{split}/{n // per_well}",
            confidence=(n + doubt) / 1000,
        )
        for n in range(count)
    ]


PLENTY = [c for split in SPLITS for c in candidates(split, 60)]


def test_a_batch_holds_each_split_by_its_share() -> None:
    batch = choose_batch(PLENTY, QueuePolicy(size=40))
    assert Counter(c.split for c in batch) == {"train": 22, "contest": 10, "validation": 6, "sealed": 2}


def test_the_order_is_that_of_the_confidences() -> None:
    batch = choose_batch(PLENTY, QueuePolicy(size=40), seed="x")
    assert batch == in_order(batch) == sorted(batch, key=lambda c: (c.confidence, c.item))
    tied = [
        Candidate(item=Item(image_id=i, tile=t), split="train", group=i, confidence=0.5)
        for i in "ba"
        for t in (1, 0)
    ]
    assert [c.item.image_id + str(c.item.tile) for c in in_order(tied)] == ["a0", "a1", "b0", "b1"]


def test_training_items_are_the_most_doubtful_ones() -> None:
    batch = choose_batch(PLENTY, QueuePolicy(size=40))
    assert [c.item for c in batch if c.split == "train"] == [c.item for c in candidates("train", 22)]


def test_judging_items_are_drawn_whatever_their_doubt() -> None:
    def drawn(doubt: float) -> set[Item]:
        offered = [c for split in SPLITS for c in candidates(split, 60, doubt=doubt)]
        return {c.item for c in choose_batch(offered[::-1], QueuePolicy(), "s") if c.split != "train"}

    reference = {c.item for c in choose_batch(PLENTY, QueuePolicy(), "s") if c.split != "train"}
    assert drawn(900.0) == reference
    assert {c.item for c in choose_batch(PLENTY, QueuePolicy(), "t") if c.split != "train"} != reference
    assert max(int(item.image_id[-3:]) for item in reference) > 30


def test_every_well_is_asked_once_before_any_twice() -> None:
    policy = QueuePolicy(size=10, contest_share=1.0, validation_share=0.0, sealed_share=0.0)
    batch = choose_batch(candidates("contest", 40, per_well=4), policy)
    assert len({c.group for c in batch}) == 10


def test_what_a_split_lacks_is_filled_up() -> None:
    few_contest = [*candidates("train", 60), *candidates("contest", 3)]
    assert Counter(c.split for c in choose_batch(few_contest, QueuePolicy(size=40))) == {
        "train": 37,
        "contest": 3,
    }
    few_train = [*candidates("train", 3), *candidates("contest", 60)]
    assert Counter(c.split for c in choose_batch(few_train, QueuePolicy(size=40))) == {
        "train": 3,
        "contest": 37,
    }
    assert choose_batch([], QueuePolicy()) == []


@given(
    counts=st.tuples(*[st.integers(0, 12)] * 4),
    size=st.integers(1, 12),
    shares=st.tuples(*[st.sampled_from([0.0, 0.1, 0.25, 0.3, 1 / 3, 0.5])] * 3).filter(lambda s: sum(s) <= 1),
)
def test_a_batch_is_full_never_overfull_and_without_repetition(
    counts: tuple[int, ...], size: int, shares: tuple[float, float, float]
) -> None:
    offered = [c for split, count in zip(SPLITS, counts, strict=True) for c in candidates(split, count)]
    policy = QueuePolicy(
        size=size, contest_share=shares[0], validation_share=shares[1], sealed_share=shares[2]
    )
    batch = choose_batch(offered, policy)
    assert len(batch) == min(size, len(offered))
    assert len({c.item for c in batch}) == len(batch)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"contest_share": -0.1},
        {"contest_share": 0.7, "validation_share": 0.3, "sealed_share": 0.1},
        {"sealed_share": float("nan")},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"queue policy: size .*expected size >= 1, shares >= 0"):
        QueuePolicy(**change)
