"""Who sees which mask, in which order, on which side."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.rating_design import RatingDesign, draw_design
from cytoloop.domain.types import Item

A, B = "cip-20240517-00000000", "cdl-20240518-11111111"
EXPERTS = ("ada", "bob", "cyd", "dan")


def design(images: int = 40, sets: int = 2, experts: Sequence[str] = EXPERTS, seed: int = 0) -> RatingDesign:
    there = [Item(image_id=f"i{n}", tile=t) for n in range(30) for t in range(4)]
    tokens = np.random.default_rng(99)
    return draw_design(
        there, (A, B), experts, images, sets, np.random.default_rng(seed), lambda: tokens.bytes(8).hex()
    )


def test_the_default_is_the_papers_design() -> None:
    made = design()
    assert len(made.pictures) == 80
    assert [(rater.expert, rater.set, len(rater.showings)) for rater in made.raters] == [
        ("ada", 1, 40),
        ("bob", 1, 40),
        ("cyd", 2, 40),
        ("dan", 2, 40),
    ]
    assert {picture.set for picture in made.pictures} == {1, 2}


@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_each_expert_sees_each_image_of_the_set_once_a_method(images: int, sets: int, seed: int) -> None:
    if images < sets:
        return
    made = design(images, sets, EXPERTS[:3], seed)
    pictures = {picture.token: picture for picture in made.pictures}
    for rater in made.raters:
        seen = [pictures[showing.token] for showing in rater.showings]
        assert {one.set for one in seen} == {rater.set}
        of_set = {one.item for one in made.pictures if one.set == rater.set}
        assert sorted((one.item, one.method) for one in seen) == sorted(itertools.product(of_set, (A, B)))
        for method in (A, B):
            left = [s.is_mask_left for s in rater.showings if pictures[s.token].method == method]
            assert abs(2 * sum(left) - len(left)) <= 1


def test_orders_differ_between_experts_of_one_set() -> None:
    ada, bob, *_ = design().raters
    assert {s.token for s in ada.showings} == {s.token for s in bob.showings}
    assert [s.token for s in ada.showings] != [s.token for s in bob.showings]


def test_neither_place_nor_side_speaks_for_a_method() -> None:
    """Over many designs, the method of a task cannot be told from what the expert sees."""
    firsts, lefts = [], []
    for seed in range(300):
        made = design(images=4, sets=1, experts=("ada",), seed=seed)
        pictures = {picture.token: picture for picture in made.pictures}
        [rater] = made.raters
        methods = [pictures[s.token].method == B for s in rater.showings]
        firsts.append(methods[0])
        lefts.append(rater.showings[0].is_mask_left == methods[0])
    # Binomial(300, 1/2): outside 120…180 once in 2000.
    assert 120 <= sum(firsts) <= 180
    assert 120 <= sum(lefts) <= 180


def test_the_key_survives_its_file() -> None:
    made = design(images=5)
    assert RatingDesign.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.picture(made.pictures[3].token) == made.pictures[3]
    assert made.picture("nothing") is None


def test_a_method_is_not_rated_against_itself() -> None:
    there = [Item(image_id="i", tile=0)]
    with pytest.raises(InputError, match="against itself"):
        draw_design(there, (A, A), ["ada"], 1, 1, np.random.default_rng(0), lambda: "t")
    with pytest.raises(InputError, match="two are equal"):
        draw_design(there, (A, B), ["ada"], 1, 1, np.random.default_rng(0), lambda: "t")
