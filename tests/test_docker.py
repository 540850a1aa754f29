"""The files for containers: linted, and true to what they stand beside."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from places import LABEL_STUDIO, ROOT

DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile", "label-studio.Dockerfile")
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


def tool(name: str) -> str:
    """The program of that name beside this Python."""
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"no {name} in this environment")
    return found


def checked(*command: str | Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def network() -> ModuleType:
    spec = importlib.util.spec_from_file_location("network", DOCKER / "network.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_dockerfiles_are_as_the_linter_wants_them(name: str) -> None:
    checked(tool("hadolint"), DOCKER / name)


def test_the_compose_files_are_of_the_schema() -> None:
    files = sorted(DOCKER.glob("compose*.yaml"))
    assert len(files) == 2
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *files)


def test_the_scripts_are_as_the_linter_wants_them() -> None:
    checked(tool("shellcheck"), *sorted(DOCKER.glob("*.sh")))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_an_image_copies_is_sent_to_the_builder(name: str) -> None:
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    text = (DOCKER / name).read_text(encoding="utf-8").replace("${TORCH}", "cpu")
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in [part for part in line.split() if not part.startswith("--")][:-1]:
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in allowed), source


def test_every_package_of_ours_is_in_the_image() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages == set(re.findall(r"^COPY (\w+) /src/", text, re.MULTILINE))


def test_nobody_is_root_and_nothing_is_written_but_into_volumes() -> None:
    for name, service in COMPOSE["services"].items():
        if "build" in service or service["image"].startswith("cytoloop"):
            assert service["read_only"] is True, name
            assert service["cap_drop"] == ["ALL"], name
    for name in DOCKERFILES:
        users = re.findall(r"^USER (.+)$", (DOCKER / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert users == ["1000"]


def test_no_secret_is_in_a_variable() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8") + (DOCKER / ".env.example").read_text(
        encoding="utf-8"
    )
    assert re.findall(r"(?:PASSWORD|SECRET|_TOKEN)(?!_FILE|S)[:=] *(?!\"true\")\S+", text) == []
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/docker/.env", "/docker/secrets/"} <= set(ignored)


def test_every_variable_of_the_compose_file_has_a_default_or_stands_in_the_example() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    example = set(
        re.findall(r"^#?(\w+)=", (DOCKER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert re.findall(r"\$\{(\w+)\}", text) == []
    assert set(re.findall(r"\$\{(\w+):\?", text)) <= example
    asked = set(re.findall(r"\$\{(\w+):", text))
    assert example <= asked, f"nobody asks for {example - asked}"


def test_backend_and_label_studio_meet_in_one_network_alone() -> None:
    services = COMPOSE["services"]
    assert set(services["backend"]["networks"]) & set(services["label-studio"]["networks"]) == {"inside"}
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert "http://backend.internal:9090" in services["backend"]["environment"]["CYTOLOOP_BACKEND_URL"]
    assert services["backend"]["networks"]["inside"] == {"aliases": ["backend.internal"]}
    assert services["trainer"]["networks"] == services["database"]["networks"] == ["inside"]


def test_secrets_are_made_once_and_for_their_owner(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    checked(DOCKER / "secrets.sh", folder)
    first = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(first) == set(COMPOSE["secrets"])
    assert all(re.fullmatch(r"[0-9a-f]{40}", text) for text in first.values())
    assert len(set(first.values())) == len(first)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "webhook_secret").unlink()
    checked(DOCKER / "secrets.sh", folder)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in first if first[name] != again[name]} == {"webhook_secret"}


def test_label_studio_is_told_its_own_list_with_one_gap(network: ModuleType) -> None:
    example = (DOCKER / ".env.example").read_text(encoding="utf-8")
    found = re.search(r"^SUBNET=(\S+)\nBANNED_SUBNETS=(\S+)$", example, re.MULTILINE)
    assert found is not None
    subnet, banned = found[1], found[2].split(",")
    assert banned == network.banned(subnet)
    assert subnet in (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    for address, is_banned in (
        ("172.30.77.1", False),
        ("172.30.77.254", False),
        ("172.30.76.255", True),
        ("172.30.78.0", True),
        ("169.254.169.254", True),
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("93.184.216.34", False),
        ("::1", True),
    ):
        ip = ipaddress.ip_address(address)
        inside = any(ip in one for one in map(ipaddress.ip_network, banned) if one.version == ip.version)
        assert inside is is_banned, address


def test_the_list_is_the_one_of_this_label_studio(network: ModuleType) -> None:
    source = next(
        LABEL_STUDIO.parent.parent.glob("lib/python*/site-packages/label_studio/core/utils/io.py"), None
    )
    if source is None:
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    body = re.search(
        r"default_banned_subnets = \[(.*?)\n    \]", source.read_text(encoding="utf-8"), re.DOTALL
    )
    assert body is not None
    assert set(re.findall(r"^\s*'([^']+)',", body[1], re.MULTILINE)) == set(network.FORBIDDEN)


@pytest.mark.parametrize("arguments", [[], ["10.0.0.0/33"], ["8.8.8.0/24"], ["10.0.0.0/24", "10.0.1.0/24"]])
def test_a_network_that_is_none_is_told(
    network: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert network.main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "expected one private network, as 172.30.77.0/24" in told.err
