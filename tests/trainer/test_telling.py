from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import Tiny, make_tiny

import trainer.candidates
import trainer.cycle
import trainer.runs
from cytoloop.domain.survey.rating import rating_report
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy
from cytoloop.domain.types import Item
from cytoloop.pipeline.consensus import agreed
from trainer.cycle import Cycle, CycleOutcome
from trainer.presets import smoke
from trainer.report import Changes, CorrectedItem, CycleReport
from trainer.runs import InProcess
from trainer.telling import rebuild, report_folder, tell

POLICY = TrainerPolicy(contest=ContestPolicy(min_groups=4, min_class_groups=4), methods=("cdl", "joint"))


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
    tiny.publish_active()
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
    with pytest.MonkeyPatch.context() as patched:
        # a network of a few steps is no better than the CIP on validation: it is let into the contest all the same
        patched.setattr(trainer.candidates, "MIN_VALIDATION_GROUPS", 99)
        outcome = Cycle(
            tiny.store,
            tiny.registry,
            tiny.studio,
            tiny.intake,
            tiny.assay,
            POLICY,
            InProcess(tiny.store, tiny.registry, lambda name: tiny.assay),
            preset="smoke",
            device="cpu",
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
        assert "right" in case.faults
        for panel in case.panels:
            assert (tiny.home / report_folder(tiny.name, outcome.cycle_id) / panel.picture).is_file()


def test_a_worst_case_shows_image_expert_cip_network_and_doubt(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    case = report_of(tiny, outcome).worst_cases[0]
    titles = [panel.title for panel in case.panels]
    assert titles[:2] == ["image", "expert"]
    assert titles[2].startswith("CIP")
    assert titles[3].startswith(("CDL", "Joint"))
    assert titles[4:] == ["doubt"]
    assert outcome.doubtful is not None
    assert not outcome.doubtful.startswith("cip-")
    texts = {panel.title: panel.caption for panel in case.panels}
    assert texts[titles[2 if case.version.startswith("cip-") else 3]] == case.faults
    assert texts[titles[2]] != texts[titles[3]], "each mask has its own faults"


def test_every_version_is_measured_in_all_respects(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    report = report_of(tiny, outcome)
    for score in report.scores:
        assert sum(map(sum, score.confusion)) == score.items * 32 * 40
        assert [one.name for one in score.errors] == ["Cytoplasm", "Nucleus"]
        assert score.errors[1].truth == score.items, "each quarter has one nucleus"
        assert score.boxes[1].counts.expert == score.items
    versions = {score.version for score in report.scores}
    assert {speed.version for speed in report.speeds} == versions
    assert {speed.images for speed in report.speeds if speed.method == "cip"} == {3}
    assert {speed.images for speed in report.speeds if speed.method != "cip"} == {10}
    assert all(speed.seconds > 0 for speed in report.speeds)
    assert {one.version for one in report.calibration} == {v for v in versions if not v.startswith("cip-")}
    for one in report.calibration:
        assert set(one.splits) == {"contest", "sealed"}
        pixels = sum(point.pixels for c in one.classes for point in c.points)
        assert pixels == 7 * 32 * 40, "5 contest and 2 sealed items"


def test_runs_tell_weak_from_clean_validation_and_what_taught_them(told: tuple[Tiny, CycleOutcome]) -> None:
    tiny, outcome = told
    cdl, joint = report_of(tiny, outcome).runs
    for run in (cdl, joint):
        (epoch,) = run.epochs
        assert epoch.weak_validation is not None
        assert epoch.validation_mean_iou is not None
        assert epoch.weak_validation != epoch.validation_mean_iou
    assert [(one.source, one.items) for one in cdl.sources] == [("weak", 10)]
    assert {one.source for one in joint.sources} == {"corrections", "weak"}
    assert sum(one.loss_share for one in joint.sources) == pytest.approx(1.0)


def test_what_the_experts_changed_is_told(tiny: Tiny) -> None:
    shown = tiny.store.models.active(tiny.name).version
    item = Item(image_id="P-A01", tile=0)
    task = tiny.task_of(item)
    parent = next(number for number, one in tiny.studio.predictions.items() if one["task"] == task)
    tiny.correct(item, parent_prediction=parent, lead_time=120.0)
    report = report_of(tiny, run(tiny))
    (corrected,) = report.corrected
    assert (corrected.start, corrected.version, corrected.minutes) == ("prediction", shown, 2.0)
    assert corrected.changes is not None
    assert corrected.changes.pixels_added + corrected.changes.pixels_removed > 0
    assert [(one.version, one.items) for one in report.proposals] == [(shown, 1)]
    assert {one.task: one.n for one in report.human_times}["correct"] == 1
    assert report_of(tiny, run(tiny)).corrected == (), "the next cycle tells of what is new"


def test_a_rating_collected_after_the_cycle_is_on_the_page_that_is_made_again(tiny: Tiny) -> None:
    outcome = run(tiny)
    assert report_of(tiny, outcome).rating is None
    written = rating_report("late", tiny.name, ("cip-1", "cdl-1"), [], [], np.random.default_rng(0))
    path = tiny.home / "ratings" / "late" / "rating.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**written.to_dict(), "minutes_median": 0.6}))
    page = rebuild(tiny.store, tiny.name, outcome.cycle_id)
    assert "Nobody has rated an item with both masks yet." in page.read_text(encoding="utf-8")
    rating = report_of(tiny, outcome).rating
    assert rating is not None
    assert rating.name == "late"


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


def told_of(tiny: Tiny, *corrected: CorrectedItem) -> CycleReport:
    """Tell of a cycle that did nothing but compare these items."""
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    tiny.store.cycles.start(cycle_id)
    active = tiny.active()
    outcome = CycleOutcome(
        cycle_id=cycle_id,
        assay=tiny.assay,
        started_at=datetime.now(UTC),
        active_before=active,
        active_after=active,
        standing=agreed(tiny.store, tiny.assay),
        corrected=corrected,
    )
    tell(tiny.store, outcome)
    tiny.store.cycles.finish(cycle_id, "done", "kept", "", str(report_folder(tiny.name, cycle_id)))
    return report_of(tiny, outcome)


def test_what_the_ranking_is_worth_goes_on_from_report_to_report(tiny: Tiny) -> None:
    tiny.correct(Item(image_id="P-A01", tile=0), lead_time=120.0)
    tiny.intake.reconcile(tiny.assay)
    changes = Changes(
        pixels_added=10,
        pixels_removed=10,
        pixels_relabelled=0,
        pixels_set_aside=0,
        objects_added=2,
        objects_removed=0,
        objects_relabelled=1,
        objects_reshaped=0,
        minutes_estimated=2.0,
        class_to_class=((80, 10, 0), (10, 30, 0), (0, 0, 0)),
    )
    ranked = CorrectedItem(
        image_id="P-A01",
        tile=0,
        expert="ada",
        start="prediction",
        minutes=1.5,
        changes=changes,
        role="ranked",
    )
    first = told_of(tiny, ranked, replace(ranked, role="audit", tile=1, minutes=1.0))
    (point,) = first.audit
    assert (point.cycle, point.expert_minutes) == (first.cycle, 2.0)
    assert (point.ranked.items, point.ranked.objects_per_minute) == (1, 2.0)
    assert (point.audit.items, point.audit.objects_per_minute) == (1, 3.0)
    assert point.ranked.mean_iou == pytest.approx((80 / 100 + 30 / 50) / 2)
    nothing_new = told_of(tiny)
    assert nothing_new.audit == first.audit
    third = told_of(tiny, ranked)
    assert third.audit[:1] == first.audit
    assert [p.cycle for p in third.audit] == [first.cycle, third.cycle]


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
