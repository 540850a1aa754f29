"""What a picture may ask for, told by its header before a pixel of it is unpacked.

A file of a few kilobytes can claim gigabytes: by its size, by its number of planes, by what its strips unpack to. The
decoders believe it; so they are not asked before it was looked at here.

Legend: H rows, W columns.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from cytoloop.domain.errors import ImageUnreadable

LARGEST_FILE = 1 << 30
"""Bytes."""
LARGEST_PLANE = 1 << 26
"""Pixels, 8192 x 8192: the largest field of a screen has some 5000 x 5000."""
MOST_PLANES = 16
LARGEST_PIXELS_BYTES = 1 << 29
"""Bytes of all planes of one file, unpacked."""
MOST_PAGES = 256
"""Directories of a TIFF, with those of its thumbnails."""
LARGEST_TAG = 16 << 20
"""Bytes: the OME-XML of a whole plate may stand in each of its files."""
LARGEST_TAGS = 64 << 20
"""Bytes of all tags of a file."""
MOST_TAGS = 512
MOST_VALUES = 1 << 20
"""Of a tag of numbers, such as the places of its tiles."""


class NotAPicture(ValueError):
    """Bytes that are no TIFF or PNG; the message says why, and whoever asked for the file says which it was."""


_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value, by type."""
_BYTES = (1, 2, 6, 7)
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_DIRECTORIES = (330, 34665, 34853, 40965)
"""Tags that lead to further directories: thumbnails, EXIF, GPS, interoperability."""
_DESCRIPTION = 270
_NONE, _LZW, _DEFLATE, _PACKBITS = 1, 5, (8, 32946), 32773
_UNPACKED_ANYWAY = 64 << 20
"""Bytes that a strip may unpack to without being looked at: so much memory does no harm."""
_MOST_OF_BYTE = {_LZW: 2731, **dict.fromkeys(_DEFLATE, 1032), _PACKBITS: 64}
"""Bytes that come of one packed byte, at most."""
_PIECE = 1 << 18
_COUNTS = (
    "SizeZ",
    "SizeC",
    "SizeT",
    "IFD",
    "NumPlanes",
    "PlaneCount",
    "FirstZ",
    "FirstC",
    "FirstT",
    "SamplesPerPixel",
)


def check_pixels(path: Path, height: int, width: int, planes: int, bytes_per_value: float) -> None:
    """Refuse a picture of more pixels, planes or bytes than any field of a screen has.

    Raises
    ------
    ImageUnreadable
        Naming the path, what was got and what was expected.
    """
    if height < 1 or width < 1:
        raise ImageUnreadable(f"{path}: {height} x {width} pixels, expected at least one")
    if height * width > LARGEST_PLANE:
        raise ImageUnreadable(
            f"{path}: {height} x {width} pixels in a plane, expected at most {LARGEST_PLANE} (8192 x 8192)"
        )
    if planes > MOST_PLANES:
        raise ImageUnreadable(f"{path}: {planes} planes, expected at most {MOST_PLANES}")
    if height * width * planes * bytes_per_value > LARGEST_PIXELS_BYTES:
        raise ImageUnreadable(
            f"{path}: {planes} planes of {height} x {width} pixels take {height * width * planes * bytes_per_value:.0f} "
            f"bytes, expected at most {LARGEST_PIXELS_BYTES}"
        )


def check_png(path: Path, file: BinaryIO) -> None:
    """Refuse a PNG by the size that it claims; the file stands at its beginning afterwards.

    Raises
    ------
    ImageUnreadable
        If so; the message names the path.
    NotAPicture
        If it is no PNG.
    """
    head = file.read(29)
    file.seek(0)
    if len(head) < 29 or not head.startswith(_PNG):
        raise NotAPicture("not a PNG")
    width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    check_pixels(path, height, width, 1, _PNG_SAMPLES.get(colour, 4) * max(1, bits / 8))


def check_tiff(path: Path, file: BinaryIO) -> None:
    """Refuse a TIFF whose directories, tags, sizes or packed strips ask for too much.

    Every directory is looked at, also those of thumbnails; the file stands at its beginning afterwards.

    Raises
    ------
    ImageUnreadable
        If so; the message names the path.
    NotAPicture
        If it is no TIFF.
    """
    walk = _Walk(path, file)
    pages = walk.pages()
    if not pages or not {256, 257} & set(pages[0]):
        raise NotAPicture("its first directory says no size")
    for page in pages:
        _check_page(path, file, walk, page)
    file.seek(0)


@dataclass(frozen=True, slots=True)
class _Tag:
    kind: int
    count: int
    place: int
    """Where its values lie in the file."""


_Page = dict[int, _Tag]


class _Walk:
    """The directories of a TIFF, one after the other; their number and size are bounded."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        self.size = file.seek(0, 2)
        file.seek(0)
        head = file.read(16)
        self._order = {b"II": "<", b"MM": ">"}.get(head[:2], "")
        version = self._unpack("H", head[2:4])[0] if self._order and len(head) >= 8 else 0
        if version not in (42, 43) or (
            version == 43 and (len(head) < 16 or self._unpack("HH", head[4:8]) != (8, 0))
        ):
            raise self._unreadable("not a TIFF")
        self._is_big = version == 43
        self._first = self._unpack("Q", head[8:16])[0] if self._is_big else self._unpack("I", head[4:8])[0]
        self._tag_bytes = 0

    def pages(self) -> Sequence[_Page]:
        """All directories."""
        pages: list[_Page] = []
        waiting = [self._first]
        seen: set[int] = set()
        while waiting:
            offset = waiting.pop()
            if offset == 0:
                continue
            if offset in seen:
                raise self._unreadable(f"its directories lead in a circle, at byte {offset}")
            if len(seen) == MOST_PAGES:
                raise ImageUnreadable(
                    f"{self._path}: more than {MOST_PAGES} pages, expected at most that many"
                )
            seen.add(offset)
            page, following = self._page(offset)
            waiting.append(following)
            for code in _DIRECTORIES:
                waiting += self.values(page, code)[: MOST_PAGES + 1]
            pages.append(page)
        return pages

    def values(self, page: _Page, code: int) -> list[int]:
        """Whole numbers of a tag; none where it is missing or holds others."""
        tag = page.get(code)
        if tag is None or tag.kind not in _WHOLE or tag.count > MOST_VALUES:
            return []
        self._file.seek(tag.place)
        content = self._file.read(tag.count * _SIZES[tag.kind])
        if len(content) < tag.count * _SIZES[tag.kind]:
            raise self._unreadable(f"tag {code} lies beyond its end")
        return list(self._unpack(f"{tag.count}{_WHOLE[tag.kind]}", content))

    def value(self, page: _Page, code: int, default: int) -> int:
        """The first whole number of a tag."""
        return next(iter(self.values(page, code)), default)

    def text(self, page: _Page, code: int) -> bytes:
        """The bytes of a tag."""
        tag = page.get(code)
        if tag is None:
            return b""
        self._file.seek(tag.place)
        return self._file.read(tag.count * _SIZES[tag.kind])

    def _page(self, offset: int) -> tuple[_Page, int]:
        count_format, tag_format = ("Q", "HHQQ") if self._is_big else ("H", "HHII")
        threshold, next_format = (8, "Q") if self._is_big else (4, "I")
        self._file.seek(min(offset, self.size))
        (count,) = self._read(count_format)
        if count > MOST_TAGS:
            raise self._unreadable(f"{count} tags in a directory, expected at most {MOST_TAGS}")
        page: _Page = {}
        for _ in range(count):
            code, kind, values, place = self._read(tag_format)
            size = values * _SIZES.get(kind, 1)
            if size > LARGEST_TAG:
                raise self._unreadable(f"tag {code} has {size} bytes, expected at most {LARGEST_TAG}")
            if values > MOST_VALUES and kind not in _BYTES:
                raise self._unreadable(f"tag {code} has {values} values, expected at most {MOST_VALUES}")
            self._tag_bytes += size
            if self._tag_bytes > LARGEST_TAGS:
                raise self._unreadable(f"its tags have more than {LARGEST_TAGS} bytes")
            inside = self._file.tell() - threshold
            if kind in _SIZES:
                page.setdefault(code, _Tag(kind, values, inside if size <= threshold else place))
        try:
            (following,) = self._read(next_format)
        except NotAPicture:  # the last directory of some writers ends with the file
            following = 0
        return page, following

    def _read(self, what: str) -> tuple[int, ...]:
        content = self._file.read(struct.calcsize(self._order + what))
        if len(content) < struct.calcsize(self._order + what):
            raise self._unreadable("its directory lies beyond its end")
        return self._unpack(what, content)

    def _unpack(self, what: str, content: bytes) -> tuple[int, ...]:
        return struct.unpack(self._order + what, content)

    def _unreadable(self, reason: str) -> NotAPicture:
        return NotAPicture(reason)


def _check_page(path: Path, file: BinaryIO, walk: _Walk, page: _Page) -> None:
    if 256 not in page and 257 not in page:
        return  # no picture: EXIF and the like
    width, height = walk.value(page, 256, 0), walk.value(page, 257, 0)
    samples, bits = walk.value(page, 277, 1), walk.values(page, 258) or [1]
    planes = samples * max(1, walk.value(page, 32997, 1))
    check_pixels(path, height, width, planes, max(1, max(bits) / 8))
    tile_width, tile_height = walk.value(page, 322, width), walk.value(page, 323, height)
    tile_depth = max(1, walk.value(page, 32998, 1))
    check_pixels(path, tile_height, tile_width, samples * tile_depth, max(1, max(bits) / 8))
    if _DESCRIPTION in page:
        _check_ome(walk.text(page, _DESCRIPTION))
    offsets = walk.values(page, 324) or walk.values(page, 273)
    sizes = walk.values(page, 325) or walk.values(page, 279)
    if sum(sizes) > walk.size or any(o + s > walk.size for o, s in zip(offsets, sizes, strict=False)):
        raise NotAPicture(f"its strips have {sum(sizes)} bytes or lie beyond its end, at byte {walk.size}")
    packing = walk.value(page, 259, _NONE)
    if packing not in (_NONE, _LZW, *_DEFLATE, _PACKBITS):
        raise NotAPicture(f"packed in way {packing}, expected none, LZW, deflate or PackBits")
    # strips that are not there would be made up of zeros
    least = width * height * planes * min(bits) // 8 // _MOST_OF_BYTE.get(packing, 1)
    if sizes and sum(sizes) < least:
        raise NotAPicture(f"its strips have {sum(sizes)} bytes, too few for {height} x {width} pixels")
    if packing in (_NONE, _LZW):  # LZW is unpacked into a buffer of the strip's size
        return
    if 322 in page:
        pixels = tile_width * tile_height * tile_depth
    else:
        pixels = width * min(height, walk.value(page, 278, height))
    expected = int(pixels * samples * max(1, max(bits) / 8))
    unpacked, most = _inflated if packing in _DEFLATE else _unpacked, _MOST_OF_BYTE[packing]
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=False)):
        limit = max(_UNPACKED_ANYWAY, 2 * expected)
        if size * most <= limit:
            continue
        file.seek(offset)
        if unpacked(file.read, size, limit) > limit:
            raise ImageUnreadable(
                f"{path}: strip {number} unpacks to more than {limit} bytes, expected {expected} for its pixels"
            )


def _inflated(read: Callable[[int], bytes], size: int, limit: int) -> int:
    """Bytes that so many bytes inflate to, as far as the limit; whatever is damaged is told by the decoder."""
    unpack, total = zlib.decompressobj(), 0
    try:
        while size > 0 and total <= limit and not unpack.eof:
            piece = read(min(size, _PIECE))
            if not piece:
                break
            size -= len(piece)
            while piece and total <= limit:
                total += len(unpack.decompress(piece, _PIECE))
                piece = unpack.unconsumed_tail
    except zlib.error:
        pass
    return total


def _unpacked(read: Callable[[int], bytes], size: int, limit: int) -> int:
    content, place, total = read(size), 0, 0
    while place < len(content) and total <= limit:
        head = content[place]
        total += head + 1 if head < 128 else 257 - head
        place += head + 2 if head < 128 else 2
    return total


def _check_ome(description: bytes) -> None:
    """Refuse OME-XML that claims more planes, or leads to more, than there can be."""
    text = description.rstrip(b"\0 \t\r\n")
    if not text.endswith(b"OME>"):
        return
    try:
        root = fromstring(text)
    except (ParseError, ValueError, LookupError, DefusedXmlException) as error:
        raise NotAPicture(f"its OME-XML: {error!r}") from None
    for element in root.iter():
        for name in _COUNTS:
            told = element.attrib.get(name)
            if told is not None and not (
                told.isdecimal() and len(told) < 10 and int(told) <= 10 * MOST_PAGES
            ):
                raise NotAPicture(f"its OME-XML: {name} is {told[:40]!r}, expected 0 to {10 * MOST_PAGES}")
        name = element.tag.rpartition("}")[2]
        if name == "Pixels":
            _check_planes(element)
        if name.startswith("ModuloAlong") and "Start" in element.attrib:
            raise NotAPicture(f"its OME-XML: {name} by steps")


def _check_planes(pixels: Element) -> None:
    planes = 1
    for axis in "ZCT":
        planes *= int(pixels.attrib.get(f"Size{axis}", 1))
    if planes > 10 * MOST_PAGES:
        raise NotAPicture(f"its OME-XML: {planes} planes, expected at most {10 * MOST_PAGES}")
