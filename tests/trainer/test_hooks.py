"""Commands at the end of a cycle, as real processes: what they are told, and that none of them does harm."""

import logging
import os
import stat
import time
from pathlib import Path

import psutil
import pytest

from cytoloop.domain.trainer_policy import Hooks
from trainer.hooks import HookResult, run_hook


def script(folder: Path, body: str, name: str = "hook.sh") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def called(command: str | None, timeout_s: float = 20.0) -> HookResult | None:
    return run_hook(
        Hooks(rejected=command),
        "rejected",
        assay="rosella",
        cycle="c7",
        version="cip-20250101-aaaaaaaa",
        reason="kept the active model: it's $HOME; better",
        report=Path("/reports/c7/report.html"),
        timeout_s=timeout_s,
    )


def result(command: str, timeout_s: float = 20.0) -> HookResult:
    got = called(command, timeout_s)
    assert got is not None
    return got


def test_a_command_is_told_of_the_cycle_and_of_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_TOKEN", "studio-token-7f3a")
    monkeypatch.setenv("CYTOLOOP_WEBHOOK_SECRET", "webhook-secret-5d0e")
    monkeypatch.setenv("SOMEBODYS_KEY", "key-11")
    monkeypatch.setenv("LANG", "C.UTF-8")
    got = result(script(tmp_path, f"env > {tmp_path}/seen; cat; echo done"))
    assert (got.exit_code, got.problem, got.note) == (0, "", "")
    assert got.output == "done\n", "standard input is empty"
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines() if "=" in line)
    told = {name: value for name, value in seen.items() if name.startswith("CYTOLOOP_")}
    assert told == {
        "CYTOLOOP_EVENT": "rejected",
        "CYTOLOOP_ASSAY": "rosella",
        "CYTOLOOP_CYCLE": "c7",
        "CYTOLOOP_VERSION": "cip-20250101-aaaaaaaa",
        "CYTOLOOP_REASON": "kept the active model: it's $HOME; better",
        "CYTOLOOP_REPORT": "/reports/c7/report.html",
    }
    assert (seen["PATH"], seen["LANG"]) == (os.environ["PATH"], "C.UTF-8")
    assert "SOMEBODYS_KEY" not in seen


def test_words_are_split_as_typed_and_no_shell_expands_them(tmp_path: Path) -> None:
    show = script(tmp_path, 'for word; do echo "<$word>"; done')
    assert result(f"{show} 'two words' $HOME ; *").output == "<two words>\n<$HOME>\n<;>\n<*>\n"


@pytest.mark.parametrize("command", [None, "", "  "])
def test_without_a_command_nothing_runs(command: str | None) -> None:
    assert called(command) is None


def test_only_the_command_of_the_event_runs(tmp_path: Path) -> None:
    hooks = Hooks(promoted=script(tmp_path, "echo up", "up.sh"), failed=script(tmp_path, "echo no", "no.sh"))
    got = run_hook(hooks, "promoted", assay="a", cycle="c", version="v", reason="r", report=None)
    assert got is not None
    assert got.output == "up\n"


def test_a_command_that_fails_is_a_warning_and_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = script(tmp_path, "echo first; echo no such channel >&2; exit 3")
    with caplog.at_level(logging.WARNING):
        got = result(f"{command} https://chat.example/secret-path")
    assert got.exit_code == 3
    assert got.note == f"The command for rejected cycles ({command}) ended with code 3: “no such channel”."
    (record,) = caplog.records
    assert "cycle=c7" in record.getMessage()
    assert "code 3" in record.getMessage()
    assert "secret-path" not in record.getMessage(), "arguments may be secrets"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/nowhere/at-all --now", "could not be started: No such file or directory"),
        ("/etc/passwd", "could not be started: Permission denied"),
        ("notify 'left open", "cannot be read: No closing quotation"),
    ],
)
def test_a_command_that_cannot_run_is_told(command: str, told: str) -> None:
    got = result(command)
    assert got.exit_code is None
    assert got.problem == told
    assert told in got.note


def test_a_command_killed_from_outside_is_told(tmp_path: Path) -> None:
    assert result(script(tmp_path, "kill -TERM $$")).problem == "was killed by SIGTERM"


def test_a_command_that_hangs_is_ended_with_all_it_started(tmp_path: Path) -> None:
    command = script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; echo begun; trap '' TERM; sleep 60")
    begun = time.monotonic()
    got = result(command, timeout_s=1.0)
    assert time.monotonic() - begun < 10
    assert (got.exit_code, got.problem) == (None, "took longer than 1 s and was ended")
    assert got.output == "begun\n"
    assert is_gone(int((tmp_path / "child").read_text()))


def test_what_a_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    begun = time.monotonic()
    got = result(script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child"))
    assert time.monotonic() - begun < 10, "a child that holds the output open is not waited for"
    assert (got.exit_code, got.problem) == (0, "")
    assert is_gone(int((tmp_path / "child").read_text()))


def is_gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_only_the_end_of_a_long_output_is_kept(tmp_path: Path) -> None:
    got = result(script(tmp_path, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"))
    assert len(got.output) == 2000
    assert got.output.endswith("line 2999\n")


def test_what_looks_like_a_secret_is_not_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = (
        "> Authorization: Bearer abc123",
        '"label_studio_token": "tok456"',
        "password=pw789 next",
        "https://ann:word1@chat.example/x",
    )
    body = "\n".join(f"echo '{line}'" for line in lines)
    with caplog.at_level(logging.INFO):
        got = result(script(tmp_path, body))
    for secret in ("abc123", "tok456", "pw789", "word1"):
        assert secret not in got.output
        assert secret not in caplog.text
    assert "next" in got.output
    assert "chat.example" in got.output
