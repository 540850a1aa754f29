"""What deployments install: every package pinned, hashed, and known to nobody as vulnerable."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT

LOCKS = sorted((ROOT / "locks").glob("*.txt"))
ENTRY = re.compile(
    r"^(?P<pin>[^\s#][^\\\n]*?)\s*(?P<hashes>(?:\\\n\s+--hash=sha256:[0-9a-f]{64}\s*)*)$", re.MULTILINE
)
PINNED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)")
AUDIT_LIMIT_S = 120


def pins(lock: Path) -> dict[str, str]:
    """Version of each package a lock names."""
    found = (PINNED.match(entry["pin"]) for entry in ENTRY.finditer(lock.read_text(encoding="utf-8")))
    return {canonicalize_name(pin["name"]): pin["version"] for pin in found if pin}


def test_the_locks_are_there() -> None:
    assert [lock.stem for lock in LOCKS] == ["cytoloop", "label-studio", "torch-cpu", "torch-cuda"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_package_has_one_version_and_the_digests_of_its_files(lock: Path) -> None:
    entries = list(ENTRY.finditer(lock.read_text(encoding="utf-8")))
    assert entries
    assert [entry["pin"] for entry in entries if not PINNED.match(entry["pin"])] == []
    assert [entry["pin"] for entry in entries if not entry["hashes"].strip()] == []


@pytest.mark.parametrize("torch", ["torch-cpu", "torch-cuda"])
def test_the_locks_hold_what_the_project_asks_for(torch: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["onnx"]]
    asked += (ROOT / "requirements-torch.txt").read_text(encoding="utf-8").split()
    got = pins(ROOT / "locks" / "cytoloop.txt") | pins(ROOT / "locks" / f"{torch}.txt")
    wrong = []
    for line in asked:
        requirement = Requirement(line)
        version = got.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{line}: locked is {version}; run `make lock`")
    assert wrong == []


@pytest.mark.parametrize("torch", ["torch-cpu", "torch-cuda"])
def test_what_pytorch_shares_with_the_rest_has_one_version(torch: str) -> None:
    ours, its = pins(ROOT / "locks" / "cytoloop.txt"), pins(ROOT / "locks" / f"{torch}.txt")
    assert "typing-extensions" in ours.keys() & its.keys()
    assert {
        name: (ours[name], its[name]) for name in ours.keys() & its.keys() if ours[name] != its[name]
    } == {}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_no_locked_package_is_known_to_be_vulnerable(lock: Path) -> None:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "--requirement", str(lock)],
            capture_output=True,
            text=True,
            timeout=AUDIT_LIMIT_S,
            check=False,
        )
        answers = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        pytest.skip("the advisories of PyPI did not answer")
    looked_up = [answer for answer in answers if "vulns" in answer]
    if not looked_up:
        pytest.skip("the index has no advisories for any of these packages")
    known = {answer["name"]: [v["id"] for v in answer["vulns"]] for answer in looked_up if answer["vulns"]}
    assert known == {}
