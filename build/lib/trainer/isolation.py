"""Training in a process of its own: it may be killed, grow or hang, and this one goes on.

The child does one job (`trainer.child`) and answers a line an epoch. What it learned after its last whole
epoch is all that a kill can cost: the same job goes on from the checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from cytoloop.adapters.locks import exclusive
from cytoloop.domain.errors import CytoloopError, InputError, StateError
from cytoloop.domain.trainer_policy import Limits
from cytoloop.nn.fit import EpochReport, TrainingCancelled
from trainer.runs import Progress, RunResult, TrainingJob

logger = logging.getLogger(__name__)

POLL_S = 0.2
"""How often limits are checked and the caller is asked whether to go on."""
MEMORY_SHARE = 0.75
"""Of the machine, where the policy names no limit."""
MANY_THREADS = 4
"""From so many on, one is left for serving."""
TRIES = 3
"""Times a run is started where something outside kills it; only while each try comes further than the last."""


class TrainingStopped(CytoloopError):
    """A run that went over a limit of its policy; the message names which, and by how much."""


class TrainingDied(CytoloopError):
    """A run whose process ended without an answer: killed from outside, or out of memory."""


class ChildProcess:
    """Does jobs in child processes, one at a time a home, within limits.

    Parameters
    ----------
    home : Path
        The home folder; all that a child is told besides the job.
    limits : Limits
        Of one run.
    log_level : str
        Of the child; it writes to ``logs/training.log``.
    """

    def __init__(self, home: Path, limits: Limits, log_level: str = "INFO") -> None:
        self._home = home
        self._limits = limits
        self._log_level = log_level
        self.memory_gb = limits.memory_gb or MEMORY_SHARE * psutil.virtual_memory().total / 1e9
        self.threads = limits.threads or threads_for_training(os.cpu_count() or 1)

    def __call__(
        self,
        job: TrainingJob,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> RunResult:
        """Run a job, again if its process is killed from outside and had come further than before.

        Raises
        ------
        TrainingStopped
            If it went over its memory or time.
        TrainingDied
            If it was killed without coming further, or ended without an answer.
        TrainingCancelled
            If ``cancelled`` said so.
        CytoloopError
            What the run itself raised, in its words.
        """
        deadline = None if self._limits.minutes is None else time.monotonic() + 60 * self._limits.minutes
        last = _LastEpoch(progress)
        with exclusive(self._home, "training", on_wait=lambda: logger.info("training waits for another one")):
            for attempt in range(1, TRIES + 1):
                before = last.epoch
                try:
                    return self._run(job, last, cancelled, deadline)
                except TrainingDied as error:
                    if attempt == TRIES or (attempt > 1 and last.epoch <= before):
                        raise
                    logger.warning("%s; it is started again after epoch %d", error, last.epoch)
        raise AssertionError("the last try returns or raises")

    def _run(
        self,
        job: TrainingJob,
        progress: Progress,
        cancelled: Callable[[], bool] | None,
        deadline: float | None,
    ) -> RunResult:
        peak = 0.0
        with self._started(job) as (child, answers):
            while True:
                if cancelled is not None and cancelled():
                    raise TrainingCancelled(f"training of {job.method}: cancelled")
                if deadline is not None and time.monotonic() > deadline:
                    raise TrainingStopped(
                        f"training of {job.method} took longer than {self._limits.minutes:g} min "
                        "(trainer.limits.minutes); its checkpoint is kept"
                    )
                peak = max(peak, _resident_gb(child.pid))
                if peak > self.memory_gb:
                    raise TrainingStopped(
                        f"training of {job.method} took {peak:.2f} GB of memory, allowed are "
                        f"{self.memory_gb:.2f} (trainer.limits.memory_gb); a smaller crop or batch needs less"
                    )
                try:
                    answer = answers.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if answer is None:
                    raise TrainingDied(f"training of {job.method}: its process {_how_ended(child.wait())}")
                if "epoch" in answer:
                    progress(EpochReport(**answer["epoch"]))
                elif "error" in answer:
                    raise _error(job, answer["error"])
                else:
                    return _result(answer["done"], peak)

    @contextmanager
    def _started(
        self, job: TrainingJob
    ) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[dict[str, Any] | None]]]:
        """A child at work for the length of a block; none is left behind, however the block ends."""
        log_path = self._home / "logs" / "training.log"
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "trainer.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environ(),
                start_new_session=True,
            )
        assert child.stdin is not None
        assert child.stdout is not None
        answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(child.stdout, answers), daemon=True)
        reader.start()
        try:
            document = {
                "home": str(self._home.absolute()),
                "job": job.to_dict(),
                "threads": self.threads,
                "log": self._log_level,
            }
            with suppress(BrokenPipeError):  # it died at once: the reader will say so
                child.stdin.write(json.dumps(document) + "\n")
                child.stdin.flush()
            yield child, answers
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            reader.join()
            with suppress(BrokenPipeError):
                child.stdin.close()
            child.stdout.close()

    def _environ(self) -> dict[str, str]:
        """Ours without addresses and secrets: a training needs the home alone."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CYTOLOOP_")}
        return kept | {"OMP_NUM_THREADS": str(self.threads)}


class _LastEpoch:
    """Passes epochs on, and remembers how far the run is."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.epoch = 0

    def __call__(self, report: EpochReport) -> None:
        self.epoch = report.epoch
        if self._progress is not None:
            self._progress(report)


def threads_for_training(cores: int) -> int:
    """CPU threads where the policy names none: one core is left for serving, if there are enough.

    Examples
    --------
    >>> [threads_for_training(cores) for cores in (1, 2, 4, 16)]
    [1, 2, 3, 15]
    """
    return cores - 1 if cores >= MANY_THREADS else cores


def _read(stdout: IO[str], answers: queue.Queue[dict[str, Any] | None]) -> None:
    with suppress(ValueError):  # a line cut off by a kill
        for line in stdout:
            answers.put(json.loads(line))
    answers.put(None)


def _resident_gb(pid: int) -> float:
    try:
        resident: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:  # it has just ended
        return 0.0
    return resident / 1e9


def _how_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code} and no answer; logs/training.log may say why"


def _result(document: dict[str, Any], peak: float) -> RunResult:
    history = tuple(EpochReport(**epoch) for epoch in document["history"])
    return RunResult(**{**document, "history": history, "peak_memory_gb": peak})


def _error(job: TrainingJob, told: dict[str, str]) -> CytoloopError:
    """What a child raised, as the same kind of error here: the caller's data, or not now; else our bug, in words."""
    kinds: dict[str, type[CytoloopError]] = {"InputError": InputError, "StateError": StateError}
    kind = kinds.get(told["type"], CytoloopError)
    name = "" if kind is not CytoloopError else f"{told['type']}: "
    return kind(f"training of {job.method}: {name}{told['message']}")
