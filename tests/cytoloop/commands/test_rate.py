"""Blind rating from the store and from folders, with Label Studio in memory."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk import ADA, BOB, Desk
from PIL import Image
from scipy.stats import spearmanr
from tiny import Tiny, make_tiny

from cytoloop.adapters.images import write_mask
from cytoloop.cli import run
from cytoloop.commands.home import Home
from cytoloop.commands.rate import RateOptions, collect_rating, create_rating
from cytoloop.domain.assay import Cip
from cytoloop.domain.errors import CytoloopError, InputError, LabelStudioUnavailable
from cytoloop.pipeline.cip_version import ensure_cip_version


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


@pytest.fixture
def other(tiny: Tiny) -> str:
    """A second version of the home: the same recipe with a parameter that finds fewer cells."""
    cip = Cip(recipe="cells2ch", parameters={**tiny.assay.cip.parameters, "cell_area": 300})
    return ensure_cip_version(tiny.store, tiny.registry, replace(tiny.assay, cip=cip)).version


@pytest.fixture
def folders(tiny: Tiny, tmp_path: Path) -> RateOptions:
    plate = Path(tiny.store.images.all("tiny")[0].files[0]).parent
    for image_id, truth_HW in tiny.truth.items():
        write_mask(tmp_path / "network" / f"{image_id}.png", truth_HW)
        write_mask(tmp_path / "tophat" / f"{image_id}.png", np.zeros_like(truth_HW))
    masks = (("tophat", tmp_path / "tophat"), ("network", tmp_path / "network"))
    return RateOptions(image_dir=plate, masks=masks, name="t1")


def methods(design: Path) -> dict[str, str]:
    key = json.loads(design.read_text(encoding="utf-8"))
    return {one["token"]: one["method"] for one in key["pictures"]}


def test_nothing_that_reaches_label_studio_names_a_method(
    home: Home, desk: Desk, folders: RateOptions
) -> None:
    made = create_rating(home, home.load("tiny"), replace(folders, images=16), quiet)
    sent = json.dumps([desk.projects, [task["data"] for task in desk.tasks.values()]])
    for secret in ("network", "tophat", "P-A01", "design"):
        assert secret not in sent.replace(str(home.settings.home), "")
    assert [p["title"] for p in desk.projects.values()] == [
        f"Blind rating t1 – expert {n}" for n in (1, 2, 3, 4)
    ]
    assert all(p["show_collab_predictions"] is False for p in desk.projects.values())

    # nor do names and times of the files: neither correlates with the method
    method_of = methods(made.design)
    pictures = home.settings.home / "renders" / "ratings" / "t1"
    masks = sorted(pictures.glob("*-mask.png"), key=lambda path: path.stat().st_mtime_ns)
    tokens = [path.name.removesuffix("-mask.png") for path in masks]
    assert tokens == sorted(method_of)
    assert {p.name for p in pictures.iterdir()} == {
        f"{token}-{part}.png" for token in tokens for part in ("image", "mask", "overlay")
    }
    is_network = [method_of[token] == "network" for token in tokens]
    assert abs(spearmanr(range(len(is_network)), is_network).statistic) < 0.75  # 1e-6 by chance in 32


def test_the_pictures_show_the_item_and_the_mask_of_their_token(
    home: Home, tiny: Tiny, folders: RateOptions
) -> None:
    made = create_rating(home, tiny.assay, folders, quiet)
    key = json.loads(made.design.read_text(encoding="utf-8"))
    assert made.items == 16  # all there are: the paper's 40 are not
    folder = home.settings.home / "renders" / "ratings" / "t1"
    for one in key["pictures"]:
        shown = np.asarray(Image.open(folder / f"{one['token']}-mask.png"))[::25, ::25]
        top, left = divmod(one["tile"], 2)
        truth_HW = tiny.truth[one["image_id"]][32 * top :, 40 * left :][:32, :40]
        expected = truth_HW > 0 if one["method"] == "network" else np.zeros((32, 40), bool)
        assert np.array_equal(shown.any(axis=-1), expected)


def test_the_key_is_the_owner_s_alone_and_tokens_are_no_function_of_the_seed(
    home: Home, folders: RateOptions
) -> None:
    first = create_rating(home, home.load("tiny"), replace(folders, seed=1, name=None), quiet)
    second = create_rating(home, home.load("tiny"), replace(folders, seed=1, name=None), quiet)
    assert (first.name, second.name) == ("tiny-1", "tiny-2")
    assert stat.S_IMODE(first.design.stat().st_mode) == 0o600
    assert not methods(first.design).keys() & methods(second.design).keys()
    keys = [json.loads(made.design.read_text(encoding="utf-8")) for made in (first, second)]
    items = [[(p["image_id"], p["tile"], p["set"]) for p in key["pictures"]] for key in keys]
    assert items[0] == items[1]


def test_versions_of_the_home_are_rated(home: Home, desk: Desk, tiny: Tiny, other: str) -> None:
    active = tiny.store.models.active("tiny").version
    options = RateOptions(a=other, split="train", experts=(ADA, BOB), name="v1")
    made = create_rating(home, tiny.assay, options, quiet)
    assert made.methods == (other, active)
    method_of = methods(made.design)
    first, second = (seat.project_id for seat in made.seats)
    desk.rate_all(first, lambda data: 8 if method_of[data["token"]] == active else 3, user=1)
    desk.rate_all(second, lambda data: 5, user=1)  # ada works in bob's project
    report = collect_rating(home, "v1", quiet)
    total = made.seats[0].tasks
    assert [(p.expert, p.done, p.left, p.by_others) for p in report.progress] == [
        (ADA, total, 0, 0),
        (BOB, 0, made.seats[1].tasks, made.seats[1].tasks),
    ]
    assert {one.method: set(one.values) for one in report.distributions[:2]} == {other: {3}, active: {8}}
    assert report.minutes_median == 0.75
    with (made.design.parent / "ratings.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == total
    key = json.loads(made.design.read_text(encoding="utf-8"))
    sides = {s["token"]: s["is_mask_left"] for s in key["raters"][0]["showings"]}
    assert all((row["mask_side"] == "left") == sides[row["token"]] for row in rows)
    assert all(method_of[row["token"]] == row["method"] for row in rows)


def test_defaults_are_the_cip_against_the_active_version(home: Home, tiny: Tiny) -> None:
    with pytest.raises(InputError, match="--a and --b are both cip-"):
        create_rating(home, tiny.assay, RateOptions(split="train"), quiet)


def test_a_task_that_is_not_of_the_design_is_refused(home: Home, desk: Desk, folders: RateOptions) -> None:
    made = create_rating(home, home.load("tiny"), replace(folders, experts=("ada",), sets=1), quiet)
    desk.rate_all(1, lambda data: 4)
    token = desk.tasks[1]["data"]["token"]
    desk.tasks[1]["data"]["token"] = desk.tasks[2]["data"]["token"]
    with pytest.raises(InputError, match=r"task 2: token .* is in project 1 twice"):
        collect_rating(home, made.name, quiet)
    desk.tasks[1]["data"]["token"] = "elsewhere"
    with pytest.raises(InputError, match="task 1: token is 'elsewhere', expected one of rating 't1'"):
        collect_rating(home, made.name, quiet)
    desk.tasks[1]["data"]["token"] = token
    assert collect_rating(home, made.name, quiet).is_complete


def test_a_failure_on_the_way_leaves_nothing_behind(home: Home, folders: RateOptions) -> None:
    desk = Desk(breaks_at=3)
    home.__dict__["label_studio"] = desk
    with pytest.raises(LabelStudioUnavailable):
        create_rating(home, home.load("tiny"), folders, quiet)
    assert desk.projects == {}
    assert not (home.settings.home / "renders" / "ratings" / "t1").exists()
    assert not (home.settings.home / "ratings").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": 17}, "16 items, expected at least 17"),
        ({"name": "../up"}, "--name '../up': expected at most 24"),
        ({"name": "x" * 25}, "expected at most 24"),
        ({"a": "cip-1"}, "with --image-dir expected --masks alone"),
        ({"masks": ()}, r"--masks \(none\): expected two"),
        ({"experts": ("ada", "")}, "a name is empty"),
        ({"experts": ("eve@lab.org", "ada")}, "eve@lab.org: not in Label Studio"),
        ({"experts": ("ada",)}, r"1 expert\(s\) for 2 set\(s\)"),
        ({"image_dir": None}, "--masks without --image-dir"),
    ],
)
def test_what_cannot_be_rated_says_why(
    home: Home, folders: RateOptions, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(CytoloopError, match=said):
        create_rating(home, home.load("tiny"), replace(folders, **changes), quiet)


def test_missing_and_misshapen_masks_are_named(home: Home, folders: RateOptions) -> None:
    network = folders.masks[1][1]
    write_mask(network / "P-A01.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(CytoloopError, match=r"P-A01.png: mask \(4, 4\), image \(64, 80\)"):
        create_rating(home, home.load("tiny"), folders, quiet)
    (network / "P-A01.png").unlink()
    with pytest.raises(InputError, match="no mask of 'network' for 1 of 4 images: P-A01"):
        create_rating(home, home.load("tiny"), folders, quiet)


def test_from_the_command_line(
    home: Home,
    desk: Desk,
    folders: RateOptions,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cytoloop.commands.home.LabelStudioClient", lambda *_: desk)
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_URL", desk.base_url)
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_TOKEN", "t")
    place = ["--home", str(home.settings.home)]
    masks = [text for name, folder in folders.masks for text in ("--masks", f"{name}={folder}")]
    create = ["rate", "create", "--assay", "tiny", "--image-dir", str(folders.image_dir), *masks, *place]
    assert run([*create, "--images", "16", "--experts", "ada,bob", "--seed", "3", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [(seat["expert"], seat["set"], seat["tasks"]) for seat in made["seats"]] == [
        ("ada", 1, 16),
        ("bob", 2, 16),
    ]
    method_of = methods(Path(made["design"]))
    for seat in made["seats"]:
        desk.rate_all(seat["project_id"], lambda data: {"network": 9, "tophat": 2}[method_of[data["token"]]])
    assert run(["rate", "collect", "tiny-1", *place]) == 0
    said = capsys.readouterr().out
    assert (
        "All 2 experts rated network higher than tophat (mean ± SD 9.0 ± 0.0 (network) against 2.0 ± 0.0"
        in said
    )
    assert "network against tophat" in said
    assert run(["rate", "collect", "tiny-1", *place, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["complete"], report["between_methods"][0]["effect"]) == (True, 1.0)
    assert run(["rate", "collect", "tiny-7", *place]) == 1
    assert "no such study, expected one of ['tiny-1']" in capsys.readouterr().err
    assert run([*create[:-2], "--masks", "third", *place]) == 2
    assert "'third', expected name=DIR" in capsys.readouterr().err
    assert run([*create, "--experts", "ada,bob"]) == 0
    shown = capsys.readouterr().out
    assert "Blind rating tiny-2: 16 items, tophat against network" in shown
    assert "http://127.0.0.1:8080/projects/3/data?labeling=1" in shown
