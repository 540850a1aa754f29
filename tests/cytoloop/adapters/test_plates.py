"""Folders as plates: which files make a field, where it was, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from samples import make_assay, write_field

from cytoloop.adapters.images import read_image
from cytoloop.adapters.plates import LARGEST_INDEX, image_folder, label_folder, read_plate
from cytoloop.domain.assay import Channel
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import CytoloopError, ImageUnreadable, PlateError

ASSAY = make_assay()
PER_CHANNEL = make_assay(
    channels=(Channel(name="cells", suffix="_ch1-gal3"), Channel(name="nuclei", suffix="_ch2-hoechst"))
)
ONE_CHANNEL = make_assay(name="nuclei", channels=(Channel(name="DNA", plane=0),))


def grey(path: Path, value: int = 0) -> Path:
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)
    return path


def test_a_field_says_what_and_where_it_is(tmp_path: Path) -> None:
    image_CHW, _ = write_field(tmp_path / "images" / "P1_B03_f2.tif")
    (record,) = read_plate(tmp_path, ASSAY)
    assert (record.image_id, record.plate, record.well, record.field) == ("P1_B03_f2", "P1", "B03", "2")
    assert (record.height, record.width, record.group) == (64, 64, "P1/B03")
    assert record.image_key == digest_of_pixels(image_CHW)
    assert record.files == (str((tmp_path / "images" / "P1_B03_f2.tif").resolve()),)
    np.testing.assert_array_equal(read_image(record, ASSAY), image_CHW.astype(np.float32))


@pytest.mark.parametrize(
    ("image_id", "plate", "well", "field"),
    [
        ("B02_f1", "", "B02", "1"),
        ("plate7_P24-12", "plate7", "P24", "12"),
        ("exp_A01", "exp", "A01", ""),
        ("B02-3", "", "B02", "3"),
        ("cells", "", "", ""),
        ("Q01_f1", "", "", ""),  # a 384-well plate ends at row P
        ("B25", "", "", ""),  # and at column 24
        ("AB02", "", "", ""),
        ("B023x", "", "", ""),
    ],
)
def test_wells_are_read_from_names(tmp_path: Path, image_id: str, plate: str, well: str, field: str) -> None:
    grey(tmp_path / f"{image_id}.png")
    (record,) = read_plate(tmp_path, ONE_CHANNEL)
    assert (record.plate, record.well, record.field) == (plate, well, field)
    assert record.group == (f"{plate}/{well}" if well else image_id)


def test_the_index_wins_over_names_and_may_be_partial(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a", "P1_B02_f1"):
        grey(tmp_path / "images" / f"{name}.png")
    (tmp_path / "index.csv").write_bytes(
        "\ufeffid,plate,well,field,treatment,split\r\na, X ,C05,,Torin 1 (µM),sealed\r\n".encode()
    )
    named, found = sorted(read_plate(tmp_path, ONE_CHANNEL), key=lambda r: r.plate, reverse=True)
    assert (named.plate, named.well, named.treatment, named.group) == ("X", "C05", "Torin 1 (µM)", "X/C05")
    assert (found.plate, found.well, found.treatment) == ("P1", "B02", "")
    assert named.split == "train"  # drawn by the store: groups decide, not a column
    assert read_plate(tmp_path / "images", ONE_CHANNEL)[1].treatment == named.treatment


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,well\na,B02\nb,B03\na,B04\n", r"index\.csv line 4: id 'a' stands there twice"),
        (b"name;well\na;B02\n", r"index\.csv: columns \['name;well'\], expected one named 'id'"),
        (b"", r"index\.csv: columns None, expected one named 'id'"),
        ("id,treatment\na,5 µM\n".encode("latin-1"), r"index\.csv: not UTF-8"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    grey(tmp_path / "a.png")
    (tmp_path / "index.csv").write_bytes(content)
    with pytest.raises(PlateError, match=message):
        read_plate(tmp_path, ONE_CHANNEL)


def test_two_files_with_one_id_are_refused(tmp_path: Path) -> None:
    write_field(tmp_path / "a.tif")
    grey(tmp_path / "a.png")
    for problems in (None, lambda error: pytest.fail("this is not a problem of one field")):
        with pytest.raises(
            PlateError, match=r"two files with one id 'a': .*a\.png and .*a\.tif; expected one"
        ):
            read_plate(tmp_path, ASSAY, on_problem=problems)


def test_channels_are_found_by_suffix_and_other_files_passed_over(tmp_path: Path) -> None:
    for name in ("x_B02_f1_ch1-gal3.png", "x_B02_f1_ch2-hoechst.png", "x_B02_f1_ch3.png"):
        grey(tmp_path / name, 3 if "ch2" in name else 0)
    (tmp_path / "notes.txt").write_text("thawed twice")
    (record,) = read_plate(tmp_path, PER_CHANNEL)
    assert record.image_id == "x_B02_f1"
    assert [Path(file).name for file in record.files] == ["x_B02_f1_ch1-gal3.png", "x_B02_f1_ch2-hoechst.png"]


def test_a_suffix_that_ends_another_is_told_from_it(tmp_path: Path) -> None:
    assay = make_assay(channels=(Channel(name="one", suffix="1"), Channel(name="two", suffix="_w1")))
    grey(tmp_path / "a_w1.png", 1)
    grey(tmp_path / "a1.png", 2)
    (record,) = read_plate(tmp_path, assay)
    assert [Path(file).name for file in record.files] == ["a1.png", "a_w1.png"]


def test_a_missing_channel_file_is_named(tmp_path: Path) -> None:
    for name in ("a_ch1-gal3.png", "b_ch1-gal3.png", "b_ch2-hoechst.png"):
        grey(tmp_path / name)
    expected = r"a_ch1-gal3\.png: channel file a_ch2-hoechst\.\* is missing beside it"
    with pytest.raises(PlateError, match=expected):
        read_plate(tmp_path, PER_CHANNEL)
    problems: list[CytoloopError] = []
    assert [r.image_id for r in read_plate(tmp_path, PER_CHANNEL, on_problem=problems.append)] == ["b"]
    assert len(problems) == 1


def test_unreadable_fields_stop_a_plate_or_are_told_one_by_one(tmp_path: Path) -> None:
    write_field(tmp_path / "good.tif")
    (tmp_path / "torn.tif").write_bytes((tmp_path / "good.tif").read_bytes()[:3000])
    tifffile.imwrite(tmp_path / "three.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((2, 8, 8), np.float32), photometric="minisblack")
    with pytest.raises(ImageUnreadable):
        read_plate(tmp_path, ASSAY)
    problems: list[CytoloopError] = []
    seen: list[tuple[int, int]] = []
    records = read_plate(
        tmp_path, ASSAY, on_problem=problems.append, progress=lambda done, total: seen.append((done, total))
    )
    assert [r.image_id for r in records] == ["good"]
    assert [str(p).partition(".tif")[0].rpartition("/")[2] for p in problems] == ["float", "three", "torn"]
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlateError, match=r"no image for assay 'rosella' \(expected <id>\.tif\|\.png\)"):
        read_plate(tmp_path, ASSAY)
    with pytest.raises(PlateError, match=r"expected <id>_ch1-gal3\.tif\|\.png, <id>_ch2-hoechst"):
        read_plate(tmp_path, PER_CHANNEL)
    with pytest.raises(PlateError, match=r"nowhere: not a folder"):
        read_plate(tmp_path / "nowhere", ASSAY)


def test_folders_of_a_plate(tmp_path: Path) -> None:
    assert image_folder(tmp_path) == tmp_path
    assert label_folder(tmp_path) is None
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    assert image_folder(tmp_path) == tmp_path / "images"
    assert label_folder(tmp_path) == tmp_path / "labels"


@pytest.mark.parametrize(
    ("image_id", "plate", "well", "field"),
    [
        ("P12_B02_f1", "P12", "B02", "1"),
        ("A01_B02_F03", "A01", "B02", "03"),
        ("B02_F01", "", "B02", "01"),
        ("A01_B02", "A01", "B02", ""),
        ("p170702090001_B14f07", "p170702090001", "B14", "07"),
    ],
)
def test_a_plate_that_is_called_like_a_well_is_not_taken_for_one(
    tmp_path: Path, image_id: str, plate: str, well: str, field: str
) -> None:
    tifffile.imwrite(tmp_path / f"{image_id}.tif", np.zeros((2, 16, 16), np.uint16), photometric="minisblack")
    (record,) = read_plate(tmp_path, ASSAY)
    assert (record.plate, record.well, record.field) == (plate, well, field)


# --- plates that are meant to do harm ---


def test_a_plate_may_be_reached_through_a_link(tmp_path: Path) -> None:
    write_field(tmp_path / "real" / "images" / "B02_f1.tif")
    (tmp_path / "plate").symlink_to("real")
    (tmp_path / "real" / "images" / "B03_f1.tif").symlink_to("B02_f1.tif")
    for source in (tmp_path / "plate", tmp_path / "plate" / "images"):
        records = read_plate(source, ASSAY)
        assert [record.image_id for record in records] == ["B02_f1", "B03_f1"]
        assert {record.files for record in records} == {
            (str((tmp_path / "real" / "images" / "B02_f1.tif").resolve()),)
        }


def test_a_file_that_leads_out_of_the_plate_is_refused(tmp_path: Path) -> None:
    write_field(tmp_path / "secret" / "a.tif")
    write_field(tmp_path / "plate" / "B02_f1.tif")
    (tmp_path / "plate" / "B03_f1.tif").symlink_to(tmp_path / "secret" / "a.tif")
    with pytest.raises(
        ImageUnreadable,
        match=rf"B03_f1\.tif: leads to {tmp_path}/secret/a\.tif, out of {tmp_path}/plate; expected a file in it",
    ):
        read_plate(tmp_path / "plate", ASSAY)
    told: list[CytoloopError] = []
    assert [r.image_id for r in read_plate(tmp_path / "plate", ASSAY, on_problem=told.append)] == ["B02_f1"]
    assert len(told) == 1


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_folder_that_leads_out_of_the_plate_is_refused(tmp_path: Path, folder: str) -> None:
    write_field(tmp_path / "secret" / "B02_f1.tif")
    (tmp_path / "plate").mkdir()
    (tmp_path / "plate" / folder).symlink_to(tmp_path / "secret")
    with pytest.raises(CytoloopError, match=rf"leads to {tmp_path}/secret.*, out of {tmp_path}/plate"):
        read_plate(tmp_path / "plate", ASSAY) if folder == "images" else label_folder(tmp_path / "plate")


def test_an_index_that_leads_out_of_the_plate_is_not_read(tmp_path: Path) -> None:
    grey(tmp_path / "a.png")
    (tmp_path / "index.csv").symlink_to("/etc/passwd")
    with pytest.raises(PlateError, match=r"index\.csv: leads to /etc/passwd, out of") as caught:
        read_plate(tmp_path, ONE_CHANNEL)
    assert "root" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["B02_f1.tif", "B02_f1.png"])
def test_a_pipe_among_the_images_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ImageUnreadable, match=rf"{name}: a named pipe, expected a file$"):
        read_plate(tmp_path, ASSAY)


@pytest.mark.parametrize(
    "name", [b"_ch1-gal3.png", b"\xff_ch1-gal3.png", b"a\n_ch1-gal3.png", b"a" * 201 + b"_ch1-gal3.png"]
)
def test_a_name_that_can_be_no_id_is_refused(tmp_path: Path, name: bytes) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/" + name)
    with pytest.raises(PlateError, match="expected 1 to 200 bytes of printable UTF-8") as caught:
        read_plate(tmp_path, PER_CHANNEL)
    str(caught.value).encode()


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "/etc/passwd", "..", "a/../b", "a" * 150])
def test_an_id_of_the_index_leads_nowhere(tmp_path: Path, image_id: str) -> None:
    grey(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"id,well\n{image_id},B02\na,C03\n", encoding="utf-8")
    (record,) = read_plate(tmp_path, ONE_CHANNEL)
    assert (record.image_id, record.well) == ("a", "C03")
    assert record.files == (str((tmp_path / "a.png").resolve()),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 201, r"index\.csv line 2: 'plate' is '"),
        ("a\0b", r"'plate' is 'a\\x00b', expected at most 200 printable characters"),
        ("\x1b[2J", r"'plate' is '\\x1b\[2J'"),
        ("x" * 200_000, r"cannot be read as CSV \(field larger than field limit"),
    ],
    ids=["long", "zero byte", "escape", "giant"],
)
def test_a_value_that_nobody_wrote_is_refused(tmp_path: Path, value: str, message: str) -> None:
    grey(tmp_path / "a.png")
    (tmp_path / "index.csv").write_text(f"id,plate\na,{value}\n", encoding="utf-8")
    with pytest.raises(PlateError, match=message) as caught:
        read_plate(tmp_path, ONE_CHANNEL)
    assert len(str(caught.value)) < 1000


def test_an_index_without_end_is_refused(tmp_path: Path) -> None:
    grey(tmp_path / "a.png")
    with (tmp_path / "index.csv").open("wb") as file:
        file.truncate(LARGEST_INDEX + 1)  # no byte of it is on the disk
    with pytest.raises(PlateError, match=f"{LARGEST_INDEX + 1} bytes, expected at most {LARGEST_INDEX}"):
        read_plate(tmp_path, ONE_CHANNEL)


def test_another_picture_in_the_place_of_an_image_is_not_taken_for_it(tmp_path: Path) -> None:
    write_field(tmp_path / "plate" / "B02_f1.tif")
    (record,) = read_plate(tmp_path / "plate", ASSAY)
    path = tmp_path / "plate" / "B02_f1.tif"
    tifffile.imwrite(tmp_path / "other.tif", np.ones((2, 64, 64), np.uint16), photometric="minisblack")
    path.unlink()
    path.symlink_to(tmp_path / "other.tif")
    with pytest.raises(
        ImageUnreadable,
        match=rf"B02_f1\.tif: pixels of image 'B02_f1' have digest \w{{64}}, expected {record.image_key}: the file was",
    ):
        read_image(record, ASSAY)
