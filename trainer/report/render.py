"""A cycle report as a page for people (HTML, nothing loaded from elsewhere) and as JSON for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cytoloop.adapters.images import write_atomically
from trainer.report import PAPER_MINUTES, CycleReport, change_rows, class_moves
from trainer.report.comparison import contest_view, earlier_contests, methods_view
from trainer.report.contest import percent_of
from trainer.report.figures import doubt_scale, human_time_figure, learning_curve
from trainer.report.names import METHOD_NAMES, SHORT_NAMES, TASKS, role_of
from trainer.report.overview import advice_of, headline, standing_in_words, why_in_words
from trainer.report.views import (
    box_view,
    calibration_view,
    case_views,
    picture_of,
    plate_views,
    proposal_view,
    ranking_view,
    rating_view,
    split_views,
    training_picture,
)

_DASH = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A number before and after the contest."""

    name: str
    help: str
    before: float | None
    after: float | None


def render_report(report: CycleReport, folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into a folder, made if need be; older ones are replaced.

    Pictures of worst cases are read from where the report says (relative paths: from ``folder``) and
    become part of the page; one that is missing is named on the page and in the log.

    Returns
    -------
    (html_path, json_path)
    """
    folder.mkdir(parents=True, exist_ok=True)
    html_path, json_path = folder / "report.html", folder / "report.json"
    html = report_html(report, folder)
    document = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    # The page last: whoever sees it finds the document beside it.
    write_atomically(json_path, lambda path: path.write_text(document + "\n", encoding="utf-8"))
    write_atomically(html_path, lambda path: path.write_text(html, encoding="utf-8"))
    return html_path, json_path


def environment() -> Environment:
    """Templates of the reports, with what they write numbers and times by."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=number,
        signed=signed,
        duration=duration,
        moment=moment,
        p_value=p_value,
        percent=percent,
        confidence=percent_of,
        seconds=seconds,
        sentence=sentence,
    )
    return made


def report_html(report: CycleReport, folder: Path) -> str:
    """Return the page; ``folder`` is where relative picture paths start."""
    template = environment().get_template("report.html")
    return template.render(
        report=report,
        headline=headline(report),
        why=why_in_words(report),
        standing=standing_in_words(report),
        advice=advice_of(report),
        is_brief=report.failure is not None or report.handover is not None,
        changes=_changes(report),
        curve=picture_of(
            learning_curve(report.curve),
            "Learning curve: mean IoU against the minutes experts have spent; table below",
        ),
        methods_compared=methods_view(report),
        judged=contest_view(report),
        past_contests=earlier_contests(report),
        splits=split_views(report),
        calibration=calibration_view(report),
        rating=rating_view(report),
        boxes=box_view(report),
        plates=plate_views(report),
        change_rows=change_rows(report.corrected),
        moves=class_moves(report.corrected, report.class_names),
        proposals=proposal_view(report),
        ranking=ranking_view(report),
        times=picture_of(
            human_time_figure(report.human_times),
            "Minutes people take per item, beside the paper’s; table below",
        ),
        tasks=TASKS,
        paper_minutes=PAPER_MINUTES,
        runs=[(run, training_picture(run)) for run in report.runs],
        methods=METHOD_NAMES,
        shorts=SHORT_NAMES,
        role=lambda version: role_of(report, version),
        cases=case_views(report, folder),
        doubt_scale=picture_of(
            doubt_scale(), "Colours of the doubt maps: dark blue is sure, yellow is no idea"
        ),
        person_seconds=sum(entry.seconds for entry in report.ledger if entry.who == "person"),
        machine_seconds=sum(entry.seconds for entry in report.ledger if entry.who == "machine"),
    )


def _changes(report: CycleReport) -> list[Change]:
    """The three numbers of the first screen, active against challenger on the contest items."""
    if report.contest is None:
        return []
    contest = report.contest
    by_version = {one.version: one for one in report.scores if one.split == "contest"}
    before, after = by_version.get(contest.active), by_version.get(contest.challenger)
    changes = [
        Change(
            name="Mean IoU",
            help="overlap with the expert’s mask, averaged over classes",
            before=contest.mean_iou_active,
            after=contest.mean_iou_challenger,
        )
    ]
    if before and after:
        changes += [
            Change(
                name="Mean accuracy",
                help="share of each class’s pixels that was found, averaged over classes",
                before=before.mean_accuracy,
                after=after.mean_accuracy,
            ),
            Change(
                name="Mean BF score",
                help="agreement of outlines within a few pixels, averaged over classes and items",
                before=before.mean_bf,
                after=after.mean_bf,
            ),
        ]
    return changes


def number(value: float | None, digits: int = 2) -> str:
    """Write a number, or a dash for what is undefined.

    Examples
    --------
    >>> number(0.5), number(None)
    ('0.50', '–')
    """
    return f"{value:.{digits}f}" if value is not None and isfinite(value) else _DASH


def seconds(value: float) -> str:
    """Write the seconds of one image, which may be few.

    Examples
    --------
    >>> seconds(0.0321), seconds(0.84), seconds(75)
    ('0.03 s', '0.8 s', '1 min 15 s')
    """
    return f"{value:.2f} s" if value < 0.1 else duration(value)


def percent(share: float | None) -> str:
    """Write a share in percent.

    Examples
    --------
    >>> percent(0.123), percent(None)
    ('12 %', '–')
    """
    return f"{share * 100:.0f} %" if share is not None and isfinite(share) else _DASH


def sentence(words: str) -> str:
    """Write words as a sentence.

    Examples
    --------
    >>> sentence("kept the active model: it is better."), sentence("")
    ('Kept the active model: it is better.', '')
    """
    return f"{words[:1].upper()}{words[1:].rstrip('.')}." if words else ""


def p_value(value: float | None) -> str:
    """Write a p value: three digits, or a power of ten below a thousandth.

    Examples
    --------
    >>> p_value(0.0312), p_value(3.2e-9), p_value(None)
    ('0.031', '3e-9', '–')
    """
    if value is None or not isfinite(value):
        return _DASH
    return f"{value:.3f}" if value >= 0.001 or value == 0 else f"{value:.0e}".replace("e-0", "e-")


def signed(value: float | None, digits: int = 2) -> str:
    """Write a difference with its sign.

    Examples
    --------
    >>> signed(0.5), signed(-0.25), signed(None)
    ('+0.50', '−0.25', '–')
    """
    if value is None or not isfinite(value):
        return _DASH
    return f"{value:+.{digits}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    """Write a time span as a person would say it.

    Examples
    --------
    >>> duration(4.2), duration(48), duration(750), duration(5400), duration(None)
    ('4.2 s', '48 s', '12 min 30 s', '1 h 30 min', '–')
    """
    if seconds is None or not isfinite(seconds):
        return _DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        minutes, rest = divmod(whole, 60)
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def moment(when: datetime) -> str:
    """Write a time; in UTC where the zone is known.

    Examples
    --------
    >>> moment(datetime(2025, 3, 1, 9, 5, tzinfo=UTC))
    '1 March 2025, 09:05 UTC'
    """
    zone = ""
    if when.tzinfo is not None:
        when, zone = when.astimezone(UTC), " UTC"
    return f"{when.day} {when:%B %Y, %H:%M}{zone}"
