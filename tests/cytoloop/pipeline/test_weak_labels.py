"""Weak labels of the store: made once, by the present recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from samples import make_record, write_field

from cytoloop.adapters.images import read_image, read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.weak_label import CONFIDENCE, weak_label_command
from cytoloop.domain.assay import Cip, Teacher
from cytoloop.domain.cip import MIN_IMAGES_FOR_ILLUMINATION, make_weak_label
from cytoloop.domain.errors import ImageUnreadable
from cytoloop.pipeline.weak_labels import weak_confidences, weak_label_store, weak_masks

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import SmallHome


def test_what_is_missing_is_made_once(home: SmallHome) -> None:
    seen: list[tuple[int, int]] = []
    assert weak_label_store(home.store, home.assay, lambda done, total: seen.append((done, total))) == 6
    assert seen == [(n, 6) for n in range(1, 7)]
    assert weak_label_store(home.store, home.assay) == 0
    record = home.store.images.get("rosella", "P_B01_f1")
    stored = home.store.masks.get(weak_masks(home.store, home.assay)["P_B01_f1"])
    direct = make_weak_label(read_image(record, home.assay), record.image_key, home.assay.cip)
    np.testing.assert_array_equal(stored, direct.mask_HW)
    assert set(np.unique(stored)) == {0, 1, 2}


def test_new_images_and_another_recipe_are_labelled_beside_the_old(home: SmallHome, tmp_path: Path) -> None:
    weak_label_store(home.store, home.assay)
    before = weak_masks(home.store, home.assay)
    write_field(home.plate / "P_C01_f1.tif", 9)
    home.store.images.add(home.assay, read_plate(home.plate, home.assay))
    assert weak_label_store(home.store, home.assay) == 1
    other = replace(home.assay, cip=Cip(recipe="rosella", parameters={"camera_offset": 50}))
    assert weak_masks(home.store, other) == {}
    assert weak_label_store(home.store, other) == 7
    assert weak_masks(home.store, home.assay).items() >= before.items()


def test_the_store_holds_what_the_command_writes(home: SmallHome, tmp_path: Path) -> None:
    for number in range(
        MIN_IMAGES_FOR_ILLUMINATION
    ):  # enough for an illumination, and one plate of other size
        write_field(home.plate / f"Q_A{number + 1:02d}_f1.tif", 20 + number)
    image_CHW = np.random.default_rng(0).poisson(500, (2, 48, 64)).astype(np.uint16)
    tifffile.imwrite(home.plate / "Q_D01_f1.tif", image_CHW, photometric="minisblack")
    home.store.images.add(home.assay, read_plate(home.plate, home.assay))
    weak_label_store(home.store, home.assay)
    weak_label_command(home.plate, tmp_path / "weak", home.assay)
    for image_id, digest in weak_masks(home.store, home.assay).items():
        written = read_mask(tmp_path / "weak" / f"{image_id}.png")
        np.testing.assert_array_equal(home.store.masks.get(digest), written, err_msg=image_id)


def test_what_several_teachers_said_is_kept_with_how_sure_they_were(home: SmallHome, tmp_path: Path) -> None:
    weak_label_store(home.store, home.assay)
    assert weak_confidences(home.store, home.assay) == {}
    cip = Cip(recipe="rosella", teachers=(Teacher(parameters={"psf_sigma": 2}),))
    voting = replace(home.assay, cip=cip)
    assert weak_label_store(home.store, voting) == 6
    assert weak_label_store(home.store, replace(voting, cip=replace(cip, agreement=1.0))) == 0
    weak_label_command(home.plate, tmp_path / "weak", voting)
    assert set(weak_confidences(home.store, voting)) == set(weak_masks(home.store, voting))
    for image_id, digest in weak_confidences(home.store, voting).items():
        stored = home.store.masks.get(digest)
        assert set(np.unique(stored)) == {128, 255}
        np.testing.assert_array_equal(stored, read_mask(tmp_path / "weak" / CONFIDENCE / f"{image_id}.png"))


def test_an_image_that_is_gone_is_named(home: SmallHome) -> None:
    home.store.images.add(home.assay, [make_record("gone", height=64, width=64)])
    with pytest.raises(ImageUnreadable, match=r"/plate/gone\.tif: no such file"):
        weak_label_store(home.store, home.assay)
