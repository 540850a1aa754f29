"""The dashboard without the web: what one page about every assay of a home shows, read from the store.

Each part is read for itself. One that cannot be read says so, and the others are shown all the same: a
page that tells whether the loop is healthy must not fail with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError
from cytoloop.domain.queue_policy import QueuePolicy
from labelstudio_config.ranking import policies_of
from ml_backend.access import Caller
from ml_backend.dashboard.curve import Learning, learning_of
from ml_backend.dashboard.lists import ExpertList, lists_of
from ml_backend.dashboard.loop import Loop, loop_of
from ml_backend.dashboard.versions import Ended, Versions, ended_cycles, versions_of

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part(Generic[T]):
    """A part of the page, or why it is not there."""

    value: T | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssayView:
    """What the page shows of one assay."""

    name: str
    loop: Part[Loop]
    lists: Part[list[ExpertList]]
    learning: Part[Learning | None]
    versions: Part[Versions | None]
    """Nothing for experts."""
    ended: tuple[Ended, ...]
    reports: Mapping[str, datetime]
    """When each cycle ended that has a report, by its id."""
    policies: Part[dict[str, QueuePolicy]]
    """By queue; none for those who may not set them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The page."""

    own: tuple[ExpertList, ...]
    """Lists to work on, of whoever looks."""
    assays: tuple[AssayView, ...]
    waiting: int
    """Events that Label Studio sent and that are not applied yet."""

    @property
    def is_busy(self) -> bool:
        """Whether a cycle waits or runs: the page is worth looking at again soon."""
        return any(one.loop.value is not None and one.loop.value.running for one in self.assays)


class Dashboard:
    """Reads the page from a home."""

    def __init__(self, store: Store, load: Callable[[str], Assay], label_studio_url: str) -> None:
        self._store = store
        self._load = load
        self._label_studio_url = label_studio_url

    def overview(self, who: Caller, now: datetime) -> Overview:
        """All that somebody may see.

        Parameters
        ----------
        now : datetime
            In the time zone in which times are told.
        """
        assays = tuple(self._assay(name, who, now) for name in self._store.assays.names())
        return Overview(
            own=tuple(one for assay in assays for one in assay.lists.value or () if one.is_own),
            assays=assays,
            waiting=self._store.inbox.last() - self._store.corrections.last_event(),
        )

    def _assay(self, name: str, who: Caller, now: datetime) -> AssayView:
        store, cycles = self._store, self._store.cycles.all(name)
        is_expert = not who.may("see everyone")

        def policies() -> dict[str, QueuePolicy]:
            return policies_of(store, self._load(name)) if who.may("set queues") else {}

        return AssayView(
            name=name,
            loop=_part(lambda: loop_of(store, name, self._load(name).trainer.triggers, now)),
            lists=_part(
                lambda: lists_of(store, self._load, self._label_studio_url, self._load(name), who, now)
            ),
            learning=_part(lambda: learning_of(store.home, cycles)),
            versions=_part(lambda: None if is_expert else versions_of(store, name)),
            ended=ended_cycles(cycles),
            reports={c["id"]: datetime.fromisoformat(c["finished_at"]) for c in cycles if c["report"]},
            policies=_part(policies),
        )


def _part(read: Callable[[], T]) -> Part[T]:
    try:
        return Part(value=read())
    except CytoloopError as error:
        logger.info("dashboard: %s", error)
        return Part(value=None, problem=str(error))
