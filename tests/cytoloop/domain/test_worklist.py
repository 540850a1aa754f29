"""A batch: drawn by share, ranked by score and distance, within quotas and minutes, in order of doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Item

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.queue_policy import SHARES, QueuePolicy
from cytoloop.domain.types import SPLITS, Split
from cytoloop.domain.worklist import (
    BLANK_EFFORT,
    NEAR_DUPLICATE,
    Candidate,
    Choice,
    choose_batch,
    in_order,
    lot_of,
    spread_out,
)

EXPERTS = [{"name": "Ada", "email": "ada@lab.org"}, {"name": "Bob", "email": "bob@lab.org"}]


def candidate(name: str, split: Split = "train", **changes: Any) -> Candidate:
    """An item of a well and plate of its own."""
    item = Item(image_id=name, tile=0)
    values: dict[str, Any] = {
        "item": item,
        "split": split,
        "group": f"well of {name}",
        "plate": "P",
        "score": 0.5,
        "confidence": 0.5,
        "lot": lot_of("tiny", item),
    }
    return Candidate(**{**values, **changes})


def candidates(split: Split, count: int, per_well: int = 2, **changes: Any) -> list[Candidate]:
    """The first is the most doubtful."""
    return [
        candidate(
            f"{split}-{n:03d}",
            split,
            group=f"{split}/{n // per_well}",
            plate=f"plate {n % 2}",
            score=1 - n / 1000,
            confidence=n / 1000,
            **changes,
        )
        for n in range(count)
    ]


def names(choices: Sequence[Choice]) -> list[str]:
    return [choice.item.image_id for choice in choices]


def roles(choices: Sequence[Choice]) -> Counter[str]:
    return Counter(choice.role for choice in choices)


PLENTY = [c for split in SPLITS for c in candidates(split, 60)]
DEFAULT = QueuePolicy()


# --- shares ---


def test_a_batch_holds_each_role_by_its_share() -> None:
    for seed in "abc":
        batch = choose_batch(PLENTY, DEFAULT, count=40, seed=seed)
        assert roles(batch) == {"ranked": 18, "contest": 10, "validation": 6, "audit": 4, "sealed": 2}
        assert all(choice.candidate.split == choice.role for choice in batch if choice.role in SPLITS)
        assert {c.candidate.split for c in batch if c.role in ("ranked", "audit")} == {"train"}


def test_the_order_is_that_of_the_confidences() -> None:
    batch = choose_batch(PLENTY, DEFAULT, count=40, seed="x")
    assert batch == in_order(batch) == sorted(batch, key=lambda c: (c.candidate.confidence, c.item))
    tied = [
        candidate(i, item=Item(image_id=i, tile=t), score=float(t), confidence=0.5)
        for i in "ba"
        for t in (1, 0)
    ]
    batch = choose_batch(tied, QueuePolicy.all_ranked(), count=4)
    assert [c.item.image_id + str(c.item.tile) for c in batch] == ["a0", "a1", "b0", "b1"]


def test_ranked_items_are_those_of_the_highest_score() -> None:
    audited = {c.item for c in choose_batch(PLENTY, DEFAULT, count=40) if c.role == "audit"}
    best = [c.item for c in candidates("train", 60) if c.item not in audited][:18]
    assert [c.item for c in choose_batch(PLENTY, DEFAULT, count=40) if c.role == "ranked"] == best


def test_draws_do_not_look_at_scores_and_go_by_lot() -> None:
    def drawn(offered: list[Candidate]) -> set[Item]:
        return {c.item for c in choose_batch(offered, DEFAULT, count=40, seed="s") if c.role != "ranked"}

    reference = drawn(PLENTY)
    assert drawn([replace(c, score=-c.score, confidence=1 - c.confidence) for c in PLENTY[::-1]]) == reference
    assert drawn([replace(c, lot=1 - c.lot) for c in PLENTY]) != reference
    contest = [c for c in choose_batch(PLENTY, DEFAULT, count=40) if c.role == "contest"]
    assert max(int(choice.item.image_id[-3:]) for choice in contest) > 30


def test_what_is_drawn_from_all_is_drawn_from_a_few_by_lot_too() -> None:
    """A store offers the top of a million items and the lowest lots of each split, not all."""
    by_lot = sorted(PLENTY, key=lambda c: c.lot)
    few = {c.item: c for split in SPLITS for c in [c for c in by_lot if c.split == split][:25]}
    few |= {c.item: c for c in candidates("train", 30)}
    assert len(few) < len(PLENTY)
    assert names(choose_batch(few.values(), DEFAULT, count=40)) == names(
        choose_batch(PLENTY, DEFAULT, count=40)
    )


def test_an_audit_item_stays_one_where_it_is_ranked_high_too() -> None:
    best = candidate("best", score=9.0, lot=0.0)
    batch = choose_batch([best, *candidates("train", 30)], QueuePolicy.all_ranked(audit_share=0.25), count=4)
    assert {c.item.image_id: c.role for c in batch}["best"] == "audit"
    assert roles(batch) == {"audit": 1, "ranked": 3}


def test_every_well_is_asked_once_before_any_twice() -> None:
    policy = QueuePolicy.all_ranked(contest_share=1.0)
    batch = choose_batch(candidates("contest", 40, per_well=4), policy, count=10)
    assert len({c.candidate.group for c in batch}) == 10


def test_what_a_split_lacks_is_filled_up() -> None:
    few_contest = [*candidates("train", 60), *candidates("contest", 3)]
    assert roles(choose_batch(few_contest, DEFAULT, count=40)) == {"ranked": 33, "audit": 4, "contest": 3}
    few_train = [*candidates("train", 3), *candidates("contest", 60)]
    assert roles(choose_batch(few_train, DEFAULT, count=40)) == {"audit": 3, "contest": 37}
    assert choose_batch([], DEFAULT, count=40) == []


def test_small_batches_keep_the_shares_on_average() -> None:
    policy = QueuePolicy.all_ranked(sealed_share=0.05, contest_share=0.25)
    drawn: Counter[str] = Counter()
    for n in range(400):
        drawn += roles(choose_batch(PLENTY, policy, count=5, seed=str(n)))
    assert 2000 * 0.04 < drawn["sealed"] < 2000 * 0.06, "5 % of a batch of 5 is not nothing"
    assert 2000 * 0.24 < drawn["contest"] < 2000 * 0.26


def test_the_same_seed_gives_the_same_batch_and_another_another() -> None:
    policy = QueuePolicy.from_document({"overlap_share": 0.2, "experts": EXPERTS}, "q")

    def overlapping(seed: str, offered: list[Candidate] = PLENTY) -> list[str]:
        chosen = choose_batch(offered, policy, count=40, seed=seed)
        return [c.item.image_id for c in chosen if c.role == "overlap"]

    assert overlapping("a") == overlapping("a", PLENTY[::-1])
    assert overlapping("a") != overlapping("b")


# --- what is laid on, gold ---


def test_overlap_and_blank_are_laid_on_ranked_items_at_random() -> None:
    policy = QueuePolicy.all_ranked(
        overlap_share=0.2,
        blank_share=0.1,
        experts=QueuePolicy.from_document({"experts": EXPERTS}, "q").experts,
    )
    batch = choose_batch(PLENTY, policy, count=20)
    assert roles(batch) == {"ranked": 14, "overlap": 4, "blank": 2}
    assert names(batch) == names(choose_batch(PLENTY, QueuePolicy.all_ranked(), count=20))
    assert {(c.role, c.canvas, c.readers) for c in batch} == {
        ("ranked", "model", 1),
        ("overlap", "model", 2),
        ("blank", "blank", 1),
    }
    places = {n for seed in "abcdefgh" for n in _places_of("blank", policy, seed)}
    assert max(places) >= 10, "not the most doubtful ones alone"


def _places_of(role: str, policy: QueuePolicy, seed: str) -> list[int]:
    batch = choose_batch(PLENTY, policy, count=20, seed=seed)
    return [n for n, choice in enumerate(batch) if choice.role == role]


def test_contest_items_are_read_by_two_from_the_canvas_of_the_policy() -> None:
    policy = QueuePolicy.from_document({"experts": EXPERTS, "contest_canvas": "blank"}, "q")
    contest = [c for c in choose_batch(PLENTY, policy, count=40) if c.role == "contest"]
    assert {(c.canvas, c.readers) for c in contest} == {("blank", 2)}


def test_gold_items_come_in_as_gold_alone() -> None:
    listed, agreed, other = candidate("listed", score=9.0), candidate("agreed", "contest"), candidate("other")
    offered = [listed, replace(agreed, is_gold=True), other]
    policy = QueuePolicy.all_ranked(gold_share=0.5, gold=("listed/0",))
    assert {c.item.image_id: c.role for c in choose_batch(offered, policy, count=4)} == {
        "listed": "gold",
        "agreed": "gold",
        "other": "ranked",
    }
    assert names(choose_batch(offered, replace(policy, gold_share=0.0), count=4)) == ["other"]


# --- score times distance ---


def unit(degrees: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)


def test_k_centre_by_hand() -> None:
    """Half chords are the sine of half the angle: 0.5 at 60°, 0.707 at 90°, 1 at 180°.

    a (1.0, 0°) is first. Then b (0.9, 60°): 0.45; c (0.8, 90°): 0.566; d (0.5, 180°): 0.5. So c.
    Then b is 30° from c: 0.9 x 0.259 = 0.233; d is 90° from it: 0.5 x 0.707 = 0.354. So d, then b.
    """
    features_NF = np.stack([unit(0), unit(60), unit(90), unit(180)])
    score_N = np.array([1.0, 0.9, 0.8, 0.5])
    assert spread_out(score_N, features_NF, 4) == ([0, 2, 3, 1], [])
    assert spread_out(score_N, features_NF, 2) == ([0, 2], [])
    by_score, near = spread_out(score_N, features_NF, 4, weigh_distance=False, near=0.3)
    assert (by_score, near) == ([0, 1, 3], [2]), "30° from b is near: 0.259"
    taken, _ = spread_out(score_N, features_NF, 2, centres_NF=unit(0)[None])
    assert taken == [2, 3], "with something at 0° already: 0, 0.45, 0.566, 0.5; then 0, 0.233, 0.354"
    assert spread_out(score_N, features_NF, 2, take=lambda n: n != 0)[0] == [1, 3]


def test_scores_below_nought_are_ordered_like_others() -> None:
    features_NF = np.stack([unit(0), unit(0), unit(180)])
    assert spread_out(np.array([-1.0, -2.0, -3.0]), features_NF, 3)[0] == [0, 1, 2]
    assert spread_out(np.array([-1.0, -1.0, -1.5]), features_NF, 2)[0] == [0, 1], "the lowest is worth 0"
    assert spread_out(np.array([2.0, 2.0, 1.0]), features_NF, 2)[0] == [0, 2]
    assert spread_out(np.zeros(3), features_NF, 2)[0] == [0, 1]
    assert spread_out(np.zeros(0), np.zeros((0, 2)), 2) == ([], [])


ALIKE = [candidate(f"a{n}", score=1 - n / 100, confidence=n / 100, features_F=unit(n)) for n in range(4)]
UNLIKE = [
    candidate(f"u{n}", score=0.5 - n / 100, confidence=0.5 + n / 100, features_F=unit(90 * (n + 1)))
    for n in range(3)
]


def test_a_diverse_strategy_spreads_the_ranked_items() -> None:
    plain = QueuePolicy.all_ranked(strategy="random")
    diverse = QueuePolicy.all_ranked(strategy="entropy+diverse")
    assert names(choose_batch([*ALIKE, *UNLIKE], plain, count=4)) == ["a0", "a1", "a2", "a3"]
    assert names(choose_batch([*ALIKE, *UNLIKE], diverse, count=4)) == ["a0", "u0", "u1", "u2"]


def test_near_duplicates_are_held_back_whatever_the_score_but_not_from_chance() -> None:
    """1° apart is a cosine of 0.9998; 9° is 0.988."""
    assert np.cos(np.radians(8)) > NEAR_DUPLICATE > np.cos(np.radians(9))
    by_score = QueuePolicy.all_ranked(strategy="entropy")
    offered = [*ALIKE, candidate("b", score=0.7, confidence=0.3, features_F=unit(12)), *UNLIKE]
    assert names(choose_batch(offered, by_score, count=3)) == ["a0", "b", "u0"]
    assert names(choose_batch(offered, by_score, count=8)) == names(in_order(_ranked(offered))), "all of them"
    assert names(choose_batch(offered, replace(by_score, strategy="random"), count=3)) == ["a0", "a1", "a2"]
    assert names(choose_batch(ALIKE, by_score, count=3)) == ["a0", "a1", "a2"], "nothing else is left"


def _ranked(offered: Sequence[Candidate]) -> list[Choice]:
    return [Choice(candidate=c, role="ranked", canvas="model", readers=1) for c in offered]


def test_audit_items_count_as_taken_and_judging_items_do_not() -> None:
    """A model learns from audit items, never from contest items: those leave room for what looks like them."""
    audited = candidate("x", score=0.0, confidence=0.9, lot=0.0, features_F=unit(0))
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse", audit_share=0.5)
    assert names(choose_batch([audited, *ALIKE, *UNLIKE], policy, count=2)) == ["u1", "x"]
    judging = replace(audited, split="contest")
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse", contest_share=0.5)
    assert names(choose_batch([judging, *ALIKE, *UNLIKE], policy, count=2)) == ["a0", "x"]


def test_far_down_the_ranking_nothing_is_taken_for_being_odd() -> None:
    many = [candidate(f"a{n:02d}", score=1.0, confidence=0.1, features_F=unit(12 * n)) for n in range(8)]
    odd = candidate("odd", score=0.9, confidence=0.9, features_F=unit(180))
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse")
    assert "odd" not in names(choose_batch([*many, odd], policy, count=2))
    assert "odd" in names(choose_batch([*many, odd], policy, count=3))


def test_without_features_a_diverse_strategy_goes_by_score() -> None:
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse")
    batch = choose_batch([replace(c, features_F=None) for c in [*UNLIKE, *ALIKE]], policy, count=2)
    assert names(batch) == ["a0", "a1"]


def test_what_has_no_direction_is_like_nothing_but_its_kind() -> None:
    blank = [candidate(f"z{n}", score=2.0, confidence=0.0, features_F=np.zeros(2)) for n in range(2)]
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse")
    assert names(choose_batch([*blank, *ALIKE[:1]], policy, count=2)) == ["a0", "z0"]


# --- quotas ---


def test_no_well_or_plate_has_more_than_its_quota() -> None:
    policy = QueuePolicy(max_per_group=1, max_per_plate=9)
    batch = choose_batch(PLENTY, policy, count=40)
    assert max(Counter(c.candidate.group for c in batch).values()) == 1
    assert Counter(c.candidate.plate for c in batch) == {"plate 0": 9, "plate 1": 9}


def test_where_quotas_leave_nothing_a_batch_is_short() -> None:
    policy = QueuePolicy.all_ranked(max_per_group=1)
    assert names(choose_batch(candidates("train", 8, per_well=4), policy, count=8)) == [
        "train-000",
        "train-004",
    ]


def test_a_spread_batch_goes_on_where_quotas_use_up_the_best() -> None:
    same_well = [replace(c, group="one") for c in ALIKE]
    offered = [*same_well, candidate("low", score=0.01, confidence=0.9, features_F=unit(45))]
    policy = QueuePolicy.all_ranked(strategy="entropy+diverse", max_per_group=1)
    assert names(choose_batch(offered, policy, count=1)) == ["a0"]
    assert names(choose_batch(offered, policy, count=2)) == ["a0", "low"]
    crowd = [
        candidate(f"c{n:02d}", score=1.0, confidence=0.1, group="one", features_F=unit(n * 20))
        for n in range(12)
    ]
    assert "low" in names(choose_batch([*crowd, offered[-1]], policy, count=2)), "it is the 13th best of 13"


# --- minutes ---


def test_a_budget_ends_a_batch() -> None:
    offered = [replace(c, minutes=6.0) for c in PLENTY]
    assert len(choose_batch(offered, DEFAULT, count=40, minutes=30)) == 5
    assert len(choose_batch(offered, DEFAULT, count=3, minutes=30)) == 3
    assert len(choose_batch(offered, replace(DEFAULT, minutes=12.5), count=40)) == 2
    assert len(choose_batch(offered, replace(DEFAULT, minutes=12.5), count=40, minutes=18)) == 3


def test_shares_hold_within_a_budget_on_average() -> None:
    offered = [replace(c, minutes=6.0) for c in PLENTY]
    drawn: Counter[str] = Counter()
    for n in range(200):
        drawn += roles(choose_batch(offered, DEFAULT, count=40, minutes=30, seed=str(n)))
    assert 1000 * 0.2 < drawn["contest"] < 1000 * 0.3
    assert 1000 * 0.4 < drawn["ranked"] < 1000 * 0.5
    assert 1000 * 0.02 < drawn["sealed"] < 1000 * 0.08


def test_there_is_always_one_item() -> None:
    offered = [candidate("long", score=0.9, minutes=90.0), candidate("short", minutes=45.0)]
    assert names(choose_batch(offered, QueuePolicy.all_ranked(), count=5, minutes=30)) == ["short"]


def test_a_ranked_item_that_does_not_fit_is_passed_over() -> None:
    offered = [
        candidate("a", score=0.9, confidence=0.1, minutes=20.0),
        candidate("b", score=0.8, confidence=0.2, minutes=20.0),
        candidate("c", score=0.7, confidence=0.3, minutes=10.0),
    ]
    assert names(choose_batch(offered, QueuePolicy.all_ranked(), count=3, minutes=30)) == ["a", "c"]


def test_a_drawn_item_that_does_not_fit_waits_for_the_next_batch() -> None:
    """To pass over what is long would make the contest one of short items."""
    offered = [
        candidate("a", "contest", lot=0.1, minutes=20.0),
        candidate("b", "contest", lot=0.2, minutes=20.0),
        candidate("c", "contest", lot=0.3, minutes=10.0),
    ]
    policy = QueuePolicy.all_ranked(contest_share=1.0)
    assert names(choose_batch(offered, policy, count=3, minutes=30)) == ["a"]
    assert names(choose_batch(offered[1:], policy, count=3, minutes=30)) == ["b", "c"]
    too_long = candidate("x", "contest", lot=0.0, minutes=31.0)
    assert names(choose_batch([too_long, *offered[1:]], policy, count=3, minutes=30)) == ["b", "c"]


def test_a_blank_canvas_costs_more_minutes() -> None:
    offered = [replace(c, minutes=6.0) for c in candidates("contest", 10)]
    policy = QueuePolicy.all_ranked(contest_share=1.0, contest_canvas="blank")
    batch = choose_batch(offered, policy, count=10, minutes=48)
    assert [choice.minutes for choice in batch] == [6 * BLANK_EFFORT] * 2


# --- lots ---


def test_lots_are_fixed_for_ever_and_uniform() -> None:
    assert lot_of("rosella", Item(image_id="A", tile=0)) == 0.5427150981997917
    lots = np.array([lot_of("a", Item(image_id=str(n), tile=t)) for n in range(1000) for t in range(2)])
    assert 0 <= lots.min() < 0.01 < 0.99 < lots.max() < 1
    assert np.abs(np.histogram(lots, 10, (0, 1))[0] - 200).max() < 60
    assert len(set(lots)) == len(lots)


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": float("nan")}, "image 'bad' tile 0: score is nan, expected a finite number"),
        ({"score": float("inf")}, "image 'bad' tile 0: score is inf"),
        ({"confidence": float("nan")}, "image 'bad' tile 0: confidence is nan"),
        ({"lot": float("-inf")}, "image 'bad' tile 0: lot is -inf"),
        (
            {"minutes": float("nan")},
            "image 'bad' tile 0: minutes are nan, expected a finite number, not below 0",
        ),
        ({"minutes": float("inf")}, "image 'bad' tile 0: minutes are inf"),
        ({"minutes": -1.0}, "image 'bad' tile 0: minutes are -1.0"),
    ],
)
def test_what_is_no_number_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_batch([candidate("good"), candidate("bad", **change)], DEFAULT, count=2)


@pytest.mark.parametrize(
    ("features_F", "message"),
    [
        (np.array([np.nan, 1.0]), "image 'bad' tile 0: features are not finite"),
        (np.array([np.inf, 1.0]), "image 'bad' tile 0: features are not finite"),
        (np.ones(3), r"image 'bad' tile 0: features are of shape \(3,\), other items' of shape \(2,\)"),
        (np.ones((1, 2)), r"image 'bad' tile 0: features are of shape \(1, 2\)"),
        (None, "image 'bad' tile 0: features are none, other items' of shape"),
    ],
)
def test_features_that_cannot_be_compared_are_refused_by_name(features_F: Any, message: str) -> None:
    good, bad = (
        candidate("good", lot=0.1, features_F=unit(0)),
        candidate("bad", lot=0.2, features_F=features_F),
    )
    with pytest.raises(ShapeError, match=message):
        choose_batch([good, bad], DEFAULT, count=2)


def test_a_request_that_makes_no_sense_is_refused() -> None:
    offered = [candidate("a", minutes=1.0)]
    for minutes in (0.0, -3.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"batch: budget is {minutes} minutes"):
            choose_batch(offered, DEFAULT, count=1, minutes=minutes)
    with pytest.raises(InputError, match="batch: count is 0, expected at least 1"):
        choose_batch(offered, DEFAULT, count=0)
    with pytest.raises(InputError, match="image 'a' tile 0: offered twice"):
        choose_batch(offered * 2, DEFAULT, count=1)
    with pytest.raises(InputError, match="image 'b' tile 0: minutes are not known"):
        choose_batch([*offered, candidate("b")], DEFAULT, count=1, minutes=30)


# --- whatever comes ---


@st.composite
def pools(draw: st.DrawFn) -> list[Candidate]:
    count = draw(st.integers(0, 30))
    with_features = draw(st.booleans())
    return [
        candidate(
            f"i{n}",
            draw(st.sampled_from(SPLITS)),
            group=f"g{draw(st.integers(0, 5))}",
            plate=f"p{draw(st.integers(0, 2))}",
            score=draw(st.floats(-3, 3)),
            confidence=draw(st.sampled_from([0.1, 0.2, 0.3])),
            minutes=draw(st.floats(0, 20)),
            features_F=unit(draw(st.integers(0, 359))) if with_features else None,
            is_gold=draw(st.integers(0, 9)) == 0,
        )
        for n in range(count)
    ]


@st.composite
def policies(draw: st.DrawFn) -> QueuePolicy:
    shares = {key: draw(st.sampled_from([0.0, 0.05, 0.1, 1 / 7])) for key in SHARES}
    quota = st.none() | st.integers(1, 4)
    return QueuePolicy.from_document(
        {
            **shares,
            "experts": EXPERTS,
            "strategy": draw(st.sampled_from(["random", "entropy", "entropy+diverse"])),
            "max_per_group": draw(quota),
            "max_per_plate": draw(quota),
        },
        "drawn",
    )


@given(
    offered=pools(),
    policy=policies(),
    count=st.integers(1, 20),
    minutes=st.none() | st.floats(0.5, 100),
    seed=st.sampled_from("abc"),
)
def test_whatever_is_offered_a_batch_keeps_its_word(
    offered: list[Candidate], policy: QueuePolicy, count: int, minutes: float | None, seed: str
) -> None:
    batch = choose_batch(offered, policy, count=count, minutes=minutes, seed=seed)
    assert len(batch) <= count
    assert len({c.item for c in batch}) == len(batch), "never an item twice"
    assert {c.item for c in batch} <= {c.item for c in offered}
    assert [(c.candidate.confidence, c.item) for c in batch] == sorted(
        (c.candidate.confidence, c.item) for c in batch
    )
    for quota, key in ((policy.max_per_group, "group"), (policy.max_per_plate, "plate")):
        held = Counter(getattr(c.candidate, key) for c in batch)
        assert quota is None or max(held.values(), default=0) <= quota
    for choice in batch:
        assert (choice.role == "gold") == choice.candidate.is_gold
        if choice.role in SPLITS:
            assert choice.role == choice.candidate.split
        elif choice.role != "gold":
            assert choice.candidate.split == "train"
    if minutes is None and policy.max_per_group is None and policy.max_per_plate is None:
        gold = sum(c.is_gold for c in offered)
        assert min(count, len(offered)) - gold <= len(batch), "full, as long as there are items"
    if minutes is not None:
        spent = sum(c.minutes or 0.0 for c in batch)
        assert spent <= minutes + 1e-9 or len(batch) == 1
        open_items = any(not c.is_gold for c in offered)
        assert batch or not open_items, "at least one item"
    assert names(choose_batch(offered[::-1], policy, count=count, minutes=minutes, seed=seed)) == names(batch)
