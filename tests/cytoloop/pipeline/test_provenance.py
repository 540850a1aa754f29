"""What a run ran on: told in plain values, and never a reason for a run to end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cytoloop
from cytoloop.pipeline import provenance as module
from cytoloop.pipeline.provenance import code_version, provenance, sources_digest


@pytest.fixture(autouse=True)
def _found_out_anew() -> Iterator[None]:
    code_version.cache_clear()
    yield
    code_version.cache_clear()


def test_everything_that_a_run_depends_on_is_there_in_plain_values() -> None:
    told = provenance("cpu", "bfloat16")
    assert json.loads(json.dumps(told)) == told
    assert (told["cytoloop"], told["torch"], told["numpy"]) == (
        cytoloop.__version__,
        torch.__version__,
        np.__version__,
    )
    assert (told["device"], told["precision"]) == ("cpu", "bfloat16")
    assert told["threads"] == torch.get_num_threads()
    assert told["deterministic"]["algorithms"] is False
    for name in ("python", "safetensors", "platform", "cpu", "device_name", "cpu_capability"):
        assert told[name], name


def test_nothing_that_fails_ends_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise OSError("no such thing")

    for name in ("_torch", "_device", "cpu_model", "installed_version", "sources_digest"):
        monkeypatch.setattr(module, name, broken)
    monkeypatch.setattr(subprocess, "run", broken)
    told = provenance("cuda")
    assert told["code"] == {"commit": None, "is_changed": None, "digest": None}
    for name in ("torch", "device", "device_name", "cpu", "threads", "deterministic"):
        assert told[name] is None, name


def test_a_device_that_is_not_there_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert (provenance("cuda")["device"], provenance("auto")["device"]) == (None, "cpu")


# --- code ------------------------------------------------------------------------------------------


def write_packages(root: Path) -> None:
    for name in ("cytoloop", "trainer"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f'"""{name}"""\n')


def git(root: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", "-C", str(root), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_packages(tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    monkeypatch.setattr(cytoloop, "__file__", str(tmp_path / "cytoloop" / "__init__.py"))
    return tmp_path


def test_in_a_checkout_it_is_the_commit(checkout: Path) -> None:
    (checkout / "notes.txt").write_text("not of the packages")
    assert code_version() == {
        "commit": git(checkout, "rev-parse", "HEAD"),
        "is_changed": False,
        "digest": sources_digest(checkout),
    }


@pytest.mark.parametrize("name", ["trainer/__init__.py", "trainer/new.py"])
def test_a_module_that_differs_from_the_commit_marks_it(checkout: Path, name: str) -> None:
    before = sources_digest(checkout)
    (checkout / name).write_text("changed = True\n")
    told = code_version()
    assert told["is_changed"] is True
    assert told["digest"] != before


def test_it_is_found_out_once(checkout: Path) -> None:
    first = code_version()
    (checkout / "trainer" / "new.py").write_text("")
    assert code_version() == first


def test_where_nothing_is_checked_out_it_is_the_digest_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_packages(tmp_path)
    monkeypatch.setattr(cytoloop, "__file__", str(tmp_path / "cytoloop" / "__init__.py"))
    assert code_version() == {"commit": None, "is_changed": None, "digest": sources_digest(tmp_path)}


def test_an_environment_inside_somebodys_checkout_is_not_of_that_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = checkout / ".venv" / "site-packages"
    write_packages(installed)
    monkeypatch.setattr(cytoloop, "__file__", str(installed / "cytoloop" / "__init__.py"))
    told = code_version()
    assert told["commit"] is None
    assert told["digest"] == sources_digest(checkout), "equal sources, wherever they lie"
