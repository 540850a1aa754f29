"""What a cycle did -> ``CycleReport``, its pictures, and the page."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.metrics import Calibration, number_or_none
from cytoloop.domain.types import HELD_OUT, Method, Split
from trainer.cycle import CycleOutcome
from trainer.gallery import worst_cases
from trainer.report import (
    AuditPoint,
    CalibrationScores,
    Candidate,
    Contest,
    CurvePoint,
    CycleReport,
    Epoch,
    ExpertWork,
    LedgerEntry,
    Publication,
    SnapshotSummary,
    SourceShare,
    TrainingRun,
    VersionScores,
    WellsNeeded,
    WorstCase,
    audit_point,
    past_contests,
)
from trainer.report.names import SHORT_NAMES
from trainer.report.render import render_report
from trainer.runs import Trained
from trainer.studies import human_times, latest_boxes, latest_rating
from trainer.wells import well_scores

HONEST: tuple[Split, ...] = ("contest", "sealed")
"""Splits that chose no epoch: a calibration measured elsewhere flatters."""


def report_folder(assay: str, cycle_id: str) -> Path:
    """Where a cycle's report lies, relative to the home."""
    return Path("reports") / assay / cycle_id


def tell(store: Store, outcome: CycleOutcome) -> Path:
    """Write the report of a cycle; returns the page's path."""
    folder = store.home / report_folder(outcome.assay.name, outcome.cycle_id)
    folder.mkdir(parents=True, exist_ok=True)
    report = _report(store, outcome, folder)
    html, _ = render_report(report, folder)
    return html


def rebuild(store: Store, assay: str, cycle_id: str) -> Path:
    """Render a report's page again from its JSON, with what was rated and boxed since."""
    report = read_report(store, assay, cycle_id)
    html, _ = render_report(_with_studies(report, store.home), store.home / report_folder(assay, cycle_id))
    return html


def add_note(store: Store, assay: str, cycle_id: str, note: str) -> Path:
    """Say one more thing in a report that is written: what came of the command that was run after it."""
    report = read_report(store, assay, cycle_id)
    html, _ = render_report(
        replace(report, notes=(*report.notes, note)), store.home / report_folder(assay, cycle_id)
    )
    return html


def read_report(store: Store, assay: str, cycle_id: str) -> CycleReport:
    """A report that was written."""
    path = store.home / report_folder(assay, cycle_id) / "report.json"
    return CycleReport.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _with_studies(report: CycleReport, home: Path) -> CycleReport:
    """The report with the latest rating and boxes of its assay, which are often collected after a cycle."""
    rating = latest_rating(home, report.assay) or report.rating
    boxes = latest_boxes(home, report.assay) or report.boxes
    of_studies = {one.task: one for one in human_times((), rating, boxes) if one.n}
    return replace(
        report,
        rating=rating,
        boxes=boxes,
        human_times=tuple(of_studies.get(one.task, one) for one in report.human_times),
    )


def _report(store: Store, outcome: CycleOutcome, folder: Path) -> CycleReport:
    assay = outcome.assay
    standing = list(outcome.standing.values())
    rating, boxes = latest_rating(store.home, assay.name), latest_boxes(store.home, assay.name)
    finished = datetime.now(UTC)
    method_of: dict[str, Method] = {m.version: m.method for m in store.models.all(assay.name)}
    snapshot = outcome.trained[-1].snapshot if outcome.trained else None
    last = last_report(store, assay.name, outcome.cycle_id)
    return CycleReport(
        cycle=outcome.cycle_id,
        assay=assay.name,
        started_at=outcome.started_at,
        finished_at=finished,
        outcome=outcome.outcome,
        reason=outcome.reason,
        active_before=outcome.active_before,
        active_after=outcome.active_after,
        asked_by=outcome.asked_by,
        why=outcome.why,
        work=_work(outcome.fresh),
        snapshot=None
        if snapshot is None
        else SnapshotSummary(
            digest=snapshot.digest,
            corrections=sum(r.source == "correction" and r.split == "train" for r in snapshot.rows),
            weak_labels=sum(r.source == "weak" and r.split == "train" for r in snapshot.rows),
            held_out_items=sum(c.split != "train" for c in standing),
        ),
        runs=tuple(_run(trained) for trained in outcome.trained),
        scores=tuple(
            VersionScores.from_evaluation(evaluation, version=version, method=method_of[version], split=split)
            for (version, split), evaluation in outcome.evaluations.items()
        ),
        candidates=_candidates(store, outcome),
        contest=None
        if outcome.decision is None or outcome.challenger is None
        else Contest.from_decision(
            outcome.decision,
            challenger=outcome.challenger,
            active=outcome.active_before,
            max_class_drop=assay.trainer.contest.max_class_drop,
        ),
        contest_needs=_needs(outcome),
        contests=past_contests(store.models.contests(assay.name)),
        published=None
        if outcome.active_after == outcome.active_before
        else Publication(
            version=outcome.active_after,
            tasks=outcome.published_tasks,
            seconds=outcome.seconds.get("publish", 0.0),
        ),
        curve=(*_curve_so_far(last, outcome), _curve_point(outcome, standing)),
        worst_cases=_worst_cases(store, outcome, folder),
        class_names=assay.class_names,
        class_colours={label.name: label.colour for _, label in assay.foreground},
        ledger=tuple(
            LedgerEntry(step=step, who="machine", seconds=seconds)
            for step, seconds in outcome.seconds.items()
        ),
        corrected=outcome.corrected,
        proposals=outcome.proposals,
        audit=_audit(last, outcome, standing),
        calibration=_calibration(outcome, method_of),
        rating=rating,
        boxes=boxes,
        human_times=human_times(standing, rating, boxes),
        speeds=tuple(outcome.speeds),
        wells=well_scores(
            store,
            assay,
            standing,
            (one for split in HELD_OUT for one in outcome.judged.get((outcome.active_after, split), ())),
        ),
        notes=tuple(outcome.notes),
    )


def _candidates(store: Store, outcome: CycleOutcome) -> tuple[Candidate, ...]:
    new = {trained.model.version for trained in outcome.trained}
    return tuple(
        Candidate(
            version=one.version,
            method=one.method,
            validation_mean_iou=one.validation_mean_iou,
            is_challenger=one.is_challenger,
            is_active=one.is_active,
            is_new=one.version in new,
            made_at=store.models.get(one.version).created_at,
        )
        for one in outcome.candidates
    )


def _needs(outcome: CycleOutcome) -> WellsNeeded | None:
    return None if outcome.contest_needs is None else WellsNeeded.from_needs(outcome.contest_needs)


def _run(trained: Trained) -> TrainingRun:
    config = trained.model.config
    sources = {name: source for name, source in config.get("sources", {}).items() if isinstance(source, dict)}
    return TrainingRun(
        version=trained.model.version,
        method=trained.model.method,
        preset=config["preset"],
        epochs=tuple(
            Epoch(
                epoch=e.epoch,
                loss=e.loss,
                validation_mean_iou=e.validation,
                weak_validation=e.weak_validation,
            )
            for e in trained.result.history
        ),
        seconds=trained.result.seconds,
        chosen_epoch=trained.result.best_epoch,
        resumed_after=trained.result.resumed_after,
        peak_memory_gb=trained.result.peak_memory_gb,
        sources=tuple(
            SourceShare(
                source="weak" if name == "weak" else "corrections",
                items=source["items"],
                weight=source["weight"],
                loss_share=source["loss_share"],
            )
            for name, source in sources.items()
        ),
    )


def _calibration(outcome: CycleOutcome, method_of: dict[str, Method]) -> tuple[CalibrationScores, ...]:
    """Of each network, over contest and sealed items together; those of validation where there are none."""
    told = []
    for version in dict.fromkeys(version for version, _ in outcome.calibrations):
        of_version = {split: c for (name, split), c in outcome.calibrations.items() if name == version}
        splits = tuple(split for split in of_version if split in HONEST) or tuple(of_version)
        first, *others = (of_version[split] for split in splits)
        together: Calibration = sum(others, first)
        told.append(
            CalibrationScores.from_calibration(
                together, outcome.assay.class_names, version=version, method=method_of[version], splits=splits
            )
        )
    return tuple(told)


def _work(corrections: list[StoredCorrection]) -> tuple[ExpertWork, ...]:
    by_expert: defaultdict[str, list[StoredCorrection]] = defaultdict(list)
    for correction in corrections:
        by_expert[correction.expert].append(correction)
    return tuple(
        ExpertWork(expert=expert, corrections=len(of_expert), minutes=minutes_of(of_expert))
        for expert, of_expert in sorted(by_expert.items())
    )


def minutes_of(corrections: list[StoredCorrection]) -> float:
    """Minutes items were open in the editor."""
    return sum(c.lead_time_s or 0.0 for c in corrections) / 60


def last_report(store: Store, assay: str, cycle_id: str) -> CycleReport | None:
    """The report before this cycle's, as far as there is one: curves go on from it."""
    # By when they ended: a version may be brought into force while a training that was asked for earlier runs.
    told = [c for c in store.cycles.all(assay) if c["report"] and c["id"] != cycle_id]
    for cycle in sorted(told, key=lambda c: str(c["finished_at"]), reverse=True):
        path = store.home / cycle["report"] / "report.json"
        if path.is_file():
            return CycleReport.from_dict(json.loads(path.read_text(encoding="utf-8")))
    return None


def _audit(
    last: CycleReport | None, outcome: CycleOutcome, standing: list[StoredCorrection]
) -> tuple[AuditPoint, ...]:
    """What the ranking is worth, this cycle added."""
    so_far = () if last is None else last.audit
    point = audit_point(outcome.cycle_id, minutes_of(standing), outcome.corrected)
    return so_far if point is None else (*so_far, point)


def _curve_so_far(last: CycleReport | None, outcome: CycleOutcome) -> tuple[CurvePoint, ...]:
    """The curve of the last report; before the first, CIP with no expert's minute spent."""
    if last is not None:
        return last.curve
    cip = next((v for v, _ in outcome.evaluations if v.startswith("cip-")), None)
    if cip is None:
        return ()
    return (
        CurvePoint(
            cycle="start",
            version=cip,
            corrections=0,
            expert_minutes=0.0,
            contest_mean_iou=_mean_iou(outcome, cip, "contest"),
            sealed_mean_iou=_mean_iou(outcome, cip, "sealed"),
        ),
    )


def _curve_point(outcome: CycleOutcome, standing: list[StoredCorrection]) -> CurvePoint:
    return CurvePoint(
        cycle=outcome.cycle_id,
        version=outcome.active_after,
        corrections=len(standing),
        expert_minutes=minutes_of(standing),
        contest_mean_iou=_mean_iou(outcome, outcome.active_after, "contest"),
        sealed_mean_iou=_mean_iou(outcome, outcome.active_after, "sealed"),
    )


def _mean_iou(outcome: CycleOutcome, version: str, split: Split) -> float | None:
    evaluation = outcome.evaluations.get((version, split))
    return None if evaluation is None else number_or_none(evaluation.dataset.mean_iou)


def _worst_cases(store: Store, outcome: CycleOutcome, folder: Path) -> tuple[WorstCase, ...]:
    return worst_cases(
        store,
        outcome.assay,
        outcome.evaluations,
        outcome.judged,
        _shown(outcome),
        outcome.doubts,
        _called(outcome.doubtful) if outcome.doubtful else "",
        folder,
    )


def _shown(outcome: CycleOutcome) -> dict[str, str]:
    """Versions in the gallery and what they are called there: the one in use, CIP, the challenger."""
    shown = {outcome.active_after: f"{_called(outcome.active_after)}, in use"}
    cip = [version for version, _ in outcome.evaluations if version.startswith("cip-")]
    for version in dict.fromkeys(cip):
        shown.setdefault(version, "CIP" if version != outcome.active_before else "CIP, in use before")
    if outcome.challenger is not None:
        shown.setdefault(outcome.challenger, f"{_called(outcome.challenger)}, challenger")
    elif outcome.trained:
        newest = outcome.trained[-1].model.version
        shown.setdefault(newest, f"{_called(newest)}, trained in this cycle")
    return shown


def _called(version: str) -> str:
    """``Joint`` for ``joint-20250102-…``."""
    return SHORT_NAMES[version.partition("-")[0]]
