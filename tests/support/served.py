"""A home that is served as on a laboratory's machine, by processes that can be killed at any moment.

Label Studio, the backend and the trainer are the real ones; between the first two is an unreliable proxy.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from people import Person, sign_up
from places import LABEL_STUDIO, ROOT
from tiny import ASSAY, write_fields
from unreliable import UnreliableProxy

from cytoloop.commands.home import Home
from cytoloop.commands.importing import import_plate
from cytoloop.commands.processes import Child, ensure_secrets, start_backend
from cytoloop.config import Settings, write_local
from cytoloop.domain.errors import ExternalError
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.project import connect
from labelstudio_config.server import LabelStudioServer, free_port

NO_TRAINING = "\ntrainer: {triggers: {corrections: null}}\n"
LOOK_EVERY_S = 2
START_AGAIN_S = 120.0
PROCESSES = ("studio", "backend", "trainer")


class Served:
    """The processes of one home; ``killed`` and ``ended`` count who was killed, and who ended unasked."""

    def __init__(self, home: Home, studio: LabelStudioServer, backend_port: int) -> None:
        self.home = home
        self.killed: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self._studio = studio
        self._backend_port = backend_port
        self._backend: Child | None = None
        self._trainer: Child | None = None

    @property
    def folder(self) -> Path:
        """The home folder."""
        return self.home.settings.home

    def start(self, name: str, seconds: float = START_AGAIN_S) -> None:
        """Start a process on its old port; what does not come up (its disk is full) is tried again for so long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._start(name)
                return
            except (ExternalError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def _start(self, name: str) -> None:
        if name == "studio":
            self._studio.start()
        elif name == "backend":
            self._backend = start_backend(self.home.settings, self._backend_port)
        else:
            self._trainer = Child("trainer", ["trainer", "--look", str(LOOK_EVERY_S)], self.folder)
            time.sleep(1.0)
            if self._trainer.exit_code is not None:
                raise ExternalError(
                    f"trainer ended with code {self._trainer.exit_code}: {self._trainer.tail()}"
                )

    def kill(self, name: str) -> None:
        """Kill -9, whatever it is doing."""
        child = {"studio": None, "backend": self._backend, "trainer": self._trainer}[name]
        pid = self._studio.pid if name == "studio" else child and child.pid
        assert pid is not None, f"{name} does not run"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if name == "studio":
            self._studio.stop()
        elif child is not None:
            child.stop()
        self.killed[name] += 1

    def revive(self) -> None:
        """Start what has ended by itself, as a supervisor would: on a full disk a process may not come up."""
        for name, child in (("backend", self._backend), ("trainer", self._trainer)):
            if child is not None and child.exit_code is not None:
                self.ended[name] += 1
                self.start(name)

    def doctor(self) -> dict[str, dict[str, Any]]:
        """What ``cytoloop doctor --deep --json`` says, by check."""
        command = [
            sys.executable,
            "-m",
            "cytoloop.cli",
            "doctor",
            "--deep",
            "--json",
            "--home",
            str(self.folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode in (0, 1), done.stderr[-2000:]
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    def stop(self) -> None:
        """Stop everything, the last started first."""
        for child in (self._trainer, self._backend):
            if child is not None:
                child.stop()
        self._studio.stop()


@contextlib.contextmanager
def served(
    folder: Path, home_folder: Path, wells: int, seed: int
) -> Iterator[tuple[Served, UnreliableProxy]]:
    """A tiny plate of so many wells in a new home, imported and connected, everything running.

    Label Studio keeps its data in ``folder``, beside the home: when the home's disk is full, it goes on.
    """
    (home_folder / "assays").mkdir(parents=True)
    (home_folder / "assays" / "tiny.yaml").write_text(ASSAY + NO_TRAINING, encoding="utf-8")
    write_fields(folder / "plate", [f"{'ABCDEFGHIJKLMNOP'[n // 24]}{n % 24 + 1:02d}" for n in range(wells)])
    local = ensure_secrets(home_folder)
    studio = LabelStudioServer(
        executable=LABEL_STUDIO,
        data_dir=folder / "label-studio",
        document_root=home_folder / "renders",
        port=free_port(),
        username=local["label_studio_user"],
        password=local["label_studio_password"],
        token=local["label_studio_token"],
        template_cache=ROOT / ".cache",
    )
    backend_port, proxy_port = free_port(), free_port()
    write_local(
        home_folder, {"label_studio_url": studio.url, "backend_url": f"http://127.0.0.1:{proxy_port}"}
    )
    home = Home(Settings.from_env({}, home_folder))
    running = Served(home, studio, backend_port)
    with contextlib.ExitStack() as stack:
        stack.callback(home.close)
        stack.callback(running.stop)
        running.start("studio")
        proxy = UnreliableProxy(proxy_port, backend_port, seed)
        stack.callback(proxy.close)
        running.start("backend")
        assay = home.load("tiny")
        import_plate(home, folder / "plate", assay, lambda what, done, total: None)
        connect(home.label_studio, home.store, assay, home.settings)
        running.start("trainer")
        yield running, proxy


@contextlib.contextmanager
def staff(admin: LabelStudioClient, count: int) -> Iterator[list[Person]]:
    """So many annotators with a login of their own."""
    with contextlib.ExitStack() as stack:
        people = []
        for number in range(count):
            person = sign_up(admin, f"annotator{number}@lab.org", f"long-enough-{number}")
            stack.callback(person.client.close)
            people.append(person)
        yield people
