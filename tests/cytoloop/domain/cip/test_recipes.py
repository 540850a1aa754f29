"""Recipes by name, their digests, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip import (
    CODE_VERSION,
    MIN_IMAGES_FOR_ILLUMINATION,
    RECIPES,
    effective_parameters,
    make_weak_label,
    plate_illumination,
    recipe_digest,
)
from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.domain.types import check_label_mask

ALL = sorted(RECIPES)


def image_for(name: str, seed: int = 0) -> np.ndarray:
    shape = (RECIPES[name].channel_count, 48, 64)
    return np.random.default_rng(seed).poisson(200, shape).astype(np.float32)


def test_the_shipped_recipes():
    assert ALL == ["cells2ch", "nuclei", "rosella"]
    assert [RECIPES[name].channel_count for name in ALL] == [2, 1, 2]
    assert all(RECIPES[name].class_count == 3 and RECIPES[name].name == name for name in ALL)


@pytest.mark.parametrize("name", ALL)
def test_digest_follows_every_parameter_but_not_how_it_is_written(name):
    defaults = RECIPES[name].defaults
    digest = recipe_digest(Cip(recipe=name))
    assert recipe_digest(Cip(recipe=name, parameters=defaults)) == digest
    digests = {
        recipe_digest(Cip(recipe=name, parameters={key: value + 1})) for key, value in defaults.items()
    }
    assert len(digests | {digest}) == len(defaults) + 1


def test_digest_takes_an_integer_for_the_float_it_is():
    one, same = (Cip(recipe="nuclei", parameters={"area": area}) for area in (25, 25.0))
    assert recipe_digest(one) == recipe_digest(same)
    assert recipe_digest(Cip(recipe="cells2ch")) != recipe_digest(Cip(recipe="rosella"))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 300.0])
def test_an_image_without_contrast_is_background(name, value):
    image = np.full((RECIPES[name].channel_count, 40, 50), value, np.float32)
    assert not make_weak_label(image, "k", Cip(recipe=name)).mask_HW.any()


@pytest.mark.parametrize("name", ALL)
def test_a_weak_label_is_a_mask_with_its_origin_and_repeatable(name):
    image = image_for(name)
    before = image.copy()
    label = make_weak_label(image, "abc", Cip(recipe=name))
    check_label_mask(label.mask_HW, 3, name)
    assert label.mask_HW.shape == image.shape[1:]
    assert (label.image_key, label.recipe, label.code_version) == ("abc", name, CODE_VERSION)
    assert label.recipe_digest == recipe_digest(Cip(recipe=name))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(make_weak_label(image, "abc", Cip(recipe=name)).mask_HW, label.mask_HW)


def test_unknown_recipe_names_the_known():
    with pytest.raises(ConfigError, match=r"'rosela', expected one of .*'rosella'"):
        make_weak_label(image_for("rosella"), "k", Cip(recipe="rosela"))


def test_unknown_parameter_names_the_known():
    with pytest.raises(ConfigError, match=r"'rosella': unknown parameter\(s\) \['sigma'\].*psf_sigma"):
        effective_parameters(Cip(recipe="rosella", parameters={"sigma": 1}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "1", True, None])
def test_a_parameter_is_a_finite_number(value):
    with pytest.raises(ConfigError, match="psf_sigma is"):
        effective_parameters(Cip(recipe="rosella", parameters={"psf_sigma": value}))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (8, 8), (2, 0, 8)])
def test_another_number_of_channels_is_refused(shape):
    with pytest.raises(ShapeError, match=r"image k: shape .* expects \(2, H, W\)"):
        make_weak_label(np.ones(shape, np.float32), "k", Cip(recipe="rosella"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_grey_values_that_are_not_finite_are_refused(bad):
    image = image_for("rosella")
    image[1, 2, 3] = bad
    with pytest.raises(ShapeError, match="image k: 1 of 6144 grey values"):
        make_weak_label(image, "k", Cip(recipe="rosella"))


def test_illumination_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="illumination"):
        make_weak_label(image_for("rosella"), "k", Cip(recipe="rosella"), np.ones((2, 4, 4), np.float32))


@pytest.mark.parametrize("name", ALL)
def test_illumination_of_ones_changes_nothing(name):
    image = image_for(name)
    plain = make_weak_label(image, "k", Cip(recipe=name)).mask_HW
    lit = make_weak_label(image, "k", Cip(recipe=name), np.ones_like(image)).mask_HW
    np.testing.assert_array_equal(plain, lit)


def test_plate_illumination_needs_a_recipe_that_uses_it_and_enough_images():
    images = [image_for("rosella", seed) for seed in range(MIN_IMAGES_FOR_ILLUMINATION)]
    assert plate_illumination(iter(images), Cip(recipe="cells2ch")) is None
    assert plate_illumination(iter(images[1:]), Cip(recipe="rosella")) is None
    found = plate_illumination(iter(images), Cip(recipe="rosella"))
    assert found is not None
    assert found.shape == images[0].shape
