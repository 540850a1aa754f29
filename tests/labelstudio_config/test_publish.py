"""Bringing a version into force: whole or not at all, and never a null score in what experts hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeLabelStudio
from tiny import BATCH, Tiny, add_plate, make_tiny, write_fields

from cytoloop.domain.errors import ConfigError, LabelStudioRefused, LabelStudioUnavailable
from cytoloop.domain.queue_policy import SHARED, QueuePolicy
from cytoloop.domain.types import StoredPrediction
from labelstudio_config import publish as publishing
from labelstudio_config.handout import claim, refill
from labelstudio_config.publish import publish, push, resume
from labelstudio_config.ranking import rank_everything
from labelstudio_config.tabs import view_title
from ml_backend.service import worklist

NEW = "cdl-20260101-0123abcd"
NEWER = "joint-20260102-4567cdef"
WINDOW = 11
"""Of 16 items 8 are leased, three of them held out; the other three training items come next."""


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.listen()
    yield made
    made.store.close()


def check_invariant(tiny: Tiny, window: int | None = None, kept: str | None = None) -> None:
    """Label Studio and the store agree, and no score that an expert's order depends on is null.

    ``kept`` is the version in force before, whose predictions stay for editors that are open.
    """
    studio, version = tiny.studio, tiny.active()
    assert studio.model_version == version
    assert set(studio.model_versions(studio.project_id)) == {version, kept or version}
    held = [(p["task"], p["model_version"]) for p in studio.predictions.values()]
    assert len(held) == len(set(held)), "no task holds a version twice: scores would be averaged"
    if window is not None:
        assert studio.model_versions(studio.project_id)[version] == window
    assert tiny.store.publications.unfinished(tiny.name) is None
    scores = studio.scores()
    leased = {tiny.task_of(item) for item in tiny.held()}
    assert leased
    assert all(scores[task] is not None for task in leased)
    title = view_title(tiny.store, tiny.assay, "default", SHARED)
    in_tab = [task for task in studio.tab(title) if task in leased]  # what is finished stays in it
    entries = worklist(tiny.store, lambda _: tiny.assay, "http://ls", "default", None, 1000)
    assert set(in_tab) == leased
    assert [entry.task_id for entry in entries if entry.lease] == in_tab, "the API lists what the tab shows"
    assert [scores[task] for task in in_tab] == sorted(scores[task] or 0.0 for task in in_tab)


# --- what is published ---


def test_the_first_publication_covers_the_training_items_and_what_is_handed_out(tiny: Tiny) -> None:
    assert tiny.publish_active() == 8
    assert len(tiny.held()) == BATCH.size
    check_invariant(tiny, WINDOW)


def test_the_window_is_what_is_leased_and_the_most_doubtful_of_each_queue(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "WINDOW", 3)
    tiny.publish_active(
        QueuePolicy.all_ranked(strategy="entropy", size=4, contest_share=0.5, validation_share=0.5)
    )
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    ranked = tiny.store.worklist.open_items(tiny.name, NEW, "entropy", "train", 3)
    window = {*tiny.held(), *(scored.item for scored in ranked)}
    assert len(window) == 4 + 3
    assert tiny.studio.prediction_tasks(3, NEW) == {tiny.task_of(item) for item in window}


def test_what_is_finished_is_neither_pushed_nor_listed(tiny: Tiny) -> None:
    done = next(item for item in tiny.items() if item.image_id == "P-A03")
    tiny.correct(done)
    tiny.intake.drain()
    tiny.publish_active(QueuePolicy(strategy="entropy", size=100))
    assert tiny.task_of(done) not in tiny.studio.prediction_tasks(3, tiny.active())
    assert done not in tiny.held()
    check_invariant(tiny, 15)


def test_a_new_version_takes_the_place_of_the_old_one(tiny: Tiny) -> None:
    tiny.publish_active()
    old, leased = tiny.active(), tiny.held()
    assert publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW)) == WINDOW
    assert tiny.active() == NEW
    assert tiny.store.models.get(old).status == "retired"
    assert tiny.held() == leased, "leases are promises; only their order is new"
    check_invariant(tiny, WINDOW, kept=old)


def test_the_version_before_is_kept_so_that_going_back_predicts_nothing(tiny: Tiny) -> None:
    tiny.publish_active()
    cip = tiny.active()
    first, second = tiny.add_version(NEW), tiny.add_version(NEWER)
    for painted in (first, second):
        publish(tiny.studio, tiny.store, tiny.assay, painted)
    assert tiny.store.predictions.versions(tiny.name) == {NEW, NEWER}
    assert tiny.store.scores.versions(tiny.name) == {NEW, NEWER}
    assert tiny.store.scores.strategies(tiny.name, cip) == []
    looks = first.looks
    publish(tiny.studio, tiny.store, tiny.assay, first)
    assert first.looks == looks
    check_invariant(tiny, WINDOW, kept=NEWER)


def test_what_comes_next_is_ranked_before_the_rest_of_the_plate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = make_tiny(tmp_path, wells=16)
    tiny.listen()
    monkeypatch.setattr(publishing, "WINDOW", 1)
    monkeypatch.setattr(publishing, "DRAWN", 1)
    tiny.publish_active(QueuePolicy(strategy="entropy", size=2))
    painted = tiny.add_version(NEW)
    publish(tiny.studio, tiny.store, tiny.assay, painted)
    assert 0 < painted.looks <= 2 + 1 + 4, "images, of sixteen: leased, next, first drawn of each split"
    held = set(tiny.held())
    ranked = {scored.item for scored in tiny.store.scores.all(tiny.name, NEW, "entropy")}
    assert held <= ranked
    check_invariant(tiny, kept=tiny.store.publications.previous(tiny.name))
    for item in held:
        tiny.correct(item)
    tiny.intake.drain()
    refill(tiny.studio, tiny.store, tiny.assay)
    following = set(tiny.held())
    assert following, "the next batch does not wait for the rest"
    assert following <= ranked
    assert rank_everything(tiny.store, tiny.assay, painted) == 16 - len({item.image_id for item in ranked})
    assert painted.looks == 16
    tiny.store.close()


def test_work_that_began_before_a_promotion_can_be_submitted_until_the_next_but_one(tiny: Tiny) -> None:
    tiny.publish_active()
    first, second = tiny.held()[:2]
    began = {item: tiny.prediction_of(item) for item in (first, second)}
    cip = tiny.active()
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    tiny.correct(first, parent_prediction=began[first])
    tiny.intake.drain()
    assert tiny.standing(first).parent_version == cip
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEWER))
    with pytest.raises(LabelStudioRefused, match="Invalid pk"):
        tiny.correct(second, parent_prediction=began[second])
    check_invariant(tiny, kept=NEW)


def test_more_items_of_the_version_in_force_are_no_promotion(tiny: Tiny, tmp_path: Path) -> None:
    """An import right after a promotion leaves the predictions that open editors began with."""
    tiny.publish_active()
    old = tiny.active()
    version = tiny.add_version(NEW)
    publish(tiny.studio, tiny.store, tiny.assay, version)
    tiny.truth |= write_fields(tmp_path / "more", ["C01"])
    add_plate(tiny, tmp_path / "more")
    publish(tiny.studio, tiny.store, tiny.assay, version)
    check_invariant(tiny, kept=old)


def test_publishing_again_pushes_nothing_twice(tiny: Tiny) -> None:
    tiny.publish_active()
    tiny.studio.calls.clear()
    assert tiny.publish_active() == WINDOW
    assert "push_predictions" not in tiny.studio.calls
    check_invariant(tiny, WINDOW)


def test_a_version_that_lacks_what_a_queue_ranks_by_is_not_published(tiny: Tiny) -> None:
    tiny.publish_active(replace(BATCH, strategy="mutual-information"))
    old = tiny.active()
    with pytest.raises(ConfigError, match=f"needs a network trained with dropout, which version {NEW} lacks"):
        publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    assert resume(tiny.studio, tiny.store, tiny.assay) is None
    assert tiny.active() == old
    check_invariant(tiny, WINDOW)


# --- what Label Studio does not keep ---


def test_fewer_predictions_kept_than_sent_leaves_the_old_version_in_force(tiny: Tiny) -> None:
    tiny.publish_active()
    old = tiny.active()
    tiny.studio.labels.discard("Nucleus")
    with pytest.raises(LabelStudioRefused, match=rf"Label Studio kept \d+ of {WINDOW} predictions"):
        publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    assert (tiny.studio.model_version, tiny.active()) == (old, old)
    assert resume(tiny.studio, tiny.store, tiny.assay) == f"undid the half publication of {NEW}"
    check_invariant(tiny, WINDOW)


def test_a_score_outside_0_to_1_is_noticed(tiny: Tiny) -> None:
    tiny.publish_active()
    item = tiny.items()[0]
    bad = StoredPrediction(version=NEW, item=item, score=0.0, confidence=1.5, reason="", result=[])
    tiny.store.predictions.put(tiny.name, [bad])
    with pytest.raises(LabelStudioRefused, match="kept 0 of 1"):
        push(tiny.studio, tiny.store, tiny.assay, NEW, [item])


def test_a_task_that_label_studio_lost_refuses_the_publication(tiny: Tiny) -> None:
    tiny.publish_active()
    old = tiny.active()
    version = tiny.add_version(NEW)
    tiny.studio.listener = None
    tiny.studio.delete_task(tiny.task_of(tiny.held()[0]))
    with pytest.raises(LabelStudioRefused, match="400"):
        publish(tiny.studio, tiny.store, tiny.assay, version)
    resume(tiny.studio, tiny.store, tiny.assay)
    assert tiny.active() == old
    tiny.intake.reconcile(tiny.assay)
    assert publish(tiny.studio, tiny.store, tiny.assay, version) == WINDOW - 1
    check_invariant(tiny, WINDOW - 1, kept=old)


# --- crashes ---


def recover(tiny: Tiny) -> None:
    """What the trainer does on its next look."""
    tiny.intake.reconcile(tiny.assay)
    resume(tiny.studio, tiny.store, tiny.assay)
    refill(tiny.studio, tiny.store, tiny.assay)


def cut_off(studio: FakeLabelStudio, call: int, when: str, begin: Any) -> None:
    studio.crash = (len(studio.calls) + call, when)
    with pytest.raises(LabelStudioUnavailable):
        begin()
    studio.crash = None


CALLS_OF_A_PUBLICATION = [
    *("prediction_tasks", "push_predictions", "push_predictions"),
    *("prediction_tasks", "replace_predictions"),  # what was leased meanwhile, on its canvas
    *("model_versions", "set_model_version"),
    *("model_versions", "delete_model_version", "model_versions"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, len(CALLS_OF_A_PUBLICATION) + 1))
def test_a_publication_cut_off_anywhere_is_finished_or_undone(
    tiny: Tiny, call: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "PUSH_CHUNK", 6)
    tiny.publish_active()
    cip = tiny.active()
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    began = {item: tiny.prediction_of(item) for item in tiny.held()}
    leased = tiny.store.leases.held(tiny.name)
    version = tiny.add_version(NEWER)
    cut_off(tiny.studio, call, when, lambda: publish(tiny.studio, tiny.store, tiny.assay, version))
    recover(tiny)
    committed = call > 7 or (call == 7 and when == "after")
    assert tiny.active() == (NEWER if committed else NEW)
    check_invariant(tiny, WINDOW, kept=NEW if committed else cip)
    assert tiny.store.leases.held(tiny.name) == leased, "no crash takes an item from anyone"
    assert set(began.values()) <= set(tiny.studio.predictions), "what open editors began with is there"


def test_the_crash_points_above_are_all_there_are(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "PUSH_CHUNK", 6)
    tiny.publish_active()
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    version = tiny.add_version(NEWER)
    tiny.studio.calls.clear()
    publish(tiny.studio, tiny.store, tiny.assay, version)
    assert tiny.studio.calls == CALLS_OF_A_PUBLICATION


CALLS_OF_A_FIRST_ONE = [
    *("prediction_tasks", "push_predictions", "model_versions", "set_model_version", "model_versions"),
    *("prediction_tasks", "push_predictions", "get_project"),  # what is handed out of held-out wells
    *("replace_predictions", "model_versions", "ensure_view"),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, len(CALLS_OF_A_FIRST_ONE) + 1))
def test_the_first_publication_and_hand_out_cut_off_anywhere_leave_no_null_score(
    tiny: Tiny, call: int, when: str
) -> None:
    cut_off(tiny.studio, call, when, tiny.publish_active)
    recover(tiny)
    check_invariant(tiny, WINDOW)


def test_the_crash_points_of_a_first_one_are_all_there_are(tiny: Tiny) -> None:
    tiny.studio.calls.clear()
    tiny.publish_active()
    assert tiny.studio.calls == CALLS_OF_A_FIRST_ONE


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, 6))
def test_more_images_of_the_version_in_force_cut_off_anywhere(
    tiny: Tiny, tmp_path: Path, call: int, when: str
) -> None:
    """The new items come under the version that is in force already: it must cover them too."""
    tiny.publish_active()
    write_fields(tmp_path / "more", ["C01", "C02"])
    add_plate(tiny, tmp_path / "more")
    new = [i for i in tiny.store.images.all(tiny.name, ["train"]) if i.image_id in ("P-C01", "P-C02")]
    assert new, "one of them teaches"
    cut_off(tiny.studio, call, when, tiny.publish_active)
    recover(tiny)
    check_invariant(tiny, WINDOW + 4 * len(new))


def test_resuming_when_label_studio_is_down_can_be_repeated(tiny: Tiny) -> None:
    tiny.publish_active()
    version = tiny.add_version(NEW)
    cut_off(tiny.studio, 3, "before", lambda: publish(tiny.studio, tiny.store, tiny.assay, version))
    tiny.studio.is_down = True
    with pytest.raises(LabelStudioUnavailable):
        resume(tiny.studio, tiny.store, tiny.assay)
    tiny.studio.is_down = False
    recover(tiny)
    check_invariant(tiny, WINDOW)


def test_nothing_to_resume(tiny: Tiny) -> None:
    assert resume(tiny.studio, tiny.store, tiny.assay) is None
    tiny.publish_active()
    assert resume(tiny.studio, tiny.store, tiny.assay) is None


def test_what_is_leased_while_a_version_is_pushed_has_its_scores(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held-out items are in no window; an expert claims them between push and commit."""
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=4))
    cip = tiny.active()
    push_some = tiny.studio.push_predictions

    def claim_meanwhile(project_id: int, predictions: Any) -> int:
        monkeypatch.setattr(tiny.studio, "push_predictions", push_some)
        kept = push_some(project_id, predictions)
        tiny.set_policy(QueuePolicy.all_ranked(strategy="entropy", size=8, contest_share=0.5))
        assert claim(tiny.studio, tiny.store, tiny.assay, "default", None)
        return kept

    commit = tiny.studio.set_model_version
    nulls: list[int] = []

    def see_after_commit(project_id: int, version: str) -> None:
        commit(project_id, version)
        scores = tiny.studio.scores()
        nulls.append(sum(scores[tiny.task_of(item)] is None for item in tiny.held()))

    monkeypatch.setattr(tiny.studio, "push_predictions", claim_meanwhile)
    monkeypatch.setattr(tiny.studio, "set_model_version", see_after_commit)
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version(NEW))
    assert nulls == [0], "at the very moment it comes into force"
    assert {item.image_id for item in tiny.held()} >= {"P-A01"}
    check_invariant(tiny, kept=cip)
