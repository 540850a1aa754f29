"""When to look: one APScheduler job, never two at once; ``run_one`` wires and runs a cycle."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError, LabelStudioUnavailable
from cytoloop.nn.fit import TrainingCancelled
from cytoloop.pipeline.predictors import CipPredictor, load_predictor
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.doubt_maps import lacking_doubts, show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.intake import Intake
from labelstudio_config.publish import rescore, resume
from labelstudio_config.ranking import policies_of, rank_everything, strategies_for, strategy_for
from trainer.cycle import Cycle, CycleOutcome, CyclePolicy, Progress
from trainer.telling import report_folder, tell

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 15
"""How often the trainer looks for queued cycles, missed events and used-up batches."""


class Trainer:
    """The scheduled process: looks, and runs a cycle where one was asked for or corrections came in."""

    def __init__(self, settings: Settings, policy: CyclePolicy | None = None) -> None:
        url, token = settings.need_label_studio()
        self._settings = settings
        self._policy = policy or CyclePolicy()
        self.store = Store(settings.home)
        self._registry = Registry(settings.home / "models")
        self._label_studio = LabelStudioClient(url, token)
        self.load = functools.cache(lambda name: load_assay(name, [settings.home / "assays"]))
        self._intake = Intake(self.store, self._label_studio, self.load)
        self._stopping = threading.Event()
        self._seen: set[str] = set()

    def look(self, every: int) -> None:
        """One look: repair, reconcile, refill; then run what is queued or due.

        Parameters
        ----------
        every : int
            Ask for a cycle by itself once this many corrections are new, of whichever wells: those of
            contest wells may decide for a candidate that waits.
        """
        away: set[str] = set()
        for name in self.store.assays.names():
            try:
                with exclusive(self.store.home, name):
                    self._look_at(self.load(name), every)
            except LabelStudioUnavailable as error:
                logger.warning("look put off assay=%s: %s", name, error)
                away.add(name)
            except CytoloopError as error:
                logger.error("look failed assay=%s: %s", name, error)
        for row in self.store.cycles.queued():
            if self._stopping.is_set():
                return
            if row["assay"] in away:
                continue
            try:
                self.run_one(row["id"])
            except CytoloopError as error:
                logger.error("cycle failed id=%s: %s", row["id"], error)

    def _look_at(self, assay: Assay, every: int) -> None:
        is_first = assay.name not in self._seen
        for cycle_id in self.store.cycles.close_abandoned(assay.name):
            logger.warning("cycle abandoned id=%s", cycle_id)
            self.store.cycles.ask(assay.name, "restart")
        self._intake.drain()
        # The first look is at everything: what was refused once may be mended by now.
        self._intake.reconcile(assay, everything=is_first)
        self._seen.add(assay.name)
        resume(self._label_studio, self.store, assay)
        self._rank_missing(assay)
        refill(self._label_studio, self.store, assay)
        self._draw_missing_doubts(assay)
        self._ask_if_due(assay, every)

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
            made = rank_everything(self.store, assay, predictor)
            if (
                there
                and strategies_for(self.store, assay, predictor.offers, model.version)[0].name not in there
            ):
                rescore(self._label_studio, self.store, assay, model.version)
            logger.info("ranked again assay=%s images=%d", assay.name, made)

    def _draw_missing_doubts(self, assay: Assay) -> None:
        """What was leased since the last publication shows what the model doubts of it, too."""
        model = self.store.models.active(assay.name)
        lacking = [] if model.method == "cip" else lacking_doubts(self.store, assay)
        if lacking:
            predictor = load_predictor(self.store, self._registry, assay, model, self._settings.device)
            shown = show_doubts(self.store, assay, predictor, lacking)
            logger.info("doubt maps drawn assay=%s items=%d", assay.name, shown)

    def _ask_if_due(self, assay: Assay, every: int) -> None:
        # A failed cycle counts too: what made it fail would else make it fail again at every look.
        ended = ("done", "failed")
        last = [
            c
            for c in self.store.cycles.all(assay.name)
            if c["state"] in ended and c["outcome"] != "abandoned"
        ]
        since = last[-1]["started_at"] if last else ""
        new = sum(
            r["kind"] == "submitted" and r["received_at"] > since
            for r in self.store.corrections.revisions(assay.name)
        )
        if new >= every:
            logger.info("cycle due assay=%s new_corrections=%d", assay.name, new)
            self.store.cycles.ask(assay.name, "schedule")

    def run_now(self, assay: str, asked_by: str, progress: Progress | None = None) -> CycleOutcome:
        """Ask for a cycle and run it in this process, before anyone else can."""
        with exclusive(self.store.home, assay, on_wait=lambda: logger.warning("waiting assay=%s", assay)):
            self.store.cycles.close_abandoned(assay)
            return self._run(self.store.cycles.ask(assay, asked_by), progress)

    def run_one(self, cycle_id: str, progress: Progress | None = None) -> CycleOutcome | None:
        """Run one queued cycle to its report; None if another process took it meanwhile."""
        assay = self.store.cycles.get(cycle_id)["assay"]
        with exclusive(self.store.home, assay):
            if self.store.cycles.get(cycle_id)["state"] != "queued":
                return None
            return self._run(cycle_id, progress)

    def _run(self, cycle_id: str, progress: Progress | None) -> CycleOutcome:
        """The cycle's row says how it ended, whatever happens.

        What is not the cycle's fault (Label Studio away, this process told to stop) leaves it
        *abandoned*: it does not use up the corrections that were the reason for it.
        """
        assay = self.load(self.store.cycles.get(cycle_id)["assay"])
        self.store.cycles.start(cycle_id)

        def note(step: str, share: float) -> None:
            self.store.cycles.step(cycle_id, step, share)
            if progress:
                progress(step, share)

        cycle = Cycle(
            self.store,
            self._registry,
            self._label_studio,
            self._intake,
            assay,
            self._policy,
            device=self._settings.device,
            progress=note,
            cancelled=self._stopping.is_set,
        )
        try:
            outcome = cycle.run(cycle_id)
            tell(self.store, outcome)
        except BaseException as error:
            passing = (LabelStudioUnavailable, TrainingCancelled)
            is_ours = isinstance(error, Exception) and not isinstance(error, passing)
            reason = str(error) if isinstance(error, CytoloopError) else f"{type(error).__name__}: {error}"
            self.store.cycles.finish(cycle_id, "failed", "failed" if is_ours else "abandoned", reason)
            if not is_ours:
                self.store.cycles.ask(assay.name, "retry")
            raise
        report = str(report_folder(assay.name, cycle_id))
        self.store.cycles.finish(cycle_id, "done", outcome.outcome, outcome.reason, report)
        logger.info("cycle done id=%s outcome=%s: %s", cycle_id, outcome.outcome, outcome.reason)
        return outcome

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
