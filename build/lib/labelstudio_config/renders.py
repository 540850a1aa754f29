"""8-bit views of items for the editor: a composite and each channel alone, and what the model doubts.

All lie on the raw pixel grid.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytoloop.adapters.images import read_image, write_png
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.display import composite, display_ranges, to_8bit
from cytoloop.domain.doubt_picture import doubt_picture
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item
from labelstudio_config.doubt import doubt_folder, doubt_name, ensure_doubts, show_notice

Progress = Callable[[int, int], None]
_SAMPLED_FIELDS = 48
"""Fields of a plate that its display range is taken from: the range settles long before."""


def render_folder(home: Path, assay: str) -> Path:
    """Where the views of an assay lie; Label Studio's local storage serves it."""
    return home / "renders" / assay


def view_names(record: ImageRecord, tile: int, channels: int) -> list[str]:
    """File names of an item's views: the composite first, then each channel.

    Named by the pixels, so that a re-imported image never shows another's picture.
    """
    stem = f"{record.image_key[:24]}_{tile}"
    return [f"{stem}.png", *(f"{stem}_c{number}.png" for number in range(channels))]


def view_urls(record: ImageRecord, tile: int, assay: Assay) -> list[str]:
    """Host-relative URLs under which Label Studio serves the views."""
    names = view_names(record, tile, len(assay.channels))
    return [f"/data/local-files/?d={quote(assay.name)}/{quote(name)}" for name in names]


def render_images(
    store: Store, assay: Assay, records: Sequence[ImageRecord], progress: Progress | None = None
) -> int:
    """Write the views that are missing; returns how many images were rendered.

    An item without a doubt map gets a notice in its place. The range of a plate is fixed by its first fields and kept, so that a field looks the same
    tomorrow; with ``scope: image`` each field has its own.
    """
    folder = render_folder(store.home, assay.name)
    folder.mkdir(parents=True, exist_ok=True)
    made = done = 0
    by_plate = sorted(records, key=lambda record: (record.plate, record.image_id))
    for plate, fields in groupby(by_plate, key=lambda record: record.plate):
        of_plate = list(fields)
        ranges = store.images.display_ranges(assay.name, plate)
        if assay.display.scope == "plate" and not ranges:
            ranges = plate_ranges(of_plate, assay)
            store.images.set_display_ranges(assay.name, plate, ranges)
        for record in of_plate:
            made += _render_one(folder, record, assay, ranges)
            ensure_doubts(store.home, assay, record)
            done += 1
            if progress:
                progress(done, len(records))
    return made


def render_doubts(
    store: Store,
    assay: Assay,
    doubts: Iterable[tuple[ImageRecord, int, NDArray[np.floating], NDArray[np.uint8]]],
    hidden: Collection[Item] = (),
) -> int:
    """Show what a version doubts of these items; returns how many maps that were.

    Each map takes its predecessor's place in one step. Other items keep what they show: see
    ``doubt.withdraw_doubts`` for what a new version has to do first.

    Parameters
    ----------
    doubts : iterable of (record, tile, doubt_HW, mask_HW)
        Doubt from 0 (sure) to 1 (no idea) and label mask of the version, of the tile's size.
    hidden : collection of Item
        Items that must not show any (blank canvas, contest, overlap, gold): they get a notice instead, before the
        first map is written, also where they are not among ``doubts``.

    Raises
    ------
    ShapeError
        If a size is not the tile's, or a doubt is not within 0 … 1; the message names the item.
    """
    unshown = frozenset(hidden)
    for item in sorted(unshown):
        show_notice(store.home, assay, store.images.get(assay.name, item.image_id), item.tile, "hidden")
    views = render_folder(store.home, assay.name)
    shown = 0
    for record, tile, doubt_HW, mask_HW in doubts:
        if Item(image_id=record.image_id, tile=tile) in unshown:
            continue
        view = views / view_names(record, tile, len(assay.channels))[0]
        if not view.is_file():
            render_images(store, assay, [record])
        with Image.open(view) as composite_HW3:
            picture = doubt_picture(
                np.asarray(composite_HW3), doubt_HW, mask_HW, assay, f"doubt of {record.image_id}/{tile}"
            )
        write_png(doubt_folder(store.home, assay.name) / doubt_name(record, tile), picture)
        shown += 1
    return shown


def plate_ranges(of_plate: Sequence[ImageRecord], assay: Assay) -> dict[str, tuple[float, float]]:
    """Black and white point by channel of a plate, from some of its fields."""
    step = max(1, len(of_plate) // _SAMPLED_FIELDS)
    return display_ranges((read_image(record, assay) for record in of_plate[::step]), assay)


def _render_one(
    folder: Path, record: ImageRecord, assay: Assay, plate_ranges: dict[str, tuple[float, float]]
) -> bool:
    tiles = tiles_of(record.height, record.width, assay.tiling)
    names = {tile.index: view_names(record, tile.index, len(assay.channels)) for tile in tiles}
    if all((folder / name).is_file() for of_tile in names.values() for name in of_tile):
        return False
    image_CHW = read_image(record, assay)
    ranges = display_ranges([image_CHW], assay) if assay.display.scope == "image" else plate_ranges
    views = [composite(image_CHW, ranges, assay)]
    views += [
        to_8bit(grey_HW, *ranges[channel.name])
        for grey_HW, channel in zip(image_CHW, assay.channels, strict=True)
    ]
    for tile in tiles:
        for name, view in zip(names[tile.index], views, strict=True):
            write_png(folder / name, view[tile.slices])
    return True
