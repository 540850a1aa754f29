"""Where a model's doubt of an item lies for the editor: one file an item, at a path that never changes.

Task data are fixed, so their URL of the doubt map is too: a new map takes the place of the old one, in one
rename. Label Studio gives such a file an ETag of its time and size and no ``Cache-Control``: a browser
asks again each time it loads the page and gets the new one. A page that stays open keeps what it has shown
for up to half an hour; an item not yet opened in it shows its new map at once. Where there is no map to show, the path is a
symbolic link to a notice that says so, one for each size of picture.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from cytoloop.adapters.images import write_atomically
from cytoloop.domain.assay import Assay
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord

FOLDER = "doubt"
"""Below the assay's views, and so below its local storage."""

Notice = Literal["none", "hidden"]
WORDS: dict[Notice, str] = {"none": "No doubt map yet", "hidden": "Not shown for this item"}
"""In the picture itself. *none*: no model in force has looked; *hidden*: it would lead the expert's hand."""

_PAPER, _INK = 52, 170
_LEAST_LETTERS_PX = 9
"""Smaller than this nobody reads it: the notice is then plain grey."""


def doubt_folder(home: Path, assay: str) -> Path:
    """Where the doubt maps of an assay lie."""
    return home / "renders" / assay / FOLDER


def doubt_name(record: ImageRecord, tile: int) -> str:
    """File name of an item's doubt map.

    Named by the pixels, so that a re-imported image never shows another's, and by the image's id: of two
    images with equal pixels one may be shown and the other not.
    """
    image = hashlib.sha256(record.image_id.encode()).hexdigest()
    return f"{record.image_key[:24]}_{image[:12]}_{tile}.png"


def doubt_url(record: ImageRecord, tile: int, assay: Assay) -> str:
    """Host-relative URL under which Label Studio serves it, the same for ever."""
    return f"/data/local-files/?d={quote(assay.name)}/{FOLDER}/{doubt_name(record, tile)}"


def ensure_doubts(home: Path, assay: Assay, record: ImageRecord) -> None:
    """Put a notice where an item of this image has nothing yet: the editor never shows a broken picture."""
    folder = doubt_folder(home, assay.name)
    for tile in tiles_of(record.height, record.width, assay.tiling):
        if not (folder / doubt_name(record, tile.index)).exists():
            show_notice(home, assay, record, tile.index, "none")


def show_notice(home: Path, assay: Assay, record: ImageRecord, tile: int, notice: Notice) -> None:
    """Show a notice in place of an item's doubt map, in one step."""
    place = tiles_of(record.height, record.width, assay.tiling)[tile]
    folder = doubt_folder(home, assay.name)
    _link(folder / doubt_name(record, tile), notice, place.height, place.width)


def lacks_map(home: Path, assay: Assay, record: ImageRecord, tile: int) -> bool:
    """Whether an item shows that there is no doubt map yet; False where it is hidden on purpose."""
    path = doubt_folder(home, assay.name) / doubt_name(record, tile)
    return not path.exists() or (path.is_symlink() and path.readlink().name.startswith("none_"))


def withdraw_doubts(home: Path, assay: Assay) -> int:
    """Take back every doubt map that is shown; returns how many there were. Hidden items stay hidden.

    To be called before another version comes into force: no version's doubt is shown beside another's
    objects.
    """
    folder = doubt_folder(home, assay.name)
    if not folder.is_dir():
        return 0
    maps = [Path(entry.path) for entry in os.scandir(folder) if _is_map(entry)]
    for path in maps:
        with Image.open(path) as picture:
            width, height = picture.size
        _link(path, "none", height, width)
    return len(maps)


def notice_picture(notice: Notice, height: int, width: int) -> NDArray[np.uint8]:
    """A dark grey picture that says why there is no doubt map: uint8 (H, W), without words where tiny."""
    picture = Image.new("L", (width, height), _PAPER)
    font = ImageFont.load_default(size=max(_LEAST_LETTERS_PX, width // 13))
    left, top, right, bottom = font.getbbox(WORDS[notice])
    if right - left < width and bottom - top < height:
        place = ((width - left - right) / 2, (height - top - bottom) / 2)
        ImageDraw.Draw(picture).text(place, WORDS[notice], fill=_INK, font=font)
    return np.asarray(picture)


def _link(path: Path, notice: Notice, height: int, width: int) -> None:
    target = _notice(path.parent, notice, height, width)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".link-") as folder:
        link = Path(folder) / path.name
        # Relative to where it will lie: the home may move, or be mounted elsewhere.
        link.symlink_to(target.name)
        link.replace(path)


def _notice(folder: Path, notice: Notice, height: int, width: int) -> Path:
    path = folder / f"{notice}_{height}x{width}.png"
    if not path.is_file():
        # The editor takes a picture of less than 100 bytes for a broken one; a small plain one has 80.
        told = PngInfo()
        told.add_text(
            "Description", f"{WORDS[notice]}: what takes the place of a picture of the model's doubt"
        )
        picture = Image.fromarray(notice_picture(notice, height, width))
        write_atomically(path, lambda file: picture.save(file, format="PNG", pnginfo=told))
    return path


def _is_map(entry: os.DirEntry[str]) -> bool:
    is_notice = entry.name.startswith(tuple(f"{notice}_" for notice in WORDS))
    return entry.is_file(follow_symlinks=False) and not is_notice and not entry.name.startswith(".")
