"""Files of others: what is opened, and what leads out of the folder it belongs to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.files import opened, read_bytes, require_inside


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(ConfigError, match=f"^{path}: 5 bytes, expected at most 4$"):
        read_bytes(path, 4, ConfigError)


def test_a_file_that_grows_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    original = os.fstat

    def shorter(descriptor: int) -> os.stat_result:
        path.write_bytes(b"")
        status = original(descriptor)
        path.write_bytes(b"123456")
        return status

    monkeypatch.setattr(os, "fstat", shorter)
    with pytest.raises(InputError, match="more than 5 bytes"):
        read_bytes(path, 5)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["a folder", "a named pipe", "a socket", "a device"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    if kind == "a folder":
        path.mkdir()
    elif kind == "a named pipe":
        os.mkfifo(path)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    if kind == "a socket":  # the system refuses it itself
        with pytest.raises(OSError, match="No such device"), opened(path, 100):
            pass
    else:
        with pytest.raises(InputError, match=f"^{path}: {kind}, expected a file$"), opened(path, 100):
            pass
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else 0
    assert after == before, "nothing is left open"


def test_a_name_with_a_zero_byte_is_an_error_of_ours() -> None:
    with pytest.raises(InputError, match="null byte"):
        read_bytes(Path("a\0b"), 100)


def test_what_lies_in_a_folder_is_inside_whatever_leads_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "real" / "images").mkdir(parents=True)
    (tmp_path / "real" / "raw.tif").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real" / "images" / "a.tif").symlink_to("../raw.tif")
    real = tmp_path / "real" / "raw.tif"
    assert require_inside(tmp_path / "link" / "images" / "a.tif", tmp_path / "link") == real.resolve()
    assert require_inside(tmp_path / "link" / "images" / "a.tif", tmp_path / "real") == real.resolve()


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "../plate2/b", "loop", "./../../etc"])
def test_what_leads_out_of_a_folder_is_refused(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "a.tif").symlink_to(target)
    with pytest.raises(InputError, match=r"a\.tif: leads (to .* out of .*; expected a file in it|nowhere)"):
        require_inside(folder / "a.tif", folder)


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path: Path) -> None:
    (tmp_path / "plate").mkdir()
    with pytest.raises(InputError, match="out of"):
        require_inside(tmp_path / "plate" / ".." / "plate-secret", tmp_path / "plate")
