"""How the web process is served: gunicorn's settings for some fifty people, Label Studio, and scripts.

One process, because it holds the one model in memory, and because what a caller may ask for is counted there.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path
from typing import Any

from ml_backend.worker import GatheringWorker, limit_waiting

THREADS = 16
"""Requests at work at once. Most of what takes long is waiting: for Label Studio (a claim asks it a dozen things),
for the disk, for a prediction that is being computed. More threads do not compute more."""
CONNECTIONS = 500
"""Open ones: a browser holds up to six, and file descriptors are often limited to 1024."""
KEEP_ALIVE_S = 75
"""Longer than reverse proxies keep theirs (60 s), or they would send a request into a connection we just closed."""
GRACE_S = 8
"""For requests at work when it is told to stop; less than the ten seconds after which `cytoloop up` kills."""
SWITCH_S = 0.001
"""Python's default is 5 ms: so long does a short request wait whenever another thread computes."""

COLLECT_AFTER = (50_000, 20, 50)
"""Objects, then rounds, after which Python looks for garbage in the young, the middle and the old. Looking at the old
took 0.2 s with PyTorch loaded, in which nobody is answered; by default a few predictions bring it about."""
M_ARENA_MAX = -8
"""Its number in glibc's malloc.h."""
ARENAS = 2


def gunicorn_settings(host: str, port: int) -> dict[str, Any]:
    """Settings by gunicorn's name."""
    return {
        "bind": f"{host}:{port}",
        "workers": 1,
        "worker_class": GatheringWorker,
        "threads": THREADS,
        "worker_connections": CONNECTIONS,
        "backlog": 512,
        "keepalive": KEEP_ALIVE_S,
        "graceful_timeout": GRACE_S,
        # The main loop only passes requests on; if it is silent for so long, the process hangs.
        "timeout": 120,
        # Never a new process after so many requests: it would load the model anew, and memory stays flat.
        "max_requests": 0,
        # Its heartbeat is a file: on a disk that is busy with a training's checkpoint it would come late.
        "worker_tmp_dir": _in_memory(),
        # Addresses are short; cookies are not: those of Label Studio on the same host come along.
        "limit_request_line": 4094,
        "limit_request_fields": 64,
        "limit_request_field_size": 8190,
        # Whose word is taken for address and scheme is said by CYTOLOOP_PROXIES alone (`ml_backend.limits`).
        "forwarded_allow_ips": "",
        # A socket to manage gunicorn with: nobody asked for it.
        "control_socket_disable": True,
        "on_starting": _share_memory,
        "pre_request": limit_waiting,
        "post_worker_init": _answer_promptly,
        "accesslog": None,
        "loglevel": "warning",
    }


def _share_memory(_arbiter: object) -> None:
    """Let threads take memory from two pools: glibc gives each its own, and every pool keeps what one thread once used."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)


def _answer_promptly(_worker: object) -> None:
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # what is there now stays: no need to look at it again
    gc.set_threshold(*COLLECT_AFTER)


def _in_memory() -> str | None:
    """A folder that is memory, where there is one; None: gunicorn's choice."""
    folder = Path("/dev/shm")  # noqa: S108 - gunicorn makes a file of its own in it, and unlinks it at once
    return str(folder) if os.access(folder, os.W_OK) else None
