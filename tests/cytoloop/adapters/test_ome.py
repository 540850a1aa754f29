"""OME-TIFF: channels by name or plane, focal planes, pixel sizes; channels in folders of their own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from samples import make_assay

from cytoloop.adapters.images import read_raw
from cytoloop.adapters.plates import read_plate
from cytoloop.domain.assay import Channel
from cytoloop.domain.errors import ImageUnreadable, PlateError

BY_NAME = make_assay(
    channels=(Channel(name="Alexa 488", plane=0), Channel(name="nuclei", plane=1, recorded_as="DAPI"))
)
BY_PLANE = make_assay()


def stack(*shape: int) -> NDArray[np.uint16]:
    return np.random.default_rng(7).integers(0, 4096, (*shape, 12, 16), dtype=np.uint16)


def write(
    path: Path, array: NDArray[Any], axes: str, names: list[str] | None = None, **metadata: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if names:
        metadata["Channel"] = {"Name": names}
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})
    return path


def rewrite(path: Path, old: str, new: str) -> None:
    """Change the OME-XML of a file."""
    with tifffile.TiffFile(path) as tiff:
        text = tiff.ome_metadata
    assert old in text
    tifffile.tiffcomment(path, text.replace(old, new).encode())


def test_channels_are_found_by_name(tmp_path: Path) -> None:
    array = stack(3)
    write(tmp_path / "p_B03_f1.ome.tif", array, "CYX", ["DAPI", "TxRed", "Alexa 488"])
    (record,) = read_plate(tmp_path, BY_NAME)
    np.testing.assert_array_equal(read_raw(record.files, BY_NAME), array[[2, 0]])
    assert (record.image_id, record.well, record.z_plane) == ("p_B03_f1", "B03", "")


@pytest.mark.parametrize("names", [None, ["Channel:0:0", "Channel:0:1"]])
def test_where_the_file_names_none_of_the_channels_they_are_planes(
    tmp_path: Path, names: list[str] | None
) -> None:
    array = stack(2)
    path = write(tmp_path / "a.ome.tif", array, "CYX", names)
    swapped = make_assay(channels=(Channel(name="pHluorin", plane=1), Channel(name="DsRed", plane=0)))
    np.testing.assert_array_equal(read_raw([path], swapped), array[[1, 0]])


def test_a_channel_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ome.tif", stack(2), "CYX", ["DAPI", "GFP"])
    with pytest.raises(
        ImageUnreadable, match=r"a\.ome\.tif: no channel\(s\) 'Alexa 488' for .*it has 'DAPI', 'GFP'"
    ):
        read_raw([path], BY_NAME)
    path = write(tmp_path / "b.ome.tif", stack(2), "CYX", ["DAPI", "DAPI"])
    with pytest.raises(ImageUnreadable, match=r"2 channel\(s\) 'DAPI' for 'nuclei'"):
        read_raw([path], make_assay(channels=(Channel(name="nuclei", recorded_as="DAPI"),)))
    path = write(tmp_path / "c.ome.tif", stack(3), "CYX")
    with pytest.raises(
        ImageUnreadable, match=r"3 channel\(s\), no names; assay 'rosella' expects 2 .*pHluorin, DsRed"
    ):
        read_raw([path], BY_PLANE)


def test_a_name_says_more_than_a_number_of_channels(tmp_path: Path) -> None:
    array = stack(3)
    path = write(tmp_path / "a.ome.tif", array, "CYX", ["DAPI", "GFP", "Cy5"])
    assay = make_assay(channels=(Channel(name="gfp"), Channel(name="third", recorded_as=3)))
    np.testing.assert_array_equal(read_raw([path], assay), array[[1, 2]])


@pytest.mark.parametrize("axes", ["ZCYX", "CZYX", "TZCYX", "TCZYX"])
def test_of_several_focal_planes_the_assay_says_which(tmp_path: Path, axes: str) -> None:
    sizes = {"Z": 4, "C": 2, "T": 1}
    array = stack(*(sizes[axis] for axis in axes[:-2]))
    path = write(tmp_path / "a.ome.tif", array, axes, ["DAPI", "Alexa 488"])
    with pytest.raises(
        ImageUnreadable, match=r"4 focal planes; expected one, or 'z_plane' of assay 'rosella'"
    ):
        read_plate(tmp_path, BY_NAME)
    with pytest.raises(ImageUnreadable, match="focal planes 0 to 3, expected 4"):
        read_raw([path], replace(BY_NAME, z_plane=4))
    third = replace(BY_NAME, z_plane=2)
    (record,) = read_plate(tmp_path, third)
    at = [{"Z": 2, "C": channel, "T": 0} for channel in (1, 0)]
    expected = [array[tuple(place[axis] for axis in axes[:-2])] for place in at]
    np.testing.assert_array_equal(read_raw(record.files, third), expected)
    assert record.z_plane == "2"


@pytest.mark.parametrize(
    ("size", "unit", "um"),
    [(0.2152, "µm", 0.2152), (215.2, "nm", 0.2152), (2.152e-4, "mm", 0.2152), (1.0, "pixel", None)],
)
def test_pixel_sizes_are_in_micrometres(tmp_path: Path, size: float, unit: str, um: float | None) -> None:
    scale = {
        f"PhysicalSize{axis}{what}": value for axis in "XY" for what, value in (("", size), ("Unit", unit))
    }
    write(tmp_path / "a.ome.tif", stack(2), "CYX", **scale)
    (record,) = read_plate(tmp_path, BY_PLANE)
    assert record.pixel_size_um == (None if um is None else pytest.approx(um))


def test_an_index_wins_over_what_a_file_says(tmp_path: Path) -> None:
    write(tmp_path / "a.ome.tif", stack(2), "CYX", PhysicalSizeX=0.2, PhysicalSizeY=0.2)
    (tmp_path / "index.csv").write_text("id,pixel_size_um\na,0.4\n", encoding="utf-8")
    assert read_plate(tmp_path, BY_PLANE)[0].pixel_size_um == 0.4
    (tmp_path / "index.csv").write_text("id,pixel_size_um\na,small\n", encoding="utf-8")
    with pytest.raises(PlateError, match="image 'a': pixel_size_um is 'small', expected micrometres above 0"):
        read_plate(tmp_path, BY_PLANE)


def test_several_fields_in_one_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for name in ("one", "other"):
            tiff.write(stack(2), photometric="minisblack", metadata={"axes": "CYX", "Name": name})
    with pytest.raises(
        ImageUnreadable, match=r"2 images \('one', 'other'\), expected one field of view a file"
    ):
        read_plate(tmp_path, BY_PLANE)


def test_a_series_in_time_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.ome.tif", stack(3, 2), "TCYX")
    with pytest.raises(ImageUnreadable, match="3 time points, expected one"):
        read_plate(tmp_path, BY_PLANE)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('PhysicalSizeY="0.2"', 'PhysicalSizeY="0.3"', r"pixels of 0\.2 x 0\.3 µm, expected squares"),
        ('PhysicalSizeX="0.2"', 'PhysicalSizeX="-1"', r"PhysicalSizeX is '-1' µm, expected a length above 0"),
        ("</Pixels>", "", r"a\.ome\.tif: .*its OME-XML: ParseError"),
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            '<!DOCTYPE OME [<!ENTITY a "b">]>',
            r"a\.ome\.tif: .*its OME-XML: EntitiesForbidden",
        ),
    ],
)
def test_a_bad_description_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = write(tmp_path / "a.ome.tif", stack(2), "CYX", PhysicalSizeX=0.2, PhysicalSizeY=0.2)
    rewrite(path, old, new)
    with pytest.raises(ImageUnreadable, match=message):
        read_plate(tmp_path, BY_PLANE)


def write_set(folder: Path, array: NDArray[np.uint16]) -> list[Path]:
    """A file a channel, each of which describes both, as microscopes write them."""
    names = ["a_C0.ome.tif", "a_C1.ome.tif"]
    blocks = "".join(
        f'<TiffData FirstC="{c}" FirstZ="0" FirstT="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(names)
    )
    paths = []
    for number, name in enumerate(names):
        path = write(folder / name, array[number : number + 1], "CYX")
        with tifffile.TiffFile(path) as tiff:
            text = tiff.ome_metadata
        text = text[: text.index("<TiffData")] + blocks + text[text.index("</Pixels>") :]
        text = re.sub(r'<OME ((?:(?!UUID)[^>])*)UUID="[^"]*"', rf'<OME \1UUID="urn:uuid:{number}"', text)
        text = text.replace('SizeC="1"', 'SizeC="2"')
        tifffile.tiffcomment(path, text.encode())
        paths.append(path)
    return paths


def test_a_file_of_a_set_is_the_channel_whose_plane_it_holds(tmp_path: Path) -> None:
    """tifffile would read the other file along, or black planes in its place."""
    array = stack(2)
    paths = write_set(tmp_path, array)
    mine = make_assay(channels=(Channel(name="green", suffix="_C0"), Channel(name="red", suffix="_C1")))
    (record,) = read_plate(tmp_path, mine)
    assert record.image_id == "a"
    np.testing.assert_array_equal(read_raw(record.files, mine), array)
    with pytest.raises(
        ImageUnreadable, match=r"one of a set of files that hold 2 channel\(s\) and 1 focal plane"
    ):
        read_raw(paths[:1], BY_PLANE)


def test_a_file_of_several_channels_is_no_file_a_channel(tmp_path: Path) -> None:
    mine = make_assay(channels=(Channel(name="green", suffix="_g"), Channel(name="red", suffix="_r")))
    for end in "gr":
        write(tmp_path / f"a_{end}.ome.tif", stack(2), "CYX", ["one", "two"])
    with pytest.raises(
        ImageUnreadable, match=r"a_g\.ome\.tif: holds 2 channels of 'one', 'two' .*expected 'green' alone"
    ):
        read_plate(tmp_path, mine)


def test_names_alone_find_nothing_in_a_file_that_names_nothing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", stack(2), photometric="minisblack")
    by_name = make_assay(channels=tuple(Channel(name=n, recorded_as=n) for n in ("DAPI", "GFP")))
    with pytest.raises(ImageUnreadable, match=r"a\.tif: names no channels, .*expected an OME-TIFF"):
        read_plate(tmp_path, by_name)


def test_colours_are_left_to_the_plain_reader(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, array, photometric="rgb", metadata={"axes": "YXS"})
    assay = make_assay(channels=tuple(Channel(name=name, plane=n) for n, name in enumerate("rgb")))
    np.testing.assert_array_equal(read_raw([path], assay), np.moveaxis(array, -1, 0))


# --- a folder a channel ------------------------------------------------------------------------------------

IN_FOLDERS = make_assay(
    channels=(Channel(name="green", folder="GFP"), Channel(name="red", folder="Cy3", suffix="_r"))
)


def fill(folder: Path, name: str, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / name, np.full((12, 16), value, np.uint16))


def test_a_channel_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    fill(tmp_path / "images" / "GFP", "B03_f1.tif", 1)
    fill(tmp_path / "images" / "Cy3", "B03_f1_r.tif", 2)
    fill(tmp_path / "images" / "Cy3", "notes.tif", 3)
    (record,) = read_plate(tmp_path, IN_FOLDERS)
    assert (record.image_id, record.well) == ("B03_f1", "B03")
    assert read_raw(record.files, IN_FOLDERS)[:, 0, 0].tolist() == [1, 2]


def test_a_file_or_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "GFP", "B03_f1.tif", 1)
    with pytest.raises(PlateError, match=r"Cy3: no such folder, assay 'rosella' has a channel there"):
        read_plate(tmp_path, IN_FOLDERS)
    (tmp_path / "Cy3").mkdir()
    with pytest.raises(
        PlateError, match=r"GFP/B03_f1\.tif: channel file Cy3/B03_f1_r\.\* is missing beside it"
    ):
        read_plate(tmp_path, IN_FOLDERS)
