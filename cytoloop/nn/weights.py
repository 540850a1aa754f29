"""Weights on disk: one safetensors file that knows its network and normalisation; never pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes

from cytoloop.domain.documents import parse_json, told
from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.files import read_bytes
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig

WEIGHTS_FILE = "weights.safetensors"
DIGEST_FILE = "weights.sha256"
"""Beside weights that no store knows: their digest, as ``sha256sum`` writes it."""
LARGEST_WEIGHTS = 2 << 30
LARGEST_HEADER = 16 << 20
DEEPEST_NETWORK = 10
"""Poolings: an image of 1024 pixels would be one."""
_KEY = "cytoloop"
_PICKLES = ((b"PK\x03\x04", "a zip file, as torch.save writes its pickles"), (b"\x80", "a pickle"))
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


def note_digest(folder: Path, digest: str) -> None:
    """Write a digest beside weights that no store knows: without it nobody loads them."""
    write_whole(folder / DIGEST_FILE, f"{digest}  {WEIGHTS_FILE}\n".encode())


def noted_digest(folder: Path) -> str:
    """What :func:`note_digest` wrote.

    Raises
    ------
    InputError
        If there is nothing, or no digest in it.
    """
    path = folder / DIGEST_FILE
    try:
        content = read_bytes(path, 1000)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected the digest that `cytoloop train --out` writes beside "
            f"its weights. Weights are not loaded without; to vouch for these: sha256sum {WEIGHTS_FILE} > {DIGEST_FILE}"
        ) from error
    found = re.match(rb"[0-9a-f]{64}(?=\s|\Z)", content)
    if found is None:
        raise InputError(f"{path}: {told(content)}, expected the SHA-256 of {WEIGHTS_FILE} in hex")
    return found[0].decode()


def load_weights(folder: Path, expected_digest: str | None = None) -> LoadedModel:
    """Read what :func:`save_weights` wrote: a safetensors file of a known digest, and nothing else, ever.

    Parameters
    ----------
    folder : Path
        Holds ``weights.safetensors``.
    expected_digest : str, optional
        SHA-256 the file must have; by default the one noted beside it (:func:`noted_digest`).

    Raises
    ------
    InputError
        If the file is missing, has another digest (the message names both), is not one of ours, claims a
        network that its bytes cannot hold, or holds a weight that is no finite number.
    """
    path = folder / WEIGHTS_FILE
    try:
        content = read_bytes(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected saved weights: a folder with {WEIGHTS_FILE}; "
            "pickles (.pt, .pth, .pkl, .bin) are never read"
        ) from error
    if expected_digest is None:
        expected_digest = noted_digest(folder)
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected_digest:
        raise InputError(f"{path}: SHA-256 {digest}, expected {expected_digest}; the file was changed")
    described = _described(path, content)
    try:
        config = UNetConfig.from_dict(described["network"])
        normalisation = Normalisation.from_dict(described["normalisation"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its description cannot be used: {error}") from error
    _expect_room(path, config, len(content))
    model = UNet(config)
    try:
        state = tensors_from_bytes(content)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path}: its tensors are not those of {config}: {error}") from error
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{path}: tensor {name!r} holds what is no finite number; expected weights that predict"
            )
    return LoadedModel(model=model.eval(), config=config, normalisation=normalisation, digest=digest)


def state_digest(model: UNet) -> str:
    """SHA-256 (hex) of a network's tensors, wherever they lie."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return hashlib.sha256(tensors_to_bytes(state)).hexdigest()


def _described(path: Path, content: bytes) -> Mapping[str, Any]:
    """Our JSON from the header: 8 bytes of length (little-endian), then JSON with ``__metadata__``."""
    kind = next((name for start, name in _PICKLES if content.startswith(start)), None)
    if kind is not None and content[8:9] != b"{":  # a header may be of so many bytes
        raise InputError(f"{path}: {kind}, which is never read; expected a safetensors file of ours")
    length = int.from_bytes(content[:8], "little")
    if length > min(LARGEST_HEADER, len(content)):
        raise InputError(
            f"{path}: not weights of cytoloop: its header would have {length} bytes, expected a safetensors file of "
            f"ours with at most {min(LARGEST_HEADER, len(content))}"
        )
    try:
        header = parse_json(content[8 : 8 + length], str(path))
        described = parse_json(header["__metadata__"][_KEY].encode(), str(path))
    except (InputError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not weights of cytoloop, expected a safetensors file of ours") from error
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        got = described.get("format") if isinstance(described, dict) else described
        raise InputError(f"{path}: format {told(got)}, expected {_FORMAT}")
    return described


def _expect_room(path: Path, config: UNetConfig, size: int) -> None:
    """Refuse a network that the file cannot fill before memory is taken for it."""
    widest = config.width << min(config.poolings, DEEPEST_NETWORK)
    least = 4 * max(
        9 * widest * widest, 9 * config.in_channels * config.width, config.class_count * config.width
    )
    if config.poolings > DEEPEST_NETWORK or least > size:
        raise InputError(f"{path}: {config} needs more than {least} bytes of weights, the file has {size}")


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
