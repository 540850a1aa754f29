"""The dashboard in a real browser: on a desk and on a phone, with and without JavaScript."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import EXPERT, OTHER_EXPERT
from flask import Flask
from tiny import ADA, BOB, Tiny, make_tiny
from werkzeug.serving import make_server

from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.types import Method, ModelStatus
from labelstudio_config.handout import refill
from labelstudio_config.publish import publish
from ml_backend.access import Role, add_token
from ml_backend.app import create_app

pytestmark = pytest.mark.browser

Open = Callable[..., Any]
TOKENS: dict[Role, str] = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
NAMES: dict[Role, str] = {"expert": ADA.email, "admin": "admin", "service": "nightly"}
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
CDL, JOINT, LATEST = "cdl-20250301-c69b582a", "joint-20250302-91cfd65c", "joint-20250303-5d01be77"


def lived_in(folder: Path) -> Tiny:
    """A home after a week: three cycles, two models that served, a contest that could not decide."""
    tiny = make_tiny(folder, wells=8)
    tiny.listen()
    for role, token in TOKENS.items():
        add_token(tiny.home / "api-tokens", token, NAMES[role], role)
    tiny.publish_active(
        QueuePolicy(strategy="entropy", size=8, experts=(ADA, BOB), contest_readers=1, audit_share=0.125)
    )
    for user, leases in ((EXPERT, 4), (OTHER_EXPERT, 2)):
        for number, item in enumerate(tiny.held(user["email"])[:leases]):
            tiny.correct(item, completed_by=user["id"], lead_time=240.0 + 60 * number)
    tiny.intake.drain()
    first = _train(tiny, 6, "promoted", "mean IoU 0.77 against 0.60 on 10 items of 5 wells, gain +0.17", "up")
    second = _train(
        tiny, 3, "kept", "mean IoU 0.88 against 0.87, gain +0.01 (95 % lower bound −0.02)", "schedule"
    )
    last = _train(
        tiny, 1, "kept", "only 9 contest wells are corrected, 12 are needed (3 more)", "schedule",
        why="21 corrections since the last cycle, 20 were waited for",
    )  # fmt: skip
    for version, method, status, measured in (
        (CDL, "cdl", "rejected", {"validation": 0.74, "contest": 0.70, "sealed": 0.71}),
        (JOINT, "joint", "candidate", {"validation": 0.89, "contest": 0.87, "sealed": 0.86}),
        (LATEST, "joint", "candidate", {"validation": 0.90, "contest": 0.88, "sealed": 0.87}),
    ):
        _add_model(tiny, version, method, status, measured)  # type: ignore[arg-type]
    before = tiny.active()
    publish(tiny.studio, tiny.store, tiny.assay, _painted(tiny, JOINT))
    refill(tiny.studio, tiny.store, tiny.assay)
    reason = "mean IoU 0.77 against 0.60 on 10 items of 5 wells, gain +0.17 (95 % lower bound +0.12)"
    tiny.store.models.add_contest(tiny.name, first, JOINT, before, True, reason, {"lower_bound": 0.12})
    reason = "kept the active model: only 9 contest wells are corrected, 12 are needed (3 more)"
    lacking = {"groups": 3, "classes": {"Nucleus": 2}}
    tiny.store.models.add_contest(tiny.name, last, LATEST, JOINT, False, reason, {"lacking": lacking})
    tiny.store.corrections.add_doubt(tiny.name, "webhook", "task 7", "label 'Vacuole' is not of assay 'tiny'")
    _write_report(tiny, [first, second, last])
    return tiny


def _train(tiny: Tiny, days_ago: int, outcome: str, reason: str, asked_by: str, why: str = "") -> str:
    """A training cycle that ended so many days ago."""
    cycle_id = tiny.store.cycles.ask(tiny.name, asked_by, why)
    tiny.store.cycles.start(cycle_id)
    tiny.store.cycles.finish(cycle_id, "done", outcome, reason, f"reports/{tiny.name}/{cycle_id}")
    at = datetime.now(UTC) - timedelta(days=days_ago)
    with tiny.store._file.transaction() as db:
        db["cycles"].update(
            cycle_id, dict.fromkeys(("created_at", "started_at", "finished_at"), at.isoformat())
        )
    folder = tiny.home / "reports" / tiny.name / cycle_id
    folder.mkdir(parents=True)
    (folder / "report.html").write_text(
        "<!doctype html><title>Cycle</title><h1>The cycle</h1>", encoding="utf-8"
    )
    return cycle_id


def _add_model(
    tiny: Tiny, version: str, method: Method, status: ModelStatus, measured: dict[str, float]
) -> None:
    tiny.add_version("cdl-20250101-00000000")
    made = tiny.store.models.get("cdl-20250101-00000000")
    parent = CDL if method == "joint" else None
    tiny.store.models.add(
        replace(
            made, version=version, method=method, status=status, parent=parent, metrics={"mean_iou": measured}
        )
    )


def _painted(tiny: Tiny, version: str) -> Any:
    painted = tiny.add_version("cdl-20250101-00000000")
    painted.version = version
    return painted


def _write_report(tiny: Tiny, cycles: list[str]) -> None:
    measured = ((0, 0, 0.60, 0.61), (24, 131, 0.77, 0.75), (48, 263, 0.87, 0.86), (72, 340, 0.88, 0.87))
    work = {
        "ranked": [{"minutes": 2.0 + n % 3, "objects_changed": 14 + n} for n in range(12)],
        "audit": [{"minutes": 3.0 + n % 2, "objects_changed": 9 + n} for n in range(6)],
    }
    report = {
        "cycle": cycles[-1],
        "curve": [
            {
                "cycle": cycle,
                "version": JOINT,
                "corrections": corrections,
                "expert_minutes": minutes,
                "contest_mean_iou": contest,
                "sealed_mean_iou": sealed,
            }
            for cycle, (corrections, minutes, contest, sealed) in zip(
                ["start", *cycles], measured, strict=True
            )
        ],
        "audit": [{kind: {"items": len(done), "work": done} for kind, done in work.items()}],
    }
    path = tiny.home / "reports" / tiny.name / cycles[-1] / "report.json"
    path.write_text(json.dumps(report), encoding="utf-8")


@dataclass
class Served:
    """A dashboard that answers, and the home behind it."""

    tiny: Tiny
    url: str


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    tiny = lived_in(tmp_path)
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: tiny.studio)
    app = create_app(tiny.settings, start=False)
    with serving(app) as url:
        yield Served(tiny, url)
    app.extensions["cytoloop"]["store"].close()
    tiny.store.close()


@contextmanager
def serving(app: Flask) -> Iterator[str]:
    """Answer on a free loopback port for the length of a block."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def log_in(page: Any, url: str, role: Role) -> None:
    """By the form, from the first page on."""
    page.goto(url)
    page.fill("#token", TOKENS[role])
    page.click("button:has-text('Log in')")
    page.wait_for_selector("h2:has-text('State of the loop')")


def fits(page: Any) -> bool:
    """Whether nothing of the page lies beyond the right edge; a table may scroll within itself."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("role", ["expert", "admin"])
def test_every_page_fits(served: Served, chromium_page: Open, size: dict[str, int], role: Role) -> None:
    page = chromium_page(viewport=size)
    page.goto(served.url)
    assert fits(page), "the login"
    log_in(page, served.url, role)
    assert fits(page)
    for summary in page.query_selector_all("summary"):
        summary.click()
    assert fits(page), "with everything unfolded"
    page.goto(f"{served.url}/queues/tiny/default")
    assert page.is_visible("#size" if role == "admin" else "text=Not for this login")
    assert fits(page)
    page.goto(f"{served.url}/{'long' * 100}")
    page.wait_for_selector("text=There is no page of that address.")
    assert fits(page)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_what_to_open_next_is_seen_without_scrolling(
    served: Served, chromium_page: Open, size: dict[str, int]
) -> None:
    page = chromium_page(viewport=size)
    log_in(page, served.url, "expert")
    link = page.locator("a.big")
    tab = served.tiny.store.handouts.tab("tiny", "default", ADA.email)
    assert tab is not None
    assert link.inner_text() == "Open my worklist"
    assert link.get_attribute("href") == f"http://127.0.0.1:8080/projects/3/data?tab={tab.view_id}&labeling=1"
    box = link.bounding_box()
    assert box["y"] + box["height"] < size["height"] / 2
    assert box["height"] >= 44, "a thumb hits it"


def test_a_week_is_read_without_javascript(served: Served, chromium_page: Open) -> None:
    page = chromium_page(viewport=DESK, java_script_enabled=False)
    log_in(page, served.url, "admin")
    text = page.inner_text("main")
    for told in (
        "a network that learned from the CIP’s masks and from experts’ corrections (joint)",
        "6 of 20 corrections since the last cycle",
        "3 more contest wells with a correction and 2 more contest wells that show Nucleus are needed",
        "1 thing could not be stored",
        "A minute of work changed",
        f"{LATEST} did not replace {JOINT}.",
    ):
        assert told in text
    assert page.locator("svg.chart circle").count() == 4
    assert (
        page.locator("svg.chart circle").first.evaluate("e => getComputedStyle(e).fill") == "rgb(0, 91, 143)"
    )
    page.click("text=Go back …")
    page.click("button:has-text('Yes, go back')")
    page.wait_for_selector("text=is asked for; the trainer begins within a minute.")
    (row,) = served.tiny.store.cycles.queued()
    assert row["kind"] == "rollback"


def test_a_training_is_asked_for_and_called_off(served: Served, chromium_page: Open) -> None:
    page = chromium_page(viewport=PHONE)
    log_in(page, served.url, "admin")
    page.click("button:has-text('Train now')")
    page.wait_for_selector("text=Training waits for the trainer")
    (row,) = served.tiny.store.cycles.queued()
    served.tiny.store.cycles.start(row["id"])
    served.tiny.store.cycles.step(row["id"], "train joint: epoch 4/9, loss 0.120", 0.4)
    # the page looks again by itself
    page.wait_for_selector("text=learns (joint, epoch 4/9, loss 0.120), 40 %", timeout=30_000)
    page.click("button:has-text('Cancel')")
    page.wait_for_selector("text=admin called it off; it ends at its next step.")
    assert served.tiny.store.cycles.cancelled_by(row["id"]) == "admin"


def test_a_setting_is_changed_by_the_form(served: Served, chromium_page: Open) -> None:
    page = chromium_page(viewport=DESK)
    log_in(page, served.url, "admin")
    page.click("a:has-text('Settings')")
    page.fill("#size", "many")
    page.fill("#experts", f"Ada <{ADA.email}>")
    page.click("button:has-text('Save')")
    told = page.inner_text("[role=alert]")
    assert told == (
        "Nothing was saved: queue 'tiny/default': key 'size': got 'many' (str), "
        "expected a whole number of at least 1 (at most 10000)"
    )
    assert page.input_value("#experts") == f"Ada <{ADA.email}>"
    page.fill("#size", "5")
    page.click("button:has-text('Save')")
    page.wait_for_selector("text=Saved. The next batch of tiny/default is made by it")
    policy = served.tiny.store.queues.policy("tiny", "default")
    assert policy is not None
    assert (policy["size"], [expert["name"] for expert in policy["experts"]]) == (5, ["Ada"])


def test_a_report_opens_and_leads_back(served: Served, chromium_page: Open) -> None:
    page = chromium_page(viewport=DESK)
    blocked: list[str] = []
    page.on("console", lambda said: blocked.append(said.text) if "Content Security" in said.text else None)
    log_in(page, served.url, "expert")
    page.click("section[aria-label=Reports] a:has-text('Report') >> nth=0")
    assert page.inner_text("h1") == "The cycle"
    page.go_back()
    page.click("button:has-text('Log out')")
    page.goto(served.url)
    assert page.is_visible("#token")
    assert blocked == [], "what the pages need is what they allow"
