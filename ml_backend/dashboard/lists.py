"""Worklists: what everyone holds, has done, and opens next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cytoloop.adapters.store import Reading, Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import StateError
from cytoloop.domain.queue_policy import SHARED, Expert, QueuePolicy
from cytoloop.domain.types import WorklistEntry
from labelstudio_config.batches import email_of
from labelstudio_config.ranking import policies_of
from ml_backend.access import Caller
from ml_backend.service import stream_url, worklist

ENTRIES = 5
"""Told of each list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertList:
    """The list of one expert in one queue, or the list that everyone shares."""

    assay: str
    queue: str
    expert: str
    """Name, or ``everyone``."""
    holder: str
    """E-mail as in Label Studio, or ``everyone``."""
    is_own: bool
    """Of whoever looks at the page; a list that everyone shares is everyone's own."""
    held: int
    done_today: int
    done: int
    until: datetime | None
    """When the first of the held items goes back, if nothing is done."""
    url: str | None
    """Where to work, in Label Studio; None where nothing is held."""
    entries: tuple[WorklistEntry, ...]
    """The first few; those that are held come first."""
    note: str
    """Why there are no entries; empty where there are."""

    @property
    def is_shared(self) -> bool:
        """Whether it is one list for everyone."""
        return self.holder == SHARED


def lists_of(
    store: Store,
    load: Callable[[str], Assay],
    label_studio_url: str,
    assay: Assay,
    who: Caller,
    now: datetime,
) -> list[ExpertList]:
    """The lists of an assay that somebody may see: an expert his own, others all; own ones first."""
    readings = _readings_by_queue(store, assay.name)
    found: list[ExpertList] = []
    for queue, policy in policies_of(store, assay).items():
        for expert in policy.experts or (None,):
            is_own = expert is None or _is(expert, who)
            if not is_own and not who.may("see everyone"):
                continue
            holder = SHARED if expert is None else email_of(expert)
            mine = [
                said for said in readings.get(queue, []) if holder == SHARED or said.expert.lower() == holder
            ]
            entries, note = _entries(store, load, label_studio_url, assay, queue, policy, expert)
            leases = store.leases.held(assay.name, queue, holder)
            url = stream_url(store, label_studio_url, assay.name, queue, holder) if leases else None
            found.append(
                ExpertList(
                    assay=assay.name,
                    queue=queue,
                    expert=SHARED if expert is None else expert.name,
                    holder=holder,
                    is_own=is_own,
                    held=len(leases),
                    done_today=sum(
                        said.annotated_at.astimezone(now.tzinfo).date() == now.date() for said in mine
                    ),
                    done=len(mine),
                    until=min((lease.expires_at for lease in leases), default=None),
                    url=url,
                    entries=entries,
                    note=note,
                )
            )
    return sorted(found, key=lambda one: not one.is_own)


def _is(expert: Expert, who: Caller) -> bool:
    return who.name.casefold() in (expert.name.casefold(), expert.email.casefold())


def _readings_by_queue(store: Store, assay: str) -> dict[str, list[Reading]]:
    """Masks that experts saved, by the queue that handed the item out; those nobody was handed are in none."""
    roles = store.leases.roles(assay)
    found: dict[str, list[Reading]] = {}
    for reading in store.corrections.who_read(assay):
        if reading.item in roles:
            found.setdefault(roles[reading.item].queue, []).append(reading)
    return found


def _entries(
    store: Store,
    load: Callable[[str], Assay],
    label_studio_url: str,
    assay: Assay,
    queue: str,
    policy: QueuePolicy,
    expert: Expert | None,
) -> tuple[tuple[WorklistEntry, ...], str]:
    asked = None if expert is None else expert.email
    try:
        entries = worklist(store, load, label_studio_url, f"{assay.name}/{queue}", asked, ENTRIES)
    except StateError as error:  # the trainer ranks anew: a minute later there is a list again
        return (), str(error)
    if entries:
        return tuple(entries), ""
    version = store.models.active(assay.name).version
    is_ranked = bool(store.scores.strategies(assay.name, version))
    return (), "Nothing is left to correct in this queue." if is_ranked else "The first list is being made."
