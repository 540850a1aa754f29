"""Several teachers: who they are, how they vote, and what one of them alone still gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain.assay import IGNORE, Cip, Teacher
from cytoloop.domain.cip import (
    MIN_IMAGES_FOR_ILLUMINATION,
    cip_document,
    cip_of,
    make_weak_label,
    plate_illumination,
    recipe_digest,
    teachers_of,
)
from cytoloop.domain.cip.committee import SURE, opinions, vote
from cytoloop.domain.errors import ConfigError, ShapeError


def row(*values: int) -> np.ndarray:
    return np.array([values], np.uint8)


def test_most_votes_win_and_their_share_is_told() -> None:
    mask, confidence = vote([row(0, 1, 2), row(0, 2, 2), row(0, 2, 1)], 3)
    assert mask.tolist() == [[0, 2, 2]]
    assert confidence.tolist() == [[255, 170, 170]]
    assert (mask.dtype, confidence.dtype) == (np.uint8, np.uint8)


def test_equal_votes_go_to_the_first_teacher_else_to_the_lowest_class() -> None:
    # first column: the first teacher is one of the tied; second: it stands alone against two pairs
    masks = [row(2, 0), row(1, 2), row(1, 2), row(2, 1), row(0, 1)]
    mask, confidence = vote(masks, 3)
    assert mask.tolist() == [[2, 1]]
    assert confidence.tolist() == [[102, 102]]
    assert vote([row(2), row(1)], 3)[0].tolist() == [[2]]


def test_who_saw_nothing_does_not_vote_and_does_not_agree() -> None:
    mask, confidence = vote([row(IGNORE, IGNORE), row(1, IGNORE)], 3)
    assert mask.tolist() == [[1, IGNORE]]
    assert confidence.tolist() == [[128, 0]]


@given(
    masks=st.lists(arrays(np.uint8, (3, 4), elements=st.integers(0, 2)), min_size=1, max_size=5),
    data=st.data(),
)
def test_no_class_has_more_votes_than_the_winner(masks: list[np.ndarray], data: Any) -> None:
    mask, confidence = vote(masks, 3)
    votes = np.stack([sum((m == k).astype(int) for m in masks) for k in range(3)])
    own = np.take_along_axis(votes, mask[None].astype(int), axis=0)[0]
    np.testing.assert_array_equal(own, votes.max(axis=0))
    np.testing.assert_array_equal(np.rint(confidence / SURE * len(masks)), own)
    others = data.draw(st.permutations(masks[1:]))
    np.testing.assert_array_equal(vote([masks[0], *others], 3)[0], mask)
    again, sure = vote([masks[0]] * 3, 3)
    np.testing.assert_array_equal(again, masks[0])
    assert (sure == SURE).all()


@pytest.mark.parametrize("masks", [[], [row(1), row(1, 2)], [np.zeros(3, np.uint8)]])
def test_masks_that_cannot_be_compared_are_refused(masks: list[np.ndarray]) -> None:
    with pytest.raises(ShapeError, match="expected at least one mask, all of one size"):
        vote(masks, 3)


# --- who the teachers are --------------------------------------------------------------------------


def test_parameters_are_laid_over_the_firsts_where_the_recipe_is_the_same() -> None:
    cip = Cip(
        recipe="rosella",
        parameters={"camera_offset": 110, "psf_sigma": 1},
        teachers=(
            Teacher(parameters={"psf_sigma": 2}),
            Teacher(recipe="rosella", parameters={"red_floor": 1}),
            Teacher(recipe="cells2ch", parameters={"cell_sigma": 3}),
        ),
        agreement=0.5,
    )
    assert [(o.recipe, dict(o.parameters)) for o in opinions(cip)] == [
        ("rosella", {"camera_offset": 110, "psf_sigma": 1}),
        ("rosella", {"camera_offset": 110, "psf_sigma": 2}),
        ("rosella", {"camera_offset": 110, "psf_sigma": 1, "red_floor": 1}),
        ("cells2ch", {"cell_sigma": 3}),
    ]
    assert [recipe.name for recipe, _ in teachers_of(cip)] == ["rosella", "rosella", "rosella", "cells2ch"]


@pytest.mark.parametrize(
    ("teachers", "message"),
    [
        ([Teacher(recipe="rosela")], r"cip\.teachers\.0\.recipe: unknown CIP recipe 'rosela', expected one"),
        (
            [Teacher(parameters={"psf_sigma": 2}), Teacher(parameters={"sigma": 1})],
            r"cip\.teachers\.1\.parameters: recipe 'rosella': unknown parameter\(s\) \['sigma'\]",
        ),
        (
            [Teacher(parameters={"psf_sigma": -1})],
            r"cip\.teachers\.0\.parameters: recipe 'rosella': psf_sigma is -1, expected a number >= 0",
        ),
        (
            [Teacher(recipe="nuclei")],
            r"cip\.teachers\.0\.recipe: 'nuclei' reads 1 channel\(s\) and gives 3 classes, "
            r"expected 2 and 3 as 'rosella'",
        ),
        ([Teacher(parameters={"psf_sigma": 1})], r"cip\.teachers\.0: the same as the first teacher"),
        (
            [Teacher(parameters={"psf_sigma": 2}), Teacher(recipe="rosella", parameters={"psf_sigma": 2.0})],
            r"cip\.teachers\.1: the same as cip\.teachers\.0, expected another recipe or other parameters",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_named(teachers: list[Teacher], message: str) -> None:
    cip = Cip(recipe="rosella", teachers=tuple(teachers))
    for use in (teachers_of, recipe_digest, lambda c: plate_illumination([], c)):
        with pytest.raises(ConfigError, match=message):
            use(cip)


# --- digests ---------------------------------------------------------------------------------------


def test_one_teacher_keeps_the_digest_it_always_had() -> None:
    assert recipe_digest(Cip(recipe="rosella", parameters={"camera_offset": 110})) == (
        "a2dcc249e1cc9d70cf0a54c0adaa9b2aa72e5029f0a7a5d3d47d8b6a25919e34"
    )
    assert recipe_digest(Cip(recipe="nuclei", agreement=0.5)) == (
        "7499482ddab33d08732de256433c3e5fed2335a45622cff0bdcc58e414db5276"
    )


def test_the_digest_follows_who_votes_but_not_how_much_agreement_training_wants() -> None:
    def digest(*teachers: Teacher, agreement: float = 0.0) -> str:
        return recipe_digest(Cip(recipe="rosella", teachers=teachers, agreement=agreement))

    wide, floor = Teacher(parameters={"psf_sigma": 2}), Teacher(parameters={"red_floor": 1})
    reference = digest(wide)
    assert digest(wide, agreement=0.9) == reference
    assert digest(Teacher(recipe="rosella", parameters={"psf_sigma": 2.0, "iterations": 10})) == reference
    assert len({reference, digest(), digest(floor), digest(wide, floor), digest(floor, wide)}) == 5


def test_a_document_gives_the_teachers_back() -> None:
    cip = Cip(
        recipe="rosella",
        parameters={"camera_offset": 110},
        teachers=(Teacher(parameters={"psf_sigma": 2}), Teacher(recipe="cells2ch")),
        agreement=0.5,
    )
    again = cip_of(cip_document(cip))
    assert teachers_of(again) == teachers_of(cip)
    assert cip_document(again) == cip_document(cip)
    assert again.agreement == 0.0
    assert set(cip_document(Cip(recipe="nuclei"))) == {"recipe", "parameters"}


# --- weak labels -----------------------------------------------------------------------------------

FAINT, WIDE = {"red_threshold": 100.0}, {"psf_sigma": 2.0}


def field() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.poisson(np.array([900, 200])[:, None, None], (2, 64, 80)).astype(np.float32)
    y, x = np.mgrid[:64, :80]
    for at, (green, red) in (((20, 20), (6000, 2000)), ((40, 55), (300, 2500))):
        image[:, (y - at[0]) ** 2 + (x - at[1]) ** 2 <= 36] = np.array([[green], [red]])
    return image


def test_a_weak_label_of_several_teachers_is_their_vote_whatever_they_share() -> None:
    """``FAINT`` shares the first teacher's deconvolution, ``WIDE`` has its own."""
    image = field()
    before = image.copy()
    cip = Cip(recipe="rosella", teachers=(Teacher(parameters=FAINT), Teacher(parameters=WIDE)))
    label = make_weak_label(image, "k", cip)
    alone = [
        make_weak_label(image, "k", Cip(recipe="rosella", parameters=parameters))
        for parameters in ({}, FAINT, WIDE)
    ]
    mask, confidence = vote([one.mask_HW for one in alone], 3)
    np.testing.assert_array_equal(label.mask_HW, mask)
    assert label.confidence_HW is not None
    np.testing.assert_array_equal(label.confidence_HW, confidence)
    assert len({one.mask_HW.tobytes() for one in alone}) == 3, "three opinions"
    assert {85, 170, 255} >= set(np.unique(confidence)) >= {170, 255}
    assert (label.recipe, label.recipe_digest) == ("rosella", recipe_digest(cip))
    assert all(one.confidence_HW is None for one in alone), "one teacher is not asked how sure it is"
    np.testing.assert_array_equal(image, before)


def test_a_watch_is_told_the_first_teachers_steps() -> None:
    def steps(cip: Cip) -> list[tuple[str, bytes]]:
        seen: list[tuple[str, bytes]] = []
        make_weak_label(
            field(), "k", cip, watch=lambda name, array, kind: seen.append((name, array.tobytes()))
        )
        return seen

    alone = steps(Cip(recipe="rosella"))
    assert alone
    assert steps(Cip(recipe="rosella", teachers=(Teacher(parameters=WIDE),))) == alone


def test_illumination_is_estimated_where_any_teacher_wants_it() -> None:
    images = [field()] * MIN_IMAGES_FOR_ILLUMINATION
    mixed = Cip(recipe="cells2ch", teachers=(Teacher(recipe="rosella", parameters={"camera_offset": 110}),))
    found = plate_illumination(images, mixed)
    direct = plate_illumination(images, Cip(recipe="rosella", parameters={"camera_offset": 110}))
    assert found is not None
    assert direct is not None
    np.testing.assert_array_equal(found, direct)
