"""The box surrogate, with Label Studio in memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk import Desk
from tiny import Tiny, make_tiny

from cytoloop.cli import run
from cytoloop.commands.boxes import BoxOptions, collect_boxes, create_boxes
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Cip
from cytoloop.domain.errors import CytoloopError, InputError
from cytoloop.domain.metrics.boxes import Box, boxes_of_mask, mask_box_scores, no_boxes
from cytoloop.domain.types import Item
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.boxing import box_region


def quiet(what: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def home(tiny: Tiny, desk: Desk) -> Iterator[Home]:
    opened = Home(tiny.settings)
    opened.__dict__["label_studio"] = desk
    yield opened
    opened.close()


TRAIN = BoxOptions(images=4, split="train", name="b1", experts=("ada", "bob"), seed=1)


def item_of(task: dict[str, Any]) -> Item:
    return Item(image_id=task["data"]["image_id"], tile=task["data"]["tile"])


def draw(desk: Desk, tiny: Tiny, task: dict[str, Any], boxes: tuple[Box, ...]) -> None:
    desk.answer(task, [box_region(box, n, tiny.assay, 32, 40) for n, box in enumerate(boxes)], lead_time=240)


def true_boxes(tiny: Tiny, task: dict[str, Any]) -> tuple[Box, ...]:
    return boxes_of_mask(tiny.truth_of(item_of(task)), tiny.assay.class_count)


def pred_of(tiny: Tiny, version: str, item: Item) -> np.ndarray:
    model = tiny.store.models.get(version)
    predictor = load_predictor(tiny.store, tiny.registry, tiny.assay, model)
    mask_HW = predictor.predict(tiny.store.images.get("tiny", item.image_id)).argmax(axis=0).astype(np.uint8)
    top, left = divmod(item.tile, 2)
    return mask_HW[32 * top :, 40 * left :][:32, :40]


def test_each_expert_gets_the_own_set_and_no_prediction(home: Home, desk: Desk, tiny: Tiny) -> None:
    made = create_boxes(home, tiny.assay, TRAIN, quiet)
    assert [(s.expert, s.set, s.tasks, s.title) for s in made.seats] == [
        ("ada", 1, 2, "Boxes b1 – expert 1"),
        ("bob", 2, 2, "Boxes b1 – expert 2"),
    ]
    ada, bob = ({item_of(task) for task in desk.of(seat.project_id)} for seat in made.seats)
    assert not ada & bob
    splits = {r.image_id: r.split for r in tiny.store.images.all("tiny")}
    assert {splits[item.image_id] for item in ada | bob} == {"train"}
    for task in desk.tasks.values():
        assert task["data"]["image"].startswith("/data/local-files/?d=tiny/")
        name = task["data"]["image"].rpartition("/")[2]
        assert (home.settings.home / "renders" / "tiny" / name).is_file()
    assert all(p["show_collab_predictions"] is False for p in desk.projects.values())


def test_scores_are_those_of_the_masks_when_the_boxes_are(home: Home, desk: Desk, tiny: Tiny) -> None:
    cip = Cip(recipe="cells2ch", parameters={**tiny.assay.cip.parameters, "nucleus_area": 60})
    other = ensure_cip_version(tiny.store, tiny.registry, replace(tiny.assay, cip=cip)).version
    active = tiny.store.models.active("tiny").version
    create_boxes(home, tiny.assay, TRAIN, quiet)
    for task in desk.tasks.values():
        draw(desk, tiny, task, true_boxes(tiny, task))
    survey = collect_boxes(home, "b1", [active], quiet)
    assert [one.method for one in survey.methods] == [other, active]  # the newest CIP, and what was asked for
    for method in survey.methods:
        for expert, _, scores in method.experts:
            expected = no_boxes(tiny.assay.class_count)
            for one in survey.boxed:
                if one.expert == expert:
                    pred_HW = pred_of(tiny, method.method, one.item)
                    expected += mask_box_scores(tiny.truth_of(one.item), pred_HW, tiny.assay.class_count)
            assert scores == expected
            assert scores.foreground.expert > 0
    missed = [m.spread.classes[1]["false_negative_ratio"].mean for m in survey.methods if m.spread]
    assert missed[0] > missed[1]  # the recipe that drops small nuclei misses more of them
    assert survey.minutes_median == 4.0

    folder = home.settings.home / "boxes" / "b1"
    assert json.loads((folder / "boxes.json").read_text(encoding="utf-8")) == survey.to_dict()
    with (folder / "boxes.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    assert {row["class"] for row in rows} == {"Cytoplasm", "Nucleus", "all"}
    with (folder / "drawn.csv").open(encoding="utf-8") as file:
        drawn = list(csv.DictReader(file))
    assert len(drawn) == sum(len(one.boxes) for one in survey.boxed)


def test_a_partial_survey_counts_what_is_there(home: Home, desk: Desk, tiny: Tiny) -> None:
    create_boxes(home, tiny.assay, TRAIN, quiet)
    empty = collect_boxes(home, "b1", (), quiet)
    assert empty.methods[0].spread is None
    assert empty.missing == "Incomplete: 4 of 4 tasks are open (ada 2, bob 2)."
    draw(desk, tiny, desk.of(1)[0], ())  # submitted without a box: an image with no event
    survey = collect_boxes(home, "b1", (), quiet)
    assert survey.missing == "Incomplete: 3 of 4 tasks are open (ada 1, bob 2)."
    [(expert, _, scores)] = survey.methods[0].experts
    assert (expert, scores.foreground.expert) == ("ada", 0)
    assert scores.foreground.false_positive_ratio == 1.0


def test_a_task_of_another_set_or_twice_is_refused(home: Home, desk: Desk, tiny: Tiny) -> None:
    create_boxes(home, tiny.assay, TRAIN, quiet)
    first, second = desk.of(1)
    for task in (first, second):
        draw(desk, tiny, task, ())
    kept = first["data"]
    first["data"] = second["data"]
    with pytest.raises(InputError, match=r"task 2: .* is in project 1 twice"):
        collect_boxes(home, "b1", (), quiet)
    first["data"] = desk.of(2)[0]["data"]
    with pytest.raises(InputError, match=r"task 1: shows .* expected an item of set 1 of boxes 'b1'"):
        collect_boxes(home, "b1", (), quiet)
    first["data"] = {**kept, "image_key": "0" * 64}
    with pytest.raises(InputError, match="task 1: shows"):
        collect_boxes(home, "b1", (), quiet)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": 999}, "split train of assay 'tiny': .* items, expected at least 999"),
        ({"experts": ("ada", "ada")}, "experts ada: named twice"),
        ({"name": "a b"}, "--name 'a b'"),
    ],
)
def test_what_cannot_be_set_up_says_why(
    home: Home, desk: Desk, tiny: Tiny, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CytoloopError, match=said):
        create_boxes(home, tiny.assay, replace(TRAIN, **changes), quiet)
    assert desk.projects == {}


def test_from_the_command_line(
    home: Home, desk: Desk, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cytoloop.commands.home.LabelStudioClient", lambda *_: desk)
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_URL", desk.base_url)
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_TOKEN", "t")
    place = ["--home", str(home.settings.home)]
    create = ["boxes", "create", "--assay", "tiny", "--split", "train", "--images", "2", *place]
    assert run([*create, "--experts", "ada,bob"]) == 0
    assert "Then: cytoloop boxes collect tiny-1" in capsys.readouterr().out
    for task in desk.tasks.values():
        draw(desk, tiny, task, true_boxes(tiny, task))
    assert run(["boxes", "collect", "tiny-1", *place]) == 0
    said = capsys.readouterr().out
    assert "mean ± SD over 2 expert(s)" in said
    assert "Median time: 4.0 min an item" in said
    assert run(["boxes", "collect", "tiny-1", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"]
    assert run(["boxes", "collect", "tiny-1", *place, "--model", "cdl-1"]) == 1
    assert "model 'cdl-1' is not in this home" in capsys.readouterr().err
