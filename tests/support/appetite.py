"""How much memory reading a file takes: ``python appetite.py <file>…`` prints a line of JSON for each.

Each file is read in a fork of its own, so that none profits from what another left.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reading:
    """What came of reading one file."""

    outcome: str
    """The message of the error, or the shape."""
    grown_mb: float
    """Peak of memory above what the process had before."""
    seconds: float


def appetites(files: list[Path], kind: str = "image") -> list[Reading]:
    """Read files as raw images (or masks, or assays) in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, kind, *map(str, files)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    return [Reading(**json.loads(line)) for line in done.stdout.splitlines()]


def _read(kind: str, path: Path) -> str:
    from cytoloop.adapters.assays import read_assay
    from cytoloop.adapters.images import read_mask, read_planes
    from cytoloop.domain.errors import CytoloopError

    try:
        if kind == "assay":
            return read_assay(path).name
        return str((read_mask if kind == "mask" else read_planes)(path).shape)
    except CytoloopError as error:
        return str(error)


def _measure(kind: str, path: Path) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    outcome = _read(kind, path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = time.perf_counter() - started
    print(json.dumps({"outcome": outcome, "grown_mb": grown / 1024, "seconds": seconds}), flush=True)


def main() -> None:
    """Read each file in a fork."""
    kind, *files = sys.argv[1:]
    _read(kind, Path("nothing"))  # the libraries are there before anything is counted
    for name in files:
        child = os.fork()
        if child == 0:
            _measure(kind, Path(name))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"outcome": f"killed: {status}", "grown_mb": 0.0, "seconds": 0.0}), flush=True)


if __name__ == "__main__":
    main()
