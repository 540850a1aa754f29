import csv
import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.domain.errors import InputError, PlateError
from cytoloop.domain.simulate import simulate_field


@pytest.fixture(scope="module")
def plate(tmp_path_factory):
    out = tmp_path_factory.mktemp("plates") / "new" / "plate"
    steps = []
    summary = simulate_plate_command(out, "rosella", 2, 7, lambda done, all_: steps.append((done, all_)))
    assert steps == [(1, 2), (2, 2)]
    assert (summary.images, summary.drawn, sum(summary.looks.values())) == (2, 2, 2)
    return out


@pytest.fixture
def copy(plate, tmp_path):
    shutil.copytree(plate, tmp_path / "plate")
    return tmp_path / "plate"


def rows_of(out):
    with (out / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(out):
    return {p.relative_to(out): (p.read_bytes(), p.stat().st_mtime_ns) for p in out.rglob("*") if p.is_file()}


def test_files_hold_the_field(plate):
    field = simulate_field("rosella", 7, 1)
    with tifffile.TiffFile(plate / "images" / f"{field.image_id}.tif") as tiff:
        assert tiff.series[0].axes == "CYX"
        np.testing.assert_array_equal(tiff.asarray(), field.image_CHW)
        assert tiff.asarray().dtype == np.uint16
    with Image.open(plate / "labels" / f"{field.image_id}.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), field.truth_HW)
        assert picture.getpalette()[3:6] == [255, 214, 0]
    header = (plate / "labels" / f"{field.image_id}.png").read_bytes()[:33]
    assert header[24:26] == bytes([8, 3])  # eight bits a pixel, indexed


def test_index_names_every_image(plate):
    rows = rows_of(plate)
    assert list(rows[0]) == ["id", "plate", "well", "field", "treatment", "look", "height", "width"]
    assert [(r["field"], r["height"], r["width"]) for r in rows] == [("1", "512", "680"), ("2", "512", "680")]
    assert rows[0]["well"] == rows[1]["well"]
    assert {r["id"] for r in rows} == {p.stem for p in (plate / "images").iterdir()}
    assert {r["id"] for r in rows} == {p.stem for p in (plate / "labels").iterdir()}


def test_same_call_again_changes_nothing(copy):
    before = contents(copy)
    summary = simulate_plate_command(copy, "rosella", 2, 7)
    assert summary.drawn == 0
    assert contents(copy) == before


def test_missing_files_are_drawn_again(copy):
    before = contents(copy)
    next((copy / "labels").iterdir()).unlink()
    (copy / "index.csv").unlink()
    assert simulate_plate_command(copy, "rosella", 2, 7).drawn == 1
    assert {p: c for p, (c, _) in contents(copy).items()} == {p: c for p, (c, _) in before.items()}


def test_plate_grows(copy):
    before = contents(copy)
    assert simulate_plate_command(copy, "rosella", 3, 7).drawn == 1
    assert len(rows_of(copy)) == 3
    assert json.loads((copy / "plate.json").read_text())["images"] == 3
    after = contents(copy)
    assert all(after[p] == before[p] for p in before if p.suffix in {".tif", ".png"})


@pytest.mark.parametrize(
    ("preset", "images", "seed", "message"),
    [
        ("rosella", 2, 8, "seed 7, expected seed 8"),
        ("reference-1", 2, 7, "preset 'rosella', expected preset 'reference-1'"),
        ("rosella", 1, 7, "2 images, expected at most 1"),
    ],
)
def test_other_plate_is_refused_and_left_alone(plate, preset, images, seed, message):
    before = contents(plate)
    with pytest.raises(PlateError, match=message):
        simulate_plate_command(plate, preset, images, seed)
    assert contents(plate) == before


def test_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PlateError, match="not empty"):
        simulate_plate_command(tmp_path, "rosella", 1, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "plate").write_text("mine")
    with pytest.raises(PlateError, match="is a file"):
        simulate_plate_command(tmp_path / "plate", "rosella", 1, 1)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 0}'])
def test_strange_note_is_refused(tmp_path, text):
    (tmp_path / "plate.json").write_text(text)
    with pytest.raises(PlateError, match="plate"):
        simulate_plate_command(tmp_path, "rosella", 1, 1)


@pytest.mark.parametrize(("preset", "images", "seed"), [("x", 1, 1), ("rosella", 0, 1), ("rosella", 1, -1)])
def test_impossible_arguments_leave_no_folder(tmp_path, preset, images, seed):
    with pytest.raises(InputError, match="simulate-plate"):
        simulate_plate_command(tmp_path / "plate", preset, images, seed)
    assert not (tmp_path / "plate").exists()


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "export"
    assert simulate_plate_command(out, "rosella", 3, 7, layout="harmony").drawn == 3
    return out


def test_a_harmony_export_is_the_same_plate(plate, export):
    """The same ids, pixels and truth, wells and treatments, read by way of Harmony's index."""
    assay = load_assay("rosella")
    flat = {record.image_id: record for record in read_plate(plate, assay)}
    records = {record.image_id: record for record in read_plate(export, assay)}
    assert len(records) == 3
    assert flat.keys() < records.keys()
    for image_id, record in flat.items():
        same = records[image_id]
        places = [(r.image_key, r.plate, r.well, r.field, r.group, r.treatment) for r in (record, same)]
        assert places[0] == places[1]
        assert same.pixel_size_um == pytest.approx(0.2152)
        assert (export / "labels" / f"{image_id}.png").read_bytes() == (
            plate / "labels" / f"{image_id}.png"
        ).read_bytes()


def test_files_of_an_export_are_named_as_harmony_names_them(export):
    names = sorted(path.name for path in (export / "Images").iterdir())
    assert names.pop(0) == "Index.idx.xml"
    assert len(names) == 6
    assert all(re.fullmatch(r"r\d\dc\d\df0[12]p01-ch[12]sk1fk1fl1\.tiff", name) for name in names)
    with tifffile.TiffFile(export / "Images" / names[0]) as tiff:
        assert (tiff.series[0].axes, tiff.series[0].shape, tiff.series[0].dtype) == (
            "YX",
            (512, 680),
            np.uint16,
        )


def test_an_export_grows_and_stays_an_export(export, tmp_path):
    grown = tmp_path / "grown"
    shutil.copytree(export, grown)
    assert simulate_plate_command(grown, "rosella", 4, 7, layout="harmony").drawn == 1
    assert len(read_plate(grown, load_assay("rosella"))) == 4
    with pytest.raises(PlateError, match="layout 'harmony', expected layout 'flat'"):
        simulate_plate_command(grown, "rosella", 4, 7)


def test_a_flat_plate_is_no_export(copy):
    with pytest.raises(PlateError, match="layout 'flat', expected layout 'harmony'"):
        simulate_plate_command(copy, "rosella", 2, 7, layout="harmony")


def test_an_export_holds_one_plate(tmp_path):
    with pytest.raises(InputError, match="617 images, expected at most 616"):
        simulate_plate_command(tmp_path / "export", "rosella", 617, 7, layout="harmony")
    assert not (tmp_path / "export").exists()
