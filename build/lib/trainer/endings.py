"""Reports of cycles that came to no decision of their own: failed, called off, or a person decided."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.types import ModelVersion
from cytoloop.pipeline.consensus import agreed
from trainer.bringing import Brought
from trainer.report import (
    CurvePoint,
    CycleReport,
    Failure,
    Handover,
    KnownVersion,
    triggers_in_words,
)
from trainer.report.render import render_report
from trainer.telling import last_report, minutes_of, report_folder

logger = logging.getLogger(__name__)

LOG = "logs/trainer.log"
"""Of the scheduled process, relative to the home."""
_NOBODY: Mapping[str, str] = {
    "cli": "Somebody on the command line",
    "restart": "Somebody",
    "retry": "Somebody",
}
"""Askers without a name, in words."""


def tell_failure(
    store: Store,
    assay: Assay,
    cycle_id: str,
    outcome: Literal["failed", "cancelled"],
    reason: str,
    *,
    active_before: str | None = None,
    log: str = LOG,
) -> Path | None:
    """Write the report of a cycle that came to no end; returns the page's path.

    Never raises: a report that cannot be written must not hide what it is about. It is then in the log, and None is
    returned.

    Parameters
    ----------
    active_before : str, optional
        The version in force when the cycle began. Needed where a version was to be brought into force; what a
        training cycle changed is known from its contest.
    """
    try:
        row = store.cycles.get(cycle_id)
        report = _failure(store, assay, row, outcome, reason, active_before, log)
        html, _ = render_report(report, store.home / report_folder(assay.name, cycle_id))
    except Exception:
        logger.exception("report not written cycle=%s", cycle_id)
        return None
    return html


def _failure(
    store: Store,
    assay: Assay,
    row: Mapping[str, Any],
    outcome: Literal["failed", "cancelled"],
    reason: str,
    active_before: str | None,
    log: str,
) -> CycleReport:
    before, after = _in_force(store, row, active_before)
    began = _began(row)
    last = last_report(store, assay.name, row["id"])
    return CycleReport(
        cycle=row["id"],
        assay=assay.name,
        started_at=began,
        finished_at=datetime.now(UTC),
        outcome=outcome,
        reason=reason,
        active_before=before,
        active_after=after,
        kind=row["kind"],
        asked_by=row["asked_by"] or "",
        why=row["why"] or "",
        failure=Failure(
            step=row["step"] or "",
            log=log,
            then=_then(store, assay, row),
            waiting=tuple(
                model.version
                for model in store.models.all(assay.name)
                if model.status == "candidate" and model.created_at >= began
            ),
        ),
        curve=() if last is None else last.curve,
        audit=() if last is None else last.audit,
    )


def _in_force(store: Store, row: Mapping[str, Any], active_before: str | None) -> tuple[str, str]:
    """The version in force before the cycle, and now; what others brought into force meanwhile is not its doing."""
    now = store.models.active(row["assay"]).version
    if row["kind"] != "train":
        return active_before or now, now
    won = [c for c in store.models.contests(row["assay"]) if c["cycle_id"] == row["id"] and c["promoted"]]
    if won and won[-1]["challenger"] == now:
        return won[-1]["active"], now
    return now, now


def _then(store: Store, assay: Assay, row: Mapping[str, Any]) -> str:
    told = []
    unfinished = store.publications.unfinished(assay.name)
    if unfinished is not None:
        told.append(
            f"Bringing {unfinished['version']} into force had begun: at its next look the trainer brings that to an "
            "end or takes it back."
        )
    due = triggers_in_words(assay.trainer.triggers)
    if row["kind"] != "train":
        told.append("It is not tried again by itself.")
    elif due:
        told.append(f"The trainer tries again by itself {due}; or when somebody asks.")
    else:
        told.append("The trainer tries again when somebody asks: the assay names nothing else that makes it.")
    return " ".join(told)


def tell_brought(store: Store, assay: Assay, cycle_id: str, brought: Brought) -> Path:
    """Write the report of a version that a person brought into force; returns the page's path."""
    row = store.cycles.get(cycle_id)
    by = _NOBODY.get(row["asked_by"], row["asked_by"])
    before, after = (
        _known(store.models.get(version)) for version in (brought.active_before, brought.active_after)
    )
    last = last_report(store, assay.name, cycle_id)
    standing = list(agreed(store, assay).values())
    report = CycleReport(
        cycle=cycle_id,
        assay=assay.name,
        started_at=_began(row),
        finished_at=datetime.now(UTC),
        outcome=brought.outcome,
        reason=f"{by}{brought.reason.removeprefix(row['asked_by'])}",
        active_before=brought.active_before,
        active_after=brought.active_after,
        kind=row["kind"],
        asked_by=row["asked_by"],
        why=row["why"] or "",
        handover=Handover(by=by, before=before, after=after),
        curve=(
            *(() if last is None else last.curve),
            CurvePoint(
                cycle=cycle_id,
                version=after.version,
                corrections=len(standing),
                expert_minutes=minutes_of(standing),
                contest_mean_iou=after.contest_mean_iou,
                sealed_mean_iou=after.sealed_mean_iou,
            ),
        ),
        audit=() if last is None else last.audit,
    )
    html, _ = render_report(report, store.home / report_folder(assay.name, cycle_id))
    return html


def _known(model: ModelVersion) -> KnownVersion:
    measured = model.metrics.get("mean_iou", {})
    return KnownVersion(
        version=model.version,
        method=model.method,
        made_at=model.created_at,
        contest_mean_iou=measured.get("contest"),
        sealed_mean_iou=measured.get("sealed"),
    )


def _began(row: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(row["started_at"])
