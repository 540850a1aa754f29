"""``cytoloop predict`` on a plate: goes on where it stopped, names what it cannot read, grows with nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from places import ROOT
from samples import write_field

from cytoloop.adapters import plates
from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.images import PROVENANCE, read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.prediction_folder import DOUBT, JOURNAL, SCORES
from cytoloop.cli import run
from cytoloop.commands import predict
from cytoloop.domain.assay import Assay
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import load_weights, note_digest, save_weights
from cytoloop.pipeline.judging import doubt_of
from cytoloop.pipeline.predictors import NetworkPredictor

ROSELLA = load_assay("rosella")
IMAGES = 6


@pytest.fixture(autouse=True)
def _one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CYTOLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CYTOLOOP_DEVICE", "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    for number in range(IMAGES):
        write_field(tmp_path / "plate" / f"P_B{number + 1:02d}_f1.tif", number)
    return tmp_path / "plate"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return made(tmp_path / "net", 2)


def made(folder: Path, seed: int) -> Path:
    """A folder as ``cytoloop train --out`` writes it."""
    config = UNetConfig(in_channels=2, class_count=3, width=4)
    note_digest(folder, save_weights(folder, UNet(config, seed=seed), config, Normalisation()))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "masks"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A number for each image that the network is asked about."""
    seen: list[int] = []
    look_at = NetworkPredictor.look_at

    def counted(self: NetworkPredictor, *given: Any) -> Any:
        seen.append(1)
        return look_at(self, *given)

    monkeypatch.setattr(NetworkPredictor, "look_at", counted)
    return seen


def arguments(plate: Path, out: Path, net: Path, *more: object) -> list[str]:
    return ["predict", *map(str, (plate, out, "--assay", "rosella", "--weights", net, "--json", *more))]


def predicted(capsys: pytest.CaptureFixture[str], *given: Any, code: int = 0) -> tuple[Any, str]:
    got = run(arguments(*given))
    captured = capsys.readouterr()
    assert got == code, captured.err
    return json.loads(captured.out), captured.err


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def provenance(out: Path) -> Any:
    return json.loads((out / PROVENANCE).read_text(encoding="utf-8"))


def test_masks_doubts_and_scores_are_the_networks(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, _ = predicted(capsys, plate, out, net, "--uncertainty", "--workers", 3)
    assert (told["images"], told["made"], told["version"], told["failures"]) == (IMAGES, IMAGES, "net", [])
    loaded = load_weights(net)
    for record in read_plate(plate, ROSELLA):
        image_CHW = tifffile.imread(record.files[0])
        prob_KHW = predict_prob(loaded.model, image_CHW, loaded.normalisation)
        near_KHW = np.sort(prob_KHW, axis=0)
        is_clear_HW = near_KHW[-1] - near_KHW[-2] > 1e-3
        mask_HW = read_mask(out / f"{record.image_id}.png")
        np.testing.assert_array_equal(mask_HW[is_clear_HW], prob_KHW.argmax(axis=0)[is_clear_HW])
        doubt_HW = read_mask(out / DOUBT / f"{record.image_id}.png")
        np.testing.assert_allclose(doubt_HW / 255, doubt_of(prob_KHW), atol=0.5 / 255 + 1e-3)
    with (out / SCORES).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["image_id"], row["tile"]) for row in rows] == [
        (f"P_B{number + 1:02d}_f1", str(tile)) for number in range(IMAGES) for tile in range(4)
    ]
    document = provenance(out)
    assert document["weights_digest"] == loaded.digest
    assert document["engine"] == told["engine"]
    assert [one["image_key"] for one in document["images"]] == [
        r.image_key for r in read_plate(plate, ROSELLA)
    ]
    for one in document["images"]:
        assert sum(one["class_pixels"].values()) == 64 * 64


def test_pixels_are_read_once(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    read = plates.read_raw

    def counted(files: Sequence[Path], assay: Assay) -> Any:
        opened.extend(map(str, files))
        return read(files, assay)

    monkeypatch.setattr(plates, "read_raw", counted)
    monkeypatch.setattr("cytoloop.pipeline.predictors.read_image", None)
    predicted(capsys, plate, out, net)
    assert sorted(opened) == sorted(str(path) for path in plate.iterdir())


@pytest.mark.parametrize("workers", [1, 4])
def test_the_result_does_not_depend_on_workers(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    predicted(capsys, plate, out, net, "--workers", 2)
    predicted(capsys, plate, out.with_name("other"), net, "--workers", workers)
    assert content(out) == content(out.with_name("other"))


def test_a_second_run_predicts_only_what_is_new_or_changed(
    plate: Path, out: Path, net: Path, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(capsys, plate, out, net)
    first = content(out)
    told, _ = predicted(capsys, plate, out, net)
    assert (told["images"], told["made"], len(asked)) == (IMAGES, 0, IMAGES)
    assert content(out) == first
    write_field(plate / "P_B01_f1.tif", 99)  # other pixels under the same name
    write_field(plate / "P_C01_f1.tif", 7)
    (out / "P_B02_f1.png").unlink()
    told, _ = predicted(capsys, plate, out, net)
    assert (told["images"], told["made"], len(asked)) == (IMAGES + 1, 3, IMAGES + 3)
    changed = content(out)
    same = [name for name in first if name.endswith(".png") and "B01" not in name]
    assert [changed[name] for name in same] == [first[name] for name in same]
    assert len((out / SCORES).read_text().splitlines()) == 1 + 4 * (IMAGES + 1)


def test_other_weights_make_every_mask_anew(
    plate: Path, out: Path, net: Path, asked: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(capsys, plate, out, net)
    made(net, 3)
    told, _ = predicted(capsys, plate, out, net)
    assert (told["made"], len(asked)) == (IMAGES, 2 * IMAGES)


def test_what_cannot_be_read_is_named_and_the_others_go_on(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predicted(capsys, plate, out, net, "--uncertainty")
    broken = plate / "P_B03_f1.tif"
    broken.write_bytes(broken.read_bytes()[:200])
    told, said = predicted(capsys, plate, out, net, "--uncertainty", code=1)
    assert (told["images"], len(told["failures"])) == (IMAGES - 1, 1)
    assert str(broken) in told["failures"][0]
    assert str(broken) in said
    assert not (out / "P_B03_f1.png").exists()  # the old one would pass for a mask of what is there now
    assert not (out / DOUBT / "P_B03_f1.png").exists()
    assert "P_B03_f1" not in (out / SCORES).read_text()
    assert provenance(out)["failures"] == told["failures"]


def test_what_fails_later_is_named_too(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(plate / "P_D01_f1.tif", np.ones((2, 4, 64), np.uint16), photometric="minisblack")
    told, _ = predicted(capsys, plate, out, net, code=1)
    assert told["images"] == IMAGES
    assert "P_D01_f1.tif" in told["failures"][0]
    assert "expected at least 8 x 8" in told["failures"][0]


def test_masks_are_not_written_among_the_images(
    plate: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments(plate, plate, net)) == 2
    assert "expected another folder for the masks" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_leaves_whole_files_and_goes_on(
    plate: Path,
    out: Path,
    net: Path,
    asked: list[int],
    capsys: pytest.CaptureFixture[str],
    end: signal.Signals,
) -> None:
    for number in range(300):
        os.link(plate / "P_B01_f1.tif", plate / f"Q{number:03d}_f1.tif")
    total = IMAGES + 300
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "cytoloop.cli", *arguments(plate, out, net, "--workers", 1)],
        env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while len(list(out.glob("[PQ]*.png"))) < 10:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(end)
        process.communicate(timeout=60)
    assert process.returncode == (130 if end == signal.SIGINT else -signal.SIGKILL)
    assert not (out / PROVENANCE).exists()
    assert not (out / SCORES).exists()
    before = content(out)
    written = list(out.glob("[PQ]*.png"))
    assert 10 <= len(written) < total
    for path in written:
        assert read_mask(path).shape == (64, 64)
    if end == signal.SIGINT:
        assert not list(out.glob(".*.png"))
    told, _ = predicted(capsys, plate, out, net)
    assert told["images"] == total
    # what was in the journal is not predicted again; a mask whose line was not written yet is
    assert total - len(written) <= len(asked) == told["made"] <= total - len(written) + 1
    after = content(out)
    assert all(after[name] == before[name] for name in before if name.endswith(".png") and name[0] != ".")
    assert len(provenance(out)["images"]) == total
    assert not (out / JOURNAL).exists()
    assert not list(out.glob(".*.png"))


def test_images_on_their_way_are_few(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many raw images as threads and places between two stages; not more of a larger plate."""
    for number in range(60):
        os.link(plate / "P_B01_f1.tif", plate / f"Q{number:03d}_f1.tif")
    read, written, most = [0], [0], [0]
    read_field, write = predict.read_field, predict._Steps.write

    def counted(*given: Any) -> Any:
        read[0] += 1
        most[0] = max(most[0], read[0] - written[0])
        return read_field(*given)

    def slow(self: Any, work: Any) -> Any:
        time.sleep(0.01)
        written[0] += 1
        return write(self, work)

    monkeypatch.setattr(predict, "read_field", counted)
    monkeypatch.setattr(predict._Steps, "write", slow)
    predicted(capsys, plate, out, net, "--workers", 2)
    assert most[0] <= 3 * 2 + 1 + 3 * 2 + 2  # threads of each stage, what waits between them, and a little


@pytest.mark.parametrize("inner", ["", "labels"])
def test_masks_never_take_the_place_of_what_the_plate_keeps(
    plate: Path, net: Path, inner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (plate / "labels").mkdir()
    assert run(arguments(plate, plate / inner, net)) == 2
    assert "the images are there; expected another folder for the masks" in capsys.readouterr().err
    assert list((plate / "labels").iterdir()) == []


def test_a_mask_of_somebody_else_is_not_removed_with_an_image_that_cannot_be_read(
    plate: Path, out: Path, net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out.mkdir()
    theirs = out / "P_B03_f1.png"
    theirs.write_bytes(b"drawn by hand")
    (plate / "P_B03_f1.tif").write_bytes(b"II*")
    predicted(capsys, plate, out, net, code=1)
    assert theirs.read_bytes() == b"drawn by hand"
