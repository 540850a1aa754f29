"""Who gets which item, what lies on it, and what becomes of it: leases in the store, tabs in Label Studio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import EXPERT, OTHER_EXPERT
from PIL import Image
from tiny import ADA, BATCH, BOB, Painted, Tiny, make_tiny

from cytoloop.adapters.store import Review
from cytoloop.domain.errors import InputError, LabelStudioUnavailable, StateError
from cytoloop.domain.queue_policy import SHARED, Expert, QueuePolicy, item_name
from cytoloop.domain.types import Item, Lease
from labelstudio_config import batches
from labelstudio_config import publish as publishing
from labelstudio_config.canvas import proposals
from labelstudio_config.doubt import doubt_folder, doubt_name
from labelstudio_config.doubt_maps import lacking_doubts, show_doubts
from labelstudio_config.handout import FRESH_DRAFT, claim, end_leases, refill
from labelstudio_config.publish import publish
from labelstudio_config.tabs import show_tab, view_title
from ml_backend.service import worklist

NEW = "cdl-20260101-0123abcd"
TWO = QueuePolicy.all_ranked(strategy="entropy", size=4, experts=(ADA, BOB))
USER = {ADA.email: EXPERT["id"], BOB.email: OTHER_EXPERT["id"]}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    """Eight wells: 16 items teach, 8 are of contest wells, 4 each of a validation and a sealed one."""
    made = make_tiny(tmp_path, wells=8)
    made.listen()
    yield made
    made.store.close()


def after(**time: float) -> datetime:
    return datetime.now(UTC) + timedelta(**time)


def title(tiny: Tiny, expert: Expert, queue: str = "default") -> str:
    return view_title(tiny.store, tiny.assay, queue, expert.email)


def tab(tiny: Tiny, expert: Expert) -> list[Item]:
    """What an expert's tab shows of what the expert holds, in its order."""
    item_of = {tiny.task_of(item): item for item in tiny.held(expert.email)}
    return [item_of[task] for task in tiny.studio.tab(title(tiny, expert)) if task in item_of]


def api(tiny: Tiny, expert: Expert | None) -> list[Any]:
    email = None if expert is None else expert.email
    entries = worklist(tiny.store, lambda _: tiny.assay, "http://ls", "default", email, 1000)
    return [entry for entry in entries if entry.lease is not None]


def next_item(tiny: Tiny, stream: Callable[[int], int | None], expert: Expert) -> Item | None:
    """What an expert's open page gives next."""
    task = stream(USER[expert.email])
    return None if task is None else tiny.store.images.item_of_task(tiny.name, task)


def submit(tiny: Tiny, item: Item, expert: Expert, **fields: Any) -> int:
    number = tiny.correct(item, completed_by=USER[expert.email], **fields)
    tiny.intake.drain()
    return number


def skip(tiny: Tiny, item: Item, expert: Expert) -> int:
    number = tiny.studio.annotate(tiny.task_of(item), [], was_cancelled=True, completed_by=USER[expert.email])
    tiny.intake.drain()
    return number


def look(tiny: Tiny, now: datetime | None = None) -> int:
    return refill(tiny.studio, tiny.store, tiny.assay, now)


def leases_of(tiny: Tiny, item: Item) -> list[tuple[str, str]]:
    return [(lease.expert, lease.state) for lease in tiny.store.leases.of_item(tiny.name, item)]


def promote(tiny: Tiny, version: str = NEW) -> Painted:
    """A version that says other things of the images than CIP: another order."""
    painted = tiny.add_version(version)
    ids = sorted(tiny.truth)
    painted = Painted(version, {i: tiny.truth[j] for i, j in zip(ids, ids[::-1], strict=True)})
    publish(tiny.studio, tiny.store, tiny.assay, painted)
    return painted


def check_shown(tiny: Tiny, *experts: Expert) -> None:
    """Each tab shows what its expert holds, in the order of the API, which is that of the confidence."""
    version, scores = tiny.active(), tiny.studio.scores()
    for expert in experts:
        shown = tab(tiny, expert)
        assert sorted(shown) == tiny.held(expert.email)
        assert [Item(image_id=e.image_id, tile=e.tile) for e in api(tiny, expert)] == shown
        confidences = [tiny.store.predictions.get(tiny.name, version, item).confidence for item in shown]  # type: ignore[union-attr]
        assert confidences == sorted(confidences)
        assert [scores[tiny.task_of(item)] for item in shown] == confidences


# --- a list each ---


def test_two_experts_hold_different_items_and_have_a_tab_each(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    ada, bob = (set(tiny.held(expert.email)) for expert in (ADA, BOB))
    assert len(ada) == len(bob) == 4
    assert not ada & bob
    assert {view["title"]: view["user"] for view in tiny.studio.views.values()} == {
        "Ada: worklist default": 1,
        "Bob: worklist default": 2,
    }
    check_shown(tiny, ADA, BOB)


def test_what_a_page_hands_out_is_the_list(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    for expert in (ADA, BOB):
        stream, handed_out = tiny.studio.open_tab(title(tiny, expert)), []
        listed = tab(tiny, expert)
        while (item := next_item(tiny, stream, expert)) is not None:
            handed_out.append(item)
            submit(tiny, item, expert)
        assert handed_out == listed


def test_a_promotion_changes_the_order_and_no_lease(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    before = {expert.email: tab(tiny, expert) for expert in (ADA, BOB)}
    leases = tiny.store.leases.held(tiny.name)
    views = list(tiny.studio.views)
    stream = tiny.studio.open_tab(title(tiny, ADA))
    promote(tiny)
    look(tiny)
    assert tiny.store.leases.held(tiny.name) == leases
    assert list(tiny.studio.views) == views, "links that were sent to experts go on working"
    check_shown(tiny, ADA, BOB)
    assert {expert.email: tab(tiny, expert) for expert in (ADA, BOB)} != before
    assert next_item(tiny, stream, ADA) == tab(tiny, ADA)[0], "an open page follows"


def test_an_e_mail_is_the_same_in_capitals(tiny: Tiny) -> None:
    """Label Studio keeps it in lower case, and corrections come with it so."""
    tiny.publish_active(replace(TWO, experts=(Expert(name="Ada", email="Ada@Lab.org"), BOB)))
    item = tab(tiny, ADA)[0]
    submit(tiny, item, ADA)
    assert leases_of(tiny, item) == [(ADA.email, "done")]
    assert len(api(tiny, Expert(name="Ada", email="ADA@LAB.ORG"))) == 3


def test_two_queues_never_hold_one_item(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.assay = replace(tiny.assay, queues=("a", "b"))
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=5))
    a, b = (set(tiny.held(queue=queue)) for queue in ("a", "b"))
    assert len(a) == len(b) == 5
    assert not a & b
    for item in a:
        tiny.correct(item)
    tiny.intake.drain()
    assert look(tiny) == 1
    new = set(tiny.held(queue="a"))
    assert len(new) == 5
    assert not new & (a | b)


# --- what comes next ---


def work_through(tiny: Tiny) -> None:
    tasks = tiny.store.images.tasks(tiny.name)
    for item in tiny.held():
        if tasks[item] is not None:
            tiny.correct(item)
    tiny.intake.drain()


def test_a_batch_is_refilled_once_it_is_worked_through(tiny: Tiny) -> None:
    tiny.publish_active()
    first = tiny.held()
    assert look(tiny) == 0
    tiny.correct(first[0])
    tiny.intake.drain()
    assert look(tiny) == 0
    seen = set(first)
    for size in (8, 8, 8):
        work_through(tiny)
        assert look(tiny) == 1
        assert len(tiny.held()) == size
        assert not set(tiny.held()) & seen
        seen |= set(tiny.held())
    work_through(tiny)
    assert look(tiny) == 0, "everything is corrected"
    assert len(seen) == 32


def test_a_deleted_task_does_not_hold_up_its_batch(tiny: Tiny) -> None:
    tiny.publish_active()
    first = tiny.held()
    tiny.studio.delete_task(tiny.task_of(first[0]))
    tiny.intake.drain()
    work_through(tiny)
    assert look(tiny) == 1
    assert not set(tiny.held()) & set(first)


def test_a_batch_whose_tasks_were_all_deleted_is_replaced(tiny: Tiny) -> None:
    tiny.publish_active()
    first = tiny.held()
    for item in first:
        tiny.studio.delete_task(tiny.task_of(item))
    tiny.intake.drain()
    assert tiny.held() == []
    assert look(tiny) == 1
    assert len(tiny.held()) == BATCH.size
    assert not set(tiny.held()) & set(first)


def test_what_is_handed_out_beyond_the_window_has_scores(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "WINDOW", 1)
    tiny.publish_active()
    for _ in range(3):
        work_through(tiny)
        look(tiny)
        scores = tiny.studio.scores()
        assert all(scores[tiny.task_of(item)] is not None for item in tiny.held())


def test_an_item_opened_again_after_all_was_done_has_a_score(tiny: Tiny) -> None:
    annotation_ids = [tiny.correct(item) for item in tiny.items()]
    tiny.intake.drain()
    tiny.publish_active()
    assert tiny.studio.model_version is None, "no prediction, no version to set"
    tiny.studio.delete_annotation(annotation_ids[0])
    tiny.intake.drain()
    assert look(tiny) == 1
    assert tiny.held() == [tiny.items()[0]]
    assert tiny.studio.scores()[tiny.task_of(tiny.items()[0])] is not None


def test_a_batch_is_made_up_as_the_policy_says(tiny: Tiny) -> None:
    tiny.publish_active()
    roles = sorted(lease.role for lease in tiny.store.leases.held(tiny.name))
    assert roles == ["audit", "contest", "contest", "ranked", "ranked", "ranked", "ranked", "validation"]


def test_before_there_is_a_network_a_batch_is_spread_whatever_the_policy_ranks_by(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    real = batches.choose_batch

    def spy(candidates: Any, policy: QueuePolicy, **options: Any) -> Any:
        used.append(policy.strategy)
        assert all(candidate.features_F is not None for candidate in candidates)
        return real(candidates, policy, **options)

    monkeypatch.setattr(batches, "choose_batch", spy)
    tiny.publish_active(replace(BATCH, strategy="disagreement"))
    assert used == ["entropy+diverse"]
    assert {lease.strategy for lease in tiny.store.leases.held(tiny.name)} == {"entropy+diverse"}


def test_the_ranked_items_are_those_with_the_highest_scores(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(size=5, strategy="random"))
    lots = {one.item: one.candidate.lot for one in tiny.store.scores.all(tiny.name, tiny.active(), "random")}
    train = sorted((i for i in tiny.items() if tiny.split_of(i) == "train"), key=lambda i: -lots[i])
    assert tiny.held() == sorted(train[:5])


# --- claims ---


def test_a_claim_gives_what_is_asked_for_up_to_the_cap(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=3, cap=5, experts=(ADA, BOB)))
    given = claim(tiny.studio, tiny.store, tiny.assay, "default", ADA.email, count=1)
    assert [lease.expert for lease in given] == [ADA.email]
    assert len(claim(tiny.studio, tiny.store, tiny.assay, "default", "ada")) == 1, "by name, up to the cap"
    assert claim(tiny.studio, tiny.store, tiny.assay, "default", ADA.email) == []
    assert len(tiny.held(ADA.email)) == 5
    assert len(tiny.held(BOB.email)) == 3
    check_shown(tiny, ADA, BOB)


def test_a_claim_keeps_to_a_budget_of_minutes(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=1, cap=9, experts=(ADA, BOB)))
    ranking = (tiny.name, tiny.active(), "entropy")
    minutes = {one.item: one.candidate.minutes or 0.0 for one in tiny.store.scores.all(*ranking)}
    budget = 3.5 * min(minutes.values())
    given = claim(tiny.studio, tiny.store, tiny.assay, "default", ADA.email, count=8, minutes=budget)
    assert 1 <= len(given) < 8
    assert sum(minutes[lease.item] for lease in given) <= budget


def test_an_expert_who_takes_twice_the_minutes_gets_half_the_work(tiny: Tiny) -> None:
    from cytoloop.domain.expected_effort import Timing

    for number in range(2000):  # so many that the prior does not count
        timing = Timing(
            expert=ADA.email if number % 2 else BOB.email,
            expected_minutes=1.0,
            lead_time_s=240.0 if number % 2 else 60.0,
        )
        tiny.store.handouts.add_timing(tiny.name, number, timing)
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=8, minutes=10.0, experts=(ADA, BOB)))
    ranking = (tiny.name, tiny.active(), "entropy")
    at_fixed_prices = {
        expert: sum(
            s.candidate.minutes or 0 for s in tiny.store.scores.get(*ranking, tiny.held(expert)).values()
        )
        for expert in (ADA.email, BOB.email)
    }
    assert at_fixed_prices[ADA.email] <= 10.0 / 4 * 1.05
    assert at_fixed_prices[ADA.email] < at_fixed_prices[BOB.email] <= 10.0 * 1.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("night", ADA.email, {}), r"queue 'night' is not of assay 'tiny'; expected one of \['default'\]"),
        (("default", "eve@lab.org", {}), "queue 'default': unknown expert 'eve@lab.org'; expected one of"),
        (("default", None, {}), "queue 'default': unknown expert None; expected one of"),
        (("default", ADA.email, {"count": 0}), "count is 0, expected at least 1"),
        (("default", ADA.email, {"minutes": 0.0}), "minutes is 0.0, expected a finite number above 0"),
        (("default", ADA.email, {"minutes": -5.0}), "minutes is -5.0, expected a finite number above 0"),
        (("default", ADA.email, {"minutes": float("nan")}), "minutes is nan, expected a finite number"),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused(
    tiny: Tiny, arguments: tuple[str, str | None, dict[str, Any]], message: str
) -> None:
    tiny.publish_active(TWO)
    held = tiny.held()
    queue, expert, options = arguments
    with pytest.raises(InputError, match=message):
        claim(tiny.studio, tiny.store, tiny.assay, queue, expert, **options)
    assert tiny.held() == held


def test_a_claim_before_anything_is_ranked_is_refused(tiny: Tiny) -> None:
    with pytest.raises(StateError, match="has ranked nothing yet; import images, or wait for the trainer"):
        claim(tiny.studio, tiny.store, tiny.assay, "default", None)


# --- experts whom Label Studio does not know ---


def test_an_expert_unknown_to_label_studio_does_not_stop_the_others(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    eve = Expert(name="Eve", email="eve@lab.org")
    tiny.publish_active(replace(TWO, experts=(eve, ADA)))
    assert len(tiny.held(ADA.email)) == 4
    assert tiny.held(eve.email) == [], "nothing is kept from the others for nobody"
    assert "expert eve@lab.org: nobody in Label Studio has this e-mail" in caplog.text
    with pytest.raises(StateError, match=r"nobody in Label Studio.*expected one of \['ada@lab.org'"):
        claim(tiny.studio, tiny.store, tiny.assay, "default", "Eve")
    assert tiny.held(eve.email) == []


def test_an_expert_who_was_deleted_in_label_studio_leaves_the_work_to_the_others(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    of_bob = tiny.held(BOB.email)
    tiny.studio.users = [EXPERT]
    for item in tiny.held(ADA.email):
        submit(tiny, item, ADA)
    assert look(tiny, after(hours=5)) == 1
    assert tiny.held(BOB.email) == []
    assert set(tiny.held(ADA.email)) & set(of_bob)


# --- time ---


def test_an_expired_lease_is_handed_on_and_taken_out_of_the_open_page(tiny: Tiny) -> None:
    policy = replace(TWO, size=8)
    tiny.publish_active(policy)
    of_ada, of_bob = tiny.held(ADA.email), tiny.held(BOB.email)
    assert len(of_ada) + len(of_bob) == 16, "all there is"
    stream = tiny.studio.open_tab(title(tiny, ADA))
    assert next_item(tiny, stream, ADA) in of_ada
    now = after(hours=3)
    assert end_leases(tiny.studio, tiny.store, tiny.assay, now) == 0
    for item in of_bob:
        submit(tiny, item, BOB)
    tiny.set_policy(replace(policy, experts=(BOB, ADA)))  # who is first gets what ran out
    look(tiny, after(hours=5))
    assert tiny.held(BOB.email) == of_ada
    assert {state for item in of_ada for state in leases_of(tiny, item)} == {
        (ADA.email, "expired"),
        (BOB.email, "held"),
    }
    assert next_item(tiny, stream, ADA) is None, "the page was loaded before, and yet"
    check_shown(tiny, BOB)


def test_an_expired_lease_with_fresh_work_is_extended(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, experts=(ADA, BOB), lease_minutes=60))
    started, other = tab(tiny, ADA)[:2]
    stream = tiny.studio.open_tab(title(tiny, ADA))
    tiny.studio.draft(tiny.task_of(started), USER[ADA.email])
    tiny.studio.draft(tiny.task_of(other), USER[BOB.email])  # not hers
    now = after(hours=2)
    assert end_leases(tiny.studio, tiny.store, tiny.assay, now) == 7
    (kept,) = tiny.store.leases.held(tiny.name)
    assert (kept.item, kept.expert, kept.expires_at) == (started, ADA.email, now + timedelta(hours=1))
    assert next_item(tiny, stream, ADA) == started


@pytest.mark.parametrize("is_submitted", [True, False])
def test_a_draft_keeps_an_item_for_a_day_only(tiny: Tiny, is_submitted: bool) -> None:
    tiny.publish_active(TWO)
    item = tab(tiny, ADA)[0]
    tiny.studio.draft(tiny.task_of(item), USER[ADA.email])
    just_fresh = after() + FRESH_DRAFT - timedelta(minutes=1)
    assert end_leases(tiny.studio, tiny.store, tiny.assay, just_fresh) == 7
    if is_submitted:
        submit(tiny, item, ADA)
    ended = end_leases(tiny.studio, tiny.store, tiny.assay, just_fresh + FRESH_DRAFT)
    assert ended == (0 if is_submitted else 1)
    assert leases_of(tiny, item) == [(ADA.email, "done" if is_submitted else "expired")]


def test_on_a_list_that_everyone_shares_anyones_draft_keeps_the_item(tiny: Tiny) -> None:
    tiny.publish_active()
    item = tiny.held()[0]
    tiny.studio.draft(tiny.task_of(item), USER[BOB.email])
    assert end_leases(tiny.studio, tiny.store, tiny.assay, after(hours=5)) == BATCH.size - 1
    assert tiny.held() == [item]


def test_who_is_at_work_keeps_the_rest_of_the_list(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    before = {lease.id: lease.expires_at for lease in tiny.store.leases.held(tiny.name)}
    submit(tiny, tab(tiny, ADA)[0], ADA)
    for lease in tiny.store.leases.held(tiny.name):
        assert (lease.expires_at > before[lease.id]) == (lease.expert == ADA.email)


def test_a_late_submit_is_kept_beside_the_others(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, size=8))
    item = tab(tiny, ADA)[0]
    for other in tiny.held(BOB.email):
        submit(tiny, other, BOB)
    tiny.set_policy(replace(TWO, size=8, experts=(BOB, ADA)))
    look(tiny, after(hours=5))
    assert item in tiny.held(BOB.email)
    late = submit(tiny, item, ADA)
    assert tiny.standing(item).annotation_id == late
    assert leases_of(tiny, item) == [(ADA.email, "done"), (BOB.email, "held")]
    submit(tiny, item, BOB)
    assert leases_of(tiny, item) == [(ADA.email, "done"), (BOB.email, "done")]
    readings = tiny.store.corrections.readings(tiny.name)[item]
    assert [reading.expert for reading in readings] == [ADA.email, BOB.email]


def test_a_late_submit_does_not_take_the_item_from_who_holds_it_now(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, size=8))
    item = tab(tiny, ADA)[0]
    for other in tiny.held(BOB.email):
        submit(tiny, other, BOB)
    tiny.set_policy(replace(TWO, size=8, experts=(BOB, ADA)))
    look(tiny, after(hours=5))
    stream = tiny.studio.open_tab(title(tiny, BOB))
    submit(tiny, item, ADA)
    handed_out = set()
    while (following := next_item(tiny, stream, BOB)) is not None:
        handed_out.add(following)
        submit(tiny, following, BOB)
    assert item in handed_out
    assert tiny.held(BOB.email) == []


# --- several readers ---


@pytest.mark.parametrize(
    ("policy", "role", "canvas"),
    [
        (replace(TWO, overlap_share=0.5), "overlap", "model"),
        (replace(TWO, contest_share=0.5), "contest", "cip"),
    ],
)
def test_a_second_reader_gets_the_item_and_never_the_first_again(
    tiny: Tiny, policy: QueuePolicy, role: str, canvas: str
) -> None:
    tiny.publish_active(policy)
    of_ada = {lease.item for lease in tiny.store.leases.held(tiny.name, expert=ADA.email)}
    shared = {
        lease.item for lease in tiny.store.leases.held(tiny.name, expert=ADA.email) if lease.role == role
    }
    assert len(shared) == 2
    assert set(tiny.held(BOB.email)) & of_ada == shared, "Bob's batch begins with what Ada reads"
    for item in shared:
        assert [
            (lease.seat, lease.expert, lease.role, lease.canvas)
            for lease in tiny.store.leases.of_item(tiny.name, item)
        ] == [(0, ADA.email, role, canvas), (1, BOB.email, role, canvas)]
        assert tiny.studio.readers[tiny.task_of(item)] == 2
    assert set(tiny.studio.readers) == {
        tiny.task_of(item) for item in tiny.held() if tiny.store.leases.roles(tiny.name)[item].readers == 2
    }
    stream = tiny.studio.open_tab(title(tiny, BOB))
    for item in of_ada:
        submit(tiny, item, ADA)
    look(tiny)
    assert not set(tiny.held(ADA.email)) & of_ada
    handed_out = set()
    while (item := next_item(tiny, stream, BOB)) is not None:
        handed_out.add(item)
        submit(tiny, item, BOB)
    assert shared <= handed_out, "although Ada has submitted"
    assert all(len(tiny.store.corrections.readings(tiny.name)[item]) == 2 for item in shared)


def test_an_item_for_two_is_linked_to_the_stream_where_nobody_sees_the_other(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, overlap_share=0.5))
    roles = tiny.store.leases.roles(tiny.name)
    view_id = next(number for number, view in tiny.studio.views.items() if view["user"] == 1)
    page = f"http://ls/projects/3/data?tab={view_id}&"
    for entry in api(tiny, ADA):
        role = roles[Item(image_id=entry.image_id, tile=entry.tile)]
        assert entry.url == (f"{page}labeling=1" if role.readers > 1 else f"{page}task={entry.task_id}")
        assert (entry.reason == "read by several experts") == (role.role == "overlap")
        assert entry.strategy == "entropy"


def test_the_list_does_not_tell_what_the_model_saw_of_an_item_that_is_to_judge_it(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, contest_share=0.25, audit_share=0.25, blank_share=0.25))
    leases = {(lease.expert, lease.item): lease for lease in tiny.store.leases.held(tiny.name)}
    stored = tiny.store.predictions
    for expert in (ADA, BOB):
        for entry in api(tiny, expert):
            item = Item(image_id=entry.image_id, tile=entry.tile)
            said = stored.get(tiny.name, tiny.active(), item).reason  # type: ignore[union-attr]
            assert said
            expected = {
                "contest": "drawn at random, to compare models; on the CIP's mask",
                "audit": f"drawn at random, to measure the ranking; {said}",
                "blank": "an empty canvas",
                "ranked": said,
            }
            assert entry.reason == expected[leases[expert.email, item].role]


def test_a_correction_that_is_doubted_goes_to_another_expert(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, size=4))  # one of four: more than a tenth
    item = tiny.held(ADA.email)[0]
    submit(tiny, item, ADA)
    mask = tiny.standing(item).mask
    tiny.store.reviews.ask(
        tiny.name, [Review(item=item, expert=ADA.email, mask=mask, score=1.0, reason="odd")]
    )
    for expert in (ADA, BOB):
        for other in tiny.held(expert.email):
            submit(tiny, other, expert)
    look(tiny)
    assert item in tiny.held(BOB.email)
    assert item not in tiny.held(ADA.email)
    (entry,) = (e for e in api(tiny, BOB) if (e.image_id, e.tile) == (item.image_id, item.tile))
    assert entry.reason == "a second look at a correction; odd"
    assert entry.url.endswith("&labeling=1"), "where the first mask is not seen"
    assert [lease.role for lease in tiny.store.leases.of_item(tiny.name, item)] == ["ranked", "review"]
    stream, handed_out = tiny.studio.open_tab(title(tiny, BOB)), []
    while (given := next_item(tiny, stream, BOB)) is not None:
        handed_out.append(given)
        submit(tiny, given, BOB)
    assert item in handed_out, "although it is labeled"
    assert tiny.store.reviews.open(tiny.name) == []


def test_gold_items_come_to_every_expert_once(tiny: Tiny) -> None:
    gold = [item for item in tiny.items() if tiny.split_of(item) == "train"][:2]
    for item in gold:
        tiny.correct(item, completed_by=77)
    tiny.intake.drain()
    names = tuple(item_name(item) for item in gold)
    tiny.publish_active(replace(TWO, gold_share=0.25, gold=names))
    seen: dict[str, list[Item]] = {}
    for _ in range(3):
        for expert in (ADA, BOB):
            for item in tiny.held(expert.email):
                seen.setdefault(expert.email, []).append(item)
                submit(tiny, item, expert)
        look(tiny)
    for expert in (ADA, BOB):
        assert set(gold) <= set(seen[expert.email])
        assert len(seen[expert.email]) == len(set(seen[expert.email]))


def test_what_two_experts_read_becomes_gold(tiny: Tiny) -> None:
    """Without being listed; what one alone has read does not."""
    first, second, alone = [item for item in tiny.items() if tiny.split_of(item) == "train"][:3]
    for item, reader in ((first, 77), (first, 78), (second, 77), (second, 78), (alone, 77)):
        tiny.correct(item, completed_by=reader)
    tiny.intake.drain()
    tiny.publish_active(replace(TWO, size=8, gold_share=0.25))
    for expert in (ADA, BOB):
        held = tiny.store.leases.held(tiny.name, expert=expert.email)
        assert {lease.item for lease in held if lease.role == "gold"} == {first, second}
        assert alone not in {lease.item for lease in held}


def expire_all(tiny: Tiny) -> None:
    """Everything that is held was held in vain."""
    end_leases(tiny.studio, tiny.store, tiny.assay, after(hours=5))
    assert tiny.held() == []


def urls(tiny: Tiny, expert: Expert) -> dict[Item, str]:
    return {Item(image_id=e.image_id, tile=e.tile): e.url for e in api(tiny, expert)}


def test_an_item_that_was_first_ranked_is_judged_alone_once_it_is_read_by_several(tiny: Tiny) -> None:
    """By the second reader too, and once the first is done."""
    tiny.publish_active(replace(TWO, size=16, experts=(ADA,)))
    painted = promote(tiny)
    ranked = tiny.held()
    assert show_doubts(tiny.store, tiny.assay, painted, ranked) == len(ranked)
    expire_all(tiny)
    tiny.set_policy(replace(TWO, overlap_share=0.5))
    look(tiny)
    of_ada, of_bob = (tiny.store.leases.held(tiny.name, expert=expert.email) for expert in (ADA, BOB))
    shared = {lease.item for lease in of_ada if lease.role == "overlap"}
    assert len(shared) == 2
    assert {lease.item: lease.role for lease in of_bob if lease.item in shared} == dict.fromkeys(
        shared, "overlap"
    )
    for item in shared:
        assert tiny.store.leases.roles(tiny.name)[item].role == "ranked", "the item keeps its first role"
        assert not lacking_or_shown(tiny, item)
        for expert in (ADA, BOB):
            assert urls(tiny, expert)[item].endswith("&labeling=1")
    said = {e.reason for e in api(tiny, BOB) if Item(image_id=e.image_id, tile=e.tile) in shared}
    assert said == {"read by several experts"}
    for item in shared:
        submit(tiny, item, ADA)
    assert show_doubts(tiny.store, tiny.assay, promote(tiny, "cdl-20260102-4567cdef"), shared) == 0
    assert not any(lacking_or_shown(tiny, item) for item in shared)


def lacking_or_shown(tiny: Tiny, item: Item) -> bool:
    """Whether an item shows its doubt map, or will as soon as it is drawn."""
    path = doubt_picture(tiny, item)
    return not path.is_symlink() or not path.readlink().name.startswith("hidden_")


def test_a_gold_item_that_was_first_ranked_is_judged_alone(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, size=16, experts=(ADA,)))
    painted = promote(tiny)
    gold = tiny.held()[0]
    show_doubts(tiny.store, tiny.assay, painted, tiny.held())
    assert lacking_or_shown(tiny, gold)
    for item in tiny.held():
        submit(tiny, item, ADA)
    tiny.set_policy(replace(TWO, experts=(BOB,), gold_share=0.25, gold=(item_name(gold),)))
    look(tiny)
    assert of_role(tiny, "gold") == [gold]
    assert not lacking_or_shown(tiny, gold)
    assert urls(tiny, BOB)[gold].endswith("&labeling=1")


# --- what lies on an item ---


CANVASES = replace(TWO, size=8, contest_share=0.25, blank_share=0.25, contest_readers=1)


def shown_on(tiny: Tiny, item: Item) -> list[Any]:
    regions: list[Any] = tiny.studio.predictions[tiny.prediction_of(item)]["result"]
    return regions


def of_role(tiny: Tiny, role: str) -> list[Item]:
    return [lease.item for lease in tiny.store.leases.held(tiny.name) if lease.role == role]


def test_blank_and_cip_canvas_hold_through_a_promotion(tiny: Tiny) -> None:
    tiny.publish_active(CANVASES)
    blank, contest, ranked = (of_role(tiny, role) for role in ("blank", "contest", "ranked"))
    assert (len(blank), len(contest)) == (4, 4)
    of_cip = {item: shown_on(tiny, item) for item in contest}
    assert all(of_cip.values())
    assert all(shown_on(tiny, item) == [] for item in blank)
    promote(tiny)
    look(tiny)
    check_shown(tiny, ADA, BOB)
    assert all(shown_on(tiny, item) == [] for item in blank)
    assert {item: shown_on(tiny, item) for item in contest} == of_cip
    for item in ranked:
        stored = tiny.store.predictions.get(tiny.name, NEW, item)
        assert stored is not None
        assert shown_on(tiny, item) == stored.result
    for item in contest:
        stored = tiny.store.predictions.get(tiny.name, NEW, item)
        assert stored is not None
        assert stored.result != of_cip[item], "what the model says is another thing, and is not shown"


def test_items_handed_out_after_a_promotion_have_their_canvas_too(tiny: Tiny) -> None:
    tiny.publish_active(replace(CANVASES, contest_share=0.0, blank_share=0.0))
    promote(tiny)
    for expert in (ADA, BOB):
        for item in tiny.held(expert.email):
            submit(tiny, item, expert)
    tiny.set_policy(replace(CANVASES, contest_share=0.5))
    look(tiny)
    contest = of_role(tiny, "contest")
    cip = proposals(tiny.store, tiny.assay, contest)
    assert contest
    assert all(shown_on(tiny, item) == cip[item] != [] for item in contest)
    for item in contest:  # the last version's prediction can be opened beside it
        of_task = [p for p in tiny.studio.predictions.values() if p["task"] == tiny.task_of(item)]
        assert all(p["result"] == cip[item] for p in of_task)


def test_no_earlier_version_shows_through_a_canvas(tiny: Tiny) -> None:
    """The page of a task offers every prediction it holds, not that of the version in force alone."""
    tiny.publish_active(replace(TWO, size=1, experts=(ADA,)))
    old = tiny.active()
    promote(tiny)
    submit(tiny, tiny.held(ADA.email)[0], ADA)
    tiny.set_policy(replace(CANVASES, size=4, blank_share=0.5))
    look(tiny)
    special = {lease.item for lease in tiny.store.leases.held(tiny.name) if lease.canvas != "model"}
    shown = proposals(tiny.store, tiny.assay, special)
    on_page = [p for p in tiny.studio.predictions.values() if p["task"] in map(tiny.task_of, special)]
    assert {p["model_version"] for p in on_page} == {old, NEW}
    for held in on_page:
        assert held["result"] == shown[tiny.store.images.item_of_task(tiny.name, held["task"])]


def test_a_correction_names_what_the_expert_began_with(tiny: Tiny) -> None:
    cip = tiny.active()
    tiny.publish_active(CANVASES)
    promote(tiny)
    began = {"blank": None, "contest": cip, "ranked": NEW}
    for lease in tiny.store.leases.held(tiny.name):
        expert = ADA if lease.expert == ADA.email else BOB
        submit(tiny, lease.item, expert, parent_prediction=tiny.prediction_of(lease.item))
        assert tiny.standing(lease.item).parent_version == began[lease.role]


def test_times_are_learned_from_training_items_alone(tiny: Tiny) -> None:
    tiny.publish_active(CANVASES)
    expected = 0
    for lease in tiny.store.leases.held(tiny.name):
        expert = ADA if lease.expert == ADA.email else BOB
        submit(tiny, lease.item, expert, parent_prediction=tiny.prediction_of(lease.item), lead_time=90.0)
        expected += lease.role == "ranked"
        timings = tiny.store.handouts.timings(tiny.name)
        assert len(timings) == expected, "neither contest wells nor an empty canvas"
    assert {timing.lead_time_s for timing in timings} == {90.0}


# --- doubt maps ---


def doubt_picture(tiny: Tiny, item: Item) -> Path:
    record = tiny.store.images.get(tiny.name, item.image_id)
    return doubt_folder(tiny.home, tiny.name) / doubt_name(record, item.tile)


def test_doubt_is_shown_except_where_it_would_lead(tiny: Tiny) -> None:
    tiny.publish_active(replace(CANVASES, overlap_share=0.25))
    painted = promote(tiny)
    held = tiny.held()
    assert set(lacking_doubts(tiny.store, tiny.assay)) == set(of_role(tiny, "ranked"))
    shown = show_doubts(tiny.store, tiny.assay, painted, held)
    ranked = of_role(tiny, "ranked")
    assert shown == len(ranked) > 0
    for item in held:
        path = doubt_picture(tiny, item)
        assert path.is_symlink() == (item not in ranked)
        assert not path.is_symlink() or path.readlink().name.startswith("hidden_")
    with Image.open(doubt_picture(tiny, ranked[0])) as picture:
        assert np.asarray(picture).shape[:2] == (32, 40)
    assert lacking_doubts(tiny.store, tiny.assay) == []


def test_what_is_leased_later_is_hidden_or_lacks_its_map(tiny: Tiny) -> None:
    tiny.publish_active(CANVASES)
    painted = promote(tiny)
    show_doubts(tiny.store, tiny.assay, painted, tiny.items())
    contest = of_role(tiny, "contest")[0]
    for expert in (ADA, BOB):
        for item in tiny.held(expert.email):
            submit(tiny, item, expert)
    look(tiny)
    new = of_role(tiny, "contest")
    assert new
    assert contest not in new
    assert all(doubt_picture(tiny, item).readlink().name.startswith("hidden_") for item in new)


def test_cip_has_no_doubt_to_show(tiny: Tiny) -> None:
    from cytoloop.pipeline.predictors import load_predictor

    tiny.publish_active()
    predictor = load_predictor(tiny.store, tiny.registry, tiny.assay, tiny.store.models.active(tiny.name))
    assert show_doubts(tiny.store, tiny.assay, predictor, tiny.held()) == 0


# --- skipped, deleted, taken back ---


@pytest.mark.parametrize("skipped", ["return", "retire"])
def test_a_skipped_item_goes_to_another_or_to_nobody(tiny: Tiny, skipped: Any) -> None:
    tiny.publish_active(replace(TWO, size=8, skipped=skipped, contest_readers=1))
    item = tab(tiny, ADA)[0]
    skip(tiny, item, ADA)
    assert leases_of(tiny, item) == [(ADA.email, "skipped")]
    for expert in (BOB, ADA):
        for other in tiny.held(expert.email):
            submit(tiny, other, expert)
    look(tiny)
    assert item not in tiny.held(ADA.email), "never to the one who skipped"
    assert (item in tiny.held(BOB.email)) == (skipped == "return")
    if skipped == "return":
        stream = tiny.studio.open_tab(title(tiny, BOB))
        while (given := next_item(tiny, stream, BOB)) != item:
            assert given is not None
            submit(tiny, given, BOB)
        skip(tiny, item, BOB)
    work_through(tiny)
    look(tiny)
    assert item not in tiny.held()


def test_on_a_shared_list_what_one_skipped_is_skipped(tiny: Tiny) -> None:
    tiny.publish_active(QueuePolicy.all_ranked(strategy="entropy", size=16))
    item = tiny.held()[0]
    skip(tiny, item, BOB)
    assert leases_of(tiny, item) == [(SHARED, "skipped")]
    while tiny.held():
        work_through(tiny)
        look(tiny)
        assert item not in tiny.held()


@pytest.mark.parametrize("deleted", ["return", "retire"])
def test_an_item_whose_annotation_is_deleted_comes_again_or_never(tiny: Tiny, deleted: Any) -> None:
    tiny.publish_active(replace(TWO, size=8, deleted=deleted))
    item = tab(tiny, ADA)[0]
    annotation = submit(tiny, item, ADA)
    for expert in (ADA, BOB):
        for other in tiny.held(expert.email):
            submit(tiny, other, expert)
    tiny.studio.delete_annotation(annotation)
    tiny.intake.drain()
    look(tiny)
    assert (item in tiny.held()) == (deleted == "return")
    if deleted == "return":
        assert leases_of(tiny, item) == [(ADA.email, "released"), (ADA.email, "held")]


def test_who_leaves_a_queue_gives_back_what_he_held(tiny: Tiny) -> None:
    tiny.publish_active(replace(TWO, size=8))
    of_bob = tiny.held(BOB.email)
    stream = tiny.studio.open_tab(title(tiny, BOB))
    tiny.set_policy(replace(TWO, size=8, experts=(ADA,)))
    for item in tiny.held(ADA.email):
        submit(tiny, item, ADA)
    look(tiny)
    assert tiny.held(BOB.email) == []
    assert tiny.held(ADA.email) == of_bob
    assert next_item(tiny, stream, BOB) is None, "his open page gives him nothing of it"
    check_shown(tiny, ADA)


def test_a_queue_that_gets_experts_takes_back_the_shared_list(tiny: Tiny) -> None:
    tiny.publish_active()
    shared = tiny.held()
    tiny.set_policy(TWO)
    look(tiny)
    assert tiny.held(SHARED) == []
    assert len(tiny.held()) == 8
    assert all(leases_of(tiny, item)[0] == (SHARED, "released") for item in shared)
    assert tiny.studio.tab("Worklist default") == []


# --- when Label Studio fails in between ---


def fail_to_withdraw(tiny: Tiny, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    withdraw_tasks = tiny.studio.withdraw_tasks

    def cut_off(*arguments: Any) -> None:
        if when == "after":
            withdraw_tasks(*arguments)
        raise LabelStudioUnavailable("withdraw_tasks: connection reset")

    monkeypatch.setattr(tiny.studio, "withdraw_tasks", cut_off)


def watch_tabs(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a tab is shown, no item is on another's."""
    ensure_view = tiny.studio.ensure_view

    def checked(*arguments: Any) -> int:
        number = ensure_view(*arguments)
        tabs = [tiny.studio.tab(view["title"]) for view in tiny.studio.views.values()]
        shown = [task for tasks in tabs for task in tasks]
        assert len(shown) == len(set(shown)), "an item is on two tabs"
        return number

    monkeypatch.setattr(tiny.studio, "ensure_view", checked)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("is_leaving", [False, True])
def test_a_lease_goes_on_until_its_item_is_out_of_sight(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, when: str, is_leaving: bool
) -> None:
    """Whether its time is over, or its expert leaves the queue."""
    tiny.publish_active(replace(TWO, size=8))
    of_bob = tiny.held(BOB.email)
    stream = tiny.studio.open_tab(title(tiny, BOB))
    for item in tiny.held(ADA.email):
        submit(tiny, item, ADA)
    if is_leaving:
        tiny.set_policy(replace(TWO, size=8, experts=(ADA,)))
    now = after(hours=0 if is_leaving else 5)
    watch_tabs(tiny, monkeypatch)
    with monkeypatch.context() as patched:
        fail_to_withdraw(tiny, patched, when)
        with pytest.raises(LabelStudioUnavailable):
            look(tiny, now)
    assert tiny.held(BOB.email) == of_bob, "it is nobody else's"
    look(tiny, now)
    assert tiny.held(ADA.email) == of_bob
    assert next_item(tiny, stream, BOB) is None


@pytest.mark.parametrize("is_claimed", [False, True])
def test_what_was_given_back_unheard_leaves_its_tab_before_another_gets_it(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, is_claimed: bool
) -> None:
    """Label Studio was down when the expert gave it back."""
    tiny.publish_active(replace(TWO, size=8))
    of_bob = tiny.held(BOB.email)
    stream = tiny.studio.open_tab(title(tiny, BOB))
    for item in tiny.held(ADA.email):
        submit(tiny, item, ADA)
    for lease in tiny.store.leases.held(tiny.name):
        tiny.store.leases.release(lease.id, BOB.email)
    tiny.store.worklist.note(tiny.name, of_bob)
    assert sorted(tiny.studio.tab(title(tiny, BOB))) == sorted(map(tiny.task_of, of_bob))
    watch_tabs(tiny, monkeypatch)
    if is_claimed:
        claim(tiny.studio, tiny.store, tiny.assay, "default", ADA.email)
    else:
        look(tiny)
    assert tiny.held(ADA.email) == of_bob
    assert not set(tab(tiny, BOB)) & set(of_bob)
    assert next_item(tiny, stream, BOB) is None


CALLS_OF_A_CLAIM = [
    *("list_users", "prediction_tasks", "push_predictions", "get_project", "replace_predictions"),
    *("model_versions", "set_readers", "list_users", "ensure_view"),
]
WITH_ALL = replace(TWO, size=4, contest_share=0.25, contest_readers=1, blank_share=0.25, overlap_share=0.25)


def begin(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published to Ada alone, next to nothing pushed: Bob's first claim has everything to do."""
    monkeypatch.setattr(publishing, "WINDOW", 1)
    tiny.publish_active(replace(WITH_ALL, experts=(ADA,), overlap_share=0.0))
    tiny.set_policy(WITH_ALL)


def test_the_calls_above_are_those_of_a_claim(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(tiny, monkeypatch)
    tiny.studio.calls.clear()
    claim(tiny.studio, tiny.store, tiny.assay, "default", BOB.email)
    assert tiny.studio.calls == CALLS_OF_A_CLAIM


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", range(1, len(CALLS_OF_A_CLAIM) + 1))
def test_an_interrupted_claim_is_put_right_by_the_next_look(
    tiny: Tiny, call: int, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tiny, monkeypatch)
    tiny.studio.crash = (len(tiny.studio.calls) + call, when)
    with pytest.raises(LabelStudioUnavailable):
        claim(tiny.studio, tiny.store, tiny.assay, "default", BOB.email)
    tiny.studio.crash = None
    leased: list[Lease] = tiny.store.leases.held(tiny.name, expert=BOB.email)
    assert len(leased) == (0 if call == 1 else 4)
    look(tiny)
    if leased:
        assert tiny.store.leases.held(tiny.name, expert=BOB.email) == leased, "what was promised is kept"
    of_ada, of_bob = (tiny.held(expert.email) for expert in (ADA, BOB))
    assert len(of_ada) == len(of_bob) == 4
    assert not set(of_ada) & set(of_bob)
    check_shown(tiny, ADA, BOB)
    roles = tiny.store.leases.roles(tiny.name, of_bob)
    assert sorted(role.role for role in roles.values()) == ["blank", "contest", "overlap", "ranked"]
    for item, role in roles.items():
        stored = tiny.store.predictions.get(tiny.name, tiny.active(), item)
        assert stored is not None
        assert (shown_on(tiny, item) == []) == (role.canvas == "blank")
        assert tiny.studio.readers.get(tiny.task_of(item), 1) == role.readers


def test_a_tab_that_holds_nothing_stays_as_it_was(tiny: Tiny) -> None:
    tiny.publish_active(TWO)
    for item in tiny.held(ADA.email):
        submit(tiny, item, ADA)
    view_id = next(number for number, view in tiny.studio.views.items() if view["user"] == 1)
    assert show_tab(tiny.studio, tiny.store, tiny.assay, "default", ADA.email) == view_id
    assert len(tiny.studio.views[view_id]["tasks"]) == 4
