"""Handing out work: leases in the store first, then one tab an expert in Label Studio.

A lease is what is promised; a tab shows it. If Label Studio fails in between, the next `refill` brings the tab
into line.
"""

from __future__ import annotations

import logging
import math
from datetime import UTC, datetime, timedelta

from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import SHARED, QueuePolicy
from cytoloop.domain.types import Lease
from labelstudio_config.batches import holder_of, holders, lease_batch, policy_of
from labelstudio_config.payloads import parse_time
from labelstudio_config.ranking import policies_of
from labelstudio_config.tabs import left_over, show_tab, user_id, withdraw

logger = logging.getLogger(__name__)

FRESH_DRAFT = timedelta(hours=24)
"""An unsubmitted mask that was touched since keeps its item with the expert whose lease ran out."""


def claim(
    label_studio: LabelStudio,
    store: Store,
    assay: Assay,
    queue: str,
    expert: str | None,
    *,
    count: int | None = None,
    minutes: float | None = None,
    now: datetime | None = None,
) -> list[Lease]:
    """Lease the next batch to an expert and show it in the expert's tab.

    First what others read already and this expert is to read too, then corrections worth a second look,
    then a batch of the queue's policy.

    Parameters
    ----------
    expert : str or None
        Name or e-mail; of no meaning where the queue has no experts.
    count : int, optional
        Most items; default: the policy's ``size``.
    minutes : float, optional
        Budget of expected minutes of this expert; default: the policy's.

    Returns
    -------
    list of Lease
        The new ones, in the order of the tab.

    Raises
    ------
    InputError
        If the queue or the expert is unknown, or ``count`` or ``minutes`` make no sense.
    StateError
        If nothing was imported yet, or nobody in Label Studio has the expert's e-mail; nothing is leased.
    """
    now = now or datetime.now(UTC)
    policy = policy_of(store, assay, queue)
    holder = holder_of(policy, expert, queue)
    if count is not None and count < 1:
        raise InputError(f"claim: count is {count}, expected at least 1")
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"claim: minutes is {minutes}, expected a finite number above 0")
    user_id(label_studio, holder)  # before anything is leased
    _clear_tabs(label_studio, store, assay)
    # One at a time, whatever the process: two who choose at once choose the same items, and one has to again.
    with exclusive(store.home, f"{assay.name}.handout"):
        room = policy.most_held - len(store.leases.held(assay.name, queue, holder))
        wanted = min(policy.size if count is None else count, room)
        if wanted < 1:
            return []
        leases = lease_batch(store, assay, queue, policy, holder, wanted, minutes, now)
        store.worklist.note(assay.name, [lease.item for lease in leases])
    show_tab(label_studio, store, assay, queue, holder)
    return leases


def refill(label_studio: LabelStudio, store: Store, assay: Assay, now: datetime | None = None) -> int:
    """Hand on what ran out, and give everyone who holds nothing a batch; returns how many got one.

    A tab that does not show what its expert holds (an interrupted claim, another policy) is put right. An
    expert whom Label Studio does not know is passed over, with a warning.
    """
    now = now or datetime.now(UTC)
    end_leases(label_studio, store, assay, now)
    _clear_tabs(label_studio, store, assay)
    given = 0
    for queue, policy in policies_of(store, assay).items():
        _take_back(label_studio, store, assay, queue, policy)
        for holder in holders(policy):
            try:
                given += _refill_one(label_studio, store, assay, queue, holder, now)
            except StateError as error:
                logger.warning("no batch queue=%s expert=%s: %s", queue, holder, error)
    return given


def _refill_one(
    label_studio: LabelStudio, store: Store, assay: Assay, queue: str, holder: str, now: datetime
) -> bool:
    held = {lease.item for lease in store.leases.held(assay.name, queue, holder)}
    tasks = store.images.tasks_of(assay.name, held)
    if not any(item in tasks for item in held):
        email = None if holder == SHARED else holder
        return bool(claim(label_studio, store, assay, queue, email, now=now))
    tab = store.handouts.tab(assay.name, queue, holder)
    if tab is None or not held <= set(tab.items):
        show_tab(label_studio, store, assay, queue, holder)
    return False


def _clear_tabs(label_studio: LabelStudio, store: Store, assay: Assay) -> None:
    """Take out of every tab what its expert lost, before anyone else is given it."""
    for queue, policy in policies_of(store, assay).items():
        for holder in holders(policy):
            withdraw(label_studio, store, assay, queue, holder, left_over(store, assay, queue, holder))


def _take_back(
    label_studio: LabelStudio, store: Store, assay: Assay, queue: str, policy: QueuePolicy
) -> None:
    """Release what is held by someone who left the queue."""
    present = set(holders(policy))
    for holder in {lease.expert for lease in store.leases.held(assay.name, queue)} - present:
        items = [lease.item for lease in store.leases.held(assay.name, queue, holder)]
        # Out of sight first: once released, an item may be another's at once.
        withdraw(label_studio, store, assay, queue, holder, items)
        taken = store.leases.release_all(assay.name, queue, holder)
        store.worklist.note(assay.name, items)
        logger.info("leases taken back queue=%s expert=%s items=%d", queue, holder, taken)


def end_leases(label_studio: LabelStudio, store: Store, assay: Assay, now: datetime) -> int:
    """End leases whose time is over; an item with fresh unsubmitted work stays where it is. How many ended."""
    over = store.leases.expired(assay.name, now)
    tasks = store.images.tasks_of(assay.name, {lease.item for lease in over})
    if not over:
        return 0
    project_id = store.assays.get(assay.name)["project_id"]
    drafts = label_studio.list_drafts(project_id, sorted(tasks.values()))
    touched: dict[tuple[int, str], datetime] = {}
    for draft in drafts:
        key = (int(draft["task"]), str(draft["user"]).casefold())
        moment = parse_time(draft["updated_at"], f"draft of task {draft['task']}: updated_at")
        touched[key] = max(moment, touched.get(key, moment))
    ending: dict[tuple[str, str], list[Lease]] = {}
    for lease in over:
        last = _last_touched(touched, tasks.get(lease.item), lease.expert.casefold())
        if last is not None and now - last < FRESH_DRAFT:
            policy = policies_of(store, assay).get(lease.queue, QueuePolicy())
            store.leases.extend(lease.id, now + timedelta(minutes=policy.lease_minutes))
            logger.info("lease extended id=%d expert=%s: unsubmitted work", lease.id, lease.expert)
        else:
            ending.setdefault((lease.queue, lease.expert), []).append(lease)
    ended = 0
    for (queue, holder), leases in ending.items():
        # Out of sight first: once expired, an item may be another's at once.
        withdraw(label_studio, store, assay, queue, holder, [lease.item for lease in leases])
        expired = [lease.item for lease in leases if store.leases.expire(lease.id, now)]
        store.worklist.note(assay.name, expired)
        ended += len(expired)
        if len(expired) < len(leases):  # renewed meanwhile: given back
            show_tab(label_studio, store, assay, queue, holder)
    return ended


def _last_touched(
    touched: dict[tuple[int, str], datetime], task_id: int | None, holder: str
) -> datetime | None:
    """When the holder of a task last drew on it without submitting."""
    moments = (
        moment for (task, user), moment in touched.items() if task == task_id and holder in (SHARED, user)
    )
    return max(moments, default=None)
