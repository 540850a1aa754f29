"""Benchmarks: they measure what they say, and a bar that is missed is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cytoloop import cli
from cytoloop.commands import bench, bench_contest, bench_scores
from cytoloop.commands.bench import BenchOptions, Figure, Measured, run_benchmarks
from cytoloop.domain.errors import InputError


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "HELD_BY_OTHERS", 3)
    monkeypatch.setattr(bench, "CLIENTS", 4)
    monkeypatch.setattr(bench, "CALLS", 3)
    monkeypatch.setattr(bench, "IMAGES_AT_ONCE", 150)


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
    monkeypatch.setattr(bench, "BENCHMARKS", {"worklist": measured})
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
        match=r"benchmark 'sleep' is not known; expected one of \['worklist', 'scores', 'contest', 'serving', 'uncached'\]",
    ):
        run_benchmarks(["worklist", "sleep"], BenchOptions(items=1000), lambda *_: None)
    assert run(["sleep"], capsys)[0] == 1


def test_scores_are_measured_against_a_plain_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_scores, "ROUNDS", 1)
    monkeypatch.setattr(bench_scores, "FIELDS", 1)
    monkeypatch.setattr(bench_scores, "LEARNING_STEPS", 1)
    (found,) = run_benchmarks(["scores"], BenchOptions(), lambda *step: None)
    values = {figure.name: figure.value for figure in found.figures}
    assert values["plain prediction"] > 0
    assert values["augmentation"] > 2, "three more predictions"
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
        monkeypatch.setattr(bench_contest, name, few)
    told: list[tuple[str, int, int]] = []
    (found,) = run_benchmarks(["contest"], BenchOptions(), lambda *step: told.append(step))
    values = {figure.name: figure.value for figure in found.figures}
    judged = {figure.name for figure in found.figures if figure.bar is not None}
    assert judged >= {"equal, 12 wells: 30 cycles with a wrong promotion"}
    assert values["equal, 12 wells: 30 cycles with a wrong promotion"] <= 20
    assert values["gain 0.1, 12 wells, look 1: promoted"] > 90
    assert values["gain 0.01, 12 wells, look 20: promoted"] < values["gain 0.01, 12 wells, look 1: promoted"]
    assert told[-1][1] == told[-1][2], "all steps were told"
