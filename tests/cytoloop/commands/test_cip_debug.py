"""The steps of a recipe, as a person finds them in a folder."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import make_assay, write_field

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.images import write_png
from cytoloop.cli import run
from cytoloop.commands.weak_label import weak_label_command
from cytoloop.domain.assay import Teacher
from cytoloop.domain.cip import RECIPES
from cytoloop.domain.errors import ConfigError

ASSAY = make_assay()


@pytest.fixture
def plate(tmp_path: Path) -> Path:
    for number in range(2):
        write_field(tmp_path / "plate" / f"P_B0{number + 1}_f1.tif", number)
    return tmp_path / "plate"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_each_image_has_a_folder_with_its_steps_in_order_and_a_page(plate: Path, tmp_path: Path) -> None:
    weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=tmp_path / "steps")
    assert names(tmp_path / "steps") == ["P_B01_f1", "P_B02_f1"]
    folder = tmp_path / "steps" / "P_B01_f1"
    steps = RECIPES["rosella"].steps
    expected = [f"{number:02d}-{name}.png" for number, name in enumerate(steps, start=1)]
    assert names(folder) == [*expected, "index.html"]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<img src="([^"]+)"', page) == expected
    assert not re.search(r"https?://|<script|<link", page)
    for name in expected:
        with Image.open(folder / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (128, 128))  # 64 x 64, enlarged twice


def test_captions_are_words_with_the_values_of_this_run(plate: Path, tmp_path: Path) -> None:
    changed = replace(ASSAY, cip=replace(ASSAY.cip, parameters={"red_threshold": 123.5}))
    weak_label_command(plate, tmp_path / "weak", changed, debug_dir=tmp_path / "steps")
    page = (tmp_path / "steps" / "P_B01_f1" / "index.html").read_text(encoding="utf-8")
    assert "difference of Gaussians (1 − 7 px) above 123.5" in page
    assert "{" not in page.split("</style>")[1]
    assert re.search(r"\d+ kept, \d+ dropped", page)
    assert re.search(r"\d+ Phagophore, \d+ Autolysosome", page)


def test_the_table_lists_each_dropped_object(plate: Path, tmp_path: Path) -> None:
    bright = replace(ASSAY, cip=replace(ASSAY.cip, parameters={"red_floor": 60000}))
    weak_label_command(plate, tmp_path / "weak", bright, debug_dir=tmp_path / "steps")
    page = (tmp_path / "steps" / "P_B01_f1" / "index.html").read_text(encoding="utf-8")
    dropped = int(re.findall(r"(\d+) dropped</p>", page)[-1])
    assert dropped > 0
    assert page.count("too dim in red") == dropped
    assert page.count("expected above 60000") == dropped
    weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=tmp_path / "kept")
    kept = (tmp_path / "kept" / "P_B01_f1" / "index.html").read_text(encoding="utf-8")
    assert kept.count("too dim in red") < dropped


def test_the_last_picture_outlines_the_mask_in_its_colours(plate: Path, tmp_path: Path) -> None:
    weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=tmp_path / "steps")
    last = names(tmp_path / "steps" / "P_B01_f1")[-2]
    with Image.open(tmp_path / "steps" / "P_B01_f1" / last) as picture:
        shown = np.asarray(picture)
    with Image.open(tmp_path / "weak" / "P_B01_f1.png") as mask:
        enlarged = np.asarray(mask).repeat(2, axis=0).repeat(2, axis=1)
    for value, label in ASSAY.foreground:
        drawn = (shown == tuple(bytes.fromhex(label.colour[1:]))).all(axis=2)
        assert drawn.any()
        assert (enlarged[drawn] == value).all()


def test_workers_and_watching_change_no_mask_and_no_page(plate: Path, tmp_path: Path) -> None:
    weak_label_command(plate, tmp_path / "plain", ASSAY)
    for workers in (1, 2):
        weak_label_command(
            plate, tmp_path / f"weak{workers}", ASSAY, workers, debug_dir=tmp_path / f"steps{workers}"
        )
        for name in names(tmp_path / "plain"):
            plain, watched = tmp_path / "plain" / name, tmp_path / f"weak{workers}" / name
            assert plain.read_bytes() == watched.read_bytes()
    for path in sorted((tmp_path / "steps1").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "steps2" / path.relative_to(tmp_path / "steps1")).read_bytes()


def test_a_new_run_replaces_its_own_files_only(plate: Path, tmp_path: Path) -> None:
    folder = tmp_path / "steps" / "P_B01_f1"
    folder.mkdir(parents=True)
    (folder / "99-of-another-recipe.png").write_bytes(b"old")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=tmp_path / "steps")
    assert "99-of-another-recipe.png" not in names(folder)
    assert "notes.txt" in names(folder)
    (plate / "P_B01_f1.tif").write_bytes(b"II*\0 not a picture")
    weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=tmp_path / "steps")
    assert "index.html" in names(tmp_path / "steps" / "P_B02_f1")


def test_what_teachers_decide_is_shown_after_the_first_ones_steps(plate: Path, tmp_path: Path) -> None:
    cip = replace(ASSAY.cip, teachers=(Teacher(parameters={"red_floor": 50}),))
    weak_label_command(plate, tmp_path / "weak", replace(ASSAY, cip=cip), debug_dir=tmp_path / "steps")
    folder = tmp_path / "steps" / "P_B01_f1"
    assert [name[3:] for name in names(folder)][-3:-1] == ["classes.png", "vote.png"]
    assert "2 teachers vote" in (folder / "index.html").read_text(encoding="utf-8")


def test_a_name_with_html_in_it_is_shown_as_it_is(tmp_path: Path) -> None:
    write_field(tmp_path / "plate" / "a<b>&.tif")
    weak_label_command(tmp_path / "plate", tmp_path / "weak", ASSAY, debug_dir=tmp_path / "steps")
    page = (tmp_path / "steps" / "a<b>&" / "index.html").read_text(encoding="utf-8")
    assert "<h1>a&lt;b&gt;&amp;</h1>" in page


@pytest.mark.parametrize("name", ["nuclei", "cells2ch"])
def test_the_other_recipes_have_their_steps(name: str, tmp_path: Path) -> None:
    assay = load_assay(name)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:64, :80]
    grey = rng.poisson(20 + 150 * (np.hypot(rows - 30, columns - 40) < 14)).astype(np.uint8)
    (tmp_path / "plate").mkdir()
    for channel in assay.channels:
        write_png(tmp_path / "plate" / f"F_B02_f1{channel.suffix or ''}.png", grey)
    weak_label_command(tmp_path / "plate", tmp_path / "weak", assay, debug_dir=tmp_path / "steps")
    found = names(tmp_path / "steps" / "F_B02_f1")
    assert [f[3:-4] for f in found[:-1]] == list(RECIPES[name].steps)


def test_steps_among_the_images_are_refused(plate: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected another folder for the steps"):
        weak_label_command(plate, tmp_path / "weak", ASSAY, debug_dir=plate)


def test_the_command_says_where_the_steps_are(
    plate: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["weak-label", plate, tmp_path / "w", "--assay", "rosella", "--debug-dir", tmp_path / "s"]
    assert run(list(map(str, arguments))) == 0
    assert f"{tmp_path / 's'}/<image>/index.html" in capsys.readouterr().out
    assert (tmp_path / "s" / "P_B01_f1" / "index.html").is_file()
