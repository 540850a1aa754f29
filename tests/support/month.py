"""A month of a laboratory: a trainer that nobody minds, plates that arrive, experts who are good or careless.

Real store, real trainings of a small network, real contests and publications; Label Studio in memory, and the
clock is moved by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import time_machine
from numpy.typing import NDArray
from scipy import ndimage
from tiny import ADA, BOB, Tiny, add_plate, write_fields

from cytoloop.domain.metrics import confusion_matrix
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.types import Lease, ModelVersion
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.payloads import prediction_result
from trainer.schedule import Trainer

NIGHT = timedelta(hours=3)
ROWS = "ABCDEFGHIJKLMNOP"


@dataclass(kw_only=True)
class Decision:
    """What one night decided."""

    day: int
    outcome: str
    reason: str
    active: str
    true_mean_iou: float
    """Of the version in force, against what the simulator knows, over every item."""
    trained: dict[str, float]
    """The same of what was trained this night, by method."""
    bad_masks_served: int
    """Bad corrections that the version in force learned from."""
    bad_masks_standing: int

    def __str__(self) -> str:
        return (
            f"day {self.day:2d}  {self.outcome:11s}  {self.active}  true {self.true_mean_iou:.3f}  "
            f"trained {' '.join(f'{m} {q:.3f}' for m, q in self.trained.items()) or '-'}  "
            f"bad masks: {self.bad_masks_standing} standing, {self.bad_masks_served} served  {self.reason}"
        )


@dataclass(kw_only=True)
class Month:
    """The laboratory, and what it has seen."""

    tiny: Tiny
    trainer: Trainer
    folder: Path
    items_a_day: int
    careless: range
    """Days on which Bob takes cytoplasm for nucleus and nucleus for cytoplasm."""
    redone: int
    """Day on which the administrator has what Bob did on those days thrown away."""
    log: list[Decision] = field(default_factory=list)
    bad: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Masks of the careless days by annotation."""
    bad_digests: set[str] = field(default_factory=set)
    """Digests of what of them became a correction."""
    _plates: int = 1
    _wells: int = 0

    def add_plate(self, wells: int) -> None:
        """Another plate arrives."""
        self._plates += 1
        folder = self.folder / f"plate-{self._plates}"
        names = [f"{ROWS[(self._wells + n) // 24 + 4]}{(self._wells + n) % 24 + 1:02d}" for n in range(wells)]
        self._wells += wells
        self.tiny.truth |= write_fields(folder, names)
        add_plate(self.tiny, folder)

    def work(self, day: int, rng: np.random.Generator) -> None:
        """Both experts finish some of what they hold."""
        for expert in (ADA, BOB):
            leases = self.tiny.store.leases.held(self.tiny.name, expert=expert.email)
            for lease in leases[: self.items_a_day]:
                self._correct(lease, expert.email == BOB.email and day in self.careless, rng)

    def _correct(self, lease: Lease, is_careless: bool, rng: np.random.Generator) -> None:
        tiny = self.tiny
        mask_HW = shaky(tiny.truth_of(lease.item), rng)
        if is_careless:
            mask_HW = np.array([0, 2, 1], np.uint8)[mask_HW]
        user = {ADA.email: 1, BOB.email: 2}[lease.expert]
        annotation = tiny.studio.annotate(
            tiny.task_of(lease.item),
            prediction_result(mask_HW, tiny.assay),
            completed_by=user,
            lead_time=float(rng.uniform(20, 60)),
        )
        if is_careless:
            self.bad[annotation] = mask_HW

    def throw_away(self) -> None:
        """The administrator deletes in Label Studio what Bob did on his bad days."""
        for annotation in self.bad:
            if annotation in self.tiny.studio.annotations:
                self.tiny.studio.delete_annotation(annotation)

    def night(self, day: int) -> Decision:
        """The trainer looks; afterwards the world is measured against what only the simulator knows."""
        before = len(self.tiny.store.cycles.all(self.tiny.name))
        known = {model.version for model in self.tiny.store.models.all(self.tiny.name)}
        self.trainer.look()
        self.trainer.look()  # what the night's cycle left to rank
        standing = self.tiny.store.corrections.standing(self.tiny.name)
        self.bad_digests |= {c.mask for c in standing.values() if c.annotation_id in self.bad}
        new = self.tiny.store.cycles.all(self.tiny.name)[before:]
        active = self.tiny.store.models.active(self.tiny.name)
        seen = self.tiny.store.models.snapshot_masks(active.snapshot) if active.snapshot else set()
        decision = Decision(
            day=day,
            outcome=" ".join(row["outcome"] or row["state"] for row in new) or "not due",
            reason=" | ".join(row["reason"] or "" for row in new),
            active=active.version,
            true_mean_iou=self.true_quality(active),
            trained={
                model.method: self.true_quality(model)
                for model in self.tiny.store.models.all(self.tiny.name)
                if model.version not in known and model.status != "pruned"
            },
            bad_masks_served=sum(mask in self.bad_digests for _, mask in seen),
            bad_masks_standing=sum(c.annotation_id in self.bad for c in standing.values()),
        )
        self.log.append(decision)
        return decision

    def true_quality(self, model: ModelVersion) -> float:
        """Mean IoU of a version over every image, held out or not."""
        tiny = self.tiny
        predictor = load_predictor(tiny.store, tiny.registry, tiny.assay, model, "cpu")
        total = np.zeros((3, 3), np.int64)
        for record in tiny.store.images.all(tiny.name):
            pred_HW = predictor.predict(record).argmax(0).astype(np.uint8)
            total += confusion_matrix(tiny.truth[record.image_id], pred_HW, 3)
        return float(np.nanmean(iou_of_present(total)))


def shaky(truth_HW: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """What a good expert draws: the truth, its borders off by a pixel here and there."""
    shift = rng.integers(-1, 2, 2)
    moved_HW = ndimage.shift(truth_HW, shift, order=0, mode="nearest")
    return np.where(rng.random() < 0.5, moved_HW, truth_HW).astype(np.uint8)


def live(
    month: Month,
    clock: time_machine.Coordinates,
    days: int,
    plates: dict[int, int],
    *,
    seed: int = 0,
    tell: Callable[[str], Any] = print,
) -> list[Decision]:
    """Day after day: plates arrive, experts work, the trainer looks at night.

    Parameters
    ----------
    plates : dict
        Wells of the plate that arrives on a day.
    """
    rng = np.random.default_rng(seed)
    start = datetime.now(UTC)
    for day in range(1, days + 1):
        clock.move_to(start + timedelta(days=day))
        if day in plates:
            month.add_plate(plates[day])
        if day == month.redone:
            month.throw_away()
        month.work(day, rng)
        clock.shift(NIGHT)
        tell(str(month.night(day)))
    return month.log
