"""``cytoloop up`` as a user runs it: started, started again, interrupted; nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from places import LABEL_STUDIO

pytestmark = [pytest.mark.studio, pytest.mark.timeout(400)]


def command(home: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "cytoloop.cli", "--home", str(home), *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("CYTOLOOP_")}


def living_children(home: Path) -> list[str]:
    """Command lines of processes that serve this home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                where = os.readlink(entry / "cwd")
            except OSError:
                continue
            if str(home) in words or where.startswith(str(home)):
                found.append(words.replace("\0", " "))
    return found


@pytest.fixture
def label_studio() -> str:
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    return str(LABEL_STUDIO)


def test_up_serves_a_plate_and_leaves_nothing_running(tmp_path: Path, label_studio: str) -> None:
    home = tmp_path / "home"
    arguments = ["up", "--demo", "--images", "8", "--no-train", "--label-studio", label_studio]
    up = subprocess.Popen(
        command(home, "--json", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert up.stdout is not None
        document = ""
        while not document.endswith("\n}\n"):
            line = up.stdout.readline()
            assert line, up.communicate()[1]
            document += line
        where = json.loads(document)
        assert httpx.get(f"{where['label_studio']}/health", trust_env=False).json()["status"] == "UP"
        assert httpx.get(f"{where['backend']}/livez", trust_env=False).status_code == 200
        assert list(where["worklists"]) == ["rosella/default"]
        assert "labeling=1" in where["worklists"]["rosella/default"]
        assert (home / "local.json").stat().st_mode & 0o777 == 0o600
        assert len(living_children(home)) >= 3  # Label Studio, backend, trainer

        again = subprocess.run(
            command(home, *arguments), capture_output=True, text=True, env=environment(), timeout=60
        )
        assert again.returncode == 1
        assert f"served by process {up.pid}" in again.stderr
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            up.kill()
            raise
    assert up.returncode == 130
    assert living_children(home) == []

    # the second time everything is there: it starts, says the same, and ends by itself
    begun = time.monotonic()
    second = subprocess.run(
        command(home, *arguments, "--stop-after", "0.5"),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
    )
    assert second.returncode == 0, second.stderr
    assert where["label_studio"] in second.stdout
    assert where["password"] in second.stdout
    assert "Press Ctrl-C" in second.stdout
    assert time.monotonic() - begun < 100
    assert living_children(home) == []
    for log in (home / "logs").iterdir():
        text = log.read_text(encoding="utf-8")
        for secret in json.loads((home / "local.json").read_text(encoding="utf-8")).items():
            if secret[0] in ("label_studio_token", "backend_password", "webhook_secret", "api_token"):
                assert secret[1] not in text, (log, secret[0])


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path, label_studio: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = subprocess.run(
            command(tmp_path / "home", "up", "--port", str(port), "--label-studio", label_studio),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
    assert refused.returncode == 2
    assert f"port {port} is taken" in refused.stderr


def test_a_missing_label_studio_names_what_installs_it(tmp_path: Path) -> None:
    refused = subprocess.run(
        command(tmp_path / "home", "up", "--label-studio", str(tmp_path)),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert refused.returncode == 2
    assert "make studio" in refused.stderr
