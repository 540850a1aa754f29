"""What makes a cycle due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny, make_tiny

from cytoloop.domain.trainer_policy import Triggers
from cytoloop.domain.types import Item
from labelstudio_config.payloads import prediction_result
from trainer import triggers as asking
from trainer.triggers import due

NONE = Triggers(corrections=None)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=8)
    made.publish_active()
    yield made
    made.store.close()


def correct(tiny: Tiny, count: int, tile: int = 0, lead_time: float = 60.0) -> None:
    for record in tiny.store.images.all(tiny.name)[:count]:
        tiny.correct(Item(image_id=record.image_id, tile=tile), lead_time=lead_time)
    tiny.intake.reconcile(tiny.assay)


def end_cycle(tiny: Tiny, outcome: str = "kept", kind: str = "train") -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test", kind=kind)  # type: ignore[arg-type]
    tiny.store.cycles.start(cycle_id)
    tiny.store.cycles.finish(cycle_id, "failed" if outcome == "abandoned" else "done", outcome, "")


def test_without_triggers_nothing_is_ever_due(tiny: Tiny) -> None:
    correct(tiny, 8)
    assert due(tiny.store, tiny.assay, NONE) is None


def test_corrections_are_counted_since_the_last_cycle(tiny: Tiny) -> None:
    three = Triggers(corrections=3)
    correct(tiny, 2)
    assert due(tiny.store, tiny.assay, three) is None
    correct(tiny, 1, tile=1)
    assert due(tiny.store, tiny.assay, three) == "3 corrections since the last cycle, 3 were waited for"
    end_cycle(tiny, "abandoned")
    end_cycle(tiny, "promoted", kind="promote")
    assert due(tiny.store, tiny.assay, three) is not None, "neither used them up"
    end_cycle(tiny)
    assert due(tiny.store, tiny.assay, three) is None


def test_minutes_of_work_are_summed(tiny: Tiny) -> None:
    ten = Triggers(corrections=None, minutes=10)
    correct(tiny, 4, lead_time=149.0)
    assert due(tiny.store, tiny.assay, ten) is None
    correct(tiny, 1, tile=1, lead_time=5.0)
    assert due(tiny.store, tiny.assay, ten) == (
        "10 minutes of expert work since the last cycle, 10 were waited for"
    )


def test_many_missed_times_make_one_cycle(tiny: Tiny) -> None:
    nightly = Triggers(corrections=None, cron="0 3 * * *")
    assert due(tiny.store, tiny.assay, nightly) == "the schedule '0 3 * * *'", "none was run yet"
    end_cycle(tiny)
    now = datetime.now(UTC)
    assert due(tiny.store, tiny.assay, nightly, now) is None
    assert due(tiny.store, tiny.assay, nightly, now + timedelta(days=9)) == "the schedule '0 3 * * *'"


def test_agreement_that_falls_is_told_with_both_numbers(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "AGREEMENT_SAMPLE", 3)
    falling = Triggers(corrections=None, agreement_fall=0.2)
    for n, record in enumerate(tiny.store.images.all(tiny.name)[:6]):
        item = Item(image_id=record.image_id, tile=0)
        stored = tiny.store.predictions.get(tiny.name, tiny.active(), item)
        assert stored is not None
        # the first three as proposed, then everything erased and one corner painted
        corner_HW = np.zeros((32, 40), np.uint8)
        corner_HW[:3, :3] = 1
        result = stored.result if n < 3 else prediction_result(corner_HW, tiny.assay)
        tiny.studio.annotate(tiny.task_of(item), result, parent_prediction=shown(tiny, item))
        tiny.intake.reconcile(tiny.assay)
        why = due(tiny.store, tiny.assay, falling)
        assert (why is None) == (n < 5)
    assert why is not None
    assert why.startswith(f"experts' agreement with {tiny.active()} fell from 1.00 to 0.")


def shown(tiny: Tiny, item: Item) -> int | None:
    """The prediction that Label Studio shows of an item; a new one where it holds none."""
    task = tiny.task_of(item)
    found = [number for number, p in tiny.studio.predictions.items() if p["task"] == task]
    if not found:
        tiny.studio.push_predictions(
            tiny.studio.project_id,
            [{"task": task, "result": [], "score": 0.5, "model_version": tiny.active()}],
        )
        found = [number for number, p in tiny.studio.predictions.items() if p["task"] == task]
    return found[0]
