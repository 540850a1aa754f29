"""What a training run ran on: code, libraries, machine. Tells two runs of equal numbers apart."""

from __future__ import annotations

import functools
import hashlib
import logging
import platform
import subprocess
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, TypeVar

import cytoloop

logger = logging.getLogger(__name__)
Fact = TypeVar("Fact")

PACKAGES = ("cytoloop", "labelstudio_config", "ml_backend", "trainer")
"""What is installed together, side by side."""
LIBRARIES = ("torch", "numpy", "safetensors")
GIT_TIMEOUT_S = 5.0


def provenance(device: str = "auto", precision: str | None = None) -> dict[str, Any]:
    """What a run of this process computes with, as plain values; what cannot be found out is None.

    Never raises: it tells of a run, and must not end one.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu`` or ``cuda``, as the run is told.
    precision : str, optional
        What the network computes in.

    Returns
    -------
    dict
        ``cytoloop``, ``code`` (see :func:`code_version`), ``python``, a key a library, ``platform``,
        ``machine``, ``cpu``, ``cpu_capability``, ``device``, ``device_name``, ``cuda``, ``threads``,
        ``precision`` and ``deterministic`` (PyTorch's switches).
    """
    chosen = _known(lambda: _device(device))
    return {
        "cytoloop": cytoloop.__version__,
        "code": dict(code_version()),
        "python": platform.python_version(),
        **{name: _known(functools.partial(installed_version, name)) for name in LIBRARIES},
        "platform": _known(platform.platform),
        "machine": platform.machine() or None,
        "cpu": _known(cpu_model),
        "cpu_capability": _known(lambda: _torch().backends.cpu.get_cpu_capability()),
        "device": chosen,
        "device_name": _known(lambda: _device_name(chosen)),
        "cuda": _known(lambda: _torch().version.cuda),
        "threads": _known(lambda: _torch().get_num_threads()),
        "precision": precision,
        "deterministic": _known(_deterministic),
    }


@functools.cache
def code_version() -> Mapping[str, Any]:
    """Which code this process runs; found out once.

    Returns
    -------
    mapping
        ``digest``: SHA-256 (hex) over names and contents of all modules; equal in a checkout and where it is
        installed. ``commit`` and ``is_changed``, where the packages lie in a git checkout: the commit, and
        whether anything of them differs from it. None elsewhere.
    """
    root = Path(cytoloop.__file__).resolve().parent.parent
    commit, is_changed = _known(lambda: _git(root)) or (None, None)
    return {"commit": commit, "is_changed": is_changed, "digest": _known(lambda: sources_digest(root))}


def sources_digest(root: Path, packages: tuple[str, ...] = PACKAGES) -> str:
    """SHA-256 (hex) over names and contents of the modules of these packages under ``root``."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()


def _git(root: Path) -> tuple[str | None, bool | None]:
    """Commit and whether something was changed since; (None, None) where git does not keep these files."""

    def git(*arguments: str) -> str | None:
        # no optional locks: asking must not get in the way of whoever works in the checkout
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None

    # a virtual environment inside somebody's checkout is not of that checkout
    if git("ls-files", "--error-unmatch", f"{PACKAGES[0]}/__init__.py") is None:
        return None, None
    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None, None
    there = [name for name in PACKAGES if (root / name).is_dir()]
    changes = git("status", "--porcelain", "--", *there)
    return commit.strip(), None if changes is None else bool(changes.strip())


@functools.cache
def cpu_model() -> str | None:
    """What the processor calls itself."""
    path = Path("/proc/cpuinfo")
    if path.is_file():  # Linux, where platform.processor() is empty or just the architecture
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "cpu model") and value.strip():
                return value.strip()
    return platform.processor() or None


def _device(name: str) -> str:
    from cytoloop.nn.device import choose_device

    return str(choose_device(name))


def _device_name(device: str | None) -> str | None:
    if device is None or device == "cpu":
        return cpu_model()
    return str(_torch().cuda.get_device_name(device))


def _deterministic() -> dict[str, Any]:
    torch = _torch()
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul": torch.get_float32_matmul_precision(),
    }


def _torch() -> Any:
    # costs seconds to import, and may be broken: both are the caller's only when it is asked for
    import torch

    return torch


def _known(find_out: Callable[[], Fact]) -> Fact | None:
    """A fact, or None where finding it out fails."""
    try:
        return find_out()
    except Exception as error:  # of any kind: this only tells of a run
        logger.debug("not known: %s", error)
        return None
