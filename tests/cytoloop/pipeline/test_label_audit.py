"""The audit of corrections: folds over wells, models that never saw what they judge, the bad mask on top."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Item, make_correction

from cytoloop.domain.errors import ConfigError, StateError
from cytoloop.domain.types import TrainingSnapshot
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.train_config import TrainConfig
from cytoloop.nn.unet import UNetConfig
from cytoloop.pipeline import label_audit
from cytoloop.pipeline.label_audit import AuditedCorrection, audit_corrections, folds_of

if TYPE_CHECKING:
    from conftest import SmallHome

QUICK = TrainConfig(
    network=UNetConfig(in_channels=2, class_count=3, width=8),
    epochs=2,
    steps_per_epoch=40,
    batch=4,
    crop=32,
    learning_rate=5e-3,
    cross_entropy_share=1.0,
    dice_share=0.0,
)
BARELY = replace(QUICK, epochs=1, steps_per_epoch=1)


def audit(home: SmallHome, config: TrainConfig = BARELY, **options) -> list[AuditedCorrection]:  # type: ignore[no-untyped-def]
    given = {"method": "mdl", "weak_weight": 0.0, "folds": 3, "device": "cpu", **options}
    return audit_corrections(home.store, home.registry, home.assay, config, **given)


def correct_all(home: SmallHome, split: str = "train") -> list[Item]:
    """The truth of every tile of a split's wells, as an expert would save it."""
    items = [Item(image_id=record.image_id, tile=tile) for record in home.of(split) for tile in range(4)]  # type: ignore[arg-type]
    for item in items:
        home.correct(item.image_id, item.tile)
    return items


# --- folds -------------------------------------------------------------------------------------------


@given(
    corrections=st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 20), min_size=2, max_size=12),
    folds=st.integers(2, 5),
)
def test_every_well_is_in_one_fold_and_every_fold_has_one(corrections: dict[str, int], folds: int) -> None:
    if len(corrections) < folds:
        return
    dealt = folds_of(corrections, folds)
    assert dealt.keys() == corrections.keys()
    assert set(dealt.values()) == set(range(folds))
    sizes = [sum(n for group, n in corrections.items() if dealt[group] == fold) for fold in range(folds)]
    assert max(sizes) - min(sizes) <= max(corrections.values())
    assert folds_of(dict(reversed(corrections.items())), folds) == dealt


def test_fewer_wells_than_folds_is_refused() -> None:
    with pytest.raises(StateError, match=r"corrections of 2 training well\(s\), expected at least 3"):
        folds_of({"A01": 5, "A02": 1}, 3)
    with pytest.raises(ConfigError, match=r"1 fold\(s\), expected at least 2"):
        folds_of({"A01": 5, "A02": 1}, 1)


# --- who learns from what ----------------------------------------------------------------------------


def test_no_model_judges_a_well_that_it_learned_from(
    home: SmallHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct_all(home)
    correct_all(home, "contest")
    log: list[tuple[str, set[str]]] = []
    read, predict = label_audit.training_items, label_audit.predict_prob

    def reading(store, assay, snapshot: TrainingSnapshot, weight):  # type: ignore[no-untyped-def]
        log.append(("learned", {row.image_id for row in snapshot.rows}))
        return read(store, assay, snapshot, weight)

    def predicting(model, image_CHW, *rest):  # type: ignore[no-untyped-def]
        (image_id,) = [name for name, pixels in images.items() if np.array_equal(pixels, image_CHW)]
        log.append(("judged", {image_id}))
        return predict(model, image_CHW, *rest)

    images = {record.image_id: label_audit.read_image(record, home.assay) for record in home.of("train")}
    monkeypatch.setattr(label_audit, "training_items", reading)
    monkeypatch.setattr(label_audit, "predict_prob", predicting)
    audited = audit(home)
    learned: set[str] = set()
    judged: set[str] = set()
    for what, names in log:
        if what == "learned":
            learned = names
            assert names < images.keys()  # neither the fold nor a contest well
        else:
            assert not names & learned
            judged |= names
    assert judged == images.keys()
    assert {one.correction.split for one in audited} == {"train"}
    assert len(audited) == 4 * len(images)


def test_items_of_several_readers_are_not_asked_about_again(home: SmallHome) -> None:
    items = correct_all(home)
    twice = make_correction(items[0], 99, 99, expert="bob@lab.org")
    home.store.corrections.append("rosella", twice, home.store.masks.put(np.zeros((32, 32), np.uint8)))
    assert {one.correction.item for one in audit(home)} == set(items[1:])


def test_the_same_audit_twice_says_the_same(home: SmallHome) -> None:
    correct_all(home)
    first = [(one.correction.item, one.quality.score) for one in audit(home)]
    assert [(one.correction.item, one.quality.score) for one in audit(home)] == first


def test_progress_goes_from_fold_to_fold_to_the_end(home: SmallHome) -> None:
    correct_all(home)
    told: list[tuple[str, float]] = []
    audit(home, progress=lambda words, share: told.append((words, share)))
    assert [words.partition(":")[0] for words, _ in told] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    assert [share for _, share in told] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_too_few_corrected_wells_are_refused_before_anything_is_trained(
    home: SmallHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_training(*arguments: object, **options: object) -> TrainingItem:
        raise AssertionError("trained")

    monkeypatch.setattr(label_audit, "fit", no_training)
    home.correct(home.of("train")[0].image_id, 0)
    with pytest.raises(StateError, match=r"1 training well\(s\), expected at least 3"):
        audit(home)


# --- what it finds -----------------------------------------------------------------------------------


def test_a_correction_with_an_object_missing_and_one_swapped_come_out_on_top(home: SmallHome) -> None:
    items = correct_all(home)
    with_object = [item for item in items if (home.truth_of(item) > 0).sum() > 40]
    missing, swapped = with_object[0], with_object[-1]
    home.correct(missing.image_id, missing.tile, np.zeros((32, 32), np.uint8))
    truth_HW = home.truth_of(swapped)
    home.correct(
        swapped.image_id, swapped.tile, np.where(truth_HW > 0, 3 - truth_HW, truth_HW).astype(np.uint8)
    )
    audited = audit(home, QUICK)
    assert len(audited) == len(items)
    assert {one.correction.item for one in audited[:2]} == {missing, swapped}
    scores = [one.quality.score for one in audited]
    assert scores == sorted(scores, reverse=True)
