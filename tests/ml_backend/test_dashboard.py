"""What the dashboard says, to whom, and what its buttons do."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from fakes import EXPERT, OTHER_EXPERT
from flask import Flask
from tiny import ADA, BATCH, BOB, Tiny

from cytoloop.adapters.store import Store
from cytoloop.domain.queue_policy import Expert, QueuePolicy
from cytoloop.domain.trainer_policy import Triggers
from cytoloop.domain.types import Item
from labelstudio_config.publish import publish
from ml_backend.dashboard.loop import Loop, loop_of

if TYPE_CHECKING:
    from conftest import Browser

TWO = QueuePolicy.all_ranked(strategy="entropy", size=3, experts=(ADA, BOB))
NOW = datetime.now().astimezone()
CDL = "cdl-20260101-0123abcd"
EVIL = "<script>alert(1)</script>"


def ended(tiny: Tiny, outcome: str = "kept", reason: str = "no gain", **fields: Any) -> str:
    """A training cycle that is over."""
    cycle_id = tiny.store.cycles.ask(tiny.name, "schedule")
    tiny.store.cycles.start(cycle_id)
    state = "failed" if outcome in ("failed", "abandoned", "cancelled") else "done"
    tiny.store.cycles.finish(cycle_id, state, outcome, reason, **fields)
    return cycle_id


def running(tiny: Tiny, step: str = "contest", share: float = 0.75, asked_by: str = "root") -> str:
    cycle_id = tiny.store.cycles.ask(tiny.name, asked_by, "21 corrections since the last cycle")
    tiny.store.cycles.start(cycle_id)
    tiny.store.cycles.step(cycle_id, step, share)
    return cycle_id


def correct(tiny: Tiny, items: list[Item], user: dict[str, Any] = EXPERT, seconds: float = 60.0) -> None:
    for item in items:
        tiny.correct(item, completed_by=user["id"], lead_time=seconds)
    tiny.intake.drain()


def state(tiny: Tiny, triggers: Triggers | None = None) -> Loop:
    return loop_of(tiny.store, tiny.name, triggers or Triggers(), NOW)


# --- the first question: what do I open next? ---


def test_an_expert_finds_the_own_worklist_first(home: Tiny, browser: Browser) -> None:
    home.publish_active(TWO)
    browser.log_in("expert")
    page = browser.get()
    tab = home.store.handouts.tab(home.name, "default", ADA.email)
    assert tab is not None
    link = f'class="big" href="http://127.0.0.1:8080/projects/3/data?tab={tab.view_id}&amp;labeling=1"'
    assert page.count('class="big"') == 1
    assert page.index(link) < page.index("State of the loop")
    assert "Open my worklist 3 items are yours until" in browser.reads()
    for item in home.held(ADA.email):
        assert f"{item.image_id}, tile {item.tile}</a>" in page
    assert page.count("comes later") == 2
    assert page.count("&amp;task=") == 3, "what nobody was handed is named, without a way in"


def test_an_expert_sees_nobody_elses_list_and_no_buttons(home: Tiny, browser: Browser) -> None:
    home.publish_active(TWO)
    browser.log_in("expert")
    page = browser.reads()
    for hidden in ("Bob", BOB.email, "Train now", "Cancel", "Models", "Queues", "Settings"):
        assert hidden not in page
    assert "In use conventional image processing (CIP): filters and thresholds, nothing learned" in page


def test_an_expert_of_no_queue_is_told_so(home: Tiny, browser: Browser) -> None:
    home.publish_active(replace(TWO, experts=(BOB,)))
    browser.log_in("expert")
    page = browser.reads()
    assert f"No queue knows an expert called {ADA.email} ." in page
    assert BOB.email not in page


def test_a_list_that_everyone_shares_is_everyones_own(home: Tiny, browser: Browser) -> None:
    home.publish_active(BATCH)
    browser.log_in("admin")
    page = browser.reads()
    assert "The list everyone shares Open the worklist 8 items for everyone; whatever nobody works on" in page
    assert "Worklists" not in page, "there is no other"


def test_an_administrator_sees_everyones_list(home: Tiny, browser: Browser) -> None:
    home.publish_active(TWO)
    correct(home, home.held(BOB.email)[:2], OTHER_EXPERT)
    browser.log_in("service")
    page = browser.reads()
    assert f"Ada default · {ADA.email} 3 items held until" in page
    assert "1 item held until" in page
    assert "Done today 2, in all 2." in page
    assert "Done today 0, in all 0." in page


def test_what_was_done_on_other_days_is_counted_apart(home: Tiny, browser: Browser) -> None:
    home.publish_active(TWO)
    correct(home, home.held(ADA.email))
    with home.store._file.transaction() as db:
        yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
        db.execute("UPDATE corrections SET annotated_at = ? WHERE id = 1", [yesterday])
    browser.log_in("expert")
    page = browser.reads()
    assert "Done today 2, in all 3." in page
    assert "Nothing waits now. New items come by themselves" in page
    assert "Open my worklist" not in page


def test_what_nobody_handed_out_is_nobodys_work(home: Tiny, browser: Browser) -> None:
    """Reference masks come in as corrections, too."""
    home.publish_active(TWO)
    given = set(home.held())
    correct(home, [item for item in home.items() if item not in given][:2])
    browser.log_in("expert")
    assert "Done today 0, in all 0." in browser.reads()


def test_before_the_first_ranking_a_list_is_on_its_way(home: Tiny, browser: Browser) -> None:
    browser.log_in("expert")
    page = browser.reads()
    assert "The first list is being made." in page
    assert "Open" not in page


def test_a_queue_whose_items_are_all_done_says_so(home: Tiny, browser: Browser) -> None:
    home.publish_active(replace(TWO, experts=(ADA,)))
    correct(home, home.items())
    browser.log_in("expert")
    assert "Nothing is left to correct in this queue." in browser.reads()


# --- the state of the loop ---


def test_before_the_first_import_there_is_a_hint(home: Tiny, browser: Browser) -> None:
    with home.store._file.transaction() as db:
        db.execute("UPDATE assays SET active_version = NULL")
    browser.log_in("admin")
    page = browser.reads()
    assert (
        "The state cannot be shown. assay 'tiny' has no active version yet; expected an import first" in page
    )


def test_a_home_without_a_plate_says_how_one_comes_in(home: Tiny, app: Flask, browser: Browser) -> None:
    with home.store._file.transaction() as db:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute("DELETE FROM assays")
    browser.log_in("admin")
    assert "No plate was imported. cytoloop import FOLDER --assay NAME" in browser.reads()


def test_corrections_count_from_the_begin_of_the_last_cycle(home: Tiny) -> None:
    correct(home, home.items()[:2], seconds=90)
    assert (state(home).corrected, state(home).minutes, state(home).new) == (2, 3.0, 2)
    ended(home)
    correct(home, home.items()[2:3])
    assert (state(home).corrected, state(home).new) == (3, 1)
    ended(home, "abandoned")
    assert state(home).new == 1, "a cycle that was cut off used nothing up"
    ended(home, "failed")
    assert state(home).new == 0


def test_every_trigger_says_how_far_it_is(home: Tiny) -> None:
    correct(home, home.items()[:3], seconds=120)
    triggers = Triggers(corrections=4, minutes=60, agreement_fall=0.05)
    first, second, third = state(home, triggers).triggers
    assert (first.words, first.share) == ("3 of 4 corrections", 0.75)
    assert (second.words, second.share) == ("6 of 60 minutes of expert work", 0.1)
    assert third.words.endswith("(agreement down by 0.05)")
    ended(home)
    first, second, _ = state(home, triggers).triggers
    assert (first.words, first.share) == ("0 of 4 corrections since the last cycle", 0.0)
    assert second.words == "0 of 60 minutes of expert work since the last cycle"


def test_the_schedule_is_told_as_a_day_and_an_hour(home: Tiny) -> None:
    triggers = Triggers(corrections=None, cron="0 3 * * 6")
    (only,) = state(home, triggers).triggers
    assert only.words == "by schedule: at once, since there was no cycle yet"
    cycle_id = ended(home)
    when = NOW.replace(hour=12) - timedelta(days=(NOW.weekday() + 1) % 7)
    with home.store._file.transaction() as db:
        db["cycles"].update(cycle_id, {"started_at": when.astimezone(UTC).isoformat()})
    # the fields of a crontab count from Monday here: 6 is Sunday
    told = loop_of(home.store, home.name, triggers, when + timedelta(days=1)).triggers[0].words
    assert told == "by schedule: Sunday 03:00"
    told = loop_of(home.store, home.name, triggers, when + timedelta(days=7)).triggers[0].words
    assert told == "by schedule: now"


def test_without_a_trigger_somebody_has_to_ask(home: Tiny, browser: Browser) -> None:
    with (home.home / "assays" / "tiny.yaml").open("a") as file:
        file.write("trainer: {triggers: {corrections: null}}\n")
    browser.log_in("expert")
    assert "Next training cycle only when somebody asks for one" in browser.reads()


def test_what_waits_in_the_inbox_is_told(home: Tiny, browser: Browser) -> None:
    home.correct(home.items()[0])
    browser.log_in("expert")
    assert "1 message from Label Studio waits to be read" in browser.reads()
    home.intake.drain()
    assert "to be read" not in browser.reads()


def test_a_cycle_that_runs_is_followed_without_a_script(home: Tiny, browser: Browser) -> None:
    browser.log_in("expert")
    assert "http-equiv" not in browser.get()
    running(home, "train joint: epoch 2/9, loss 0.120", 0.4)
    page = browser.get()
    assert '<meta http-equiv="refresh" content="10">' in page
    assert '<progress value="0.4" max="1">' in page
    told = "Training learns (joint, epoch 2/9, loss 0.120), 40 % asked for by root: 21 corrections"
    assert told in browser.reads()


@pytest.mark.parametrize(
    ("asked_by", "told"),
    [
        ("schedule", "began by itself"),
        ("retry", "began again after an interruption"),
        ("eve", "asked for by eve"),
    ],
)
def test_who_asked_for_a_cycle_is_told(home: Tiny, asked_by: str, told: str) -> None:
    running(home, asked_by=asked_by)
    assert state(home).running[0].asked == f"{told}: 21 corrections since the last cycle"


def test_a_cycle_that_waits_says_what_it_is_for(home: Tiny) -> None:
    home.add_version(CDL)
    home.store.cycles.ask(home.name, "root", kind="promote", target=CDL)
    (waiting,) = state(home).running
    assert waiting.title == f"Bringing a chosen version into use: {CDL}"
    assert waiting.step == "waits for the trainer"
    assert waiting.is_queued


@pytest.mark.parametrize(
    ("outcome", "told", "is_good", "is_bad"),
    [
        ("promoted", "A better model came into use", True, False),
        ("kept", "The model in use stayed", False, False),
        ("failed", "It failed; the model in use stayed", False, True),
    ],
)
def test_the_last_decision_is_one_sentence(
    home: Tiny, outcome: str, told: str, is_good: bool, is_bad: bool
) -> None:
    assert state(home).decision is None
    ended(home, "kept", "first")
    ended(home, outcome, "no gain to speak of")
    decision = state(home).decision
    assert decision is not None
    assert (decision.title, decision.reason) == (told, "No gain to speak of.")
    assert (decision.is_good, decision.is_bad) == (is_good, is_bad)


def test_since_when_a_version_is_in_use(home: Tiny) -> None:
    made = home.store.models.active(home.name).created_at
    assert state(home).since == made
    ended(home, "kept")
    assert state(home).since == made
    home.store.publications.advance(
        home.store.publications.begin(home.name, home.active(), "cdl-20260101-0123abcd", []), "done"
    )
    assert state(home).since == home.store.publications.since(home.name, home.active()) > made


def test_the_wells_that_a_contest_lacked_are_told(home: Tiny, browser: Browser) -> None:
    def contest(document: dict[str, Any]) -> str | None:
        home.store.models.add_contest(home.name, None, CDL, home.active(), False, "kept", document)
        return state(home).lacking

    assert state(home).lacking is None
    told = contest({"lacking": {"groups": 3, "classes": {"Nucleus": 1}}})
    assert told == "3 more contest wells with a correction and 1 more contest well that show Nucleus"
    browser.log_in("expert")
    assert f"The last contest could not decide: {told} are needed." in browser.reads()
    assert contest({"lacking": {"groups": 0, "classes": {}}}) is None
    assert contest({"promote": False}) is None, "as older versions wrote it"


def test_doubts_are_for_those_who_can_mend_them(home: Tiny, browser: Browser) -> None:
    for number in range(22):
        home.store.corrections.add_doubt(home.name, "webhook", f"task {number}", "no such label")
    home.store.corrections.add_doubt("other", "webhook", "task 9", "of another assay")
    browser.log_in("admin")
    page = browser.reads()
    assert "22 things could not be stored, and a person should look task 21: no such label" in page
    assert "These are the latest 20." in page
    assert "task 2:" in page
    assert "task 1:" not in page
    assert "of another assay" not in page
    other = browser.another()
    other.log_in("expert")
    assert "could not be stored" not in other.reads()


# --- buttons ---


def test_train_now_asks_for_a_cycle(home: Tiny, browser: Browser) -> None:
    browser.log_in("service")
    page = browser.does("/cycles", {"assay": "tiny"})
    assert "A training of tiny is asked for" in page
    assert "Training waits for the trainer asked for by robot" in page
    (row,) = home.store.cycles.queued()
    assert (row["kind"], row["asked_by"]) == ("train", "robot")
    assert "is asked for" not in browser.reads(), "said once"


def test_a_cycle_that_waits_is_called_off_at_once(home: Tiny, browser: Browser) -> None:
    cycle_id = home.store.cycles.ask(home.name, "schedule")
    browser.log_in("admin")
    page = browser.does(f"/cycles/{cycle_id}/cancel")
    assert f"Cycle {cycle_id} is called off." in page
    assert home.store.cycles.get(cycle_id)["reason"] == "cancelled by root before it began"


def test_a_cycle_that_runs_is_called_off_at_its_next_step(home: Tiny, browser: Browser) -> None:
    cycle_id = running(home)
    browser.log_in("admin")
    assert f"/cycles/{cycle_id}/cancel" in browser.get()
    page = browser.does(f"/cycles/{cycle_id}/cancel")
    assert f"Cycle {cycle_id} ends at its next step." in page
    assert "root called it off; it ends at its next step." in page
    assert f"/cycles/{cycle_id}/cancel" not in browser.get(), "once is enough"


def test_a_cycle_that_is_over_cannot_be_called_off(home: Tiny, browser: Browser) -> None:
    cycle_id = ended(home)
    browser.log_in("admin")
    answer = browser.send(f"/cycles/{cycle_id}/cancel")
    assert answer.status_code == 409
    assert f"cycle {cycle_id} is done; only a queued or running one can be cancelled" in answer.text
    assert browser.send("/cycles/x/cancel").status_code == 404


def test_a_version_is_chosen_by_hand(home: Tiny, browser: Browser) -> None:
    home.add_version(CDL)
    browser.log_in("admin")
    assert f'action="/models/{CDL}/promote"' in browser.get()
    page = browser.does(f"/models/{CDL}/promote")
    assert f"{CDL} is to come into use" in page
    (row,) = home.store.cycles.queued()
    assert (row["kind"], row["target"], row["asked_by"]) == ("promote", CDL, "root")


def test_the_version_in_use_offers_no_button(home: Tiny, browser: Browser) -> None:
    browser.log_in("admin")
    assert "/promote" not in browser.get()
    answer = browser.send(f"/models/{home.active()}/promote")
    assert answer.status_code == 409
    assert "is in force already" in answer.text


def test_going_back_leads_to_what_was_seen(home: Tiny, browser: Browser) -> None:
    home.publish_active()
    cip = home.active()
    browser.log_in("admin")
    assert "Go back" not in browser.get()
    assert browser.send("/models/rollback", {"assay": "tiny", "version": cip}).status_code == 409
    publish(home.studio, home.store, home.assay, home.add_version(CDL))
    assert f"In use before the present one: {cip}" in browser.reads()
    stale = browser.send("/models/rollback", {"assay": "tiny", "version": "cip-of-yesterday"})
    assert stale.status_code == 409
    assert f"going back leads to {cip} by now, not to cip-of-yesterday; look again" in stale.text.replace(
        "&#39;", "'"
    )
    assert home.store.cycles.queued() == []
    assert f"Going back to {cip} is asked for" in browser.does(
        "/models/rollback", {"assay": "tiny", "version": cip}
    )
    (row,) = home.store.cycles.queued()
    assert (row["kind"], row["target"]) == ("rollback", cip)


@pytest.mark.parametrize(
    ("role", "allowed"),
    [("expert", set()), ("service", {"/cycles", "/cycles/{cycle}/cancel"})],
)
def test_a_role_does_what_it_may(home: Tiny, browser: Browser, role: Any, allowed: set[str]) -> None:
    home.publish_active()
    cip = home.active()
    publish(home.studio, home.store, home.assay, home.add_version(CDL))
    cycle_id = running(home)
    browser.log_in(role)
    forms = {
        "/cycles": {"assay": "tiny"},
        "/cycles/{cycle}/cancel": {},
        f"/models/{cip}/promote": {},
        "/models/rollback": {"assay": "tiny"},
        "/queues/tiny/default": {"size": "3"},
    }
    for path, fields in forms.items():
        answer = browser.send(path.format(cycle=cycle_id), fields)
        assert answer.status_code == (303 if path in allowed else 403), path
        if path not in allowed:
            assert "Not for this login" in answer.text
    assert browser.client.get("/queues/default", headers={"Accept": "text/html"}).status_code == 403
    assert home.store.queues.policy(home.name, "default") == BATCH.document()
    assert {row["kind"] for row in home.store.cycles.queued()} <= {"train"}


# --- models, contests, reports ---


def test_models_are_told_newest_first_with_what_became_of_them(home: Tiny, browser: Browser) -> None:
    home.add_version(CDL)
    made = home.store.models.get(CDL)
    joint = replace(
        made,
        version="joint-20260102-0123abcd",
        method="joint",
        status="rejected",
        parent=CDL,
        created_at=made.created_at + timedelta(hours=1),
        metrics={"mean_iou": {"contest": 0.876, "sealed": None}},
    )
    home.store.models.add(joint)
    browser.log_in("service")
    page = browser.reads()
    assert "joint-20260102-0123abcd lost its contest joint: CIP and corrections from " + CDL in page
    assert "0.88 – –" in page
    assert page.index("lost its contest") < page.index(f"{CDL} waits for a contest")
    assert page.index("lost its contest") < page.index(f"{home.active()} in use")


def test_contests_are_told_with_their_reason(home: Tiny, browser: Browser) -> None:
    browser.log_in("admin")
    assert "No model has stood a contest yet." in browser.reads()
    cip = home.active()
    cycle_id = ended(home, report="reports/tiny/1")
    home.store.models.add_contest(home.name, cycle_id, CDL, cip, False, "no gain", {})
    home.store.models.add_contest(home.name, None, CDL, cip, True, "a clear gain", {})
    page = browser.reads()
    assert f"{CDL} did not replace {cip} . No gain. Report" in page
    assert f"{CDL} won against {cip} . A clear gain." in page
    assert page.index("won against") < page.index("did not replace")


def test_reports_are_listed_and_opened_by_the_session(home: Tiny, browser: Browser) -> None:
    folder = home.home / "reports" / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "report.html").write_text("<h1>Cycle one</h1>")
    (folder / "report.json").write_text('{"cycle": "1", "curve": [], "audit": []}')
    without = ended(home, "failed", "no memory left")
    cycle_id = ended(home, "kept", "no gain", report="reports/tiny/1")
    browser.log_in("expert")
    page = browser.get()
    assert f"/reports/{cycle_id}" in page
    assert f"/reports/{without}" not in page
    assert "It failed; the model in use stayed. No memory left." in browser.reads()
    with browser.client.get(f"/reports/{cycle_id}") as answer:
        assert answer.text == "<h1>Cycle one</h1>"
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    assert f"cycle '{without}' has no report" in browser.reads(f"/reports/{without}", 404)


# --- what is shown is never run ---


def test_whatever_people_typed_is_shown_as_text(home: Tiny, browser: Browser) -> None:
    home.publish_active(replace(TWO, experts=(Expert(name=EVIL, email=ADA.email), BOB)))
    item = home.held(ADA.email)[0]
    home.store.corrections.add_doubt(home.name, "webhook", EVIL, EVIL)
    home.store.cycles.ask(home.name, EVIL, EVIL)
    home.store.models.add_contest(
        home.name, None, EVIL, EVIL, False, EVIL, {"lacking": {"classes": {EVIL: 1}}}
    )
    ended_id = ended_with(home, EVIL)
    with home.store.predictions.file.transaction() as db:
        db.execute("UPDATE predictions SET reason = ?", [EVIL])
    rename(home.store, item.image_id, EVIL)
    browser.log_in("admin")
    page = browser.get()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 8
    assert ended_id
    settings = browser.get("/queues/tiny/default")
    assert f"&lt;script&gt;alert(1)&lt;/script&gt; &lt;{ADA.email}&gt;" in settings
    assert "<script" not in settings
    lost = browser.get(f"/{EVIL}", 404)
    assert "<script" not in lost
    wrong = browser.send("/queues/tiny/default", {"size": EVIL, "strategy": EVIL}, on="/queues/tiny/default")
    assert "<script" not in wrong.text
    assert 'value="&lt;script&gt;' in wrong.text


def ended_with(tiny: Tiny, reason: str) -> str:
    cycle_id = tiny.store.cycles.ask(tiny.name, "x", kind="rollback")
    tiny.store.cycles.finish(cycle_id, "failed", reason, reason)
    return cycle_id


def rename(store: Store, image_id: str, new: str) -> None:
    """Call an image otherwise, wherever it is named."""
    with store._file.transaction() as db:
        db.execute("PRAGMA defer_foreign_keys = ON")
        for table in ("images", "items", "leases", "item_roles"):
            db.execute(f"UPDATE {table} SET image_id = ? WHERE image_id = ?", [new, image_id])
        db.execute("UPDATE tabs SET items = '[]'")


# --- a part that cannot be read ---


def test_a_report_that_is_none_hides_only_itself(home: Tiny, browser: Browser) -> None:
    folder = home.home / "reports" / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"cycle": "1", "curve": 3, "audit": []}))
    ended(home, report="reports/tiny/1")
    browser.log_in("admin")
    page = browser.reads()
    assert "The learning curve cannot be shown." in page
    assert "report.json: curve: Input should be a valid array; expected the report of a cycle" in page
    assert "In use conventional image processing" in page
    other = browser.another()
    other.log_in("expert")
    assert "The learning curve cannot be shown. An administrator sees why." in other.reads()


def test_a_policy_of_another_version_hides_only_the_lists(home: Tiny, browser: Browser) -> None:
    home.publish_active()
    home.store.queues.set(home.name, "default", {"colour": "red"})
    browser.log_in("admin")
    page = browser.reads()
    assert "The worklists cannot be shown. queue tiny/default, as applied: key 'colour' is not known" in page
    assert "In use conventional image processing" in page
    settings = browser.reads("/queues/tiny/default")
    assert "key 'colour' is not known" in settings
    assert "What is shown are the defaults." in settings
    browser.send("/queues/tiny/default", DEFAULTS, on="/queues/tiny/default")
    assert home.store.queues.policy(home.name, "default") == QueuePolicy().document()


DEFAULTS = {
    key: "" if value is None else str(value)
    for key, value in QueuePolicy().document().items()
    if not isinstance(value, list)
}
