"""Model folders: whole or absent, and never changed."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cytoloop.adapters.registry import MANIFEST, YOUNG_S, Registry, version_name
from cytoloop.domain.errors import InputError, StateError, UnknownVersion

DIGEST = "0123456789abcdef" * 4


def writer(text: str = "weights", digest: str = DIGEST):  # type: ignore[no-untyped-def]
    def write(folder: Path) -> str:
        (folder / "weights.bin").write_text(text)
        return digest

    return write


def test_a_version_is_named_by_method_day_and_digest() -> None:
    assert version_name("joint", DIGEST, datetime(2024, 5, 17, tzinfo=UTC)) == "joint-20240517-01234567"


def test_a_version_has_its_files_and_a_manifest(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    version, digest = registry.add("cdl", writer(), {"snapshot": "abc", "version": "not mine"})
    assert (version, digest) == (f"cdl-{datetime.now(UTC):%Y%m%d}-01234567", DIGEST)
    assert (registry.folder(version) / "weights.bin").read_text() == "weights"
    manifest = registry.manifest(version)
    assert (manifest["snapshot"], manifest["version"], manifest["method"]) == ("abc", version, "cdl")
    assert manifest["digest"] == DIGEST
    assert datetime.fromisoformat(manifest["created_at"]).tzinfo is not None
    assert stat.S_IMODE(registry.folder(version).stat().st_mode) == 0o755


def test_a_version_once_written_never_changes(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("cdl", writer("first"), {"note": 1})
    assert registry.add("cdl", writer("second"), {"note": 2}) == (version, DIGEST)
    assert (registry.folder(version) / "weights.bin").read_text() == "first"
    assert registry.manifest(version)["note"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [version]


def test_a_half_written_version_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> str:
        (folder / "weights.bin").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Registry(tmp_path).add("cdl", fail, {})
    assert list(tmp_path.iterdir()) == []


def test_a_version_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, any(tmp_path.glob("cdl-*"))))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    Registry(tmp_path).add("cdl", writer(), {})
    assert {("weights.bin", False), (MANIFEST, False)} < set(synced)
    assert synced[-1] == (tmp_path.name, True)


@pytest.mark.parametrize(
    "name",
    [
        "../cdl-20240517-01234567",
        "cdl-20240517-01234567\n",
        "",
        "cdl",
        "xyz-20240517-01234567",
        "cdl-2024-01234567",
    ],
)
def test_what_is_no_version_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected <cip\|cdl\|mdl\|joint>-<YYYYMMDD>-<8 hex>"):
        Registry(tmp_path).folder(name)


def test_an_unknown_version_and_a_folder_without_manifest_are_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(UnknownVersion, match=r"no folder .*`cytoloop models show cdl-20240517-01234567`"):
        registry.folder("cdl-20240517-01234567")
    (tmp_path / "cdl-20240517-01234567").mkdir()
    with pytest.raises(UnknownVersion, match=r"no manifest\.json in .*; expected a whole version"):
        registry.manifest("cdl-20240517-01234567")


def test_a_manifest_is_json_with_sorted_keys(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("mdl", writer(), {"z": 1, "a": 2})
    text = (registry.folder(version) / MANIFEST).read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_files_of_a_version_are_read_only_and_the_version_can_still_be_removed(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("cdl", writer(), {})
    for name in ("weights.bin", MANIFEST):
        assert stat.S_IMODE((registry.folder(version) / name).stat().st_mode) == 0o444
    assert registry.remove(version)
    assert list(tmp_path.iterdir()) == []


def test_versions_are_whole_folders_with_a_versions_name(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    assert registry.versions() == []
    names = [registry.add(method, writer(), {})[0] for method in ("mdl", "cdl")]  # type: ignore[arg-type]
    for other in ("cdl-20240517-01234567", ".gone-cdl-20240517-01234567-0", "notes"):
        (tmp_path / "models" / other).mkdir()
    (tmp_path / "models" / "notes" / MANIFEST).write_text("{}")
    assert registry.versions() == sorted(names)
    assert registry.holds("cdl-20240517-01234567"), "a folder is there, whatever is in it"


def test_a_name_taken_by_another_digest_is_an_error_that_names_both(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("cdl", writer(), {})
    other = DIGEST[:8] + "f" * 56
    with pytest.raises(StateError, match=f"digest {DIGEST}, got {other}"):
        registry.add("cdl", writer("second", other), {})
    assert [p.name for p in tmp_path.iterdir()] == [version]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"version": "cdl-2', "not JSON: .*restore a backup"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "is of 'list', expected '{version}'"),
        (b'{"version": "mdl-20240517-01234567"}', "is of 'mdl-20240517-01234567', expected '{version}'"),
        (b'{"version": "{version}", "method": "cdl"}', r"lacks \['created_at', 'digest'\]"),
    ],
)
def test_a_damaged_manifest_is_an_error_that_says_what_is_wrong(
    tmp_path: Path, content: bytes, said: str
) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("cdl", writer(), {})
    path = tmp_path / version / MANIFEST
    path.chmod(0o644)
    path.write_bytes(content.replace(b"{version}", version.encode()))
    with pytest.raises(InputError, match=said.replace("{version}", version)) as caught:
        registry.manifest(version)
    assert str(path) in str(caught.value)


# --- what is left of the dead ----------------------------------------------------------------------


def test_a_removal_that_was_cut_off_leaves_no_version_and_the_next_one_clears_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("cdl", writer(), {})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cytoloop.adapters.registry.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.remove(version)
    assert registry.versions() == []
    assert not registry.holds(version)
    assert not registry.remove(version)
    (left,) = registry.clear_leftovers()
    assert left.startswith(f".gone-{version}")
    assert list(tmp_path.iterdir()) == []


def half_written(folder: Path, name: str, seconds_ago: float) -> Path:
    left = folder / name
    left.mkdir()
    (left / "weights.bin").write_text("half")
    then = time.time() - seconds_ago
    os.utime(left, (then, then))
    return left


def test_what_a_killed_writer_left_is_cleared_when_the_next_version_is_written(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    half_written(tmp_path, ".new-dead", 2 * YOUNG_S)
    version, _ = registry.add("cdl", writer(), {})
    assert [p.name for p in tmp_path.iterdir()] == [version]


def test_what_is_being_written_is_left_alone_however_old_and_so_is_what_has_just_begun(
    tmp_path: Path,
) -> None:
    registry = Registry(tmp_path)
    living = half_written(tmp_path, ".new-living", 2 * YOUNG_S)
    begun = half_written(tmp_path, ".new-begun", 0)
    descriptor = os.open(living, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert registry.clear_leftovers() == []
        assert living.exists()
        assert begun.exists()
    finally:
        os.close(descriptor)
    assert registry.clear_leftovers() == [living.name], "the kernel frees what a dead process held"


def test_a_writer_holds_its_folder_while_it_writes(tmp_path: Path) -> None:
    registry = Registry(tmp_path)

    def write(folder: Path) -> str:
        digest = writer()(folder)
        long_ago = time.time() - 2 * YOUNG_S
        os.utime(folder, (long_ago, long_ago))
        assert registry.clear_leftovers() == []
        return digest

    registry.add("cdl", write, {})
