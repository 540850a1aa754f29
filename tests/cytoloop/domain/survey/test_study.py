from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.study import Progress, assign_experts, draw_sets, missing_words
from cytoloop.domain.types import Item


def items(images: int, tiles: int = 4) -> list[Item]:
    return [Item(image_id=f"i{n:02d}", tile=t) for n in range(images) for t in range(tiles)]


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99), st.data())
def test_sets_are_disjoint_and_of_one_size(
    images: int, tiles: int, sets: int, seed: int, data: st.DataObject
) -> None:
    there = items(images, tiles)
    if len(there) < sets:
        return
    count = data.draw(st.integers(sets, len(there)))
    dealt = draw_sets(there, count, sets, np.random.default_rng(seed))
    drawn = [item for of_set in dealt for item in of_set]
    assert len(drawn) == len(set(drawn)) == count
    assert set(drawn) <= set(there)
    sizes = [len(of_set) for of_set in dealt]
    assert max(sizes) - min(sizes) <= 1


def test_every_image_gives_a_tile_before_any_gives_a_second() -> None:
    dealt = draw_sets(items(10), 14, 2, np.random.default_rng(3))
    drawn = [item.image_id for of_set in dealt for item in of_set]
    per_image = sorted(drawn.count(image_id) for image_id in set(drawn))
    assert per_image == [1] * 6 + [2] * 4


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_the_items() -> None:
    there = items(9)
    drawn = draw_sets(there, 8, 2, np.random.default_rng(1))
    assert draw_sets(there[::-1], 8, 2, np.random.default_rng(1)) == drawn
    assert draw_sets(there, 8, 2, np.random.default_rng(2)) != drawn


def test_too_few_items_say_how_many_there_are() -> None:
    with pytest.raises(InputError, match="9 items asked for, there are 8"):
        draw_sets(items(2), 9, 2, np.random.default_rng(0))
    with pytest.raises(InputError, match=r"1 item\(s\) for 2 sets"):
        draw_sets(items(2), 1, 2, np.random.default_rng(0))


def test_experts_are_shared_out_among_sets() -> None:
    assert assign_experts(["a", "b", "c"], 2) == (1, 1, 2)
    assert assign_experts(["a", "b", "c", "d", "e"], 3) == (1, 1, 2, 2, 3)
    with pytest.raises(InputError, match=r"1 expert\(s\) for 2 set\(s\)"):
        assign_experts(["a"], 2)
    with pytest.raises(InputError, match="experts a: named twice"):
        assign_experts(["a", "b", "a"], 2)


def test_missing_work_is_named_by_expert() -> None:
    done = Progress(expert="ada", set=1, done=4, total=4, project_id=1)
    half = Progress(expert="bob", set=2, done=1, total=4, project_id=2, skipped=1)
    assert missing_words([done]) == ""
    assert missing_words([done, half]) == "Incomplete: 3 of 8 tasks are open (bob 3)."
    assert half.to_dict()["left"] == 3
