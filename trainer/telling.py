"""What a cycle did -> ``CycleReport``, its pictures, and the page."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.display import composite, display_ranges
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Method, Split
from cytoloop.pipeline.judging import JudgedItem
from trainer.cycle import CycleOutcome
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
from trainer.report.render import render_report

WORST_CASES = 4


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
    """Render a report's page again from its JSON."""
    folder = store.home / report_folder(assay, cycle_id)
    document = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    html, _ = render_report(CycleReport.from_dict(document), folder)
    return html


def _report(store: Store, outcome: CycleOutcome, folder: Path) -> CycleReport:
    assay = outcome.assay
    standing = list(outcome.standing.values())
    finished = datetime.now(UTC)
    previous = _previous_start(store, assay.name, outcome.cycle_id)
    method_of: dict[str, Method] = {m.version: m.method for m in store.models.all(assay.name)}
    snapshot = outcome.trained[-1].snapshot if outcome.trained else None
    return CycleReport(
        cycle=outcome.cycle_id,
        assay=assay.name,
        started_at=outcome.started_at,
        finished_at=finished,
        outcome=outcome.outcome,
        reason=outcome.reason,
        active_before=outcome.active_before,
        active_after=outcome.active_after,
        work=_work([c for c in standing if previous is None or c.annotated_at > previous]),
        snapshot=None
        if snapshot is None
        else SnapshotSummary(
            digest=snapshot.digest,
            corrections=sum(r.source == "correction" and r.split == "train" for r in snapshot.rows),
            weak_labels=sum(r.source == "weak" for r in snapshot.rows),
            held_out_items=sum(c.split != "train" for c in standing),
        ),
        runs=tuple(
            TrainingRun(
                version=t.model.version,
                method=t.model.method,
                preset=t.model.config["preset"],
                epochs=tuple(
                    Epoch(epoch=e.epoch, loss=e.loss, validation_mean_iou=e.validation)
                    for e in t.result.history
                ),
                seconds=t.result.seconds,
                chosen_epoch=t.result.best_epoch,
            )
            for t in outcome.trained
        ),
        scores=tuple(
            VersionScores.from_evaluation(evaluation, version=version, method=method_of[version], split=split)
            for (version, split), evaluation in outcome.evaluations.items()
        ),
        contest=None
        if outcome.decision is None or outcome.challenger is None
        else Contest.from_decision(
            outcome.decision, challenger=outcome.challenger, active=outcome.active_before
        ),
        published=None
        if outcome.active_after == outcome.active_before
        else Publication(
            version=outcome.active_after,
            tasks=outcome.published_tasks,
            seconds=outcome.seconds.get("publish", 0.0),
        ),
        curve=(*_curve_so_far(store, outcome), _curve_point(outcome, standing)),
        worst_cases=_worst_cases(store, outcome, folder),
        class_colours={label.name: label.colour for _, label in assay.foreground},
        ledger=tuple(
            LedgerEntry(step=step, who="machine", seconds=seconds)
            for step, seconds in outcome.seconds.items()
        ),
        notes=tuple(outcome.notes),
    )


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


def _curve_so_far(store: Store, outcome: CycleOutcome) -> tuple[CurvePoint, ...]:
    """The curve of the last report there is; before the first, CIP with no expert's minute spent."""
    for cycle in reversed(store.cycles.all(outcome.assay.name)):
        path = store.home / (cycle["report"] or "") / "report.json"
        if cycle["report"] and cycle["id"] != outcome.cycle_id and path.is_file():
            return CycleReport.from_dict(json.loads(path.read_text(encoding="utf-8"))).curve
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
    """Contest items the serving version gets most wrong; those of validation where there are none."""
    for split in ("contest", "validation"):
        evaluation = outcome.evaluations.get((outcome.active_after, split))
        if evaluation is not None:
            judged = {j.name: j for j in outcome.judged[outcome.active_after, split]}
            ranked = sorted(
                (image for image in evaluation.images if not np.isnan(image.mean_iou)),
                key=lambda image: image.mean_iou,
            )
            return tuple(
                _worst_case(store, outcome, folder, judged[image.image], image.mean_iou)
                for image in ranked[:WORST_CASES]
            )
    return ()


def _worst_case(
    store: Store, outcome: CycleOutcome, folder: Path, judged: JudgedItem, mean_iou: float
) -> WorstCase:
    assay = outcome.assay
    item = judged.correction.item
    name = f"worst-{item.image_id}-{item.tile}.png"
    picture = _view(store, assay, item.image_id, item.tile)
    colours = [label.colour for label in assay.classes]
    (folder / name).write_bytes(case_picture(picture, judged.truth_HW, judged.pred_HW, colours))
    return WorstCase(
        image_id=item.image_id,
        tile=item.tile,
        version=outcome.active_after,
        mean_iou=number_or_none(mean_iou),
        picture=name,
    )


def _view(store: Store, assay: Assay, image_id: str, tile: int) -> np.ndarray:  # type: ignore[type-arg]
    record = store.images.get(assay.name, image_id)
    image_CHW = read_image(record, assay)
    ranges = store.images.display_ranges(assay.name, record.plate) or display_ranges([image_CHW], assay)
    rows, columns = tiles_of(record.height, record.width, assay.tiling)[tile].slices
    return composite(image_CHW, ranges, assay)[rows, columns]


def _previous_start(store: Store, assay: str, cycle_id: str) -> datetime | None:
    done = [c for c in store.cycles.all(assay) if c["state"] == "done" and c["id"] != cycle_id]
    return datetime.fromisoformat(done[-1]["started_at"]) if done else None
