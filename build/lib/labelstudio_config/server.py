"""A real Label Studio on this machine: started with the settings cytoloop needs, stopped for certain.

Three habits of Label Studio shape this module. It moves to another port, without a word, when its own
is taken: so the port is checked first. Its first start spends most of a minute on migrations: so a
migrated, empty database is made once per version and copied (it holds no user, password or key). It
takes user, password and token from its environment: so no secret appears in a list of processes.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx

from cytoloop.domain.errors import ConfigError, ExternalError, LabelStudioUnavailable

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
DATABASE = "label_studio.sqlite3"

# Label Studio reads HOST, PORT, DEBUG, PASSWORD… without a prefix too: it gets a clean environment.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SYSTEMROOT")

_SETTINGS: Mapping[str, str] = {
    "LABEL_STUDIO_COLLECT_ANALYTICS": "0",
    "LABEL_STUDIO_LATEST_VERSION_CHECK": "0",
    "LABEL_STUDIO_SENTRY_DSN": "",
    "LABEL_STUDIO_FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    # The backend and its webhook answer on loopback, which both guards would refuse.
    "LABEL_STUDIO_ML_BLOCK_LOCAL_IP": "false",
    "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "false",
}


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listened on a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def is_port_taken(port: int) -> bool:
    """Whether something already listens on this port, on loopback or on all interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        return caller.connect_ex((LOOPBACK, port)) == 0


def installed_version(executable: Path) -> str:
    """Version of the Label Studio whose ``label-studio`` command this is, asked of its own Python."""
    python = executable.parent / "python"
    code = "import importlib.metadata as m; print(m.version('label-studio'))"
    if not executable.is_file() or not python.exists():
        raise ConfigError(f"Label Studio: no command at {executable}; install it in its own environment")
    answer = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode != 0:
        raise ConfigError(f"Label Studio: {python} has no package label-studio")
    return answer.stdout.strip()


def ensure_template(cache_dir: Path, executable: Path, timeout_s: float = 300.0) -> Path:
    """Path of a migrated, empty database of this Label Studio version; made on first use (about 40 s).

    Raises
    ------
    ExternalError
        If Label Studio does not finish its migrations; the message ends with what it last said.
    """
    template = cache_dir / f"label-studio-{installed_version(executable)}.sqlite3"
    if template.is_file():
        return template
    cache_dir.mkdir(parents=True, exist_ok=True)
    logger.info("label studio template start file=%s", template)
    with tempfile.TemporaryDirectory(dir=cache_dir, prefix="making-") as folder:
        environment = _environment({"LABEL_STUDIO_BASE_DATA_DIR": folder})
        try:
            # "version" migrates, prints and leaves: no user and no organisation come into being.
            made = subprocess.run(
                [executable, "version"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExternalError(f"Label Studio: no migrated database after {timeout_s:.0f} s") from None
        database = Path(folder) / DATABASE
        if made.returncode != 0 or not database.is_file():
            raise ExternalError(f"Label Studio: migrating failed ({made.returncode}): …{made.stdout[-500:]}")
        database.replace(template)  # atomic: two makers at once both leave a whole file
    return template


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed, **_SETTINGS, **settings}


@dataclass(kw_only=True)
class LabelStudioServer:
    """One Label Studio process with its own data directory; also a context manager."""

    executable: Path
    """``bin/label-studio`` of its own virtual environment."""
    data_dir: Path
    """SQLite, uploads, secret key and log."""
    document_root: Path
    """Folder under which local-file storages may lie."""
    port: int
    username: str
    """E-mail of the administrator, created on first start."""
    password: str = field(repr=False)
    token: str = field(repr=False)
    """Legacy API token of that user, 6 to 40 characters."""
    template_cache: Path | None = None
    """Where migrated databases are kept; None migrates on first start."""
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _log: IO[bytes] | None = field(default=None, init=False, repr=False)

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log_path(self) -> Path:
        """What the server prints."""
        return self.data_dir / "label-studio.log"

    @property
    def pid(self) -> int | None:
        """Process id while running."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout_s: float = 180.0) -> None:
        """Start the process and return when it answers and knows the token.

        Raises
        ------
        ConfigError
            If the port is taken, the command is missing, or the data directory knows another token.
        LabelStudioUnavailable
            If it ends early or is not ready in time; it is stopped before this is raised.
        """
        if self.pid is not None:
            return
        self._check_before_start()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.document_root.mkdir(parents=True, exist_ok=True)
        database = self.data_dir / DATABASE
        if self.template_cache is not None and not database.exists():
            shutil.copyfile(ensure_template(self.template_cache, self.executable), database)
        self._log = self.log_path.open("ab")
        self._process = subprocess.Popen(
            [
                str(self.executable),
                "start",
                "--no-browser",
                "--internal-host",
                LOOPBACK,
                "--port",
                str(self.port),
            ],
            env=_environment(self._own_settings()),
            cwd=self.data_dir,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group of its own: Ctrl-C reaches us, and we stop it in order
        )
        try:
            self.wait_ready(timeout_s)
            self._check_token()
        except BaseException:
            self.stop()
            raise
        logger.info("label studio up url=%s pid=%d", self.url, self._process.pid)

    def wait_ready(self, timeout_s: float = 180.0) -> None:
        """Return when ``/health`` answers; LabelStudioUnavailable when it ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                code = self._process.returncode
                raise LabelStudioUnavailable(f"Label Studio ended with code {code}: …{self._log_tail()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2.0, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise LabelStudioUnavailable(
            f"Label Studio: no answer at {self.url}/health after {timeout_s:.0f} s; see {self.log_path}"
        )

    def stop(self, timeout_s: float = 10.0) -> None:
        """SIGTERM to the process group, SIGKILL after ``timeout_s``; harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            _end_group(process, timeout_s)
            logger.info("label studio down pid=%d code=%s", process.pid, process.returncode)
        if self._log is not None:
            self._log.close()
            self._log = None

    def __enter__(self) -> LabelStudioServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _check_before_start(self) -> None:
        if not self.executable.is_file():
            raise ConfigError(f"Label Studio: no command at {self.executable}")
        if not 6 <= len(self.token) <= 40:
            raise ConfigError(f"Label Studio: token of {len(self.token)} characters, expected 6 to 40")
        if is_port_taken(self.port):
            raise ConfigError(f"Label Studio: port {self.port} is taken; give another, or stop what uses it")

    def _own_settings(self) -> dict[str, str]:
        return {
            "LABEL_STUDIO_BASE_DATA_DIR": str(self.data_dir.resolve()),
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(self.document_root.resolve()),
            "LABEL_STUDIO_USERNAME": self.username,
            "LABEL_STUDIO_PASSWORD": self.password,
            "LABEL_STUDIO_USER_TOKEN": self.token,
        }

    def _check_token(self) -> None:
        """An existing data directory keeps its user and token: better said now than by every later call."""
        answer = httpx.get(
            f"{self.url}/api/current-user/whoami",
            headers={"Authorization": f"Token {self.token}"},
            timeout=30.0,
            trust_env=False,
        )
        if answer.status_code in (401, 403):
            raise ConfigError(
                f"Label Studio: {self.data_dir} was made with another token for {self.username}"
            )
        if answer.status_code != 200:
            raise LabelStudioUnavailable(f"Label Studio: whoami answered {answer.status_code}")

    def _log_tail(self) -> str:
        return self.log_path.read_bytes()[-500:].decode("utf-8", "replace") if self.log_path.exists() else ""


def _end_group(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(patience_s)
            break
        except subprocess.TimeoutExpired:
            continue
    process.poll()
