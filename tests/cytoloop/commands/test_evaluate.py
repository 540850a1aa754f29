"""Two folders of masks compared: what is matched, what is refused, what is shown."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from cytoloop.cli import run
from cytoloop.commands.evaluate import error_table, evaluate_command, evaluation_table
from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import ConfigError, ImageUnreadable, InputError, ShapeError

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
    found = evaluate_command(
        truth, pred, ASSAY, progress=lambda done, total: told.append((done, total))
    ).evaluation
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


def test_predictions_without_truth_are_left_out_with_a_warning(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "a.png", half())
    save(pred, "a.png", half())
    save(pred, "z.png", half())
    found = evaluate_command(truth, pred, ASSAY)
    assert len(found.evaluation.images) == 1
    assert found.warnings == (f"{pred}: 1 predictions without truth left out: z",)
    assert found.to_dict()["warnings"] == list(found.warnings)


def test_sizes_that_differ_are_refused(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "x.png", half((8, 10)))
    save(pred, "x.png", half((10, 8)))
    with pytest.raises(
        ShapeError,
        match=r"pred/x\.png: 8 x 10 pixels, its truth .*truth/x\.png 10 x 8 pixels; expected one size$",
    ):
        evaluate_command(truth, pred, ASSAY)


def test_values_that_are_no_class_are_refused(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "x.png", half())
    save(pred, "x.png", half() * 7)
    told = r"pred/x\.png: mask holds 7 \(40 pixels, first at row 0, column 0\); expected 0…1 or 255 \(not looked at\)"
    with pytest.raises(ShapeError, match=told):
        evaluate_command(truth, pred, ASSAY)


def test_folders_without_masks_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    truth, pred = folders
    with pytest.raises(InputError, match=r"truth: holds no PNG or TIFF masks \(it is empty\)"):
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
        console.print(evaluation_table(evaluate_command(truth, pred, ASSAY).evaluation))
    text = capture.get()
    assert "1 mask: global accuracy 0.500" in text
    spot = next(line for line in text.splitlines() if "[spot]" in line)  # brackets are no markup
    assert [cell.strip() for cell in spot.strip("│").split("│")] == [
        "[spot]", "0.000", "0.000", "–", "0.000", "–", "1.000", "40",
    ]  # fmt: skip
    assert "mean" in text


def test_files_that_are_no_masks_are_named_where_there_are_no_others(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    (truth / "a.jpg").write_bytes(b"")
    (truth / "labels").mkdir()
    with pytest.raises(InputError, match=r"\(only a\.jpg, labels\), expected at least one"):
        evaluate_command(truth, pred, ASSAY)


def test_everything_wrong_is_said_at_once(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    for name in "abcdef":
        save(truth, f"{name}.png", half())
    save(truth, "a.png", half() * 3)
    Image.new("RGB", (10, 8)).save(pred / "a.png")
    save(pred, "b.png", half((4, 4)))
    (pred / "c.png").write_bytes(b"not a png")
    save(pred, "d.png", half())
    save(pred, "e_pred.png", half())
    told: list[tuple[int, int]] = []
    with pytest.raises(InputError) as caught:
        evaluate_command(truth, pred, ASSAY, progress=lambda done, total: told.append((done, total)))
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 problems:"
    for expected in (
        "no prediction for 2 of 6 masks of",
        "truth/a.png: mask holds 3 (40 pixels",
        "pred/a.png: a RGB picture",
        "pred/b.png: 4 x 4 pixels, its truth",
        "pred/c.png: cannot be read as a mask",
    ):
        assert sum(expected in line for line in lines) == 1, expected
    assert "e, f; without truth there: e_pred" in str(caught.value)
    assert told[-1] == (4, 4)


def test_many_problems_are_counted(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    for number in range(23):
        save(truth, f"{number}.png", half())
        save(pred, f"{number}.png", half() * 9)
    with pytest.raises(InputError) as caught:
        evaluate_command(truth, pred, ASSAY)
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[0], lines[-1]) == (22, "23 problems:", "  and 3 more")


def test_masks_of_any_kind_that_hold_classes_are_taken(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "palette.png", half())
    picture = Image.fromarray(half())
    picture.putpalette([0, 0, 0, 200, 10, 30])
    picture.save(pred / "palette.png")
    save(truth, "bits.png", half())
    Image.fromarray(half() > 0).save(pred / "bits.png")
    save(truth, "deep.png", half())
    Image.fromarray(half().astype(np.uint16)).save(pred / "deep.png")
    save(truth, "other.png", half())
    Image.fromarray(half()).save(pred / "other.tif")
    found = evaluate_command(truth, pred, ASSAY)
    assert [one.mean_iou for one in found.evaluation.images] == [1.0] * 4
    assert found.warnings == ()


def test_one_stem_of_two_kinds_is_refused(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    save(truth, "a.png", half())
    save(truth, "a.tif", half())
    with pytest.raises(InputError, match=r"a\.png and a\.tif are one name"):
        evaluate_command(truth, pred, ASSAY)


def test_a_folder_against_itself_is_told(folders: tuple[Path, Path]) -> None:
    truth, _ = folders
    save(truth, "a.png", half())
    found = evaluate_command(truth, truth.parent / "pred" / ".." / "truth", ASSAY)
    assert found.evaluation.dataset.mean_iou == 1.0
    assert "one folder" in found.warnings[0]


def test_binary_masks_of_0_and_255_are_told(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    for name in ("a.png", "b.png"):
        save(truth, name, half())
        save(pred, name, half() * 255)
    assert evaluate_command(truth, pred, ASSAY).warnings == (
        f"{pred}: every mask holds 0 and 255 alone; 255 means not looked at and never counts, classes are 1…1",
    )
    save(pred, "b.png", half())
    assert evaluate_command(truth, pred, ASSAY).warnings == ()


def test_processes_change_nothing(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    rng = np.random.default_rng(3)
    for number in range(5):
        for folder in folders:
            save(folder, f"{number}.png", rng.choice([0, 1, 255], (12, 14)))
    alone = evaluate_command(truth, pred, ASSAY)
    assert evaluate_command(truth, pred, ASSAY, workers=2).to_dict() == alone.to_dict()
    save(pred, "3.png", half((12, 14)) * 9)
    save(pred, "4.png", half())
    with pytest.raises(InputError, match="2 problems"):
        evaluate_command(truth, pred, ASSAY, workers=2)
    with pytest.raises(ConfigError, match="0 workers"):
        evaluate_command(truth, pred, ASSAY, workers=0)


def test_the_error_table_shows_each_type(folders: tuple[Path, Path]) -> None:
    truth, pred = folders
    before, after = np.zeros((8, 10), np.uint8), np.zeros((8, 10), np.uint8)
    before[1, 1], before[1, 4:8], before[5, 5:8] = 1, 1, 1  # missed, incomplete, right
    after[1, 6:8], after[5, 5:8], after[7, 1] = 1, 1, 1
    save(truth, "a.png", before)
    save(pred, "a.png", after)
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(error_table(evaluate_command(truth, pred, ASSAY).evaluation))
    spot = next(line for line in capture.get().splitlines() if "[spot]" in line)
    assert [cell.strip() for cell in spot.strip("│").split("│")] == [
        "[spot]", "3", "1", "1", "0", "1", "1", "0.333", "0.333", "0.667",
    ]  # fmt: skip


def test_the_command_tells_warnings_apart_from_its_document(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    truth, _ = folders
    save(truth, "a.png", half())
    call = ["evaluate", "--truth", str(truth), "--pred", str(truth), "--assay", "rosella", "--workers", "1"]
    assert run([*call, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["dataset"]["mean_iou"] == 1.0
    assert "one folder" in document["warnings"][0]
    assert "warning: " in captured.err
    assert run(call) == 0
    assert "invented" in capsys.readouterr().out
