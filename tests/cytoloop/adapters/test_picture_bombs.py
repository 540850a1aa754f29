"""Small files that claim much: refused in exact words, before memory is taken for what they claim."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from appetite import Reading, appetites
from PIL import Image

from cytoloop.adapters.images import read_mask, read_planes
from cytoloop.adapters.picture_limits import LARGEST_PLANE, MOST_PAGES
from cytoloop.domain.errors import ImageUnreadable

MOST_MB = 200
"""A refused file may take so much: 64 MB for each of two strips, and some change."""
SMALL = np.arange(16 * 16, dtype=np.uint16).reshape(16, 16)


def png_header(width: int, height: int, bits: int = 8, colour: int = 0) -> bytes:
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def png_of_zeros(width: int, height: int) -> bytes:
    pack = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"IDAT" + b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return png_header(width, height) + chunk + end


Tag = tuple[int, int, int, int]
"""Code, type, count, value or place."""


def tiff(*pages: list[Tag], after: bytes = b"", following: int | None = None, big: bool = False) -> bytes:
    """A TIFF of these directories, one after the other; ``after`` comes behind them, at byte 4096."""
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    body = b""
    for number, tags in enumerate(pages):
        place = len(head) + len(body)
        size = 8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4
        entries = b"".join(struct.pack("<HHQQ" if big else "<HHII", *tag) for tag in sorted(tags))
        to = place + size if number + 1 < len(pages) else 0
        if following is not None:
            to = following
        body += (
            struct.pack("<Q" if big else "<H", len(tags)) + entries + struct.pack("<Q" if big else "<I", to)
        )
    return (head + body).ljust(4096, b"\0") + after


def page(width: int = 16, height: int = 16, **changes: Tag) -> list[Tag]:
    """Tags of a page of 16 bit that lies at byte 4096."""
    tags = {
        "width": (256, 4, 1, width),
        "height": (257, 4, 1, height),
        "bits": (258, 3, 1, 16),
        "packing": (259, 3, 1, 1),
        "shown": (262, 3, 1, 1),
        "places": (273, 4, 1, 4096),
        "samples": (277, 3, 1, 1),
        "rows": (278, 4, 1, height),
        "sizes": (279, 4, 1, min(2 * width * height, 512)),
        **changes,
    }
    return list(tags.values())


PIXELS = SMALL.tobytes()


def described(text: str) -> bytes:
    content = text.encode() + b"\0"
    changed = page(text=(270, 2, len(content), 8192))
    return tiff(changed, after=PIXELS.ljust(4096, b"\0") + content)


def deflated(size: int) -> bytes:
    pack = zlib.compressobj(9)
    content = b"".join(pack.compress(bytes(1 << 20)) for _ in range(size >> 20)) + pack.flush()
    return tiff(page(packing=(259, 3, 1, 8), sizes=(279, 4, 1, len(content))), after=content)


def packed_bits(size: int) -> bytes:
    content = b"\x81\0" * (size // 128)
    return tiff(page(packing=(259, 3, 1, 32773), sizes=(279, 4, 1, len(content))), after=content)


def ome(pixels: str, inside: str = "", before: str = "") -> bytes:
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    size = 'DimensionOrder="XYCZT" Type="uint16" SizeX="16" SizeY="16"'
    return described(
        f'<?xml version="1.0"?>{before}<OME xmlns="{space}"><Image ID="Image:0"><Pixels ID="Pixels:0" {size} '
        f"{pixels}>{inside}</Pixels></Image></OME>"
    )


LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
DEEP = "[" * 50_000
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "size.png": (
        lambda: png_header(100_000, 100_000) + b"IDAT",
        rf"100000 x 100000 pixels in a plane, expected at most {LARGEST_PLANE} \(8192 x 8192\)",
    ),
    "zeros.png": (lambda: png_of_zeros(8192, 8193), "8193 x 8192 pixels in a plane"),
    "most.png": (lambda: png_header(2**32 - 1, 2**32 - 1, 16, 6), "4294967295 x 4294967295 pixels"),
    "samples.png": (lambda: png_header(8192, 8192, 16, 6), ""),
    "size.tif": (lambda: tiff(page(2**31, 2**31), after=PIXELS), "2147483648 x 2147483648 pixels"),
    "narrow.tif": (lambda: tiff(page(2**32 - 1, 1), after=PIXELS), "1 x 4294967295 pixels in a plane"),
    "big.tif": (
        lambda: tiff([*page(), (256, 16, 1, 2**63)][1:], after=PIXELS, big=True),
        "16 x 9223372036854775808 pixels in a plane",
    ),
    "samples.tif": (
        lambda: tiff(page(samples=(277, 3, 1, 65535)), after=PIXELS),
        "65535 planes, expected at most 16",
    ),
    "deep.tif": (
        lambda: tiff([*page(), (32997, 4, 1, 2**31)], after=PIXELS),
        "2147483648 planes, expected at most 16",
    ),
    "bytes.tif": (
        lambda: tiff(page(8192, 8192, samples=(277, 3, 1, 16), bits=(258, 3, 1, 64)), after=PIXELS),
        "take 8589934592 bytes, expected at most 536870912",
    ),
    "tiles.tif": (
        lambda: tiff(
            [*page(packing=(259, 3, 1, 8)), (322, 4, 1, 1 << 20), (323, 4, 1, 1 << 20)], after=PIXELS
        ),
        "1048576 x 1048576 pixels in a plane",
    ),
    "circle.tif": (lambda: tiff(page(), after=PIXELS, following=8), "lead in a circle, at byte 8"),
    "many.tif": (
        lambda: tiff(*[[(256, 4, 1, 1)]] * 3000, after=PIXELS),
        f"more than {MOST_PAGES} pages, expected at most that many",
    ),
    "thumbnails.tif": (lambda: tiff([*page(), (330, 4, 1, 8)], after=PIXELS), "lead in a circle, at byte 8"),
    "tag.tif": (
        lambda: tiff([*page(), (34675, 7, 2**32 - 1, 8)], after=PIXELS),
        "tag 34675 has 4294967295 bytes, expected at most",
    ),
    "tags.tif": (
        lambda: tiff([*page(), (1, 16, 2**62, 8)], after=PIXELS, big=True),
        "tag 1 has 36893488147419103232 bytes",
    ),
    "values.tif": (
        lambda: tiff([*page(), (330, 4, 2_000_000, 4096)], after=bytes(8_000_000)),
        "tag 330 has 2000000 values, expected at most",
    ),
    "directory.tif": (lambda: tiff(page()).replace(b"\x09\0", b"\xff\xff", 1), "65535 tags in a directory"),
    "lies.tif": (
        lambda: tiff(page(sizes=(279, 4, 1, 2**32 - 1)), after=PIXELS),
        "its strips have 4294967295 bytes or lie beyond its end",
    ),
    "beyond.tif": (
        lambda: tiff(page(places=(273, 4, 1, 2**32 - 1)), after=PIXELS),
        "or lie beyond its end, at byte 4608",
    ),
    "empty.tif": (
        lambda: tiff(page(8192, 8192), after=PIXELS),
        "its strips have 512 bytes, too few for 8192 x 8192 pixels",
    ),
    "packed.tif": (
        lambda: tiff(page(8192, 8192, packing=(259, 3, 1, 8)), after=PIXELS),
        "its strips have 512 bytes, too few for 8192 x 8192 pixels",
    ),
    "deflate.tif": (
        lambda: deflated(512 << 20),
        "strip 0 unpacks to more than 67108864 bytes, expected 512 for its pixels",
    ),
    "bearable.tif": (lambda: deflated(64 << 20), ""),
    "packbits.tif": (
        lambda: packed_bits(256 << 20),
        "strip 0 unpacks to more than 67108864 bytes, expected 512 for its pixels",
    ),
    "jpeg.tif": (
        lambda: tiff(page(packing=(259, 3, 1, 7)), after=PIXELS),
        "packed in way 7, expected none, LZW",
    ),
    "ome.tif": (
        lambda: ome('SizeZ="1" SizeC="1" SizeT="1000000000"'),
        "its OME-XML: SizeT is '1000000000', expected 0 to 2560",
    ),
    "omes.tif": (lambda: ome('SizeZ="2000" SizeC="2000" SizeT="2000"'), "its OME-XML: 8000000000 planes"),
    "data.tif": (
        lambda: ome('SizeZ="1" SizeC="1" SizeT="1"', '<TiffData PlaneCount="9999999999"/>'),
        "its OME-XML: PlaneCount is '9999999999'",
    ),
    "laughs.tif": (
        lambda: ome('SizeZ="1" SizeC="1" SizeT="1"', "&a9;", f'<!DOCTYPE a [<!ENTITY a0 "ha">{LAUGHS}]>'),
        "its OME-XML: EntitiesForbidden",
    ),
    "modulo.tif": (
        lambda: ome(
            'SizeZ="1" SizeC="1" SizeT="1"', '<ModuloAlongT Type="x" Start="0" End="1e12" Step="1"/>'
        ),
        "its OME-XML: ModuloAlongT by steps",
    ),
    "imagej.tif": (
        lambda: described("ImageJ=1.53\nimages=1000000000\nframes=1000000000\n"),
        "",
    ),
    "shaped.tif": (
        lambda: described('{"shape": [1000000, 1000000, 16, 16]}'),
        r"array of shape \(1000000, 1000000, 16, 16\) takes 512000000000000 bytes, expected at most",
    ),
    "json.tif": (lambda: described('{"shape": ' + DEEP), ""),
}
"""A name, what makes it, and what the error says; nothing: it may be read as the small picture that it holds."""


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reading]:
    folder = tmp_path_factory.mktemp("bombs")
    for name, (make, _) in BOMBS.items():
        (folder / name).write_bytes(make())
    as_images = appetites([folder / name for name in BOMBS])
    as_masks = appetites([folder / name for name in BOMBS], "mask")
    found = dict(zip(BOMBS, as_images, strict=True))
    return found | {f"mask {name}": one for name, one in zip(BOMBS, as_masks, strict=True)}


@pytest.mark.skipif(sys.platform != "linux", reason="memory of a process is counted otherwise elsewhere")
@pytest.mark.parametrize("kind", ["", "mask "])
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_much_is_refused_and_takes_little(
    readings: dict[str, Reading], name: str, kind: str
) -> None:
    reading, message = readings[kind + name], BOMBS[name][1]
    if message:
        assert re.search(message, reading.outcome), reading
    else:
        assert "cannot be read" in reading.outcome or reading.outcome in ("(1, 16, 16)", "(16, 16)"), reading
    assert name in reading.outcome or reading.outcome.startswith("("), "an error names the file"
    assert reading.grown_mb < MOST_MB, reading
    assert reading.seconds < 20, reading


def test_the_small_pictures_that_bombs_are_made_of_are_read(tmp_path: Path) -> None:
    for number, content in enumerate(
        [
            tiff(page(), after=PIXELS),
            tiff(page(), after=PIXELS, big=True),
            described("a picture"),
            ome('SizeZ="1" SizeC="1" SizeT="1"', '<TiffData IFD="0" PlaneCount="1"/>'),
        ]
    ):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(content)
        np.testing.assert_array_equal(read_planes(path), SMALL[np.newaxis], err_msg=str(number))
    (tmp_path / "a.png").write_bytes(png_of_zeros(16, 8))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), np.zeros((8, 16), np.uint8))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("tile", [None, (256, 256)])
def test_an_honest_field_of_the_largest_camera_is_read(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None
) -> None:
    field = np.random.default_rng(0).integers(0, 60000, (2, 2560, 2560), np.uint16)
    field[:, 500:2000] = 0  # blank is what packs best
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        field,
        photometric="minisblack",
        compression=compression,
        tile=tile,
        rowsperstrip=None if tile else 2560,
    )
    np.testing.assert_array_equal(read_planes(path), field)


def test_a_tiff_brings_no_other_file_in(tmp_path: Path) -> None:
    """OME-TIFF lets a file name others that hold its planes: they could be anybody's."""
    secret = tmp_path / "secret.tif"
    tifffile.imwrite(secret, np.full((16, 16), 4242, np.uint16), photometric="minisblack")
    folder = tmp_path / "plate"
    folder.mkdir()
    data = "".join(
        f'<TiffData IFD="0" FirstT="{n}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{n}</UUID></TiffData>'
        for n, name in enumerate(["a.tif", "../secret.tif"])
    )
    (folder / "a.tif").write_bytes(ome('SizeZ="1" SizeC="1" SizeT="2"', data))
    planes = read_planes(folder / "a.tif")
    np.testing.assert_array_equal(planes, SMALL[np.newaxis])


@pytest.mark.timeout(20)
def test_a_tiff_waits_for_no_pipe_that_it_names(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    data = '<TiffData IFD="0"><UUID FileName="pipe.tif">urn:uuid:1</UUID></TiffData>'
    (tmp_path / "a.tif").write_bytes(ome('SizeZ="1" SizeC="1" SizeT="2"', data))
    np.testing.assert_array_equal(read_planes(tmp_path / "a.tif"), SMALL[np.newaxis])


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF", "EPS"])
def test_a_png_is_a_png(tmp_path: Path, kind: str) -> None:
    """Of other kinds some decoders start programs (EPS)."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path, format=kind)
    for read, what in ((read_planes, "an image"), (read_mask, "a mask")):
        with pytest.raises(ImageUnreadable, match=rf"a\.png: cannot be read as {what} \(not a PNG\)"):
            read(path)
