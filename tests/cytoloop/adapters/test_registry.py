"""Model folders: whole or absent, and never changed."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cytoloop.adapters.registry import MANIFEST, Registry, version_name
from cytoloop.domain.errors import InputError, UnknownVersion

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
    "name", ["../cdl-20240517-01234567", "", "cdl", "xyz-20240517-01234567", "cdl-2024-01234567"]
)
def test_what_is_no_version_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"expected <cip\|cdl\|mdl\|joint>-<YYYYMMDD>-<8 hex>"):
        Registry(tmp_path).folder(name)


def test_an_unknown_version_and_a_folder_without_manifest_are_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(UnknownVersion, match="cdl-20240517-01234567"):
        registry.folder("cdl-20240517-01234567")
    (tmp_path / "cdl-20240517-01234567").mkdir()
    with pytest.raises(UnknownVersion):
        registry.manifest("cdl-20240517-01234567")


def test_a_manifest_is_json_with_sorted_keys(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    version, _ = registry.add("mdl", writer(), {"z": 1, "a": 2})
    text = (registry.folder(version) / MANIFEST).read_text()
    assert list(json.loads(text)) == sorted(json.loads(text))
