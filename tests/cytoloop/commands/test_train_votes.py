"""``cytoloop train --weak``: how sure several teachers were, read beside their masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import make_assay, write_field

from cytoloop.adapters.images import write_mask
from cytoloop.commands.train import TrainOptions, train_from_folders
from cytoloop.commands.weak_label import CONFIDENCE
from cytoloop.domain.assay import Assay, Cip, Teacher
from cytoloop.domain.errors import PlateError, ShapeError

STRICT = make_assay(
    cip=Cip(recipe="rosella", teachers=(Teacher(parameters={"psf_sigma": 2}),), agreement=1.0)
)


@pytest.fixture
def options(tmp_path: Path) -> TrainOptions:
    """Weak masks of eight wells, on no pixel of which both teachers agree."""
    for number in range(8):
        name = f"P_B{number + 1:02d}_f1"
        _, truth_HW = write_field(tmp_path / "plate" / f"{name}.tif", number)
        write_mask(tmp_path / "weak" / f"{name}.png", truth_HW)
        write_mask(tmp_path / "weak" / CONFIDENCE / f"{name}.png", np.full((64, 64), 128, np.uint8))
    return TrainOptions(
        method="cdl",
        preset="smoke",
        seed=0,
        device="cpu",
        images=tmp_path / "plate",
        weak=tmp_path / "weak",
        out=tmp_path / "out",
    )


def train(assay: Assay, options: TrainOptions) -> None:
    train_from_folders(assay, options, lambda epoch: None)


def test_what_no_two_teachers_agree_on_teaches_nothing(options: TrainOptions) -> None:
    with pytest.raises(PlateError, match="no training well has a mask for method 'cdl'"):
        train(STRICT, options)


def test_a_confidence_of_another_size_is_named(options: TrainOptions) -> None:
    assert options.weak is not None
    for path in (options.weak / CONFIDENCE).iterdir():
        write_mask(path, np.full((64, 63), 128, np.uint8))
    with pytest.raises(ShapeError, match=r"confidence/P_B.*png: confidence \(64, 63\), image \(64, 64\)"):
        train(replace(STRICT, cip=Cip(recipe="rosella")), options)
