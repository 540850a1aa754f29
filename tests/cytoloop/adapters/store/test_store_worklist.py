"""The read side of a queue: only what may be handed out comes up, whatever the rankings say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from samples import NOON, Item, make_assay, make_correction, make_record

from cytoloop.adapters.store import Listed, Scored, Store
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.types import Lease
from cytoloop.domain.worklist import Candidate, Choice

ADA, BOB = "ada@example.com", "bob@example.com"
A, B, C, D = (Item(image_id="a", tile=tile) for tile in range(4))
OLD, NEW = "cdl-20240517-00000000", "cdl-20240518-00000000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.images.add(make_assay(), [make_record("a")])
    opened.images.set_tasks("rosella", {item: 10 + item.tile for item in (A, B, C, D)})
    put(opened, OLD, {A: 4, B: 3, C: 2, D: 1})
    yield opened
    opened.close()


def candidate(item: Item, score: float) -> Candidate:
    return Candidate(
        item=item,
        split="train",
        group="g",
        plate="p",
        score=score,
        confidence=1 / (1 + score),
        lot=score / 9,
        minutes=score,
    )


def put(store: Store, version: str, scores: dict[Item, float]) -> None:
    rows = (Scored(candidate=candidate(item, s), reason=f"{s} objects") for item, s in scores.items())
    store.scores.put("rosella", version, "entropy", rows)


def claim(store: Store, expert: str, *items: Item, score: float = 0.5) -> list[Lease]:
    choices = [
        Choice(candidate=candidate(item, score), role="ranked", canvas="model", readers=1) for item in items
    ]
    until = NOON + timedelta(hours=4)
    return store.leases.claim(
        "rosella", "main", expert, choices, until, 40, strategy="entropy", version=OLD, now=NOON
    )


def listed(store: Store, expert: str, version: str = OLD, limit: int = 9, **more: Any) -> list[Listed]:
    return store.worklist.of("rosella", "main", expert, version, "entropy", limit, **more)


def items(found: list[Any]) -> list[Item]:
    return [one.item for one in found]


def open_items(store: Store, **more: Any) -> list[Item]:
    return items(store.worklist.open_items("rosella", OLD, "entropy", "train", 9, **more))


def skip(store: Store, item: Item, expert: str) -> None:
    store.corrections.append_skip("rosella", item, 2, 10 + item.tile, NOON, expert)


def test_what_an_expert_holds_comes_first_then_what_nobody_holds(store: Store) -> None:
    (theirs,) = claim(store, BOB, A)
    mine = claim(store, ADA, D, C)
    found = listed(store, ADA)
    assert items(found) == [C, D, B]
    assert [one.lease for one in found] == [mine[1], mine[0], None]
    assert [(one.task_id, one.score, one.minutes, one.reason) for one in found] == [
        (12, 2, 2, "2 objects"),
        (13, 1, 1, "1 objects"),
        (11, 3, 3, "3 objects"),
    ]
    assert listed(store, BOB, limit=1)[0].lease == theirs
    assert items(listed(store, ADA, is_leased_only=True)) == [C, D]
    assert items(listed(store, ADA, limit=1)) == [C]


def test_after_a_promotion_the_order_changes_and_leases_do_not(store: Store) -> None:
    claim(store, ADA, C, D)
    put(store, NEW, {A: 1, B: 2, C: 3, D: 4})
    assert items(listed(store, ADA, OLD)) == [C, D, A, B]
    assert items(listed(store, ADA, NEW)) == [D, C, B, A]


def test_what_is_held_is_listed_even_if_the_version_has_not_scored_it(store: Store) -> None:
    (lease,) = claim(store, ADA, C, score=0.75)
    put(store, NEW, {A: 1})
    assert items(listed(store, ADA, NEW)) == [C, A]
    first = listed(store, ADA, NEW)[0]
    assert (first.score, first.minutes, first.reason, first.lease) == (0.75, None, "", lease)


def test_a_version_that_is_not_ranked_is_refused(store: Store) -> None:
    with pytest.raises(StateError, match=f"no ranking of {NEW} by 'entropy'"):
        listed(store, ADA, NEW)
    with pytest.raises(InputError, match="limit is 0"):
        store.worklist.open_items("rosella", OLD, "entropy", "train", 0)


def test_what_is_finished_held_or_without_a_task_does_not_come_up_though_flagged_open(store: Store) -> None:
    store.corrections.append("rosella", make_correction(A), "0" * 64)
    claim(store, BOB, B)
    store.images.forget_tasks("rosella", [12])
    assert open_items(store) == [D]
    assert open_items(store, by="lot") == [D]


def test_items_can_be_drawn_by_lot(store: Store) -> None:
    assert open_items(store, by="lot") == [D, C, B, A]


def test_what_was_skipped_comes_up_for_others_or_for_nobody_as_the_policy_says(store: Store) -> None:
    skip(store, A, ADA)
    assert open_items(store) == [A, B, C, D]
    assert open_items(store, expert=BOB) == [A, B, C, D]
    assert open_items(store, expert=ADA) == [B, C, D]
    assert open_items(store, expert=BOB, skipped="retire") == [B, C, D]


def test_flags_follow_what_happened(store: Store) -> None:
    def flagged_open() -> list[Item]:
        return items(store.scores.top("rosella", OLD, "entropy", "train", 9))

    (lease,) = claim(store, ADA, A)
    skip(store, B, ADA)
    store.corrections.append("rosella", make_correction(C), "0" * 64)
    store.worklist.note("rosella", [A, B, C, A])
    assert flagged_open() == [B, D]
    store.worklist.note("rosella", [B], skipped="retire")
    assert flagged_open() == [D]
    store.leases.release(lease.id, ADA, now=NOON)
    store.corrections.append_deletion("rosella", 1)  # the mask of C
    store.worklist.note("rosella", [A, B, C])
    assert flagged_open() == [A, B, C, D]


def test_a_new_ranking_learns_what_experts_have_and_had(store: Store) -> None:
    claim(store, ADA, A)
    store.corrections.append("rosella", make_correction(C), "0" * 64)
    put(store, NEW, {A: 4, B: 3, C: 2, D: 1})
    store.scores.set_open("rosella", [B], False)  # nobody had it: not looked at
    store.worklist.note_all("rosella")
    assert items(store.scores.top("rosella", NEW, "entropy", "train", 9)) == [D]
    assert (store.corrections.items("rosella"), store.leases.items("rosella")) == ({C}, {A})
    assert store.corrections.items("other") == store.leases.items("other") == set()
