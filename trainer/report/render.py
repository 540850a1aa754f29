"""A cycle report as a page for people (HTML, nothing loaded from elsewhere) and as JSON for programs."""

from __future__ import annotations

import base64
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cytoloop.adapters.images import write_atomically
from cytoloop.domain.types import Split
from trainer.report import CycleReport, TrainingRun, VersionScores
from trainer.report.figures import class_bars, learning_curve, training_curves

logger = logging.getLogger(__name__)

HEADLINES = {
    "promoted": "A better model is now in use",
    "kept": "The model in use stays",
    "not-trained": "Nothing was trained in this cycle",
    "failed": "This cycle failed; the model in use stays",
}
SPLIT_TITLES: dict[Split, str] = {
    "contest": "Contest items: they decide which model is used",
    "sealed": "Sealed items: they decide nothing, so these numbers are the honest ones",
    "validation": "Validation items: they chose the epoch and the challenger, so these numbers flatter",
    "train": "Training items: the models learned from them",
}
METHOD_NAMES = {
    "cip": "CIP (conventional image processing)",
    "cdl": "CDL (learned from weak labels)",
    "mdl": "MDL (learned from corrections)",
    "joint": "Joint (weak labels and corrections)",
}
SHORT_NAMES = {"cip": "CIP", "cdl": "CDL", "mdl": "MDL", "joint": "Joint"}
_DASH = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture inside the page, and what to say to those who cannot see it."""

    source: str
    """A ``data:`` address."""
    text: str


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


def report_html(report: CycleReport, folder: Path) -> str:
    """Return the page; ``folder`` is where relative picture paths start."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, signed=signed, duration=duration, moment=moment)
    splits = [split for split in SPLIT_TITLES if any(one.split == split for one in report.scores)]
    bars_of = next(iter(splits), None)
    return environment.get_template("report.html").render(
        report=report,
        headline=HEADLINES[report.outcome],
        changes=_changes(report),
        curve=_figure(
            learning_curve(report.curve),
            "Learning curve: mean IoU against the minutes experts have spent; table below",
        ),
        bars=_bars(report, bars_of),
        bars_of=bars_of,
        runs=[(run, _training_figure(run)) for run in report.runs],
        tables=[
            (SPLIT_TITLES[split], [one for one in report.scores if one.split == split]) for split in splits
        ],
        methods=METHOD_NAMES,
        shorts=SHORT_NAMES,
        role=lambda version: _role(report, version),
        cases=[(case, _picture(folder, case.picture, case.image_id)) for case in report.worst_cases],
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


def _role(report: CycleReport, version: str) -> str:
    """What a version was to this cycle, in words; empty for bystanders."""
    roles = []
    if report.contest is not None and version == report.contest.challenger:
        roles.append("challenger")
    if version == report.active_after:
        roles.append("in use now")
    elif version == report.active_before:
        roles.append("in use before")
    return ", ".join(roles)


def _bars(report: CycleReport, split: Split | None) -> Figure | None:
    shown: list[VersionScores] = [one for one in report.scores if one.split == split]
    labels = []
    for one in shown:
        role = _role(report, one.version)
        labels.append(SHORT_NAMES[one.method] + (f", {role}" if role else ""))
    return _figure(
        class_bars(shown, labels), "IoU of each class for each version; the same numbers are in the tables"
    )


def _training_figure(run: TrainingRun) -> Figure | None:
    return _figure(training_curves(run), f"Loss and validation of {run.version} by epoch")


def _figure(svg: str | None, text: str) -> Figure | None:
    if svg is None:
        return None
    return Figure(source=_data_address(svg.encode("utf-8"), "image/svg+xml"), text=text)


def _picture(folder: Path, picture: str, image_id: str) -> Figure | None:
    path = folder / picture  # an absolute path wins over the folder
    try:
        content = path.read_bytes()
    except OSError as error:
        logger.warning("report picture unreadable path=%s error=%s", path, error.strerror)
        return None
    return Figure(
        source=_data_address(content, "image/png"),
        text=f"Item of image {image_id}: as imaged, with the model’s outlines, with the expert’s outlines",
    )


def _data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def number(value: float | None, digits: int = 2) -> str:
    """Write a number, or a dash for what is undefined.

    Examples
    --------
    >>> number(0.5), number(None)
    ('0.50', '–')
    """
    return f"{value:.{digits}f}" if value is not None and isfinite(value) else _DASH


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
