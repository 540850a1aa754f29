import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cytoloop.domain.errors import InputError
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import WEIGHTS_FILE, LoadedModel, load_weights, note_digest, save_weights

CONFIG = UNetConfig(in_channels=2, class_count=3, width=4)
NORMALISATION = Normalisation(low=2.5, high=99.0)


def load_whatever(folder: Path) -> LoadedModel:
    """Load what lies there, whatever it is: somebody vouched for it."""
    if (folder / WEIGHTS_FILE).is_file():
        note_digest(folder, hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest())
    return load_weights(folder)


def test_loaded_weights_predict_what_the_saved_ones_did(tmp_path: Path) -> None:
    net = UNet(CONFIG, seed=4)
    net(torch.randn(2, 2, 32, 32, generator=torch.Generator().manual_seed(0)))  # moves the batch norms
    digest = save_weights(tmp_path / "version", net, CONFIG, NORMALISATION)
    loaded = load_weights(tmp_path / "version", digest)
    assert (loaded.config, loaded.normalisation, loaded.digest) == (CONFIG, NORMALISATION, digest)
    assert not loaded.model.training
    raw = np.random.default_rng(0).integers(0, 4000, (2, 30, 41)).astype(np.uint16)
    np.testing.assert_array_equal(
        predict_prob(loaded.model, raw, loaded.normalisation), predict_prob(net, raw, NORMALISATION)
    )


def test_digest_is_of_the_file_and_equal_for_equal_weights(tmp_path: Path) -> None:
    digests = {save_weights(tmp_path / str(n), UNet(CONFIG, seed=4), CONFIG, NORMALISATION) for n in range(5)}
    assert digests == {hashlib.sha256((tmp_path / "0" / WEIGHTS_FILE).read_bytes()).hexdigest()}
    other = save_weights(tmp_path / "other", UNet(CONFIG, seed=5), CONFIG, NORMALISATION)
    assert other not in digests
    renormalised = save_weights(tmp_path / "again", UNet(CONFIG, seed=4), CONFIG, Normalisation())
    assert renormalised not in digests


def test_nothing_but_the_weights_is_left_in_the_folder(tmp_path: Path) -> None:
    save_weights(tmp_path, UNet(CONFIG), CONFIG, NORMALISATION)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]


def test_changed_weights_are_refused_and_both_digests_named(tmp_path: Path) -> None:
    digest = save_weights(tmp_path, UNet(CONFIG), CONFIG, NORMALISATION)
    path = tmp_path / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_weights(tmp_path, digest)
    assert digest in str(caught.value)
    assert hashlib.sha256(content).hexdigest() in str(caught.value)


@pytest.mark.parametrize("kept", [0, 5, 200, -10])
def test_a_cut_file_is_an_input_error(tmp_path: Path, kept: int) -> None:
    save_weights(tmp_path, UNet(CONFIG), CONFIG, NORMALISATION)
    path = tmp_path / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=WEIGHTS_FILE):
        load_whatever(tmp_path)


def test_missing_and_foreign_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_whatever(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / WEIGHTS_FILE)
    with pytest.raises(InputError, match="not weights of cytoloop"):
        load_whatever(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / WEIGHTS_FILE, metadata={"cytoloop": '{"format": 9}'})
    with pytest.raises(InputError, match="format 9, expected 1"):
        load_whatever(tmp_path)


def test_tensors_of_another_network_are_refused(tmp_path: Path) -> None:
    wider = UNet(replace(CONFIG, width=8))
    described = {"format": 1, "network": CONFIG.to_dict(), "normalisation": NORMALISATION.to_dict()}
    save_file(wider.state_dict(), tmp_path / WEIGHTS_FILE, metadata={"cytoloop": json.dumps(described)})
    with pytest.raises(InputError, match="tensors"):
        load_whatever(tmp_path)


def test_the_config_must_be_the_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected"):
        save_weights(tmp_path, UNet(CONFIG), replace(CONFIG, width=8), NORMALISATION)
