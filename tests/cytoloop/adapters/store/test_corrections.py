"""Corrections: what was said is kept for ever, what stands is read from it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import NOON, Item, make_assay, make_correction, make_record

from cytoloop.adapters.store import Store

ITEM = Item(image_id="a", tile=0)
OTHER = Item(image_id="a", tile=1)
MASKS = tuple(letter * 64 for letter in "0123456789")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.images.add(make_assay(), [make_record("a"), make_record("b")])
    yield opened
    opened.close()


def submit(
    store: Store, mask: int, annotation: int = 1, minutes: float = 0, item: Item = ITEM, **more
) -> bool:  # type: ignore[no-untyped-def]
    correction = make_correction(item, annotation, minutes, **more)
    return store.corrections.append("rosella", correction, MASKS[mask])


def skip(store: Store, annotation: int, minutes: float, item: Item = ITEM) -> bool:
    return store.corrections.append_skip(
        "rosella", item, annotation, 7, NOON + timedelta(minutes=minutes), "ada@example.com"
    )


def standing(store: Store) -> dict[Item, int]:
    return {item: MASKS.index(c.mask) for item, c in store.corrections.standing("rosella").items()}


def kinds(store: Store) -> list[str]:
    return [row["kind"] for row in store.corrections.revisions("rosella")]


def test_a_correction_comes_back_as_it_was(store: Store) -> None:
    submit(
        store, 1, annotation=3, minutes=2, parent_version="cdl-1", conflict_pixels=4, origins={"manual": 2}
    )
    (kept,) = store.corrections.standing("rosella").values()
    assert (kept.item, kept.revision, kept.annotation_id, kept.task_id) == (ITEM, 1, 3, 7)
    assert (kept.annotated_at, kept.expert) == (NOON + timedelta(minutes=2), "ada@example.com")
    assert (kept.parent_version, kept.lead_time_s, kept.conflict_pixels) == ("cdl-1", 61.5, 4)
    record = store.images.get("rosella", "a")
    assert (kept.split, kept.group) == (record.split, record.group)
    assert store.corrections.revisions("rosella")[0]["origins"] == '{"manual": 2}'


def test_the_same_revision_twice_is_one_row(store: Store) -> None:
    assert submit(store, 1)
    assert not submit(store, 1)
    assert kinds(store) == ["submitted"]


def test_a_later_revision_stands_and_the_earlier_is_kept(store: Store) -> None:
    submit(store, 1, minutes=0)
    submit(store, 2, minutes=1)
    assert standing(store) == {ITEM: 2}
    assert [row["revision"] for row in store.corrections.revisions("rosella")] == [1, 2]


def test_an_older_revision_that_arrives_late_is_kept_but_does_not_stand(store: Store) -> None:
    submit(store, 2, minutes=1)
    assert submit(store, 1, minutes=0)
    assert standing(store) == {ITEM: 2}
    assert len(kinds(store)) == 2


def test_of_two_annotations_the_later_stands(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=5)
    submit(store, 2, annotation=2, minutes=3)
    assert standing(store) == {ITEM: 1}
    submit(store, 3, annotation=2, minutes=6)
    assert standing(store) == {ITEM: 3}


def test_a_deleted_annotation_no_longer_stands_and_is_buried_once(store: Store) -> None:
    submit(store, 1)
    assert store.corrections.append_deletion("rosella", 1)
    assert not store.corrections.append_deletion("rosella", 1)
    assert not store.corrections.append_deletion("rosella", 99)
    assert standing(store) == {}
    assert store.corrections.finished_items("rosella") == set()
    assert store.corrections.living_annotations("rosella") == {}
    assert kinds(store) == ["submitted", "deleted"]


def test_deleting_one_annotation_brings_back_the_other(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    submit(store, 2, annotation=2, minutes=1)
    store.corrections.append_deletion("rosella", 2)
    assert standing(store) == {ITEM: 1}


def test_what_was_deleted_stays_deleted_when_an_event_comes_again(store: Store) -> None:
    submit(store, 1, minutes=0)
    submit(store, 2, minutes=1)
    store.corrections.append_deletion("rosella", 1)
    assert not submit(store, 2, minutes=1)
    assert not submit(store, 1, minutes=0)
    submit(store, 3, minutes=0.5)  # never seen, but older than what was deleted
    assert standing(store) == {}


def test_an_annotation_made_again_after_a_deletion_stands_and_can_be_deleted_again(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    store.corrections.append_deletion("rosella", 1)
    submit(store, 2, annotation=1, minutes=5)  # the id was given again
    assert standing(store) == {ITEM: 2}
    assert store.corrections.append_deletion("rosella", 1)
    assert standing(store) == {}


def test_an_id_given_again_for_another_item_does_not_touch_the_first(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    store.corrections.append_deletion("rosella", 1)
    submit(store, 2, annotation=1, minutes=5, item=OTHER)
    assert standing(store) == {OTHER: 2}
    assert store.corrections.finished_items("rosella") == {OTHER}


def test_a_skip_takes_back_its_own_annotation_only(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    skip(store, 1, 1)
    assert standing(store) == {}
    assert store.corrections.finished_items("rosella") == {ITEM}
    submit(store, 2, annotation=1, minutes=2)
    assert standing(store) == {ITEM: 2}


def test_a_mask_beats_a_skip_of_another_expert_even_a_later_one(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    skip(store, 2, 9)
    assert standing(store) == {ITEM: 1}
    store.corrections.append_deletion("rosella", 1)
    assert standing(store) == {}
    assert store.corrections.finished_items("rosella") == {ITEM}


def test_a_skip_is_one_row_and_can_be_deleted(store: Store) -> None:
    assert skip(store, 1, 0)
    assert not skip(store, 1, 0)
    assert store.corrections.append_deletion("rosella", 1)
    assert store.corrections.finished_items("rosella") == set()


def test_living_annotations_can_be_asked_for_by_task(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0)
    submit(store, 2, annotation=1, minutes=1)
    submit(store, 3, annotation=2, item=OTHER, task_id=8)
    later = "2024-05-17T12:01:00.000000+00:00"
    noon = "2024-05-17T12:00:00.000000+00:00"
    assert store.corrections.living_annotations("rosella") == {1: (later, 7), 2: (noon, 8)}
    assert store.corrections.living_annotations("rosella", 8) == {2: (noon, 8)}
    assert store.corrections.living_annotations("other") == {}


@given(order=st.permutations(range(5)), twice=st.lists(st.integers(0, 4), max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_stands_does_not_depend_on_the_order_of_arrival(
    tmp_path: Path, order: list[int], twice: list[int]
) -> None:
    store = Store(tmp_path / next(FOLDERS))
    store.images.add(make_assay(), [make_record("a")])
    # (mask, annotation, minutes): two annotations of one item, revised in turn
    events = [(0, 1, 0), (1, 2, 1), (2, 1, 2), (3, 2, 3), (4, 1, 4)]
    for index in [*order, *twice]:
        mask, annotation, minutes = events[index]
        submit(store, mask, annotation, minutes)
    assert standing(store) == {ITEM: 4}
    assert len(kinds(store)) == 5
    store.close()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "skip", "delete"]),
        st.integers(1, 2),  # an annotation's id may be given again, for another item
        st.sampled_from([ITEM, OTHER]),
        st.integers(0, 5),
    ),
    max_size=8,
)


@given(events=EVENTS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_stands_of_an_item_is_the_same_asked_alone_or_with_all(
    tmp_path: Path, events: list[tuple[str, int, Item, int]]
) -> None:
    store = Store(tmp_path / next(FOLDERS))
    store.images.add(make_assay(), [make_record("a")])
    for kind, annotation, item, minutes in events:
        if kind == "submit":
            submit(store, annotation, annotation, minutes, item)
        elif kind == "skip":
            skip(store, annotation, minutes, item)
        else:
            store.corrections.append_deletion("rosella", annotation)
    assert store.corrections.is_finished("rosella", [ITEM, OTHER]) == store.corrections.finished_items(
        "rosella"
    )
    standing_now = store.corrections.standing("rosella")
    submitted = {i for i in (ITEM, OTHER) if "submitted" in store.corrections.of_item("rosella", i).values()}
    assert submitted == set(standing_now)
    read = {
        (item, one.expert): one.annotated_at
        for item, of_item in store.corrections.readings("rosella").items()
        for one in of_item
    }
    assert {(one.item, one.expert): one.annotated_at for one in store.corrections.who_read("rosella")} == read
    totals = store.corrections.totals("rosella", None)
    masks = [row for row in store.corrections.revisions("rosella") if row["kind"] == "submitted"]
    assert totals.corrected == len(standing_now)
    assert totals.seconds == sum(one.lead_time_s or 0 for one in standing_now.values())
    assert (totals.new, totals.new_seconds) == (len(masks), sum(row["lead_time_s"] for row in masks))
    assert totals.last_received == max((row["received_at"] for row in masks), default=None)
    store.close()


def test_what_is_new_is_what_came_in_after_a_moment(store: Store) -> None:
    assert store.corrections.totals("rosella", None).last_received is None
    submit(store, 1, annotation=1)
    submit(store, 1, annotation=2, minutes=1, item=OTHER)
    skip(store, 3, 2)
    first, second, _ = (row["received_at"] for row in store.corrections.revisions("rosella"))
    totals = store.corrections.totals("rosella", first)
    assert (totals.new, totals.new_seconds, totals.corrected, totals.seconds) == (1, 61.5, 2, 123.0)
    totals = store.corrections.totals("rosella", second)
    assert (totals.new, totals.new_seconds, totals.last_received) == (0, 0, second), (
        "the latest is the latest"
    )
    assert store.corrections.totals("other", None).corrected == 0


def test_of_one_expert_a_mask_goes_before_a_skip(store: Store) -> None:
    skip(store, 2, 9)
    submit(store, 1, annotation=1, minutes=0)
    submit(store, 1, annotation=3, minutes=0, expert="bob@example.com")
    submit(store, 1, annotation=4, minutes=0, expert="eve@example.com")
    skip(store, 5, 9, OTHER)
    store.corrections.append_deletion("rosella", 4)
    assert store.corrections.of_item("rosella", ITEM) == {
        "ada@example.com": "submitted",
        "bob@example.com": "submitted",
    }
    assert store.corrections.of_item("rosella", OTHER) == {"ada@example.com": "skipped"}
    assert store.corrections.of_item("other", ITEM) == {}


FOLDERS = (f"store{n}" for n in itertools.count())


def test_doubts_are_remembered_once(store: Store) -> None:
    for _ in range(2):
        store.corrections.add_doubt("rosella", "webhook", "event 3", "task 9: shows no item")
    store.corrections.add_doubt(None, "webhook", "event 4", "not JSON")
    assert [(d["reference"], d["assay"]) for d in store.corrections.doubts()] == [
        ("event 3", "rosella"),
        ("event 4", None),
    ]


def test_the_place_in_the_inbox_only_moves_on(store: Store) -> None:
    assert store.corrections.last_event() == 0
    store.corrections.set_last_event(5)
    store.corrections.set_last_event(3)
    assert store.corrections.last_event() == 5


# --- readings of several experts ---------------------------------------------------------------------


ADA, BOB = "ada@example.com", "bob@example.com"


def readings(store: Store, item: Item = ITEM) -> list[tuple[str, int]]:
    """(expert, mask) of an item, the latest last."""
    found = store.corrections.readings("rosella").get(item, [])
    return [(reading.expert, MASKS.index(reading.mask)) for reading in found]


def test_each_expert_has_a_reading_and_the_last_one_stands(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=5, expert=ADA)
    submit(store, 2, annotation=2, minutes=3, expert=BOB)
    submit(store, 3, annotation=3, item=OTHER, expert=BOB)
    assert readings(store) == [(BOB, 2), (ADA, 1)]
    assert readings(store, OTHER) == [(BOB, 3)]
    assert standing(store) == {ITEM: 1, OTHER: 3}
    assert store.corrections.readings("other") == {}


def test_of_several_annotations_of_one_expert_the_latest_is_the_reading(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0, expert=ADA)
    submit(store, 2, annotation=2, minutes=1, expert=BOB)
    submit(store, 3, annotation=3, minutes=2, expert=ADA)
    assert readings(store) == [(BOB, 2), (ADA, 3)]
    submit(store, 4, annotation=1, minutes=4, expert=ADA)
    assert readings(store) == [(BOB, 2), (ADA, 4)]


def test_what_was_skipped_or_deleted_is_no_reading(store: Store) -> None:
    submit(store, 1, annotation=1, minutes=0, expert=ADA)
    submit(store, 2, annotation=2, minutes=1, expert=BOB)
    store.corrections.append_deletion("rosella", 2)
    assert readings(store) == [(ADA, 1)]
    skip(store, 1, 3)
    assert readings(store) == []


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["submit", "skip", "delete"]),
            st.integers(1, 3),
            st.integers(0, 9),
            st.integers(0, 4),
        ),
        max_size=12,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_reading_is_the_one_that_stands(
    tmp_path: Path, events: list[tuple[str, int, int, int]]
) -> None:
    store = Store(tmp_path / next(FOLDERS))
    store.images.add(make_assay(), [make_record("a")])
    for kind, annotation, mask, minutes in events:
        if kind == "submit":
            submit(store, mask, annotation, minutes, expert=f"{annotation % 2}@lab.org")
        elif kind == "skip":
            skip(store, annotation, minutes)
        else:
            store.corrections.append_deletion("rosella", annotation)
    last = {item: of_item[-1] for item, of_item in store.corrections.readings("rosella").items()}
    assert last == store.corrections.standing("rosella")
    store.close()
