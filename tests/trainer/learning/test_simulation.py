"""Simulated learning on a few tiny fields, with the smallest preset."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import write_labelled_plate

from cytoloop.domain.errors import ConfigError, InputError, PlateError
from trainer.learning.page import write_learning
from trainer.learning.setting import Setting, setting, stages_of
from trainer.learning.simulation import Places, finished, learn, make_base
from trainer.results.datasets import Dataset, labelled_folder

FIELDS = 8


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("learning")
    assay, plate = write_labelled_plate(folder, FIELDS)
    return labelled_folder(plate, folder / "weak", assay)


def no_progress(step: str) -> None:
    pass


@pytest.fixture(scope="module")
def played(
    dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Setting, Places, dict[str, dict]]:
    one = setting(dataset, 0, (1.0, 3.0), "smoke")
    places = Places(out=tmp_path_factory.mktemp("out"))
    runs = {name: learn(one, name, places, "cpu", no_progress) for name in ("random", "entropy", "typical")}
    return one, places, runs


def test_wells_that_judge_are_never_learned_from(dataset: Dataset) -> None:
    for seed in range(4):
        one = setting(dataset, seed, (1.0,))
        assert {r.group for r in one.pool}.isdisjoint({r.group for r in one.test})
        assert one.pool
        assert one.test
    assert setting(dataset, 1, (1.0,)) == setting(dataset, 1, (1.0,))


def test_stages_are_the_same_for_every_seed(dataset: Dataset) -> None:
    stages = stages_of(dataset)
    assert stages == stages_of(dataset)
    assert list(stages) == sorted(set(stages))


def test_a_strategy_spends_minutes_and_is_judged_after_each_stage(
    played: tuple[Setting, Places, dict[str, dict]],
) -> None:
    one, places, runs = played
    base = make_base(one, places, "cpu", no_progress)
    for name, run in runs.items():
        minutes = [point["minutes"] for point in run["points"]]
        assert minutes[0] == 0.0
        for stage, spent in zip(one.stages, minutes[1:], strict=True):
            assert spent >= stage, name
        assert run["points"][0]["mean_iou"] == base["start"]["mean_iou"], "all begin with the same model"
        items = [tuple(item) for item in run["order"]]
        assert len(items) == len(set(items)) == run["points"][-1]["items"]
        # the minutes are those of the items at the time of the first model, for the first of them
    first = {tuple(item["item"]): item["minutes"] for item in base["items"]}
    run = runs["random"]
    upto = [tuple(item) for item in run["order"]][: run["points"][1]["items"]]
    assert run["points"][1]["minutes"] == pytest.approx(sum(first[item] for item in upto))


def test_a_finished_run_is_read_back_and_another_stage_is_another_run(
    played: tuple[Setting, Places, dict[str, dict]],
) -> None:
    one, places, runs = played
    path = places.document(one, "entropy")
    before = path.stat().st_mtime_ns
    assert learn(one, "entropy", places, "cpu", no_progress) == runs["entropy"]
    assert path.stat().st_mtime_ns == before
    assert finished(replace(one, stages=(1.0, 4.0)), "entropy", places) is None


def test_an_unknown_strategy_is_refused(played: tuple[Setting, Places, dict[str, dict]]) -> None:
    one, places, _ = played
    with pytest.raises(ConfigError, match="'wisdom'"):
        learn(one, "wisdom", places, "cpu", no_progress)


def test_the_page_compares_what_is_finished(
    dataset: Dataset, played: tuple[Setting, Places, dict[str, dict]], tmp_path: Path
) -> None:
    one, places, runs = played
    base = make_base(one, places, "cpu", no_progress)
    names = ("random", "entropy", "margin")
    # two seeds, of which the second is a copy: pairs are compared, not pooled
    documents = {(seed, name): runs.get(name) for seed in (0, 1) for name in names}
    summary = write_learning(tmp_path, dataset, names, {0: base, 1: base}, documents)
    assert [result.strategy for result in summary.strategies] == ["random", "entropy"], "margin was not run"
    random, entropy = summary.strategies
    assert random.mean_iou is None
    assert entropy.mean_iou is not None
    assert entropy.mean_iou.gain.value == pytest.approx(entropy.area - random.area)
    assert json.loads(summary.document.read_text())["dataset"] == dataset.name
    assert summary.figure.read_text().startswith("<svg")
    assert "effort" in summary.correlations


def test_a_folder_without_enough_groups_or_masks_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    for sub in ("images", "labels"):
        (tmp_path / sub).mkdir()
    name = "p1_A01f01"
    for channel in range(2):
        source = dataset.plate / "images" / f"{name}_c{channel}.png"
        (tmp_path / "images" / source.name).write_bytes(source.read_bytes())
    with pytest.raises(PlateError, match="no mask of 1 image"):
        labelled_folder(tmp_path, tmp_path / "weak", dataset.assay)
    (tmp_path / "labels" / f"{name}.png").write_bytes((dataset.plate / "labels" / f"{name}.png").read_bytes())
    with pytest.raises(PlateError, match="at least 3"):
        labelled_folder(tmp_path, tmp_path / "weak", dataset.assay)
    empty = replace(dataset, folds=(replace(dataset.folds[0], test=()),))
    with pytest.raises(InputError, match="judge by"):
        setting(empty, 0, (1.0,))
