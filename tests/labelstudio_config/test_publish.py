from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeLabelStudio
from numpy.typing import NDArray
from tiny import BATCH, Tiny, add_plate, make_tiny, write_fields

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable
from cytoloop.domain.scoring import soften
from cytoloop.domain.types import ImageRecord, Item, ModelVersion, StoredPrediction
from cytoloop.domain.worklist import QueuePolicy
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config import publish as publishing
from labelstudio_config.publish import (
    open_candidates,
    predict_everything,
    publish,
    push,
    refill,
    resume,
    show_batch,
    view_title,
)
from ml_backend.service import worklist

NEW = "cdl-20260101-0123abcd"
POLICIES = {"default": BATCH}
TAB = view_title("default")


class Painted:
    """A version that says what it is given."""

    def __init__(self, version: str, masks: dict[str, NDArray[np.uint8]]) -> None:
        self.version = version
        self._masks = masks

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        return soften(self._masks[record.image_id], 3)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.listen()
    yield made
    made.store.close()


def add_version(tiny: Tiny, version: str = NEW) -> Painted:
    """A trained candidate, registered."""
    old = tiny.store.models.active(tiny.name)
    tiny.store.models.add(
        ModelVersion(
            version=version,
            assay=tiny.name,
            method="cdl",
            status="candidate",
            digest="00",
            parent=None,
            snapshot=None,
            config={},
            metrics={},
            created_at=old.created_at,
        )
    )
    return Painted(version, tiny.truth)


def active(tiny: Tiny) -> str:
    return tiny.store.models.active(tiny.name).version


def batch_items(tiny: Tiny) -> list[Item]:
    batch = tiny.store.publications.batch(tiny.name, "default")
    assert batch is not None
    return batch["items"]


def check_invariant(tiny: Tiny, expected_window: int | None = None) -> None:
    """Label Studio and the store agree, and no score that an expert's order depends on is null."""
    studio, version = tiny.studio, active(tiny)
    assert studio.model_version == version
    assert set(studio.model_versions(studio.project_id)) == {version}, "no half version is left"
    held = [p["task"] for p in studio.predictions.values()]
    assert len(held) == len(set(held)), "no task holds a version twice: scores would be averaged"
    if expected_window is not None:
        assert len(held) == expected_window
    assert tiny.store.publications.unfinished(tiny.name) is None
    batch = tiny.store.publications.batch(tiny.name, "default")
    assert batch is not None
    assert batch["version"] == version
    scores = studio.scores()
    assert all(scores[tiny.task_of(item)] is not None for item in batch["items"])
    in_tab = studio.tab(TAB)
    entries = worklist(tiny.store, lambda _: tiny.assay, "http://ls", "default", 1000)
    assert in_tab == [tiny.task_of(item) for item in batch["items"]]
    assert [entry.task_id for entry in entries] == in_tab, "the API lists what the tab shows"
    assert [scores[task] for task in in_tab] == sorted(scores[task] or 0.0 for task in in_tab)


# --- what is published ---


def test_the_first_publication_covers_every_item_and_shows_a_batch(tiny: Tiny) -> None:
    assert tiny.publish_active() == 16
    check_invariant(tiny, 16)
    assert len(batch_items(tiny)) == BATCH.size


def test_order_in_the_tab_is_order_of_confidence_is_order_of_the_api(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy(size=16))
    ranked = [item for item, *_ in tiny.store.predictions.ranked(tiny.name, active(tiny))]
    assert batch_items(tiny) == ranked
    assert tiny.studio.tab(TAB) == [tiny.task_of(item) for item in ranked]


def test_the_api_tells_rank_reason_and_a_link_into_the_tab(tiny: Tiny) -> None:
    tiny.publish_active()
    entries = worklist(tiny.store, lambda _: tiny.assay, "http://ls", "tiny/default", 3)
    assert [entry.rank for entry in entries] == [1, 2, 3]
    assert entries[0].url == f"http://ls/projects/3/data?tab=1&task={entries[0].task_id}"
    assert entries[0].model_version == active(tiny)
    assert entries[0].reason
    assert entries[0].score >= entries[1].score >= entries[2].score


def test_two_queues_never_hold_one_item(tiny: Tiny) -> None:
    model = tiny.store.models.active(tiny.name)
    predictor = load_predictor(tiny.store, tiny.registry, tiny.assay, model)
    policies = {"a": QueuePolicy(size=5), "b": QueuePolicy(size=5)}
    publish(tiny.studio, tiny.store, tiny.assay, predictor, policies)

    def batch(queue: str) -> set[Item]:
        held = tiny.store.publications.batch(tiny.name, queue)
        assert held is not None
        return set(held["items"])

    assert len(batch("a")) == len(batch("b")) == 5
    assert not batch("a") & batch("b")
    for item in batch("a"):
        tiny.correct(item)
    tiny.intake.reconcile(tiny.assay)
    assert refill(tiny.studio, tiny.store, tiny.assay, policies) == 1
    assert batch("a")
    assert not batch("a") & batch("b")


def test_the_window_is_the_batches_and_the_most_doubtful(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "WINDOW", 3)
    only_held_out = QueuePolicy(size=4, contest_share=0.5, validation_share=0.5, sealed_share=0.0)
    tiny.publish_active(only_held_out)
    ranked = [item for item, *_ in tiny.store.predictions.ranked(tiny.name, active(tiny))]
    window = {*ranked[:3], *batch_items(tiny)}
    assert set(tiny.studio.prediction_tasks(3, active(tiny))) == {tiny.task_of(item) for item in window}
    check_invariant(tiny, len(window))


def test_what_is_finished_is_neither_pushed_nor_listed(tiny: Tiny) -> None:
    done = tiny.items()[0]
    tiny.correct(done)
    tiny.intake.drain()
    tiny.publish_active(QueuePolicy(size=100))
    assert tiny.task_of(done) not in tiny.studio.prediction_tasks(3, active(tiny))
    assert done not in batch_items(tiny)
    check_invariant(tiny, 15)


def test_a_new_version_takes_the_place_of_the_old_one(tiny: Tiny) -> None:
    tiny.publish_active()
    old = active(tiny)
    assert publish(tiny.studio, tiny.store, tiny.assay, add_version(tiny), POLICIES) == 16
    assert active(tiny) == NEW
    assert tiny.store.models.get(old).status == "retired"
    check_invariant(tiny, 16)


def test_publishing_again_pushes_nothing_twice(tiny: Tiny) -> None:
    tiny.publish_active()
    tiny.studio.calls.clear()
    assert tiny.publish_active() == 16
    assert "push_predictions" not in tiny.studio.calls
    check_invariant(tiny, 16)


def test_every_image_is_predicted_once(tiny: Tiny) -> None:
    told: list[tuple[str, int, int]] = []
    painted = add_version(tiny)
    assert predict_everything(tiny.store, tiny.assay, painted, lambda *step: told.append(step)) == 4
    assert told[-1] == ("predict", 4, 4)
    assert predict_everything(tiny.store, tiny.assay, painted) == 0


def test_candidates_know_their_well_and_split(tiny: Tiny) -> None:
    tiny.publish_active()
    candidates = open_candidates(tiny.store, tiny.assay, active(tiny))
    groups = tiny.store.images.groups(tiny.name)
    assert len(candidates) == 16
    assert all(c.group == f"P/{c.item.image_id[2:]}" and c.split == groups[c.group] for c in candidates)


# --- what Label Studio does not keep ---


def test_fewer_predictions_kept_than_sent_leaves_the_old_version_in_force(tiny: Tiny) -> None:
    tiny.publish_active()
    old = active(tiny)
    tiny.studio.labels.discard("Nucleus")
    with pytest.raises(LabelStudioRefused, match=r"Label Studio kept \d+ of 16 predictions"):
        publish(tiny.studio, tiny.store, tiny.assay, add_version(tiny), POLICIES)
    assert (tiny.studio.model_version, active(tiny)) == (old, old)
    assert resume(tiny.studio, tiny.store, tiny.assay) == f"undid the half publication of {NEW}"
    check_invariant(tiny, 16)


def test_a_score_outside_0_to_1_is_noticed(tiny: Tiny) -> None:
    tiny.publish_active()
    item = tiny.items()[0]
    bad = StoredPrediction(version=NEW, item=item, score=0.0, confidence=1.5, reason="", result=[])
    tiny.store.predictions.put(tiny.name, [bad])
    with pytest.raises(LabelStudioRefused, match="kept 0 of 1"):
        push(tiny.studio, tiny.store, tiny.assay, NEW, [item])


def test_a_task_that_label_studio_lost_refuses_the_publication(tiny: Tiny) -> None:
    tiny.publish_active()
    old = active(tiny)
    tiny.studio.listener = None
    tiny.studio.delete_task(tiny.task_of(tiny.items()[0]))
    with pytest.raises(LabelStudioRefused, match="400"):
        publish(tiny.studio, tiny.store, tiny.assay, add_version(tiny), POLICIES)
    resume(tiny.studio, tiny.store, tiny.assay)
    assert active(tiny) == old
    tiny.intake.reconcile(tiny.assay)
    assert publish(tiny.studio, tiny.store, tiny.assay, Painted(NEW, tiny.truth), POLICIES) == 15
    check_invariant(tiny, 15)


# --- crashes ---


def recover(tiny: Tiny) -> None:
    """What the trainer does on its next look."""
    tiny.intake.reconcile(tiny.assay)
    resume(tiny.studio, tiny.store, tiny.assay)
    refill(tiny.studio, tiny.store, tiny.assay, POLICIES)


def cut_off(studio: FakeLabelStudio, call: int, when: str, begin: Any) -> None:
    studio.crash = (len(studio.calls) + call, when)
    with pytest.raises(LabelStudioUnavailable):
        begin()
    studio.crash = None


CALLS_OF_A_PUBLICATION = 9
"""prediction_tasks, two pushes, model_versions, set_model_version, model_versions, delete, ensure_view."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, CALLS_OF_A_PUBLICATION))
def test_a_publication_cut_off_anywhere_is_finished_or_undone(
    tiny: Tiny, call: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PUSH_CHUNK", 10)
    tiny.publish_active()
    old = active(tiny)
    version = add_version(tiny)
    cut_off(tiny.studio, call, when, lambda: publish(tiny.studio, tiny.store, tiny.assay, version, POLICIES))
    recover(tiny)
    committed = call > 5 or (call == 5 and when == "after")
    assert active(tiny) == (NEW if committed else old)
    check_invariant(tiny, 16)


def test_the_crash_points_above_are_all_there_are(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUSH_CHUNK", 10)
    tiny.publish_active()
    version = add_version(tiny)
    tiny.studio.calls.clear()
    publish(tiny.studio, tiny.store, tiny.assay, version, POLICIES)
    assert len(tiny.studio.calls) == CALLS_OF_A_PUBLICATION - 1, tiny.studio.calls


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 7))
def test_the_first_publication_cut_off_anywhere_leaves_no_null_score(
    tiny: Tiny, call: int, when: str
) -> None:
    cut_off(tiny.studio, call, when, tiny.publish_active)
    recover(tiny)
    check_invariant(tiny)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
def test_more_images_of_the_version_in_force_cut_off_anywhere(
    tiny: Tiny, tmp_path: Path, call: int, when: str
) -> None:
    """The new items come under the version that is in force already: it must cover them too."""
    tiny.publish_active()
    write_fields(tmp_path / "more", ["C01", "C02"])
    add_plate(tiny, tmp_path / "more")
    cut_off(tiny.studio, call, when, tiny.publish_active)
    recover(tiny)
    check_invariant(tiny, 24)


def test_resuming_when_label_studio_is_down_can_be_repeated(tiny: Tiny) -> None:
    tiny.publish_active()
    version = add_version(tiny)
    cut_off(tiny.studio, 3, "before", lambda: publish(tiny.studio, tiny.store, tiny.assay, version, POLICIES))
    tiny.studio.is_down = True
    with pytest.raises(LabelStudioUnavailable):
        resume(tiny.studio, tiny.store, tiny.assay)
    tiny.studio.is_down = False
    recover(tiny)
    check_invariant(tiny, 16)


def test_nothing_to_resume(tiny: Tiny) -> None:
    assert resume(tiny.studio, tiny.store, tiny.assay) is None
    tiny.publish_active()
    assert resume(tiny.studio, tiny.store, tiny.assay) is None


# --- batches that are worked through ---


def work_through(tiny: Tiny) -> None:
    for item in batch_items(tiny):
        if tiny.store.images.tasks(tiny.name)[item] is not None:
            tiny.correct(item)
    tiny.intake.drain()


def test_a_batch_is_refilled_once_it_is_worked_through(tiny: Tiny) -> None:
    tiny.publish_active()
    first = batch_items(tiny)
    assert refill(tiny.studio, tiny.store, tiny.assay, POLICIES) == 0
    work_through(tiny)
    assert refill(tiny.studio, tiny.store, tiny.assay, POLICIES) == 1
    assert not set(batch_items(tiny)) & set(first)
    check_invariant(tiny, 16)
    work_through(tiny)
    assert refill(tiny.studio, tiny.store, tiny.assay, POLICIES) == 0, "everything is corrected"


def test_a_deleted_task_does_not_hold_up_its_batch(tiny: Tiny) -> None:
    tiny.publish_active()
    first = batch_items(tiny)
    tiny.studio.delete_task(tiny.task_of(first[0]))
    tiny.intake.drain()
    work_through(tiny)
    assert refill(tiny.studio, tiny.store, tiny.assay, POLICIES) == 1
    assert not set(batch_items(tiny)) & set(first)


def test_what_is_refilled_beyond_the_window_has_scores(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "WINDOW", 0)
    tiny.publish_active()
    assert len(tiny.studio.predictions) == BATCH.size
    work_through(tiny)
    refill(tiny.studio, tiny.store, tiny.assay, POLICIES)
    check_invariant(tiny, 16)


def test_an_item_opened_again_after_all_was_done_has_a_score(tiny: Tiny) -> None:
    annotation_ids = [tiny.correct(item) for item in tiny.items()]
    tiny.intake.drain()
    tiny.publish_active()
    assert tiny.studio.model_version is None, "no prediction, no version to set"
    tiny.studio.delete_annotation(annotation_ids[0])
    tiny.intake.drain()
    assert refill(tiny.studio, tiny.store, tiny.assay, POLICIES) == 1
    assert batch_items(tiny) == [tiny.items()[0]]
    check_invariant(tiny, 1)


def test_a_tab_is_one_a_queue(tiny: Tiny) -> None:
    tiny.publish_active()
    item = tiny.items()[0]
    view_id = show_batch(tiny.studio, tiny.store, tiny.assay, "default", active(tiny), [item])
    assert list(tiny.studio.views) == [view_id]
    assert tiny.studio.tab(TAB) == [tiny.task_of(item)]
