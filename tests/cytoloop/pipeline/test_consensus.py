"""What training and contests take of several readers, and what does not count yet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import Item, make_correction

from cytoloop.adapters.store import Review
from cytoloop.domain.types import Role
from cytoloop.domain.worklist import Candidate, Choice
from cytoloop.pipeline.consensus import agreed, counted, readings

if TYPE_CHECKING:
    from conftest import SmallHome

ADA, BOB, CY = "ada@lab.org", "bob@lab.org", "cy@lab.org"
ITEM = Item(image_id="P_B01_f1", tile=0)
OTHER = Item(image_id="P_B02_f1", tile=3)


def mask(*objects: tuple[int, int]) -> NDArray[np.uint8]:
    """A tile of 32 x 32 with a 10 x 10 object of each (class, row)."""
    mask_HW = np.zeros((32, 32), np.uint8)
    for value, row in objects:
        mask_HW[row : row + 10, 4:14] = value
    return mask_HW


def save(
    home: SmallHome, expert: str, mask_HW: NDArray[np.uint8], item: Item = ITEM, **fields: object
) -> str:
    """An expert submits a mask; each annotation a minute after the one before."""
    home.annotations += 1
    digest = home.store.masks.put(mask_HW)
    correction = make_correction(item, home.annotations, home.annotations, expert=expert, **fields)
    assert home.store.corrections.append(home.assay.name, correction, digest)
    return digest


def test_what_one_expert_read_stands_as_it_is(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, ADA, mask((2, 2)))
    save(home, BOB, mask((1, 5)), OTHER)
    assert agreed(home.store, home.assay) == home.store.corrections.standing("rosella")


def test_of_two_readers_the_consensus_is_where_they_agree(home: SmallHome) -> None:
    save(home, BOB, mask((1, 2), (2, 18)), lead_time_s=100.0)
    save(home, ADA, mask((1, 2)), lead_time_s=50.0, parent_version="cdl-1")
    (held,) = agreed(home.store, home.assay).values()
    expected = mask((1, 2), (255, 18))
    np.testing.assert_array_equal(home.store.masks.get(held.mask), expected)
    assert held.readers == (ADA, BOB)
    assert held.expert == f"consensus of {ADA}, {BOB}"
    assert held.lead_time_s == 150.0
    assert (held.parent_version, held.annotation_id) == ("cdl-1", 2)  # the latest reading's


def test_of_three_readers_two_decide(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2), (2, 18)))
    save(home, BOB, mask((1, 2)))
    save(home, CY, mask((1, 2), (2, 18)))
    (held,) = agreed(home.store, home.assay).values()
    np.testing.assert_array_equal(home.store.masks.get(held.mask), mask((1, 2), (2, 18)))


def test_the_same_readings_give_the_same_mask_whoever_was_first(home: SmallHome) -> None:
    one, other = mask((1, 2), (2, 18)), mask((1, 3))
    save(home, ADA, one)
    save(home, BOB, other)
    save(home, CY, other, OTHER)
    save(home, ADA, one, OTHER)
    held = agreed(home.store, home.assay)
    assert held[ITEM].mask == held[OTHER].mask
    assert agreed(home.store, home.assay) == held


def test_a_reading_that_is_deleted_leaves_the_other_alone(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, BOB, mask((2, 2)))
    home.store.corrections.append_deletion("rosella", 2)
    assert agreed(home.store, home.assay)[ITEM].expert == ADA


# --- second looks ------------------------------------------------------------------------------------


def look_again(home: SmallHome, expert: str, mask_HW: NDArray[np.uint8], role: Role = "review") -> None:
    """An expert is sent to look again, and submits."""
    candidate = Candidate(
        item=ITEM, split="train", group="g", plate="", score=1.0, confidence=0.0, minutes=1.0, lot=0.0
    )
    choice = Choice(candidate=candidate, role=role, canvas="model", readers=2)
    now = datetime.now(UTC)
    given = home.store.leases.claim(
        "rosella", "default", expert, [choice], now + timedelta(hours=1), 9, strategy="entropy", version="v"
    )
    assert given
    save(home, expert, mask_HW, annotated_at=now + timedelta(minutes=5))
    home.store.leases.finish("rosella", ITEM, expert)


def ask(home: SmallHome, expert: str, digest: str) -> None:
    review = Review(item=ITEM, expert=expert, mask=digest, score=1.0, reason="1 object is not drawn")
    assert home.store.reviews.ask("rosella", [review]) == 1


def test_a_mask_in_doubt_gives_way_to_the_answer(home: SmallHome) -> None:
    flagged = save(home, ADA, mask((1, 2)))
    ask(home, ADA, flagged)
    look_again(home, BOB, mask((1, 2), (2, 18)))
    held = agreed(home.store, home.assay)[ITEM]
    assert (held.expert, held.readers) == (BOB, ())
    np.testing.assert_array_equal(home.store.masks.get(held.mask), mask((1, 2), (2, 18)))


def test_a_blind_second_reading_is_no_answer_to_a_review(home: SmallHome) -> None:
    flagged = save(home, ADA, mask((1, 2)))
    ask(home, ADA, flagged)
    look_again(home, BOB, mask((1, 2), (2, 18)), role="overlap")
    assert [one.expert for one in readings(home.store, home.assay)[ITEM]] == [ADA, BOB]


def test_of_several_readings_only_the_one_in_doubt_gives_way(home: SmallHome) -> None:
    save(home, CY, mask((1, 2), (2, 18)))
    flagged = save(home, ADA, mask((1, 2)))
    ask(home, ADA, flagged)
    look_again(home, BOB, mask((1, 2), (2, 18)))
    assert [one.expert for one in readings(home.store, home.assay)[ITEM]] == [CY, BOB]


def test_who_looks_again_at_an_own_mask_replaces_it(home: SmallHome) -> None:
    flagged = save(home, ADA, mask((1, 2)))
    ask(home, ADA, flagged)
    look_again(home, ADA, mask((1, 4)))
    (found,) = readings(home.store, home.assay)[ITEM]
    np.testing.assert_array_equal(home.store.masks.get(found.mask), mask((1, 4)))


def test_who_insists_on_a_mask_in_doubt_that_was_confirmed_is_heard(home: SmallHome) -> None:
    """Each of two said the same after the doubt: neither may make the other's mask, and so all, go."""
    flagged = save(home, ADA, mask((1, 2)))
    ask(home, ADA, flagged)
    look_again(home, BOB, mask((1, 2)))
    later = datetime.now(UTC) + timedelta(minutes=10)
    assert save(home, ADA, mask((1, 2)), annotated_at=later) == flagged
    held = agreed(home.store, home.assay)[ITEM]
    np.testing.assert_array_equal(home.store.masks.get(held.mask), mask((1, 2)))
    assert held.expert == ADA, "said last"


# --- what counts -------------------------------------------------------------------------------------


def count(home: SmallHome, wanted: int = 2, **options: float):  # type: ignore[no-untyped-def]
    return counted(home.store, home.assay, agreed(home.store, home.assay), {ITEM: wanted}, **options)


def test_an_item_waits_for_its_second_reader_and_says_so(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, ADA, mask((1, 2)), OTHER)
    found = count(home)
    assert list(found.corrections) == [OTHER]  # which no policy wants two readers of
    assert found.waiting == {ITEM: f"read by 1 of 2 experts so far ({ADA})"}


def test_an_item_counts_once_a_second_reader_agrees(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, BOB, mask((1, 3)))  # 90 of 100 pixels shared
    found = count(home)
    assert list(found.corrections) == [ITEM]
    assert found.corrections[ITEM].readers == (ADA, BOB)
    assert found.waiting == {}
    assert list(count(home, least_dice=0.95).waiting) == [ITEM]


def test_two_who_differ_wait_and_a_third_may_settle_it(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, BOB, mask((1, 8)))  # 40 of 100 pixels shared
    (reason,) = count(home).waiting.values()
    assert reason == (
        f"{ADA} and {BOB} agree by a mean Dice of 0.40, expected at least 0.70: a further reader may settle it"
    )
    save(home, CY, mask((1, 9)))
    assert list(count(home).corrections) == [ITEM]


def test_two_empty_masks_agree(home: SmallHome) -> None:
    save(home, ADA, mask())
    save(home, BOB, mask())
    assert list(count(home).corrections) == [ITEM]


def test_readers_without_a_common_pixel_do_not_agree(home: SmallHome) -> None:
    nowhere = np.full((32, 32), 255, np.uint8)
    save(home, ADA, nowhere)
    save(home, BOB, mask((1, 2)))
    (reason,) = count(home).waiting.values()
    assert reason == f"{ADA} and {BOB} have no pixel that two of them looked at"


def test_a_single_reader_is_enough_where_one_is_wanted(home: SmallHome) -> None:
    save(home, ADA, mask((1, 2)))
    assert list(count(home, wanted=1).corrections) == [ITEM]


@pytest.mark.parametrize("wanted", [2, 3])
def test_all_that_are_wanted_must_agree_two_by_two(home: SmallHome, wanted: int) -> None:
    save(home, ADA, mask((1, 2)))
    save(home, BOB, mask((1, 4)))
    save(home, CY, mask((1, 6)))  # ADA and CY share 60 of 100
    assert bool(count(home, wanted).corrections) is (wanted == 2)
