from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cytoloop.commands import processes
from cytoloop.commands.processes import (
    Child,
    choose_port,
    clear_state,
    end_group,
    ensure_secrets,
    find_label_studio,
    label_studio_server,
    running_up,
    start_backend,
    write_state,
)
from cytoloop.config import Settings, read_local, write_local
from cytoloop.domain.errors import ConfigError, ExternalError
from labelstudio_config.server import free_port
from ml_backend.access import ApiTokens


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of another session that could be one of ours by its command line."""
    code = "import time; print('ready', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, "cytoloop.cli"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before it speaks, the system may not tell its command line yet
        yield process
        process.kill()


# --- secrets ---


def test_secrets_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    first = ensure_secrets(tmp_path)
    assert ensure_secrets(tmp_path) == first
    for name in ("local.json", "api-tokens"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0
    made = [value for key, value in first.items() if key not in ("label_studio_user", "api_tokens")]
    assert len(set(made)) == len(made) == 6
    assert all(len(value) >= 16 for value in made)
    assert ApiTokens(tmp_path / "api-tokens").caller(first["api_token"]).role == "service"
    assert ApiTokens(tmp_path / "api-tokens").caller(first["admin_token"]).role == "admin"
    for token in (first["api_token"], first["admin_token"]):
        assert token not in (tmp_path / "api-tokens").read_text()


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    write_local(tmp_path, {"webhook_secret": "mine", "backend_port": "9000"})
    local = ensure_secrets(tmp_path)
    assert (local["webhook_secret"], local["backend_port"]) == ("mine", "9000")


# --- ports ---


def test_a_port_that_is_taken_is_refused_where_it_was_asked_for(tmp_path: Path, taken: int) -> None:
    with pytest.raises(ConfigError, match=f"port {taken} is taken by another program"):
        choose_port(tmp_path, "backend_port", taken)


def test_a_port_asked_for_is_not_remembered(tmp_path: Path) -> None:
    port = free_port()
    assert choose_port(tmp_path, "backend_port", port) == port
    assert read_local(tmp_path) == {}


def test_the_port_of_last_time_comes_again_unless_it_is_taken(tmp_path: Path, taken: int) -> None:
    port = choose_port(tmp_path, "backend_port", None)
    assert choose_port(tmp_path, "backend_port", None) == port
    write_local(tmp_path, {"backend_port": str(taken)})
    other = choose_port(tmp_path, "backend_port", None)
    assert other != taken
    assert read_local(tmp_path)["backend_port"] == str(other)


# --- Label Studio's own environment ---


def test_label_studio_is_found_by_its_environment_or_its_file(tmp_path: Path) -> None:
    executable = tmp_path / "env" / "bin" / "label-studio"
    executable.parent.mkdir(parents=True)
    executable.touch()
    assert find_label_studio(tmp_path / "env") == executable
    assert find_label_studio(executable) == executable


def test_where_label_studio_is_missing_the_command_that_brings_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="make studio"):
        find_label_studio(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "here" / ".venv"))
    with pytest.raises(ConfigError, match=r"\.venv-studio or .*here/\.venv-studio"):
        find_label_studio(None)


def test_label_studio_serves_the_renders_of_its_home(tmp_path: Path) -> None:
    local = ensure_secrets(tmp_path)
    executable = tmp_path / "tree" / ".venv-studio" / "bin" / "label-studio"
    server = label_studio_server(tmp_path, local, executable, 8080)
    assert (server.document_root, server.data_dir) == (tmp_path / "renders", tmp_path / "label-studio")
    assert server.token == local["label_studio_token"]


# --- children ---


def child_of(monkeypatch: pytest.MonkeyPatch, home: Path, code: str) -> Child:
    """A child that runs ``code`` instead of cytoloop."""
    popen = subprocess.Popen

    def start(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        assert command[1:5] == ["-m", "cytoloop.cli", "--home", str(home)]
        return popen([sys.executable, "-c", code], **options)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    child = Child("backend", ["backend"], home)
    monkeypatch.undo()
    return child


def wait_for_word(child: Child) -> None:
    deadline = time.monotonic() + 20
    while "ready" not in child.tail() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_child_has_its_words_in_a_log_and_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = child_of(monkeypatch, tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    wait_for_word(child)
    assert child.exit_code is None
    assert os.getpgid(child.pid) == child.pid, "Ctrl-C on the terminal does not reach it"
    child.stop()
    assert child.exit_code == -signal.SIGTERM
    assert child.log_path == tmp_path / "logs" / "backend.out"
    child.stop()


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    child = child_of(monkeypatch, tmp_path, code)
    wait_for_word(child)
    child.stop(timeout_s=0.2)
    assert child.exit_code == -signal.SIGKILL


def fake_backend(monkeypatch: pytest.MonkeyPatch, home: Path, code: str) -> Child:
    child = child_of(monkeypatch, home, code)
    monkeypatch.setattr(processes, "Child", lambda *_: child)
    return child


def test_a_backend_that_ends_at_once_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_backend(monkeypatch, tmp_path, "import sys; sys.exit('no such assay')")
    with pytest.raises(ExternalError, match="backend ended with code 1: …no such assay"):
        start_backend(Settings(home=tmp_path), free_port())


def test_a_backend_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = fake_backend(monkeypatch, tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ExternalError, match=r"no answer on port \d+ after 0 s"):
        start_backend(Settings(home=tmp_path), free_port(), timeout_s=0.2)
    assert child.exit_code is not None


def test_ctrl_c_while_the_backend_starts_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = fake_backend(monkeypatch, tmp_path, "import time; time.sleep(60)")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(processes.httpx, "get", interrupt)
    with pytest.raises(KeyboardInterrupt):
        start_backend(Settings(home=tmp_path), 1)
    assert child.exit_code is not None


def test_a_backend_that_answers_is_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = fake_backend(monkeypatch, tmp_path, "import time; time.sleep(60)")
    replies = [httpx.ConnectError("not yet"), httpx.Response(503), httpx.Response(200)]

    def get(url: str, **_: object) -> httpx.Response:
        assert url == "http://127.0.0.1:81/livez"
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(processes.httpx, "get", get)
    assert start_backend(Settings(home=tmp_path), 81) is child
    child.stop()


# --- who serves this home ---


def note(home: Path, pid: int, **children: int) -> None:
    (home / processes.STATE_FILE).write_text(json.dumps({"pid": pid, "children": children}), encoding="utf-8")


def test_nobody_serves_a_new_home(tmp_path: Path) -> None:
    assert running_up(tmp_path) is None


def test_a_home_that_is_served_names_the_process(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    note(tmp_path, sleeper.pid)
    assert running_up(tmp_path) == sleeper.pid
    assert sleeper.poll() is None


def test_what_a_killed_up_left_behind_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    note(tmp_path, 2**22 + 1, backend=sleeper.pid, trainer=2**22 + 2)
    assert running_up(tmp_path) is None
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not (tmp_path / processes.STATE_FILE).exists()


def test_a_number_that_another_program_has_now_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        note(tmp_path, other.pid, backend=other.pid)
        assert running_up(tmp_path) is None
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_killed_up_that_had_our_own_number_does_not_block_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container every start has the same process id."""
    monkeypatch.setattr(processes, "_is_ours", lambda pid: pid == os.getpid())
    note(tmp_path, os.getpid())
    assert running_up(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "null", "{}", "[]", '{"pid": 1}'])
def test_a_note_that_was_cut_off_is_no_note(tmp_path: Path, text: str) -> None:
    (tmp_path / processes.STATE_FILE).write_text(text, encoding="utf-8")
    assert running_up(tmp_path) is None


def test_a_note_names_us_and_our_children(tmp_path: Path) -> None:
    write_state(tmp_path, {"backend": 12})
    document = json.loads((tmp_path / processes.STATE_FILE).read_text(encoding="utf-8"))
    assert document == {"pid": os.getpid(), "children": {"backend": 12}}
    clear_state(tmp_path)
    clear_state(tmp_path)
    assert not (tmp_path / processes.STATE_FILE).exists()


def test_ending_what_has_ended_is_harmless() -> None:
    end_group(2**22 + 1, signal.SIGTERM)
