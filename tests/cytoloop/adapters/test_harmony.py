"""Exports of Harmony: what the index says is where it says it, and an index that cannot be followed is told."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from exports import CHANNELS, FIELDS, pixels_of, write_export
from samples import make_assay

from cytoloop.adapters.harmony import find_index, read_index, well_name
from cytoloop.adapters.images import read_raw
from cytoloop.adapters.plates import image_folder, read_plate
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay, Channel
from cytoloop.domain.errors import CytoloopError, ImageUnreadable, PlateError
from cytoloop.domain.scale import scale_warnings


def assay_of(*names: str | int, **changes: object) -> Assay:
    """Channels recorded under these names."""
    channels = tuple(
        Channel(name=f"channel {number}", plane=number, recorded_as=name) for number, name in enumerate(names)
    )
    return make_assay(channels=channels, **changes)


ASSAY = assay_of("Alexa 488", "DAPI")  # the other way round than the export numbers them


@pytest.fixture
def index(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


def edit(index: Path, old: str, new: str, count: int = 0) -> None:
    """Replace in the index what a regular expression finds; it must be there."""
    text, changed = re.subn(old, new, index.read_text(encoding="utf-8"), count=count, flags=re.DOTALL)
    assert changed
    index.write_text(text, encoding="utf-8")


def test_wells_fields_planes_and_pixel_sizes_come_from_the_index(index: Path) -> None:
    records = read_plate(index.parent.parent, ASSAY)
    assert [r.image_id for r in records] == ["P-1_B03_f1", "P-1_B03_f2", "P-1_P24_f1", "P-1_P24_f2"]
    first, last = records[0], records[-1]
    assert (first.plate, first.well, first.field, first.group) == ("P 1", "B03", "1", "P 1/B03")
    assert (last.well, last.field, last.z_plane, last.height, last.width) == ("P24", "2", "1", 12, 16)
    assert [r.pixel_size_um for r in records] == pytest.approx([0.2152] * 4)


def test_channels_are_in_the_assays_order_not_the_exports(index: Path) -> None:
    (first, *_) = read_plate(index.parent.parent, ASSAY)
    np.testing.assert_array_equal(read_raw(first.files, ASSAY), [pixels_of(0, 2), pixels_of(0, 1)])


@pytest.mark.parametrize("names", [("Alexa 488", "DAPI"), ("alexa 488", "dapi"), (2, 1)])
def test_a_channel_is_found_by_name_or_by_number(index: Path, names: tuple[str | int, str | int]) -> None:
    wanted = assay_of(*names)
    (first, *_) = read_plate(index.parent.parent, wanted)
    np.testing.assert_array_equal(read_raw(first.files, wanted)[0], pixels_of(0, 2))


def test_a_channels_own_name_is_looked_for_unless_another_is_given(index: Path) -> None:
    one = make_assay(channels=(Channel(name="DAPI", plane=0),))
    (first, *_) = read_plate(index.parent.parent, one)
    np.testing.assert_array_equal(read_raw(first.files, one), [pixels_of(0, 1)])


def test_a_channel_that_is_not_there_is_told_with_those_that_are(index: Path) -> None:
    with pytest.raises(
        PlateError, match=r"no channel 'GFP' for 'channel 0' of .*1 'DAPI', 2 'Alexa 488'.*recorded_as"
    ):
        read_plate(index.parent.parent, assay_of("GFP", "DAPI"))
    with pytest.raises(PlateError, match=r"no channel 3 for"):
        read_plate(index.parent.parent, assay_of(3, "DAPI"))


def test_of_two_channels_with_one_name_the_number_decides(index: Path) -> None:
    edit(index, "Alexa 488", "DAPI")
    with pytest.raises(PlateError, match=r"2 channels 'DAPI' for 'channel 0'"):
        read_plate(index.parent.parent, assay_of("DAPI", 2))
    assert len(read_plate(index.parent.parent, assay_of(1, 2))) == 4


def test_the_images_folder_itself_is_an_export_too(index: Path) -> None:
    assert [r.image_id for r in read_plate(index.parent, ASSAY)] == [
        r.image_id for r in read_plate(index.parent.parent, ASSAY)
    ]
    assert image_folder(index.parent.parent) == image_folder(index.parent) == index.parent
    assert find_index(index.parent.parent.parent) is None


def test_channels_of_harmony_6_stand_in_maps(index: Path) -> None:
    """There an image has no name and no resolution of its own."""
    entries = "".join(
        f'<Entry ChannelID="{number}"><ChannelName>{name}</ChannelName><ImageResolutionX Unit="m">5E-07'
        '</ImageResolutionX><ImageResolutionY Unit="m">5E-07</ImageResolutionY></Entry>'
        for number, name in enumerate(CHANNELS, start=1)
    )
    before = [r.image_id for r in read_plate(index.parent.parent, ASSAY)]
    edit(index, r"<ChannelName>.*?</ChannelName>|<ImageResolution(.).*?</ImageResolution\1>", "")
    edit(index, "HarmonyV5", "HarmonyV6")
    flat = '<Map><Entry ChannelID="1"><FlatfieldProfile>{a}</FlatfieldProfile></Entry></Map>'
    edit(index, "<Images>", f"<Maps>{flat}<Map>{entries}</Map></Maps><Images>")
    records = read_plate(index.parent.parent, ASSAY)
    assert [r.image_id for r in records] == before
    assert records[0].pixel_size_um == pytest.approx(0.5)
    np.testing.assert_array_equal(read_raw(records[0].files, ASSAY)[0], pixels_of(0, 2))


def test_an_index_csv_adds_what_harmony_does_not_know(index: Path) -> None:
    (index.parent.parent / "index.csv").write_text(
        "id,well,treatment\nP-1_B03_f2,,Torin 1\n", encoding="utf-8"
    )
    records = {r.image_id: r for r in read_plate(index.parent.parent, ASSAY)}
    assert records["P-1_B03_f2"].treatment == "Torin 1"
    assert records["P-1_B03_f2"].well == "B03"
    assert records["P-1_B03_f1"].treatment == ""
    assert {r.image_id: r.treatment for r in read_plate(index.parent, ASSAY)} == {
        name: record.treatment for name, record in records.items()
    }


def add_second_plane(index: Path) -> None:
    """The same files again, as plane 2."""
    images = re.findall(r"<Image Version.*?</Image>", index.read_text(encoding="utf-8"), flags=re.DOTALL)
    again = "".join(one.replace("<PlaneID>1<", "<PlaneID>2<").replace("p01-", "p02-") for one in images)
    edit(index, "</Images>", f"{again}</Images>")
    for number, one in enumerate(FIELDS):
        for channel in (1, 2):
            name = f"r{one.row:02d}c{one.column:02d}f{one.field:02d}p02-ch{channel}sk1fk1fl1.tiff"
            tifffile.imwrite(index.parent / name, pixels_of(100 + number, channel))


def test_of_several_focal_planes_the_assay_says_which(index: Path) -> None:
    add_second_plane(index)
    with pytest.raises(
        PlateError, match=r"well B03 field 1: focal planes 1, 2; expected one, or 'z_plane' of assay"
    ):
        read_plate(index.parent.parent, ASSAY)
    with pytest.raises(PlateError, match=r"focal planes 1, 2, expected 3 as assay"):
        read_plate(index.parent.parent, replace(ASSAY, z_plane=3))
    second = replace(ASSAY, z_plane=2)
    (first, *_) = read_plate(index.parent.parent, second)
    assert first.z_plane == "2"
    np.testing.assert_array_equal(read_raw(first.files, second)[0], pixels_of(100, 2))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HarmonyV5", "ColumbusV1", r"Index\.idx\.xml: holds .*ColumbusV1.*, expected 'EvaluationInputData'"),
        (
            r' xmlns="[^"]*"',
            "",
            r"holds 'User', expected 'EvaluationInputData' in a namespace of Harmony 5 to 7",
        ),
        (
            "EvaluationInputData",
            "MeasurementData",
            r"is a .*MeasurementData', expected 'EvaluationInputData'",
        ),
        ("</Images>.*", "", r"not whole XML \(.*\), after 8 images"),
        (r"<Image Version.*</Image>", "", r"names no image"),
        (
            r"(<ChannelID>)2",
            r"\1two",
            r"image 2 \(0203K1F1P1R2\): ChannelID is 'two', expected a whole number of 1",
        ),
        (
            r"(<Row>)16(</Row>\s*<Col>24</Col>\s*<FieldID>)",
            r"\g<1>0\2",
            r"Row is '0', expected a whole number of 1",
        ),
        (r"<FieldID>1</FieldID>", "", r"image 1 .*: FieldID is None"),
        (
            r"(<FieldID>)2",
            r"\g<1>1",
            r"well B03 field 1 plane 1 channel 1 stands there twice: 'r02c03f01.*f02",
        ),
        (
            r"<ChannelName>Alexa 488",
            r"<ChannelName>GFP",
            r"channel 2 is called 'Alexa 488', before it was 'GFP'",
        ),
        (r'(ResolutionY Unit="m">)[^<]*', r"\g<1>4E-07", r"pixels of 0\.2152 x 0\.4 µm, expected squares"),
        (
            r'(ResolutionX Unit="m">)[^<]*',
            r"\g<1>-1",
            r"ImageResolutionX is '-1' in 'm', expected metres above 0",
        ),
        (r'(ResolutionX Unit=")m', r"\g<1>furlong", r"in 'furlong', expected metres"),
        (r"<TimepointID>0", "<TimepointID>1", r"time points 0, 1, expected one an export"),
        (r"(<Plate>.*</Plate>)", r"\1\1", r"2 plates \('P 1', 'P 1'\), expected one an export"),
        (r"r02c03f01p01-ch1", r"../r02c03f01p01-ch1", r"file '\.\./r02.*', expected a name inside"),
        (r"r02c03f01p01-ch1", r"/etc/r02c03f01p01-ch1", r"file '/etc/r02.*', expected a name inside"),
        (r"r02c03f01p01-ch1", r"C:\\\\r02c03f01p01-ch1", r"expected a name inside"),
        (
            r"r02c03f01p01-ch1",
            r"r02c03f09p01-ch1",
            r"f09p01-ch1sk1fk1fl1\.tiff is missing; the index names it for ch",
        ),
        ("<Name>P 1", "<Name>" + "x" * 201, r"plate is called 'xxx.*expected at most 200 printable"),
        (r"<State>Ok", r"<State>Failed", r"well B03 field 1: channel 2 'Alexa 488' was not recorded"),
        (r"(\?>)", r'\1<!DOCTYPE x [<!ENTITY a "b">]>', r"declares a document type or entities"),
    ],
)
def test_a_bad_index_is_told(index: Path, old: str, new: str, message: str) -> None:
    edit(index, old, new, count=0 if new in ("ColumbusV1", "MeasurementData") or "State" in old else 1)
    with pytest.raises(PlateError, match=message):
        read_plate(index.parent.parent, ASSAY)


def test_a_link_that_leads_out_of_the_export_is_refused(index: Path, tmp_path: Path) -> None:
    path = index.parent / "r02c03f01p01-ch1sk1fk1fl1.tiff"
    path.rename(tmp_path / "elsewhere.tiff")
    path.symlink_to(tmp_path / "elsewhere.tiff")
    with pytest.raises(ImageUnreadable, match=r"ch1sk1fk1fl1\.tiff: leads to .*elsewhere\.tiff, out of"):
        read_plate(index.parent.parent, ASSAY)
    index.rename(tmp_path / "Index.idx.xml")
    index.symlink_to(tmp_path / "Index.idx.xml")
    with pytest.raises(PlateError, match=r"Index\.idx\.xml: leads to"):
        read_plate(index.parent.parent, ASSAY)


def test_a_field_without_the_plane_is_left_out_where_somebody_listens(index: Path) -> None:
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("<PlaneID>1<", "<PlaneID>2<", 2), encoding="utf-8")
    problems: list[CytoloopError] = []
    records = read_plate(index.parent.parent, replace(ASSAY, z_plane=1), on_problem=problems.append)
    assert len(records) == 3
    assert ["focal planes 2, expected 1" in str(p) for p in problems] == [True]


def test_a_field_that_lacks_a_file_is_left_out_where_somebody_listens(index: Path) -> None:
    (index.parent / "r02c03f02p01-ch1sk1fk1fl1.tiff").unlink()
    problems: list[CytoloopError] = []
    records = read_plate(index.parent.parent, ASSAY, on_problem=problems.append)
    assert [r.image_id for r in records] == ["P-1_B03_f1", "P-1_P24_f1", "P-1_P24_f2"]
    assert [str(p).endswith("is missing; the index names it for channel 1 'DAPI'") for p in problems] == [
        True
    ]


def test_channels_no_assay_asks_for_may_be_missing(index: Path) -> None:
    for path in index.parent.glob("*-ch1*"):
        path.unlink()
    assert len(read_plate(index.parent.parent, make_assay(channels=(Channel(name="Alexa 488"),)))) == 4


def test_planes_and_fields_of_other_channels_alone_are_none_of_the_assays(index: Path) -> None:
    """A second plane of DAPI, and a field that has nothing but DAPI."""
    images = re.findall(r"<Image Version.*?</Image>", index.read_text(encoding="utf-8"), flags=re.DOTALL)
    second = images[0].replace("<PlaneID>1<", "<PlaneID>2<")
    alone = images[0].replace("<FieldID>1<", "<FieldID>7<")
    edit(index, "</Images>", f"{second}{alone}</Images>")
    records = read_plate(index.parent.parent, make_assay(channels=(Channel(name="Alexa 488"),)))
    assert [(r.field, r.z_plane) for r in records] == [("1", "1"), ("2", "1")] * 2
    with pytest.raises(PlateError, match="focal planes 1, 2"):
        read_plate(index.parent.parent, ASSAY)


def test_a_plate_without_a_name_is_called_by_its_folder(index: Path) -> None:
    edit(index, r"<Name>.*?</Name>|<PlateID>.*?</PlateID>", "")
    assert read_index(index).plate == "export"


@pytest.mark.parametrize(
    ("row", "column", "name"),
    [(1, 1, "A01"), (8, 12, "H12"), (26, 1, "Z01"), (27, 1, "AA01"), (32, 48, "AF48")],
)
def test_wells_have_letters_and_two_digits(row: int, column: int, name: str) -> None:
    assert well_name(row, column) == name


def test_plane_and_pixel_size_are_kept_in_the_store(index: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    store.assays.ensure(ASSAY)
    added = store.images.add(ASSAY, read_plate(index.parent.parent, ASSAY))
    assert store.images.all(ASSAY.name) == added
    assert added[0].z_plane == "1"
    store.close()


def test_another_scale_than_the_assays_is_told(index: Path) -> None:
    records = read_plate(index.parent.parent, ASSAY)
    assert scale_warnings(records, ASSAY) == []  # it says none
    assert scale_warnings(records, replace(ASSAY, pixel_size_um=0.2150)) == []
    (warning,) = scale_warnings(records, replace(ASSAY, pixel_size_um=0.4304))
    assert warning.startswith(
        "plate 'P 1': 4 image(s) with pixels of 0.2152 µm, assay 'rosella' is made for 0.4304 µm"
    )
    assert warning.endswith("2 times the size it expects")
