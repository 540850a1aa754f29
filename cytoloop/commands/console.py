"""What a person or a script sees of a command: progress on stderr, one result on stdout."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

PIPE_WIDTH = 140
"""Columns where the output is no terminal: a log or a file can take a whole table."""

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False)
for _console in (stderr, stdout):
    if not _console.is_terminal:
        _console.width = PIPE_WIDTH


_COUNTED = re.compile(r"\w+ \d+/\d+$")
"""``predict 17/40``: worth a bar, not a line each."""


class Bars:
    """Progress on stderr: counted work as bars with time left, steps of a cycle as one bar of words.

    Where nobody watches (a log, a pipe), a line for each thing begun and each step instead.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._said = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` of something."""
        if self._progress is None:
            self._say(what)
        else:
            self._progress.update(self._task(what), description=what, completed=done, total=total)

    def step(self, step: str, share: float) -> None:
        """A step of a cycle, and the share (0 to 1) of the whole that is done."""
        if self._progress is None:
            if not _COUNTED.match(step):
                self._say(f"{round(100 * share):3d} %  {step}")
        else:
            self._progress.update(
                self._task("cycle"), description=step, completed=round(100 * share), total=100
            )

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks and self._progress is not None:
            self._tasks[name] = self._progress.add_task(name, total=None)
        return self._tasks[name]

    def _say(self, line: str) -> None:
        if line != self._said:
            stderr.print(line, soft_wrap=True)
            self._said = line


class Rate(ProgressColumn):
    """How many are done a second, of late."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """``12.3 images/s``; nothing before there is something to go by."""
        return Text("" if not task.speed else f"{task.speed:.1f} {self._unit}/s")


@contextmanager
def progress_bars(unit: str | None = None) -> Iterator[Bars]:
    """Bars for the length of a block; with a unit, they tell how many a second."""
    if not stderr.is_terminal:
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *((Rate(unit),) if unit else ()),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr) as progress:
        yield Bars(progress)


def print_json(document: Any) -> None:
    """One JSON document on stdout, and nothing else."""
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        stdout.file.write(text + "\n")
        stdout.file.flush()
    except BrokenPipeError:  # as rich does for tables: what is left to flush at exit goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """A table for people."""
    drawn = Table(title=title, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(column)
    for row in rows:
        drawn.add_row(*map(escape, row))  # a name may hold what rich takes for markup
    return drawn


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(one) for one in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN: a class that occurs nowhere has no IoU
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value
