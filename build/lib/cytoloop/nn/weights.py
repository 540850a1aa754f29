"""Weights on disk: one safetensors file that knows its network and normalisation; never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig

WEIGHTS_FILE = "weights.safetensors"
_KEY = "cytoloop"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedModel:
    """A network as it was saved, ready to predict."""

    model: UNet
    """On the CPU, in evaluation mode."""
    config: UNetConfig
    normalisation: Normalisation
    digest: str
    """SHA-256 of the file, hex."""


def save_weights(folder: Path, model: UNet, config: UNetConfig, normalisation: Normalisation) -> str:
    """Write the weights into ``folder`` and return the SHA-256 (hex) of the file.

    The file appears whole or not at all: it is written under another name, synced and renamed. Equal
    weights give equal bytes, hence an equal digest.

    Raises
    ------
    InputError
        If ``config`` is not the model's.
    """
    if model.config != config:
        raise InputError(f"weights: model has {model.config}, expected {config}")
    # One key: the order of several in the file's header is not defined, and would change the digest.
    described = json.dumps(
        {"format": _FORMAT, "network": config.to_dict(), "normalisation": normalisation.to_dict()},
        sort_keys=True,
    )
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content: bytes = tensors_to_bytes(state, metadata={_KEY: described})
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / WEIGHTS_FILE, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(folder: Path, expected_digest: str | None = None) -> LoadedModel:
    """Read what :func:`save_weights` wrote.

    Parameters
    ----------
    folder : Path
        Holds ``weights.safetensors``.
    expected_digest : str, optional
        SHA-256 the file must have.

    Raises
    ------
    InputError
        If the file is missing, is not one of ours, or has another digest; the message names both.
    """
    path = folder / WEIGHTS_FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected saved weights") from error
    digest = hashlib.sha256(content).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise InputError(f"{path}: SHA-256 {digest}, expected {expected_digest}; the file was changed")
    described = _described(path, content)
    try:
        config = UNetConfig.from_dict(described["network"])
        normalisation = Normalisation.from_dict(described["normalisation"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its description cannot be used: {error}") from error
    model = UNet(config)
    try:
        model.load_state_dict(tensors_from_bytes(content))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: its tensors are not those of {config}: {error}") from error
    return LoadedModel(model=model.eval(), config=config, normalisation=normalisation, digest=digest)


def state_digest(model: UNet) -> str:
    """SHA-256 (hex) of a network's tensors, wherever they lie."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(tensors_to_bytes(state)).hexdigest()


def _described(path: Path, content: bytes) -> Mapping[str, Any]:
    """Our JSON from the header: 8 bytes of length (little-endian), then JSON with ``__metadata__``."""
    try:
        length = int.from_bytes(content[:8], "little")
        described = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][_KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not weights of cytoloop, expected a safetensors file of ours") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        got = described.get("format") if isinstance(described, dict) else described
        raise InputError(f"{path}: format {got!r}, expected {_FORMAT}")
    return described


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, sync it, rename it: it appears whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    # The rename itself is only on disk once the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
