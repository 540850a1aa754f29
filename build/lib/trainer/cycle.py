"""One training cycle, start to report; reads top to bottom like the figure in the README.

reconcile -> snapshot -> train -> contest with the active version -> promote or reject, with the
reason -> publish -> report. The schedule says when to look; ``run_cycle`` decides whether to train.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.contest_needs import ContestNeeds
from cytoloop.domain.errors import ExternalError, StateError
from cytoloop.domain.metrics import Calibration, Evaluation, confusion_matrix, number_or_none
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.promotion import ContestDecision, ContestItem, decide
from cytoloop.domain.trainer_policy import TrainerPolicy
from cytoloop.domain.types import HELD_OUT, Item, Method, ModelVersion, Split
from cytoloop.nn.fit import EpochReport
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.consensus import agreed, counted
from cytoloop.pipeline.contest_wells import needed_wells
from cytoloop.pipeline.judging import JudgedItem, doubt_maps
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks
from labelstudio_config.doubt_maps import show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.intake import Intake
from labelstudio_config.publish import publish, resume, window_of
from trainer.candidates import Candidacy, select
from trainer.deltas import corrected_items, fresh_corrections
from trainer.gallery import worst_of
from trainer.judge import Judge
from trainer.presets import is_trained_as, preset
from trainer.report import CorrectedItem, Outcome, ProposalErrors, Speed
from trainer.runs import Frozen, Runner, Trained, freeze

logger = logging.getLogger(__name__)
Progress = Callable[[str, float], None]

REFILL_EVERY_S = 15.0

WEAK_GROWTH = 1.25
"""A CDL is made anew once there are this many times the weak labels it saw."""

TRAIN_FROM: dict[Method, float] = {"cdl": 0.05, "mdl": 0.3, "joint": 0.5}
"""Share of a cycle that is done when a run begins; each takes 0.2."""


class CycleCancelled(StateError):
    """Somebody called the cycle off; nothing was changed."""


@dataclass(slots=True, kw_only=True)
class CycleOutcome:
    """What one cycle did; ``trainer.telling`` makes the report of it."""

    cycle_id: str
    assay: Assay
    started_at: datetime
    active_before: str
    active_after: str
    asked_by: str = ""
    """Who asked for the cycle: ``schedule``, ``label-studio``, ``cli``, the name of an API token…"""
    why: str = ""
    """What made it due, in words; empty where somebody just asked."""
    outcome: Outcome = "not-trained"
    reason: str = ""
    standing: dict[Item, StoredCorrection] = field(default_factory=dict)
    """The corrections this cycle worked with; what comes in meanwhile is the next one's."""
    trained: list[Trained] = field(default_factory=list)
    decision: ContestDecision | None = None
    challenger: str | None = None
    candidates: tuple[Candidacy, ...] = ()
    """The methods side by side on validation items."""
    contest_needs: ContestNeeds | None = None
    """The wells to correct next, by name, where there were too few to judge by."""
    is_behind: bool = False
    """A run went on with the rows it had when it was cut off: what came in since is still to be learned."""
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
    """One cycle of one assay, with everything it needs handed in.

    Parameters
    ----------
    policy : TrainerPolicy
        The assay's, or another.
    train : Runner
        Does the training runs.
    preset : str, optional
        Instead of the assay's.
    meanwhile : callable, optional
        Called now and then while a training runs, in this thread.
    cancelled : callable, optional
        Asked between steps, and while a training runs.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        label_studio: LabelStudio,
        intake: Intake,
        assay: Assay,
        policy: TrainerPolicy,
        train: Runner,
        *,
        preset: str | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._registry = registry
        self._label_studio = label_studio
        self._intake = intake
        self._assay = assay
        self._policy = policy
        self._runner = train
        self._preset = preset or assay.training_preset
        self._device = device
        self._tell = progress or (lambda step, share: None)
        self._cancelled = cancelled or (lambda: False)
        self._meanwhile = meanwhile
        self._refilled_at = perf_counter()
        self._standing: dict[Item, StoredCorrection] = {}
        self._waiting: Mapping[Item, str] = {}
        self._judge: Judge

    def run(self, cycle_id: str) -> CycleOutcome:
        """Do the cycle. The store's cycle row is the caller's to open and close.

        Raises
        ------
        CycleCancelled, TrainingCancelled
            If ``cancelled`` said so before anything was published.
        """
        assay, store = self._assay, self._store
        active = store.models.active(assay.name)
        row = store.cycles.get(cycle_id)
        outcome = CycleOutcome(
            cycle_id=cycle_id,
            assay=assay,
            started_at=datetime.now(UTC),
            active_before=active.version,
            active_after=active.version,
            asked_by=row["asked_by"],
            why=row["why"],
        )
        with self._step(outcome, "reconcile", 0.0):
            self._reconcile(outcome)
        with self._step(outcome, "train", 0.05):
            self._train(outcome)
        with self._step(outcome, "contest", 0.75):
            # read anew: an administrator may have gone back to an older version while the training ran
            active = store.models.active(assay.name)
            outcome.active_before = outcome.active_after = active.version
            selection = select(store, assay.name, self._judge, active)
            outcome.candidates = selection.compared
            if selection.challenger is not None:
                self._contest(outcome, selection.challenger, active)
            elif outcome.trained:
                outcome.outcome, outcome.reason = "kept", selection.reason
            for model in selection.superseded:
                store.models.set_status(model.version, "rejected")
        if outcome.decision is not None and outcome.decision.promote and selection.challenger is not None:
            with self._step(outcome, "publish", 0.85):
                self._publish(outcome, selection.challenger)
        with self._step(outcome, "refill", 0.95):
            refill(self._label_studio, store, assay)
        with self._step(outcome, "measure", 0.96):
            self._measure(outcome)
        with self._step(outcome, "compare", 0.98):
            outcome.fresh = fresh_corrections(store, assay, cycle_id, self._standing)
            outcome.corrected, outcome.proposals = corrected_items(
                store, assay, outcome.fresh, lambda version: self._judge.predictor(store.models.get(version))
            )
        return outcome

    def _reconcile(self, outcome: CycleOutcome) -> None:
        """Bring in what people did, finish what was cut off, and fix what this cycle takes for the truth."""
        assay, store = self._assay, self._store
        # First what people did: a deleted task would refuse the rest of an interrupted publication.
        self._intake.drain()
        self._intake.reconcile(assay)
        resumed = resume(self._label_studio, store, assay)
        if resumed:
            outcome.notes.append(f"An earlier cycle was interrupted: {resumed}.")
        weak_label_store(store, assay)
        # Read once: experts go on while a cycle trains, and its models must be judged on one set of items.
        self._standing = outcome.standing = agreed(store, assay)
        self._waiting = self._waiting_contest_items(outcome)
        self._judge = Judge(store, self._registry, assay, self._device, self._standing, self._waiting)

    def _waiting_contest_items(self, outcome: CycleOutcome) -> Mapping[Item, str]:
        """Contest items that wait for a second reader, or whose readers do not agree, and why."""
        contest = {item: c for item, c in self._standing.items() if c.split == "contest"}
        roles = self._store.leases.roles(self._assay.name, contest)
        wanted = {item: role.readers for item, role in roles.items() if role.role == "contest"}
        waiting = counted(self._store, self._assay, contest, wanted).waiting
        if waiting:
            first = next(iter(waiting))
            outcome.notes.append(
                f"{len(waiting)} contest item(s) do not count yet; {first.image_id}/{first.tile}: {waiting[first]}."
            )
        return waiting

    # --- train ---------------------------------------------------------------------------------------

    def _train(self, outcome: CycleOutcome) -> None:
        """A CDL where there is none (or many more weak labels), then MDL and joint models of new corrections.

        Another preset may shape the network otherwise, which then cannot go on from the old CDL.
        """
        base = self._newest("cdl")
        if "cdl" in self._policy.methods and (base is None or self._is_outgrown(base)):
            base = self._fit(outcome, "cdl", None)
        fresh = self._unseen_corrections()
        learned: list[Method] = [m for m in ("mdl", "joint") if m in self._policy.methods]
        if len(fresh) >= self._policy.min_new_corrections:
            for method in learned:
                self._fit(outcome, method, base if method == "joint" else None)
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
            cdl.status == "pruned"
            or cdl.config.get("preset") != self._preset
            or (cdl.config.get("recipe"), cdl.config.get("cip_code")) != teacher
            or cdl.config.get("agreement", 0.0) != self._assay.cip.agreement
            or not is_trained_as(cdl.config["train"], preset(self._preset, "cdl", self._assay, 0))
            or weak >= WEAK_GROWTH * cdl.config.get("weak_rows", 0)
        )

    def _unseen_corrections(self) -> list[StoredCorrection]:
        """Corrections of training wells that the newest model of corrections did not learn from."""
        newest = self._newest("joint" if "joint" in self._policy.methods else "mdl")
        seen = self._store.models.snapshot_masks(newest.snapshot) if newest is not None else set()
        return [c for c in self._standing.values() if c.split == "train" and (c.item, c.mask) not in seen]

    def _fit(self, outcome: CycleOutcome, method: Method, base: ModelVersion | None) -> ModelVersion:
        frozen = freeze(
            self._store,
            self._assay,
            self._standing,
            method=method,
            preset_name=self._preset,
            seed=self._policy.seed,
            base=base,
            device=self._device,
            go_on=True,
        )
        result = self._runner(
            frozen.job,
            progress=lambda epoch: self._tell_epoch(method, epoch),
            cancelled=self._is_cancelled_meanwhile,
        )
        snapshot = self._store.models.snapshot(frozen.job.snapshot)
        trained = Trained(model=self._store.models.get(result.version), result=result, snapshot=snapshot)
        outcome.trained.append(trained)
        self._note_resumption(outcome, trained, frozen)
        return trained.model

    def _note_resumption(self, outcome: CycleOutcome, trained: Trained, frozen: Frozen) -> None:
        """Say that a run was cut off once, and whether it went on or began anew."""
        method, resumed = trained.model.method, trained.result.resumed_after
        if resumed:
            epochs = trained.result.history[-1].epochs
            outcome.notes.append(
                f"The training of the {method} model went on after epoch {resumed} of {epochs}, where it was "
                "interrupted."
            )
        elif frozen.is_of_earlier_run:
            outcome.notes.append(
                f"The training of the {method} model was interrupted and began anew: its checkpoint could not be "
                "used."
            )
        if frozen.is_of_earlier_run:
            outcome.is_behind = True
            outcome.notes.append(
                f"The {method} model learned from the corrections there were when it was interrupted; newer ones are "
                "for the next cycle."
            )

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
            TRAIN_FROM[method] + 0.2 * epoch.epoch / epoch.epochs,
        )

    def _is_cancelled_meanwhile(self) -> bool:
        """Asked while a training runs: others' work goes on, too.

        Training takes minutes or hours; an expert who finishes a batch meanwhile gets the next one.
        """
        if perf_counter() - self._refilled_at >= REFILL_EVERY_S:
            try:
                refill(self._label_studio, self._store, self._assay)
                if self._meanwhile is not None:
                    self._meanwhile()
            except ExternalError as error:  # no reason to throw a training away
                logger.warning("refill put off assay=%s: %s", self._assay.name, error)
            self._refilled_at = perf_counter()
        return self._cancelled()

    # --- contest -------------------------------------------------------------------------------------

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
                self._judge.judged(challenger, "contest"), self._judge.judged(active, "contest"), strict=True
            )
        ]
        look = self._store.models.looks(self._assay.name, active.version) + 1
        contest_wells = sum(
            split == "contest" for split in self._store.images.groups(self._assay.name).values()
        )
        decision = decide(
            items, self._policy.contest, self._assay.class_names, look=look, wells=contest_wells
        )
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
        if not decision.is_enough:
            outcome.contest_needs = needed_wells(
                self._store,
                self._assay,
                decision,
                self._waiting,
                self._standing,
                policy=self._policy.contest,
            )
        if decision.is_enough:  # decided: who lost does not come back, nor who lost to the challenger
            losers = [m for m in self._store.models.all(self._assay.name) if m.status == "candidate"]
            for model in losers:
                if not (decision.promote and model.version == challenger.version):
                    self._store.models.set_status(model.version, "rejected")
        logger.info(
            "contest challenger=%s active=%s look=%d: %s",
            challenger.version,
            active.version,
            look,
            decision.reason,
        )

    # --- publish, measure ----------------------------------------------------------------------------

    def _publish(self, outcome: CycleOutcome, challenger: ModelVersion) -> None:
        predictor = self._judge.predictor(challenger)
        outcome.published_tasks = publish(
            self._label_studio,
            self._store,
            self._assay,
            predictor,
            lambda step, done, total: self._tell(f"{step} {done}/{total}", 0.85 + 0.1 * done / max(total, 1)),
        )
        outcome.active_after = challenger.version
        window = window_of(self._store, self._assay, predictor)
        outcome.doubt_maps = show_doubts(self._store, self._assay, predictor, window)

    def _measure(self, outcome: CycleOutcome) -> None:
        """The methods side by side, the challenger and both active versions, on every held-out split."""
        names = [ensure_cip_version(self._store, self._registry, self._assay).version]
        names += [one.version for one in outcome.candidates]
        names += [v for v in (outcome.challenger, outcome.active_before, outcome.active_after) if v]
        for name in dict.fromkeys(names):
            model = self._store.models.get(name)
            measured: dict[str, float | None] = {}
            for split in HELD_OUT:
                evaluation = self._judge.evaluation(model, split)
                if evaluation is not None:
                    measured[split] = number_or_none(evaluation.dataset.mean_iou)
                    outcome.evaluations[name, split] = evaluation
                    outcome.judged[name, split] = self._judge.judged(model, split)
                    if model.method != "cip":
                        first, *others = (one.calibration for one in self._judge.judged(model, split))
                        outcome.calibrations[name, split] = sum(others, first)
            if measured:
                self._store.models.set_metrics(name, {"mean_iou": measured, "cycle": outcome.cycle_id})
                outcome.speeds.append(self._judge.speed(model))
        self._look_for_doubt(outcome)

    def _look_for_doubt(self, outcome: CycleOutcome) -> None:
        """Ask the network in use, else the challenger or the newest one, where it is unsure in the worst cases."""
        trained = [one.model.version for one in reversed(outcome.trained)]
        names = [name for name in (outcome.active_after, outcome.challenger, *trained) if name]
        models = [self._store.models.get(name) for name in names]
        network = next((model for model in models if model.method != "cip"), None)
        _, worst = worst_of(outcome.evaluations, outcome.judged, outcome.active_after)
        if network is not None and worst:
            items = [one.judged.correction.item for one in worst]
            outcome.doubtful = network.version
            outcome.doubts = doubt_maps(self._store, self._assay, self._judge.predictor(network), items)

    # --- small things --------------------------------------------------------------------------------

    def _newest(self, *methods: Method) -> ModelVersion | None:
        models = [m for m in self._store.models.all(self._assay.name) if m.method in methods]
        return models[-1] if models else None

    @contextmanager
    def _step(self, outcome: CycleOutcome, name: str, share: float) -> Iterator[None]:
        # once something is published, the rest is only telling
        if outcome.active_after == outcome.active_before and self._cancelled():
            raise CycleCancelled(f"cycle {outcome.cycle_id}: cancelled before step {name!r}")
        self._store.cycles.step(outcome.cycle_id, name, share)
        self._tell(name, share)
        begun = perf_counter()
        yield
        outcome.seconds[name] = perf_counter() - begun
