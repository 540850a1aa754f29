"""Leases: no item is handed to two experts unasked, and nothing that an expert did is forgotten."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import NOON, Item, make_assay, make_correction, make_record

from cytoloop.adapters.store import Store
from cytoloop.domain.errors import ForeignLease, InputError, LeaseEnded, UnknownImage, UnknownLease
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.types import Lease
from cytoloop.domain.worklist import Candidate, Choice

ADA, BOB, EVE = "ada@example.com", "bob@example.com", "eve@example.com"
FIRST, SECOND, THIRD, FOURTH = (Item(image_id="a", tile=tile) for tile in range(4))
LATER = NOON + timedelta(hours=4)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.images.add(make_assay(), [make_record("a"), make_record("b")])
    yield opened
    opened.close()


def choice(item: Item, score: float = 0.5, **changes: Any) -> Choice:
    candidate = Candidate(
        item=item, split="train", group="g", plate="p", score=score, confidence=1 - score, lot=0.5
    )
    return Choice(**{"candidate": candidate, "role": "ranked", "canvas": "model", "readers": 1, **changes})


def claim(store: Store, expert: str, *choices: Item | Choice, cap: int = 40, **changes: Any) -> list[Lease]:
    return store.leases.claim(
        "rosella",
        **{
            "queue": "main",
            "expert": expert,
            "choices": [choice(one) if isinstance(one, Item) else one for one in choices],
            "until": LATER,
            "cap": cap,
            "strategy": "entropy",
            "version": "cdl-1",
            "now": NOON,
            **changes,
        },
    )


def items(leases: list[Lease]) -> list[Item]:
    return [lease.item for lease in leases]


def states(store: Store, item: Item = FIRST) -> list[tuple[str, int, str]]:
    return [(one.expert, one.seat, one.state) for one in store.leases.of_item("rosella", item)]


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


# --- claims ------------------------------------------------------------------------------------------


def test_a_lease_comes_back_as_it_was_given_also_after_a_restart(tmp_path: Path, store: Store) -> None:
    (given,) = claim(store, ADA, choice(FIRST, 0.75, role="contest", canvas="cip"))
    assert (given.assay, given.queue, given.expert, given.item) == ("rosella", "main", ADA, FIRST)
    assert (given.seat, given.role, given.canvas, given.strategy) == (0, "contest", "cip", "entropy")
    assert (given.version, given.score, given.state) == ("cdl-1", 0.75, "held")
    assert (given.claimed_at, given.expires_at, given.ended_at) == (NOON, LATER, None)
    store.close()
    again = Store(tmp_path)
    assert again.leases.get(given.id) == given
    assert again.leases.held("rosella") == [given]
    assert claim(again, BOB, FIRST) == []
    again.close()


def test_claims_of_two_experts_are_disjoint_and_in_the_order_of_the_choices(store: Store) -> None:
    assert items(claim(store, ADA, SECOND, FIRST)) == [SECOND, FIRST]
    assert items(claim(store, BOB, FIRST, THIRD, SECOND, FOURTH)) == [THIRD, FOURTH]
    assert claim(store, ADA, FIRST, THIRD) == []


def test_other_queues_are_no_way_around_and_other_assays_are(store: Store) -> None:
    store.images.add(make_assay(name="other"), [make_record("a")])
    claim(store, ADA, FIRST)
    assert claim(store, BOB, FIRST, queue="second") == []
    given = store.leases.claim(
        "other", "main", BOB, [choice(FIRST)], LATER, 1, strategy="entropy", version="cdl-1", now=NOON
    )
    assert items(given) == [FIRST]


def test_nobody_holds_more_than_the_cap_in_a_queue(store: Store) -> None:
    assert items(claim(store, ADA, FIRST, SECOND, THIRD, cap=2)) == [FIRST, SECOND]
    assert claim(store, ADA, THIRD, cap=2) == []
    assert items(claim(store, ADA, THIRD, cap=2, queue="second")) == [THIRD]
    store.leases.finish("rosella", FIRST, ADA)
    assert items(claim(store, ADA, FOURTH, cap=2)) == [FOURTH]


def test_no_more_than_asked_for_are_given(store: Store) -> None:
    assert items(claim(store, ADA, FIRST, SECOND, THIRD, count=2)) == [FIRST, SECOND]


def test_an_item_for_two_readers_has_two_seats_for_two_experts(store: Store) -> None:
    twice = choice(FIRST, role="overlap", readers=2)
    assert [lease.seat for lease in claim(store, ADA, twice)] == [0]
    assert claim(store, ADA, twice) == []
    assert [lease.seat for lease in claim(store, BOB, twice)] == [1]
    assert claim(store, EVE, twice) == []


def test_a_reader_more_is_not_forgotten_when_the_item_is_chosen_again_as_any_other(store: Store) -> None:
    claim(store, ADA, choice(FIRST, role="contest", readers=2))
    assert [(one.seat, one.role) for one in claim(store, BOB, FIRST)] == [(1, "contest")]
    assert claim(store, EVE, FIRST) == []


def test_the_same_expert_never_gets_an_item_twice_whether_done_or_skipped(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND)
    store.leases.finish("rosella", FIRST, ADA)
    store.leases.finish("rosella", SECOND, ADA, "skipped")
    many = {"role": "overlap", "readers": 3}
    assert claim(store, ADA, choice(FIRST, **many), choice(SECOND, **many)) == []
    assert items(claim(store, BOB, choice(FIRST, **many), choice(SECOND, **many))) == [FIRST, SECOND]


def test_what_is_done_is_not_handed_on_and_what_was_skipped_is(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND)
    store.leases.finish("rosella", FIRST, ADA)
    store.leases.finish("rosella", SECOND, ADA, "skipped")
    assert [(one.item, one.seat) for one in claim(store, BOB, FIRST, SECOND)] == [(SECOND, 0)]


def test_a_correction_without_a_lease_is_a_reading_like_any_other(store: Store) -> None:
    store.corrections.append("rosella", make_correction(FIRST, expert=ADA), "0" * 64)
    assert claim(store, BOB, FIRST) == []
    twice = choice(FIRST, role="overlap", readers=2)
    assert claim(store, ADA, twice) == []
    assert items(claim(store, BOB, twice)) == [FIRST]
    assert claim(store, EVE, twice) == []


def test_a_submit_under_a_lease_is_one_reading_not_two(store: Store) -> None:
    twice = choice(FIRST, role="overlap", readers=2)
    claim(store, SHARED, twice)
    store.corrections.append("rosella", make_correction(FIRST, expert=ADA), "0" * 64)
    store.leases.finish("rosella", FIRST, ADA)
    assert items(claim(store, BOB, twice)) == [FIRST]


def test_gold_items_have_a_seat_for_every_expert(store: Store) -> None:
    claim(store, ADA, FIRST)
    store.leases.finish("rosella", FIRST, ADA)
    gold = choice(FIRST, role="gold")
    assert [(e, [(o.seat, o.role) for o in claim(store, e, gold)]) for e in (BOB, EVE, ADA, BOB)] == [
        (BOB, [(1, "gold")]),
        (EVE, [(2, "gold")]),
        (ADA, []),
        (BOB, []),
    ]


def test_a_review_goes_to_anyone_even_who_drew_it_but_to_one_at_a_time(store: Store) -> None:
    claim(store, ADA, FIRST)
    assert claim(store, BOB, choice(FIRST, role="review")) == []
    store.leases.finish("rosella", FIRST, ADA)
    (lease,) = claim(store, ADA, choice(FIRST, role="review"))
    assert (lease.role, lease.seat) == ("review", 1)
    assert claim(store, BOB, choice(FIRST, role="review")) == []
    store.leases.finish("rosella", FIRST, ADA)
    assert states(store) == [(ADA, 0, "done"), (ADA, 1, "done")]
    assert items(claim(store, BOB, choice(FIRST, role="review"))) == [FIRST]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cap": 0}, f"claim of {ADA}: cap is 0, count None; expected at least 1"),
        ({"count": 0}, f"claim of {ADA}: cap is 40, count 0; expected at least 1"),
        ({"until": NOON}, "lasts until 2024-05-17T12:00:00[+]00:00, expected after"),
        ({"expert": ""}, "expert is '', expected an e-mail"),
        ({"choices": [choice(SECOND), choice(FIRST, math.nan)]}, "image 'a' tile 0: score is nan"),
        ({"choices": [choice(SECOND), choice(FIRST, math.inf)]}, "image 'a' tile 0: score is inf"),
        ({"choices": [choice(SECOND), choice(FIRST, readers=0)]}, "image 'a' tile 0: readers is 0"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_and_nothing_is_leased(
    store: Store, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        claim(store, **{"expert": ADA, **changes})
    assert store.leases.held("rosella") == []
    assert store.leases.roles("rosella") == {}


def test_an_item_that_is_not_in_the_store_is_refused_with_the_whole_claim(store: Store) -> None:
    with pytest.raises(UnknownImage, match="assay 'rosella': image 'a' tile 9: is not in the store"):
        claim(store, ADA, FIRST, Item(image_id="a", tile=9))
    assert store.leases.held("rosella") == []


def test_the_database_itself_refuses_a_second_hand_out(store: Store) -> None:
    claim(store, ADA, FIRST)
    columns = "assay, queue, expert, image_id, tile, seat, role, canvas, strategy, version, score, claimed_at, expires_at"
    for expert, seat in ((BOB, 0), (ADA, 1)):
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            store._file.db.execute(
                f"INSERT INTO leases ({columns}) VALUES ('rosella', 'main', ?, 'a', 0, ?, 'ranked', 'model', '', '', 0, '', '')",
                [expert, seat],
            )


# --- ends --------------------------------------------------------------------------------------------


def test_a_submit_ends_the_lease_of_who_submitted_and_no_other(store: Store) -> None:
    twice = choice(FIRST, role="overlap", readers=2)
    claim(store, ADA, twice)
    claim(store, BOB, twice)
    done = store.leases.finish("rosella", FIRST, BOB, at=after(5))
    assert done is not None
    assert (done.state, done.ended_at) == ("done", after(5))
    assert states(store) == [(ADA, 0, "held"), (BOB, 1, "done")]


def test_the_same_submit_again_changes_nothing(store: Store) -> None:
    claim(store, ADA, FIRST)
    done = store.leases.finish("rosella", FIRST, ADA, at=after(5))
    assert store.leases.finish("rosella", FIRST, ADA, at=after(9)) == done


def test_who_never_had_a_lease_ends_none(store: Store) -> None:
    claim(store, ADA, FIRST)
    assert store.leases.finish("rosella", FIRST, BOB) is None
    assert states(store) == [(ADA, 0, "held")]


def test_a_late_submit_is_kept_and_leaves_the_lease_of_the_next_alone(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    assert store.leases.expire(lease.id, LATER)
    (handed_on,) = claim(store, BOB, FIRST)
    late = store.leases.finish("rosella", FIRST, ADA)
    assert late is not None
    assert (late.id, late.seat, late.state) == (lease.id, 1, "done")
    assert store.leases.get(handed_on.id) == handed_on
    store.leases.finish("rosella", FIRST, BOB)
    assert states(store) == [(ADA, 1, "done"), (BOB, 0, "done")]


def test_a_late_submit_that_nobody_waited_for_takes_its_seat_again(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    store.leases.expire(lease.id, LATER)
    store.leases.finish("rosella", FIRST, ADA)
    assert states(store) == [(ADA, 0, "done")]
    assert claim(store, BOB, FIRST) == []


def test_a_late_skip_takes_no_seat(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    store.leases.expire(lease.id, LATER)
    claim(store, BOB, FIRST)
    store.leases.finish("rosella", FIRST, ADA, "skipped")
    assert states(store) == [(ADA, 0, "skipped"), (BOB, 0, "held")]


def test_a_submit_after_a_skip_counts_and_a_skip_after_a_submit_takes_it_back(store: Store) -> None:
    claim(store, ADA, FIRST)
    for state in ("skipped", "done", "skipped"):
        store.leases.finish("rosella", FIRST, ADA, state)  # type: ignore[arg-type]
        assert states(store) == [(ADA, 0, state)]


def test_a_lease_of_the_shared_list_is_ended_by_whoever_submits(store: Store) -> None:
    claim(store, SHARED, FIRST)
    store.leases.finish("rosella", FIRST, ADA)
    assert states(store) == [(SHARED, 0, "done")]


def test_a_lease_of_ones_own_is_ended_before_a_shared_one(store: Store) -> None:
    twice = choice(FIRST, role="overlap", readers=2)
    claim(store, ADA, twice, queue="own")
    claim(store, SHARED, twice)
    store.leases.finish("rosella", FIRST, ADA)
    assert states(store) == [(ADA, 0, "done"), (SHARED, 1, "held")]


def test_a_shared_lease_that_is_held_is_ended_before_one_of_ones_own_that_was_given_back(
    store: Store,
) -> None:
    twice = choice(FIRST, role="overlap", readers=2)
    claim(store, SHARED, twice)
    (mine,) = claim(store, ADA, twice, queue="own")
    store.leases.release(mine.id, ADA, now=NOON)
    store.leases.finish("rosella", FIRST, ADA)
    assert states(store) == [(SHARED, 0, "done"), (ADA, 1, "released")]


def test_what_an_expert_deleted_or_skipped_can_go_back_to_all_of_them(store: Store) -> None:
    claim(store, ADA, FIRST)
    assert store.leases.reopen("rosella", FIRST, ADA) is None
    store.leases.finish("rosella", FIRST, ADA)
    assert store.leases.reopen("rosella", FIRST, BOB) is None
    again = store.leases.reopen("rosella", FIRST, ADA, at=after(3))
    assert again is not None
    assert (again.state, again.ended_at) == ("released", after(3))
    assert items(claim(store, ADA, FIRST)) == [FIRST]
    store.leases.finish("rosella", FIRST, ADA, "skipped")
    assert claim(store, ADA, FIRST) == []
    store.leases.reopen("rosella", FIRST, ADA)
    assert items(claim(store, ADA, FIRST)) == [FIRST]


def test_what_is_given_back_is_free_for_all(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    ended = store.leases.release(lease.id, ADA, now=after(1))
    assert (ended.state, ended.ended_at) == ("released", after(1))
    assert items(claim(store, BOB, FIRST)) == [FIRST]


def test_giving_back_what_one_does_not_hold_is_refused_with_the_reason(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    with pytest.raises(UnknownLease, match="lease 99: was never given") as unknown:
        store.leases.release(99, ADA)
    with pytest.raises(
        ForeignLease, match=f"lease {lease.id}: belongs to another expert, expected one of '{BOB}'"
    ) as foreign:
        store.leases.release(lease.id, BOB, now=NOON)
    with pytest.raises(LeaseEnded, match=f"lease {lease.id}: ran out at 2024-05-17T16:00:00") as over:
        store.leases.release(lease.id, ADA, now=LATER)
    assert states(store) == [(ADA, 0, "held")]
    store.leases.finish("rosella", FIRST, ADA, at=after(5))
    with pytest.raises(
        LeaseEnded, match=f"lease {lease.id}: is done since 2024-05-17T12:05:00.* expected one that is held"
    ):
        store.leases.release(lease.id, ADA, now=NOON)
    assert states(store) == [(ADA, 0, "done")]
    assert [error.value.http_status for error in (unknown, foreign, over)] == [404, 403, 409]


def test_who_leaves_a_queue_gives_back_all_of_it(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND)
    claim(store, ADA, THIRD, queue="second")
    claim(store, BOB, FOURTH)
    store.leases.finish("rosella", FIRST, ADA)
    assert store.leases.release_all("rosella", "main", ADA) == 1
    assert items(store.leases.held("rosella")) == [THIRD, FOURTH]
    assert items(store.leases.held("rosella", "main")) == [FOURTH]
    assert items(store.leases.held("rosella", expert=ADA)) == [THIRD]


# --- time --------------------------------------------------------------------------------------------


def test_a_lease_blocks_until_it_is_ended_so_that_a_draft_can_be_looked_for_first(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    assert store.leases.expired("rosella", after(239)) == []
    assert items(store.leases.expired("rosella", LATER)) == [FIRST]
    assert store.leases.expired("other", LATER) == []
    much_later = {"now": after(600), "until": after(700)}
    assert claim(store, BOB, FIRST, **much_later) == []
    assert store.leases.expire(lease.id, after(600))
    assert states(store) == [(ADA, 0, "expired")]
    assert not store.leases.expire(lease.id, after(600))
    assert items(claim(store, BOB, FIRST, **much_later)) == [FIRST]


def test_what_ran_out_first_comes_first(store: Store) -> None:
    claim(store, ADA, FIRST, until=after(30))
    claim(store, ADA, SECOND, until=after(20))
    claim(store, ADA, THIRD, until=after(90))
    assert items(store.leases.expired("rosella", after(60))) == [SECOND, FIRST]


def test_a_lease_that_was_renewed_meanwhile_is_not_expired(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    store.leases.extend(lease.id, after(500))
    assert not store.leases.expire(lease.id, LATER)
    assert store.leases.extend(lease.id, after(300)).expires_at == after(500)


def test_a_lease_whose_time_is_over_can_be_extended_and_one_that_ended_cannot(store: Store) -> None:
    (lease,) = claim(store, ADA, FIRST)
    assert store.leases.extend(lease.id, after(900)).expires_at == after(900)
    store.leases.finish("rosella", FIRST, ADA)
    with pytest.raises(LeaseEnded, match="is done since"):
        store.leases.extend(lease.id, after(999))
    for ask in (store.leases.get, store.leases.expire, lambda n: store.leases.extend(n, LATER)):
        with pytest.raises(UnknownLease, match="lease 99: was never given"):
            ask(99)


def test_work_renews_the_other_leases_of_the_expert_in_the_queue(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND, THIRD)
    claim(store, ADA, FOURTH, queue="second")
    claim(store, BOB, Item(image_id="b", tile=0))
    store.leases.finish("rosella", FIRST, ADA)
    assert store.leases.renew("rosella", "main", ADA, after(300)) == 2
    assert {one.item: one.expires_at for one in store.leases.held("rosella")} == {
        SECOND: after(300),
        THIRD: after(300),
        FOURTH: LATER,
        Item(image_id="b", tile=0): LATER,
    }
    assert store.leases.renew("rosella", "main", ADA, after(10)) == 2
    assert store.leases.held("rosella", "main", ADA)[0].expires_at == after(300)


# --- what an item was given for ----------------------------------------------------------------------


def test_an_item_keeps_its_first_role_and_canvas_whatever_it_is_chosen_for_later(store: Store) -> None:
    (lease,) = claim(store, ADA, choice(FIRST, role="audit", canvas="blank"))
    store.leases.release(lease.id, ADA, now=after(1))
    (again,) = claim(store, BOB, choice(FIRST, role="ranked"), version="cdl-2", strategy="margin")
    assert (again.role, again.canvas, again.version, again.strategy) == ("audit", "blank", "cdl-2", "margin")
    kept = store.leases.roles("rosella")[FIRST]
    assert (kept.role, kept.canvas, kept.readers, kept.queue) == ("audit", "blank", 1, "main")
    assert (kept.strategy, kept.version, kept.given_at) == ("entropy", "cdl-1", NOON)


def test_a_later_role_is_told_by_the_lease_and_not_by_the_item(store: Store) -> None:
    claim(store, ADA, FIRST)
    (overlap,) = claim(store, BOB, choice(FIRST, role="overlap", readers=2, canvas="blank"))
    assert (overlap.role, overlap.canvas) == ("overlap", "model")
    kept = store.leases.roles("rosella")[FIRST]
    assert (kept.role, kept.readers) == ("ranked", 2)


def test_a_review_gives_an_item_no_role(store: Store) -> None:
    claim(store, ADA, choice(FIRST, role="review"))
    assert store.leases.roles("rosella") == {}


def test_roles_can_be_asked_for_by_item(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND, THIRD)
    asked = store.leases.roles("rosella", [THIRD, FIRST, FOURTH])
    assert list(asked) == [THIRD, FIRST]
    assert list(store.leases.roles("rosella")) == [FIRST, SECOND, THIRD]
    assert store.leases.roles("other") == {}


def test_taken_is_what_is_held_or_done(store: Store) -> None:
    claim(store, ADA, FIRST, SECOND, THIRD)
    store.leases.finish("rosella", FIRST, ADA)
    store.leases.finish("rosella", SECOND, ADA, "skipped")
    assert store.leases.taken("rosella", [FIRST, SECOND, THIRD, FOURTH]) == {FIRST, THIRD}


def test_an_item_short_of_readers_is_offered_to_those_who_have_not_read_it(store: Store) -> None:
    claim(store, ADA, choice(SECOND, role="contest", readers=2), now=after(1))
    claim(store, ADA, choice(FIRST, role="contest", readers=2), THIRD, now=after(2))

    def offered(expert: str, limit: int = 9, queue: str = "main") -> list[Item]:
        return [known.item for known in store.leases.open_seats("rosella", queue, expert, limit)]

    assert offered(ADA) == []
    assert offered(BOB) == [SECOND, FIRST]
    assert offered(BOB, limit=1) == [SECOND]
    assert offered(BOB, queue="second") == []
    (lease,) = claim(store, BOB, choice(SECOND, role="contest", readers=2))
    assert offered(EVE) == [FIRST]
    store.leases.release(lease.id, BOB, now=after(3))
    assert offered(EVE) == [SECOND, FIRST]
    store.leases.finish("rosella", FIRST, ADA, "skipped")  # nobody has read it: an item like any other
    assert offered(EVE) == [SECOND]
    store.corrections.append("rosella", make_correction(SECOND, expert=BOB), "0" * 64)
    assert offered(EVE) == []  # Bob read it without a lease, and Ada holds the other seat


# --- many at once ------------------------------------------------------------------------------------


@st.composite
def _acts(draw: st.DrawFn) -> list[tuple[str, str, Item]]:
    kinds = ("claim", "done", "skipped", "release", "expire", "reopen")
    act = st.tuples(
        st.sampled_from(kinds), st.sampled_from((ADA, BOB, EVE)), st.sampled_from((FIRST, SECOND))
    )
    return draw(st.lists(act, max_size=25))


@given(acts=_acts(), readers=st.integers(1, 2))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_no_seat_and_no_expert_is_served_twice(
    tmp_path: Path, acts: list[tuple[str, str, Item]], readers: int
) -> None:
    path = tmp_path / str(len(list(tmp_path.iterdir())))
    store = Store(path)
    store.images.add(make_assay(), [make_record("a")])
    role = "ranked" if readers == 1 else "overlap"
    for act, expert, item in acts:
        held = store.leases.held("rosella", expert=expert)
        if act == "claim":
            had = [one.state for one in store.leases.of_item("rosella", item) if one.expert == expert]
            living = [o for o in store.leases.of_item("rosella", item) if o.state in ("held", "done")]
            got = claim(store, expert, choice(item, role=role, readers=readers))
            is_free = len(living) < readers and not {"held", "done", "skipped"} & set(had)
            assert bool(got) == is_free
        elif act in ("done", "skipped"):
            store.leases.finish("rosella", item, expert, act)  # type: ignore[arg-type]
        elif act == "release" and held:
            store.leases.release(held[0].id, expert, now=NOON)
        elif act == "expire" and held:
            store.leases.expire(held[0].id, LATER)
        elif act == "reopen":
            store.leases.reopen("rosella", item, expert)
    for item in (FIRST, SECOND):
        living = [o for o in store.leases.of_item("rosella", item) if o.state in ("held", "done")]
        assert len({one.seat for one in living}) == len(living)
        assert len({one.expert for one in living}) == len(living)
    store.close()


CLIENTS = 20
IMAGES = 2500


def _fill(store: Store) -> list[Item]:
    records = [make_record(f"i{number:04d}") for number in range(IMAGES)]
    store.images.add(make_assay(), records)
    return [Item(image_id=record.image_id, tile=tile) for record in records for tile in range(4)]


def test_twenty_clients_make_ten_thousand_claims_and_no_item_goes_out_twice(tmp_path: Path) -> None:
    first = Store(tmp_path)
    every = _fill(first)
    first.close()
    given: list[list[Lease]] = [[] for _ in range(CLIENTS)]
    errors: list[BaseException] = []
    begin = threading.Barrier(CLIENTS)

    def work(client: int) -> None:
        own = Store(tmp_path)
        try:
            begin.wait()
            # all ask for the same items in the same order, as if each had just read the same ranking
            for start in range(0, len(every), 100):
                while got := claim(
                    own, f"{client}@example.com", *every[start : start + 100], cap=20_000, count=10
                ):
                    given[client] += got
        except BaseException as error:
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=work, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    handed = [lease for one in given for lease in one]
    assert Counter(lease.item for lease in handed) == Counter(every)
    again = Store(tmp_path)
    assert {one.id: one for one in again.leases.held("rosella")} == {one.id: one for one in handed}
    again.close()


CLAIM_ALL = """
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from cytoloop.adapters.store import Store
from cytoloop.domain.types import Item
from cytoloop.domain.worklist import Candidate, Choice
store = Store(Path(sys.argv[1]))
def choice(tile):
    item = Item(image_id=f"i{tile // 4:04d}", tile=tile % 4)
    candidate = Candidate(item=item, split="train", group="", plate="", score=0.5, confidence=0.5, lot=0.5)
    return Choice(candidate=candidate, role="ranked", canvas="model", readers=1)
for start in range(0, 200, 20):
    while store.leases.claim(
        "rosella", "main", sys.argv[2], [choice(n) for n in range(start, start + 20)],
        datetime.now(UTC) + timedelta(hours=1), 200, count=3, strategy="entropy", version="cdl-1",
    ):
        pass
store.close()
"""


def test_processes_that_claim_at_once_get_different_items(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.images.add(make_assay(), [make_record(f"i{number:04d}") for number in range(50)])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM_ALL, str(tmp_path), expert], stderr=subprocess.PIPE, text=True
        )
        for expert in (ADA, BOB)
    ]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert (process.returncode, said) == (0, "")
    held = store.leases.held("rosella")
    assert len({lease.item for lease in held}) == len(held) == 200
    store.close()
