"""Starting and stopping, on a small program that behaves like Label Studio at its door."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from cytoloop.domain.errors import ConfigError, ExternalError, LabelStudioUnavailable
from labelstudio_config.server import LabelStudioServer, ensure_template, free_port, is_port_taken

PROGRAM = """\
import json, os, signal, sys, http.server
here = os.environ["LABEL_STUDIO_BASE_DATA_DIR"]
mode = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mode")
mode = open(mode).read() if os.path.exists(mode) else ""
if sys.argv[1] == "version":
    print("migrating")
    if mode == "broken":
        sys.exit(3)
    open(os.path.join(here, "label_studio.sqlite3"), "w").write("migrated")
    sys.exit(0)
if mode == "broken":
    print("no such table")
    sys.exit(3)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
json.dump({"argv": sys.argv, "env": dict(os.environ)}, open(os.path.join(here, "seen.json"), "w"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        token = "Token " + os.environ["LABEL_STUDIO_USER_TOKEN"]
        right = mode != "other user" and self.headers.get("Authorization") == token
        self.send_response(200 if self.path == "/health" or right else 401)
        self.end_headers()
    def log_message(self, *_):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "bin" / "label-studio"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{PROGRAM}")
    path.chmod(0o755)
    monkeypatch.setattr("labelstudio_config.server.installed_version", lambda _: "9.9")
    return path


def server_of(executable: Path, **changes: object) -> LabelStudioServer:
    home = executable.parents[1]
    settings = {
        "executable": executable,
        "data_dir": home / "data",
        "document_root": home / "files",
        "port": free_port(),
        "username": "ada@lab.org",
        "password": "the-password",
        "token": "the-secret-token",
        **changes,
    }
    return LabelStudioServer(**settings)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_starts_answers_and_leaves_nothing_behind(executable: Path) -> None:
    server = server_of(executable)
    with server:
        pid = server.pid
        assert pid is not None
        assert is_port_taken(server.port)
        server.start()  # once more changes nothing
        assert server.pid == pid
    assert not is_alive(pid)
    assert server.pid is None
    assert not is_port_taken(server.port)
    server.stop()  # nor does stopping twice


def test_secrets_are_no_arguments_and_its_environment_is_clean(
    executable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", "http://elsewhere")
    monkeypatch.setenv("LABEL_STUDIO_DATABASE", "other.db")
    server = server_of(executable)
    with server:
        pass
    seen = json.loads((server.data_dir / "seen.json").read_text())
    assert not any("the-secret-token" in a or "the-password" in a for a in seen["argv"])
    assert "HOST" not in seen["env"]
    assert "LABEL_STUDIO_DATABASE" not in seen["env"]
    assert seen["env"]["LABEL_STUDIO_COLLECT_ANALYTICS"] == "0"
    assert seen["env"]["LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT"] == str(server.document_root)
    assert "the-secret-token" not in repr(server)
    assert "the-password" not in repr(server)
    assert server.data_dir.stat().st_mode & 0o077 == 0


def test_one_that_ignores_sigterm_is_killed(executable: Path) -> None:
    (executable.parent / "mode").write_text("stubborn")
    server = server_of(executable)
    server.start()
    pid = server.pid
    assert pid is not None
    begun = time.monotonic()
    server.stop(timeout_s=0.3)
    assert time.monotonic() - begun < 5.0
    assert not is_alive(pid)


def test_a_taken_port_is_an_error_and_not_another_port(executable: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken"):
            server_of(executable, port=port).start()
    assert not (executable.parents[1] / "data").exists()


def test_one_that_ends_at_once_tells_its_last_words(executable: Path) -> None:
    (executable.parent / "mode").write_text("broken")
    with pytest.raises(LabelStudioUnavailable, match=r"(?s)ended with code 3: .*no such table"):
        server_of(executable).start()


def test_one_that_is_never_ready_is_stopped(executable: Path) -> None:
    server = server_of(executable)
    with pytest.raises(LabelStudioUnavailable, match="no answer at"):
        server.start(timeout_s=0.0)
    assert server.pid is None


def test_data_of_another_user_are_noticed_at_start(executable: Path) -> None:
    (executable.parent / "mode").write_text("other user")
    server = server_of(executable)
    with pytest.raises(ConfigError, match="was made with another token"):
        server.start()
    assert not is_port_taken(server.port)


@pytest.mark.parametrize("token", ["short", "x" * 41])
def test_a_token_label_studio_would_not_take_is_refused(executable: Path, token: str) -> None:
    with pytest.raises(ConfigError, match=f"token of {len(token)} characters"):
        server_of(executable, token=token).start()


def test_a_missing_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no command at"):
        server_of(tmp_path / "bin" / "label-studio").start()
    with pytest.raises(ConfigError, match="no command at"):
        ensure_template(tmp_path / "cache", tmp_path / "bin" / "label-studio")


def test_the_template_is_made_once_and_copied_into_new_data_only(executable: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    server = server_of(executable, template_cache=cache)
    with server:
        pass
    template = cache / "label-studio-9.9.sqlite3"
    assert [path.name for path in cache.iterdir()] == [template.name]
    database = server.data_dir / "label_studio.sqlite3"
    assert database.read_text() == "migrated"
    database.write_text("an expert's work")
    template.write_text("made before")
    with server:
        pass
    assert database.read_text() == "an expert's work"
    assert ensure_template(cache, executable) == template
    assert template.read_text() == "made before"


def test_a_template_that_cannot_be_made_says_why(executable: Path, tmp_path: Path) -> None:
    (executable.parent / "mode").write_text("broken")
    with pytest.raises(ExternalError, match=r"(?s)migrating failed \(3\): .*migrating"):
        ensure_template(tmp_path / "cache", executable)
    assert list((tmp_path / "cache").iterdir()) == []
