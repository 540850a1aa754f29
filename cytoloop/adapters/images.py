"""Raw images in, indexed masks in and out. Pixels are never repaired or rescaled here."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cytoloop.adapters import ome
from cytoloop.adapters.picture_limits import (
    LARGEST_FILE,
    LARGEST_PLANE,
    MOST_PLANES,
    check_png,
)
from cytoloop.adapters.tiffs import tiff_of, values_of
from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ImageUnreadable, ShapeError
from cytoloop.domain.types import ImageRecord
from cytoloop.files import opened, require_inside

RAW_SUFFIXES = (".tif", ".tiff", ".png")
Image.MAX_IMAGE_PIXELS = LARGEST_PLANE  # for whoever opens a picture elsewhere


PROVENANCE = "provenance.json"
"""What lies beside masks that a recipe made, and says how; written last."""


def read_planes(path: Path) -> NDArray[Any]:
    """All planes of one file, as stored: (C, H, W), uint8 or uint16.

    Raises
    ------
    ImageUnreadable
        If the file is missing, truncated, of another kind, floating point, or has more axes; or if it claims more
        pixels than ``picture_limits`` lets pass, which is told before they are unpacked.
    """
    try:
        with opened(path, LARGEST_FILE, ImageUnreadable) as file:
            array = _read_tiff(path, file) if _is_tiff(path) else _read_png(path, file)
    except FileNotFoundError:
        raise ImageUnreadable(f"{path}: no such file") from None
    except ImageUnreadable:
        raise
    except Exception as error:  # of a damaged file, decoders raise whatever they stumble over
        raise ImageUnreadable(f"{path}: cannot be read as an image ({_told(error)})") from error
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageUnreadable(f"{path}: grey values are {array.dtype}, expected unsigned 8 or 16 bit")
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3:
        raise ImageUnreadable(f"{path}: array of shape {array.shape}, expected (C, H, W) or (H, W)")
    if len(array) > MOST_PLANES:
        raise ImageUnreadable(f"{path}: {len(array)} planes, expected at most {MOST_PLANES}")
    return array


def _is_tiff(path: Path) -> bool:
    return path.suffix.lower() in (".tif", ".tiff")


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__


def _read_tiff(path: Path, file: BinaryIO) -> NDArray[Any]:
    axes, array = _tiff_series(path, file)
    if axes.endswith("S") and array.ndim == 3:  # samples last: planes stored as RGB
        array = np.moveaxis(array, -1, 0)
    return array


def _tiff_series(path: Path, file: BinaryIO) -> tuple[str, NDArray[Any]]:
    """Axes and values of the first series of pages, read from this file alone."""
    with tiff_of(path, file) as tiff:
        series = tiff.series[0]
        return series.axes, values_of(path, series)


def _read_png(path: Path, file: BinaryIO) -> NDArray[Any]:
    check_png(path, file)
    with Image.open(file, formats=["PNG"]) as image:
        image.load()
        array = np.asarray(image)
    if array.dtype == np.int32 and array.min() >= 0 and array.max() <= 65535:
        array = array.astype(np.uint16)  # Pillow widens 16-bit grey on some versions
    if array.ndim == 3:
        array = np.moveaxis(array, -1, 0)
    return array


def read_raw(files: Sequence[str | Path], assay: Assay) -> NDArray[Any]:
    """The channels of one field in the assay's order: (C, H, W), uint8 or uint16.

    Parameters
    ----------
    files : sequence of path
        One file that holds all planes, or one file a channel in the assay's order. Of an OME-TIFF the planes are
        taken that its OME-XML names.

    Raises
    ------
    ImageUnreadable
        If a file cannot be read, channels differ in size, or their number is not the assay's.
    """
    expected = len(assay.channels)
    if len(files) == 1 and (expected == 1 or not assay.channels[0].has_own_file):
        alone = assay.channels[0] if assay.channels[0].has_own_file else None
        if (chosen := _of_ome(Path(files[0]), assay, alone)) is not None:
            return chosen
        planes = read_planes(Path(files[0]))
        if expected > 1 and any(channel.plane is None for channel in assay.channels):
            raise ImageUnreadable(
                f"{files[0]}: names no channels, assay {assay.name!r} finds them by name alone; expected an OME-TIFF, an "
                "export of Harmony, or a 'plane' on every channel"
            )
        wanted = [channel.plane or 0 for channel in assay.channels]
        if len(planes) <= max(wanted) or (expected > 1 and len(planes) != expected):
            raise ImageUnreadable(
                f"{files[0]}: {len(planes)} channel(s), assay {assay.name!r} expects {expected} "
                f"({', '.join(channel.name for channel in assay.channels)})"
            )
        return planes[wanted]
    if len(files) != expected:
        raise ImageUnreadable(f"{files[0]}: {len(files)} file(s), assay {assay.name!r} expects {expected}")
    channels: list[NDArray[Any]] = []
    for channel, path in zip(assay.channels, files, strict=True):
        described = _of_ome(Path(path), assay, channel)
        planes = read_planes(Path(path)) if described is None else described
        if len(planes) != 1:
            raise ImageUnreadable(f"{path}: {len(planes)} planes, expected one grey plane a file")
        if channels and planes[0].shape != channels[0].shape:
            raise ImageUnreadable(
                f"{path}: size {planes[0].shape}, its first channel {files[0]} is {channels[0].shape}"
            )
        channels.append(planes[0])
    return np.stack(channels)


def _of_ome(path: Path, assay: Assay, channel: Channel | None = None) -> NDArray[Any] | None:
    """All channels of an OME-TIFF, or the only one of a file that is ``channel``'s; None where the file is none."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    return ome.read_channels(path, assay) if channel is None else ome.read_only_channel(path, assay, channel)


def read_image(record: ImageRecord, assay: Assay) -> NDArray[np.float32]:
    """``image_CHW`` of a record: raw grey values as float32, channels in the assay's order.

    Raises
    ------
    ImageUnreadable
        As :func:`read_raw`, or if the pixels are not those that the record is about: the file was changed, or
        another took its place.
    """
    raw = read_raw(record.files, assay)
    found = digest_of_pixels(raw)
    if found != record.image_key:
        raise ImageUnreadable(
            f"{record.files[0]}: pixels of image {record.image_id!r} have digest {found}, expected {record.image_key}: "
            "the file was changed since it came in; put the old one back, or import it under another name"
        )
    return raw.astype(np.float32)


def palette_of(assay: Assay) -> bytes:
    """256 RGB triples: black background, the assay's class colours, its ignore colour at 255."""
    palette = bytearray(768)
    for value, label in assay.foreground:
        palette[value * 3 : value * 3 + 3] = bytes.fromhex(label.colour.lstrip("#"))
    palette[765:768] = bytes.fromhex(assay.ignore.colour.lstrip("#"))
    return bytes(palette)


def encode_mask(mask_HW: NDArray[np.uint8], palette: bytes | None = None) -> bytes:
    """An indexed 8-bit PNG whose pixel values are the class indices; equal masks, equal bytes."""
    if mask_HW.ndim != 2 or mask_HW.dtype != np.uint8:
        raise ShapeError(f"mask is {mask_HW.dtype} {mask_HW.shape}, expected uint8 (H, W)")
    image = Image.fromarray(np.ascontiguousarray(mask_HW))
    if palette is not None:
        image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def write_mask(path: Path, mask_HW: NDArray[np.uint8], palette: bytes | None = None) -> None:
    """Write an indexed PNG under a temporary name, then rename: never a half mask."""
    write_atomically(path, lambda file: file.write_bytes(encode_mask(mask_HW, palette)))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """A PNG or TIFF whose pixel values are class indices: uint8 (H, W).

    Read as they are stored: indexed, grey of any depth, 1 bit (True is 1). Deeper grey is taken where
    every value is a whole number of 0…255, so nothing is rounded or cut.

    Raises
    ------
    ImageUnreadable
        If it is missing, truncated, a colour picture, of several pages, or holds a value that is no index; or a link
        out of its folder.
    """
    require_inside(path, path.parent, ImageUnreadable)
    try:
        with opened(path, LARGEST_FILE, ImageUnreadable) as file:
            array = _tiff_mask(path, file) if _is_tiff(path) else _png_mask(path, file)
    except FileNotFoundError:
        raise ImageUnreadable(f"{path}: no such file") from None
    except ImageUnreadable:
        raise
    except Exception as error:  # as in read_planes
        raise ImageUnreadable(f"{path}: cannot be read as a mask ({_told(error)})") from error
    if array.dtype in (np.uint8, np.bool_):
        return array.astype(np.uint8, copy=False)
    is_index_HW = (array >= 0) & (array <= 255) & (array == np.floor(array))
    if not is_index_HW.all():
        row, column = (int(place) for place in np.argwhere(~is_index_HW)[0])
        raise ImageUnreadable(
            f"{path}: {array.dtype} with {np.count_nonzero(~is_index_HW)} pixels that are no class index, first "
            f"{array[row, column]} at row {row}, column {column}; expected whole numbers of 0…255"
        )
    return array.astype(np.uint8)


def _png_mask(path: Path, file: BinaryIO) -> NDArray[Any]:
    check_png(path, file)
    with Image.open(file, formats=["PNG"]) as image:
        image.load()
        if image.mode not in ("P", "L", "1", "F") and not image.mode.startswith("I"):
            raise _colour(path, image.mode)
        array: NDArray[Any] = np.array(image)
    return array


def _tiff_mask(path: Path, file: BinaryIO) -> NDArray[Any]:
    axes, array = _tiff_series(path, file)
    if "S" in axes:
        raise _colour(path, f"{array.shape[axes.index('S')]}-sample")
    while array.ndim > 2 and len(array) == 1:  # one page, one channel, one time
        array = array[0]
    if array.ndim != 2:
        raise ImageUnreadable(f"{path}: array of shape {array.shape}, expected one page (H, W)")
    if array.dtype.kind not in "buif":
        raise ImageUnreadable(f"{path}: values are {array.dtype}, expected whole numbers of 0…255")
    return array


def _colour(path: Path, mode: str) -> ImageUnreadable:
    return ImageUnreadable(
        f"{path}: a {mode} picture, expected an 8-bit index image (indexed or grey PNG, whose values are "
        "the classes; colours cannot be told apart safely)"
    )


def write_atomically(path: Path, write: Callable[[Path], object], durable: bool = False) -> None:
    """Call ``write`` with a temporary name beside ``path``, then rename it into place.

    With ``durable`` the file, its folder and the folders made for it reach the disk before this
    returns.
    """
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)  # mkstemp gives 0600, but Label Studio may run as another user
        if durable:
            sync(temporary)
        temporary.replace(path)
        if durable:
            for folder in (path.parent, *(folder.parent for folder in made)):
                sync(folder)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file or a folder's list of names reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """An 8-bit grey (H, W) or RGB (H, W, 3) picture for people's eyes."""
    bgr = picture if picture.ndim == 2 else picture[..., ::-1]
    ok, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not ok:
        raise ShapeError(f"{path}: cannot encode a picture of shape {picture.shape}")
    write_atomically(path, lambda file: file.write_bytes(data.tobytes()))
