"""Raw images and masks on disk: what is read, and how every bad file is refused."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from samples import make_assay

from cytoloop.adapters.images import (
    encode_mask,
    palette_of,
    read_mask,
    read_planes,
    read_raw,
    write_atomically,
    write_mask,
    write_png,
)
from cytoloop.domain.assay import Channel
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ImageUnreadable, ShapeError

ASSAY = make_assay()
PER_CHANNEL = make_assay(
    channels=(Channel(name="cells", suffix="_ch1"), Channel(name="nuclei", suffix="_ch2"))
)
ONE_CHANNEL = make_assay(channels=(Channel(name="DNA", plane=0),))
IMAGE = np.random.default_rng(0).integers(0, 60000, (2, 16, 24)).astype(np.uint16)


def write_tiff(path: Path, image: Any = IMAGE, **options: Any) -> Path:
    tifffile.imwrite(path, image, **{"photometric": "minisblack", **options})
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"ome": True},
        {"bigtiff": True},
    ],
)
def test_a_tiff_is_read_as_stored_in_whatever_flavour(tmp_path: Path, options: dict[str, Any]) -> None:
    planes = read_planes(write_tiff(tmp_path / "a.tif", **options))
    np.testing.assert_array_equal(planes, IMAGE)
    assert digest_of_pixels(planes) == digest_of_pixels(IMAGE)


def test_samples_last_become_planes(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.moveaxis(IMAGE, 0, -1), planarconfig="contig")
    np.testing.assert_array_equal(read_planes(path), IMAGE)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_is_read_as_stored(tmp_path: Path, dtype: type) -> None:
    grey = (IMAGE[0] >> (8 if dtype is np.uint8 else 0)).astype(dtype)
    Image.fromarray(grey).save(tmp_path / "a.png")
    planes = read_planes(tmp_path / "a.png")
    assert planes.dtype == dtype
    np.testing.assert_array_equal(planes, grey[np.newaxis])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint32])
def test_only_unsigned_8_and_16_bit_pass(tmp_path: Path, dtype: type) -> None:
    path = write_tiff(tmp_path / "a.tif", IMAGE.astype(dtype))
    expected = f"{path}: grey values are {np.dtype(dtype)}, expected unsigned 8 or 16 bit"
    with pytest.raises(ImageUnreadable, match=f"^{re.escape(expected)}$"):
        read_planes(path)


def test_more_axes_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.stack([IMAGE] * 3))
    with pytest.raises(
        ImageUnreadable, match=r"a\.tif: array of shape \(3, 2, 16, 24\), expected \(C, H, W\)"
    ):
        read_planes(path)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
@pytest.mark.parametrize("content", [b"", b"not a picture", b"II*\0", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageUnreadable, match=f"{re.escape(name)}: cannot be read as an image"):
        read_planes(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageUnreadable, match=r"no such file"):
        read_planes(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(ImageUnreadable, match=rf"{re.escape(name)}: a folder, expected a file$"):
        read_planes(tmp_path / name)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"ome": True}])
def test_a_tiff_truncated_anywhere_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = write_tiff(tmp_path / "whole.tif", **options).read_bytes()
    path = tmp_path / "cut.tif"
    for length in [*range(0, 420, 3), *range(420, len(whole) - 1, 41)]:
        path.write_bytes(whole[:length])
        try:
            planes = read_raw([path], ASSAY)
        except ImageUnreadable:
            continue
        # what is missing was padding or metadata behind the pixels
        np.testing.assert_array_equal(planes, IMAGE, err_msg=f"cut to {length} bytes")


def test_a_png_truncated_or_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    Image.fromarray(IMAGE[0]).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    path = tmp_path / "bad.png"
    for place in range(0, len(whole), 5):
        flipped = bytearray(whole)
        flipped[place] ^= 0x55
        for content in (whole[:place], bytes(flipped)):
            path.write_bytes(content)
            try:
                planes = read_planes(path)
            except ImageUnreadable:
                continue
            np.testing.assert_array_equal(planes[0], IMAGE[0], err_msg=f"byte {place}")


def test_a_damaged_tiff_header_is_never_a_bug(tmp_path: Path) -> None:
    whole = write_tiff(tmp_path / "whole.tif", compression="zlib").read_bytes()
    path = tmp_path / "bad.tif"
    for place in range(260):
        flipped = bytearray(whole)
        flipped[place] ^= 0x55
        path.write_bytes(flipped)
        try:
            planes = read_planes(path)
        except ImageUnreadable:
            continue
        assert planes.dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("count", [1, 3])
def test_the_wrong_number_of_channels_is_refused(tmp_path: Path, count: int) -> None:
    path = write_tiff(tmp_path / "a.tif", np.zeros((count, 16, 24), np.uint16))
    expected = rf"a\.tif: {count} channel\(s\), assay 'rosella' expects 2 \(pHluorin, DsRed\)"
    with pytest.raises(ImageUnreadable, match=expected):
        read_raw([path], ASSAY)


def test_channels_come_in_the_assays_order(tmp_path: Path) -> None:
    swapped = make_assay(channels=(Channel(name="DsRed", plane=1), Channel(name="pHluorin", plane=0)))
    np.testing.assert_array_equal(read_raw([write_tiff(tmp_path / "a.tif")], swapped), IMAGE[::-1])


def test_a_file_a_channel(tmp_path: Path) -> None:
    files = [write_tiff(tmp_path / f"a_ch{c}.tif", IMAGE[c]) for c in range(2)]
    np.testing.assert_array_equal(read_raw(files, PER_CHANNEL), IMAGE)
    with pytest.raises(ImageUnreadable, match=r"1 file\(s\), assay 'rosella' expects 2"):
        read_raw(files[:1], PER_CHANNEL)
    write_tiff(files[1], IMAGE[1, :8])
    with pytest.raises(ImageUnreadable, match=r"a_ch1\.tif: size \(8, 24\), its first channel .*\(16, 24\)"):
        read_raw(files, PER_CHANNEL)
    write_tiff(files[1], IMAGE)
    with pytest.raises(ImageUnreadable, match=r"a_ch1\.tif: 2 planes, expected one grey plane a file"):
        read_raw(files, PER_CHANNEL)


# --- masks -----------------------------------------------------------------------------------------


@given(
    mask_HW=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)), colour=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_a_mask_survives_its_png(
    tmp_path_factory: pytest.TempPathFactory, mask_HW: Any, colour: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "round-trip.png"
    palette = palette_of(ASSAY) if colour else None
    write_mask(path, mask_HW, palette)
    read = read_mask(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask_HW)
    assert encode_mask(mask_HW, palette) == path.read_bytes()


def test_the_palette_shows_the_assays_colours() -> None:
    palette = palette_of(ASSAY)
    assert len(palette) == 768
    assert palette[:9] == bytes.fromhex("000000f0e44256b4e9")
    assert palette[-3:] == bytes.fromhex("999999")


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2), np.int64), np.zeros((1, 2, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_only_uint8_planes_are_masks(bad: Any) -> None:
    with pytest.raises(ShapeError, match=r"mask is .* expected uint8 \(H, W\)"):
        encode_mask(bad)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "CMYK"])
def test_a_colour_picture_is_no_mask(tmp_path: Path, mode: str) -> None:
    name = "a.png" if mode != "CMYK" else "a.tif"  # PNG has no CMYK
    Image.new(mode, (4, 3)).save(tmp_path / name)
    told = mode if mode != "CMYK" else "4-sample"
    with pytest.raises(ImageUnreadable, match=rf"{name}: a {told} picture, expected an 8-bit index image"):
        read_mask(tmp_path / name)


def test_an_index_mask_of_any_depth_and_kind_is_read_as_it_is_stored(tmp_path: Path) -> None:
    mask_HW = np.array([[0, 1, 2], [255, 1, 0]], np.uint8)
    Image.fromarray(mask_HW.astype(np.uint16)).save(tmp_path / "deep.png")
    palette = Image.fromarray(mask_HW)
    palette.putpalette(bytes(range(255, -1, -1)) * 3)  # colours say nothing
    palette.save(tmp_path / "palette.png")
    for dtype in (np.uint8, np.uint16, np.int32, np.float32):
        tifffile.imwrite(tmp_path / f"{np.dtype(dtype)}.tif", mask_HW.astype(dtype))
    tifffile.imwrite(tmp_path / "page.tiff", mask_HW[np.newaxis], metadata={"axes": "ZYX"})
    found = sorted(tmp_path.iterdir())
    assert len(found) == 7
    for path in found:
        read = read_mask(path)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, mask_HW, err_msg=path.name)
    Image.fromarray(mask_HW > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "bits.png"), mask_HW > 0)


@pytest.mark.parametrize(
    ("value", "dtype", "told"),
    [
        (256, np.uint16, r"uint16 with 2 pixels that are no class index, first 256 at row 1, column 2"),
        (
            -1,
            np.int16,
            r"int16 with 2 pixels .* first -1 at row 1, column 2; expected whole numbers of 0…255",
        ),
        (1.5, np.float32, r"float32 with 2 pixels .* first 1\.5 at row 1, column 2"),
        (np.nan, np.float32, r"float32 .* first nan at row 1, column 2"),
    ],
)
def test_a_value_that_is_no_index_is_named_with_its_place(
    tmp_path: Path, value: float, dtype: type, told: str
) -> None:
    array = np.zeros((3, 4), dtype)
    array[1, 2] = array[2, 0] = value
    tifffile.imwrite(tmp_path / "a.tif", array)
    with pytest.raises(ImageUnreadable, match=rf"a\.tif: {told}"):
        read_mask(tmp_path / "a.tif")


def test_a_mask_of_several_pages_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 4), np.uint8), photometric="minisblack")
    with pytest.raises(ImageUnreadable, match=r"a\.tif: array of shape \(2, 3, 4\), expected one page"):
        read_mask(tmp_path / "a.tif")


def test_a_truncated_mask_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = encode_mask(rng.integers(0, 3, (40, 40)).astype(np.uint8))
    for length in range(0, len(whole) - 20, 7):
        (tmp_path / "a.png").write_bytes(whole[:length])
        with pytest.raises(ImageUnreadable, match=r"a\.png"):
            read_mask(tmp_path / "a.png")
    with pytest.raises(ImageUnreadable, match="no such file"):
        read_mask(tmp_path / "b.png")


# --- writing ---------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_mask(path, np.ones((2, 2), np.uint8))
    before = path.read_bytes()

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    write_mask(tmp_path / "new" / "a.png", np.ones((2, 2), np.uint8))
    assert stat.S_IMODE((tmp_path / "new" / "a.png").stat().st_mode) == 0o644


def test_pictures_keep_their_colours(tmp_path: Path) -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    write_png(tmp_path / "a.png", picture)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    write_png(tmp_path / "b.png", picture[..., 0])
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"
