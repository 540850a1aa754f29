"""Reviews: asked for once a mask, open until somebody has looked again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from samples import Item, make_assay, make_correction, make_record

from cytoloop.adapters.store import Review, Store
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.types import Role
from cytoloop.domain.worklist import Candidate, Choice

ADA, BOB = "ada@lab.org", "bob@lab.org"
ITEM, OTHER = Item(image_id="a", tile=0), Item(image_id="b", tile=1)
MASK, NEWER = "1" * 64, "2" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.images.add(make_assay(), [make_record("a"), make_record("b")])
    yield opened
    opened.close()


def submit(
    store: Store,
    item: Item = ITEM,
    mask: str = MASK,
    expert: str = ADA,
    annotation: int = 1,
    minutes: float = 0,
) -> None:
    store.corrections.append("rosella", make_correction(item, annotation, minutes, expert=expert), mask)


def make_review(item: Item = ITEM, score: float = 0.5, mask: str = MASK, reason: str = "4 objects") -> Review:
    return Review(item=item, expert=ADA, mask=mask, score=score, reason=reason)


def lease(store: Store, expert: str, role: Role = "review", item: Item = ITEM) -> None:
    """An expert is given an item, and does it."""
    candidate = Candidate(
        item=item, split="train", group="a", plate="", score=1.0, confidence=0.0, minutes=1.0, lot=0.0
    )
    choice = Choice(candidate=candidate, role=role, canvas="model", readers=1)
    until = datetime.now(UTC) + timedelta(hours=1)
    given = store.leases.claim(
        "rosella", "default", expert, [choice], until, 9, strategy="entropy", version="v"
    )
    assert len(given) == 1
    store.leases.finish("rosella", item, expert)


def test_reviews_are_open_the_most_pressing_first(store: Store) -> None:
    submit(store)
    submit(store, OTHER, annotation=2)
    asked = [make_review(), make_review(OTHER, 0.9)]
    assert store.reviews.ask("rosella", asked) == 2
    assert store.reviews.open("rosella") == asked[::-1]
    assert store.reviews.open("rosella", 1) == asked[1:]
    assert store.reviews.open("other") == []


def test_a_mask_is_asked_about_once_and_gets_the_new_score(store: Store) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    again = make_review(score=0.7, reason="5 objects")
    assert store.reviews.ask("rosella", [again]) == 0
    assert store.reviews.open("rosella") == [again]


def test_a_review_closes_when_its_mask_no_longer_stands(store: Store) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    submit(store, mask=NEWER, minutes=1)
    assert store.reviews.open("rosella") == []
    assert store.reviews.answered("rosella") == {}


def test_a_review_closes_when_its_mask_is_taken_back(store: Store) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    store.corrections.append_deletion("rosella", 1)
    assert store.reviews.open("rosella") == []


def test_a_reading_of_somebody_else_does_not_close_a_review(store: Store) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    submit(store, mask=NEWER, expert=BOB, annotation=2, minutes=1)
    assert store.reviews.open("rosella") == [make_review()]


def test_a_review_that_was_done_is_answered(store: Store) -> None:
    submit(store)
    before = datetime.now(UTC)
    store.reviews.ask("rosella", [make_review()])
    lease(store, BOB)
    assert store.reviews.open("rosella") == []
    ((key, asked),) = store.reviews.answered("rosella").items()
    assert key == (ITEM, MASK)
    assert before <= asked <= datetime.now(UTC)


def test_leases_of_other_roles_or_from_before_answer_nothing(store: Store) -> None:
    lease(store, BOB)
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    assert store.reviews.open("rosella") == [make_review()]
    assert store.reviews.answered("rosella") == {}


def test_a_dismissed_review_stays_dismissed_when_it_is_asked_for_again(store: Store) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    assert store.reviews.dismiss("rosella", ITEM, BOB) == 1
    assert store.reviews.ask("rosella", [make_review(score=0.9)]) == 0
    assert store.reviews.open("rosella") == []
    with pytest.raises(StateError, match="image 'a' tile 0: has no open review"):
        store.reviews.dismiss("rosella", ITEM, BOB)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused_and_nothing_is_asked(store: Store, score: float) -> None:
    submit(store)
    with pytest.raises(InputError, match=rf"image 'b' tile 1: review score is {score}"):
        store.reviews.ask("rosella", [make_review(), make_review(OTHER, score)])
    assert store.reviews.open("rosella") == []


def test_reviews_survive_a_restart(store: Store, tmp_path: Path) -> None:
    submit(store)
    store.reviews.ask("rosella", [make_review()])
    opened = Store(tmp_path)
    assert opened.reviews.open("rosella") == [make_review()]
    opened.close()
