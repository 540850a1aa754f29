"""A bounded pipeline of threads: each stage works on one thing while the next works on the one before."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

LENGTH = 2
"""Things that wait between two stages: enough that none waits for work, few enough to hold in memory."""
_LOOK_S = 0.1
"""How often a thread that waits looks whether it is to stop."""
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One kind of work, and how many threads do it."""

    name: str
    run: Callable[[Any], Any]
    """From what the stage before gave to what the next takes; called by all of its threads."""
    threads: int = 1


class _Stopped(Exception):
    """The pipeline is being left: the way out of a wait."""


def pipelined(
    source: Iterable[Any], stages: Iterable[Stage], length: int = LENGTH
) -> Generator[Any, None, None]:
    """Yield what comes out of the last stage for each thing of ``source``, in the order it gets done.

    ``source`` is drawn from as fast as the slowest stage goes: at most ``length`` things wait before each
    stage, and one is with each thread. Leaving the generator, by an error, ^C or ``close()``, stops the
    threads once each has done what it is at; nothing is left running.

    Raises
    ------
    Exception
        The first that ``source`` or a stage raised.

    Examples
    --------
    >>> sorted(pipelined(range(4), [Stage(name="square", run=lambda x: x * x, threads=2)]))
    [0, 1, 4, 9]
    """
    run = _Run(length)
    first = last = run.link()
    threads = [threading.Thread(target=run.feed, args=(source, first), name="source", daemon=True)]
    for stage in stages:
        before, last = last, run.link()
        alive = _Countdown(stage.threads)
        threads += [
            threading.Thread(
                target=run.work, args=(stage, before, last, alive), name=f"{stage.name}-{number}", daemon=True
            )
            for number in range(stage.threads)
        ]
    for thread in threads:
        thread.start()
    try:
        while (done := run.take(last)) is not _END:
            yield done
    except _Stopped:
        raise run.errors[0] from None
    finally:
        run.stopping.set()
        for thread in threads:
            thread.join()


class _Countdown:
    """How many threads of a stage are still at work."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()

    def is_last(self) -> bool:
        """Count one down; whether that was the last."""
        with self._lock:
            self._count -= 1
            return self._count == 0


class _Run:
    """What the threads of one pipeline share."""

    def __init__(self, length: int) -> None:
        self._length = length
        self.stopping = threading.Event()
        self.errors: list[BaseException] = []

    def link(self) -> queue.Queue[Any]:
        return queue.Queue(self._length)

    def feed(self, source: Iterable[Any], target: queue.Queue[Any]) -> None:
        def feeding() -> None:
            for thing in source:
                self.put(target, thing)
            self.put(target, _END)

        self._guarded(feeding)

    def work(
        self, stage: Stage, source: queue.Queue[Any], target: queue.Queue[Any], alive: _Countdown
    ) -> None:
        def working() -> None:
            while (thing := self.take(source)) is not _END:
                self.put(target, stage.run(thing))
                del thing  # the next one is not waited for with this one in hand
            if alive.is_last():
                self.put(target, _END)
            else:
                self.put(source, _END)  # for the next thread of the stage

        self._guarded(working)

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except _Stopped:
            pass
        except BaseException as error:  # told by whoever takes the results
            self.errors.append(error)
            self.stopping.set()

    def put(self, target: queue.Queue[Any], thing: Any) -> None:
        while not self.stopping.is_set():
            try:
                target.put(thing, timeout=_LOOK_S)
            except queue.Full:
                continue
            return
        raise _Stopped

    def take(self, source: queue.Queue[Any]) -> Any:
        while not self.stopping.is_set():
            try:
                return source.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
        raise _Stopped
