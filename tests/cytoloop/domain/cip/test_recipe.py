"""What every recipe promises: its stages, what it tells a watch, what may be tuned."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip import RECIPES, make_weak_label
from cytoloop.domain.cip import operators as op
from cytoloop.domain.cip.recipe import DROPPED, Recipe, sieve
from cytoloop.domain.errors import ConfigError

Y, X = np.mgrid[:96, :128]
ALL = sorted(RECIPES)


def disc(row: int, column: int, radius: int) -> np.ndarray:
    return (Y - row) ** 2 + (X - column) ** 2 <= radius**2


def field(recipe: Recipe) -> np.ndarray:
    """Two bright discs on noise, one of them with a bright middle in every channel."""
    rng = np.random.default_rng(0)
    image = rng.poisson(300, (recipe.channel_count, *Y.shape)).astype(np.float32)
    image[:, disc(30, 40, 14)] += 4000
    image[0, disc(30, 40, 6)] += 3000
    image[:, disc(60, 95, 8)] += 2500
    return image


def steps_of(recipe: Recipe, image: np.ndarray, **parameters: float) -> list[tuple[str, np.ndarray, str]]:
    told: list[tuple[str, np.ndarray, str]] = []
    cip = Cip(recipe=recipe.name, parameters=parameters)
    make_weak_label(image, "k", cip, watch=lambda *step: told.append(step))
    return told


@pytest.mark.parametrize("name", ALL)
def test_a_watch_is_told_every_step_in_order_and_changes_nothing(name):
    recipe, image = RECIPES[name], field(RECIPES[name])
    told = steps_of(recipe, image)
    assert [step for step, _, _ in told] == list(recipe.steps)
    mask = make_weak_label(image, "k", Cip(recipe=name)).mask_HW
    assert mask.any()
    assert told[-1][0] == "classes"
    np.testing.assert_array_equal(told[-1][1], mask)


@pytest.mark.parametrize("name", ALL)
def test_what_is_told_is_of_its_kind(name):
    checks: dict[str, Any] = {
        "grey": lambda a: a.dtype == np.float32 and np.isfinite(a).all(),
        "mask": lambda a: a.dtype == bool,
        "sieve": lambda a: a.dtype == np.uint8 and a.max() <= 2,
        "labels": lambda a: a.dtype == np.int32 and a.min() == 0,
        "classes": lambda a: a.dtype == np.uint8 and a.max() < RECIPES[name].class_count,
        "dropped": lambda a: a.dtype == DROPPED,
    }
    for step, array, kind in steps_of(RECIPES[name], field(RECIPES[name])):
        assert checks[kind](array), step
        if kind != "dropped":
            assert array.shape == Y.shape, step


@pytest.mark.parametrize("name", ALL)
def test_captions_name_parameters_and_channels_that_exist(name):
    recipe = RECIPES[name]
    for step in recipe.steps.values():
        named = {word for _, word, _, _ in string.Formatter().parse(step.text) if word}
        assert named <= set(recipe.defaults), step.title
        assert step.channel is None or step.channel < recipe.channel_count


@pytest.mark.parametrize("name", ALL)
def test_preparation_depends_on_what_it_says_and_on_nothing_else(name):
    recipe, image = RECIPES[name], field(RECIPES[name])
    prepared = recipe.prepare(image, recipe.defaults, None)
    for key, value in recipe.defaults.items():
        other = recipe.prepare(image, {**recipe.defaults, key: value + 1}, None)
        same = other.shape == prepared.shape and np.array_equal(other, prepared)
        assert same == (key not in recipe.prepared_by), key
    assert recipe.prepared_by <= set(recipe.defaults)


@pytest.mark.parametrize("name", ALL)
def test_what_may_be_tuned_are_parameters_whose_default_lies_within(name):
    recipe = RECIPES[name]
    assert recipe.tunable
    for key, span in recipe.tunable.items():
        assert span.low <= recipe.defaults[key] <= span.high, key
        assert span.low < span.high
        assert span.low > 0 or not span.log
        for value in (span.low, span.high):  # the ends are values the recipe can work with
            make_weak_label(field(recipe), "k", Cip(recipe=name, parameters={key: value}))


def test_a_search_takes_the_named_parameters_or_the_default_ones():
    rosella = RECIPES["rosella"]
    assert set(rosella.tuned(("psf_sigma", "share"))) == {"psf_sigma", "share"}
    assert "psf_sigma" not in rosella.tuned()
    assert "red_threshold" in rosella.tuned()
    with pytest.raises(ConfigError, match=r"'rosella': cannot tune \['iterations', 'x'\], expected any of"):
        rosella.tuned(("share", "iterations", "x"))


def test_sieve_by_hand():
    found, kept = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 1]], bool)
    assert sieve(found, kept).tolist() == [[1, 2, 0, 1]]


# --- where Rosella loses an object -----------------------------------------------------------------

YELLOW, RED, DIM = disc(30, 40, 5), disc(60, 95, 8), disc(70, 30, 5)


def rosella_field() -> np.ndarray:
    """One phagophore, one autolysosome, and a spot like the first but too dim for the floor."""
    green, red = np.full(Y.shape, 900.0), np.full(Y.shape, 100.0)
    green[YELLOW], red[YELLOW] = 6000, 2000
    green[RED], red[RED] = 300, 2500
    green[DIM], red[DIM] = 1200, 260
    return np.stack([op.gaussian_blur(c.astype(np.float32), 0.9) for c in (green, red)])


def told(**parameters: float) -> dict[str, np.ndarray]:
    return {name: array for name, array, _ in steps_of(RECIPES["rosella"], rosella_field(), **parameters)}


def test_an_object_below_the_red_floor_is_in_the_table_with_its_brightness():
    steps = told()
    assert (steps["floor"][30, 40], steps["floor"][70, 30]) == (1, 2)
    rows = steps["dropped"]
    assert len(rows) == 1
    assert abs(rows["row"][0] - 70) <= 1
    assert abs(rows["column"][0] - 30) <= 1
    assert rows["area"][0] == (steps["floor"] == 2).sum()
    assert rows["reason"][0] == "too dim in red"
    assert "expected above 300" in rows["measured"][0]
    assert told(red_floor=100)["floor"][70, 30] == 1


def test_an_object_of_neither_class_is_in_the_table_with_what_was_measured():
    # No rule holds for the yellow spot: its share, its brightness, its centre, its ratio.
    steps = told(share=1.0, centre_contrast=100, neutral_ratio=0.1, bright_green=1e6)
    assert steps["class-rule"][30, 40] == 2
    assert steps["classes"][30, 40] == 0
    row = steps["dropped"][steps["dropped"]["reason"] == "fits neither class"]
    assert len(row) >= 1
    near = row[np.hypot(row["row"] - 30, row["column"] - 40) < 2]
    assert len(near) == 1
    assert "both above 100% needed" in near["measured"][0]
    assert "above 0.1" in near["measured"][0]


def test_a_spot_below_the_smallest_area_is_dropped_among_the_spots():
    assert told()["red-spots"][30, 40] == 1
    assert told(red_area=500)["red-spots"][30, 40] == 2


def test_a_disc_at_the_edge_is_dropped_among_the_discs():
    image = np.roll(rosella_field(), -62, axis=1)  # the autolysosome now touches the upper edge
    steps = {name: array for name, array, _ in steps_of(RECIPES["rosella"], image)}
    assert steps["red-discs"][1, 95] == 2
    assert told()["red-discs"][60, 95] == 1
