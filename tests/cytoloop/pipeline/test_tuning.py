"""A recipe's parameters against corrections: what is searched, what decides, and what stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cytoloop.domain.assay import IGNORE, Cip
from cytoloop.domain.cip import RECIPES, make_weak_label
from cytoloop.domain.cip.recipe import Range
from cytoloop.domain.errors import ConfigError, StateError
from cytoloop.domain.metrics import confusion_matrix, pixel_metrics
from cytoloop.domain.tiling import tiles_of
from cytoloop.pipeline import tuning
from cytoloop.pipeline.tuning import CorrectedField, Judgement, corrected_fields, judging, tune

NUCLEI = RECIPES["nuclei"]
Y, X = np.mgrid[:48, :64]


def nucleus_field(seed: int) -> CorrectedField:
    """One round nucleus with a soft edge; the expert draws it where it fades to a third."""
    rng = np.random.default_rng(seed)
    distance = np.hypot(Y - rng.integers(18, 30), X - rng.integers(20, 44))
    grey = 20 + 100 / (1 + np.exp((distance - 9) / 2)) + rng.normal(0, 1, Y.shape)
    truth = np.zeros(Y.shape, np.uint8)
    inside = distance < 10.4
    truth[inside] = 1
    truth[(distance > 9.4) & (distance < 11.4)] = 2
    return CorrectedField(
        image_CHW=grey[np.newaxis].astype(np.float32), illumination_CHW=None, truth_HW=truth
    )


TRAIN, VALIDATION = [nucleus_field(seed) for seed in range(3)], [nucleus_field(seed) for seed in (8, 9)]
BAD = Cip(recipe="nuclei", parameters={"otsu": 1.3, "sigma": 0.5})


def found(**options: Any) -> tuning.Tuned:
    given: dict[str, Any] = {"trials": 12, "seed": 1, "names": ("otsu",), **options}
    return tune(given.pop("cip", BAD), TRAIN, VALIDATION, **given)


def test_a_bad_threshold_is_tuned_and_better_on_both_splits():
    tuned = found()
    assert tuned.is_better
    assert tuned.best is not None
    assert tuned.best.train.mean_iou > tuned.present.train.mean_iou
    assert tuned.best.validation.mean_iou > tuned.present.validation.mean_iou + 0.02
    assert set(tuned.best.parameters) == {"otsu", "sigma"}  # only what was asked for has changed
    assert tuned.best.parameters["sigma"] == 0.5
    assert tuned.best.parameters["otsu"] < 1.3
    assert tuned.present.parameters == BAD.parameters


def test_what_is_told_is_what_the_pasted_parameters_give():
    tuned = found()
    assert tuned.best is not None
    cip = replace(BAD, parameters=tuned.best.parameters)
    for fields, judgement in ((TRAIN, tuned.best.train), (VALIDATION, tuned.best.validation)):
        total = sum(
            confusion_matrix(f.truth_HW, make_weak_label(f.image_CHW, "k", cip).mask_HW, 3) for f in fields
        )
        assert judgement.mean_iou == pixel_metrics(total).mean_iou
        np.testing.assert_array_equal(judgement.class_iou, pixel_metrics(total).iou_K)


def test_the_same_seed_gives_the_same_outcome_with_any_number_of_workers():
    one, again, two = found(trials=6), found(trials=6), found(trials=6, workers=2)
    assert one.best == again.best == two.best
    other = found(trials=6, seed=2)
    assert other.best is not None
    assert one.best is not None
    assert other.best.parameters != one.best.parameters


def test_progress_counts_trials_and_the_best_never_falls():
    seen: list[tuple[int, int, float]] = []
    tuned = found(trials=5, progress=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == [(n, 5) for n in range(1, 6)]
    best = [step[2] for step in seen]
    assert best == sorted(best)
    assert best[0] >= tuned.present.train.mean_iou


def test_what_fits_training_wells_alone_is_not_proposed_as_better():
    """Experts of the validation wells draw what the present setting gives: nothing can beat it there."""
    own = [
        replace(field, truth_HW=make_weak_label(field.image_CHW, "k", BAD).mask_HW) for field in VALIDATION
    ]
    tuned = tune(BAD, TRAIN, own, trials=8, names=("otsu",))
    assert tuned.best is not None
    assert tuned.best.train.mean_iou > tuned.present.train.mean_iou
    assert tuned.present.validation.mean_iou == 1
    assert not tuned.is_better


def test_what_is_below_the_present_setting_on_training_wells_is_never_a_finalist():
    own = [replace(field, truth_HW=make_weak_label(field.image_CHW, "k", BAD).mask_HW) for field in TRAIN]
    tuned = tune(BAD, own, VALIDATION, trials=8, names=("otsu",))
    assert tuned.best is None
    assert not tuned.is_better


def test_the_finalists_are_the_few_best_on_training_wells():
    tried = [({"x": n}, Judgement(mean_iou=iou, class_iou=())) for n, iou in enumerate((3, 9, 1, 5, 7, 8, 6))]
    finalists = tuning._finalists(tried, Judgement(mean_iou=2, class_iou=()))
    assert [values["x"] for values, _ in finalists] == [1, 5, 4, 6, 3]
    assert len(tuning._finalists(tried, Judgement(mean_iou=7, class_iou=()))) == 2


def test_pixels_nobody_looked_at_do_not_count():
    half = [
        replace(field, truth_HW=np.where(X < 32, field.truth_HW, 255).astype(np.uint8)) for field in TRAIN
    ]
    with judging(NUCLEI, half, 1) as judge:
        judgement = judge(NUCLEI.defaults)
    total = sum(
        confusion_matrix(f.truth_HW, make_weak_label(f.image_CHW, "k", Cip(recipe="nuclei")).mask_HW, 3)
        for f in half
    )
    assert total.sum() == 3 * 48 * 32
    assert judgement.mean_iou == pixel_metrics(total).mean_iou


def test_values_stay_in_their_range_and_are_whole_where_they_are_counts():
    seen: list[dict[str, float]] = []

    def judge(parameters):
        seen.append(dict(parameters))
        return Judgement(mean_iou=0.5, class_iou=())

    searched = {"area": Range(low=5, high=9, integer=True), "otsu": Range(low=0.4, high=1.3)}
    base = Judgement(mean_iou=0.5, class_iou=())
    tuning._search(NUCLEI, NUCLEI.defaults, base, judge, searched, 15, 0, None)
    assert {one["area"] for one in seen} <= {5, 6, 7, 8, 9}
    assert all(0.4 <= one["otsu"] <= 1.3 and one["otsu"] == float(f"{one['otsu']:.4g}") for one in seen)
    assert all(one["sigma"] == NUCLEI.defaults["sigma"] for one in seen)


@pytest.mark.parametrize(("keep", "prepared"), [(1 << 30, 2), (0, 6)])
def test_preparation_is_done_once_a_field_where_its_parameters_stay(monkeypatch, keep, prepared):
    done = []

    def prepare(image_CHW, parameters, illumination_CHW):
        done.append(parameters["sigma"])
        return image_CHW

    recipe = replace(NUCLEI, prepare=prepare, prepared_by=frozenset({"sigma"}))
    monkeypatch.setattr(tuning, "recipe_of", lambda cip: recipe)
    monkeypatch.setattr(tuning, "_PREPARED_BYTES", keep)
    with judging(recipe, VALIDATION, 1) as judge:
        for otsu in (0.8, 0.9, 1.0):
            judge({**NUCLEI.defaults, "otsu": otsu})
        assert len(done) == prepared
        judge({**NUCLEI.defaults, "sigma": 2.0})
    assert done[-2:] == [2.0, 2.0]


def test_errors_say_what_is_missing():
    nobody = [replace(TRAIN[0], truth_HW=np.full(Y.shape, IGNORE, np.uint8))]
    with pytest.raises(StateError, match="no corrections of training wells yet; expected at least one"):
        tune(BAD, nobody, VALIDATION)
    with pytest.raises(StateError, match="no corrections of validation wells yet"):
        tune(BAD, TRAIN, [])
    with pytest.raises(ConfigError, match=r"cannot tune \['otzu'\], expected any of \['area'"):
        tune(BAD, TRAIN, VALIDATION, names=("otzu",))


def test_the_store_gives_training_and_validation_corrections_and_no_others(home):
    tiles = tiles_of(64, 64, home.assay.tiling)
    for split in ("train", "validation", "contest"):
        home.correct(home.of(split)[0].image_id, 2)
    train, validation = corrected_fields(home.store, home.assay)
    assert (len(train), len(validation)) == (1, 1)
    for (field,), split in ((train, "train"), (validation, "validation")):
        looked = np.zeros((64, 64), bool)
        looked[tiles[2].slices] = True
        truth = home.truth[home.of(split)[0].image_id]
        np.testing.assert_array_equal(field.truth_HW, np.where(looked, truth, IGNORE))
        assert field.image_CHW.shape == (2, 64, 64)
        assert field.illumination_CHW is None  # six fields are too few to know it


def test_a_plate_of_enough_fields_brings_its_illumination(home, monkeypatch):
    monkeypatch.setattr("cytoloop.domain.cip.recipes.MIN_IMAGES_FOR_ILLUMINATION", 6)
    home.correct(home.of("train")[0].image_id, 0)
    train, _ = corrected_fields(home.store, home.assay)
    assert train[0].illumination_CHW is not None
    assert train[0].illumination_CHW.shape == (2, 64, 64)
