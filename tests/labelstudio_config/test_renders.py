from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import HEIGHT, WIDTH, Tiny, make_tiny

from cytoloop.adapters.images import read_image, write_png
from cytoloop.domain.assay import Display
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord
from labelstudio_config.renders import render_folder, render_images, view_names, view_urls


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    yield made
    made.store.close()


def view(tiny: Tiny, name: str) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(render_folder(tiny.home, tiny.name) / name) as picture:
        return np.asarray(picture)


def test_every_item_has_views_of_exactly_its_size(tiny: Tiny) -> None:
    for record in tiny.store.images.all(tiny.name):
        for tile in tiles_of(record.height, record.width, tiny.assay.tiling):
            composite, *channels = [view(tiny, name) for name in view_names(record, tile.index, 2)]
            assert composite.shape == (tile.height, tile.width, 3)
            assert [grey.shape for grey in channels] == [(tile.height, tile.width)] * 2
            assert all(picture.dtype == np.uint8 for picture in (composite, *channels))


def one_bright_pixel(tiny: Tiny, folder: Path, row: int, column: int) -> ImageRecord:
    """A field that is dark but for one pixel of the first channel."""
    files = []
    image_CHW = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    image_CHW[0, row, column] = 255
    for channel, grey_HW in enumerate(image_CHW):
        write_png(folder / f"dot_c{channel}.png", grey_HW)
        files.append(str(folder / f"dot_c{channel}.png"))
    first = tiny.store.images.all(tiny.name)[0]
    return dataclasses.replace(
        first, image_key=digest_of_pixels(image_CHW), image_id="dot", files=tuple(files)
    )


@pytest.mark.parametrize(("row", "column", "tile"), [(0, 0, 0), (31, 40, 1), (32, 39, 2), (63, 79, 3)])
def test_a_pixel_of_the_view_is_where_the_raw_pixel_is(
    tiny: Tiny, tmp_path: Path, row: int, column: int, tile: int
) -> None:
    fixed = Display(ranges={"Stain": (0.0, 255.0), "DNA": (0.0, 255.0)}, scope="plate")
    assay = dataclasses.replace(tiny.assay, display=fixed)
    record = one_bright_pixel(tiny, tmp_path, row, column)
    assert render_images(tiny.store, assay, [record]) == 1
    for index in range(4):
        composite, stain, dna = [view(tiny, name) for name in view_names(record, index, 2)]
        bright = [(int(r), int(c)) for r, c in np.argwhere(stain > 127)]
        assert bright == ([(row % 32, column % 40)] if index == tile else [])
        np.testing.assert_array_equal(composite[..., 1], stain, "the stain is shown in green")
        assert not composite[..., [0, 2]].any()
        assert not dna.any()


def test_the_tiles_put_together_are_the_stretched_image(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    quarters = [view(tiny, view_names(record, index, 2)[2]) for index in range(4)]
    whole = np.block([quarters[:2], quarters[2:]]).astype(np.int64)
    raw = read_image(record, tiny.assay)[1]
    order = np.argsort(raw, axis=None, kind="stable")
    assert (np.diff(whole.ravel()[order]) >= 0).all(), "brighter stays brighter, pixel by pixel"


def test_views_that_exist_are_left_alone(tiny: Tiny) -> None:
    records = tiny.store.images.all(tiny.name)
    path = render_folder(tiny.home, tiny.name) / view_names(records[0], 0, 2)[0]
    before = path.stat().st_mtime_ns
    assert render_images(tiny.store, tiny.assay, records) == 0
    path.unlink()
    told: list[tuple[int, int]] = []
    assert render_images(tiny.store, tiny.assay, records, lambda *step: told.append(step)) == 1
    assert path.stat().st_mtime_ns > before
    assert told[-1] == (2, 2), "progress comes to its end, whatever was there already"


def test_a_plate_keeps_the_range_it_was_first_shown_with(tiny: Tiny) -> None:
    assay = dataclasses.replace(tiny.assay, display=Display(scope="plate"))
    first, second = tiny.store.images.all(tiny.name)
    for path in render_folder(tiny.home, tiny.name).glob("*.png"):
        path.unlink()
    render_images(tiny.store, assay, [first])
    before = tiny.store.images.display_ranges(tiny.name, "P")
    assert set(before) == {"Stain", "DNA"}
    render_images(tiny.store, assay, [first, second])
    assert tiny.store.images.display_ranges(tiny.name, "P") == before


def test_urls_name_the_files_of_the_item_under_the_assay(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    urls = view_urls(record, 3, tiny.assay)
    names = view_names(record, 3, 2)
    assert urls == [f"/data/local-files/?d=tiny/{name}" for name in names]
    assert len({*view_names(record, 0, 2), *names}) == 6, "no two views share a file"
