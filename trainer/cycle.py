"""One training cycle, start to report; reads top to bottom like the figure in the README.

reconcile -> snapshot -> train -> contest with the active version -> promote or reject, with the
reason -> publish -> report. The schedule says when to look; ``run_cycle`` decides whether to train.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION, cip_of, recipe_digest
from cytoloop.domain.errors import ExternalError
from cytoloop.domain.metrics import (
    Calibration,
    Evaluation,
    confusion_matrix,
    evaluate,
    mean_ignoring_nan,
    number_or_none,
)
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.promotion import ContestDecision, ContestItem, ContestPolicy, decide
from cytoloop.domain.types import HELD_OUT, Item, Method, ModelVersion, Split
from cytoloop.nn.fit import EpochReport
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.consensus import agreed, counted
from cytoloop.pipeline.judging import JudgedItem, doubt_maps, judged_items, recipe_seconds
from cytoloop.pipeline.predictors import Predictor, load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks
from labelstudio_config.doubt_maps import show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.intake import Intake
from labelstudio_config.publish import publish, resume, window_of
from trainer.deltas import corrected_items, fresh_corrections
from trainer.gallery import worst_of
from trainer.presets import is_trained_as, preset
from trainer.report import CorrectedItem, Outcome, ProposalErrors, Speed
from trainer.runs import Trained, run_training

logger = logging.getLogger(__name__)
Progress = Callable[[str, float], None]

REFILL_EVERY_S = 15.0

WEAK_GROWTH = 1.25
"""A CDL is made anew once there are this many times the weak labels it saw."""

TIMED_IMAGES = 3
"""Images the recipe is timed on in a cycle: weak labels are stored, and a median needs few."""

TRAIN_FROM: dict[Method, float] = {"cdl": 0.05, "mdl": 0.4, "joint": 0.4}
"""Share of a cycle that is done when a run begins; each takes 0.35."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CyclePolicy:
    """What a cycle may do."""

    contest: ContestPolicy = field(default_factory=ContestPolicy)
    min_new_corrections: int = 1
    """Corrections of training wells that no model has seen, below which a cycle trains nothing."""
    preset: str | None = None
    """Instead of the assay's."""
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class CycleOutcome:
    """What one cycle did; ``trainer.telling`` makes the report of it."""

    cycle_id: str
    assay: Assay
    started_at: datetime
    active_before: str
    active_after: str
    outcome: Outcome = "not-trained"
    reason: str = ""
    standing: dict[Item, StoredCorrection] = field(default_factory=dict)
    """The corrections this cycle worked with; what comes in meanwhile is the next one's."""
    trained: list[Trained] = field(default_factory=list)
    decision: ContestDecision | None = None
    challenger: str | None = None
    evaluations: dict[tuple[str, Split], Evaluation] = field(default_factory=dict)
    judged: dict[tuple[str, Split], Sequence[JudgedItem]] = field(default_factory=dict)
    calibrations: dict[tuple[str, Split], Calibration] = field(default_factory=dict)
    """Of networks; CIP says yes or no and is never more or less sure."""
    speeds: list[Speed] = field(default_factory=list)
    doubtful: str | None = None
    """The network whose doubt is shown: the one in use, else the challenger."""
    doubts: dict[Item, NDArray[np.float32]] = field(default_factory=dict)
    """Its doubt on the worst cases of the version in use, 0 (sure) … 1."""
    fresh: list[StoredCorrection] = field(default_factory=list)
    """Corrections since the last cycle."""
    corrected: tuple[CorrectedItem, ...] = ()
    """The same, each with what it changed."""
    proposals: tuple[ProposalErrors, ...] = ()
    published_tasks: int = 0
    doubt_maps: int = 0
    """Shown in the editor, of the version that was published."""
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Cycle:
    """One cycle of one assay, with everything it needs handed in."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        label_studio: LabelStudio,
        intake: Intake,
        assay: Assay,
        policy: CyclePolicy,
        *,
        device: str = "auto",
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._label_studio = label_studio
        self._intake = intake
        self._assay = assay
        self._policy = policy
        self._device = device
        self._tell = progress or (lambda step, share: None)
        self._cancelled = cancelled
        self._refilled_at = perf_counter()
        self._standing: dict[Item, StoredCorrection] = {}
        self._waiting: dict[Item, str] = {}
        self._predictors: dict[str, Predictor] = {}
        self._judgements: dict[tuple[str, Split], list[JudgedItem]] = {}

    def run(self, cycle_id: str) -> CycleOutcome:
        """Do the cycle. The store's cycle row is the caller's to open and close."""
        assay, store = self._assay, self._store
        active = store.models.active(assay.name)
        outcome = CycleOutcome(
            cycle_id=cycle_id,
            assay=assay,
            started_at=datetime.now(UTC),
            active_before=active.version,
            active_after=active.version,
        )
        with self._step(outcome, "reconcile", 0.0):
            # First what people did: a deleted task would refuse the rest of an interrupted publication.
            self._intake.drain()
            self._intake.reconcile(assay)
            resumed = resume(self._label_studio, store, assay)
            if resumed:
                outcome.notes.append(f"An earlier cycle was interrupted: {resumed}.")
            weak_label_store(store, assay)
            # Read once: experts go on while a cycle trains, and its models must be judged on one set of items.
            self._standing = outcome.standing = agreed(store, assay)
            self._count_contest_items(outcome)
            active = store.models.active(assay.name)
            outcome.active_before = outcome.active_after = active.version
        with self._step(outcome, "train", 0.05):
            self._train(outcome)
        with self._step(outcome, "contest", 0.75):
            challenger = self._choose_challenger(active)
            if challenger is not None:
                self._contest(outcome, challenger, active)
        if outcome.decision is not None and outcome.decision.promote and challenger is not None:
            with self._step(outcome, "publish", 0.85):
                self._publish(outcome, challenger)
        with self._step(outcome, "refill", 0.95):
            refill(self._label_studio, store, assay)
        with self._step(outcome, "measure", 0.96):
            self._measure(outcome)
        with self._step(outcome, "compare", 0.98):
            outcome.fresh = fresh_corrections(store, assay, cycle_id, self._standing)
            outcome.corrected, outcome.proposals = corrected_items(
                store, assay, outcome.fresh, lambda version: self._predictor(store.models.get(version))
            )
        return outcome

    def _count_contest_items(self, outcome: CycleOutcome) -> None:
        """Hold back contest items that wait for a second reader, or whose readers do not agree."""
        contest = {item: c for item, c in self._standing.items() if c.split == "contest"}
        roles = self._store.leases.roles(self._assay.name, contest)
        wanted = {item: role.readers for item, role in roles.items() if role.role == "contest"}
        self._waiting = counted(self._store, self._assay, contest, wanted).waiting
        if self._waiting:
            first = next(iter(self._waiting))
            outcome.notes.append(
                f"{len(self._waiting)} contest item(s) do not count yet; {first.image_id}/{first.tile}: "
                f"{self._waiting[first]}."
            )

    # --- train ---------------------------------------------------------------------------------------

    def _train(self, outcome: CycleOutcome) -> None:
        """A CDL where there is none (or many more weak labels), then a joint model of new corrections.

        Another preset may shape the network otherwise, which then cannot go on from the old CDL.
        """
        base = self._newest("cdl")
        if base is None or self._is_outgrown(base):
            base = self._fit(outcome, "cdl", None)
        fresh = self._unseen_corrections()
        if len(fresh) >= self._policy.min_new_corrections:
            self._fit(outcome, "joint", base)
        elif not outcome.trained:
            outcome.reason = (
                f"nothing new: {len(fresh)} correction(s) of training wells since the last model, "
                f"expected at least {self._policy.min_new_corrections}"
            )

    def _is_outgrown(self, cdl: ModelVersion) -> bool:
        """Whether a CDL learned from another teacher, by other numbers, or from far fewer weak labels."""
        teacher = (recipe_digest(self._assay.cip), CODE_VERSION)
        splits = {record.image_id: record.split for record in self._store.images.all(self._assay.name)}
        weak = sum(splits[image_id] == "train" for image_id in weak_masks(self._store, self._assay))
        return (
            cdl.config.get("preset") != self._preset_name
            or (cdl.config.get("recipe"), cdl.config.get("cip_code")) != teacher
            or cdl.config.get("agreement", 0.0) != self._assay.cip.agreement
            or not is_trained_as(cdl.config["train"], preset(self._preset_name, "cdl", self._assay, 0))
            or weak >= WEAK_GROWTH * cdl.config.get("weak_rows", 0)
        )

    def _unseen_corrections(self) -> list[StoredCorrection]:
        """Corrections of training wells that the newest joint model did not learn from."""
        newest = self._newest("joint")
        seen = self._store.models.snapshot_masks(newest.snapshot) if newest is not None else set()
        return [c for c in self._standing.values() if c.split == "train" and (c.item, c.mask) not in seen]

    def _fit(self, outcome: CycleOutcome, method: Method, base: ModelVersion | None) -> ModelVersion:
        trained = run_training(
            self._store,
            self._registry,
            self._assay,
            self._standing,
            method=method,
            preset_name=self._preset_name,
            seed=self._policy.seed,
            base=base,
            device=self._device,
            progress=lambda epoch: self._tell_epoch(method, epoch),
            cancelled=self._cancelled,
        )
        outcome.trained.append(trained)
        return trained.model

    def _tell_epoch(self, method: Method, epoch: EpochReport) -> None:
        clean = "" if epoch.validation is None else f" clean validation {epoch.validation:.3f}"
        logger.info(
            "epoch %d/%d method=%s loss=%.4f%s seconds_left=%.0f",
            epoch.epoch,
            epoch.epochs,
            method,
            epoch.loss,
            clean,
            epoch.seconds_left,
        )
        self._tell(
            f"train {method}: epoch {epoch.epoch}/{epoch.epochs}, loss {epoch.loss:.3f}{clean}",
            TRAIN_FROM[method] + 0.35 * epoch.epoch / epoch.epochs,
        )
        self._keep_queues_filled()

    def _keep_queues_filled(self) -> None:
        """Training takes minutes; an expert who finishes a batch meanwhile gets the next one."""
        if perf_counter() - self._refilled_at < REFILL_EVERY_S:
            return
        self._refilled_at = perf_counter()
        try:
            refill(self._label_studio, self._store, self._assay)
        except ExternalError as error:  # no reason to throw a training away
            logger.warning("refill put off assay=%s: %s", self._assay.name, error)

    # --- contest -------------------------------------------------------------------------------------

    def _choose_challenger(self, active: ModelVersion) -> ModelVersion | None:
        """The candidate that is best on validation; without corrections there, the newest one."""
        candidates = [
            model
            for model in self._store.models.all(self._assay.name)
            if model.status == "candidate" and model.version != active.version
        ]
        scores = {}
        for model in candidates:
            evaluation = self._evaluation(model, "validation")
            # as in the contest: over the classes that the corrections hold
            mean_iou = None
            if evaluation is not None:
                mean_iou = number_or_none(float(mean_ignoring_nan(iou_of_present(evaluation.confusion_KK))))
            scores[model.version] = mean_iou or 0.0  # none where every pixel was left out as doubtful
        return max(candidates, key=lambda m: (scores[m.version], m.created_at), default=None)

    def _contest(self, outcome: CycleOutcome, challenger: ModelVersion, active: ModelVersion) -> None:
        class_count = self._assay.class_count
        items = [
            ContestItem(
                image_id=mine.correction.item.image_id,
                tile=mine.correction.item.tile,
                group=mine.correction.group,
                confusion_challenger=confusion_matrix(mine.truth_HW, mine.pred_HW, class_count),
                confusion_active=confusion_matrix(theirs.truth_HW, theirs.pred_HW, class_count),
            )
            for mine, theirs in zip(
                self._judged(challenger, "contest"), self._judged(active, "contest"), strict=True
            )
        ]
        decision = decide(items, self._policy.contest, self._assay.class_names)
        outcome.decision = decision
        outcome.challenger = challenger.version
        outcome.outcome = "promoted" if decision.promote else "kept"
        outcome.reason = decision.reason
        self._store.models.add_contest(
            self._assay.name,
            outcome.cycle_id,
            challenger.version,
            active.version,
            decision.promote,
            decision.reason,
            decision.to_dict(),
        )
        enough = decision.groups >= self._policy.contest.min_groups
        if not decision.promote and enough:
            self._store.models.set_status(challenger.version, "rejected")
        self._retire_other_candidates(challenger, decided=enough)
        logger.info(
            "contest challenger=%s active=%s: %s", challenger.version, active.version, decision.reason
        )

    def _retire_other_candidates(self, challenger: ModelVersion, *, decided: bool) -> None:
        """A candidate that lost to the challenger on validation does not come back, unless all wait."""
        if not decided:
            return
        for model in self._store.models.all(self._assay.name):
            if model.status == "candidate" and model.version != challenger.version:
                self._store.models.set_status(model.version, "rejected")

    # --- publish, measure ----------------------------------------------------------------------------

    def _publish(self, outcome: CycleOutcome, challenger: ModelVersion) -> None:
        outcome.published_tasks = publish(
            self._label_studio,
            self._store,
            self._assay,
            self._predictor(challenger),
            lambda step, done, total: self._tell(f"{step} {done}/{total}", 0.85 + 0.1 * done / max(total, 1)),
        )
        outcome.active_after = challenger.version
        predictor = self._predictor(challenger)
        window = window_of(self._store, self._assay, predictor)
        outcome.doubt_maps = show_doubts(self._store, self._assay, predictor, window)

    def _measure(self, outcome: CycleOutcome) -> None:
        """CIP, the CDL, the challenger and both active versions, on every held-out split."""
        shown = [ensure_cip_version(self._store, self._registry, self._assay), self._newest("cdl")]
        shown += [
            self._store.models.get(name)
            for name in (outcome.challenger, outcome.active_before, outcome.active_after)
            if name
        ]
        for model in {m.version: m for m in shown if m is not None}.values():
            measured: dict[str, float | None] = {}
            for split in HELD_OUT:
                evaluation = self._evaluation(model, split)
                if evaluation is not None:
                    measured[split] = number_or_none(evaluation.dataset.mean_iou)
                    outcome.evaluations[model.version, split] = evaluation
                    outcome.judged[model.version, split] = self._judged(model, split)
                    if model.method != "cip":
                        first, *others = (one.calibration for one in self._judged(model, split))
                        outcome.calibrations[model.version, split] = sum(others, first)
            if measured:
                self._store.models.set_metrics(
                    model.version, {"mean_iou": measured, "cycle": outcome.cycle_id}
                )
                outcome.speeds.append(self._speed(model))
        self._look_for_doubt(outcome)

    def _speed(self, model: ModelVersion) -> Speed:
        """Seconds per image over the judged ones; a stored weak label tells nothing, so CIP is run anew."""
        judged = [one for split in HELD_OUT for one in self._judged(model, split)]
        seconds = {one.correction.item.image_id: one.seconds for one in judged}
        if model.method == "cip":
            records = (self._store.images.get(self._assay.name, name) for name in [*seconds][:TIMED_IMAGES])
            timed = recipe_seconds(self._assay, cip_of(model.config), records)
        else:
            timed = [*seconds.values()]
        return Speed(version=model.version, method=model.method, seconds=median(timed), images=len(timed))

    def _look_for_doubt(self, outcome: CycleOutcome) -> None:
        """Ask the network in use, or the challenger of a CIP, where it is unsure in the worst cases."""
        names = [name for name in (outcome.active_after, outcome.challenger) if name]
        models = [self._store.models.get(name) for name in names]
        network = next((model for model in models if model.method != "cip"), None)
        _, worst = worst_of(outcome.evaluations, outcome.judged, outcome.active_after)
        if network is not None and worst:
            items = [one.judged.correction.item for one in worst]
            outcome.doubtful = network.version
            outcome.doubts = doubt_maps(self._store, self._assay, self._predictor(network), items)

    def _evaluation(self, model: ModelVersion, split: Split) -> Evaluation | None:
        judged = self._judged(model, split)
        if not judged:
            return None
        return evaluate(((j.name, j.truth_HW, j.pred_HW) for j in judged), self._assay.class_names)

    def _judged(self, model: ModelVersion, split: Split) -> Sequence[JudgedItem]:
        key = (model.version, split)
        if key not in self._judgements:
            corrections = [
                c for c in self._standing.values() if c.split == split and c.item not in self._waiting
            ]
            self._judgements[key] = list(
                judged_items(self._store, self._assay, self._predictor(model), corrections)
            )
        return self._judgements[key]

    def _predictor(self, model: ModelVersion) -> Predictor:
        if model.version not in self._predictors:
            self._predictors[model.version] = load_predictor(
                self._store, self._registry, self._assay, model, self._device
            )
        return self._predictors[model.version]

    # --- small things --------------------------------------------------------------------------------

    @property
    def _preset_name(self) -> str:
        return self._policy.preset or self._assay.training_preset

    def _newest(self, *methods: Method) -> ModelVersion | None:
        models = [m for m in self._store.models.all(self._assay.name) if m.method in methods]
        return models[-1] if models else None

    @contextmanager
    def _step(self, outcome: CycleOutcome, name: str, share: float) -> Iterator[None]:
        self._store.cycles.step(outcome.cycle_id, name, share)
        self._tell(name, share)
        begun = perf_counter()
        yield
        outcome.seconds[name] = perf_counter() - begun
