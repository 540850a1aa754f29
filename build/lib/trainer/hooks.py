"""Commands of the administrator, run when a cycle has ended: they may fail, hang or be missing, and the cycle stands."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from cytoloop.domain.trainer_policy import Hooks
from trainer.report import Outcome

logger = logging.getLogger(__name__)

Event = Literal["promoted", "rejected", "failed"]
EVENTS: Mapping[Outcome, Event] = {"promoted": "promoted", "kept": "rejected", "failed": "failed"}
"""Which command an outcome calls for; where nothing was trained, or a person decided, nobody waits for word."""
TIMEOUT_S = 60.0
POLL_S = 0.05
KEPT_CHARACTERS = 2000
"""Of what a command says, the last ones."""
KEPT_VARIABLES = ("PATH", "HOME", "LANG")
"""All that a command gets of the trainer's environment: no secret is among them."""
_SECRETS = (
    re.compile(
        r"((?:authorization|token|password|passwd|secret|api[-_]?key)[\"']?\s*[:=]\s*[\"']?)"
        r"(?:(?:bearer|basic|token)\s+)?[^\s\"',;]+",
        re.IGNORECASE,
    ),
    re.compile(r"(://)[^/\s:@]+:[^/\s@]+(?=@)"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HookResult:
    """How a command went."""

    event: Event
    program: str
    """The first word of the command; what follows may hold an address that is nobody's business."""
    exit_code: int | None
    """None where it could not be started or was ended; negative: the signal that ended it."""
    output: str
    """The end of what it wrote to both its outputs, without what looks like a secret."""
    problem: str
    """What went wrong; empty where nothing did."""
    seconds: float

    @property
    def note(self) -> str:
        """One sentence for the report; empty where nothing went wrong."""
        if not self.problem:
            return ""
        last = self.output.strip().rpartition("\n")[2].strip()
        said = f": “{last[:200]}”" if last else ""
        return f"The command for {self.event} cycles ({self.program}) {self.problem}{said}."


def run_hook(
    hooks: Hooks,
    event: Event,
    *,
    assay: str,
    cycle: str,
    version: str,
    reason: str,
    report: Path | None,
    timeout_s: float = TIMEOUT_S,
) -> HookResult | None:
    """Run the command for an event to its end; None where the policy names none.

    No shell expands it. It reads nothing from standard input, and what it has started ends with it.

    Parameters
    ----------
    version : str
        In force after the cycle.
    report : Path, optional
        The page of the cycle.
    timeout_s : float
        After which the command and all it has started are killed.

    Returns
    -------
    HookResult or None
        Nothing is raised: a command that fails is a warning in the log and a note for the report.
    """
    command = {"promoted": hooks.promoted, "rejected": hooks.rejected, "failed": hooks.failed}[event]
    if command is None or not command.strip():
        return None
    begun = time.monotonic()
    told = {
        "CYTOLOOP_EVENT": event,
        "CYTOLOOP_ASSAY": assay,
        "CYTOLOOP_CYCLE": cycle,
        "CYTOLOOP_VERSION": version,
        "CYTOLOOP_REASON": reason.replace("\0", " "),
        "CYTOLOOP_REPORT": "" if report is None else str(report),
    }
    program, exit_code, output = command.split()[0], None, ""
    try:
        words = shlex.split(command)
        program = words[0]
        exit_code, output, problem = _run(words, _environ(told), timeout_s)
    except ValueError as error:
        problem = f"cannot be read: {error}"
    except OSError as error:
        problem = f"could not be started: {error.strerror}"
    result = HookResult(
        event=event,
        program=program,
        exit_code=exit_code,
        output=_without_secrets(output),
        problem=problem,
        seconds=time.monotonic() - begun,
    )
    _log(result, cycle)
    return result


def _run(words: list[str], environ: Mapping[str, str], timeout_s: float) -> tuple[int | None, str, str]:
    """Exit code, end of the output, and what went wrong."""
    child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environ,
        start_new_session=True,
    )
    assert child.stdout is not None
    tail = _Tail(child.stdout)
    has_ended = _wait(child.pid, time.monotonic() + timeout_s)
    # Not reaped yet, so the number of its group is still its own, and nobody else is killed.
    with suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies alone is not ours to kill
        os.killpg(child.pid, signal.SIGKILL)
    code = child.wait()
    output = tail.read()
    if not has_ended:
        return None, output, f"took longer than {timeout_s:g} s and was ended"
    if code < 0:
        return code, output, f"was killed by {signal.Signals(-code).name}"
    return code, output, f"ended with code {code}" if code else ""


def _wait(pid: int, deadline: float) -> bool:
    """Whether a child ends in time; it is not reaped."""
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


class _Tail:
    """Reads a pipe as long as somebody writes, and keeps the end."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._follow, name="hook", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._pipe:
            while chunk := self._pipe.read1(65_536):  # type: ignore[attr-defined]
                self._kept = (self._kept + chunk)[-4 * KEPT_CHARACTERS :]

    def read(self) -> str:
        """What came last; a daemon that left the group may hold the pipe for ever, and is not waited for."""
        self._thread.join(timeout=1.0)
        return self._kept.decode("utf-8", errors="replace")[-KEPT_CHARACTERS:]


def _environ(told: Mapping[str, str]) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | dict(told)


def _without_secrets(text: str) -> str:
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


def _log(result: HookResult, cycle: str) -> None:
    said = f"; it said: {result.output.strip()}" if result.output.strip() else ""
    if result.problem:
        logger.warning(
            "hook failed cycle=%s event=%s program=%s: %s%s",
            cycle,
            result.event,
            result.program,
            result.problem,
            said,
        )
    else:
        logger.info(
            "hook done cycle=%s event=%s program=%s seconds=%.1f%s",
            cycle,
            result.event,
            result.program,
            result.seconds,
            said,
        )
