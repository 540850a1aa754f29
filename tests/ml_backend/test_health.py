"""Is the loop healthy: the probes, and the figures for Prometheus."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from tiny import ADA, BATCH, BOB, Tiny

from cytoloop.domain.errors import LabelStudioUnavailable
from labelstudio_config.publish import publish
from ml_backend import health
from ml_backend.app import create_app
from ml_backend.metrics import OTHER, Metrics

Labels = frozenset[tuple[str, str]]
CYCLE_NAMES = ("queued", "running", "done", "failed")


@pytest.fixture
def web(app: Flask, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr(health, "PROBE_EVERY_S", 0.0)
    monkeypatch.setattr(health, "LOCKED_S", 0.05)
    return app.test_client()


def figures(web: FlaskClient) -> dict[tuple[str, Labels], float]:
    """Every sample of /metrics by name and labels; what is no Prometheus text is an error here."""
    answer = web.get("/metrics")
    assert (answer.status_code, answer.mimetype) == (200, "text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def figure(web: FlaskClient, name: str, **labels: str) -> float:
    return figures(web)[f"cytoloop_{name}", frozenset(labels.items())]


def reasons(web: FlaskClient) -> list[str]:
    answer = web.get("/readyz")
    assert answer.status_code == 503, answer.text
    assert answer.get_json()["status"] == "not ready"
    told: list[str] = answer.get_json()["reasons"]
    return told


# --- probes ---


def test_a_home_before_its_first_import_is_alive_and_not_ready(
    tmp_path: Path, home: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: home.studio)
    app = create_app(replace(home.settings, home=tmp_path / "empty"), start=False)
    web = app.test_client()
    assert web.get("/livez").get_json() == {"status": "alive"}
    assert reasons(web) == ["no assay has a version in force; expected an import first (`cytoloop import`)"]
    assert figure(web, "unreadable", part="assays") == 0
    app.extensions["cytoloop"]["store"].close()


def test_events_that_wait_too_long_are_told(home: Tiny, web: FlaskClient) -> None:
    home.correct(home.items()[0])
    home.correct(home.items()[1])
    ready = web.get("/readyz")
    assert (ready.status_code, ready.get_json()["inbox_waiting"]) == (200, 2)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=119), tick=False):
        assert web.get("/readyz").status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=300), tick=False):
        (told,) = reasons(web)
        assert told.startswith("2 event(s) of Label Studio wait to be applied, the oldest for 30")
        home.intake.drain()
        assert web.get("/readyz").status_code == 200


def test_a_database_that_is_locked_is_told_and_soon(home: Tiny, web: FlaskClient) -> None:
    other = sqlite3.connect(home.home / "cytoloop.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert reasons(web) == ["cytoloop.sqlite3 cannot be written: database is locked"]
    other.execute("ROLLBACK")
    other.close()
    assert web.get("/readyz").status_code == 200


@pytest.mark.parametrize("name", ["cytoloop.sqlite3", "inbox.sqlite3", "predictions.sqlite3"])
def test_a_database_that_is_gone_is_told_and_not_made_anew(home: Tiny, web: FlaskClient, name: str) -> None:
    path = home.home / name
    moved = path.rename(path.with_suffix(".aside"))
    told = reasons(web)
    assert f"{name} cannot be written: unable to open database file" in told
    assert not path.exists()
    assert str(home.home) not in " ".join(told), "the route is open: it tells no paths"
    moved.rename(path)
    assert web.get("/readyz").status_code == 200


def test_databases_that_cannot_be_read_are_told(
    home: Tiny, web: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged() -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    store = web.application.extensions["cytoloop"]["store"]
    monkeypatch.setattr(store.figures, "waiting", damaged)
    assert reasons(web) == ["the databases cannot be read: database disk image is malformed"]


def test_the_databases_are_not_written_to_at_every_question(
    home: Tiny, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, probes = app.extensions["cytoloop"]["store"], []
    monkeypatch.setattr(store.figures, "unwritable", lambda timeout_s: probes.append(timeout_s) or [])
    web = app.test_client()
    assert [web.get("/readyz").status_code for _ in range(20)] == [200] * 20
    assert len(probes) <= 2


def test_a_probe_changes_nothing(home: Tiny) -> None:
    before = home.store.check(), home.store.figures.of(home.name), home.store.inbox.last()
    assert home.store.figures.unwritable(1.0) == []
    assert (home.store.check(), home.store.figures.of(home.name), home.store.inbox.last()) == before


# --- who may see the metrics ---


@pytest.mark.parametrize(
    ("token", "status"),
    [(None, 401), ("guess", 401), ("ada-token", 403), ("robot-token", 200), ("root-token", 200)],
)
def test_from_elsewhere_metrics_want_a_token(app: Flask, token: str | None, status: int) -> None:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    elsewhere = {"REMOTE_ADDR": "192.168.1.9"}
    answer = app.test_client().get("/metrics", headers=headers, environ_overrides=elsewhere)
    assert answer.status_code == status
    assert ("cytoloop_items" in answer.text) == (status == 200)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "evil.example"}],
)
def test_a_page_or_a_proxy_on_this_machine_is_from_elsewhere(app: Flask, headers: dict[str, str]) -> None:
    assert app.test_client().get("/metrics", headers=headers).status_code == 401
    assert app.test_client().get("/metrics").status_code == 200


# --- figures ---


def test_the_inbox_is_counted(home: Tiny, web: FlaskClient) -> None:
    assert figure(web, "inbox_waiting_events") == 0
    assert figure(web, "inbox_oldest_waiting_seconds") == 0
    home.correct(home.items()[0])
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=60), tick=False):
        home.correct(home.items()[1])
        assert figure(web, "inbox_waiting_events") == 2
        assert figure(web, "inbox_oldest_waiting_seconds") == pytest.approx(60, abs=5)
    home.intake.drain()
    assert figure(web, "inbox_waiting_events") == 0


def test_the_lag_of_the_reconciliation_counts_from_the_last_look_that_succeeded(
    home: Tiny, web: FlaskClient
) -> None:
    lag = ("cytoloop_reconciliation_lag_seconds", frozenset({("assay", "tiny")}))
    assert lag not in figures(web), "nobody has looked yet"
    home.intake.reconcile(home.assay)
    assert figures(web)[lag] == pytest.approx(0, abs=5)
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=600), tick=False):
        home.studio.is_down = True
        with pytest.raises(LabelStudioUnavailable):
            home.intake.reconcile(home.assay)
        assert figures(web)[lag] == pytest.approx(600, abs=5)
        home.studio.is_down = False
        home.intake.reconcile(home.assay)
        assert figures(web)[lag] == pytest.approx(0, abs=5)


def test_what_experts_did_is_counted(home: Tiny, web: FlaskClient) -> None:
    home.publish_active(replace(BATCH, size=8))
    first, second, third = home.held()[:3]
    assert figure(web, "queue_depth", assay="tiny", queue="default") == 8
    before = figure(web, "items_open", assay="tiny")
    assert before == 16 - 8
    home.correct(first, lead_time=90)
    number = home.correct(second, lead_time=30)
    home.correct(third, was_cancelled=True)
    home.studio.update(number, result=home.regions(second))
    home.intake.drain()
    assert figure(web, "items", assay="tiny") == 16
    assert figure(web, "items_corrected", assay="tiny") == 2
    assert figure(web, "expert_minutes", assay="tiny") == 2.0
    assert figure(web, "corrections_total", assay="tiny", kind="submitted") == 3
    assert figure(web, "corrections_total", assay="tiny", kind="skipped") == 1
    assert figure(web, "queue_depth", assay="tiny", queue="default") == 5
    assert figure(web, "leases", assay="tiny", queue="default", state="done") == 2
    assert figure(web, "leases", assay="tiny", queue="default", state="skipped") == 1
    assert figure(web, "items_open", assay="tiny") == before
    home.studio.delete_annotation(number)
    home.intake.drain()
    assert figure(web, "items_corrected", assay="tiny") == 1
    assert figure(web, "expert_minutes", assay="tiny") == 1.5
    assert figure(web, "corrections_total", assay="tiny", kind="deleted") == 1
    assert figure(web, "items_open", assay="tiny") == before + 1, "it can be handed out again"


def test_the_figures_agree_with_the_store(home: Tiny, web: FlaskClient) -> None:
    home.publish_active(replace(BATCH, experts=(ADA, BOB), size=4, contest_readers=2))
    for item in home.held()[:3]:
        home.correct(item, lead_time=60)
    home.intake.drain()
    store, counted = home.store, home.store.figures.of(home.name)
    standing = store.corrections.standing(home.name)
    assert counted.corrected == len(standing)
    assert counted.minutes == sum(one.lead_time_s or 0 for one in standing.values()) / 60
    assert sum(counted.leases.values()) == len(
        [x for i in home.items() for x in store.leases.of_item("tiny", i)]
    )
    assert counted.open_items == len(home.items()) - len(store.worklist.closed(home.name, home.items()))


def test_versions_predictions_and_cycles_are_told(home: Tiny, web: FlaskClient) -> None:
    cip = home.active()
    assert figure(web, "active_model_info", assay="tiny", version=cip, method="cip") == 1
    assert figure(web, "predictions_missing", assay="tiny") == 16 - home.store.predictions.count("tiny", cip)
    publish(home.studio, home.store, home.assay, home.add_version("cdl-20260101-0123abcd"))
    told = [dict(labels) for name, labels in figures(web) if name == "cytoloop_active_model_info"]
    assert told == [{"assay": "tiny", "version": "cdl-20260101-0123abcd", "method": "cdl"}]
    home.store.predictions.forget("tiny", "cdl-20260101-0123abcd")
    assert figure(web, "predictions_missing", assay="tiny") == 16
    home.store.cycles.ask("tiny", "test")
    assert [figure(web, "cycles", assay="tiny", state=state) for state in CYCLE_NAMES] == [1, 0, 0, 0]
    home.store.corrections.add_doubt(None, "webhook", "event 1", "not JSON")
    home.store.corrections.add_doubt("tiny", "reconcile", "annotation 1", "mask")
    home.store.corrections.add_doubt("tiny", "reconcile", "annotation 2", "mask")
    assert figure(web, "doubts_open", assay="unknown", source="webhook") == 1
    assert figure(web, "doubts_open", assay="tiny", source="reconcile") == 2


def test_requests_are_counted_by_route_and_not_by_address(web: FlaskClient) -> None:
    for path in ("/api/v1/cycles/a", "/api/v1/cycles/b", "/made-up/1", "/made-up/2"):
        web.get(path, headers={"Authorization": "Bearer root-token"})
    web.open("/livez", method="BREW")
    rule = "/api/v1/cycles/<cycle>"
    assert figure(web, "http_requests_total", route=rule, method="GET", status="404") == 2
    assert figure(web, "http_requests_total", route=OTHER, method="GET", status="404") == 2
    assert figure(web, "http_requests_total", route=OTHER, method=OTHER, status="405") == 1
    assert figure(web, "http_request_seconds_count", route=rule, method="GET", status="404") == 2
    assert 0 < figure(web, "http_request_seconds_sum", route=rule, method="GET", status="404") < 10


def test_what_cannot_be_read_is_named_and_the_rest_is_told(
    home: Tiny, web: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(assay: str) -> None:
        raise sqlite3.DatabaseError("database disk image is malformed")

    assert figure(web, "unreadable", part="assays") == 0
    monkeypatch.setattr(web.application.extensions["cytoloop"]["store"].figures, "of", damaged)
    assert figure(web, "unreadable", part="assays") == 1
    assert figure(web, "unreadable", part="inbox") == 0
    assert figure(web, "inbox_waiting_events") == 0


def test_two_processes_in_one_have_figures_of_their_own(home: Tiny) -> None:
    load: Callable[[str], object] = lambda name: home.assay  # noqa: E731
    first, second = (Metrics(home.store, load) for _ in range(2))  # type: ignore[arg-type]
    assert first.text().count(b"# HELP") == second.text().count(b"# HELP") > 10
