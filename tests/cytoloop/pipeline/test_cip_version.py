"""CIP as a version, and versions as predictors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from samples import make_assay, make_model, make_record

from cytoloop.adapters.images import read_image
from cytoloop.domain.assay import Cip, Teacher
from cytoloop.domain.cip import CODE_VERSION, effective_parameters, make_weak_label
from cytoloop.domain.errors import InputError, UnknownVersion
from cytoloop.domain.scoring import soften
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import RECIPE_FILE, load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks

if TYPE_CHECKING:
    from conftest import SmallHome


def test_the_first_cip_version_is_active_and_made_once(home: SmallHome) -> None:
    version = ensure_cip_version(home.store, home.registry, home.assay)
    assert version.version.startswith("cip-")
    assert version.status == "active"
    assert home.store.models.active("rosella") == version
    assert ensure_cip_version(home.store, home.registry, home.assay) == version
    assert len(home.store.models.all("rosella")) == 1
    assert version.config == {
        "recipe": "rosella",
        "parameters": effective_parameters(home.assay.cip),
        "code_version": CODE_VERSION,
    }
    assert (home.registry.folder(version.version) / RECIPE_FILE).is_file()


def test_a_new_recipe_is_a_candidate_beside_the_active_one(home: SmallHome) -> None:
    first = ensure_cip_version(home.store, home.registry, home.assay)
    changed = replace(home.assay, cip=Cip(recipe="rosella", parameters={"camera_offset": 50}))
    second = ensure_cip_version(home.store, home.registry, changed)
    assert second.version != first.version
    assert second.status == "candidate"
    assert home.store.models.active("rosella") == first
    assert ensure_cip_version(home.store, home.registry, home.assay) == first


def test_two_assays_with_one_recipe_have_each_their_version(home: SmallHome) -> None:
    other = make_assay(name="other")
    home.store.assays.ensure(other)
    one, two = (ensure_cip_version(home.store, home.registry, assay) for assay in (home.assay, other))
    assert (one.assay, two.assay) == ("rosella", "other")
    assert one.version != two.version
    assert home.store.models.active("other") == two
    assert home.registry.manifest(two.version)["assay"]["name"] == "other"


def test_cip_predicts_its_stored_masks_and_fresh_ones_for_new_images(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    version = ensure_cip_version(home.store, home.registry, home.assay)
    predictor = load_predictor(home.store, home.registry, home.assay, version)
    assert predictor.version == version.version
    record = home.store.images.get("rosella", "P_B01_f1")
    stored = home.store.masks.get(weak_masks(home.store, home.assay)["P_B01_f1"])
    np.testing.assert_array_equal(predictor.predict(record), soften(stored, 3))

    late = replace(record, image_id="late")
    fresh = make_weak_label(read_image(late, home.assay), late.image_key, home.assay.cip)
    np.testing.assert_array_equal(predictor.predict(late), soften(fresh.mask_HW, 3))


def test_a_version_predicts_with_its_own_recipe_whatever_the_assay_says_now(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    version = ensure_cip_version(home.store, home.registry, home.assay)
    changed = replace(home.assay, cip=Cip(recipe="rosella", parameters={"camera_offset": 50}))
    weak_label_store(home.store, changed)
    record = home.store.images.get("rosella", "P_B01_f1")
    before, after = (
        load_predictor(home.store, home.registry, assay, version).predict(record)
        for assay in (home.assay, changed)
    )
    np.testing.assert_array_equal(before, after)


def test_a_version_of_several_teachers_predicts_their_vote_and_their_doubt(home: SmallHome) -> None:
    teachers = (Teacher(parameters={"red_threshold": 100}), Teacher(parameters={"psf_sigma": 2}))
    voting = replace(home.assay, cip=Cip(recipe="rosella", teachers=teachers))
    weak_label_store(home.store, voting)
    version = ensure_cip_version(home.store, home.registry, voting)
    assert [teacher["recipe"] for teacher in version.config["teachers"]] == ["rosella", "rosella"]
    assert version.version != ensure_cip_version(home.store, home.registry, home.assay).version
    strict = replace(voting, cip=replace(voting.cip, agreement=1.0))
    assert ensure_cip_version(home.store, home.registry, strict) == version, "it serves the same masks"

    # asked when the assay has one teacher again: the version's own recipe is what predicts
    predictor = load_predictor(home.store, home.registry, home.assay, version)
    record = home.store.images.get("rosella", "P_B01_f1")
    fresh = make_weak_label(read_image(record, voting), record.image_key, voting.cip)
    assert fresh.confidence_HW is not None
    assert (fresh.confidence_HW < 255).any()
    expected = soften(fresh.mask_HW, 3, fresh.confidence_HW)
    np.testing.assert_array_equal(predictor.predict(record), expected)
    np.testing.assert_array_equal(predictor.predict(replace(record, image_id="late")), expected)
    np.testing.assert_array_equal(expected.argmax(axis=0), fresh.mask_HW)


def test_a_version_without_a_folder_is_named(home: SmallHome) -> None:
    with pytest.raises(UnknownVersion, match="cdl-20240517-00000000"):
        load_predictor(home.store, home.registry, home.assay, make_model())
    with pytest.raises(InputError, match="expected <cip"):
        load_predictor(home.store, home.registry, home.assay, replace(make_model(), version="../x"))
    assert make_record("a").split == "train"
