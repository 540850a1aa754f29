"""A folder of images becomes a folder of masks that say how they were made."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytoloop.adapters.images import palette_of, read_mask
from cytoloop.commands.weak_label import CONFIDENCE, PROVENANCE, weak_label_command
from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass, Teacher
from cytoloop.domain.cip import CODE_VERSION, MIN_IMAGES_FOR_ILLUMINATION, RECIPES, recipe_digest
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ConfigError, PlateError

ASSAY = Assay(
    name="rosella",
    channels=(Channel(name="pHluorin", plane=0), Channel(name="DsRed", plane=1)),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Phagophore", colour="#f0e442"),
        LabelClass(name="Autolysosome", colour="#56b4e9"),
    ),
    ignore=LabelClass(name="Ignore", colour="#999999"),
    cip=Cip(recipe="rosella"),
)


def write_field(path, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.poisson(np.array([900, 200])[:, None, None], (2, 64, 80)).astype(np.uint16)
    y, x = np.mgrid[:64, :80]
    for row, column, (green, red) in ((20, 20, (6000, 2000)), (40, 55, (300, 2500))):
        image[:, (y - row) ** 2 + (x - column) ** 2 <= 36] = np.array([[green], [red]])
    tifffile.imwrite(path, image, photometric="minisblack")
    return image


@pytest.fixture
def plate(tmp_path):
    folder = tmp_path / "plate"
    folder.mkdir()
    for seed in range(2):
        write_field(folder / f"p1_B0{seed + 2}_f1.tif", seed)
    return folder


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_masks_and_provenance(plate, tmp_path):
    out = tmp_path / "deep" / "weak"
    seen = []
    summary = weak_label_command(plate, out, ASSAY, progress=lambda done, total: seen.append((done, total)))
    assert files(out) == ["p1_B02_f1.png", "p1_B03_f1.png", PROVENANCE]
    assert seen == [(1, 2), (2, 2)]
    assert summary.failures == ()
    mask = read_mask(out / "p1_B02_f1.png")
    assert (mask[20, 20], mask[40, 55], mask[5, 70]) == (1, 2, 0)

    document = json.loads((out / PROVENANCE).read_text())
    assert document["parameters"] == RECIPES["rosella"].defaults
    assert document["recipe_digest"] == recipe_digest(ASSAY.cip) == summary.recipe_digest
    assert (document["assay"], document["recipe"]) == ("rosella", "rosella")
    assert document["code_version"] == CODE_VERSION
    assert document["failures"] == []
    first = document["images"][0]
    assert first["image_key"] == digest_of_pixels(tifffile.imread(plate / "p1_B02_f1.tif"))
    assert first["mask"] == "p1_B02_f1.png"
    assert first["class_pixels"] == {
        name: int((mask == value).sum()) for value, name in enumerate(ASSAY.class_names)
    }


VOTING = replace(
    ASSAY, cip=Cip(recipe="rosella", teachers=(Teacher(parameters={"psf_sigma": 2.0}),), agreement=1.0)
)


def test_several_teachers_leave_how_sure_they_were_beside_the_masks(plate, tmp_path):
    out = tmp_path / "weak"
    summary = weak_label_command(plate, out, VOTING, workers=2)
    names = ["p1_B02_f1.png", "p1_B03_f1.png"]
    assert files(out) == [CONFIDENCE, *names, PROVENANCE]
    assert files(out / CONFIDENCE) == names
    confidence = read_mask(out / CONFIDENCE / names[0])
    assert set(np.unique(confidence)) == {128, 255}
    assert confidence[5, 70] == 255, "background, all say"
    with Image.open(out / CONFIDENCE / names[0]) as picture:
        assert picture.mode == "L"

    document = json.loads((out / PROVENANCE).read_text())
    defaults = RECIPES["rosella"].defaults
    assert (document["recipe"], document["parameters"]) == ("rosella", defaults)
    assert document["teachers"] == [{"recipe": "rosella", "parameters": {**defaults, "psf_sigma": 2.0}}]
    assert document["recipe_digest"] == recipe_digest(VOTING.cip) == summary.recipe_digest
    assert [image["confidence"] for image in document["images"]] == [f"{CONFIDENCE}/{n}" for n in names]


def test_one_teacher_leaves_no_confidence_not_even_an_earlier_runs(plate, tmp_path):
    out = tmp_path / "weak"
    weak_label_command(plate, out, VOTING)
    weak_label_command(plate, out, ASSAY)
    assert files(out / CONFIDENCE) == []
    document = json.loads((out / PROVENANCE).read_text())
    assert "teachers" not in document
    assert set(document["images"][0]) == {"image_id", "image_key", "mask", "class_pixels"}


def test_masks_carry_the_assays_colours(plate, tmp_path):
    weak_label_command(plate, tmp_path / "weak", ASSAY)
    with Image.open(tmp_path / "weak" / "p1_B02_f1.png") as picture:
        assert picture.mode == "P"
        assert bytes(picture.getpalette()[:9]) == palette_of(ASSAY)[:9] == bytes.fromhex("000000f0e44256b4e9")


def test_workers_change_nothing(plate, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = weak_label_command(plate, one, ASSAY)
    shared = weak_label_command(plate, two, ASSAY, workers=2)
    assert alone.written == shared.written
    for name in files(one):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_bad_image_is_named_and_the_others_go_on(plate, tmp_path):
    out = tmp_path / "weak"
    weak_label_command(plate, out, ASSAY)
    (plate / "p1_B02_f1.tif").write_bytes(b"II*\0 not a picture")
    tifffile.imwrite(plate / "p1_B05_f1.tif", np.zeros((3, 8, 8), np.uint16), photometric="minisblack")
    summary = weak_label_command(plate, out, ASSAY)
    assert [file.image_id for file in summary.written] == ["p1_B03_f1"]
    assert len(summary.failures) == 2
    assert "p1_B02_f1.tif" in summary.failures[0]
    assert "p1_B05_f1.tif: 3 channel(s)" in summary.failures[1]
    document = json.loads((out / PROVENANCE).read_text())
    assert [image["image_id"] for image in document["images"]] == ["p1_B03_f1"]
    assert document["failures"] == list(summary.failures)


def test_an_interrupted_run_leaves_no_provenance_and_no_half_mask(plate, tmp_path):
    out = tmp_path / "weak"
    weak_label_command(plate, out, ASSAY)

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weak_label_command(plate, out, ASSAY, progress=interrupt)
    assert files(out) == ["p1_B02_f1.png", "p1_B03_f1.png"]


def test_a_plate_of_enough_images_gets_its_illumination(tmp_path):
    folder = tmp_path / "plate"
    folder.mkdir()
    for seed in range(MIN_IMAGES_FOR_ILLUMINATION):
        write_field(folder / f"p1_B{seed + 2:02d}_f1.tif", seed)
    write_field(folder / "p2_B02_f1.tif")
    weak_label_command(folder, tmp_path / "weak", ASSAY)
    plates = json.loads((tmp_path / "weak" / PROVENANCE).read_text())["illumination"]
    assert [entry["plate"] for entry in plates] == ["p1", "p2"]
    assert plates[0]["digest"] is not None
    assert plates[1]["digest"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cip": Cip(recipe="none")}, "unknown CIP recipe"),
        ({"cip": Cip(recipe="rosella", parameters={"x": 1})}, "unknown parameter"),
        (
            {"cip": Cip(recipe="rosella", teachers=(Teacher(parameters={"x": 1}),))},
            r"cip\.teachers\.0\.parameters: .*unknown parameter",
        ),
        ({"channels": ASSAY.channels[:1]}, r"1 channel\(s\), recipe 'rosella' expects 2"),
        ({"classes": ASSAY.classes[:2]}, "2 classes, recipe 'rosella' gives 3"),
    ],
)
def test_an_assay_that_does_not_fit_is_refused_before_anything_is_written(plate, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        weak_label_command(plate, tmp_path / "weak", replace(ASSAY, **changes))
    assert not (tmp_path / "weak").exists()


def test_wrong_arguments_are_refused(plate, tmp_path):
    with pytest.raises(ConfigError, match="0 workers"):
        weak_label_command(plate, tmp_path / "weak", ASSAY, workers=0)
    with pytest.raises(ConfigError, match="expected another folder"):
        weak_label_command(plate, plate, ASSAY)
    with pytest.raises(PlateError):
        weak_label_command(tmp_path / "nowhere", tmp_path / "weak", ASSAY)
