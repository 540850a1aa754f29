"""The page and the document: complete, self-contained, escaped; and the way back from JSON."""

import json
import logging
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics import evaluate
from cytoloop.domain.promotion import ContestItem, ContestPolicy, decide
from trainer.report import (
    Contest,
    CurvePoint,
    CycleReport,
    Epoch,
    ExpertWork,
    LedgerEntry,
    Publication,
    SnapshotSummary,
    TrainingRun,
    VersionScores,
    WorstCase,
)
from trainer.report.figures import case_picture
from trainer.report.render import duration, moment, number, render_report, signed

NAMES = ("background", "spot")
OLD, NEW = "cip-20250101-aaaaaaaa", "joint-20250102-bbbbbbbb"
START = datetime(2025, 1, 2, 19, 0, tzinfo=UTC)


def scores(version: str, method: str, shift: int) -> VersionScores:
    truth = np.zeros((40, 40), np.uint8)
    truth[10:20, 10:20] = 1
    evaluation = evaluate([("a", truth, np.roll(truth, shift, 1))], NAMES)
    return VersionScores.from_evaluation(evaluation, version=version, method=method, split="contest")  # type: ignore[arg-type]


def contest(groups: int = 4) -> Contest:
    good, bad = np.array([[90, 0], [1, 9]]), np.array([[90, 0], [5, 5]])
    items = [
        ContestItem(image_id=str(n), tile=0, group=str(n), confusion_challenger=good, confusion_active=bad)
        for n in range(groups)
    ]
    return Contest.from_decision(decide(items, ContestPolicy(), NAMES), challenger=NEW, active=OLD)


def full_report(picture: str) -> CycleReport:
    judged = contest()
    return CycleReport(
        cycle="2025-01-02-0001",
        assay="rosella",
        started_at=START,
        finished_at=START.replace(minute=42),
        outcome="promoted",
        reason=judged.reason,
        active_before=OLD,
        active_after=NEW,
        work=(
            ExpertWork(expert="anna@lab.example", corrections=4, minutes=30.0),
            ExpertWork(expert="ben@lab.example", corrections=2, minutes=None),
        ),
        snapshot=SnapshotSummary(digest="ab" * 32, corrections=6, weak_labels=40, held_out_items=3),
        runs=(
            TrainingRun(
                version=NEW,
                method="joint",
                preset="fast",
                epochs=(Epoch(epoch=1, loss=0.9), Epoch(epoch=2, loss=0.5, validation_mean_iou=0.6)),
                seconds=61,
            ),
        ),
        scores=(scores(OLD, "cip", 4), scores(NEW, "joint", 1)),
        contest=judged,
        published=Publication(version=NEW, tasks=500, seconds=12.5),
        curve=(
            CurvePoint(cycle="start", version=OLD, corrections=0, expert_minutes=0, contest_mean_iou=0.5),
            CurvePoint(cycle="1", version=NEW, corrections=6, expert_minutes=30, contest_mean_iou=0.8),
        ),
        worst_cases=(WorstCase(image_id="B03_f1", tile=2, version=NEW, mean_iou=0.4, picture=picture),),
        class_colours={"spot": "#ff0000"},
        ledger=(
            LedgerEntry(step="corrections", who="person", seconds=1800),
            LedgerEntry(step="training", who="machine", seconds=61),
        ),
        notes=("A note.",),
    )


def bare_report() -> CycleReport:
    return CycleReport(
        cycle="c",
        assay="nuclei",
        started_at=START,
        finished_at=START,
        outcome="not-trained",
        reason="no new corrections since cycle b.",
        active_before=OLD,
        active_after=OLD,
    )


class Page(HTMLParser):
    """What a browser would fetch, and what it would show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.unnamed_pictures = 0
        self.feed(html)
        self.text = re.sub(r"\s+", " ", " ".join(self.shown))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [given[key] or "" for key in ("src", "href", "srcset", "data") if key in given]
        self.unnamed_pictures += tag == "img" and not given.get("alt")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    mask = np.zeros((20, 30), np.uint8)
    (tmp_path / "case.png").write_bytes(
        case_picture(np.zeros((20, 30, 3), np.uint8), mask, mask, ("#000", "#f00"))
    )
    return "case.png"


def test_the_page_says_what_was_decided_and_loads_nothing(tmp_path: Path, picture: str) -> None:
    html_path, json_path = render_report(full_report(picture), tmp_path)
    assert (html_path, json_path) == (tmp_path / "report.html", tmp_path / "report.json")
    html = html_path.read_text(encoding="utf-8")
    page = Page(html)
    assert "A better model is now in use" in page.text
    assert "Promoted: mean IoU 0.94 against 0.72 on 4 items of 4 wells, gain +0.22" in page.text
    assert "2 January 2025, 19:00 UTC" in page.text
    assert "took 42 min" in page.text
    for told in (
        "anna@lab.example",
        "500 tasks",
        "B03_f1",
        "A note.",
        "challenger, in use now",
        "in use before",
    ):
        assert told in page.text
    assert len(page.addresses) == 4  # learning curve, bars, training, one case
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.unnamed_pictures == 0
    assert "script" not in page.tags
    assert "http://" not in html
    assert "https://" not in html


def test_the_first_screen_comes_before_the_details(tmp_path: Path, picture: str) -> None:
    text = Page(render_report(full_report(picture), tmp_path)[0].read_text(encoding="utf-8")).text
    order = [
        "A better model",
        "Mean IoU",
        "Mean BF score",
        "What the experts’ time",
        "What was new",
        "class by class",
    ]
    places = [text.index(told) for told in order]
    assert places == sorted(places)


def test_json_comes_back_as_the_same_report(tmp_path: Path, picture: str) -> None:
    report = full_report(picture)
    document = json.loads(render_report(report, tmp_path)[1].read_text(encoding="utf-8"))
    assert CycleReport.from_dict(document) == report
    assert document["contest"]["lower_bound"] == pytest.approx(report.contest.lower_bound)  # type: ignore[union-attr]


def test_a_cycle_without_training_has_a_page_too(tmp_path: Path) -> None:
    page = Page(render_report(bare_report(), tmp_path)[0].read_text(encoding="utf-8"))
    assert "Nothing was trained in this cycle" in page.text
    assert "No new corrections since cycle b." in page.text
    assert ".." not in page.text
    assert "No corrections since the last cycle." in page.text
    assert page.addresses == []


def test_a_contest_of_too_few_wells_shows_dashes_not_nan(tmp_path: Path) -> None:
    judged = contest(groups=1)
    report = replace(bare_report(), outcome="kept", reason=judged.reason, contest=judged)
    html_path, json_path = render_report(report, tmp_path)
    text = Page(html_path.read_text(encoding="utf-8")).text
    assert "3 more" in text
    assert "too few wells to say" in text
    assert "nan" not in text.lower().split()
    assert json.loads(json_path.read_text(encoding="utf-8"))["contest"]["lower_bound"] is None


def test_everything_from_outside_is_escaped(tmp_path: Path, picture: str) -> None:
    evil = '"><script>alert(1)</script>'
    report = full_report(picture)
    report = replace(
        report,
        assay=evil,
        reason=evil,
        notes=(evil,),
        work=(ExpertWork(expert=evil, corrections=1, minutes=1),),
        worst_cases=(replace(report.worst_cases[0], image_id=evil),),
        class_colours={evil: evil},
    )
    html = render_report(report, tmp_path)[0].read_text(encoding="utf-8")
    assert "script" not in Page(html).tags
    assert "<script" not in html


def test_a_missing_picture_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        html = render_report(full_report("gone.png"), tmp_path)[0].read_text(encoding="utf-8")
    assert "The picture is missing: gone.png" in Page(html).text
    assert "gone.png" in caplog.text


def test_a_nan_that_slipped_in_becomes_null(tmp_path: Path, picture: str) -> None:
    report = full_report(picture)
    report = replace(report, scores=(replace(report.scores[0], mean_bf=float("nan")), report.scores[1]))
    html_path, json_path = render_report(report, tmp_path)
    assert json.loads(json_path.read_text(encoding="utf-8"))["scores"][0]["mean_bf"] is None
    assert " nan " not in Page(html_path.read_text(encoding="utf-8")).text


def test_a_document_that_is_no_report_is_refused() -> None:
    document = bare_report().to_dict()
    with pytest.raises(InputError, match="cycle report: outcome: "):
        CycleReport.from_dict({**document, "outcome": "perhaps"})


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, "–"),
        (0.25, "0.2 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (5430, "1 h 30 min"),
    ],
)
def test_durations_read_as_a_person_would_say_them(seconds: float | None, told: str) -> None:
    assert duration(seconds) == told


def test_numbers_and_times() -> None:
    assert [number(0.125, 3), number(None), number(float("nan"))] == ["0.125", "–", "–"]
    assert [signed(0.1), signed(-0.1), signed(None)] == ["+0.10", "−0.10", "–"]
    assert moment(datetime(2025, 3, 1, 9, 5)) == "1 March 2025, 09:05"
