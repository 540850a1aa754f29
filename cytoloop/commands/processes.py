"""The processes of one machine: started together, watched, stopped in order, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from cytoloop.config import Settings, read_local, write_local
from cytoloop.domain.errors import ConfigError, ExternalError, InputError
from cytoloop.files import read_json
from labelstudio_config.server import LabelStudioServer, free_port, is_port_taken
from ml_backend.access import add_token

LOGIN = "admin@cytoloop.local"
STATE_FILE = "run.json"
LABEL_STUDIO_ENV = ".venv-studio"


def ensure_secrets(home: Path) -> dict[str, str]:
    """Passwords and tokens of this home, made on first use, readable by their owner alone."""
    local = read_local(home)
    made: dict[str, Callable[[], str]] = {
        "label_studio_user": lambda: LOGIN,
        "label_studio_password": lambda: secrets.token_urlsafe(12),
        "label_studio_token": lambda: secrets.token_hex(20),
        "backend_password": lambda: secrets.token_urlsafe(24),
        "webhook_secret": lambda: secrets.token_urlsafe(24),
        "api_token": lambda: secrets.token_urlsafe(24),
        "admin_token": lambda: secrets.token_urlsafe(24),
        "api_tokens": lambda: str(home / "api-tokens"),
    }
    new = {key: make() for key, make in made.items() if key not in local}
    if new:
        write_local(home, new)
    local = read_local(home)
    add_token(Path(local["api_tokens"]), local["api_token"], "local", "service")
    add_token(Path(local["api_tokens"]), local["admin_token"], "admin", "admin")
    return local


def find_label_studio(given: Path | None) -> Path:
    """The ``label-studio`` command of its own environment.

    Raises
    ------
    ConfigError
        Naming where it was looked for, and the command that installs it.
    """
    # sys.prefix is the product's own environment: its neighbour is Label Studio's
    candidates = [given] if given else [Path(LABEL_STUDIO_ENV), Path(sys.prefix).parent / LABEL_STUDIO_ENV]
    for candidate in candidates:
        executable = candidate / "bin" / "label-studio" if candidate.is_dir() else candidate
        if executable.is_file():
            return executable.absolute()
    raise ConfigError(
        f"Label Studio is not installed in {' or '.join(map(str, candidates))}; expected `make studio`, "
        "or CYTOLOOP_LABEL_STUDIO_URL and …_TOKEN of a server that runs elsewhere"
    )


def choose_port(home: Path, key: str, asked: int | None) -> int:
    """The port asked for, or the one of last time, or a free one.

    Raises
    ------
    ConfigError
        If the port asked for is taken.
    """
    if asked is not None:
        if is_port_taken(asked):
            raise ConfigError(f"port {asked} is taken by another program; expected a free one, or none given")
        return asked
    remembered = read_local(home).get(key)
    if remembered and not is_port_taken(int(remembered)):
        return int(remembered)
    port = free_port()
    write_local(home, {key: str(port)})
    return port


def label_studio_server(
    home: Path, local: Mapping[str, str], executable: Path, port: int
) -> LabelStudioServer:
    """This home's own Label Studio."""
    return LabelStudioServer(
        executable=executable,
        data_dir=home / "label-studio",
        document_root=home / "renders",
        port=port,
        username=local["label_studio_user"],
        password=local["label_studio_password"],
        token=local["label_studio_token"],
        template_cache=executable.parent.parent.parent / ".cache",
    )


class Child:
    """One of our own commands in a process of its own, its words in a log file.

    ``environ`` is its environment; None: ours.
    """

    def __init__(
        self, name: str, arguments: list[str], home: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log_path = home / "logs" / f"{name}.out"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cytoloop.cli", "--home", str(home), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us alone; we stop the children in order
                env=None if environ is None else dict(environ),
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM, then SIGKILL; harmless when it has ended."""
        end_group(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            end_group(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def tail(self) -> str:
        """The end of what it said."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")[-800:]


def start_backend(
    settings: Settings, port: int, timeout_s: float = 60.0, environ: Mapping[str, str] | None = None
) -> Child:
    """Start the backend and return when it answers: before the first import it is not ready for more."""
    child = Child("backend", ["backend", "--port", str(port)], settings.home, environ)
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            if child.exit_code is not None:
                raise ExternalError(f"backend ended with code {child.exit_code}: …{child.tail()}")
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"http://127.0.0.1:{port}/livez", timeout=2.0, trust_env=False)
                if answer.status_code == 200:
                    return child
            time.sleep(0.1)
        raise ExternalError(
            f"backend: no answer on port {port} after {timeout_s:.0f} s; see {child.log_path}"
        )
    except BaseException:  # Ctrl-C too: nothing may stay behind
        child.stop()
        raise


def end_group(pid: int, with_signal: signal.Signals) -> None:
    """Signal a process group that may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, with_signal)


def write_state(home: Path, children: Mapping[str, int]) -> None:
    """Note who runs, so that a later start finds what a killed one left behind."""
    document = {"pid": os.getpid(), "children": dict(children)}
    (home / STATE_FILE).write_text(json.dumps(document), encoding="utf-8")


def clear_state(home: Path) -> None:
    """Nothing runs any more."""
    (home / STATE_FILE).unlink(missing_ok=True)


def running_up(home: Path) -> int | None:
    """Process id of an ``up`` that serves this home, or None; ends what a killed one left behind."""
    try:
        state = read_json(home / STATE_FILE)
        pid, children = int(state["pid"]), [int(child) for child in state["children"].values()]
    except (FileNotFoundError, InputError, ValueError, TypeError, KeyError, AttributeError):
        return None  # no note, or one that was cut off
    # In a container every ``up`` has the same number: the one that was killed is not this one.
    if pid != os.getpid() and _is_ours(pid):
        return pid
    for child in children:
        if child != os.getpid() and _is_ours(child):
            end_group(child, signal.SIGTERM)
    clear_state(home)
    return None


def _is_ours(pid: int) -> bool:
    """Whether a process is one of cytoloop's: ids are reused, so a number alone proves nothing."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return b"cytoloop" in words or b"label-studio" in words
