from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import EXPERT, OTHER_EXPERT
from tiny import ADA, BOB, Tiny, make_tiny

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import (
    InputError,
    LabelStudioRefused,
    LabelStudioUnavailable,
    StateError,
    UnknownImage,
)
from cytoloop.domain.queue_policy import SHARED, QueuePolicy
from cytoloop.domain.types import Item
from labelstudio_config import intake
from labelstudio_config.handout import refill
from labelstudio_config.intake import check_identity
from labelstudio_config.payloads import parse_task_data, prediction_result
from labelstudio_config.project import import_tasks

A = Item(image_id="P-A01", tile=0)
B = Item(image_id="P-A01", tile=3)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    made.listen()
    yield made
    made.store.close()


def events(tiny: Tiny) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in tiny.store.inbox.after(0)]


def kinds(tiny: Tiny) -> list[str]:
    return [row["kind"] for row in tiny.store.corrections.revisions(tiny.name)]


def doubts(tiny: Tiny) -> list[str]:
    return [row["message"] for row in tiny.store.corrections.doubts()]


# --- events ---


def test_an_event_becomes_the_mask_the_expert_drew(tiny: Tiny) -> None:
    annotation_id = tiny.correct(A, lead_time=31.5)
    assert tiny.intake.drain() == 1
    kept = tiny.standing(A)
    np.testing.assert_array_equal(tiny.store.masks.get(kept.mask), tiny.truth_of(A))
    assert (kept.annotation_id, kept.expert, kept.lead_time_s) == (annotation_id, EXPERT["email"], 31.5)
    assert (kept.task_id, kept.parent_version, kept.conflict_pixels) == (tiny.task_of(A), None, 0)
    assert tiny.store.corrections.doubts() == []


def test_the_ignore_label_becomes_255(tiny: Tiny) -> None:
    mask_HW = tiny.truth_of(A).copy()
    mask_HW[:5] = IGNORE
    tiny.studio.annotate(tiny.task_of(A), prediction_result(mask_HW, tiny.assay))
    tiny.intake.drain()
    np.testing.assert_array_equal(tiny.store.masks.get(tiny.standing(A).mask), mask_HW)


def test_a_correction_names_the_version_it_began_from(tiny: Tiny) -> None:
    tiny.publish_active()
    of_a, of_b = (tiny.studio.task(tiny.task_of(item))["predictions"][0]["id"] for item in (A, B))
    tiny.correct(A, parent_prediction=of_a)
    tiny.correct(B, parent_prediction=of_b)
    del tiny.studio.predictions[of_b]
    tiny.intake.drain()
    assert tiny.standing(A).parent_version == tiny.store.models.active(tiny.name).version
    assert tiny.standing(B).parent_version is None, "that prediction is gone"


def test_the_same_event_twice_is_one_row(tiny: Tiny) -> None:
    tiny.correct(A)
    (event,) = events(tiny)
    tiny.store.inbox.append(json.dumps(event).encode())
    assert tiny.intake.drain() == 2
    assert kinds(tiny) == ["submitted"]


def test_webhook_and_poll_are_one_row(tiny: Tiny) -> None:
    tiny.correct(A)
    tiny.intake.drain()
    found = tiny.intake.reconcile(tiny.assay)
    assert (found.tasks, found.added, found.deleted, found.doubts) == (8, 0, 0, 0)
    assert kinds(tiny) == ["submitted"]


def test_a_late_older_update_does_not_win(tiny: Tiny) -> None:
    annotation_id = tiny.correct(A)
    tiny.studio.update(annotation_id, result=[])
    older, newer = events(tiny)
    tiny.store.corrections.set_last_event(2)
    for event in (newer, older):
        tiny.store.inbox.append(json.dumps(event).encode())
    tiny.intake.drain()
    assert kinds(tiny) == ["submitted", "submitted"]
    assert not tiny.store.masks.get(tiny.standing(A).mask).any(), "the empty mask is the newer one"


def test_a_late_update_does_not_raise_the_dead(tiny: Tiny) -> None:
    annotation_id = tiny.correct(A)
    tiny.intake.drain()
    tiny.studio.delete_annotation(annotation_id)
    tiny.store.inbox.append(json.dumps(events(tiny)[0]).encode())
    tiny.intake.drain()
    assert tiny.standing(A) is None
    assert A not in tiny.store.corrections.finished_items(tiny.name)


@pytest.mark.parametrize("is_known", [True, False])
def test_what_is_told_late_of_a_deleted_annotation_does_not_raise_it(tiny: Tiny, is_known: bool) -> None:
    """The store knows less than the late event tells, or never heard of the annotation at all."""
    annotation_id = tiny.correct(A)
    if is_known:
        tiny.intake.drain()
    tiny.studio.advance(60)
    tiny.studio.update(annotation_id, result=[])
    late = events(tiny)[-1]
    tiny.store.corrections.set_last_event(2)
    tiny.studio.delete_annotation(annotation_id)
    tiny.intake.drain()
    tiny.intake.reconcile(tiny.assay)
    tiny.store.inbox.append(json.dumps(late).encode())
    assert tiny.intake.drain() == 1
    assert tiny.standing(A) is None
    assert tiny.store.corrections.living_annotations(tiny.name) == {}
    assert kinds(tiny) == (["submitted", "deleted"] if is_known else [])


@pytest.mark.parametrize("number", [True, 0, -1, 2**63])
@pytest.mark.parametrize("key", ["id", "parent_prediction"])
def test_a_number_that_names_nothing_is_asked_for_nowhere(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, key: str, number: int
) -> None:
    living = tiny.correct(A)
    tiny.intake.drain()
    tiny.intake.reconcile(tiny.assay)
    (event,) = events(tiny)
    event["annotation"][key] = number

    def asked(number: int) -> None:
        raise LabelStudioUnavailable(f"{number}: Label Studio answers 500")

    monkeypatch.setattr(tiny.studio, "get_annotation" if key == "id" else "prediction_version", asked)
    tiny.store.inbox.append(json.dumps(event).encode())
    assert tiny.intake.drain() == 1, "not tried for ever"
    assert list(tiny.store.corrections.living_annotations(tiny.name)) == [living]


def test_a_late_event_of_a_living_annotation_is_taken(tiny: Tiny) -> None:
    tiny.correct(A)
    tiny.studio.advance(60)
    tiny.store.corrections.set_last_event(1)
    tiny.correct(B)
    tiny.store.assays.update(tiny.name, reconciled_until=tiny.studio.tasks[tiny.task_of(B)]["updated_at"])
    tiny.store.inbox.append(json.dumps(events(tiny)[0]).encode())
    tiny.intake.drain()
    assert tiny.standing(A) is not None


def test_of_two_experts_the_later_one_stands_and_the_earlier_one_comes_back(tiny: Tiny) -> None:
    tiny.correct(A)
    second = tiny.studio.annotate(tiny.task_of(A), [], completed_by=OTHER_EXPERT["id"])
    tiny.intake.drain()
    assert tiny.standing(A).expert == OTHER_EXPERT["email"]
    tiny.studio.delete_annotation(second)
    tiny.intake.drain()
    assert tiny.standing(A).expert == EXPERT["email"]


def test_a_skipped_item_is_finished_and_teaches_nothing(tiny: Tiny) -> None:
    tiny.studio.annotate(tiny.task_of(A), [], was_cancelled=True)
    tiny.intake.drain()
    assert tiny.standing(A) is None
    assert A in tiny.store.corrections.finished_items(tiny.name)


def test_an_expert_who_is_no_longer_listed_keeps_a_number(tiny: Tiny) -> None:
    tiny.correct(A, completed_by=77)
    tiny.intake.drain()
    assert tiny.standing(A).expert == "user-77"


def test_start_training_asks_for_a_cycle(tiny: Tiny) -> None:
    tiny.store.inbox.append(b'{"action": "START_TRAINING", "project": {"id": 3}}')
    tiny.intake.drain()
    (cycle,) = tiny.store.cycles.queued()
    assert (cycle["assay"], cycle["asked_by"]) == ("tiny", "label-studio")


@pytest.mark.parametrize("action", ["PROJECT_UPDATED", "TASKS_CREATED", "SOMETHING_NEW"])
def test_events_that_correct_nothing_pass_without_doubt(tiny: Tiny, action: str) -> None:
    body = {"action": action, "project": {"id": 3}, "tasks": [{"id": 1}]}
    tiny.store.inbox.append(json.dumps(body).encode())
    assert tiny.intake.drain() == 1
    assert tiny.store.corrections.doubts() == []


# --- events that cannot be understood ---


def _unknown_label(event: dict[str, Any]) -> None:
    event["annotation"]["result"][0]["value"]["brushlabels"] = ["Vacuole"]


def _other_size(event: dict[str, Any]) -> None:
    event["annotation"]["result"][0].update(original_width=41)


def _broken_rle(event: dict[str, Any]) -> None:
    event["annotation"]["result"][0]["value"]["rle"] = [1, 2, 3]


def _other_pixels(event: dict[str, Any]) -> None:
    event["task"]["data"]["image_key"] = "0" * 64


def _other_tile(event: dict[str, Any]) -> None:
    event["task"]["data"]["tile"] = 2


def _unknown_task(event: dict[str, Any]) -> None:
    event["task"]["id"] = event["annotation"]["task"] = 4711


def _no_task(event: dict[str, Any]) -> None:
    del event["task"]


def _no_annotation_id(event: dict[str, Any]) -> None:
    del event["annotation"]["id"]


def _skip_without_id(event: dict[str, Any]) -> None:
    del event["annotation"]["id"]
    event["annotation"]["was_cancelled"] = True


def _no_time(event: dict[str, Any]) -> None:
    event["annotation"]["updated_at"] = "yesterday"


def _nobody(event: dict[str, Any]) -> None:
    event["annotation"]["completed_by"] = None


def _other_project(event: dict[str, Any]) -> None:
    event["project"]["id"] = 99


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_unknown_label, "'Vacuole' is not of assay 'tiny'"),
        (_other_size, "mask (32, 41), image (32, 40)"),
        (_broken_rle, "rle"),
        (_other_pixels, "image_key is '0000"),
        (_other_tile, "tile is 2, expected 0"),
        (_unknown_task, "task 4711: shows no item"),
        (_no_task, "0 task(s)"),
        (_no_annotation_id, "id is None"),
        (_skip_without_id, "id is None"),
        (_no_time, "updated_at is 'yesterday'"),
        (_nobody, "completed_by is None"),
        (_other_project, "project 99: belongs to no assay"),
    ],
)
def test_what_cannot_be_understood_is_a_doubt_and_later_events_are_applied(
    tiny: Tiny, spoil: Callable[[dict[str, Any]], None], told: str
) -> None:
    tiny.correct(A)
    (event,) = events(tiny)
    tiny.store.corrections.set_last_event(1)
    spoil(event)
    tiny.store.inbox.append(json.dumps(event).encode())
    tiny.correct(B)
    assert tiny.intake.drain() == 2
    assert tiny.standing(A) is None
    assert tiny.standing(B) is not None
    (message,) = doubts(tiny)
    assert told.lower() in message.lower()


HALF_A_CHARACTER = rb'{"action": "\ud800", "annotations": 3}'
"""JSON can say it, UTF-8 and SQLite cannot: told as it is, it could not be kept."""


@pytest.mark.parametrize(
    "body", [b"not JSON", b"[]", b"{}", b"\xff\xfe", b"null", b"[" * 100_000, HALF_A_CHARACTER]
)
def test_a_body_that_is_no_event_is_a_doubt(tiny: Tiny, body: bytes) -> None:
    tiny.store.inbox.append(body)
    tiny.correct(B)
    assert tiny.intake.drain() == 2
    assert len(doubts(tiny)) == 1
    assert tiny.standing(B) is not None


def test_more_events_than_one_page_of_the_inbox(tiny: Tiny) -> None:
    for _ in range(120):
        tiny.store.inbox.append(b'{"action": "PROJECT_UPDATED"}')
    tiny.correct(A)
    assert tiny.intake.drain() == 121
    assert tiny.standing(A) is not None


def test_while_label_studio_is_down_events_wait(tiny: Tiny) -> None:
    tiny.correct(A)
    tiny.correct(B)
    tiny.studio.is_down = True
    assert tiny.intake.drain() == 0
    assert tiny.store.corrections.last_event() == 0
    assert tiny.store.corrections.doubts() == []
    tiny.studio.is_down = False
    assert tiny.intake.drain() == 2
    assert tiny.standing(A) is not None
    assert tiny.standing(B) is not None


def test_a_refused_token_makes_events_wait_and_not_doubtful(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.correct(A)

    def refuse() -> list[dict[str, Any]]:
        raise LabelStudioRefused("GET /api/users/: 401")

    with monkeypatch.context() as patched:
        patched.setattr(tiny.studio, "list_users", refuse)
        assert tiny.intake.drain() == 0
    assert tiny.store.corrections.doubts() == []
    assert tiny.intake.drain() == 1
    assert tiny.standing(A) is not None


def test_an_event_that_trips_us_does_not_keep_the_others_waiting(tiny: Tiny) -> None:
    tiny.store.inbox.append(
        json.dumps({"action": "TASKS_DELETED", "tasks": [{"id": 2**70}], "project": {"id": 3}}).encode()
    )
    tiny.correct(A)
    assert tiny.intake.drain() == 2
    assert len(doubts(tiny)) == 1
    assert tiny.standing(A) is not None


# --- reconciliation ---


def test_an_emptied_project_buries_nothing(tiny: Tiny) -> None:
    tiny.correct(A)
    tiny.intake.drain()
    tiny.studio.listener = None
    for task_id in list(tiny.studio.task_ids(3)):
        tiny.studio.delete_task(task_id)
    with pytest.raises(StateError, match=r"no task left, expected 8; .* Restore"):
        tiny.intake.reconcile(tiny.assay)
    assert tiny.standing(A) is not None


def test_a_lost_webhook_is_found(tiny: Tiny) -> None:
    tiny.studio.advance(60)
    tiny.correct(B)
    tiny.intake.reconcile(tiny.assay)
    tiny.studio.advance(60)
    tiny.studio.listener = None
    tiny.correct(A)
    found = tiny.intake.reconcile(tiny.assay)
    assert (found.tasks, found.added) == (2, 1), "what changed since, and the last that was seen"
    np.testing.assert_array_equal(tiny.store.masks.get(tiny.standing(A).mask), tiny.truth_of(A))


def test_two_changes_that_share_a_time_stamp_are_both_found(tiny: Tiny) -> None:
    tiny.studio.listener = None
    tiny.correct(A)
    tiny.intake.reconcile(tiny.assay)
    first = tiny.studio.tasks[tiny.task_of(A)]["updated_at"]
    annotation_id = tiny.correct(B)
    tiny.studio.tasks[tiny.task_of(B)]["updated_at"] = first
    assert tiny.intake.reconcile(tiny.assay).added == 1
    assert tiny.standing(B).annotation_id == annotation_id


def test_a_deletion_is_found(tiny: Tiny) -> None:
    tiny.correct(A)
    annotation_id = tiny.correct(B)
    tiny.intake.drain()
    tiny.studio.listener = None
    tiny.studio.delete_annotation(annotation_id)
    assert tiny.intake.reconcile(tiny.assay).deleted == 1
    assert tiny.standing(B) is None
    assert tiny.standing(A) is not None
    assert kinds(tiny) == ["submitted", "submitted", "deleted"], "nothing is ever taken away"
    assert tiny.intake.reconcile(tiny.assay).deleted == 0


def test_what_is_submitted_while_label_studio_answers_is_not_taken_for_deleted(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = tiny.studio._changed

    def slow_answer(*arguments: Any) -> list[dict[str, Any]]:
        stale = answer(*arguments)
        if tiny.standing(A) is None:
            tiny.correct(A)
            tiny.intake.drain()
        return stale

    monkeypatch.setattr(tiny.studio, "_changed", slow_answer)
    assert tiny.intake.reconcile(tiny.assay).deleted == 0
    assert tiny.standing(A) is not None


def test_what_was_deleted_before_a_look_and_told_during_it_does_not_live_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look begins where this one ended, and would not list the task again."""
    annotation_id = tiny.correct(A)
    late = events(tiny)[-1]
    tiny.store.corrections.set_last_event(1)
    tiny.studio.listener = None
    tiny.studio.delete_annotation(annotation_id)
    tiny.studio.advance(60)
    tiny.correct(B)
    answer = tiny.studio._changed

    def slow_answer(*arguments: Any) -> list[dict[str, Any]]:
        listed = answer(*arguments)
        tiny.store.inbox.append(json.dumps(late).encode())
        tiny.intake.drain()
        return listed

    with monkeypatch.context() as patched:
        patched.setattr(tiny.studio, "_changed", slow_answer)
        assert tiny.intake.reconcile(tiny.assay).deleted == 1
    assert tiny.standing(A) is None
    assert tiny.standing(B) is not None


def test_a_change_that_became_visible_seconds_after_its_time_stamp_is_found(tiny: Tiny) -> None:
    """Label Studio stamps a task, then waits up to five seconds for its database; a later change may be seen first."""
    tiny.studio.listener = None
    tiny.correct(B)
    tiny.intake.reconcile(tiny.assay)
    seen = datetime.fromisoformat(tiny.studio.tasks[tiny.task_of(B)]["updated_at"])
    tiny.correct(A)
    tiny.studio.tasks[tiny.task_of(A)]["updated_at"] = (seen - timedelta(seconds=5)).isoformat()
    assert tiny.intake.reconcile(tiny.assay).added == 1
    assert tiny.standing(A) is not None


def test_a_doubtful_annotation_does_not_hide_the_others(tiny: Tiny) -> None:
    tiny.studio.listener = None
    tiny.correct(A)
    odd = tiny.regions(A)
    odd[0]["value"]["brushlabels"] = ["Vacuole"]
    tiny.studio.annotate(tiny.task_of(A), odd)
    tiny.correct(B)
    found = tiny.intake.reconcile(tiny.assay)
    assert (found.added, found.doubts) == (2, 1)
    tiny.intake.reconcile(tiny.assay, everything=True)
    assert len(doubts(tiny)) == 1, "a doubt is told once"


def test_reconciling_what_is_down_changes_nothing(tiny: Tiny) -> None:
    tiny.intake.reconcile(tiny.assay)
    before = tiny.store.assays.get(tiny.name)["reconciled_until"]
    tiny.studio.is_down = True
    with pytest.raises(LabelStudioUnavailable):
        tiny.intake.reconcile(tiny.assay)
    assert tiny.store.assays.get(tiny.name)["reconciled_until"] == before


def test_the_time_up_to_which_all_is_known_never_goes_back(tiny: Tiny) -> None:
    tiny.studio.advance(60)
    tiny.correct(A)
    tiny.intake.reconcile(tiny.assay)
    before = tiny.store.assays.get(tiny.name)["reconciled_until"]
    tiny.studio.delete_task(tiny.task_of(A))
    tiny.intake.reconcile(tiny.assay)
    assert tiny.store.assays.get(tiny.name)["reconciled_until"] >= before


# --- leases that end ---


ALL = QueuePolicy.all_ranked(strategy="entropy", size=4)


def lease_states(tiny: Tiny, item: Item) -> list[tuple[str, str]]:
    return [(lease.expert, lease.state) for lease in tiny.store.leases.of_item(tiny.name, item)]


def leased(tiny: Tiny, expert: str) -> Item:
    return tiny.held(expert)[0]


def test_a_submit_and_a_skip_end_the_leases_of_who_did(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=2, experts=(ADA, BOB)))
    of_ada, of_bob = leased(tiny, ADA.email), leased(tiny, BOB.email)
    tiny.correct(of_ada)
    tiny.studio.annotate(tiny.task_of(of_bob), [], was_cancelled=True, completed_by=OTHER_EXPERT["id"])
    tiny.intake.drain()
    assert lease_states(tiny, of_ada) == [(ADA.email, "done")]
    assert lease_states(tiny, of_bob) == [(BOB.email, "skipped")]


def test_what_another_submits_does_not_end_an_experts_lease(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=2, experts=(ADA, BOB)))
    item = leased(tiny, ADA.email)
    tiny.correct(item, completed_by=OTHER_EXPERT["id"])
    tiny.intake.drain()
    assert lease_states(tiny, item) == [(ADA.email, "held")]
    assert tiny.standing(item).expert == BOB.email, "and is kept all the same"


def test_on_a_shared_list_anyones_submit_ends_the_lease(tiny: Tiny) -> None:
    tiny.publish_active(ALL)
    item = leased(tiny, SHARED)
    tiny.correct(item, completed_by=OTHER_EXPERT["id"])
    tiny.intake.drain()
    assert lease_states(tiny, item) == [(SHARED, "done")]


def test_the_poll_ends_a_lease_as_the_webhook_would(tiny: Tiny) -> None:
    tiny.publish_active(ALL)
    tiny.studio.listener = None
    item = leased(tiny, SHARED)
    annotation_id = tiny.correct(item)
    tiny.intake.reconcile(tiny.assay)
    assert lease_states(tiny, item) == [(SHARED, "done")]
    tiny.studio.delete_annotation(annotation_id)
    tiny.intake.reconcile(tiny.assay)
    assert lease_states(tiny, item) == [(SHARED, "released")]


def test_an_event_that_comes_twice_ends_no_later_lease(tiny: Tiny) -> None:
    """The item was handed out again since: the repeated event is of the first time."""
    tiny.publish_active(ALL)
    item = leased(tiny, SHARED)
    annotation_id = tiny.correct(item)
    (event,) = events(tiny)
    tiny.intake.drain()
    tiny.studio.delete_annotation(annotation_id)
    tiny.intake.drain()
    while item not in tiny.held():
        for other in tiny.held():
            tiny.correct(other)
        tiny.intake.drain()
        assert refill(tiny.studio, tiny.store, tiny.assay)
    tiny.store.inbox.append(json.dumps(event).encode())
    tiny.intake.drain()
    assert lease_states(tiny, item)[-1] == (SHARED, "held")


def test_what_is_corrected_without_a_lease_is_taken(tiny: Tiny) -> None:
    """Label Studio's own list hands out what nobody was promised."""
    tiny.correct(A)
    tiny.intake.drain()
    assert tiny.standing(A) is not None
    assert lease_states(tiny, A) == []


@pytest.mark.parametrize("is_told", [True, False])
def test_the_lease_of_a_deleted_task_is_given_back(tiny: Tiny, is_told: bool) -> None:
    """It would else take up a place in the batch, on an item that nobody can open."""
    tiny.publish_active(ALL)
    item, *others = tiny.held()
    if not is_told:
        tiny.studio.listener = None
    tiny.studio.delete_task(tiny.task_of(item))
    tiny.intake.drain()
    tiny.intake.reconcile(tiny.assay)
    assert lease_states(tiny, item) == [(SHARED, "released")]
    assert tiny.held() == others


def test_work_renews_leases_by_the_policys_minutes_and_never_by_more(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often: what lasts longer with each submit would never be handed on."""
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=5, lease_minutes=240, experts=(ADA,)))
    hour = timedelta(hours=1)
    last = datetime.now(UTC)
    for _ in range(3):
        last += hour
        monkeypatch.setattr(intake, "datetime", clock_at(last))
        tiny.correct(leased(tiny, ADA.email))
        tiny.intake.drain()
        held = tiny.store.leases.held(tiny.name, expert=ADA.email)
        assert {lease.expires_at for lease in held} == {last + 4 * hour}
    assert len(held) == 2


def clock_at(moment: datetime) -> type[datetime]:
    """A datetime class whose present is that moment."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return moment.astimezone(tz)

    return Clock


@pytest.mark.parametrize("is_skip", [False, True])
def test_a_correction_and_the_end_of_its_lease_are_stored_together(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, is_skip: bool
) -> None:
    """The event is applied again after a crash, and is taken for known if half of it was stored."""
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=2, experts=(ADA,)))
    item = leased(tiny, ADA.email)
    tiny.correct(item, was_cancelled=is_skip)

    def fail(*arguments: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(tiny.store.leases, "finish", fail)
        with pytest.raises(sqlite3.OperationalError):
            tiny.intake.drain()
    assert kinds(tiny) == []
    assert lease_states(tiny, item) == [(ADA.email, "held")]
    assert tiny.intake.drain() == 1
    assert kinds(tiny) == ["skipped" if is_skip else "submitted"]
    assert lease_states(tiny, item) == [(ADA.email, "skipped" if is_skip else "done")]


def test_a_deletion_and_the_lease_it_opens_again_are_stored_together(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=2, experts=(ADA,)))
    item = leased(tiny, ADA.email)
    annotation_id = tiny.correct(item)
    tiny.intake.drain()
    tiny.studio.delete_annotation(annotation_id)

    def fail(*arguments: Any) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(tiny.store.leases, "reopen", fail)
        with pytest.raises(sqlite3.OperationalError):
            tiny.intake.drain()
    assert kinds(tiny) == ["submitted"]
    assert tiny.intake.drain() == 1
    assert kinds(tiny) == ["submitted", "deleted"]
    assert lease_states(tiny, item) == [(ADA.email, "released")]


# --- tasks that go ---


@pytest.mark.parametrize("state", ["held", "submitted", "skipped"])
def test_the_item_of_a_deleted_task_comes_back_once_it_is_imported_again(tiny: Tiny, state: str) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=2, experts=(ADA,)))
    item = leased(tiny, ADA.email)
    if state != "held":
        tiny.correct(item, was_cancelled=state == "skipped")
        tiny.intake.drain()
    tiny.studio.delete_task(tiny.task_of(item))
    tiny.intake.drain()
    assert lease_states(tiny, item) == [(ADA.email, "released")]
    import_tasks(tiny.studio, tiny.store, tiny.assay)  # type: ignore[arg-type]
    for _ in range(len(tiny.items())):
        if item in tiny.held(ADA.email):
            break
        for other in tiny.held(ADA.email):
            tiny.correct(other)
        tiny.intake.drain()
        refill(tiny.studio, tiny.store, tiny.assay)
    assert lease_states(tiny, item) == [(ADA.email, "released"), (ADA.email, "held")]
    tab = next(view for view in tiny.studio.views.values() if view["user"] == EXPERT["id"])
    assert tiny.task_of(item) in tab["tasks"]
    assert tiny.studio.scores()[tiny.task_of(item)] is not None


@pytest.mark.parametrize("is_told", [True, False])
def test_a_deleted_task_takes_its_annotations_along(tiny: Tiny, is_told: bool) -> None:
    task_id = tiny.task_of(A)
    tiny.correct(A)
    tiny.correct(B)
    tiny.intake.drain()
    if not is_told:
        tiny.studio.listener = None
    tiny.studio.delete_task(task_id)
    tiny.intake.drain()
    tiny.intake.reconcile(tiny.assay)
    assert tiny.standing(A) is None
    assert tiny.standing(B) is not None
    assert tiny.store.images.tasks(tiny.name)[A] is None


def test_the_id_of_a_deleted_task_proves_nothing(tiny: Tiny) -> None:
    last = max(tiny.items(), key=tiny.task_of)
    task_id = tiny.task_of(last)
    tiny.correct(last)
    (event,) = events(tiny)
    tiny.intake.drain()
    tiny.studio.delete_task(task_id)
    reused = tiny.studio.add_task({**event["task"]["data"], "image_id": A.image_id, "tile": A.tile})
    assert reused == task_id
    tiny.intake.drain()
    late = {**event["annotation"], "id": 50, "updated_at": "2099-01-01T00:00:00Z"}
    tiny.store.inbox.append(json.dumps({**event, "annotation": late}).encode())
    tiny.intake.drain()
    assert tiny.standing(last) is None
    assert "shows no item" in doubts(tiny)[-1]


def test_a_reused_task_id_does_not_give_one_item_the_mask_of_another(tiny: Tiny) -> None:
    """The deletion was never told, and the id shows another item already."""
    last = max(tiny.items(), key=tiny.task_of)
    task_id, data = tiny.task_of(last), tiny.studio.tasks[tiny.task_of(A)]["data"]
    tiny.studio.listener = None
    tiny.studio.delete_task(task_id)
    assert tiny.studio.add_task(data) == task_id
    tiny.studio.annotate(task_id, tiny.regions(A))
    found = tiny.intake.reconcile(tiny.assay)
    assert (found.added, found.doubts) == (0, 1)
    assert tiny.standing(last) is None
    assert "image_id is 'P-A01', expected" in doubts(tiny)[0]


def test_identity_names_everything_that_differs(tiny: Tiny) -> None:
    data = {**tiny.studio.tasks[tiny.task_of(A)]["data"], "tile": 1, "image_key": "ff"}
    with pytest.raises(
        InputError, match=r"task \d+: image_key is 'ff', expected '.*'; tile is 1, expected 0"
    ):
        check_identity(tiny.store, tiny.name, tiny.task_of(A), parse_task_data(data, "task"))
    with pytest.raises(UnknownImage, match="task 4711"):
        check_identity(tiny.store, tiny.name, 4711, parse_task_data(data, "task"))
