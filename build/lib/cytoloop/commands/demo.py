"""``cytoloop demo``: the whole loop without hands; a simulated expert corrects from the truth.

Everything is real: Label Studio's API takes the annotations, its webhooks bring them to the backend,
the cycle trains, judges and publishes. Only the expert is simulated, and the minutes are those of the
fixed cost model (``cytoloop.domain.effort``), not measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from cytoloop.commands.home import Home, find_assay
from cytoloop.commands.importing import import_plate
from cytoloop.commands.processes import ensure_secrets
from cytoloop.commands.reference import Truth
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.commands.up import DEMO_ASSAY, UpOptions, demo_assay, running_stack
from cytoloop.domain.assay import Assay
from cytoloop.domain.effort import correction_minutes
from cytoloop.domain.errors import ExternalError
from cytoloop.domain.metrics import confusion_matrix, pixel_metrics
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.types import Item, ModelVersion
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.payloads import drawn_mask
from labelstudio_config.project import connect
from trainer.cycle import CycleOutcome
from trainer.schedule import Trainer

INTAKE_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo was asked for."""

    images: int = 40
    rounds: int = 3
    seed: int = 0
    batch: int = 24
    preset: str | None = None
    data: Path | None = None
    assay: str | None = None
    label_studio: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The state of the loop after a round."""

    round: int
    version: str
    mean_iou: float
    """Of the version in force against truth, on every item of the contest and sealed wells."""
    class_iou: dict[str, float]
    cdl_mean_iou: float | None
    """Of the newest CDL, whether it serves or not: what weak labels alone teach."""
    corrections: int
    """Since the beginning."""
    expert_minutes: float
    """Since the beginning, by the cost model."""
    seconds: float
    """Wall time of the cycle."""
    outcome: str
    reason: str


def run_demo(
    home_folder: Path,
    options: DemoOptions,
    say: Callable[[str], None],
    tell: Callable[[str, int, int], None],
    tell_step: Callable[[str, float], None],
    on_round: Callable[[Round], None],
) -> tuple[list[Round], Path | None]:
    """Run the loop; returns the rounds and the page of the last report."""
    if options.data is None:
        assay = demo_assay(home_folder)
    else:
        assay = find_assay(home_folder, options.assay or DEMO_ASSAY)
    source = options.data or home_folder / "plates" / f"rosella-{options.seed}-{options.images}"
    if options.data is None:
        simulate_plate_command(
            source,
            "rosella",
            options.images,
            options.seed,
            lambda done, total: tell("simulate plate", done, total),
        )
    truth = Truth(source, assay)
    rounds: list[Round] = []
    with running_stack(home_folder, UpOptions(label_studio=options.label_studio), say) as stack:
        home = stack.home
        home.store.assays.ensure(assay)
        policy = QueuePolicy(size=options.batch)
        home.store.queues.set(assay.name, assay.queues[0], policy.document())
        import_plate(home, source, assay, tell)
        connect(home.label_studio, home.store, assay, home.settings)
        trainer = Trainer(home.settings, replace(assay.trainer, seed=options.seed), preset=options.preset)
        try:
            rounds.append(
                _state(home, assay, truth, 0, 0.0, ("start", "conventional image processing alone"))
            )
            on_round(rounds[-1])
            for number in range(1, options.rounds + 1):
                _correct(home, assay, truth, tell)
                begun = time.monotonic()
                outcome = trainer.run_now(assay.name, "demo", tell_step)
                assert isinstance(outcome, CycleOutcome), "a training was asked for"
                seconds = time.monotonic() - begun
                rounds.append(_state(home, assay, truth, number, seconds, (outcome.outcome, outcome.reason)))
                on_round(rounds[-1])
            return rounds, trainer.report_path(outcome.cycle_id)
        finally:
            trainer.close()


def _correct(home: Home, assay: Assay, truth: Truth, tell: Callable[[str, int, int], None]) -> None:
    """Work through the worklist as an expert would, and wait until every correction has arrived."""
    known = len(home.store.corrections.revisions(assay.name))
    entries = _worklist(home, assay)
    for done, entry in enumerate(entries, start=1):
        item = Item(image_id=entry["image_id"], tile=entry["tile"])
        record = home.store.images.get(assay.name, item.image_id)
        task = home.label_studio.get_task(entry["task_id"])
        shown = next((p for p in task["predictions"] if p["model_version"] == entry["model_version"]), None)
        truth_HW = truth.item(item, record.height, record.width)
        size = (truth_HW.shape[0], truth_HW.shape[1])
        before = drawn_mask(shown["result"] if shown else [], assay, size, f"task {entry['task_id']}")
        minutes = correction_minutes(before.mask_HW, truth_HW)
        home.label_studio.create_annotation(
            entry["task_id"],
            truth.regions(item, record.height, record.width),
            60.0 * minutes,
            parent_prediction=shown["id"] if shown else None,
        )
        tell("correct", done, len(entries))
    deadline = time.monotonic() + INTAKE_TIMEOUT_S
    while len(home.store.corrections.revisions(assay.name)) < known + len(entries):
        if time.monotonic() > deadline:
            arrived = len(home.store.corrections.revisions(assay.name)) - known
            raise ExternalError(
                f"{arrived} of {len(entries)} corrections arrived within {INTAKE_TIMEOUT_S:.0f} s"
            )
        time.sleep(0.1)


def _worklist(home: Home, assay: Assay) -> list[dict[str, Any]]:
    """The list as a script would pull it: over HTTP, with a token."""
    token = ensure_secrets(home.settings.home)["api_token"]
    answer = httpx.get(
        f"{home.settings.backend_url}/api/v1/worklist",
        params={"queue": f"{assay.name}/{assay.queues[0]}", "limit": 1000},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30.0,
        trust_env=False,
    )
    answer.raise_for_status()
    entries: list[dict[str, Any]] = answer.json()["entries"]
    return [entry for entry in entries if entry["lease"] is not None]


def _state(
    home: Home, assay: Assay, truth: Truth, number: int, seconds: float, ended: tuple[str, str]
) -> Round:
    active = home.store.models.active(assay.name)
    class_iou, mean_iou = quality(home, assay, truth, active)
    cdl = [model for model in home.store.models.all(assay.name) if model.method == "cdl"]
    standing = home.store.corrections.standing(assay.name).values()
    return Round(
        round=number,
        version=active.version,
        mean_iou=mean_iou,
        class_iou=class_iou,
        cdl_mean_iou=quality(home, assay, truth, cdl[-1])[1] if cdl else None,
        corrections=len(standing),
        expert_minutes=sum(c.lead_time_s or 0.0 for c in standing) / 60,
        seconds=seconds,
        outcome=ended[0],
        reason=ended[1],
    )


def quality(home: Home, assay: Assay, truth: Truth, model: ModelVersion) -> tuple[dict[str, float], float]:
    """IoU by class and mean IoU of a version against truth, on the contest and sealed wells, summed."""
    predictor = load_predictor(home.store, home.registry, assay, model, home.settings.device)
    total = np.zeros((assay.class_count, assay.class_count), np.int64)
    for record in home.store.images.all(assay.name, ("contest", "sealed")):
        pred_HW = predictor.predict(record).argmax(axis=0).astype(np.uint8)
        truth_HW = truth.image(record.image_id, record.height, record.width)
        total += confusion_matrix(truth_HW, pred_HW, assay.class_count)
    metrics = pixel_metrics(total)
    names = zip(assay.class_names, metrics.iou_K, strict=True)
    return {name: float(iou) for name, iou in names}, float(metrics.mean_iou)
