"""Files of others: opened only where they are files, of a bearable size, and inside the folder they belong to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cytoloop.domain.documents import parse_json
from cytoloop.domain.errors import CytoloopError, InputError

LARGEST_DOCUMENT = 64 << 20
"""Bytes of a JSON file: the provenance of a large plate's weak labels has some 300 bytes an image."""
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def opened(path: Path, largest: int, error: type[CytoloopError] = InputError) -> Iterator[BinaryIO]:
    """A file, open for reading; what would wait for a writer, or has no end, is not opened.

    Parameters
    ----------
    largest : int
        Bytes.

    Raises
    ------
    error
        If it is a folder, a pipe or a device, or larger; the message names the path.
    OSError
        If it is missing or may not be read.
    """

    def opener(name: str, flags: int) -> int:
        # a named pipe would otherwise be waited for until somebody writes
        descriptor = os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                kind = next((told for is_kind, told in _KINDS if is_kind(status.st_mode)), "no file")
                raise error(f"{path}: {kind}, expected a file")
            if status.st_size > largest:
                raise error(f"{path}: {status.st_size} bytes, expected at most {largest}")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    try:
        file = open(path, "rb", opener=opener)  # noqa: SIM115 it is closed below
    except ValueError as problem:  # a name with a zero byte
        raise error(f"{str(path)!r}: {problem}") from None
    with file:
        yield file


def read_bytes(path: Path, largest: int, error: type[CytoloopError] = InputError) -> bytes:
    """The content of a file; errors as of :func:`opened`, also where it grows meanwhile."""
    with opened(path, largest, error) as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise error(f"{path}: more than {largest} bytes, expected at most that")
    return content


def read_json(path: Path, error: type[CytoloopError] = InputError, largest: int = LARGEST_DOCUMENT) -> Any:
    """The value of a JSON file that we, or an administrator, wrote: of bounded size and depth.

    Raises
    ------
    error
        If it is larger, no file, not UTF-8 or not JSON; the message names the path.
    OSError
        As of :func:`opened`.
    """
    return parse_json(read_bytes(path, largest, error), str(path), error)


def require_inside(path: Path, folder: Path, error: type[CytoloopError] = InputError) -> Path:
    """The real place of a file of a folder, which may itself be reached through a link.

    Raises
    ------
    error
        If a link, or ``..``, leads out of the folder.
    """
    try:
        real, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError) as problem:  # links in a circle
        raise error(f"{path}: leads nowhere ({problem})") from None
    if not real.is_relative_to(root):
        raise error(
            f"{path}: leads to {real}, out of {root}; expected a file in it: copy it there, or name the folder that "
            "holds the files themselves"
        )
    return real
