"""The file an administrator writes: what it gives, and what each mistake is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cytoloop.adapters.assays import load_assay, read_assay, shipped_folder
from cytoloop.domain.assay import IGNORE, Display, LabelClass, Teacher
from cytoloop.domain.cip import recipe_of, teachers_of
from cytoloop.domain.errors import ConfigError

GOOD: dict[str, Any] = {
    "name": "mine",
    "channels": [{"name": "DNA", "plane": 0}, {"name": "Actin", "plane": 1, "colour": "#ff0000"}],
    "classes": [
        {"name": "Background", "colour": "#000000"},
        {"name": "Cytoplasm", "colour": "#e69f00", "hotkey": "1"},
        {"name": "Nucleus", "colour": "#cc79a7", "hotkey": "2"},
    ],
    "cip": {"recipe": "cells2ch", "parameters": {"sigma": 2}},
}


def write(folder: Path, document: Any, name: str = "mine") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


def changed(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


def test_every_key_arrives(tmp_path: Path) -> None:
    assay = read_assay(
        write(
            tmp_path,
            changed(
                ignore={"name": "Unsure", "colour": "#777777"},
                pixel_size_um=0.2152,
                tiling="2x3",
                class_priority=["Nucleus", "Cytoplasm"],
                display={"percentiles": [1, 99], "ranges": {"DNA": [100, 4000]}, "scope": "image"},
                training="smoke",
                queues=["one", "two"],
            ),
        )
    )
    assert (assay.name, assay.class_names) == ("mine", ("Background", "Cytoplasm", "Nucleus"))
    assert [(c.name, c.plane, c.suffix, c.colour) for c in assay.channels] == [
        ("DNA", 0, None, "#ffffff"),
        ("Actin", 1, None, "#ff0000"),
    ]
    assert assay.ignore == LabelClass(name="Unsure", colour="#777777")
    assert (assay.pixel_size_um, assay.tiling, assay.training_preset) == (0.2152, (2, 3), "smoke")
    assert assay.display == Display(percentiles=(1, 99), ranges={"DNA": (100, 4000)}, scope="image")
    assert (assay.priority_values, assay.queues) == ((2, 1), ("one", "two"))
    assert (assay.cip.recipe, dict(assay.cip.parameters)) == ("cells2ch", {"sigma": 2.0})


def test_queues_may_bring_their_policies(tmp_path: Path) -> None:
    ada = {"name": "Ada", "email": "ada@lab.org"}
    assay = read_assay(
        write(tmp_path, changed(queues={"day": {"size": 20, "experts": [ada]}, "night": None}))
    )
    assert assay.queues == ("day", "night")
    assert assay.queue_policies == {"day": {"size": 20, "experts": [ada]}}
    names_alone = read_assay(write(tmp_path, changed(queues=["day", "night"])))
    assert (names_alone.queues, names_alone.queue_policies) == (("day", "night"), {})
    assert assay.digest == names_alone.digest, "who works when changes nothing that was made"


def test_teachers_arrive_in_their_order(tmp_path: Path) -> None:
    cip = {
        "recipe": "cells2ch",
        "parameters": {"cell_sigma": 2},
        "teachers": [{"parameters": {"cell_sigma": 3}}, {"recipe": "rosella"}],
        "agreement": 0.66,
    }
    assay = read_assay(write(tmp_path, changed(cip=cip)))
    assert assay.cip.teachers == (Teacher(parameters={"cell_sigma": 3.0}), Teacher(recipe="rosella"))
    assert assay.cip.agreement == 0.66
    assert [(recipe.name, own.get("cell_sigma")) for recipe, own in teachers_of(assay.cip)] == [
        ("cells2ch", 2.0),
        ("cells2ch", 3.0),
        ("rosella", None),
    ]


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    assay = read_assay(write(tmp_path, GOOD))
    assert (assay.tiling, assay.queues, assay.training_preset) == ((1, 1), ("default",), "fast")
    assert assay.value_of("Ignore") == IGNORE
    assert assay.display == Display()
    assert assay.pixel_size_um is None
    assert (assay.cip.teachers, assay.cip.agreement) == ((), 0.0)


def test_channels_may_be_found_by_what_the_microscope_calls_them(tmp_path: Path) -> None:
    names: list[str | int] = ["Alexa 488", 2]
    channels = [{"name": name, "recorded_as": recorded} for name, recorded in zip("ab", names, strict=True)]
    assay = read_assay(write(tmp_path, changed(channels=channels, z_plane=3)))
    assert [channel.recorded_name for channel in assay.channels] == names
    assert assay.z_plane == 3
    folders = [{"name": name, "folder": name.upper()} for name in "ab"]
    assay = read_assay(write(tmp_path, changed(channels=folders)))
    assert [(c.folder, c.recorded_name, c.has_own_file) for c in assay.channels] == [
        ("A", "a", True),
        ("B", "b", True),
    ]


TWO = GOOD["channels"]
CLASSES = GOOD["classes"]
CIP = {"recipe": "cells2ch", "parameters": {"cell_sigma": 2}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(chanels=[]), "key 'chanels' is not known"),
        (changed(cip={"recipe": "nuclei", "sigma": 2}), "key 'cip.sigma' is not known"),
        ({k: v for k, v in GOOD.items() if k != "cip"}, "key 'cip' is missing"),
        ({k: v for k, v in GOOD.items() if k != "name"}, "key 'name' is missing"),
        (changed(channels=[{"plane": 0}]), "key 'channels.0.name' is missing"),
        (changed(name="other"), "name is 'other', expected 'mine' as the file is called"),
        (changed(name="Mine"), "key 'name'"),
        (changed(channels="DNA"), "key 'channels': Input should be a valid list, got 'DNA'"),
        (changed(channels=[]), "key 'channels'"),
        (changed(channels=[TWO[0], TWO[0]]), "channel names are ['DNA', 'DNA'], expected each once"),
        (
            changed(channels=[{**TWO[0], "folder": "../raw"}, TWO[1]]),
            "key 'channels.0.folder': String should match",
        ),
        (
            changed(channels=[{**TWO[0], "recorded_as": "Actin"}, {"name": "Actin", "plane": 1}]),
            "names the microscope gave are ['Actin', 'Actin'], expected each once",
        ),
        (changed(channels=[{**TWO[0], "recorded_as": 0}, TWO[1]]), "key 'channels.0.recorded_as"),
        (changed(z_plane=-1), "key 'z_plane': Input should be greater than or equal to 0"),
        (changed(channels=[TWO[0], {"name": "Actin"}]), "expected a plane (or a suffix) on every channel"),
        (
            changed(channels=[TWO[0], {"name": "Actin", "suffix": "_2"}]),
            "a suffix on every channel or on none",
        ),
        (changed(channels=[TWO[0], {"name": "Actin", "plane": 0}]), "planes are [0, 0], expected each once"),
        (
            changed(channels=[{"name": "DNA", "suffix": "_1"}, {"name": "Actin", "suffix": "_1"}]),
            "suffixes are ['_1', '_1'], expected each once",
        ),
        (changed(channels=[{"name": "DNA", "plane": -1}]), "key 'channels.0.plane'"),
        (changed(classes=CLASSES[:1]), "key 'classes'"),
        (
            changed(classes=[*CLASSES, CLASSES[1]]),
            "'Cytoplasm', 'Nucleus', 'Cytoplasm', 'Ignore'], expected each once",
        ),
        (changed(classes=[*CLASSES, {"name": "Ignore", "colour": "#000000"}]), "expected each once"),
        (changed(classes=[{"name": 3, "colour": "#000000"}, *CLASSES]), "key 'classes.0.name'"),
        (changed(classes=[CLASSES[0], {"name": "A", "colour": "red"}]), "key 'classes.1.colour'"),
        (
            changed(classes=[CLASSES[0], {"name": "A", "colour": "#ff0000", "hotkey": 1}]),
            "key 'classes.1.hotkey'",
        ),
        (changed(classes=[CLASSES[0], {"name": "A<b>", "colour": "#ff0000"}]), "key 'classes.1.name'"),
        (changed(tiling="2"), "key 'tiling'"),
        (changed(tiling="0x2"), "key 'tiling'"),
        (changed(tiling=[2, 2]), "key 'tiling': Input should be a valid string, got [2, 2]"),
        (changed(pixel_size_um=0), "key 'pixel_size_um': Input should be greater than 0, got 0"),
        (changed(pixel_size_um="0.2 um"), "key 'pixel_size_um'"),
        (changed(pixel_size_um=float("inf")), "key 'pixel_size_um'"),
        (changed(class_priority=["Nucleus"]), "class_priority is ['Nucleus'], expected each of"),
        (changed(class_priority=["Nucleus", "Cytoplasm", "Nucleus"]), "class_priority is"),
        (changed(cip={"recipe": "nuclei", "parameters": {"sigma": "wide"}}), "key 'cip.parameters.sigma'"),
        (changed(cip={**CIP, "teachers": [{"sigma": 2}]}), "key 'cip.teachers.0.sigma' is not known"),
        (
            changed(cip={**CIP, "teachers": [{}, {"parameters": {"sigma": "wide"}}]}),
            "key 'cip.teachers.1.parameters.sigma'",
        ),
        (
            changed(
                cip={**CIP, "teachers": [{"parameters": {"cell_sigma": 9}}, {"parameters": {"psf_sigma": 2}}]}
            ),
            "mine.yaml: cip.teachers.1.parameters: recipe 'cells2ch': unknown parameter(s) ['psf_sigma']",
        ),
        (
            changed(cip={**CIP, "teachers": [{"recipe": "nuclei"}]}),
            "mine.yaml: cip.teachers.0.recipe: 'nuclei' reads 1 channel(s)",
        ),
        (changed(cip={**CIP, "teachers": [{}]}), "cip.teachers.0: the same as the first teacher"),
        (changed(cip={**CIP, "agreement": 1.5}), "key 'cip.agreement': Input should be less than or equal"),
        (changed(cip={**CIP, "agreement": float("nan")}), "key 'cip.agreement'"),
        (
            changed(cip={**CIP, "agreement": 0.5}),
            "key 'cip': Value error, agreement is 0.5 with one teacher, expected teachers beside it",
        ),
        (
            changed(display={"percentiles": [99, 1]}),
            "percentiles are [99.0, 1.0], expected 0 <= low < high <= 100",
        ),
        (changed(display={"percentiles": [1, 2, 3]}), "key 'display.percentiles'"),
        (changed(display={"scope": "well"}), "key 'display.scope'"),
        (
            changed(display={"ranges": {"DNA": [500, 500]}}),
            "range of 'DNA' is [500.0, 500.0], expected low < high",
        ),
        (changed(display={"ranges": {"DNA": [0, float("nan")]}}), "range of 'DNA'"),
        (changed(display={"ranges": {"GFP": [0, 500]}}), "display ranges of ['GFP'], expected channels of"),
        (changed(queues=[]), "key 'queues'"),
        (changed(queues=["My queue"]), "key 'queues.0'"),
        (changed(queues=["a", "a"]), "queues are ['a', 'a'], expected each once"),
        (changed(queues={}), "key 'queues'"),
        (changed(queues={"My queue": None}), "key 'queues.0'"),
        (
            changed(queues={"a": {"size": 0}}),
            "key 'queues.a': key 'size': got 0 (int), expected a whole number",
        ),
        (changed(queues={"a": None, "b": {"sise": 4}}), "key 'queues.b': key 'sise' is not known"),
        (changed(queues={"a": 40}), "key 'queues.a': got 40 (int), expected a mapping of keys ['strategy'"),
        ("- a\n- b\n", "got list, expected a mapping with key 'name'"),
        ("", "got NoneType, expected a mapping with key 'name'"),
        ("name: [unclosed", "not YAML"),
    ],
)
def test_a_mistake_is_answered_with_file_and_key(tmp_path: Path, document: Any, message: str) -> None:
    path = write(tmp_path, document)
    with pytest.raises(ConfigError) as caught:
        read_assay(path)
    assert message in str(caught.value)
    assert all(line.startswith(str(path)) for line in str(caught.value).splitlines() if "key" in line)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, changed(tiling="9", training=3, extra=1))
    with pytest.raises(ConfigError) as caught:
        read_assay(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{path}: key ") for line in lines)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: not UTF-8"):
        read_assay(path)


def test_the_homes_own_assay_wins_over_the_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, changed(name="rosella", training="smoke"), "rosella")
    assert load_assay("rosella", [tmp_path]).training_preset == "smoke"
    assert load_assay("rosella", [tmp_path / "nowhere"]).training_preset == "fast"


def test_an_unknown_assay_is_told_what_there_is(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(ConfigError, match=r"'rosela' not found; expected one of \[.*'mine'.*'rosella'\] in "):
        load_assay("rosela", [tmp_path])


@pytest.mark.parametrize("name", ["rosella", "cells2ch", "nuclei"])
def test_the_shipped_assays_fit_their_recipes(name: str) -> None:
    assay = read_assay(shipped_folder() / f"{name}.yaml")
    recipe = recipe_of(assay.cip)
    assert recipe.channel_count == len(assay.channels)
    assert recipe.class_count == assay.class_count
    recipe.parameters(assay.cip.parameters)


def test_the_teachers_shown_as_an_example_work_when_they_are_uncommented(tmp_path: Path) -> None:
    text = (shipped_folder() / "rosella.yaml").read_text(encoding="utf-8")
    shown = text.replace("  #| ", "  ")
    assert shown != text
    assay = read_assay(write(tmp_path, shown, "rosella"))
    assert len(teachers_of(assay.cip)) == 3
    assert assay.cip.agreement == 1.0
    assert dict(assay.cip.parameters) == dict(load_assay("rosella").cip.parameters)
