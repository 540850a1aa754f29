"""A training run in a process of its own: ``python -m trainer.child``, started by `trainer.isolation`.

Reads one job from standard input and writes a line of JSON an epoch, then one with the outcome. Standard
input stays open as long as the parent lives: when it ends, so does the run, since whoever starts next would
train the same run beside it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

EXIT_ORPHANED = 75

NICE = 10
"""Serving goes first."""
OOM_SCORE = 500
"""Of -1000…1000: where the machine runs out of memory, the kernel ends the training and not the server."""


def main() -> int:
    """Do one job; the exit code is 0 if its version is registered, 1 if not."""
    answers = _private_stdout()
    document = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    logging.basicConfig(level=document["log"], format="%(asctime)s %(levelname)s %(name)s %(message)s")
    _step_back()
    try:
        _say(answers, {"done": _run(document, answers)})
    except Exception as error:  # told in words to the parent, which decides
        traceback.print_exc()
        _say(answers, {"error": {"type": type(error).__name__, "message": str(error)}})
        return 1
    return 0


def _run(document: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    import torch

    from cytoloop.adapters.assays import load_assay
    from cytoloop.adapters.registry import Registry
    from cytoloop.adapters.store import Store
    from trainer.runs import RunResult, TrainingJob, run_job

    torch.set_num_threads(document["threads"])
    home = Path(document["home"])
    job = TrainingJob(**document["job"])
    store = Store(home)
    try:
        assay = load_assay(job.assay, [home / "assays"])
        model, result = run_job(
            store,
            Registry(home / "models"),
            assay,
            job,
            progress=lambda epoch: _say(answers, {"epoch": asdict(epoch)}),
        )
    finally:
        store.close()
    return asdict(RunResult.of(model.version, result))


def _say(answers: TextIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _private_stdout() -> TextIO:
    """Standard output for answers alone: what a library prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(EXIT_ORPHANED)


def _step_back() -> None:
    """Let serving have processor and memory first."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    with contextlib.suppress(OSError):  # Linux alone
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE), encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
