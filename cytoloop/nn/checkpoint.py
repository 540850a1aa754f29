"""Where a run stands after an epoch, on disk, so that a run that was killed can go on.

One safetensors file: the tensors, and beside them in its header a JSON document with everything
that is no tensor. Never pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from cytoloop.domain.documents import is_whole, parse_json, told
from cytoloop.domain.errors import StateError
from cytoloop.nn.weights import write_whole

CHECKPOINT_FILE = "checkpoint.safetensors"
_KEY = "cytoloop_run"
_FORMAT = 1


class CheckpointRefused(StateError):
    """A checkpoint that this run cannot go on from; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What :func:`save_checkpoint` wrote."""

    tensors: dict[str, Tensor]
    """On the CPU."""
    document: dict[str, Any]
    """Plain values."""


def save_checkpoint(
    folder: Path, identity: Mapping[str, Any], tensors: Mapping[str, Tensor], document: Mapping[str, Any]
) -> None:
    """Write ``folder/checkpoint.safetensors``; it appears whole or not at all.

    Parameters
    ----------
    identity : mapping
        Plain values that say which run this is; :func:`load_checkpoint` compares them.
    tensors : mapping of str to Tensor
        No two may share memory.
    document : mapping
        Plain values.
    """
    described = {"format": _FORMAT, "identity": dict(identity), "document": dict(document)}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(
        folder / CHECKPOINT_FILE,
        tensors_to_bytes(plain, metadata={_KEY: json.dumps(described, allow_nan=False)}),
    )


def load_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """Read what :func:`save_checkpoint` wrote; None where there is nothing yet.

    Raises
    ------
    CheckpointRefused
        If it belongs to a run of another identity (the message names the first value that differs), or
        is not one of ours.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    described = _described(path)
    difference = _first_difference("", described["identity"], json.loads(json.dumps(dict(identity))))
    if difference is not None:
        name, got, expected = difference
        raise CheckpointRefused(
            f"{path}: belongs to a run with {name} {told(got)}, expected {expected!r}; "
            "remove the folder to begin anew, or repeat the run that it belongs to"
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointRefused(f"{path}: cannot be read: {error}") from error
    return Checkpoint(tensors=tensors, document=described["document"])


def epochs_done(folder: Path) -> int:
    """Epochs that the checkpoint in ``folder`` holds; 0 where there is none."""
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return 0
    epoch = _described(path)["document"].get("epoch")
    if not is_whole(epoch, 0):
        raise CheckpointRefused(f"{path}: epoch {told(epoch)}, expected a whole number >= 0")
    return epoch


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint, and its folder if nothing else is in it."""
    (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _described(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            described = parse_json((file.metadata() or {})[_KEY].encode(), str(path), CheckpointRefused)
    except (SafetensorError, KeyError, OSError, CheckpointRefused) as error:
        raise CheckpointRefused(f"{path}: not a checkpoint of cytoloop, expected one or none") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        got = described.get("format") if isinstance(described, dict) else described
        raise CheckpointRefused(f"{path}: format {told(got)}, expected {_FORMAT}")
    if not all(isinstance(described.get(key), dict) for key in ("identity", "document")):
        raise CheckpointRefused(f"{path}: not a checkpoint of cytoloop: it says not which run it is of")
    return described


def _first_difference(where: str, got: Any, expected: Any) -> tuple[str, Any, Any] | None:
    """Name, value and expected value of the first leaf that differs between two plain documents."""
    if isinstance(got, dict) and isinstance(expected, dict):
        for key in sorted(got.keys() | expected.keys()):
            below = f"{where}.{key}" if where else key
            found = _first_difference(below, got.get(key), expected.get(key))
            if found is not None:
                return found
        return None
    return None if got == expected else (where, got, expected)
