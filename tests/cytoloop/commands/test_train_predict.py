"""``cytoloop train`` and ``cytoloop predict``, from folders and from a home."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from samples import make_model, write_field

import trainer.presets
from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.images import read_mask, write_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.cli import run
from cytoloop.domain.assay import Cip
from cytoloop.nn.dataset import Batch, CropSampler
from cytoloop.nn.fit import TrainConfig
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks

ROSELLA = load_assay("rosella")


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CYTOLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CYTOLOOP_DEVICE", "cpu")
    smoke = trainer.presets.smoke

    def smaller(*given: Any) -> TrainConfig:
        config = smoke(*given)
        network = replace(config.network, width=4)
        return replace(config, network=network, steps_per_epoch=2, batch=2, crop=32)

    monkeypatch.setattr(trainer.presets, "smoke", smaller)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    """Six wells of two fields, with the truth in ``labels/``."""
    for number in range(12):
        name = f"P_B{number // 2 + 1:02d}_f{number % 2}"
        _, truth_HW = write_field(tmp_path / "plate" / "images" / f"{name}.tif", number)
        write_mask(tmp_path / "plate" / "labels" / f"{name}.png", truth_HW)
    return tmp_path / "plate"


@pytest.fixture
def store(plate: Path, tmp_path: Path) -> Iterator[Store]:
    """A home that CIP serves."""
    opened = Store(tmp_path / "home")
    opened.assays.ensure(ROSELLA)
    opened.images.add(ROSELLA, read_plate(plate, ROSELLA))
    weak_label_store(opened, ROSELLA)
    ensure_cip_version(opened, Registry(tmp_path / "home" / "models"), ROSELLA)
    yield opened
    opened.close()


def cytoloop(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code = run([*map(str, arguments), "--assay", "rosella", "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = run([*map(str, arguments), "--assay", "rosella"])
    return code, capsys.readouterr().err


def masks_of(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_mask(path) for path in folder.glob("*.png")}


def test_weights_trained_from_folders_segment_a_folder(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = cytoloop(
        capsys, "train", "--method", "mdl", "--preset", "smoke", "--images", plate,
        "--labels", plate / "labels", "--out", tmp_path / "net",
    )  # fmt: skip
    assert trained["version"] is None
    assert len(trained["history"]) == 2
    assert trained["validation_mean_iou"] == trained["history"][trained["best_epoch"] - 1]["validation"]
    predicted = cytoloop(capsys, "predict", plate, tmp_path / "masks", "--weights", tmp_path / "net")
    assert (predicted["images"], predicted["version"]) == (12, "net")
    masks = masks_of(tmp_path / "masks")
    assert len(masks) == 12
    assert all(mask.shape == (64, 64) and mask.max() <= 2 for mask in masks.values())
    with (tmp_path / "masks" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 * 4
    assert all(np.isfinite(float(row["score"])) and row["reason"] for row in rows)
    code, said = refused(
        capsys,
        "predict",
        plate,
        tmp_path / "m",
        "--weights",
        tmp_path / "net",
        "--model",
        "cdl-20240517-00000000",
    )
    assert (code, "--model" in said, "--weights" in said) == (2, True, True)


def test_training_from_the_store_makes_a_candidate(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    trained = cytoloop(capsys, "train", "--method", "cdl", "--preset", "smoke")
    model = store.models.get(trained["version"])
    assert (model.status, model.digest) == ("candidate", trained["digest"])
    assert model.config["weak_rows"] == len(store.images.all("rosella", ["train"]))


def test_an_epoch_is_a_line_with_both_validations_and_the_time_left(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (
        "train", "--method", "joint", "--preset", "smoke", "--images", plate, "--labels", plate / "labels",
        "--weak", plate / "labels",
    )  # fmt: skip
    base = cytoloop(
        capsys, "train", "--method", "cdl", "--preset", "smoke", "--images", plate,
        "--weak", plate / "labels", "--out", tmp_path / "base",
    )  # fmt: skip
    assert base["validation_mean_iou"] is None
    assert 0.0 < base["weak_validation_mean_iou"] <= 1.0
    assert list(base["sources"]) == ["weak", "trusted_share"]
    code = run(
        [*map(str, (*asked, "--base", tmp_path / "base", "--out", tmp_path / "net", "--assay", "rosella"))]
    )
    assert code == 0
    lines = re.findall(
        r"^epoch (\d)/2  loss [\d.]+  weak validation 0\.\d{3}  clean validation 0\.\d{3}  \d+ s left$",
        capsys.readouterr().err,
        re.MULTILINE,
    )
    assert lines == ["1", "2"]


def interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the next run while it draws its last epoch."""
    drawn = CropSampler.batch

    def batch(self: CropSampler, index: int) -> Batch:
        if index == 2:
            raise KeyboardInterrupt
        return drawn(self, index)

    monkeypatch.setattr(CropSampler, "batch", batch)


def test_a_run_from_folders_that_was_interrupted_goes_on(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("train", "--method", "mdl", "--preset", "smoke", "--images", plate, "--labels", plate / "labels")
    through = cytoloop(capsys, *asked, "--out", tmp_path / "through")
    with monkeypatch.context() as patch:
        interrupted(patch)
        code, _ = refused(capsys, *asked, "--out", tmp_path / "net")
    assert code == 130
    assert [path.name for path in (tmp_path / "net").iterdir()] == ["checkpoint"]

    code, said = refused(capsys, *asked, "--seed", "7", "--out", tmp_path / "net")
    assert (code, "belongs to a run with config.seed 0, expected 7" in said) == (1, True), said
    assert run([*map(str, asked), "--out", str(tmp_path / "net"), "--assay", "rosella", "--json"]) == 0
    captured = capsys.readouterr()
    assert "goes on after epoch 1 of a run that was interrupted" in captured.err
    again = json.loads(captured.out)
    assert (again["resumed_after_epoch"], through["resumed_after_epoch"]) == (1, 0)
    assert again["digest"] == through["digest"]
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == [
        "weights.safetensors",
        "weights.sha256",
    ]


def test_the_paper_preset_trains_from_folders(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = trainer.presets.paper
    monkeypatch.setattr(trainer.presets, "paper", lambda *given: replace(paper(*given, width=4), epochs=2))
    trained = cytoloop(
        capsys, "train", "--method", "mdl", "--preset", "paper", "--images", plate,
        "--labels", plate / "labels", "--out", tmp_path / "net",
    )  # fmt: skip
    # Six wells at 0.80 / 0.10 / 0.10: five teach, two fields each, and each field is four quarters.
    assert trained["sources"]["corrections"]["items"] == 5 * 2 * 4
    assert trained["sources"]["corrections"]["pixels"] == 5 * 2 * 64 * 64
    assert trained["validation_mean_iou"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--images and --out are needed"),
        (("--out", "net"), "method 'mdl' needs --labels"),
        (("--out", "net", "--labels", "labels", "--preset", "huge"), "preset 'huge': expected one of"),
    ],
)
def test_what_a_run_from_folders_needs_is_named(
    plate: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(plate)
    code, said = refused(capsys, "train", "--method", "mdl", "--images", plate, *options)
    assert (code, message in said) == (2, True), said


@pytest.mark.parametrize(
    ("method", "options", "code", "message"),
    [
        ("joint", (), 2, "joint training starts from a CDL; expected one first (--method cdl)"),
        ("mdl", (), 1, "no corrections of training wells yet"),
        ("mdl", ("--labels", "labels"), 2, "--labels was given without --images"),
        ("cdl", ("--out", "net"), 2, "--out was given without --images"),
    ],
)
def test_what_a_run_from_the_store_lacks_is_named(
    store: Store, plate: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    method: str, options: tuple[str, ...], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(plate)
    got, said = refused(capsys, "train", "--method", method, "--preset", "smoke", *options)
    assert (got, message in said) == (code, True), said


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((64, 32), np.uint8), "mask (64, 32), image (64, 64)"),
        (np.full((64, 64), 7, np.uint8), "mask holds values [7], expected 0…2 or 255"),
    ],
)
def test_a_wrong_mask_is_named(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: np.ndarray, message: str
) -> None:
    write_mask(plate / "labels" / "P_B03_f1.png", mask)
    code, said = refused(
        capsys, "train", "--method", "mdl", "--preset", "smoke", "--images", plate,
        "--labels", plate / "labels", "--out", tmp_path / "net",
    )  # fmt: skip
    assert (code, "P_B03_f1.png" in said, message in said) == (1, True, True), said
    assert not (tmp_path / "net").exists()


def test_no_mask_at_all_is_told(plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "none").mkdir()
    code, said = refused(
        capsys, "train", "--method", "cdl", "--preset", "smoke", "--images", plate,
        "--weak", tmp_path / "none", "--out", tmp_path / "net",
    )  # fmt: skip
    assert (code, "no training well has a mask for method 'cdl'" in said) == (1, True), said


# --- predicting with CIP ---------------------------------------------------------------------------


def test_the_active_cip_gives_the_stores_weak_labels(
    store: Store, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted = cytoloop(capsys, "predict", plate, tmp_path / "masks")
    assert predicted["version"] == store.models.active("rosella").version
    masks = masks_of(tmp_path / "masks")
    for image_id, digest in weak_masks(store, ROSELLA).items():
        np.testing.assert_array_equal(masks[image_id], store.masks.get(digest))


def test_two_plates_in_a_folder_have_each_their_illumination(
    store: Store, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(9):
        image_CHW, _ = write_field(plate / "images" / f"Q_C{number + 1:02d}_f1.tif", 50 + number)
        shade = np.linspace(0.3, 1.7, 64) * rng.uniform(0.99, 1.01)
        shaded = (image_CHW * shade).astype(np.uint16)
        tifffile.imwrite(plate / "images" / f"Q_C{number + 1:02d}_f1.tif", shaded, photometric="minisblack")
    store.images.add(ROSELLA, read_plate(plate, ROSELLA))
    weak_label_store(store, ROSELLA)
    cytoloop(capsys, "predict", plate, tmp_path / "masks")
    masks = masks_of(tmp_path / "masks")
    for image_id, digest in weak_masks(store, ROSELLA).items():
        np.testing.assert_array_equal(masks[image_id], store.masks.get(digest), err_msg=image_id)


def test_a_cip_version_predicts_with_its_own_recipe(
    store: Store, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cytoloop(capsys, "predict", plate, tmp_path / "before")
    folder = tmp_path / "home" / "assays"
    folder.mkdir()
    shipped = Path(__file__).parents[3] / "labelstudio_config" / "assays" / "rosella.yaml"
    document = yaml.safe_load(shipped.read_text())
    document["cip"] = {"recipe": "rosella", "parameters": {"camera_offset": 400.0}}
    (folder / "rosella.yaml").write_text(yaml.safe_dump(document))
    predicted = cytoloop(capsys, "predict", plate, tmp_path / "after")
    assert predicted["version"] == store.models.active("rosella").version
    for name, mask in masks_of(tmp_path / "before").items():
        np.testing.assert_array_equal(mask, read_mask(tmp_path / "after" / f"{name}.png"))

    changed = replace(ROSELLA, cip=Cip(recipe="rosella", parameters={"camera_offset": 400.0}))
    ensure_cip_version(store, Registry(tmp_path / "home" / "models"), changed)
    old = replace(store.models.active("rosella"), version="cip-20200101-00000000")
    store.models.add(replace(old, config={**old.config, "code_version": "0"}))
    code, said = refused(capsys, "predict", plate, tmp_path / "x", "--model", "cip-20200101-00000000")
    assert (code, "made by CIP code 0" in said) == (1, True), said


def test_a_model_of_another_assay_is_refused(
    store: Store, plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.models.add(make_model(assay="nuclei"))
    code, said = refused(capsys, "predict", plate, tmp_path / "x", "--model", make_model().version)
    assert (code, "is of assay 'nuclei', expected 'rosella'" in said) == (1, True), said
    code, said = refused(capsys, "predict", plate, tmp_path / "x", "--model", "cdl-20240517-99999999")
    assert (code, "is not in this home" in said) == (1, True), said


def test_a_home_without_a_model_says_what_to_do(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = refused(capsys, "predict", plate, tmp_path / "x")
    assert (code, "no active version yet; expected an import first" in said) == (1, True), said
