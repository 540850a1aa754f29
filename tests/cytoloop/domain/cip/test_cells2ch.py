"""Cells and nuclei on a drawn field, and on the real fields where they are at hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytoloop.domain.assay import Cip
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.cip import operators as op

CELLS = Cip(recipe="cells2ch")
REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "u2os-hoechst-gal3"
Y, X = np.mgrid[:200, :240]


def disc(row: int, column: int, radius: int) -> np.ndarray:
    return (Y - row) ** 2 + (X - column) ** 2 <= radius**2


CELL = disc(90, 80, 38) | disc(100, 170, 34)
NUCLEUS = disc(92, 82, 14) | disc(96, 168, 13)


def field(vignetting: float = 0.0) -> np.ndarray:
    stain = np.where(CELL, 45.0, 15.0)
    stain[disc(90, 60, 5)] = 230  # one very bright spot, as in a dying cell
    dna = np.where(disc(92, 82, 14), 200.0, np.where(disc(96, 168, 13), 90.0, 10.0))
    light = 1 - vignetting * ((Y - 100) ** 2 + (X - 120) ** 2) / (100**2 + 120**2)
    clean = np.stack([op.gaussian_blur((c * light).astype(np.float32), 1.0) for c in (stain, dna)])
    return (
        np.clip(clean + np.random.default_rng(2).normal(0, 2, clean.shape), 0, 255).round().astype(np.float32)
    )


def ious(mask: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(((mask == k) & (truth == k)).sum() / ((mask == k) | (truth == k)).sum()) for k in range(3)]


@pytest.mark.parametrize("vignetting", [0.0, 0.4])
def test_cells_and_nuclei_are_found_and_the_nucleus_wins(vignetting):
    truth = np.where(NUCLEUS, 2, np.where(CELL, 1, 0))
    mask = make_weak_label(field(vignetting), "k", CELLS).mask_HW
    assert min(ious(mask, truth)) > 0.85
    assert op.components(mask == 2)[1] == 2


def test_nuclei_of_any_brightness_keep_their_size():
    mask = make_weak_label(field(), "k", CELLS).mask_HW == 2
    for truth in (disc(92, 82, 14), disc(96, 168, 13)):
        assert (mask & op.gaussian_blur(truth.astype(np.float32), 4).astype(bool)).sum() == pytest.approx(
            truth.sum(), rel=0.15
        )


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"real images are not at {REAL}")
def test_real_fields_beat_plain_thresholds():
    with (REAL / "index.csv").open(newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file) if row["split"] == "val"]
    masks, truths = [], []
    for image_id in ids:
        channels = [Image.open(REAL / "images" / f"{image_id}_{c}.png") for c in ("ch1-gal3", "ch2-hoechst")]
        image = np.stack([np.asarray(c, dtype=np.float32) for c in channels])
        masks.append(make_weak_label(image, image_id, CELLS).mask_HW)
        truths.append(np.asarray(Image.open(REAL / "labels" / f"{image_id}.png")))
    assert np.mean(ious(np.stack(masks), np.stack(truths))) > 0.86  # pooled; the data's README has 0.86
