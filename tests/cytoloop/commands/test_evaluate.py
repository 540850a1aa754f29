"""Two folders of masks compared: what is matched, what is refused, what is shown."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cytoloop.commands.evaluate import evaluate_command, evaluation_table
from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import ImageUnreadable, InputError, ShapeError

ASSAY = Assay(
    name="tiny",
    channels=(Channel(name="dna"),),
    classes=(LabelClass(name="background", colour="#000000"), LabelClass(name="[spot]", colour="#ff0000")),
    ignore=LabelClass(name="ignore", colour="#888888"),
    cip=Cip(recipe="none"),
)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    truth.mkdir()
    pred.mkdir()
    return truth, pred


def save(folder: Path, name: str, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8)).save(folder / name)


def half(shape: tuple[int, int] = (8, 10)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[:, : shape[1] // 2] = 1
    return mask


def test_masks_are_matched_by_stem_and_progress_is_told(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    for name in ("b.png", "a.png"):
        save(truth, name, half())
    save(pred, "a.png", half())
    save(pred, "b.PNG", np.zeros((8, 10)))
    (truth / "notes.txt").write_text("not a mask")
    told: list[tuple[int, int]] = []
    found = evaluate_command(truth, pred, ASSAY, progress=lambda done, total: told.append((done, total)))
    assert [one.image for one in found.images] == ["a", "b"]
    assert found.classes[1].iou == pytest.approx(0.5)
    assert found.dataset.mean_iou == pytest.approx((80 / 120 + 0.5) / 2)
    assert told == [(1, 2), (2, 2)]


def test_a_missing_prediction_is_named(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    for n in range(8):
        save(truth, f"f{n}.png", half())
    save(pred, "f0.png", half())
    with pytest.raises(
        InputError, match=r"no prediction for 7 of 8 masks of .*: f1, f2, f3, f4, f5 and 2 more"
    ):
        evaluate_command(truth, pred, ASSAY)


def test_predictions_without_truth_are_left_out_with_a_warning(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    truth, pred = folders
    save(truth, "a.png", half())
    save(pred, "a.png", half())
    save(pred, "z.png", half())
    with caplog.at_level(logging.WARNING):
        assert len(evaluate_command(truth, pred, ASSAY).images) == 1
    assert "names=z" in caplog.text


def test_sizes_that_differ_are_refused(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "x.png", half((8, 10)))
    save(pred, "x.png", half((10, 8)))
    with pytest.raises(ShapeError, match=r"^x\.png: mask \(10, 8\), truth \(8, 10\)$"):
        evaluate_command(truth, pred, ASSAY)


def test_values_that_are_no_class_are_refused(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "x.png", half())
    save(pred, "x.png", half() * 7)
    with pytest.raises(ShapeError, match=r"pred/x\.png: mask holds values \[7\], expected 0…1 or 255"):
        evaluate_command(truth, pred, ASSAY)


def test_folders_without_masks_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, pred = folders
    with pytest.raises(InputError, match="holds no PNG masks"):
        evaluate_command(truth, pred, ASSAY)
    with pytest.raises(InputError, match="no such folder"):
        evaluate_command(tmp_path / "nowhere", pred, ASSAY)
    save(truth, "x.png", half())
    save(truth, "x.PNG", half())
    with pytest.raises(InputError, match=r"x\.PNG and x\.png are one name"):
        evaluate_command(truth, pred, ASSAY)


def test_a_broken_file_is_named(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "x.png", half())
    (pred / "x.png").write_bytes(b"not a png")
    with pytest.raises(ImageUnreadable, match=r"x\.png"):
        evaluate_command(truth, pred, ASSAY)


def test_the_table_shows_classes_and_means(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "a.png", half())
    save(pred, "a.png", np.zeros((8, 10)))
    console = Console(width=140, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(evaluation_table(evaluate_command(truth, pred, ASSAY)))
    text = capture.get()
    assert "1 mask: global accuracy 0.500" in text
    spot = next(line for line in text.splitlines() if "[spot]" in line)  # brackets are no markup
    assert [cell.strip() for cell in spot.strip("│").split("│")] == [
        "[spot]", "0.000", "0.000", "–", "0.000", "–", "1.000", "40",
    ]  # fmt: skip
    assert "mean" in text
