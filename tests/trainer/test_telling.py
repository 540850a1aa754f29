from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Tiny, make_tiny

import trainer.cycle
import trainer.runs
from cytoloop.domain.types import Item
from cytoloop.domain.worklist import QueuePolicy
from trainer.cycle import Cycle, CycleOutcome, CyclePolicy
from trainer.presets import smoke
from trainer.report import CycleReport
from trainer.telling import rebuild, report_folder, tell


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Trainings of two steps on one thread: what a network learned is not the matter here."""

    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        return replace(smoke(method, assay, seed), crop=32, batch=2, epochs=1, steps_per_epoch=2)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.runs, "preset", preset)
        yield
    torch.set_num_threads(threads)


def make(folder: Path) -> Tiny:
    tiny = make_tiny(folder, wells=20)
    tiny.publish_active(QueuePolicy(size=8))
    return tiny


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make(tmp_path)
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tiny, CycleOutcome]]:
    """A home after its first cycle, for tests that only read."""
    made = make(tmp_path_factory.mktemp("told"))
    correct(made, lead_time=30.0)
    yield made, run(made)
    made.store.close()


def run(tiny: Tiny) -> CycleOutcome:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    tiny.store.cycles.start(cycle_id)
    policy = CyclePolicy(preset="smoke")
    outcome = Cycle(
        tiny.store, tiny.registry, tiny.studio, tiny.intake, tiny.assay, policy, device="cpu"
    ).run(cycle_id)
    tell(tiny.store, outcome)
    folder = str(report_folder(tiny.name, cycle_id))
    tiny.store.cycles.finish(cycle_id, "done", outcome.outcome, outcome.reason, folder)
    return outcome


def report_of(tiny: Tiny, outcome: CycleOutcome) -> CycleReport:
    path = tiny.home / report_folder(tiny.name, outcome.cycle_id) / "report.json"
    return CycleReport.from_dict(json.loads(path.read_text(encoding="utf-8")))


def correct(tiny: Tiny, tile: int = 0, **fields: Any) -> None:
    for record in tiny.store.images.all(tiny.name):
        tiny.correct(Item(image_id=record.image_id, tile=tile), **fields)


def test_a_report_can_be_read_and_says_what_was_done(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    report = report_of(tiny, outcome)
    assert (report.cycle, report.assay) == (outcome.cycle_id, "tiny")
    assert (report.outcome, report.reason) == (outcome.outcome, outcome.reason)
    assert (report.active_before, report.active_after) == (outcome.active_before, outcome.active_after)
    assert [run.method for run in report.runs] == ["cdl", "joint"]
    assert report.snapshot is not None
    assert (report.snapshot.corrections, report.snapshot.weak_labels) == (10, 10)
    assert report.snapshot.held_out_items == 10
    (work,) = report.work
    assert (work.expert, work.corrections, work.minutes) == ("ada@lab.org", 20, pytest.approx(10.0))
    assert report.contest is not None
    assert (report.contest.challenger, report.contest.groups) == (outcome.challenger, 5)
    shown = {(score.version, score.split) for score in report.scores}
    assert {split for _, split in shown} == {"validation", "contest", "sealed"}
    assert {version for version, _ in shown} >= {outcome.active_before, outcome.challenger}
    assert {entry.step for entry in report.ledger} >= {"reconcile", "train", "contest"}


def test_the_page_needs_no_other_file_and_can_be_made_again(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    folder = tiny.home / report_folder(tiny.name, outcome.cycle_id)
    page = folder / "report.html"
    text = page.read_text(encoding="utf-8")
    assert outcome.reason[1:] in text, "the first letter is a capital there"
    assert 'src="worst-' not in text, "pictures are in the page: it is served from another path"
    page.unlink()
    assert rebuild(tiny.store, tiny.name, outcome.cycle_id) == page
    assert page.read_text(encoding="utf-8") == text


def test_the_worst_cases_are_those_of_the_contest(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    report = report_of(tiny, outcome)
    assert len(report.worst_cases) == 4
    ious = [case.mean_iou for case in report.worst_cases if case.mean_iou is not None]
    assert ious == sorted(ious)
    contest = {record.image_id for record in tiny.store.images.all(tiny.name, ["contest"])}
    for case in report.worst_cases:
        assert case.image_id in contest
        assert case.version == outcome.active_after
        assert (tiny.home / report_folder(tiny.name, outcome.cycle_id) / str(case.picture)).is_file()


def test_the_curve_begins_with_cip_and_goes_on(tiny: Tiny) -> None:
    correct(tiny, lead_time=60.0)
    first = report_of(tiny, run(tiny))
    assert [(p.cycle, p.corrections, p.expert_minutes) for p in first.curve] == [
        ("start", 0, 0.0),
        (first.cycle, 20, pytest.approx(20.0)),
    ]
    assert first.curve[0].version.startswith("cip-")
    assert first.curve[0].contest_mean_iou is not None
    second = report_of(tiny, run(tiny))
    assert second.curve[:2] == first.curve
    assert [p.cycle for p in second.curve] == ["start", first.cycle, second.cycle]


def test_the_curve_goes_on_where_the_last_report_was_deleted(tiny: Tiny) -> None:
    correct(tiny)
    first = report_of(tiny, run(tiny))
    second = run(tiny)
    shutil.rmtree(tiny.home / report_folder(tiny.name, second.cycle_id))
    third = report_of(tiny, run(tiny))
    assert [p.cycle for p in third.curve] == ["start", first.cycle, third.cycle]


def test_work_is_that_since_the_last_cycle(tiny: Tiny) -> None:
    correct(tiny)
    run(tiny)
    tiny.studio._now = datetime.now(UTC)
    tiny.correct(Item(image_id="P-A01", tile=3), completed_by=2, lead_time=None)
    (work,) = report_of(tiny, run(tiny)).work
    assert (work.expert, work.corrections, work.minutes) == ("bob@lab.org", 1, 0.0)


def test_without_any_correction_there_is_a_report_too(tiny: Tiny) -> None:
    outcome = run(tiny)
    report = report_of(tiny, outcome)
    assert (report.work, report.scores, report.worst_cases) == ((), (), ())
    assert [p.corrections for p in report.curve] == [0]
