"""All reports on one page: ``reports/index.html`` of a home, and one an assay beside its reports.

Links are relative: the folder can be copied, or served from anywhere.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cytoloop.adapters.images import write_atomically
from cytoloop.adapters.store import Store
from cytoloop.domain.errors import InputError
from trainer.report import CurvePoint, CycleReport
from trainer.report.figures import learning_curve
from trainer.report.overview import BRIEF
from trainer.report.render import environment
from trainer.report.views import Picture, picture_of

logger = logging.getLogger(__name__)

NEWEST = 50
"""Reports on the page of the home; the assays' own pages list all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One report."""

    assay: str
    cycle: str
    ended_at: datetime
    outcome: str
    reason: str
    version: str | None
    """In use after the cycle; None where no report is left that knows."""
    corrections: int | None
    """So far, as at the last measurement up to then."""
    expert_minutes: float | None
    """Likewise."""
    contest_mean_iou: float | None
    sealed_mean_iou: float | None
    page: str
    """Address, relative to the ``reports`` folder."""

    @property
    def words(self) -> str:
        """The outcome, for a table."""
        return BRIEF.get(self.outcome, self.outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class AssayIndex:
    """The reports of one assay, newest first; ``curve`` as in the latest."""

    assay: str
    entries: tuple[IndexEntry, ...]
    curve: tuple[CurvePoint, ...]
    active: str
    """In use now."""

    @property
    def picture(self) -> Picture | None:
        """What the experts' time has bought."""
        return picture_of(
            learning_curve(self.curve), f"Learning curve of {self.assay}: mean IoU against expert minutes"
        )


def write_index(store: Store) -> Path:
    """Write the index of every assay and of the home, anew and in one piece each; returns the home's page.

    Call it when a cycle's row is closed: what is listed are cycles that ended and whose report is there.
    """
    folder = store.home / "reports"
    indexes = [_index_of(store, name) for name in store.assays.names()]
    for one in indexes:
        _write(folder / one.assay, [one], one.entries, one.assay)
    together = sorted((e for one in indexes for e in one.entries), key=lambda e: e.ended_at, reverse=True)
    return _write(folder, indexes, together, None)


def _index_of(store: Store, assay: str) -> AssayIndex:
    rows = [
        row
        for row in store.cycles.all(assay)
        if row["report"] and row["finished_at"] and (store.home / row["report"] / "report.html").is_file()
    ]
    rows.sort(key=lambda row: str(row["finished_at"]))
    curve = _latest_curve(store, rows)
    entries, point = [], None
    of_cycle = {one.cycle: one for one in curve}
    for row in rows:
        point = of_cycle.get(row["id"], point)
        entries.append(_entry(row, point))
    return AssayIndex(
        assay=assay,
        entries=tuple(reversed(entries)),
        curve=curve,
        active=store.models.active(assay).version,
    )


def _entry(row: Mapping[str, Any], point: CurvePoint | None) -> IndexEntry:
    folder = Path(row["report"]).relative_to("reports")
    return IndexEntry(
        assay=row["assay"],
        cycle=row["id"],
        ended_at=datetime.fromisoformat(row["finished_at"]),
        outcome=row["outcome"],
        reason=row["reason"],
        version=None if point is None else point.version,
        corrections=None if point is None else point.corrections,
        expert_minutes=None if point is None else point.expert_minutes,
        contest_mean_iou=None if point is None else point.contest_mean_iou,
        sealed_mean_iou=None if point is None else point.sealed_mean_iou,
        page=quote(f"{folder.as_posix()}/report.html"),
    )


def _latest_curve(store: Store, rows: Sequence[Mapping[str, Any]]) -> tuple[CurvePoint, ...]:
    """As the newest report that can be read tells it."""
    for row in reversed(rows):
        path = store.home / row["report"] / "report.json"
        try:
            return CycleReport.from_dict(json.loads(path.read_text(encoding="utf-8"))).curve
        except (OSError, ValueError, InputError) as error:
            logger.warning("report not readable path=%s: %s", path, error)
    return ()


def _write(
    folder: Path, indexes: Sequence[AssayIndex], entries: Sequence[IndexEntry], assay: str | None
) -> Path:
    """``index.json`` and then ``index.html``."""
    up = "" if assay is None else f"{quote(assay)}/"
    template = environment().get_template("index.html")
    html = template.render(
        assay=assay,
        indexes=indexes,
        entries=entries if assay is not None else entries[:NEWEST],
        count=len(entries),
        link=lambda entry: entry.page.removeprefix(up),
        quote=quote,
    )
    document = {
        "reports": [
            {**asdict(one), "ended_at": one.ended_at.isoformat(), "page": one.page.removeprefix(up)}
            for one in entries
        ]
    }
    told = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / "index.json", lambda path: path.write_text(told, encoding="utf-8"))
    page = folder / "index.html"
    write_atomically(page, lambda path: path.write_text(html, encoding="utf-8"))
    return page
