from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Painted, Tiny, make_tiny

import trainer.bringing
import trainer.judge
import trainer.runs
import trainer.schedule
from cytoloop.commands.servers import run_trainer
from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable, StateError
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.trainer_policy import ContestPolicy, Hooks, Limits, TrainerPolicy
from cytoloop.domain.types import Item
from cytoloop.nn.fit import TrainingCancelled
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.completeness import compare
from trainer.cycle import CycleOutcome
from trainer.presets import smoke
from trainer.runs import InProcess
from trainer.schedule import Trainer, build

POLICY = TrainerPolicy(contest=ContestPolicy(min_groups=3, min_class_groups=1), methods=("cdl", "joint"))
QUEUE = QueuePolicy.all_ranked(strategy="entropy", size=4, contest_share=0.25)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.publish_active(QUEUE)
    yield made
    made.store.close()


@pytest.fixture
def worker(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    """The real trainer on the tiny home; trainings of two steps."""

    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        return replace(smoke(method, assay, seed), crop=32, batch=2, epochs=1, steps_per_epoch=2)

    monkeypatch.setattr(trainer.runs, "preset", preset)
    monkeypatch.setattr(trainer.schedule, "LabelStudioClient", lambda url, token: tiny.studio)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    here = InProcess(tiny.store, tiny.registry, lambda name: tiny.assay)
    made = Trainer(tiny.settings, POLICY, preset="smoke", train=here)
    yield made
    made.close()
    torch.set_num_threads(threads)


def states(tiny: Tiny) -> list[str]:
    return [row["state"] for row in tiny.store.cycles.all(tiny.name)]


def correct(tiny: Tiny, count: int, tile: int = 0) -> None:
    for record in tiny.store.images.all(tiny.name)[:count]:
        tiny.correct(Item(image_id=record.image_id, tile=tile))


# --- one cycle ---


def test_a_cycle_is_run_to_its_report(tiny: Tiny, worker: Trainer) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    assert worker.report_path(cycle_id) is None
    told: list[str] = []
    outcome = worker.run_one(cycle_id, lambda step, share: told.append(step))
    row = tiny.store.cycles.get(cycle_id)
    assert (row["state"], row["outcome"], row["progress"]) == ("done", "kept", 1.0)
    assert row["reason"] == outcome.reason
    assert row["started_at"] <= row["finished_at"]
    page = worker.report_path(cycle_id)
    assert page is not None
    assert outcome.reason[1:] in page.read_text(encoding="utf-8")
    assert told[0] == "reconcile"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (LabelStudioRefused("no"), "failed", "no"),
        (RuntimeError("out of memory"), "failed", "RuntimeError: out of memory"),
        (LabelStudioUnavailable("away"), "abandoned", "away"),
        (TrainingCancelled("stopped"), "abandoned", "stopped"),
        (SystemExit(0), "abandoned", "SystemExit: 0"),
    ],
)
def test_a_failing_cycle_says_so_and_changes_nothing(
    tiny: Tiny,
    worker: Trainer,
    error: BaseException,
    outcome: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trainer.runs, "train_version", fail)
    before = tiny.store.models.active(tiny.name)
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    with pytest.raises(type(error)):
        worker.run_one(cycle_id)
    row = tiny.store.cycles.get(cycle_id)
    assert (row["state"], row["outcome"], row["reason"]) == ("failed", outcome, reason)
    # what was not the cycle's fault is tried again; what was would only fail again
    assert [r["asked_by"] for r in tiny.store.cycles.queued()] == (
        ["retry"] if outcome == "abandoned" else []
    )
    assert tiny.store.models.active(tiny.name) == before
    assert tiny.studio.model_version == before.version
    monkeypatch.undo()


def test_one_cycle_at_a_time(tiny: Tiny, worker: Trainer) -> None:
    first = tiny.store.cycles.ask(tiny.name, "a")
    tiny.store.cycles.start(first)
    second = tiny.store.cycles.ask(tiny.name, "b")
    with pytest.raises(StateError, match=f"cycle {first} is running"):
        worker.run_one(second)
    assert tiny.store.cycles.get(second)["state"] == "queued", "it waits, it has not failed"


# --- looking ---


def test_a_look_runs_what_was_asked_for(tiny: Tiny, worker: Trainer) -> None:
    tiny.store.cycles.ask(tiny.name, "test")
    worker.look(100)
    assert states(tiny) == ["done"]
    worker.look(100)
    assert states(tiny) == ["done"]


def test_a_look_finds_what_webhooks_lost_and_asks_when_enough_is_new(tiny: Tiny, worker: Trainer) -> None:
    correct(tiny, 2)
    worker.look(3)
    assert states(tiny) == []
    assert len(tiny.store.corrections.standing(tiny.name)) == 2
    correct(tiny, 1, tile=1)
    worker.look(3)
    assert states(tiny) == ["done"]
    assert tiny.store.cycles.all(tiny.name)[0]["asked_by"] == "schedule"
    worker.look(3)
    assert states(tiny) == ["done"], "what a cycle saw is not new"


def test_a_look_applies_events(tiny: Tiny, worker: Trainer) -> None:
    tiny.listen()
    correct(tiny, 1)
    worker.look(100)
    assert tiny.store.corrections.last_event() == tiny.store.inbox.last() == 1


def test_a_look_refills_a_batch_by_the_policy(tiny: Tiny, worker: Trainer) -> None:
    batch = tiny.held()
    for item in batch:
        tiny.correct(item)
    worker.look(100)
    refilled = tiny.held()
    assert len(refilled) == 4
    assert sum(tiny.split_of(item) == "contest" for item in refilled) == 1
    assert not set(refilled) & set(batch)


def test_a_look_is_put_off_while_label_studio_is_down(
    tiny: Tiny, worker: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.studio.is_down = True
    worker.look(1)
    assert "look put off assay=tiny" in caplog.text
    tiny.studio.is_down = False
    correct(tiny, 1)
    worker.look(1)
    assert states(tiny) == ["done"]


def test_a_failing_cycle_is_not_run_again_at_every_look(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LabelStudioRefused("no")

    monkeypatch.setattr(trainer.runs, "train_version", fail)
    correct(tiny, 2)
    worker.look(2)
    assert "cycle failed" in caplog.text
    worker.look(2)
    assert states(tiny) == ["failed"], "only new corrections make it try again"
    correct(tiny, 2, tile=1)
    worker.look(2)
    assert states(tiny) == ["failed", "failed"]


def test_a_cycle_that_was_abandoned_is_asked_for_again(tiny: Tiny, worker: Trainer) -> None:
    correct(tiny, 2)
    worker._intake.reconcile(tiny.assay)
    tiny.store.cycles.start(tiny.store.cycles.ask(tiny.name, "test"))
    worker.look(2)  # the lock is free: whoever ran it is gone
    assert states(tiny) == ["failed", "done"]
    assert tiny.store.cycles.all(tiny.name)[0]["outcome"] == "abandoned"


def test_a_broken_assay_does_not_hold_up_the_others(
    tiny: Tiny, worker: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(tiny.assay, name="another")
    tiny.store.assays.ensure(broken)  # its file is gone
    tiny.store.cycles.ask(tiny.name, "test")
    worker.look(100)
    assert "look failed assay=another" in caplog.text
    assert states(tiny) == ["done"]


# --- the process ---


def test_the_scheduler_has_one_job_that_never_runs_beside_itself() -> None:
    scheduler = build(lambda: None, 7)
    (job,) = scheduler.get_jobs()
    assert job.trigger.interval.total_seconds() == 7
    job_options = {
        key: getattr(job, key, None) for key in ("max_instances", "coalesce", "misfire_grace_time")
    }
    assert job_options == {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}


@pytest.fixture
def run_alone(tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """``cytoloop trainer`` with a scheduler that looks once more, then ends; no signals, no log files."""
    order: list[str] = []

    class Once:
        def __init__(self, look: Any) -> None:
            self.look = look

        def start(self) -> None:
            order.append("scheduled")
            self.look()

    monkeypatch.setattr(trainer.schedule, "Trainer", lambda settings: worker)
    monkeypatch.setattr(trainer.schedule, "build", lambda look, every: Once(look))
    monkeypatch.setattr("cytoloop.commands.servers.configure_logging", lambda *_, **__: None)
    monkeypatch.setattr("cytoloop.commands.servers.signal.signal", lambda *_: None)
    monkeypatch.setattr(worker, "close", lambda: order.append("closed"))
    yield order
    monkeypatch.undo()


def test_a_cycle_that_a_stopped_trainer_left_is_closed_at_the_start(tiny: Tiny, run_alone: list[str]) -> None:
    left = tiny.store.cycles.ask(tiny.name, "test")
    tiny.store.cycles.start(left)
    run_trainer(tiny.settings, 100, 15)
    row = tiny.store.cycles.get(left)
    assert (row["state"], row["outcome"]) == ("failed", "abandoned")
    assert run_alone == ["scheduled", "closed"]


def test_a_bug_in_a_cycle_does_not_end_the_trainer(
    tiny: Tiny, run_alone: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(trainer.runs, "train_version", fail)
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    run_trainer(tiny.settings, 100, 15)
    assert tiny.store.cycles.get(cycle_id)["reason"] == "RuntimeError: a bug"
    assert run_alone == ["scheduled", "closed"]


def test_a_cycle_that_runs_elsewhere_is_waited_for_and_not_taken_twice(tiny: Tiny, worker: Trainer) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    assert worker.run_one(cycle_id) is not None
    assert worker.run_one(cycle_id) is None


def test_a_correction_that_comes_in_while_a_cycle_judges_waits_for_the_next(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides of a contest are judged on the same items, whatever experts do meanwhile."""
    correct(tiny, 2)
    real = trainer.judge.judged_items

    def busy(*arguments: Any) -> Any:
        judged = list(real(*arguments))
        for item in tiny.store.images.tasks(tiny.name):
            tiny.correct(item)
        worker._intake.reconcile(tiny.assay)
        return judged

    monkeypatch.setattr(trainer.judge, "judged_items", busy)
    outcome = worker.run_now(tiny.name, "test")
    assert outcome.outcome in ("promoted", "kept")
    assert len(outcome.standing) == 2, "the report counts what the cycle worked with"
    assert len(tiny.store.corrections.standing(tiny.name)) > 2
    judged = {(version, split): len(items) for (version, split), items in outcome.judged.items()}
    assert len({count for (_, split), count in judged.items() if split == "contest"}) <= 1


@pytest.mark.parametrize("is_lost", ["predictions", "scores"])
def test_predictions_that_were_deleted_are_made_again(tiny: Tiny, worker: Trainer, is_lost: str) -> None:
    version = tiny.store.models.active(tiny.name).version
    getattr(tiny.store, is_lost).forget(tiny.name, version)
    worker.look(100)
    items = len(tiny.store.images.tasks(tiny.name))
    assert tiny.store.predictions.count(tiny.name, version) == items
    assert tiny.store.scores.count(tiny.name, version, "entropy") == items


def test_a_look_ranks_a_part_of_a_plate_and_brings_what_comes_next(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.schedule, "RANKED_A_LOOK", 1)
    version = tiny.active()
    items = len(tiny.store.images.tasks(tiny.name))
    tiny.store.scores.forget(tiny.name, version)
    tiny.store.predictions.forget(tiny.name, version)
    counts = []
    for _ in range(100):
        worker.look(100)
        counts.append(tiny.store.scores.count(tiny.name, version, "entropy"))
        if counts[-1] == items:
            break
    assert counts == list(range(4, items + 1, 4)), "four items an image"
    pushed = tiny.studio.prediction_tasks(tiny.studio.project_id, version)
    following = tiny.store.worklist.open_items(tiny.name, version, "entropy", "train", 1000)
    assert {tiny.task_of(scored.item) for scored in following} <= pushed


def test_a_look_ranks_by_the_strategy_that_a_queue_follows_now(tiny: Tiny, worker: Trainer) -> None:
    version = tiny.active()
    worker.look(100)
    tiny.set_policy(replace(QUEUE, strategy="random"))
    worker.look(100)
    assert "random" in tiny.store.scores.strategies(tiny.name, version)
    items = {task: item for item, task in tiny.store.images.tasks(tiny.name).items()}
    told = {items[p["task"]]: p["score"] for p in tiny.studio.predictions.values()}
    assert told == tiny.store.predictions.confidences(tiny.name, version, told), "the tabs go by it at once"
    for item in tiny.held():
        tiny.correct(item)
    worker.look(100)
    assert {lease.strategy for lease in tiny.store.leases.held(tiny.name)} == {"random"}


def test_a_look_that_has_nothing_to_rank_looks_at_no_image(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.schedule, "rank_everything", lambda *_, **__: pytest.fail("ranked again"))
    tiny.set_policy(replace(QUEUE, strategy="entropy"))
    worker.look(100)
    tiny.set_policy(replace(QUEUE, strategy="disagreement"))
    with pytest.raises(pytest.fail.Exception):  # CIP has none of it: its stand-in was never made
        worker.look(100)


def test_a_ranking_that_was_cut_off_is_completed_by_the_next_look(tiny: Tiny, worker: Trainer) -> None:
    """Whatever other rankings the version has."""
    version = tiny.active()
    tiny.set_policy(replace(QUEUE, strategy="margin"))
    worker.look(100)
    some = list(tiny.store.scores.all(tiny.name, version, "margin"))[:4]
    tiny.store.scores.put(tiny.name, version, "margin", some)
    worker.look(100)
    assert tiny.store.scores.count(tiny.name, version, "margin") == 16


def test_a_look_hands_on_what_ran_out(tiny: Tiny, worker: Trainer) -> None:
    for item in tiny.held():
        tiny.correct(item)
    tiny.set_policy(replace(QUEUE, lease_minutes=1e-6))
    worker.look(100)
    before = tiny.store.leases.held(tiny.name)
    assert len(before) == 4
    worker.look(100)
    assert {tiny.store.leases.get(lease.id).state for lease in before} == {"expired"}
    assert len(tiny.held()) == 4


# --- what people ask for ---


def test_a_look_brings_back_the_version_before_once_however_often_it_is_tried(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cip = tiny.active()
    monkeypatch.setattr(
        trainer.bringing,
        "load_predictor",
        lambda store, registry, assay, model, device: (
            load_predictor(store, registry, assay, model)
            if model.method == "cip"
            else Painted(model.version, tiny.truth)
        ),
    )
    for version in ("cdl-20260101-00000001", "cdl-20260102-00000002"):
        tiny.add_version(version)
        tiny.store.cycles.ask(tiny.name, "ada", kind="promote", target=version)
        worker.look(100)
    tiny.store.cycles.ask(tiny.name, "ada", "worse in the clinic", kind="rollback")
    show = trainer.bringing.refill
    monkeypatch.setattr(trainer.bringing, "refill", _away)
    worker.look(100)  # in force, and then cut off
    monkeypatch.setattr(trainer.bringing, "refill", show)
    worker.look(100)
    assert tiny.active() == tiny.studio.model_version == "cdl-20260101-00000001"
    assert tiny.store.publications.previous(tiny.name) == cip
    rows = tiny.store.cycles.all(tiny.name)
    assert [row["kind"] for row in rows] == ["promote", "promote", "rollback", "rollback"]
    assert [row["outcome"] for row in rows[:3]] == ["promoted", "promoted", "abandoned"]
    assert "is in force already" in rows[3]["reason"]
    page = (tiny.home / rows[1]["report"] / "report.html").read_text(encoding="utf-8")
    assert "Another model is in use, brought in by hand" in page
    assert f"cytoloop models promote {rows[0]['target']}" in page, "how to take it back"


def _away(*_: Any) -> None:
    raise LabelStudioUnavailable("away")


def test_a_cycle_that_waits_is_called_off_at_once(tiny: Tiny, worker: Trainer) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    row = tiny.store.cycles.cancel(cycle_id, "ada")
    assert (row["state"], row["outcome"]) == ("failed", "cancelled")
    assert row["reason"] == "cancelled by ada before it began"
    worker.look(100)
    assert states(tiny) == ["failed"]
    with pytest.raises(StateError, match="is failed; only a queued or running one can be cancelled"):
        tiny.store.cycles.cancel(cycle_id, "ada")


def test_a_cycle_that_trains_is_called_off_at_its_next_step_and_not_tried_again(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    real = trainer.runs.train_version

    def called_off(*arguments: Any, **options: Any) -> Any:
        tiny.store.cycles.cancel(cycle_id, "ada")
        return real(*arguments, **options)

    monkeypatch.setattr(trainer.runs, "train_version", called_off)
    worker.look(100)
    row = tiny.store.cycles.get(cycle_id)
    assert (row["state"], row["outcome"], row["reason"]) == ("failed", "cancelled", "cancelled by ada")
    assert states(tiny) == ["failed"]
    page = (tiny.home / row["report"] / "report.html").read_text(encoding="utf-8")
    assert "This cycle was called off; the model in use stays" in page


def test_a_trainer_on_its_own_trains_in_a_child(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing replaced but Label Studio: the process itself, its limits and its answer."""
    monkeypatch.setattr(trainer.schedule, "LabelStudioClient", lambda url, token: tiny.studio)
    alone = Trainer(tiny.settings, TrainerPolicy(limits=Limits(threads=1)))
    outcome = alone.run_now(tiny.name, "test")
    alone.close()
    assert isinstance(outcome, CycleOutcome)
    (cdl,) = outcome.trained
    assert cdl.result.peak_memory_gb is not None
    assert outcome.asked_by == "test"
    assert "12 are needed" in outcome.reason


# --- what is told ---


def hooked(tiny: Tiny, folder: Path, monkeypatch: pytest.MonkeyPatch, *, exit_code: int = 0) -> Trainer:
    """A trainer whose commands write what they are told into a file."""
    script = folder / "hook.sh"
    script.write_text(
        f'#!/bin/sh\necho "$CYTOLOOP_EVENT|$CYTOLOOP_ASSAY|$CYTOLOOP_REPORT" >> {folder}/told\nexit {exit_code}\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(trainer.schedule, "LabelStudioClient", lambda url, token: tiny.studio)
    hooks = Hooks(promoted=str(script), rejected=str(script), failed=str(script))
    here = InProcess(tiny.store, tiny.registry, lambda name: tiny.assay)
    return Trainer(tiny.settings, replace(POLICY, hooks=hooks), preset="smoke", train=here)


def test_a_cycle_that_fails_writes_a_report_runs_the_command_and_is_listed(
    tiny: Tiny, worker: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LabelStudioRefused("the project is gone")

    monkeypatch.setattr(trainer.runs, "train_version", fail)
    loud = hooked(tiny, tmp_path, monkeypatch)
    cycle_id = tiny.store.cycles.ask(tiny.name, "ada", "a test")
    loud.look(100)
    loud.close()
    page = tiny.home / "reports" / "tiny" / cycle_id / "report.html"
    assert (tmp_path / "told").read_text().splitlines() == [f"failed|tiny|{page}"]
    text = page.read_text(encoding="utf-8")
    assert "The project is gone" in text
    assert tiny.store.cycles.get(cycle_id)["report"] == f"reports/tiny/{cycle_id}"
    for index in ("reports/index.html", "reports/tiny/index.html"):
        listed = (tiny.home / index).read_text(encoding="utf-8")
        assert f"{cycle_id}/report.html" in listed
        assert "The project is gone" in listed


def test_a_command_that_fails_is_told_in_the_report_and_harms_nothing(
    tiny: Tiny, worker: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LabelStudioRefused("the project is gone")

    monkeypatch.setattr(trainer.runs, "train_version", fail)
    cycle_id = tiny.store.cycles.ask(tiny.name, "ada")
    loud = hooked(tiny, tmp_path, monkeypatch, exit_code=3)
    loud.look(100)
    loud.close()
    assert (tmp_path / "told").read_text().startswith("failed|tiny|")
    row = tiny.store.cycles.get(cycle_id)
    assert (row["state"], row["outcome"], row["reason"]) == ("failed", "failed", "the project is gone")
    page = (tiny.home / row["report"] / "report.html").read_text(encoding="utf-8")
    assert "The command for failed cycles (" in page
    assert "ended with code 3" in page


def test_a_contest_that_could_not_be_decided_runs_no_command(
    tiny: Tiny, worker: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loud = hooked(tiny, tmp_path, monkeypatch)
    outcome = loud.run_now(tiny.name, "test")
    loud.close()
    assert outcome.outcome == "kept"
    assert "3 are needed" in outcome.reason
    assert not (tmp_path / "told").exists()


# --- whole looks ---


def test_what_a_look_at_changes_misses_the_next_whole_look_finds(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.look()
    first, second = tiny.items()[:2]
    tiny.correct(first)
    worker.look()
    number = tiny.correct(second)
    task = tiny.studio.task(tiny.task_of(second))
    # as after Label Studio's database was restored: the change is older than the last one that was seen
    long_ago = "2024-01-01T00:00:00.000000Z"
    monkeypatch.setattr(
        tiny.studio,
        "_changed",
        lambda project, since, everything=tiny.studio._changed: [
            one
            for one in everything(project, None)
            if since is None or (one["id"] != task["id"] and one in everything(project, since))
        ],
    )
    tiny.studio.annotations[number]["updated_at"] = long_ago
    worker.look()
    assert second not in tiny.store.corrections.standing(tiny.name)
    monkeypatch.setattr(trainer.schedule, "WHOLE_LOOK_EVERY_S", 0.0)
    worker.look()
    assert second in tiny.store.corrections.standing(tiny.name)
    assert tiny.store.corrections.doubts() == []


def test_a_store_that_differs_from_label_studio_is_told_once(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Same annotation, same time stamp, other pixels: no reconciliation mends it, so a person has to know."""
    caplog.set_level(logging.INFO)
    number = tiny.correct(tiny.items()[0])
    worker.look()
    assert "tasks=16 annotations=1 equal=1" in caplog.text
    tiny.studio.annotations[number]["result"] = tiny.regions(tiny.items()[1])[:1]
    monkeypatch.setattr(trainer.schedule, "WHOLE_LOOK_EVERY_S", 0.0)
    worker.look()
    worker.look()
    (doubt,) = tiny.store.corrections.doubts()
    assert (doubt["source"], doubt["assay"]) == ("comparison", tiny.name)
    assert f"annotation {number} " in doubt["message"]


def test_what_is_submitted_while_the_trainer_compares_is_no_difference(
    tiny: Tiny, worker: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts go on working; a doubt would stay, and send somebody to look for nothing."""

    def busy(*arguments: Any) -> Any:
        correct(tiny, 1)
        return compare(*arguments)

    monkeypatch.setattr(trainer.schedule, "compare", busy)
    worker.look()
    assert len(tiny.studio.annotations) == 2, "compared twice"
    assert tiny.store.corrections.doubts() == []


def test_after_label_studio_was_away_everything_is_looked_at(tiny: Tiny, worker: Trainer) -> None:
    """It may have been cut off between an annotation and the time stamp of its task, and no event came."""
    tiny.studio.advance(60)
    correct(tiny, 2)
    worker.look()
    item = tiny.items()[5]
    stamp = tiny.studio.tasks[tiny.task_of(item)]["updated_at"]
    tiny.studio.advance(60)
    tiny.correct(item)
    tiny.studio.tasks[tiny.task_of(item)]["updated_at"] = stamp
    tiny.studio.advance(60)
    correct(tiny, 3)
    worker.look()
    assert tiny.standing(item) is None, "a look at changes cannot know"
    tiny.studio.is_down = True
    worker.look()
    tiny.studio.is_down = False
    worker.look()
    assert tiny.standing(item) is not None
