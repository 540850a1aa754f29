"""OME-TIFF: which plane of a file is which channel and focal plane, by what its OME-XML says.

Only the planes that the assay asks for are unpacked. One file is one field of view: a file with several images, time
points, or planes that lie in other files is refused.

Legend: C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from numpy.typing import NDArray

from cytoloop.adapters.tiffs import opened_tiff, values_of
from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.errors import CytoloopError, ImageUnreadable

_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
"""Micrometres by unit; OME's default is the first. The second is spelt with the Greek letter."""
_SQUARE = 1e-3
_TELLS = "TZCYX"
"""Axes that can be told apart; of others (samples of a colour) the plain reader knows what to make."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeFile:
    """What an OME-TIFF says of itself."""

    axes: str
    shape: tuple[int, ...]
    channel_names: tuple[str, ...]
    """Empty where a channel has none."""
    pixel_size_um: float | None
    planes: Mapping[tuple[int, int], int] | None = None
    """Of a file that describes a set of files: its own planes, number of the page by (channel, focal plane). None:
    the file describes itself alone."""

    def size(self, axis: str) -> int:
        """Length along an axis; 1 where there is none."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def describe(path: Path) -> OmeFile | None:
    """What an OME-TIFF says of itself; None where the file is none, or holds colour samples.

    Raises
    ------
    ImageUnreadable
        If its OME-XML cannot be read, or it holds several images or time points, or pixels that are no squares.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    with _open(path) as tiff:
        return _describe(path, tiff)


def read_channels(path: Path, assay: Assay) -> NDArray[Any] | None:
    """The assay's channels of one OME-TIFF that holds them all: (C, H, W); None where the file is none.

    A channel is found by the name the file gives it (``recorded_as`` of the assay's channel, or its name). A file
    that names none of the assay's channels is read by ``plane``, as any TIFF is.

    Raises
    ------
    ImageUnreadable
        As :func:`describe`, or if a channel or focal plane is not in the file.
    """
    with _open(path) as tiff:
        ome = _describe(path, tiff)
        if ome is None:
            return None
        if ome.planes is not None:
            raise ImageUnreadable(
                f"{path}: one of a set of files that hold {ome.size('C')} channel(s) and {ome.size('Z')} focal plane(s) "
                "together; expected all planes of a field in one file, or a 'suffix' or 'folder' on every channel of the "
                "assay for a file each"
            )
        channels = _channels(path, ome, assay)
        z = z_plane(path, ome, assay)
        return np.stack([_page(path, tiff, ome, channel, z) for channel in channels])


def read_only_channel(path: Path, assay: Assay, channel: Channel) -> NDArray[Any] | None:
    """The one channel of an OME-TIFF that belongs to a set of files, one a channel: (1, H, W); None as above.

    Such a file may describe the whole set. Then it is the channel whose planes it holds.
    """
    with _open(path) as tiff:
        ome = _describe(path, tiff)
        if ome is None:
            return None
        z = z_plane(path, ome, assay)
        planes = ome.planes if ome.planes is not None else {(c, z): 0 for c in range(ome.size("C"))}
        held = {c for c, of_z in planes if of_z == z}
        if len(held) != 1:
            raise ImageUnreadable(
                f"{path}: holds {len(held)} channels of {_named(ome)} in focal plane {z}, expected {channel.name!r} alone "
                "in a file of its own"
            )
        return _page(path, tiff, ome, held.pop(), z)[np.newaxis]


def z_plane(path: Path, ome: OmeFile, assay: Assay) -> int:
    """The focal plane that is used, from 0 as OME counts.

    Raises
    ------
    ImageUnreadable
        If there are several and the assay does not say which, or it names one that is not there.
    """
    count = ome.size("Z")
    if assay.z_plane is None and count > 1:
        raise ImageUnreadable(
            f"{path}: {count} focal planes; expected one, or 'z_plane' of assay {assay.name!r} to say which "
            f"(0 to {count - 1})"
        )
    if assay.z_plane is None or count == 1:  # where a file has one plane, there is nothing to choose
        return 0
    if assay.z_plane >= count:
        raise ImageUnreadable(
            f"{path}: focal planes 0 to {count - 1}, expected {assay.z_plane} as assay {assay.name!r} says"
        )
    return assay.z_plane


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """A TIFF, within the limits of pictures; what lies in other files is not looked for: one file is one field."""
    try:
        with opened_tiff(path) as tiff:
            yield tiff
    except FileNotFoundError:
        raise ImageUnreadable(f"{path}: no such file") from None
    except CytoloopError:
        raise
    except Exception as error:  # of a damaged file, decoders raise whatever they stumble over
        raise ImageUnreadable(f"{path}: cannot be read as an image ({error})") from error


def _describe(path: Path, tiff: Any) -> OmeFile | None:
    if not tiff.is_ome:
        return None
    try:
        root = fromstring(tiff.ome_metadata, forbid_dtd=True)
        series = tiff.series
    except (ParseError, DefusedXmlException) as error:
        raise ImageUnreadable(
            f"{path}: its OME-XML cannot be read ({type(error).__name__}: {error})"
        ) from None
    except Exception as error:  # as above
        raise ImageUnreadable(f"{path}: its OME-XML does not fit its planes ({error})") from error
    images = [element for element in root if _local(element) == "Image"]
    pixels = [element for image in images for element in image if _local(element) == "Pixels"]
    if len(pixels) != 1 or len(series) != 1:
        names = ", ".join(repr(image.get("Name", "")) for image in images[:6])
        raise ImageUnreadable(
            f"{path}: {max(len(pixels), len(series))} images ({names}), expected one field of view a file"
        )
    planes = _own_planes(path, root, pixels[0])
    axes, shape = series[0].axes, tuple(series[0].shape)
    if planes is not None:  # the reader takes such a file for a heap of planes
        sizes = [_whole(path, pixels[0], f"Size{axis}") for axis in "ZC"]
        axes, shape = "ZCYX", (*sizes, *series[0].shape[-2:])
    if not set(axes) <= set(_TELLS) or not axes.endswith("YX"):
        return None
    found = [element.get("Name", "") for element in pixels[0] if _local(element) == "Channel"]
    ome = OmeFile(
        axes=axes,
        shape=shape,
        channel_names=tuple(found),
        pixel_size_um=_pixel_size(path, pixels[0]),
        planes=planes,
    )
    if ome.size("T") > 1:
        raise ImageUnreadable(f"{path}: {ome.size('T')} time points, expected one")
    return ome


def _own_planes(path: Path, root: Element, pixels: Element) -> dict[tuple[int, int], int] | None:
    """Pages of this file by (channel, focal plane), where the planes described lie in several files."""
    blocks = [element for element in pixels if _local(element) == "TiffData"]
    owners = [next((one for one in block if _local(one) == "UUID"), None) for block in blocks]
    if len({owner.text for owner in owners if owner is not None}) < 2:
        return None
    return {
        (_whole(path, block, "FirstC", 0), _whole(path, block, "FirstZ", 0)): _whole(path, block, "IFD", 0)
        for block, owner in zip(blocks, owners, strict=True)
        if owner is not None and (owner.get("FileName") == path.name or owner.text == root.get("UUID"))
    }


def _whole(path: Path, element: Element, name: str, missing: int | None = None) -> int:
    text = element.get(name)
    if text is None and missing is not None:
        return missing
    try:
        number = int(text or "")
    except ValueError:
        number = -1
    if number < 0:
        raise ImageUnreadable(
            f"{path}: {name} is {text!r} in its OME-XML, expected a whole number of 0 or more"
        )
    return number


def _pixel_size(path: Path, pixels: Element) -> float | None:
    sides = []
    for axis in "XY":
        text = pixels.get(f"PhysicalSize{axis}")
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if text is None or unit not in _UM:  # a size in "pixel" says nothing
            continue
        try:
            side = float(text) * _UM[unit]
        except ValueError:
            side = math.nan
        if not 0 < side < math.inf:
            raise ImageUnreadable(f"{path}: PhysicalSize{axis} is {text!r} {unit}, expected a length above 0")
        sides.append(side)
    if sides and max(sides) - min(sides) > _SQUARE * min(sides):
        raise ImageUnreadable(f"{path}: pixels of {sides[0]:g} x {sides[1]:g} µm, expected squares")
    return sides[0] if sides else None


def _channels(path: Path, ome: OmeFile, assay: Assay) -> list[int]:
    """Index in the file of each of the assay's channels."""
    count = ome.size("C")
    found = [_matching(channel.recorded_name, ome) for channel in assay.channels]
    if all(len(one) == 1 for one in found):
        return [one[0] for one in found]
    if not any(found) and all(channel.recorded_as is None for channel in assay.channels):
        wanted = [channel.plane or 0 for channel in assay.channels]
        if max(wanted) < count and (len(wanted) == 1 or count == len(wanted)):
            return wanted
        raise ImageUnreadable(
            f"{path}: {count} channel(s), {_named(ome)}; assay {assay.name!r} expects {len(wanted)} by these names, or as "
            f"planes: {', '.join(channel.name for channel in assay.channels)}"
        )
    wrong, matching = next((c, one) for c, one in zip(assay.channels, found, strict=True) if len(one) != 1)
    raise ImageUnreadable(
        f"{path}: {len(matching) or 'no'} channel(s) {wrong.recorded_name!r} for {wrong.name!r} of assay {assay.name!r}; "
        f"it has {_named(ome)}"
    )


def _matching(wanted: str | int, ome: OmeFile) -> list[int]:
    if isinstance(wanted, int):  # from 1, as Harmony counts
        return [wanted - 1] if wanted <= ome.size("C") else []
    exact = [number for number, name in enumerate(ome.channel_names) if name == wanted]
    return exact or [
        number for number, name in enumerate(ome.channel_names) if name.casefold() == wanted.casefold()
    ]


def _place(ome: OmeFile, channel: int, z: int) -> int:
    """Number of a plane in the file's list of planes."""
    at = {"C": channel, "Z": z, "T": 0}
    place = 0
    for axis, size in zip(ome.axes[:-2], ome.shape[:-2], strict=True):
        place = place * size + at[axis]
    return place


def _page(path: Path, tiff: Any, ome: OmeFile, channel: int, z: int) -> NDArray[Any]:
    try:
        if ome.planes is None:
            page = tiff.series[0].pages[_place(ome, channel, z)]
        else:
            page = tiff.pages[ome.planes[channel, z]]
    except (IndexError, KeyError):
        page = None
    if page is None:
        raise ImageUnreadable(
            f"{path}: the plane of channel {channel}, focal plane {z} is missing; expected all planes of a field"
        )
    try:
        array = values_of(path, page)
    except ImageUnreadable:
        raise
    except Exception as error:  # as above
        raise ImageUnreadable(
            f"{path}: channel {channel}, focal plane {z} cannot be read ({error})"
        ) from error
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageUnreadable(f"{path}: grey values are {array.dtype}, expected unsigned 8 or 16 bit")
    if array.shape != ome.shape[-2:]:
        raise ImageUnreadable(f"{path}: a plane of {array.shape}, its OME-XML says {ome.shape[-2:]}")
    return array


def _named(ome: OmeFile) -> str:
    return ", ".join(repr(name) for name in ome.channel_names) if any(ome.channel_names) else "no names"


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2]
