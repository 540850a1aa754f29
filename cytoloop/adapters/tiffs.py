"""TIFF files of others, opened only after a look at what they claim; every reader of TIFF goes through here."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from cytoloop.adapters.picture_limits import LARGEST_FILE, LARGEST_PIXELS_BYTES, check_tiff
from cytoloop.domain.errors import ImageUnreadable
from cytoloop.files import opened

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our error says where and what, once

_NO_OTHER_LAYOUT = {
    f"is_{name}": False
    for name in (
        *("lsm", "mmstack", "ndtiff", "fluoview", "sis", "svs", "scn", "qpi", "ndpi", "bif", "avs", "eer"),
        *("philips", "indica", "scanimage", "nih", "mdgel"),
    )
    if name in tifffile.TIFF.FILE_FLAGS
}
"""Layouts of TIFF that are not looked for: they are of slides, or lead to further files."""
_UNPACKED_AT_ONCE = 2
"""Strips: each may take 64 MB before it is known to be too large."""


@contextmanager
def opened_tiff(path: Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF whose directories, tags and strips are bearable, and which leads to no other file.

    Raises
    ------
    ImageUnreadable
        If it claims more than ``picture_limits`` lets pass, or is no file.
    Exception
        Whatever the library stumbles over in a damaged file.
    """
    with opened(path, LARGEST_FILE, ImageUnreadable) as file, tiff_of(path, file) as tiff:
        yield tiff


@contextmanager
def tiff_of(path: Path, file: BinaryIO) -> Iterator[tifffile.TiffFile]:
    """The same of a file that is open already; ``path`` is for messages."""
    check_tiff(path, file)
    with tifffile.TiffFile(file, _multifile=False, **_NO_OTHER_LAYOUT) as tiff:
        yield tiff


def values_of(path: Path, pages: Any) -> NDArray[Any]:
    """The values of a page or of a series of pages, if they fit.

    Raises
    ------
    ImageUnreadable
        If they take more than ``LARGEST_PIXELS_BYTES``.
    """
    size = math.prod(pages.shape) * np.dtype(pages.dtype).itemsize
    if size > LARGEST_PIXELS_BYTES:
        raise ImageUnreadable(
            f"{path}: array of shape {tuple(pages.shape)} takes {size} bytes, expected at most {LARGEST_PIXELS_BYTES}"
        )
    array: NDArray[Any] = pages.asarray(maxworkers=_UNPACKED_AT_ONCE)
    return array
