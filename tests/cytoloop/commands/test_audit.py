"""``cytoloop audit``: end to end with the smoke preset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from samples import make_correction
from tiny import Tiny, make_tiny

from cytoloop.cli import run
from cytoloop.commands import audit
from cytoloop.domain.assay import Assay
from cytoloop.domain.types import Method
from cytoloop.nn.train_config import TrainConfig
from trainer.presets import preset


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    """Every item of the training wells corrected, one of them left empty."""
    made = make_tiny(tmp_path, wells=8)
    taught = {record.image_id for record in made.store.images.all("tiny", ["train"])}
    items = [item for item in made.items() if item.image_id in taught]
    for number, item in enumerate(items, start=1):
        mask_HW = made.truth_of(item) if number > 1 else np.zeros((32, 40), np.uint8)
        made.store.corrections.append("tiny", make_correction(item, number), made.store.masks.put(mask_HW))
    yield made
    made.store.close()


@pytest.fixture
def _quick_learner(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smoke preset, but with enough small steps to be sure of something."""

    def longer(name: str, method: Method, assay: Assay, seed: int) -> TrainConfig:
        config = preset(name, method, assay, seed)
        return replace(config, steps_per_epoch=60, crop=32, batch=4, learning_rate=5e-3)

    monkeypatch.setattr(audit, "preset", longer)


def test_an_audit_runs_with_the_preset_of_the_assay(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    corrected = list(tiny.store.corrections.standing("tiny"))
    assert run(["audit", "--home", str(tiny.home), "--assay", "tiny", "--folds", "2", "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert "fold 1 of 2: epoch 1" in captured.err
    assert "fold 2 of 2: epoch 2" in captured.err
    assert (document["corrections"], document["folds"], document["method"]) == (len(corrected), 2, "joint")
    assert document["open_reviews"] == document["new_reviews"] == len(document["found"])


@pytest.mark.usefixtures("_quick_learner")
def test_an_audit_asks_for_second_looks_and_ranks_the_bad_mask_first(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = next(iter(tiny.store.corrections.standing("tiny")))
    command = ["audit", "--home", str(tiny.home), "--folds", "2", "--top", "1"]
    assert run([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (found,) = document["found"]
    assert (found["image_id"], found["tile"], found["task_id"]) == (
        *(empty.image_id, empty.tile),
        tiny.task_of(empty),
    )
    assert "the model is sure of" in found["reason"]
    assert "not drawn" in found["reason"]
    (review,) = tiny.store.reviews.open("tiny")
    assert (review.item, review.score, review.reason) == (empty, found["score"], found["reason"])
    assert run(command) == 0  # the same again is nothing new
    said = capsys.readouterr().out
    assert found["reason"] in " ".join(said.split())
    assert "1 of 16 corrections of training wells are worth a second look; open reviews: 1, new: 0" in said


def test_too_few_corrected_wells_are_refused(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "--home", str(tiny.home), "--folds", "7"]) == 1
    assert "expected at least 7, one a fold" in capsys.readouterr().err
