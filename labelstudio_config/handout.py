"""Handing out work: leases in the store first, then one tab an expert in Label Studio.

A lease is what is promised; a tab shows it. If Label Studio fails in between, the next `refill` brings the tab
into line.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.locks import exclusive
from cytoloop.adapters.store import Review, Scored, Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.queue_policy import SHARED, Expert, QueuePolicy, Return, item_named
from cytoloop.domain.scoring import entropy
from cytoloop.domain.strategies import COLD_START
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import HELD_OUT, ImageRecord, Item, ItemRole, Lease
from cytoloop.domain.worklist import MOST_COMPARED, Candidate, Choice, choose_batch
from cytoloop.pipeline.minutes import minutes_model
from cytoloop.pipeline.predictors import Predictor
from labelstudio_config.canvas import hidden_doubts
from labelstudio_config.doubt import lacks_map
from labelstudio_config.payloads import parse_time
from labelstudio_config.publish import documents_of, push
from labelstudio_config.ranking import policies_of
from labelstudio_config.renders import render_doubts

logger = logging.getLogger(__name__)

ORDERING = ("tasks:predictions_score",)
"""The least confident first."""
OFFERED_PER_PLACE = 6
"""Best ranked items that a batch is chosen from, for each place: room for diversity, quotas and budgets."""
DRAWN_PER_PLACE = 3
"""Items of the lowest lots offered for each place: a draw takes one a well before the second of any."""
REVIEW_SHARE = 0.1
"""Most of a batch that may be corrections worth a second look."""
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
    _user_id(label_studio, holder)  # before anything is leased
    # One at a time, whatever the process: two who choose at once choose the same items, and one has to again.
    with exclusive(store.home, f"{assay.name}.handout"):
        room = policy.most_held - len(store.leases.held(assay.name, queue, holder))
        wanted = min(policy.size if count is None else count, room)
        if wanted < 1:
            return []
        leases = _lease(store, assay, queue, policy, holder, wanted, minutes, now)
        store.worklist.note(assay.name, [lease.item for lease in leases])
    show_tab(label_studio, store, assay, queue, holder)
    return leases


def policy_of(store: Store, assay: Assay, queue: str) -> QueuePolicy:
    """The policy in force of a queue; InputError naming those there are."""
    policies = policies_of(store, assay)
    if queue not in policies:
        raise InputError(f"queue {queue!r} is not of assay {assay.name!r}; expected one of {list(policies)}")
    return policies[queue]


def holder_of(policy: QueuePolicy, expert: str | None, queue: str) -> str:
    """Whose leases an expert's are: his e-mail, or everyone's where the queue has no experts."""
    found = policy.expert(expert, queue)
    return SHARED if found is None else _holder(found)


def _holder(expert: Expert) -> str:
    # corrections come with the e-mail as Label Studio keeps it, in lower case
    return expert.email.lower()


def holders(policy: QueuePolicy) -> list[str]:
    """Everyone who has a list in a queue."""
    return [_holder(expert) for expert in policy.experts] or [SHARED]


def _lease(
    store: Store,
    assay: Assay,
    queue: str,
    policy: QueuePolicy,
    holder: str,
    count: int,
    minutes: float | None,
    now: datetime,
) -> list[Lease]:
    version = store.models.active(assay.name).version
    strategy = ranked_by(store, assay, policy, version)
    scale = _scale(store, assay, holder)
    seed = f"{assay.name}/{queue}/{holder}/{version}/{now.isoformat()}"
    second = _second_readings(store, assay, queue, holder, version, strategy, count)
    reviews = _reviews(store, assay, holder, version, strategy, round(REVIEW_SHARE * count))
    first = [*second, *reviews]
    # what others read is due as it is; the budget is for what is chosen
    spent = scale * sum(choice.minutes or 0.0 for choice in first)
    budget = policy.minutes if minutes is None else minutes
    left = None if budget is None else budget - spent
    chosen: list[Choice] = []
    if len(first) < count and (left is None or left > 0):
        offered = _offered(store, assay, version, strategy, count, policy, holder)
        timed = [_timed(candidate, scale) for candidate in offered]
        if timed:
            # spread as the ranking's strategy wants it, which may stand in for the policy's
            as_ranked = replace(policy, minutes=None, strategy=strategy)
            chosen = choose_batch(
                timed,
                as_ranked,
                count=count - len(first),
                minutes=left,
                seed=seed,
                known_NF=_known(store, assay, version, strategy),
            )
    return store.leases.claim(
        assay.name,
        queue,
        holder,
        [*first, *chosen],
        now + timedelta(minutes=policy.lease_minutes),
        policy.most_held,
        strategy=strategy,
        version=version,
        count=count,
        now=now,
    )


def ranked_by(store: Store, assay: Assay, policy: QueuePolicy, version: str) -> str:
    """Under which strategy a version's items are ranked for a queue.

    Raises
    ------
    StateError
        If the version's items are not ranked: nothing was imported, or the trainer is at it.
    """
    there = store.scores.strategies(assay.name, version)
    for name in (policy.strategy, COLD_START, *there):
        if name in there:
            return name
    raise StateError(
        f"assay {assay.name!r}: {version} has ranked nothing yet; import images, or wait for the trainer"
    )


def _offered(
    store: Store,
    assay: Assay,
    version: str,
    strategy: str,
    count: int,
    policy: QueuePolicy,
    holder: str,
) -> list[Candidate]:
    """What a batch may be chosen from: the best ranked training items, and draws of every split."""
    found: dict[Item, Candidate] = {}

    def offer(scored: Iterable[Scored]) -> None:
        for one in scored:
            found.setdefault(one.item, one.candidate)

    for split in ("train", *HELD_OUT):
        offer(
            store.worklist.open_items(
                assay.name,
                version,
                strategy,
                split,
                max(64, DRAWN_PER_PLACE * count),
                by="lot",
                expert=holder,
                skipped=returned(policy, holder),
                deleted=policy.deleted,
            )
        )
    offer(
        store.worklist.open_items(
            assay.name,
            version,
            strategy,
            "train",
            max(64, OFFERED_PER_PLACE * count),
            expert=holder,
            skipped=returned(policy, holder),
            deleted=policy.deleted,
        )
    )
    if policy.gold_share and policy.gold:
        of_gold = store.scores.get(assay.name, version, strategy, map(item_named, policy.gold))
        said = {item for item in of_gold if holder in store.corrections.of_item(assay.name, item)}
        offer(one for item, one in of_gold.items() if item not in said)
    return list(found.values())


def returned(policy: QueuePolicy, holder: str) -> Return:
    """What becomes of skipped items for a holder: a list that everyone shares has nobody to return them to."""
    return "retire" if holder == SHARED else policy.skipped


def _known(store: Store, assay: Assay, version: str, strategy: str) -> NDArray[np.floating] | None:
    """What corrected items look like: a batch is spread beside them."""
    corrected = sorted(store.corrections.items(assay.name))[-MOST_COMPARED:]
    scored = store.scores.get(assay.name, version, strategy, corrected).values()
    features = [one.candidate.features_F for one in scored]
    known = [features_F for features_F in features if features_F is not None]
    return np.stack(known) if known else None


def _timed(candidate: Candidate, scale: float) -> Candidate:
    return candidate if candidate.minutes is None else replace(candidate, minutes=scale * candidate.minutes)


def _scale(store: Store, assay: Assay, holder: str) -> float:
    """Minutes of an expert for one at the fixed prices."""
    return minutes_model(store, assay.name).minutes(1.0, None if holder == SHARED else holder)


def _second_readings(
    store: Store, assay: Assay, queue: str, holder: str, version: str, strategy: str, count: int
) -> list[Choice]:
    roles = {role.item: role for role in store.leases.open_seats(assay.name, queue, holder, count)}
    scored = store.scores.get(assay.name, version, strategy, roles)
    return [_as_choice(roles[item], one.candidate) for item, one in scored.items()]


def _as_choice(role: ItemRole, candidate: Candidate) -> Choice:
    return Choice(candidate=candidate, role=role.role, canvas=role.canvas, readers=role.readers)


def _reviews(
    store: Store, assay: Assay, holder: str, version: str, strategy: str, count: int
) -> list[Choice]:
    """Corrections of others that an audit doubts, the most doubtful first."""
    open_reviews: list[Review] = store.reviews.open(assay.name)
    wanted = [review.item for review in open_reviews if holder not in (review.expert, SHARED)][:count]
    scored = store.scores.get(assay.name, version, strategy, wanted)
    return [
        Choice(candidate=scored[item].candidate, role="review", canvas="model", readers=1)
        for item in wanted
        if item in scored
    ]


# --- tabs --------------------------------------------------------------------------------------------------


def show_tab(label_studio: LabelStudio, store: Store, assay: Assay, queue: str, holder: str) -> int | None:
    """Make an expert's tab show what the expert holds, in the order of the scores; its id.

    None where the expert holds nothing: the tab stays as it was.
    """
    held = store.leases.held(assay.name, queue, holder)
    tasks = store.images.tasks_of(assay.name, [lease.item for lease in held])
    shown = [lease for lease in held if lease.item in tasks]
    before = store.handouts.tab(assay.name, queue, holder)
    if not shown:
        return None if before is None else before.view_id
    version = store.models.active(assay.name).version
    row = store.assays.get(assay.name)
    items = [lease.item for lease in shown]
    push(label_studio, store, assay, version, items)
    if label_studio.get_project(row["project_id"]).get("model_version") != version:
        # none can be set while there is no prediction: where all was finished, or deleted by hand
        label_studio.set_model_version(row["project_id"], version)
    fresh = items if before is None else [item for item in items if item not in before.items]
    _prepare(label_studio, store, assay, version, fresh)
    view_id = label_studio.ensure_view(
        row["project_id"],
        view_title(store, assay, queue, holder),
        [tasks[item] for item in items],
        ORDERING,
        _user_id(label_studio, holder),
    )
    store.handouts.set_tab(assay.name, queue, holder, view_id, items)
    return view_id


def _prepare(
    label_studio: LabelStudio, store: Store, assay: Assay, version: str, items: Sequence[Item]
) -> None:
    """Lay out the canvas of items that were just leased, hide doubt where it would lead, open second seats."""
    roles = store.leases.roles(assay.name, items)
    tasks = store.images.tasks_of(assay.name, items)
    row = store.assays.get(assay.name)
    special = [item for item in items if item in roles and roles[item].canvas != "model"]
    if special:
        documents = documents_of(store, assay, version, special)
        label_studio.replace_predictions(row["project_id"], documents)
        # The page of a task offers the last version's prediction beside the one in force.
        for other in label_studio.model_versions(row["project_id"]):
            if other != version:
                held = label_studio.prediction_tasks(row["project_id"], other)
                hiding = [{**d, "model_version": other} for d in documents if d["task"] in held]
                label_studio.replace_predictions(row["project_id"], hiding)
    render_doubts(store, assay, [], hidden_doubts(list(roles.values())))
    for item in items:
        readings = _readings_wanted(store, assay, item, roles.get(item))
        if readings > 1:
            label_studio.set_readers(tasks[item], readings)


def _readings_wanted(store: Store, assay: Assay, item: Item, role: ItemRole | None) -> int:
    """To how many Label Studio must hand a task: its readers, and whoever takes a place beside them."""
    leases = store.leases.of_item(assay.name, item)
    held = sum(lease.state == "held" for lease in leases)
    said = sum(kind == "submitted" for kind in store.corrections.of_item(assay.name, item).values())
    return max(1 if role is None else role.readers, held + said)


def view_title(store: Store, assay: Assay, queue: str, holder: str) -> str:
    """Title of an expert's tab."""
    if holder == SHARED:
        return f"Worklist {queue}"
    names = {_holder(expert): expert.name for expert in policy_of(store, assay, queue).experts}
    # The name first: Label Studio cuts titles off after some 16 letters.
    return f"{names.get(holder, holder)}: worklist {queue}"


def _user_id(label_studio: LabelStudio, holder: str) -> int | None:
    """Label Studio's id of an expert; None for a list that everyone shares.

    Raises
    ------
    StateError
        If nobody in Label Studio has the expert's e-mail.
    """
    if holder == SHARED:
        return None
    users = label_studio.list_users()
    for user in users:
        if str(user["email"]).casefold() == holder.casefold():
            return int(user["id"])
    known = sorted(str(user["email"]) for user in users)
    raise StateError(f"expert {holder}: nobody in Label Studio has this e-mail; expected one of {known}")


# --- as time goes by ---------------------------------------------------------------------------------------


def refill(label_studio: LabelStudio, store: Store, assay: Assay, now: datetime | None = None) -> int:
    """Hand on what ran out, and give everyone who holds nothing a batch; returns how many got one.

    A tab that does not show what its expert holds (an interrupted claim, another policy) is put right. An
    expert whom Label Studio does not know is passed over, with a warning.
    """
    now = now or datetime.now(UTC)
    end_leases(label_studio, store, assay, now)
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


def _take_back(
    label_studio: LabelStudio, store: Store, assay: Assay, queue: str, policy: QueuePolicy
) -> None:
    """Release what is held by someone who left the queue."""
    present = set(holders(policy))
    for holder in {lease.expert for lease in store.leases.held(assay.name, queue)} - present:
        leases = store.leases.held(assay.name, queue, holder)
        taken = store.leases.release_all(assay.name, queue, holder)
        store.worklist.note(assay.name, [lease.item for lease in leases])
        withdraw(label_studio, store, assay, leases)
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
    ended: list[Lease] = []
    for lease in over:
        last = _last_touched(touched, tasks.get(lease.item), lease.expert.casefold())
        if last is not None and now - last < FRESH_DRAFT:
            policy = policies_of(store, assay).get(lease.queue, QueuePolicy())
            store.leases.extend(lease.id, now + timedelta(minutes=policy.lease_minutes))
            logger.info("lease extended id=%d expert=%s: unsubmitted work", lease.id, lease.expert)
        elif store.leases.expire(lease.id, now):
            ended.append(lease)
    store.worklist.note(assay.name, [lease.item for lease in ended])
    withdraw(label_studio, store, assay, ended)
    return len(ended)


def _last_touched(
    touched: dict[tuple[int, str], datetime], task_id: int | None, holder: str
) -> datetime | None:
    """When the holder of a task last drew on it without submitting."""
    moments = (
        moment for (task, user), moment in touched.items() if task == task_id and holder in (SHARED, user)
    )
    return max(moments, default=None)


def withdraw(label_studio: LabelStudio, store: Store, assay: Assay, leases: Collection[Lease]) -> None:
    """Take items of ended leases out of pages that are open: a page keeps to the list it was loaded with.

    Nothing can be taken out of an open page of a list that everyone shares; its tab is shortened.
    """
    project_id = store.assays.get(assay.name)["project_id"]
    for holder in {lease.expert for lease in leases if lease.expert != SHARED}:
        items = [lease.item for lease in leases if lease.expert == holder]
        try:
            user_id = _user_id(label_studio, holder)
        except StateError:  # gone from Label Studio, and the pages with him
            continue
        task_ids = sorted(store.images.tasks_of(assay.name, items).values())
        if user_id is not None and task_ids:
            label_studio.withdraw_tasks(project_id, task_ids, user_id)
    for queue in {lease.queue for lease in leases if lease.expert == SHARED}:
        if store.handouts.tab(assay.name, queue, SHARED) is not None:
            left = store.images.tasks_of(
                assay.name, [lease.item for lease in store.leases.held(assay.name, queue, SHARED)]
            )
            title = view_title(store, assay, queue, SHARED)
            view_id = label_studio.ensure_view(project_id, title, list(left.values()), ORDERING)
            store.handouts.set_tab(assay.name, queue, SHARED, view_id, list(left))


# --- doubt maps --------------------------------------------------------------------------------------------


def lacking_doubts(store: Store, assay: Assay) -> list[Item]:
    """Leased items that show no doubt map yet: leased, or of a version published, since maps were last drawn."""
    records = {record.image_id: record for record in store.images.all(assay.name)}
    held = dict.fromkeys(lease.item for lease in store.leases.held(assay.name))
    return [item for item in held if lacks_map(store.home, assay, records[item.image_id], item.tile)]


def show_doubts(store: Store, assay: Assay, predictor: Predictor, items: Iterable[Item]) -> int:
    """Draw the doubt maps of these items, where the version is a network; returns how many are shown."""
    if "network" not in predictor.offers:
        return 0
    by_image: dict[str, list[int]] = {}
    for item in items:
        by_image.setdefault(item.image_id, []).append(item.tile)
    roles = store.leases.roles(
        assay.name, [Item(image_id=i, tile=t) for i, ts in by_image.items() for t in ts]
    )

    def maps() -> Iterator[tuple[ImageRecord, int, NDArray[np.floating], NDArray[np.uint8]]]:
        for image_id, of_image in sorted(by_image.items()):
            record = store.images.get(assay.name, image_id)
            prob_KHW = predictor.predict(record)
            doubt_HW = np.clip(entropy(prob_KHW) / np.log(len(prob_KHW)), 0, 1)
            mask_HW = prob_KHW.argmax(axis=0).astype(np.uint8)
            tiles = tiles_of(record.height, record.width, assay.tiling)
            for tile in of_image:
                slices = tiles[tile].slices
                yield record, tile, doubt_HW[slices], mask_HW[slices]

    return render_doubts(store, assay, maps(), hidden_doubts(list(roles.values())))
