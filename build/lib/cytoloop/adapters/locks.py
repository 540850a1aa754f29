"""One at a time, across processes of one machine."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def exclusive(home: Path, assay: str, *, on_wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Hold an assay for the length of a block: looking, cycles and imports all publish.

    Two of them at once would undo each other's half publications. The kernel frees the lock when its
    holder dies, however that happens.

    Parameters
    ----------
    on_wait : callable, optional
        Called once if another process holds the assay, before waiting for it.
    """
    path = home / "locks" / f"{assay}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait:
                on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
