"""A month in minutes: plates arrive, experts work, one of them badly for a while, and nobody minds the trainer.

The pages of reports are not drawn, except the last one: they are two thirds of a night's time, and have their own
tests. What is trained is small, and real.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import time_machine
import torch
from month import Month, live
from tiny import ADA, BOB, make_tiny

import trainer.cycle
import trainer.runs
import trainer.schedule
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy, Triggers
from trainer.presets import smoke
from trainer.runs import InProcess
from trainer.schedule import Trainer

DAYS = 30
PLATES = {8: 24, 16: 24}
"""Wells of the plates that arrive after the first one, which has 24, too."""
CARELESS = range(12, 17)
REDONE = 20
POLICY = TrainerPolicy(
    triggers=Triggers(cron="0 3 * * *", corrections=None),
    contest=ContestPolicy(min_groups=6, min_class_groups=6),
)


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Month]:
    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        return replace(smoke(method, assay, seed), crop=32, batch=8, epochs=3, steps_per_epoch=8)

    monkeypatch.setattr(trainer.runs, "preset", preset)
    monkeypatch.setattr(trainer.cycle, "preset", preset)
    tiny = make_tiny(tmp_path, wells=24)
    monkeypatch.setattr(trainer.schedule, "LabelStudioClient", lambda url, token: tiny.studio)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tiny.listen()
    tiny.publish_active(QueuePolicy(strategy="random+diverse", size=16, experts=(ADA, BOB)))
    here = InProcess(tiny.store, tiny.registry, lambda name: tiny.assay)
    worker = Trainer(tiny.settings, POLICY, preset="smoke", train=here)
    yield Month(tiny=tiny, trainer=worker, folder=tmp_path, items_a_day=5, careless=CARELESS, redone=REDONE)
    worker.close()
    tiny.store.close()
    torch.set_num_threads(threads)


@pytest.mark.timeout(900)
def test_a_month_in_minutes(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = trainer.schedule.tell
    monkeypatch.setattr(
        trainer.schedule, "tell", lambda *told: tell(*told) if len(month.log) == DAYS - 1 else None
    )
    with time_machine.travel(datetime.now(UTC), tick=True) as clock:
        log = live(month, clock, DAYS, PLATES)
    cycles = month.tiny.store.cycles.all(month.tiny.name)
    assert len(cycles) == DAYS, "one a night, asked for by the schedule"
    assert {row["asked_by"] for row in cycles} == {"schedule"}
    assert {row["state"] for row in cycles} == {"done"}
    assert all(decision.reason for decision in log)
    assert len(month.tiny.store.images.groups(month.tiny.name)) == 24 + sum(PLATES.values())

    first, last = log[0], log[-1]
    assert last.active.startswith(("joint", "mdl"))
    assert last.true_mean_iou > first.true_mean_iou + 0.1, "it was worth the experts' time"
    quality = [decision.true_mean_iou for decision in log]
    assert all(later > earlier - 0.02 for earlier, later in pairwise(quality)), (
        "never worse, whatever came with more plates"
    )

    bad_days = [decision for decision in log if decision.bad_masks_standing]
    assert max(decision.bad_masks_standing for decision in bad_days) > 10
    worst = min(quality for decision in bad_days for quality in decision.trained.values())
    assert worst < last.true_mean_iou - 0.1, "what learned from them was bad"
    assert [decision.day for decision in log if decision.bad_masks_served] == [], "and never served"
    assert (month.trainer.report_path(cycles[-1]["id"]) or Path()).is_file()
