"""The learning curve of the latest report: what is read, what it says, how it is drawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tiny import Tiny

from cytoloop.domain.errors import InputError
from ml_backend.dashboard.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart_of
from ml_backend.dashboard.curve import CurvePoint, Learning, learning_of
from trainer.report import AuditPoint, CycleReport, ItemWork, ProposalAgreement
from trainer.report import CurvePoint as ReportedPoint

if TYPE_CHECKING:
    from conftest import Browser


def point(minutes: float, contest: float | None, sealed: float | None = None, cycle: str = "c") -> CurvePoint:
    return CurvePoint(
        cycle=cycle,
        version="v",
        corrections=3,
        expert_minutes=minutes,
        contest_mean_iou=contest,
        sealed_mean_iou=sealed,
    )


def report(home: Path, cycle: str, document: object) -> dict[str, Any]:
    """A cycle whose report is this document."""
    folder = home / "reports" / cycle
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(document), encoding="utf-8")
    return {"id": cycle, "report": f"reports/{cycle}"}


def learning(home: Path, ranked: list[Any], audit: list[Any]) -> Learning:
    """Of a report with this work: (minutes, objects changed)."""
    kinds = {
        kind: {"work": [{"minutes": minutes, "objects_changed": objects} for minutes, objects in work]}
        for kind, work in (("ranked", ranked), ("audit", audit))
    }
    found = learning_of(home, [report(home, "c", {"cycle": "c", "curve": [], "audit": [kinds]})])
    assert found is not None
    return found


# --- what is read ---


def test_what_the_trainer_writes_is_what_is_read(tmp_path: Path) -> None:
    """The two processes share no code here, only the document."""
    kind = ProposalAgreement(
        items=2,
        mean_iou=0.5,
        minutes=3.0,
        objects_changed=4.0,
        objects_per_minute=2.0,
        work=(ItemWork(minutes=2.0, objects_changed=4), ItemWork(minutes=None, objects_changed=6)),
    )
    written = CycleReport(
        cycle="c1",
        assay="tiny",
        started_at=datetime(2025, 3, 1, 10, tzinfo=UTC),
        finished_at=datetime(2025, 3, 1, 11, tzinfo=UTC),
        outcome="kept",
        reason="no gain",
        active_before="cip-1",
        active_after="cip-1",
        curve=(
            ReportedPoint(
                cycle="start", version="cip-1", corrections=0, expert_minutes=0.0, contest_mean_iou=0.6
            ),
        ),
        audit=(AuditPoint(cycle="c1", expert_minutes=9.0, ranked=kind, audit=kind),),
    ).to_dict()
    found = learning_of(tmp_path, [report(tmp_path, "c1", written)])
    assert found is not None
    assert found.cycle == "c1"
    assert found.points == (
        CurvePoint(cycle="start", version="cip-1", corrections=0, expert_minutes=0.0, contest_mean_iou=0.6),
    )
    assert (found.ranked.items, found.ranked.minutes, found.ranked.objects_changed) == (2, 2.0, 5.0)
    assert found.audit.objects_per_minute == 2.0, "of the one whose time is known"


def test_the_latest_report_that_is_there_counts(tmp_path: Path) -> None:
    empty = {"curve": [], "audit": []}
    cycles = [report(tmp_path, name, {"cycle": name, **empty}) for name in ("old", "new")]
    cycles += [{"id": "lost", "report": "reports/lost"}, {"id": "failed", "report": None}]
    found = learning_of(tmp_path, cycles)
    assert found is not None
    assert found.cycle == "new"
    assert learning_of(tmp_path, cycles[2:]) is None


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "document: Input should be an object"),
        ({"cycle": "c", "audit": []}, "curve: Field required"),
        ({"cycle": "c", "curve": [{"cycle": "c"}], "audit": []}, "curve.0.version: Field required"),
    ],
)
def test_a_report_that_is_none_is_named(tmp_path: Path, document: object, told: str) -> None:
    with pytest.raises(InputError, match=r"c/report\.json: ") as caught:
        learning_of(tmp_path, [report(tmp_path, "c", document)])
    assert told in str(caught.value)
    assert str(caught.value).endswith("; expected the report of a cycle")


# --- what the ranking is worth ---


def test_the_ranking_is_compared_with_chance_by_the_minute(tmp_path: Path) -> None:
    found = learning(tmp_path, [(2.0, 8)] * 5, [(4.0, 6)] * 5)
    assert (found.ranked.objects_per_minute, found.audit.objects_per_minute) == (4.0, 1.5)
    assert found.verdict == (
        "A minute of work changed 4.0 objects of an item the ranking chose, and 1.5 of one drawn at random."
    )


def test_few_items_tell_nothing(tmp_path: Path) -> None:
    found = learning(tmp_path, [(2.0, 8)] * 5, [(4.0, 6)] * 4)
    assert found.verdict == (
        "Too early to tell what the ranking is worth: 5 ranked items and 4 drawn at random are corrected, "
        "5 of each are needed."
    )


def test_without_times_nothing_is_told(tmp_path: Path) -> None:
    found = learning(tmp_path, [(None, 8)] * 5, [(0.0, 6)] * 5)
    assert (found.ranked.minutes, found.audit.minutes) == (None, 0.0)
    assert found.verdict == "What the ranking is worth cannot be told: the editor recorded no times."


# --- how it is drawn ---


def test_the_curve_lies_within_its_frame() -> None:
    chart = chart_of([point(0, 0.6, 0.55), point(200, 0.9, None), point(400, 1.0, 0.8)])
    assert chart is not None
    contest, sealed = chart.lines
    assert [(dot.x, round(dot.y)) for dot in contest.dots] == [
        (LEFT, round(TOP + (HEIGHT - TOP - BOTTOM) * 0.8)),  # 0.6 between 0.5 and 1
        ((LEFT + WIDTH - RIGHT) / 2, round(TOP + (HEIGHT - TOP - BOTTOM) * 0.2)),
        (WIDTH - RIGHT, TOP),
    ]
    assert len(sealed.dots) == 2, "what was not measured is no point"
    assert contest.dots[1].words == "0.900 on contest wells after 200 minutes and 3 corrections, v"
    assert [tick.label for tick in chart.x_ticks] == ["0", "100", "200", "300", "400"]
    assert [tick.label for tick in chart.y_ticks] == ["0.5", "0.6", "0.7", "0.8", "0.9", "1.0"]


def test_a_curve_of_one_point_has_axes() -> None:
    chart = chart_of([point(0, 0.02)])
    assert chart is not None
    (only,) = chart.lines
    assert (only.kind, len(only.dots)) == ("contest", 1)
    assert only.path.count(",") == 1
    assert chart.x_ticks[0].label == "0"
    assert chart.x_ticks[-1].label == "1"
    assert chart.y_ticks[0].label == "0.0"


def test_what_was_never_measured_is_no_curve() -> None:
    assert chart_of([]) is None
    assert chart_of([point(10, None, None)]) is None


# --- on the page ---


def test_the_page_shows_curve_table_and_baseline(home: Tiny, browser: Browser) -> None:
    browser.log_in("expert")
    assert "The curve begins with the first report" in browser.reads()
    cycle_id = home.store.cycles.ask(home.name, "x")
    home.store.cycles.finish(cycle_id, "done", "kept", "no gain", f"reports/{cycle_id}")
    points = [("start", 0.6, 0.0), (cycle_id, 0.77, 131.4)]
    curve = [
        {
            "cycle": cycle,
            "version": "v",
            "corrections": 24,
            "expert_minutes": minutes,
            "contest_mean_iou": iou,
        }
        for cycle, iou, minutes in points
    ]
    work = {"work": [{"minutes": 2.0, "objects_changed": 8}] * 6}
    report(
        home.home, cycle_id, {"cycle": cycle_id, "curve": curve, "audit": [{"ranked": work, "audit": work}]}
    )
    page = browser.get()
    assert page.count("<circle") == 2
    assert "<title>0.770 on contest wells after 131 minutes and 24 corrections, v</title>" in page
    read = browser.reads()
    assert "before any 0.60 – 0 24" in read
    assert "0.77 – 131 24" in read
    assert "by the ranking 6 2.0 8.0 4.0 at random 6 2.0 8.0 4.0" in read
