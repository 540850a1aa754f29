"""Runs of a study on a few tiny fields, with the smallest preset in place of the one that takes minutes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import write_labelled_plate

from cytoloop.adapters.images import read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.domain.assay import IGNORE
from trainer.presets import smoke
from trainer.results import running
from trainer.results.datasets import Dataset, Fold
from trainer.results.page import write_page
from trainer.results.plan import Run
from trainer.results.running import Places, config_of, corrected_masks, perform
from trainer.results.summary import Arm, Study, bars_of

FIELDS = 8


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("study")
    assay, plate = write_labelled_plate(folder, FIELDS)
    records = sorted(read_plate(plate, assay), key=lambda record: record.image_id)
    fold = Fold(train=tuple(records[:4]), validation=tuple(records[4:6]), test=tuple(records[6:]))
    return Dataset(
        name="tiny",
        assay=assay,
        plate=plate,
        weak=folder / "weak",
        folds=(fold,),
        group="well",
        remark="Drawn.",
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "preset", lambda name, method, assay, seed: smoke(method, assay, seed))


def test_a_small_draw_of_corrections_is_part_of_a_larger_one(dataset: Dataset) -> None:
    fold, assay = dataset.folds[0], dataset.assay

    def tiles(amount: int | None) -> set[tuple[str, int]]:
        masks = corrected_masks(fold, assay, 3, amount, dataset.truth)
        looked = set()
        for image_id, mask_HW in masks.items():
            for tile, (top, left) in enumerate(((0, 0), (0, 40), (32, 0), (32, 40))):
                if (mask_HW[top : top + 32, left : left + 40] != IGNORE).all():
                    looked.add((image_id, tile))
        return looked

    three, six, everything = tiles(3), tiles(6), tiles(None)
    assert (len(three), len(six), len(everything)) == (3, 6, 16)
    assert three < six < everything
    assert len({image for image, _ in three}) == 3, "one of every image before the second of any"
    assert tiles(3) == three


def test_corrections_are_the_truth(dataset: Dataset) -> None:
    fold = dataset.folds[0]
    masks = corrected_masks(fold, dataset.assay, 0, None, dataset.truth)
    for record in fold.train:
        np.testing.assert_array_equal(masks[record.image_id], dataset.truth(record))


def test_variants_change_one_thing(dataset: Dataset) -> None:
    run = Run(dataset="tiny", fold=0, seed=0, method="cdl")
    fast = config_of(run, dataset.assay)
    assert config_of(replace(run, variant="no-average"), dataset.assay) == replace(fast, average_decay=None)
    dice = config_of(replace(run, variant="dice"), dataset.assay)
    assert (dice.dice_share, dice.cross_entropy_share) == (1.0, 1.0)
    last = config_of(replace(run, variant="last-epoch"), dataset.assay)
    assert (last.stop_gain, last.patience) == (None, None)
    stopped = config_of(replace(run, variant="stopped"), dataset.assay)
    assert stopped.stop_gain is not None


@pytest.mark.usefixtures("small")
def test_every_method_runs_is_kept_and_makes_the_page(dataset: Dataset, tmp_path: Path) -> None:
    places = Places(out=tmp_path / "out")
    runs = [
        Run(dataset="tiny", fold=0, seed=0, method="cip"),
        Run(dataset="tiny", fold=0, seed=0, method="cdl"),
        Run(dataset="tiny", fold=0, seed=0, method="cdl", weak=2),
        Run(dataset="tiny", fold=0, seed=0, method="mdl", corrected=6),
        Run(dataset="tiny", fold=0, seed=0, method="joint", corrected=6),
        Run(dataset="tiny", fold=0, seed=0, method="mdl", corrected=None),
    ]
    documents = [perform(run, dataset, places, "cpu") for run in runs]
    for run, document in zip(runs, documents, strict=True):
        assert document["run"]["method"] == run.method
        assert len(document["items"]) == 2 * 4, "two test images of four tiles"
        assert {item["group"] for item in document["items"]} == {r.group for r in dataset.folds[0].test}
        pixels = sum(np.sum(item["confusion"]) for item in document["items"])
        assert pixels == 2 * 64 * 80
    assert documents[0]["history"] == []
    assert len(documents[1]["history"]) == 2
    assert all(epoch["validation"] is not None for epoch in documents[1]["history"])

    study = Study(documents)
    truth = [dataset.truth(r) for r in dataset.folds[0].test]
    weak = [read_mask(dataset.weak / f"{r.image_id}.png") for r in dataset.folds[0].test]
    hits = np.mean([np.mean(t == w) for t, w in zip(truth, weak, strict=True)])
    confusion = study.confusion(Arm(method="cip")).sum(axis=(0, 1))
    assert np.trace(confusion) / confusion.sum() == pytest.approx(hits)
    assert any("CDL better than CIP" in bar.text for bar in bars_of(study))

    page, *figures = write_page(tmp_path / "page.md", [(dataset, study)], "cytoloop results")
    text = page.read_text(encoding="utf-8")
    assert "| MDL, 6 corrected |" in text
    assert "| joint, 6 corrected |" in text
    for figure in figures:
        assert f"({figure.parent.name}/{figure.name})" in text
        assert figure.read_text(encoding="utf-8").startswith("<svg")
    (curve,) = (figure for figure in figures if figure.stem == "tiny-learning")
    drawn = curve.read_text(encoding="utf-8")
    assert ">all 16<" in drawn
    assert ">18<" not in drawn, "what was not run has no place on the axis"

    _, *fewer = write_page(tmp_path / "fewer.md", [(dataset, Study(documents[:5]))], "cytoloop results")
    assert not [figure for figure in fewer if "learning" in figure.stem], "one amount makes no curve"


@pytest.mark.usefixtures("small")
def test_a_run_that_was_done_is_read_and_not_done_again(dataset: Dataset, tmp_path: Path) -> None:
    places = Places(out=tmp_path)
    run = Run(dataset="tiny", fold=0, seed=0, method="cip")
    first = perform(run, dataset, places, "cpu")
    path = places.document(run)
    path.write_text(json.dumps({**first, "train_s": 123.0}), encoding="utf-8")
    assert perform(run, dataset, places, "cpu")["train_s"] == 123.0
    path.write_text(json.dumps({**first, "train_s": 123.0, "identity": "other numbers"}), encoding="utf-8")
    assert perform(run, dataset, places, "cpu")["train_s"] == 0.0


def test_another_base_is_another_joint_run(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    joint = Run(dataset="tiny", fold=0, seed=0, method="joint", corrected=6)
    before = running.identity_of(joint, dataset)
    numbers = running.config_of

    def longer_cdl(run, assay):  # type: ignore[no-untyped-def]
        config = numbers(run, assay)
        return replace(config, epochs=config.epochs + 1) if run.method == "cdl" else config

    monkeypatch.setattr(running, "config_of", longer_cdl)
    assert running.identity_of(joint, dataset) != before


def test_the_papers_mdl_sees_quarters(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = {}

    def stop(config, items, **rest):  # type: ignore[no-untyped-def]
        seen["areas"] = [item.area for item in items]
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "fit", stop)
    run = Run(dataset="tiny", fold=0, seed=0, method="mdl", variant="paper")
    with pytest.raises(KeyboardInterrupt):
        perform(run, dataset, Places(out=tmp_path), "cpu")
    assert len(seen["areas"]) == 4 * 4
    assert all(area is not None for area in seen["areas"])
