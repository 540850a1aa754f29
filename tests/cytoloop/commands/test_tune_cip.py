"""``cytoloop tune-cip`` from folders and from a home."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from samples import make_correction, write_field

from cytoloop.adapters.assays import cip_text, load_assay, read_assay, shipped_folder
from cytoloop.adapters.images import write_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.store import Store
from cytoloop.cli import run
from cytoloop.domain.assay import Cip, Teacher
from cytoloop.domain.splits import assign_splits
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item

ROSELLA = load_assay("rosella")
BAD = {"camera_offset": 0.0, "red_floor": 5000.0}
"""A floor that nearly nothing of these fields is above."""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home whose own rosella assay has a setting that is easily beaten."""
    monkeypatch.setenv("CYTOLOOP_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "assays").mkdir(parents=True)
    write_assay(tmp_path, BAD)


def write_assay(folder: Path, parameters: dict[str, float]) -> Path:
    document = yaml.safe_load((shipped_folder() / "rosella.yaml").read_text(encoding="utf-8"))
    document["cip"] = {"recipe": "rosella", "parameters": parameters}
    path = folder / "home" / "assays" / "rosella.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    for number in range(8):
        name = f"P_B{number + 1:02d}_f1"
        _, truth_HW = write_field(tmp_path / "plate" / "images" / f"{name}.tif", number)
        write_mask(tmp_path / "plate" / "labels" / f"{name}.png", truth_HW)
    return tmp_path / "plate"


def split_of(plate: Path) -> dict[str, str]:
    records = read_plate(plate, ROSELLA)
    drawn = assign_splits({}, [record.group for record in records], salt="rosella")
    return {record.image_id: drawn[record.group] for record in records}


def tune(capsys: pytest.CaptureFixture[str], *options: object) -> Any:
    names = ("--parameters", "red_floor,red_threshold", "--trials", 6)
    code = run(list(map(str, ("tune-cip", "--assay", "rosella", "--json", *names, *options))))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def refused(capsys: pytest.CaptureFixture[str], *options: object) -> tuple[int, str]:
    code = run(list(map(str, ("tune-cip", "--assay", "rosella", "--trials", 2, *options))))
    return code, capsys.readouterr().err


def test_folders_give_a_better_setting_to_paste_and_leave_the_assay_alone(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assay = tmp_path / "home" / "assays" / "rosella.yaml"
    before = assay.read_bytes()
    out = tmp_path / "tuned" / "cip.yaml"
    found = tune(capsys, "--images", plate, "--labels", plate / "labels", "--out", out)
    assert found["is_better"]
    for wells in ("train", "validation"):
        assert found["tuned"][wells]["mean_iou"] > found["present"][wells]["mean_iou"]
        assert len(found["tuned"][wells]["class_iou"]) == len(found["classes"]) == 3
    splits = list(split_of(plate).values())
    assert found["train_images"] == splits.count("train")
    assert found["validation_images"] == splits.count("validation")
    assert set(found["searched"]) == {"red_floor", "red_threshold"}
    assert found["out"] == str(out)
    assert out.read_text(encoding="utf-8") == found["cip"]
    assert assay.read_bytes() == before

    pasted = yaml.safe_load(out.read_text(encoding="utf-8"))["cip"]["parameters"]
    assert pasted == found["tuned"]["parameters"]
    write_assay(tmp_path, pasted)
    again = tune(capsys, "--images", plate, "--labels", plate / "labels", "--trials", 1)
    assert again["present"]["train"] == found["tuned"]["train"]
    assert again["present"]["validation"] == found["tuned"]["validation"]


def test_masks_of_contest_and_sealed_wells_change_nothing(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ("--images", plate, "--labels", plate / "labels")
    found = tune(capsys, *folders)
    held_out = [name for name, split in split_of(plate).items() if split in ("contest", "sealed")]
    assert held_out
    for name in held_out:
        write_mask(plate / "labels" / f"{name}.png", np.full((64, 64), 2, np.uint8))
    again = tune(capsys, *folders)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


def test_the_store_gives_what_folders_with_the_same_masks_give(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assay = load_assay("rosella", [tmp_path / "home" / "assays"])
    store = Store(tmp_path / "home")
    store.assays.ensure(assay)
    store.images.add(assay, read_plate(plate, assay))
    number = 0
    for image_id in split_of(plate):
        _, truth_HW = write_field(tmp_path / "again.tif", int(image_id[3:5]) - 1)
        for tile in tiles_of(64, 64, assay.tiling):
            number += 1
            correction = make_correction(Item(image_id=image_id, tile=tile.index), number, number)
            digest = store.masks.put(np.ascontiguousarray(truth_HW[tile.slices]))
            store.corrections.append("rosella", correction, digest)
    store.close()
    stored = tune(capsys)
    folders = tune(capsys, "--images", plate, "--labels", plate / "labels")
    assert {**stored, "seconds": 0} == {**folders, "seconds": 0}


def test_a_setting_that_is_not_beaten_is_kept_and_nothing_is_written(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weak = ["weak-label", plate, tmp_path / "weak", "--assay", "rosella"]
    assert run(list(map(str, weak))) == 0  # experts who draw what the recipe draws
    capsys.readouterr()
    out = tmp_path / "cip.yaml"
    options = ("--images", plate, "--labels", tmp_path / "weak", "--out", out)
    found = tune(capsys, *options)
    assert (found["is_better"], found["cip"], found["out"]) == (False, None, None)
    assert not out.exists()
    command = ("tune-cip", "--assay", "rosella", "--trials", 2, *options)
    assert run(list(map(str, command))) == 0
    assert "keep the present setting" in capsys.readouterr().out


def test_a_person_sees_a_table_and_the_block(plate: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("tune-cip", "--assay", "rosella", "--images", plate, "--labels", plate / "labels")
    options = ("--trials", 6, "--parameters", "red_floor,red_threshold")
    assert run(list(map(str, (*command, *options)))) == 0
    captured = capsys.readouterr()
    for word in ("present", "tuned", "training", "validation", "Phagophore", "cip:", "red_floor:"):
        assert word in captured.out
    assert "trial 6 of 6" in captured.err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 1, "no corrections of training wells yet; expected at least one corrected item"),
        (("--labels", "labels"), 2, "--labels was given without --images"),
        (("--images", "."), 2, "--images and --labels are needed"),
        (("--parameters", "red_treshold"), 2, "cannot tune ['red_treshold'], expected any of"),
        (("--parameters", "camera_offset"), 2, "cannot tune ['camera_offset']"),
        (("--images", ".", "--labels", "images"), 1, "images: no mask <image_id>.png of a training"),
        (
            ("--images", ".", "--labels", "labels", "--out", "taken.yaml"),
            2,
            "exists; expected the name of a new",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_named(
    plate: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(plate)
    (plate / "taken.yaml").write_text("mine", encoding="utf-8")
    got, said = refused(capsys, *options)
    assert (got, message in said) == (code, True), said
    assert (plate / "taken.yaml").read_text(encoding="utf-8") == "mine"


def test_missing_validation_masks_and_wrong_ones_are_named(
    plate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--images", plate, "--labels", plate / "labels")
    splits = split_of(plate)
    trained = next(name for name, split in splits.items() if split == "train")
    write_mask(plate / "labels" / f"{trained}.png", np.zeros((8, 8), np.uint8))
    code, said = refused(capsys, *options)
    assert (code, f"{trained}.png: mask (8, 8), image (64, 64)" in said) == (1, True), said
    write_mask(plate / "labels" / f"{trained}.png", np.zeros((64, 64), np.uint8))
    for name, split in splits.items():
        if split == "validation":
            (plate / "labels" / f"{name}.png").unlink()
    code, said = refused(capsys, *options)
    assert (code, "no corrections of validation wells yet" in said) == (1, True), said


@pytest.mark.parametrize(
    "cip",
    [
        Cip(recipe="rosella"),
        Cip(recipe="rosella", parameters={"camera_offset": 110.0, "share": 0.3125}),
        Cip(
            recipe="rosella",
            parameters={"share": 0.5},
            teachers=(
                Teacher(parameters={"share": 0.1}),
                Teacher(recipe="rosella", parameters={"red_floor": 9}),
            ),
            agreement=0.6,
        ),
    ],
)
def test_a_block_is_read_as_it_was_written(cip: Cip, tmp_path: Path) -> None:
    document = yaml.safe_load((shipped_folder() / "rosella.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "rosella.yaml"
    path.write_text(yaml.safe_dump({**document, **yaml.safe_load(cip_text(cip))}), encoding="utf-8")
    assert read_assay(path) == replace(read_assay(shipped_folder() / "rosella.yaml"), cip=cip)
