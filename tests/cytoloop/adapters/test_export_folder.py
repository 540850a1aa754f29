"""A folder that an export fills: claimed, brought up to date, and nothing outside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cytoloop.adapters.export_folder import NOTE, STARTED, ExportFolder, file_name
from cytoloop.domain.errors import InputError

ABOUT = {"assay": "tiny", "format": "png"}


def filled(out: Path, *names: str) -> ExportFolder:
    folder = ExportFolder(out, ABOUT)
    for name in names:
        folder.write(name, name.encode())
    return folder


def note(out: Path) -> dict[str, object]:
    return dict(json.loads((out / NOTE).read_text(encoding="utf-8")))


def test_the_note_says_whether_an_export_was_finished(tmp_path: Path) -> None:
    folder = filled(tmp_path / "out", "items/a.png")
    assert note(tmp_path / "out")["complete"] is False
    assert folder.finish() == 1
    assert note(tmp_path / "out")["complete"] is True
    assert list(note(tmp_path / "out")["files"]) == ["items/a.png"]


def test_made_again_it_holds_what_it_holds_now(tmp_path: Path) -> None:
    filled(tmp_path, "items/a.png", "items/b.png").finish()
    (tmp_path / "notes.txt").write_text("mine")
    before = (tmp_path / "items/b.png").stat().st_mtime_ns
    filled(tmp_path, "items/b.png", "items/c.png").finish()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["b.png", "c.png", "notes.txt", NOTE]
    assert (tmp_path / "items/b.png").stat().st_mtime_ns == before


def test_an_interrupted_export_goes_on_and_forgets_nothing(tmp_path: Path) -> None:
    """The file of a finished export that no longer belongs there goes, though the next one was cut off."""
    filled(tmp_path, "items/old.png").finish()
    filled(tmp_path, "items/a.png")  # and then the power failed
    filled(tmp_path, "items/a.png").finish()
    assert sorted(p.name for p in (tmp_path / "items").iterdir()) == ["a.png"]


def test_what_a_cut_off_export_wrote_first_does_not_stay(tmp_path: Path) -> None:
    filled(tmp_path, "items/a.png", "items/withdrawn.png")  # and then the power failed
    filled(tmp_path, "items/a.png").finish()
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["a.png", NOTE]


def test_names_that_lead_out_are_not_followed(tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine.txt"
    mine.write_text("mine")
    filled(out, "items/a.png")
    (out / STARTED).write_text("../mine.txt\n")
    with pytest.raises(InputError, match=r"names '\.\./mine\.txt', expected files of the export alone"):
        ExportFolder(out, ABOUT)
    assert mine.read_text() == "mine"


def test_a_folder_that_holds_anything_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty and no export"):
        ExportFolder(tmp_path, ABOUT)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.doc"]
    with pytest.raises(InputError, match="is a file, expected a folder"):
        ExportFolder(tmp_path / "thesis.doc", ABOUT)


@pytest.mark.parametrize(("key", "value"), [("assay", "other"), ("format", "coco")])
def test_another_export_is_left_alone(tmp_path: Path, key: str, value: str) -> None:
    filled(tmp_path, "a.png").finish()
    with pytest.raises(InputError, match=f"holds an export of {key} .*, expected '{value}'"):
        ExportFolder(tmp_path, {**ABOUT, key: value})


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hosts", "a/b/c.png", "..\\outside.txt"])
def test_a_note_that_names_other_files_removes_none(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "outside.txt").write_text("mine")
    filled(out, "a.png").finish()
    (out / NOTE).write_text(json.dumps({**note(out), "files": {name: "00"}}))
    with pytest.raises(InputError, match="expected files of the export alone"):
        ExportFolder(out, ABOUT)
    assert (tmp_path / "outside.txt").exists()


def test_a_link_in_the_place_of_its_folder_is_refused(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    filled(out, "items/a.png").finish()
    (out / "items/a.png").unlink()
    (out / "items").rmdir()
    (out / "items").symlink_to(elsewhere)
    with pytest.raises(InputError, match="is a link, expected a folder"):
        ExportFolder(out, ABOUT)


@pytest.mark.parametrize("image_id", ["../a", "a/b", "a\\b", "..", ".a", "", "a\0", " a", "a:b", "x" * 201])
def test_an_id_that_is_no_name_of_a_file_is_refused(image_id: str) -> None:
    with pytest.raises(InputError, match="cannot be the name of a file"):
        file_name(image_id)


def test_ids_as_people_write_them_are_names(tmp_path: Path) -> None:
    for image_id in ("P1_B03_f2", "Plaque 3 (µm)_A01", "a.b-c", "x" * 200):
        assert file_name(image_id) == image_id
