"""When to look: one APScheduler job, never two at once; ``run_one`` wires and runs a cycle."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.triggers.interval import IntervalTrigger

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.config import Settings
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError, LabelStudioUnavailable
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.intake import Intake
from labelstudio_config.publish import refill, resume
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

    def look(self, every: int) -> None:
        """One look: repair, reconcile, refill; then run what is queued or due.

        Parameters
        ----------
        every : int
            Ask for a cycle by itself once this many corrections are new, of whichever wells: those of
            contest wells may decide for a candidate that waits.
        """
        for name in self.store.assays.names():
            try:
                assay = self.load(name)
                self._intake.drain()
                self._intake.reconcile(assay)
                resume(self._label_studio, self.store, assay)
                refill(self._label_studio, self.store, assay, dict.fromkeys(assay.queues, self._policy.queue))
                self._ask_if_due(assay, every)
            except LabelStudioUnavailable as error:
                logger.warning("look put off assay=%s: %s", name, error)
            except CytoloopError as error:
                logger.error("look failed assay=%s: %s", name, error)
        for row in self.store.cycles.queued():
            try:
                self.run_one(row["id"])
            except CytoloopError as error:
                logger.error("cycle failed id=%s: %s", row["id"], error)

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

    def run_one(self, cycle_id: str, progress: Progress | None = None) -> CycleOutcome:
        """Run one queued cycle to its report; its row says how it ended, whatever happens."""
        row = self.store.cycles.get(cycle_id)
        assay = self.load(row["assay"])
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
        )
        try:
            outcome = cycle.run(cycle_id)
            tell(self.store, outcome)
        except BaseException as error:
            reason = str(error) or type(error).__name__
            self.store.cycles.finish(cycle_id, "failed", "failed", reason)
            raise
        report = str(report_folder(assay.name, cycle_id))
        self.store.cycles.finish(cycle_id, "done", outcome.outcome, outcome.reason, report)
        logger.info("cycle done id=%s outcome=%s: %s", cycle_id, outcome.outcome, outcome.reason)
        return outcome

    def report_path(self, cycle_id: str) -> Path | None:
        """Page of a finished cycle."""
        report = self.store.cycles.get(cycle_id)["report"]
        return self._settings.home / report / "report.html" if report else None

    def close(self) -> None:
        """Close the store and the connections to Label Studio."""
        self._label_studio.close()
        self.store.close()


def build(look: Callable[[], None], every_s: int = LOOK_EVERY_S) -> BlockingScheduler:
    """A blocking scheduler with one job: missed runs coalesce, and it never runs beside itself."""
    scheduler = BlockingScheduler()
    scheduler.add_job(
        look, IntervalTrigger(seconds=every_s), max_instances=1, coalesce=True, misfire_grace_time=None
    )
    return scheduler
