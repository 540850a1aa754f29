"""Every service of the compose file, started with its own variables, command and secrets; containers excepted.

Paths of containers become folders of the test, names of hosts become this machine, and PostgreSQL is the real one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from places import LABEL_STUDIO, ROOT

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.store import Store
from cytoloop.domain.tiling import tiles_of
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.payloads import prediction_result
from labelstudio_config.server import free_port

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent
PATIENCE_S = 240


def postgres_bin() -> Path:
    """Where ``initdb`` and ``pg_ctl`` are; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("no PostgreSQL on this machine")
    return folders[-1]


def as_database_user() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


@dataclass
class Compose:
    """The compose file, with what stands for containers."""

    folder: Path
    ports: dict[str, int]
    document: dict[str, Any]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self, service: str) -> dict[str, str]:
        """The variables of a service, and of its image nothing but where its programs are."""
        given = self.document["services"][service]["environment"]
        bin_ = LABEL_STUDIO.parent if service == "label-studio" else BIN
        path = f"{bin_}{os.pathsep}/usr/bin{os.pathsep}/bin"
        variables = {"PATH": path, "HOME": str(self.folder / "tmp"), "SECRETS": str(self.folder / "secrets")}
        return {**variables, **{name: self._here(str(value)) for name, value in given.items()}}

    def _here(self, text: str) -> str:
        for name, port in self.ports.items():
            text = re.sub(rf"//{name}(\.internal)?:\d+", f"//127.0.0.1:{port}", text)
        for there, here in (
            ("/run/secrets", "secrets"),
            ("/home/cytoloop", "home"),
            ("/home/label-studio", "studio"),
        ):
            text = re.sub(rf"{there}(?=/|$)", str(self.folder / here), text)
        return text

    def start(self, service: str, *command: str, more: Mapping[str, str] | None = None) -> None:
        """Start a service; what it says is in a file of its name."""
        with (self.folder / f"{service}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    command,
                    env={**self.environment(service), **(more or {})},
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def command(self, service: str) -> list[str]:
        """What the compose file says it is started with, on a port of the test."""
        there: list[str] = self.document["services"][service]["command"]
        return [
            str(self.ports.get(service)) if part == "9090" else part.replace("0.0.0.0", "127.0.0.1")
            for part in there
        ]

    def exec(self, *command: str) -> str:
        """``docker compose exec backend cytoloop …``."""
        done = subprocess.run(
            [BIN / "cytoloop", *command],
            env=self.environment("backend"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def healthy(self, service: str) -> None:
        """Wait until the health check that the compose file has for it passes."""
        code = self.document["services"][service]["healthcheck"]["test"][-1]
        port = re.search(r"127\.0\.0\.1:(\d+)", code)
        assert port is not None
        code = code.replace(port[1], str(self.ports[service]))
        self.wait(
            service,
            lambda: (
                subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
            ),
        )

    def wait(self, what: str, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_so():
            ended = [process.args for process in self.running if process.poll() is not None]
            logs = {log.name: log.read_text(errors="replace")[-600:] for log in self.folder.glob("*.log")}
            assert not ended, f"ended: {ended}; {logs}"
            assert time.monotonic() < deadline, f"{what}: not in {PATIENCE_S} s; {logs}"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """PostgreSQL, Label Studio, backend, trainer, as the compose file describes them."""
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    folder = tmp_path_factory.mktemp("compose")
    for name in ("tmp", "home", "home/data", "home/data/renders", "studio"):
        (folder / name).mkdir()
    subprocess.run([ROOT / "docker" / "secrets.sh", folder / "secrets"], check=True, capture_output=True)
    ports = {name: free_port() for name in ("database", "label-studio", "backend")}
    told = subprocess.run(
        [sys.executable, ROOT / "docker" / "network.py", "127.0.0.0/24"],
        capture_output=True,
        text=True,
        check=True,
    )
    settings = dict(line.split("=", 1) for line in told.stdout.splitlines())
    text = (ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda found: settings.get(found[1], found[2]), text)
    made = Compose(folder, ports, yaml.safe_load(text))
    with running_postgres(made):
        try:
            listen = {"INTERNAL_HOST": "127.0.0.1", "INTERNAL_PORT": str(ports["label-studio"])}
            made.start(
                "label-studio",
                str(ROOT / "docker" / "label-studio.sh"),
                more={**listen, "POSTGRE_HOST": "127.0.0.1", "POSTGRE_PORT": str(ports["database"])},
            )
            made.start("backend", str(BIN / "cytoloop"), *made.command("backend"))
            made.healthy("backend")
            made.healthy("label-studio")
            made.start("trainer", str(BIN / "cytoloop"), *made.command("trainer"))
            yield made
        finally:
            for process in reversed(made.running):
                process.terminate()
            for process in made.running:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextmanager
def running_postgres(compose: Compose) -> Iterator[None]:
    """A real PostgreSQL with the user, database and password of the compose file."""
    programs = postgres_bin()
    wanted = compose.document["services"]["database"]["environment"]
    user, port = wanted["POSTGRES_USER"], str(compose.ports["database"])

    def do(program: str, *arguments: str) -> None:
        command = [*as_database_user(), str(programs / program), *arguments]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        secret = folder / "password"
        secret.write_text((compose.folder / "secrets" / "database_password").read_text())
        if as_database_user():
            for path in (folder, secret):
                shutil.chown(path, "postgres")
        data = str(folder / "data")
        do("initdb", "-D", data, "-U", user, "--pwfile", str(secret), "--auth", "scram-sha-256", "-E", "UTF8")
        options = (
            f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        )
        do("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            address = f"postgresql://{user}:{secret.read_text()}@127.0.0.1:{port}/postgres"
            do("psql", address, "-c", f"CREATE DATABASE {wanted['POSTGRES_DB']}")
            yield
        finally:
            do("pg_ctl", "-D", data, "-m", "fast", "-w", "stop")


def test_the_services_work_together_as_the_compose_file_says(compose: Compose) -> None:
    plate = compose.folder / "plate"
    subprocess.run(
        [BIN / "cytoloop", "simulate-plate", plate, "--images", "6"], check=True, capture_output=True
    )
    told = json.loads(compose.exec("tokens", "add", "admin", "--role", "admin", "--json"))
    summary = json.loads(compose.exec("import", str(plate), "--assay", "rosella", "--json"))
    assert summary["new_tasks"] == 24
    checks = json.loads(compose.exec("doctor", "--json"))["checks"]
    assert {check["name"]: check["detail"] for check in checks if check["state"] != "ok"} == {}

    backend = f"http://127.0.0.1:{compose.ports['backend']}"
    answer = httpx.get(
        f"{backend}/api/v1/worklist?limit=5",
        headers={"Authorization": f"Bearer {told['token']}"},
        trust_env=False,
    )
    entries = answer.json()["entries"]
    assert len(entries) == 5
    public = compose.document["services"]["backend"]["environment"]["CYTOLOOP_LABEL_STUDIO_PUBLIC_URL"]
    assert entries[0]["url"].startswith(public), "people find it at another address than programs do"

    token = (compose.folder / "secrets" / "label_studio_token").read_text()
    home = compose.folder / "home" / "data"
    assay, store = load_assay("rosella", []), Store(home)
    with LabelStudioClient(f"http://127.0.0.1:{compose.ports['label-studio']}", token) as studio:
        entry = entries[0]
        record = store.images.get("rosella", entry["image_id"])
        tile = tiles_of(record.height, record.width, assay.tiling)[entry["tile"]]
        mask_HW = np.zeros((tile.height, tile.width), np.uint8)
        mask_HW[10:40, 20:70] = 1
        studio.create_annotation(entry["task_id"], prediction_result(mask_HW, assay), 30.0)
        compose.wait("correction", lambda: len(store.corrections.revisions("rosella")) == 1)
    (stored,) = store.corrections.revisions("rosella")
    assert stored["task_id"] == entry["task_id"]
    np.testing.assert_array_equal(store.masks.get(stored["mask"]), mask_HW)
    store.close()
    deep = {
        check["name"]: check for check in json.loads(compose.exec("doctor", "--deep", "--json"))["checks"]
    }
    assert deep["rosella: store against Label Studio"]["detail"].startswith("1 of 1 annotations")
    secrets = [path.read_text() for path in (compose.folder / "secrets").iterdir()]
    for log in [*compose.folder.glob("*.log"), *(home / "logs").glob("*.log")]:
        text = log.read_text(errors="replace")
        assert not [secret for secret in [*secrets, told["token"]] if secret in text], log


REFUSED_HERE = {"cytoloop models rollback --assay rosella": "there is none before it"}
"""What a home that has never promoted a version refuses, in these words."""


def test_every_command_of_the_administrators_page_runs(compose: Compose) -> None:
    page = (ROOT / "docs" / "administrator.md").read_text(encoding="utf-8")
    (queues,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (compose.folder / "queues.yaml").write_text(queues)
    lines = [
        line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    assert len(lines) >= 12
    plate = compose.folder / "my-plate"
    subprocess.run(
        [BIN / "cytoloop", "simulate-plate", plate, "--images", "6"], check=True, capture_output=True
    )
    for line in lines:
        command = line.replace("/backups/", f"{compose.folder}/").split()
        assert command[0] == "cytoloop", line
        done = subprocess.run(
            [BIN / "cytoloop", *command[1:]],
            env=compose.environment("backend"),
            cwd=compose.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        told = done.stdout + done.stderr
        if line in REFUSED_HERE:
            assert (done.returncode, REFUSED_HERE[line] in told) == (1, True), told
        else:
            assert done.returncode == 0, f"{line}: {told}"
            assert told.strip(), line
