"""A small disk of its own, that can be filled; only root may mount one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

BALLAST = "ballast"


class NoDisk(Exception):
    """No small disk can be had here; why."""


@contextlib.contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Mount a disk in memory at a folder, for the length of the block.

    Raises
    ------
    NoDisk
        If this user, or this machine, may not.
    """
    place.mkdir(parents=True)
    if os.geteuid() != 0 or shutil.which("mount") is None:
        raise NoDisk("only root may mount a small disk to fill")
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(mounting, capture_output=True, text=True)
    if done.returncode != 0:
        raise NoDisk(f"no small disk to fill: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte that is left; again, what was freed since."""
    ballast = disk / BALLAST
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast
