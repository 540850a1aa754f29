"""When to look: one APScheduler job, never two at once; ``run_one`` wires and runs a cycle."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError, LabelStudioUnavailable
from cytoloop.domain.trainer_policy import TrainerPolicy, Triggers
from cytoloop.domain.types import CycleKind
from cytoloop.nn.fit import TrainingCancelled
from cytoloop.pipeline.predictors import CipPredictor, load_predictor
from cytoloop.pipeline.pruning import prune
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.completeness import compare
from labelstudio_config.doubt_maps import lacking_doubts, show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.intake import Intake
from labelstudio_config.publish import push, rescore, resume, window_of
from labelstudio_config.ranking import policies_of, rank_everything, strategies_for, strategy_for
from trainer.bringing import Brought, bring_into_force, version_to_bring
from trainer.cycle import Cycle, CycleCancelled, CycleOutcome, Progress
from trainer.endings import tell_brought, tell_failure
from trainer.hooks import EVENTS, run_hook
from trainer.isolation import ChildProcess
from trainer.report import Outcome
from trainer.report.index import write_index
from trainer.runs import Runner
from trainer.telling import add_note, report_folder, tell
from trainer.triggers import due

logger = logging.getLogger(__name__)

RANKED_A_LOOK = 200
"""Images that one look predicts and ranks at most, about a minute: a plate of thousands must not keep others waiting."""

WHOLE_LOOK_EVERY_S = 6 * 3600.0
"""How often the trainer looks at every task, changed or not, and proves that nothing lacks in the store."""

LOOK_EVERY_S = 15
"""How often the trainer looks for queued cycles, missed events and used-up batches."""


class Trainer:
    """The scheduled process: looks, and runs a cycle where one was asked for or is due.

    Parameters
    ----------
    policy : TrainerPolicy, optional
        Instead of each assay's.
    preset : str, optional
        Instead of each assay's.
    train : Runner, optional
        Does the training runs; default: child processes within the policy's limits.
    """

    def __init__(
        self,
        settings: Settings,
        policy: TrainerPolicy | None = None,
        *,
        preset: str | None = None,
        train: Runner | None = None,
    ) -> None:
        url, token = settings.need_label_studio()
        self._settings = settings
        self._policy = policy
        self._preset = preset
        self._train = train
        self.store = Store(settings.home)
        self.store.require_sound()
        self._registry = Registry(settings.home / "models")
        self._label_studio = LabelStudioClient(url, token)
        self.load = functools.cache(lambda name: load_assay(name, [settings.home / "assays"]))
        self._intake = Intake(self.store, self._label_studio, self.load)
        self._stopping = threading.Event()
        self._seen_whole: dict[str, float] = {}

    def look(self, every: int | None = None) -> None:
        """One look: repair, reconcile, refill; then run what is queued or due.

        Parameters
        ----------
        every : int, optional
            Corrections after which a cycle is due, instead of each policy's triggers.
        """
        away = {name for name in self.store.assays.names() if not self._look_after(name, every)}
        for row in self.store.cycles.queued():
            if self._stopping.is_set():
                return
            if row["assay"] in away:
                continue
            try:
                self.run_one(row["id"])
            except CytoloopError as error:
                logger.error("cycle failed id=%s: %s", row["id"], error)

    def _look_after(self, name: str, every: int | None) -> bool:
        """Look at one assay; False if Label Studio is away."""
        try:
            with exclusive(self.store.home, name):
                self._look_at(self.load(name), every)
        except LabelStudioUnavailable as error:
            logger.warning("look put off assay=%s: %s", name, error)
            # It may have been cut off between an annotation and the time stamp that a look at changes goes by.
            self._seen_whole.pop(name, None)
            return False
        except CytoloopError as error:
            logger.error("look failed assay=%s: %s", name, error)
        return True

    def _look_at(self, assay: Assay, every: int | None) -> None:
        for cycle_id in self.store.cycles.close_abandoned(assay.name):
            logger.warning("cycle abandoned id=%s", cycle_id)
            left = self.store.cycles.get(cycle_id)
            why = f"cycle {cycle_id} was cut off at step {left['step']!r}"
            self.store.cycles.ask(assay.name, "restart", why, kind=left["kind"], target=left["target"])
        self._intake.drain()
        self._bring_in(assay)
        resume(self._label_studio, self.store, assay)
        self._rank_missing(assay)
        refill(self._label_studio, self.store, assay)
        self._draw_missing_doubts(assay)
        self._ask_if_due(assay, every)

    def _bring_in(self, assay: Assay) -> None:
        """Store what no event told; the first look and then one in some hours is at everything, and says so.

        What was refused once may be mended by then, and what a look at changes alone would miss is found.
        """
        last = self._seen_whole.get(assay.name)
        is_whole = last is None or time.monotonic() - last >= WHOLE_LOOK_EVERY_S
        self._intake.reconcile(assay, everything=is_whole)
        if not is_whole:
            return
        found = compare(self.store, self._label_studio, assay)
        wrong: set[str] = set()
        if not found.is_complete:
            before = found
            self._intake.reconcile(assay, everything=True)
            found = compare(self.store, self._label_studio, assay)
            wrong = set(before.wrong) & set(found.wrong)  # the others are what somebody submitted just now
        for where in sorted(wrong):
            logger.error("store differs from Label Studio assay=%s %s", assay.name, where)
            self.store.corrections.add_doubt(assay.name, "comparison", where.partition(":")[0], where)
        logger.info(
            "compared with Label Studio assay=%s tasks=%d annotations=%d equal=%d in_doubt=%d",
            assay.name,
            found.tasks,
            found.annotations,
            found.equal,
            len(found.unreadable),
        )
        self._seen_whole[assay.name] = time.monotonic()

    def _rank_missing(self, assay: Assay) -> None:
        """Rankings are derived: where they were deleted, an import was cut off, or a queue follows another
        strategy now, make them again."""
        model = self.store.models.active(assay.name)
        there = self.store.scores.strategies(assay.name, model.version)
        items = len(self.store.images.tasks(assay.name))
        policies = policies_of(self.store, assay).values()
        wanted = {policy.strategy for policy in policies}
        if model.method == "cip":  # a strategy that needs a network is stood in for
            wanted = {strategy_for(one, CipPredictor.offers, model.version).name for one in policies}
        counts = [self.store.predictions.count(assay.name, model.version)]
        counts += [self.store.scores.count(assay.name, model.version, name) for name in wanted & set(there)]
        if not wanted <= set(there) or min(counts) < items:
            predictor = load_predictor(self.store, self._registry, assay, model, self._settings.device)
            main = strategies_for(self.store, assay, predictor.offers, model.version)[0].name
            made = rank_everything(self.store, assay, predictor, most=RANKED_A_LOOK)
            there_now = self.store.scores.strategies(assay.name, model.version)
            if there and main not in there and main in there_now:
                rescore(self._label_studio, self.store, assay, model.version)
            logger.info("ranked assay=%s images=%d", assay.name, made)
            if made:  # what comes next may be another now, and must have a prediction
                window = window_of(self.store, assay, predictor)
                push(self._label_studio, self.store, assay, model.version, window)

    def _draw_missing_doubts(self, assay: Assay) -> None:
        """What was leased since the last publication shows what the model doubts of it, too."""
        model = self.store.models.active(assay.name)
        lacking = [] if model.method == "cip" else lacking_doubts(self.store, assay)
        if lacking:
            predictor = load_predictor(self.store, self._registry, assay, model, self._settings.device)
            shown = show_doubts(self.store, assay, predictor, lacking)
            logger.info("doubt maps drawn assay=%s items=%d", assay.name, shown)

    def _ask_if_due(self, assay: Assay, every: int | None) -> None:
        triggers = self.policy_of(assay).triggers if every is None else Triggers(corrections=every)
        why = due(self.store, assay, triggers)
        if why is not None:
            logger.info("cycle due assay=%s: %s", assay.name, why)
            self.store.cycles.ask(assay.name, "schedule", why)

    def policy_of(self, assay: Assay) -> TrainerPolicy:
        """By which an assay is trained here."""
        return self._policy or assay.trainer

    def run_now(
        self,
        assay: str,
        asked_by: str,
        progress: Progress | None = None,
        *,
        kind: CycleKind = "train",
        target: str | None = None,
    ) -> CycleOutcome | Brought:
        """Ask for a cycle and run it in this process, before anyone else can."""
        with exclusive(self.store.home, assay, on_wait=lambda: logger.warning("waiting assay=%s", assay)):
            self.store.cycles.close_abandoned(assay)
            return self._run(self.store.cycles.ask(assay, asked_by, kind=kind, target=target), progress)

    def run_one(self, cycle_id: str, progress: Progress | None = None) -> CycleOutcome | Brought | None:
        """Run one queued cycle to its report; None if another process took it meanwhile."""
        assay = self.store.cycles.get(cycle_id)["assay"]
        with exclusive(self.store.home, assay):
            if self.store.cycles.get(cycle_id)["state"] != "queued":
                return None
            return self._run(cycle_id, progress)

    def _run(self, cycle_id: str, progress: Progress | None) -> CycleOutcome | Brought:
        """The cycle's row says how it ended, whatever happens.

        What is not the cycle's fault (Label Studio away, this process told to stop) leaves it
        *abandoned*: it does not use up the corrections that were the reason for it.
        """
        row = self.store.cycles.get(cycle_id)
        assay = self.load(row["assay"])
        self.store.cycles.start(cycle_id)

        def note(step: str, share: float) -> None:
            self.store.cycles.step(cycle_id, step, share)
            if progress:
                progress(step, share)

        before = self.store.models.active(assay.name).version
        try:
            outcome = (
                self._train_cycle(assay, cycle_id, note) if row["kind"] == "train" else self._bring(row, note)
            )
        except BaseException as error:
            self._close_failed(assay, row, error, before)
            raise
        if isinstance(outcome, Brought):
            tell_brought(self.store, assay, cycle_id, outcome)
        self._close(assay, cycle_id, "done", outcome.outcome, outcome.reason)
        logger.info("cycle done id=%s outcome=%s: %s", cycle_id, outcome.outcome, outcome.reason)
        if isinstance(outcome, CycleOutcome) and outcome.is_behind:
            self.store.cycles.ask(
                assay.name, "schedule", "corrections that came in while a run was interrupted"
            )
        return outcome

    def _close(self, assay: Assay, cycle_id: str, state: str, outcome: Outcome, reason: str) -> None:
        """Close the row of a cycle whose report is written, run the administrator's command, list the report."""
        folder = report_folder(assay.name, cycle_id)
        page = self.store.home / folder / "report.html"
        self.store.cycles.finish(cycle_id, state, outcome, reason, str(folder) if page.is_file() else None)
        row = self.store.cycles.get(cycle_id)
        if (
            row["kind"] == "train"
            and outcome in EVENTS
            and not (outcome == "kept" and not self._was_decided(row))
        ):
            result = run_hook(
                self.policy_of(assay).hooks,
                EVENTS[outcome],
                assay=assay.name,
                cycle=cycle_id,
                version=self.store.models.active(assay.name).version,
                reason=reason,
                report=page if page.is_file() else None,
            )
            if result is not None and result.note and page.is_file():
                add_note(self.store, assay.name, cycle_id, result.note)
        try:
            write_index(self.store)
        except Exception:  # a list of reports must not undo what they are about
            logger.exception("index of reports not written")

    def _was_decided(self, row: Mapping[str, Any]) -> bool:
        """Whether a cycle's contest had wells enough to compare two versions."""
        contests = self.store.models.contests(row["assay"])
        return any(c["cycle_id"] == row["id"] and c["document"].get("is_enough", True) for c in contests)

    def _train_cycle(self, assay: Assay, cycle_id: str, note: Progress) -> CycleOutcome:
        policy = self.policy_of(assay)
        device = policy.limits.device or self._settings.device
        cycle = Cycle(
            self.store,
            self._registry,
            self._label_studio,
            self._intake,
            assay,
            policy,
            self._train or ChildProcess(self._settings.home, policy.limits, self._settings.log_level),
            preset=self._preset,
            device=device,
            progress=note,
            cancelled=lambda: self._stopping.is_set() or self._is_called_off(cycle_id),
            meanwhile=lambda: self._meanwhile(assay.name),
        )
        outcome = cycle.run(cycle_id)
        tell(self.store, outcome)
        prune(self.store, self._registry, assay.name, policy.keep_versions)
        return outcome

    def _bring(self, row: Mapping[str, Any], note: Progress) -> Brought:
        assay = self.load(row["assay"])
        resume(self._label_studio, self.store, assay)
        model = version_to_bring(self.store, assay.name, row["kind"], row["target"])
        self.store.cycles.set_target(row["id"], model.version)
        return bring_into_force(
            self.store,
            self._registry,
            self._label_studio,
            assay,
            row["kind"],
            model.version,
            row["asked_by"],
            row["id"],
            device=self._settings.device,
            progress=note,
        )

    def _is_called_off(self, cycle_id: str) -> bool:
        return self.store.cycles.cancelled_by(cycle_id) is not None

    def _close_failed(self, assay: Assay, row: Mapping[str, Any], error: BaseException, before: str) -> None:
        """Say in a cycle's row and report how it failed; ask for it again where that was not its own fault."""
        by = self.store.cycles.cancelled_by(row["id"])
        if by is not None and isinstance(error, (CycleCancelled, TrainingCancelled)):
            reason = f"cancelled by {by}"
            tell_failure(self.store, assay, row["id"], "cancelled", reason, active_before=before)
            self._close(assay, row["id"], "failed", "cancelled", reason)
            return
        passing = (LabelStudioUnavailable, TrainingCancelled, CycleCancelled)
        reason = str(error) if isinstance(error, CytoloopError) else f"{type(error).__name__}: {error}"
        if isinstance(error, Exception) and not isinstance(error, passing):
            tell_failure(self.store, assay, row["id"], "failed", reason, active_before=before)
            self._close(assay, row["id"], "failed", "failed", reason)
            return
        # in a hurry, maybe: no report, and none is missed, since it is tried again
        self.store.cycles.finish(row["id"], "failed", "abandoned", reason)
        why = f"cycle {row['id']} was put off: {reason}"
        target = self.store.cycles.get(row["id"])["target"]
        self.store.cycles.ask(row["assay"], "retry", why, kind=row["kind"], target=target)

    def _meanwhile(self, training: str) -> None:
        """While one assay trains: whoever goes back to an older version of it is served, and others are looked at."""
        for row in self.store.cycles.queued():
            if row["assay"] == training and row["kind"] != "train":
                try:
                    self._run(row["id"], None)
                except CytoloopError as error:
                    logger.error("cycle failed id=%s: %s", row["id"], error)
        for name in self.store.assays.names():
            if name != training:
                self._look_after(name, None)

    def stop(self) -> None:
        """Ask a training that runs to end at its next step."""
        self._stopping.set()

    def report_path(self, cycle_id: str) -> Path | None:
        """Page of a finished cycle."""
        report = self.store.cycles.get(cycle_id)["report"]
        return self._settings.home / report / "report.html" if report else None

    def close(self) -> None:
        """Close the store and the connections to Label Studio."""
        self._label_studio.close()
        self.store.close()


def build(look: Callable[[], None], every_s: int = LOOK_EVERY_S) -> BlockingScheduler:
    """A blocking scheduler with one job, begun at once: missed runs coalesce, and it never runs beside itself."""
    scheduler = BlockingScheduler()
    scheduler.add_job(
        look,
        IntervalTrigger(seconds=every_s),
        next_run_time=datetime.now().astimezone(),
        max_instances=1,
        coalesce=True,
        misfire_grace_time=None,
    )
    return scheduler
