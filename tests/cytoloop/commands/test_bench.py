"""Benchmarks: they measure what they say, and a bar that is missed is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import pytest
from places import LABEL_STUDIO

from cytoloop import cli
from cytoloop.commands.bench import (
    cip,
    codec,
    contest,
    material,
    prediction,
    publish,
    register,
    scores,
    step,
)
from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured
from cytoloop.commands.bench.register import run_benchmarks
from cytoloop.domain.errors import InputError, StateError


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "HELD_BY_OTHERS", 3)
    monkeypatch.setattr(register, "CLIENTS", 4)
    monkeypatch.setattr(register, "CALLS", 3)
    monkeypatch.setattr(register, "IMAGES_AT_ONCE", 150)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "ROUNDS", 1)
    monkeypatch.setattr(material, "FIELDS", 1)
    monkeypatch.setattr(material, "LEARNING_STEPS", 1)


def figures(name: str) -> dict[str, Figure]:
    (found,) = run_benchmarks([name], BenchOptions(), lambda *_: None)
    assert found.name == name
    return {figure.name: figure for figure in found.figures}


@pytest.mark.usefixtures("_small")
def test_the_worklist_is_measured_on_a_home_of_the_size_asked_for(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    (found,) = run_benchmarks(["worklist"], BenchOptions(items=2000), lambda *step: told.append(step))
    assert found.title.startswith("Worklists over 2,000 items, 120 leases; ")
    values = {figure.name: figure.value for figure in found.figures}
    assert values["items handed out twice"] == values["items short of what was asked"] == 0
    timed = [name for name in values if not name.startswith("items ")]
    assert all(values[name] > 0 for name in timed)
    judged = {figure.name for figure in found.figures if figure.bar is not None}
    assert {"worklist of 100, p99", "re-scoring all", "peak memory of the process"} <= judged
    assert ("fill", 500, 500) in told


def measured(_: BenchOptions, __: object) -> Measured:
    figures = (
        Figure(name="quick", value=1.5, unit="ms", bar=2),
        Figure(name="slow", value=2.5, unit="ms", bar=2),
        Figure(name="told", value=3, unit="s"),
    )
    return Measured(name="worklist", title="A title", figures=figures)


def run(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.run(["bench", *arguments])
    return code, capsys.readouterr().out


def test_a_bar_that_is_missed_is_told_and_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(register, "BENCHMARKS", {"worklist": measured})
    code, said = run([], capsys)
    assert code == 0
    lines = [line.split("│") for line in said.splitlines() if "│" in line]
    assert [[cell.strip() for cell in line[1:-1]] for line in lines] == [
        ["quick", "1.5 ms", "<= 2 ms", "met"],
        ["slow", "2.5 ms", "<= 2 ms", "missed"],
        ["told", "3 s", "", ""],
    ]
    code, said = run(["worklist", "--json"], capsys)
    (document,) = json.loads(said)["benchmarks"]
    assert (code, document["name"]) == (0, "worklist")
    assert [(f["name"], f["is_met"]) for f in document["figures"]] == [
        ("quick", True),
        ("slow", False),
        ("told", None),
    ]


def test_a_benchmark_that_is_not_known_is_refused_with_those_that_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(
        InputError,
        match=r"benchmark 'sleep' is not known; expected one of \['worklist', 'scores', 'contest', ",
    ):
        run_benchmarks(["worklist", "sleep"], BenchOptions(items=1000), lambda *_: None)
    assert run(["sleep"], capsys)[0] == 1


@pytest.mark.usefixtures("_quick")
def test_scores_are_measured_against_a_plain_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "ROUNDS", 1)
    (found,) = run_benchmarks(["scores"], BenchOptions(), lambda *step: None)
    values = {figure.name: figure.value for figure in found.figures}
    assert values["plain prediction"] > 0
    assert values["augmentation"] > 1, "three more predictions; how much they take is not this test's"
    assert {figure.name for figure in found.figures if figure.bar is not None} == {
        "entropy, effort and reason",
        "eight whole passes",
    }


def test_contests_are_measured_without_a_gain_and_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, few in {
        "REIGNS": 60,
        "BOOTSTRAPPED_REIGNS": 4,
        "REPLICATES": 50,
        "CONTESTS": 60,
        "CALIBRATED": 200,
        "POPULATION": 500,
        "WELLS": (12,),
        "GAINS": (0.01, 0.1),
    }.items():
        monkeypatch.setattr(contest, name, few)
    told: list[tuple[str, int, int]] = []
    (found,) = run_benchmarks(["contest"], BenchOptions(), lambda *step: told.append(step))
    values = {figure.name: figure.value for figure in found.figures}
    judged = {figure.name for figure in found.figures if figure.bar is not None}
    assert judged >= {"equal, 12 wells: 30 cycles with a wrong promotion"}
    assert values["equal, 12 wells: 30 cycles with a wrong promotion"] <= 20
    assert values["gain 0.1, 12 wells, look 1: promoted"] > 90
    assert values["gain 0.01, 12 wells, look 20: promoted"] < values["gain 0.01, 12 wells, look 1: promoted"]
    assert told[-1][1] == told[-1][2], "all steps were told"


# --- prediction, from the codec to Label Studio ----------------------------------------------------------------


def test_what_is_measured_in_turn_is_called_as_often_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    waited, worked = [0.0], [0.0]

    def ask(name: str, wall: float, work: float) -> None:
        calls.append(name)
        warming_up = 100.0 if len(calls) <= 2 else 0.0
        waited[0] += wall + warming_up
        worked[0] += work

    spent = material.in_turn(
        {"a": lambda: ask("a", 1, 3), "b": lambda: ask("b", 2, 0.5)},
        lambda *_: None,
        "both",
        3,
        (lambda: waited[0], lambda: worked[0]),
    )
    assert calls == ["a", "b"] * 4
    assert spent == {
        "a": material.Spent(wall=1, work=3),
        "b": material.Spent(wall=2, work=0.5),
    }


def test_the_codec_is_measured_beside_the_converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "REPEATS", 2)
    found = figures("codec")
    for name in ("encode", "decode"):
        share = found[f"{name}, share of the converter's time"]
        assert share.bar == 0.1
        assert 0 < share.value < 1


def test_a_codec_whose_bytes_are_others_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = codec.encode_rle
    monkeypatch.setattr(codec, "encode_rle", lambda mask: [*encode(mask)[:-1], 1])
    with pytest.raises(StateError, match="not the converter's"):
        figures("codec")


@pytest.mark.usefixtures("_quick")
def test_the_engine_is_measured_beside_pytorch() -> None:
    pytest.importorskip("onnxruntime")
    found = figures("engine")
    assert found["share of eager PyTorch's time"].bar == 0.5
    assert found["share of eager PyTorch's time"].value > 0
    # figures of no clock: these bars hold everywhere
    assert found["worst class: 1 - IoU with PyTorch's masks"].is_met
    assert 0 < found["largest difference of a probability"].value < 1e-4


@pytest.mark.usefixtures("_quick")
def test_a_prediction_is_measured_end_to_end_and_items_from_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(prediction, "ITEMS", 4)
    monkeypatch.setattr(prediction, "SERVED_ROUNDS", 1)
    found = figures("prediction")
    # not less than a part of it takes, whatever the machine does meanwhile
    assert found["its share of the engine's bare pass"].value > 0.5
    assert {name: f.bar for name, f in found.items() if f.bar is not None} == {
        "its share of the bare pass in eager PyTorch": 0.6,
        "its share of the engine's bare pass": 1.3,
        "their share of one after another in eager PyTorch": 0.5,
    }


@pytest.mark.usefixtures("_quick")
def test_a_step_is_measured_beside_the_bare_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "STEPS", 2)
    monkeypatch.setattr(step, "REPEATS", 1)
    found = figures("step")
    assert found["a step of a run"].bar == 1.15
    assert found["a step of a run"].value > 0.3
    assert found["bare step"].value > 0


def test_the_recipe_is_measured_on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cip, "ROUNDS", 1)
    monkeypatch.setattr(cip, "FIELDS", 1)
    threads = cv2.getNumThreads()
    found = figures("cip")
    assert found["processor time of a field"].bar == 1.0
    assert found["processor time of a field"].value > 0.01
    assert cv2.getNumThreads() == threads


def test_publishing_is_left_out_and_told_where_there_is_no_label_studio(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    code, said = run(["publish"], capsys)
    assert code == 0
    assert "Publishing: not measured. Label Studio is not installed" in " ".join(said.split())


@pytest.mark.studio
@pytest.mark.timeout(300)
def test_publishing_is_measured_beside_the_bare_call(monkeypatch: pytest.MonkeyPatch) -> None:
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    monkeypatch.setattr(publish, "find_label_studio", lambda _: LABEL_STUDIO)
    monkeypatch.setattr(publish, "PREDICTIONS", 8)
    monkeypatch.setattr(publish, "FIELDS", 1)
    monkeypatch.setattr(publish, "REPEATS", 1)
    found = figures("publish")
    assert found["publishing"].bar == 1.5
    assert found["publishing"].value > 0.3
    assert found["bare bulk call"].value > 0
