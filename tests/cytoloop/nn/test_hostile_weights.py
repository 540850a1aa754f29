"""Model files that are meant to do harm: pickles, headers that claim gigabytes, weights that are no numbers."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file, save_file

from cytoloop.cli import run
from cytoloop.domain.errors import InputError
from cytoloop.nn.checkpoint import CHECKPOINT_FILE, CheckpointRefused, epochs_done, load_checkpoint
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import (
    DIGEST_FILE,
    LARGEST_WEIGHTS,
    WEIGHTS_FILE,
    load_weights,
    note_digest,
    noted_digest,
    save_weights,
)

CONFIG = UNetConfig(in_channels=2, class_count=3, width=4)


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def vouch(folder: Path) -> None:
    note_digest(folder, hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest())


def pickled(path: Path, target: Path, how: str) -> None:
    if how == "torch.save":
        torch.save({"head.weight": Bomb(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(target), protocol=int(how)))


@pytest.mark.parametrize("how", ["torch.save", "0", "2", "5"])
def test_a_pickle_is_never_unpickled_whatever_it_is_called(tmp_path: Path, how: str) -> None:
    target = tmp_path / "unpickled"
    pickled(tmp_path / WEIGHTS_FILE, target, how)
    vouch(tmp_path)
    with pytest.raises(InputError, match=r"never read; expected a safetensors file|not weights of cytoloop"):
        load_weights(tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / CHECKPOINT_FILE)
    for read in (epochs_done, lambda folder: load_checkpoint(folder, {})):
        with pytest.raises(CheckpointRefused, match="not a checkpoint of cytoloop"):
            read(tmp_path)
    assert not target.exists()
    with (tmp_path / CHECKPOINT_FILE).open("rb") as file:  # it would have
        torch.load(file, weights_only=False) if how == "torch.save" else pickle.load(file)
    assert target.exists()


@pytest.mark.parametrize("name", ["weights.pt", "model.pth", "model.pkl", "pytorch_model.bin"])
def test_a_folder_of_pickles_holds_no_weights(tmp_path: Path, name: str) -> None:
    pickled(tmp_path / name, tmp_path / "unpickled", "2")
    with pytest.raises(
        InputError, match=r"expected saved weights: .* pickles \(\.pt, \.pth, \.pkl, \.bin\) are never"
    ):
        load_weights(tmp_path)
    assert not (tmp_path / "unpickled").exists()


def test_weights_that_nobody_vouches_for_are_not_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, plate = tmp_path / "net", tmp_path / "plate"
    digest = save_weights(net, UNet(CONFIG), CONFIG, Normalisation())
    plate.mkdir()
    tifffile.imwrite(plate / "B02_f1.tif", np.zeros((2, 32, 32), np.uint16), photometric="minisblack")
    asked = ["predict", str(plate), str(tmp_path / "masks"), "--assay", "rosella", "--weights", str(net)]
    assert run(asked) == 1
    said = capsys.readouterr().err
    assert f"{DIGEST_FILE}: cannot be read" in said
    assert f"sha256sum {WEIGHTS_FILE} > {DIGEST_FILE}" in said
    note_digest(net, digest)
    assert noted_digest(net) == digest
    assert run(asked) == 0
    content = bytearray((net / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (net / WEIGHTS_FILE).write_bytes(content)
    assert run(asked) == 1
    assert f"expected {digest}; the file was changed" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"abc", b"g" * 64, b"a" * 63, b"a" * 65, b"\xff" * 64, b"a" * 2000])
def test_what_is_no_digest_vouches_for_nothing(tmp_path: Path, content: bytes) -> None:
    save_weights(tmp_path, UNet(CONFIG), CONFIG, Normalisation())
    (tmp_path / DIGEST_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.sha256: .*expected"):
        load_weights(tmp_path)


def test_the_digest_of_sha256sum_is_read(tmp_path: Path) -> None:
    digest = save_weights(tmp_path, UNet(CONFIG), CONFIG, Normalisation())
    done = subprocess.run(["sha256sum", WEIGHTS_FILE], cwd=tmp_path, capture_output=True, check=True)
    (tmp_path / DIGEST_FILE).write_bytes(done.stdout)
    assert load_weights(tmp_path).digest == digest


def file_of(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def described(**network: Any) -> dict[str, str]:
    return {
        "cytoloop": json.dumps(
            {
                "format": 1,
                "network": {**CONFIG.to_dict(), **network},
                "normalisation": Normalisation().to_dict(),
            }
        )
    }


CLAIMS: dict[str, tuple[bytes, str]] = {
    "a header of exabytes": (b"\xff" * 8 + b"{}", "its header would have 18446744073709551615 bytes"),
    "a header beyond the file": ((1000).to_bytes(8, "little") + b"{}", "its header would have 1000 bytes"),
    "a header of gigabytes": (
        (1 << 33).to_bytes(8, "little") + b"{}",
        "its header would have 8589934592 bytes",
    ),
    "a deep header": (
        file_of(0)[:0] + (200_000).to_bytes(8, "little") + b"[" * 200_000,
        "not weights of cytoloop",
    ),
    "no metadata": (file_of({"a": 1}), "not weights of cytoloop"),
    "another kind of metadata": (file_of({"__metadata__": [1]}), "not weights of cytoloop"),
    "no text": (file_of({"__metadata__": {"cytoloop": 1}}), "not weights of cytoloop"),
    "deep metadata": (file_of({"__metadata__": {"cytoloop": "[" * 99_999}}), "not weights of cytoloop"),
    "a wide network": (file_of({"__metadata__": described(width=10**6)}), "bytes of weights, the file has"),
    "a deep network": (
        file_of({"__metadata__": described(poolings=10**9)}),
        "bytes of weights, the file has",
    ),
    "many channels": (
        file_of({"__metadata__": described(in_channels=10**9)}),
        "bytes of weights, the file has",
    ),
    "many classes": (
        file_of({"__metadata__": described(class_count=10**9)}),
        "bytes of weights, the file has",
    ),
    "a width that is text": (file_of({"__metadata__": described(width="4")}), "cannot be used"),
    "an endless width": (
        file_of({"__metadata__": described(width=10**400)}),
        "bytes of weights, the file has",
    ),
    "tensors beyond the file": (
        file_of(
            {
                "__metadata__": described(),
                "head.weight": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]},
            },
            bytes(100_000),
        ),
        "its tensors are not those of",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_file_that_claims_much_is_refused(tmp_path: Path, name: str) -> None:
    content, message = CLAIMS[name]
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    vouch(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=message):
        load_weights(tmp_path)
    if sys.platform == "linux":
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100


def test_a_file_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / WEIGHTS_FILE).open("wb") as file:
        file.truncate(LARGEST_WEIGHTS + 1)
    with pytest.raises(InputError, match=f"{LARGEST_WEIGHTS + 1} bytes, expected at most {LARGEST_WEIGHTS}"):
        load_weights(tmp_path, "0" * 64)


@pytest.mark.timeout(20)
def test_a_pipe_holds_no_weights(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match="a named pipe, expected a file"):
        load_weights(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["head.weight", "bottleneck.1.running_var"])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, name: str, value: float) -> None:
    net = UNet(CONFIG)
    net.state_dict()[name].view(-1)[0] = value
    digest = save_weights(tmp_path, net, CONFIG, Normalisation())
    with pytest.raises(InputError, match=f"tensor '{name}' holds what is no finite number"):
        load_weights(tmp_path, digest)


@pytest.mark.parametrize(
    "change",
    [{"head.weight": torch.zeros(1)}, {"head.weight": None}, {"more": torch.zeros(1)}],
    ids=["shape", "lacks", "more"],
)
def test_tensors_that_are_not_the_networks_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    save_weights(tmp_path, UNet(CONFIG), CONFIG, Normalisation())
    state = {**load_file(tmp_path / WEIGHTS_FILE), **change}
    save_file(
        {key: value for key, value in state.items() if value is not None},
        tmp_path / WEIGHTS_FILE,
        metadata=described(),
    )
    vouch(tmp_path)
    with pytest.raises(InputError, match="its tensors are not those of"):
        load_weights(tmp_path)


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "1",
        '"a"',
        "{}",
        '{"format": 1}',
        '{"format": 1, "identity": [], "document": {}}',
        "[" * 100_000,
        '{"format": 1, "identity": {}, "document": []}',
    ],
    ids=range(8),
)
def test_a_checkpoint_that_says_nothing_is_refused(tmp_path: Path, document: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / CHECKPOINT_FILE, metadata={"cytoloop_run": document})
    with pytest.raises(CheckpointRefused, match=r"checkpoint\.safetensors: "):
        load_checkpoint(tmp_path, {})


@pytest.mark.parametrize("epoch", [None, "1", -1, 1.5, True, [1]])
def test_a_checkpoint_of_no_epoch_is_refused(tmp_path: Path, epoch: object) -> None:
    document = {"format": 1, "identity": {}, "document": {"epoch": epoch}}
    save_file(
        {"x": torch.zeros(1)}, tmp_path / CHECKPOINT_FILE, metadata={"cytoloop_run": json.dumps(document)}
    )
    with pytest.raises(CheckpointRefused, match=r"epoch .*, expected a whole number >= 0"):
        epochs_done(tmp_path)
