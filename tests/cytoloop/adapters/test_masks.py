"""Masks named by their content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from cytoloop.adapters.images import write_mask
from cytoloop.adapters.masks import Masks
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ImageUnreadable, ShapeError

MASK = np.array([[0, 1, 2], [255, 0, 1]], np.uint8)


@given(mask_HW=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)))
@settings(max_examples=30, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, mask_HW: Any) -> None:
    masks = Masks(tmp_path_factory.getbasetemp() / "masks")
    digest = masks.put(mask_HW)
    assert digest == digest_of_pixels(mask_HW)
    np.testing.assert_array_equal(masks.get(digest), mask_HW)


def test_equal_masks_are_one_file_that_never_changes(tmp_path: Path) -> None:
    masks = Masks(tmp_path)
    digest = masks.put(MASK)
    before = masks.path(digest).stat()
    assert masks.put(MASK.copy()) == digest
    assert masks.path(digest).stat() == before
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_equal_values_of_another_shape_are_another_mask(tmp_path: Path) -> None:
    masks = Masks(tmp_path)
    assert masks.put(MASK) != masks.put(MASK.reshape(3, 2))


def test_a_missing_or_damaged_mask_is_an_error(tmp_path: Path) -> None:
    masks = Masks(tmp_path)
    digest = masks.put(MASK)
    write_mask(masks.path(digest), MASK + 1)
    with pytest.raises(ImageUnreadable, match=rf"{digest}\.png: pixels have digest .*, expected {digest}"):
        masks.get(digest)
    masks.path(digest).write_bytes(b"")
    with pytest.raises(ImageUnreadable, match=r"cannot be read as a mask"):
        masks.get(digest)
    masks.path(digest).unlink()
    with pytest.raises(ImageUnreadable, match="no such file"):
        masks.get(digest)


def test_what_is_no_mask_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(ShapeError):
        Masks(tmp_path).put(MASK.astype(np.int16))  # type: ignore[arg-type]
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_a_mask_reaches_the_disk_with_the_folders_that_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    masks = Masks(tmp_path / "home" / "masks")
    path = masks.path(masks.put(MASK))
    assert synced[0].name.startswith(f".{path.name}.")  # the file, before it gets its name
    assert {path.parent, path.parent.parent, path.parent.parent.parent} <= set(synced)
