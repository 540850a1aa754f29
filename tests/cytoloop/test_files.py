"""Files of others: what is opened, and what leads out of the folder it belongs to."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from tiny import make_tiny

from cytoloop.adapters.registry import Registry
from cytoloop.config import LOCAL_FILE, read_local
from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.files import opened, read_bytes, read_json, require_inside
from cytoloop.pipeline.predictors import load_predictor, read_recipe


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


DEEP = b"[" * 100_000
BROKEN = [b"", b"{", b"\xff\xfe", b"nul", DEEP, b'{"a": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("content", BROKEN, ids=["empty", "cut", "bytes", "word", "deep", "digits"])
def test_a_broken_document_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{path}: (not JSON|JSON nested)"):
        read_json(path, ConfigError)


def test_a_document_is_refused_by_its_size(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[1]")
    assert read_json(tmp_path / "a.json", largest=3) == [1]
    with pytest.raises(InputError, match=r"a\.json: 3 bytes, expected at most 2$"):
        read_json(tmp_path / "a.json", largest=2)


@pytest.mark.parametrize("content", [*BROKEN, b"[]", b'{"a": 1}'])
def test_a_broken_note_of_up_is_a_mistake_of_the_home(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LOCAL_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"local\.json: (not JSON|JSON nested|expected one JSON object)"):
        read_local(tmp_path)


@pytest.mark.parametrize(
    "content", [*BROKEN, b"[]", b"1", b'{"version": "x"}', b'{"version": "cip-20220707-01234567"}']
)
def test_a_broken_manifest_is_told(tmp_path: Path, content: bytes) -> None:
    version = "cip-20220707-01234567"
    (tmp_path / version).mkdir()
    (tmp_path / version / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json: .*(the file was changed|restore a backup)"):
        Registry(tmp_path).manifest(version)


@pytest.mark.parametrize(
    "content", [*BROKEN, b"[]", b"1", b"{}", b'{"recipe": 1, "parameters": {}, "code_version": "1"}']
)
def test_a_broken_recipe_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(InputError, match=r"recipe\.json: "):
        read_recipe(tmp_path)
    (tmp_path / "recipe.json").unlink()
    with pytest.raises(InputError, match=r"recipe\.json: cannot be read"):
        read_recipe(tmp_path)


def test_a_recipe_that_was_changed_does_not_serve(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path)
    model = tiny.store.models.active(tiny.name)
    load_predictor(tiny.store, tiny.registry, tiny.assay, model)
    path = tiny.registry.folder(model.version) / "recipe.json"
    path.chmod(0o644)
    document = json.loads(path.read_bytes())
    document["parameters"]["cell_area"] = 31
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(
        InputError, match=rf"recipe\.json: digest \w{{64}}, expected {model.digest}; the file was changed"
    ):
        load_predictor(tiny.store, tiny.registry, tiny.assay, model)
    tiny.store.close()
