"""Blind rating and box survey through a real Label Studio, and a rating in a real browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editor import log_in
from tiny import Tiny, make_tiny

from cytoloop.adapters.images import write_mask
from cytoloop.commands.boxes import BoxOptions, collect_boxes, create_boxes
from cytoloop.commands.home import Home
from cytoloop.commands.rate import RateOptions, collect_rating, create_rating
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.metrics.boxes import boxes_of_mask
from labelstudio_config.boxing import box_region

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]


def quiet(what: str, done: int, total: int) -> None:
    pass


def stars(value: int) -> list[dict[str, Any]]:
    """A rating as the editor submits it."""
    region = {"id": "r1", "type": "rating", "from_name": "rating", "to_name": "overlay", "origin": "manual"}
    return [{**region, "value": {"rating": value}}]


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def home(tiny: Tiny, studio: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    # The server of the session shows pictures from a folder of its own, not from this home's renders/.
    root = studio.document_root
    monkeypatch.setattr("cytoloop.commands.rate.rating_folder", lambda home, name: root / "ratings" / name)
    for module in ("cytoloop.commands.boxes", "labelstudio_config.renders"):
        monkeypatch.setattr(f"{module}.render_folder", lambda home, assay: root / assay)
    server = {"label_studio_url": studio.server.url, "label_studio_token": studio.server.token}
    opened = Home(replace(tiny.settings, **server))
    yield opened
    for project in studio.client.list_projects():
        if re.match("Blind rating|Boxes", project["title"]):
            studio.client.delete_project(project["id"])
    opened.close()
    shutil.rmtree(
        root / tiny.name, ignore_errors=True
    )  # the folder is the session's: others have a home of that name


@pytest.fixture
def good_and_bad(tiny: Tiny, tmp_path: Path) -> RateOptions:
    """Masks of two methods in folders: the truth, and nothing."""
    plate = Path(tiny.store.images.all("tiny")[0].files[0]).parent
    for image_id, truth_HW in tiny.truth.items():
        write_mask(tmp_path / "network" / f"{image_id}.png", truth_HW)
        write_mask(tmp_path / "tophat" / f"{image_id}.png", np.zeros_like(truth_HW))
    masks = (("tophat", tmp_path / "tophat"), ("network", tmp_path / "network"))
    return RateOptions(image_dir=plate, masks=masks, images=8, name="t1", seed=5)


def test_ratings_come_back_under_their_methods(home: Home, tiny: Tiny, good_and_bad: RateOptions) -> None:
    made = create_rating(
        home, tiny.assay, replace(good_and_bad, experts=("ada", "expert@example.com")), quiet
    )
    assert [(seat.expert, seat.set, seat.tasks) for seat in made.seats] == [
        ("ada", 1, 8),
        ("expert@example.com", 2, 8),
    ]
    key = json.loads(made.design.read_text(encoding="utf-8"))
    method_of = {one["token"]: one["method"] for one in key["pictures"]}
    client = home.label_studio
    for seat in made.seats:
        tasks = sorted(client.iter_tasks(seat.project_id), key=lambda task: task["id"])
        for number, task in enumerate(tasks):
            method = method_of[task["data"]["token"]]
            if seat.expert == "ada" or number < 6:
                client.create_annotation(task["id"], stars(9 if method == "network" else 2), lead_time=30.0)
    last = tasks[0]
    client.update_annotation(
        client.get_task(last["id"])["annotations"][0]["id"],
        result=stars(10 if method_of[last["data"]["token"]] == "network" else 1),
    )

    report = collect_rating(home, "t1", quiet)

    assert [(one.expert, one.done, one.left) for one in report.progress] == [
        ("ada", 8, 0),
        ("expert@example.com", 6, 2),
    ]
    by_both = {(one.expert, one.method): one for one in report.distributions}
    assert by_both["ada", "tophat"].values == (2, 2, 2, 2)
    assert by_both["ada", "network"].values == (9, 9, 9, 9)
    assert report.minutes_median == 0.5
    changed = sorted(by_both["expert@example.com", method_of[last["data"]["token"]]].values)
    assert (changed[0] == 1) or (changed[-1] == 10)
    assert "Incomplete: 2 of 16 tasks are open (expert@example.com 2)." in report.conclusion
    ada, _ = report.between_methods
    assert (ada.pairs, ada.mean_difference, ada.effect, ada.ks) == (4, 7.0, 1.0, 1.0)
    folder = home.settings.home / "ratings" / "t1"
    assert json.loads((folder / "rating.json").read_text(encoding="utf-8")) == report.to_dict()
    with (folder / "ratings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14
    assert {row["rating"] for row in rows if row["expert"] == "ada" and row["method"] == "network"} == {"9"}


def test_only_the_named_user_counts_and_a_strange_one_is_refused(
    home: Home, tiny: Tiny, good_and_bad: RateOptions
) -> None:
    with pytest.raises(InputError, match=r"eve@example\.com: not in Label Studio"):
        create_rating(home, tiny.assay, replace(good_and_bad, experts=("eve@example.com",), sets=1), quiet)
    assert home.label_studio.list_projects("Blind rating t1 – expert 1") == []
    create_rating(home, tiny.assay, replace(good_and_bad, experts=("ada",), sets=1), quiet)
    [project] = home.label_studio.list_projects("Blind rating t1 – expert 1")
    home.label_studio.update_project(project["id"], title="something else")
    with pytest.raises(StateError, match="is called 'something else' in Label Studio; expected"):
        collect_rating(home, "t1", quiet)


def test_a_rating_that_cannot_be_set_up_leaves_nothing(
    home: Home, tiny: Tiny, good_and_bad: RateOptions, monkeypatch: pytest.MonkeyPatch, studio: Any
) -> None:
    calls = []
    import_tasks = home.label_studio.import_tasks

    def second_fails(project_id: int, tasks: Any) -> list[int]:
        calls.append(project_id)
        if len(calls) == 2:
            raise StateError("enough")
        return import_tasks(project_id, tasks)

    monkeypatch.setattr(home.label_studio, "import_tasks", second_fails)
    with pytest.raises(StateError, match="enough"):
        create_rating(home, tiny.assay, good_and_bad, quiet)
    assert len(calls) == 2
    assert [p["title"] for p in home.label_studio.list_projects() if "Blind" in p["title"]] == []
    assert not (home.settings.home / "ratings" / "t1").exists()
    assert not (studio.document_root / "ratings" / "t1").exists()


def test_boxes_come_back_in_pixels_and_are_scored(home: Home, tiny: Tiny) -> None:
    made = create_boxes(
        home,
        tiny.assay,
        BoxOptions(images=4, split="train", name="b1", seed=1, experts=("ada", "bob")),
        quiet,
    )
    client = home.label_studio
    drawn = 0
    for seat in made.seats:
        for task in client.iter_tasks(seat.project_id):
            data = task["data"]
            assert client.download(data["image"])[:4] == b"\x89PNG"
            item = next(i for i in tiny.items() if f"{i.image_id}/{i.tile}" == data["item"])
            boxes = boxes_of_mask(tiny.truth_of(item), tiny.assay.class_count)
            drawn += len(boxes)
            regions = [box_region(box, n, tiny.assay, 32, 40) for n, box in enumerate(boxes)]
            client.create_annotation(task["id"], regions, lead_time=240.0)
    survey = collect_boxes(home, "b1", (), quiet)
    assert survey.is_complete
    assert sum(len(one.boxes) for one in survey.boxed) == drawn
    for one in survey.boxed:
        assert one.boxes == boxes_of_mask(tiny.truth_of(one.item), tiny.assay.class_count)
    assert survey.minutes_median == 4.0
    [method] = survey.methods
    assert method.method.startswith("cip-")
    assert sum(scores.foreground.expert for _, _, scores in method.experts) == drawn
    folder = home.settings.home / "boxes" / "b1"
    assert json.loads((folder / "boxes.json").read_text(encoding="utf-8")) == survey.to_dict()
    assert len((folder / "drawn.csv").read_text(encoding="utf-8").splitlines()) == 1 + drawn


@pytest.mark.browser
def test_an_expert_sees_the_pictures_and_gives_stars(
    home: Home, tiny: Tiny, good_and_bad: RateOptions, studio: Any, chromium_page: Callable[..., Any]
) -> None:
    made = create_rating(home, tiny.assay, replace(good_and_bad, experts=("ada",), sets=1), quiet)
    key = json.loads(made.design.read_text(encoding="utf-8"))
    method_of = {one["token"]: one["method"] for one in key["pictures"]}
    errors: list[str] = []
    page = chromium_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    log_in(page, studio.server.url, studio.server.username, studio.server.password)
    page.goto(made.seats[0].url)
    page.get_by_text("Labeling Instructions").wait_for(timeout=60_000)
    assert page.get_by_text("Judge each page on its own.").is_visible()
    page.keyboard.press("Escape")
    page.locator("img[alt=image]").nth(2).wait_for()
    page.wait_for_timeout(1500)

    # what is seen: three pictures of one size side by side, the classes' names, nothing of a method
    shown = page.locator("img[alt=image]").all()
    assert [image.evaluate("one => one.naturalWidth") for image in shown] == [1000, 1000, 1000]
    boxes = [image.bounding_box() for image in shown]
    assert all(one["x"] + one["width"] <= other["x"] for one, other in pairwise(boxes))
    assert np.ptp([box["width"] for box in boxes]) < 2
    titles = [page.locator("h4", has_text=re.compile(f"^{title}$")) for title in ("Image", "Segmentation")]
    left_first = [title.bounding_box()["x"] for title in titles]
    task = min(home.label_studio.iter_tasks(made.seats[0].project_id), key=lambda one: one["id"])
    assert (left_first[0] < left_first[1]) == (task["data"]["left_title"] == "Image")
    assert page.get_by_text("Cytoplasm", exact=True).is_visible()
    assert page.get_by_text("network").count() == page.get_by_text("tophat").count() == 0

    # without a star there is no answer; with seven there is
    page.click('button:has-text("Submit")')
    page.get_by_text("Please rate from 1 to 10").wait_for()
    page.keyboard.press("Escape")
    page.locator(".ant-modal-wrap").first.wait_for(state="hidden")
    page.locator(".ant-rate [role=radio]").nth(6).click()
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    said = answer.value.json()
    assert said["task"] == task["id"]
    [region] = said["result"]
    assert {k: region[k] for k in ("type", "from_name", "to_name", "value")} == {
        "type": "rating",
        "from_name": "rating",
        "to_name": "overlay",
        "value": {"rating": 7},
    }
    page.wait_for_timeout(1500)
    page.locator(".ant-rate [role=radio]").nth(0).click()  # the next picture is there already
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    assert answer.value.json()["task"] == task["id"] + 1
    assert errors == []
    page.context.close()

    report = collect_rating(home, "t1", quiet)
    assert report.progress[0].done == 2
    values = {one.method: one.values for one in report.distributions}
    assert 7 in values[method_of[task["data"]["token"]]]
    assert sorted([*values["network"], *values["tophat"]]) == [1, 7]
    assert report.minutes_median > 0
