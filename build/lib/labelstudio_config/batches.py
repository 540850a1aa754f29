"""Choosing what an expert gets next, and leasing it: all of it in the store, Label Studio is not asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.store import Review, Scored, Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.queue_policy import SHARED, Expert, QueuePolicy, Return, item_named
from cytoloop.domain.strategies import COLD_START
from cytoloop.domain.types import HELD_OUT, Item, ItemRole, Lease
from cytoloop.domain.worklist import MOST_COMPARED, Candidate, Choice, choose_batch
from cytoloop.pipeline.minutes import minutes_model
from labelstudio_config.canvas import LEADING
from labelstudio_config.contest_draw import ContestDraw, contest_draw
from labelstudio_config.ranking import MAKING, policies_of

OFFERED_PER_PLACE = 6
"""Best ranked items that a batch is chosen from, for each place: room for diversity, quotas and budgets."""
DRAWN_PER_PLACE = 3
"""Items of the lowest lots offered for each place: a draw takes one a well before the second of any."""
DRAWN_IF_SHORT = 1000
"""Contest items offered while the contest lacks wells: among so many are some of every well."""
REVIEW_SHARE = 0.1
"""Most of a batch that may be corrections worth a second look."""


def policy_of(store: Store, assay: Assay, queue: str) -> QueuePolicy:
    """The policy in force of a queue; InputError naming those there are."""
    policies = policies_of(store, assay)
    if queue not in policies:
        raise InputError(f"queue {queue!r} is not of assay {assay.name!r}; expected one of {list(policies)}")
    return policies[queue]


def holder_of(policy: QueuePolicy, expert: str | None, queue: str) -> str:
    """Whose leases an expert's are: his e-mail, or everyone's where the queue has no experts."""
    found = policy.expert(expert, queue)
    return SHARED if found is None else email_of(found)


def email_of(expert: Expert) -> str:
    """Whose leases and corrections an expert's are: the e-mail as Label Studio keeps it, in lower case."""
    return expert.email.lower()


def holders(policy: QueuePolicy) -> list[str]:
    """Everyone who has a list in a queue."""
    return [email_of(expert) for expert in policy.experts] or [SHARED]


def lease_batch(
    store: Store,
    assay: Assay,
    queue: str,
    policy: QueuePolicy,
    holder: str,
    count: int,
    minutes: float | None,
    now: datetime,
) -> list[Lease]:
    """Choose the next batch of an expert and lease it; the order is that of the choices."""
    version = store.models.active(assay.name).version
    strategy = ranked_by(store, assay, policy, version)
    scale = _scale(store, assay, holder)
    seed = f"{assay.name}/{queue}/{holder}/{version}/{now.isoformat()}"
    second = _second_readings(store, assay, queue, holder, version, strategy, count)
    reviews = _reviews(store, assay, holder, version, strategy, max(1, round(REVIEW_SHARE * count)))
    first = [*second, *reviews]
    # what others read is due as it is; the budget is for what is chosen
    spent = scale * sum(choice.minutes or 0.0 for choice in first)
    budget = policy.minutes if minutes is None else minutes
    left = None if budget is None else budget - spent
    chosen: list[Choice] = []
    if len(first) < count and (left is None or left > 0):
        draw = contest_draw(store, assay, policy, count - len(first))
        offered = _offered(store, assay, version, strategy, count, draw, holder)
        timed = [_timed(candidate, scale) for candidate in offered]
        if timed:
            # spread as the ranking's strategy wants it, which may stand in for the policy's
            as_ranked = replace(draw.policy, minutes=None, strategy=strategy)
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
    there = [name for name in store.scores.strategies(assay.name, version) if not name.startswith(MAKING)]
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
    draw: ContestDraw,
    holder: str,
) -> list[Candidate]:
    """What a batch may be chosen from: the best ranked training items, and draws of every split."""
    policy = draw.policy
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
                max(
                    64, DRAWN_PER_PLACE * count, DRAWN_IF_SHORT if draw.is_short and split == "contest" else 0
                ),
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
    if policy.gold_share:
        for scored in _gold(store, assay, version, strategy, policy, holder):
            found[scored.item] = replace(scored.candidate, is_gold=True)
    return [_in_turn(candidate, draw) for candidate in found.values()]


def _in_turn(candidate: Candidate, draw: ContestDraw) -> Candidate:
    """A contest item of a well that was asked for before comes after those of wells that were not."""
    if candidate.split != "contest":
        return candidate
    return replace(candidate, lot=candidate.lot + draw.turns.get(candidate.group, 0))


def _gold(
    store: Store, assay: Assay, version: str, strategy: str, policy: QueuePolicy, holder: str
) -> list[Scored]:
    """Training items whose mask is known (listed, or read by two experts) and that this expert has not read."""
    readings = store.corrections.readings(assay.name)
    known = {*map(item_named, policy.gold), *(item for item, said in readings.items() if len(said) > 1)}
    unread = [item for item in sorted(known) if all(one.expert != holder for one in readings.get(item, []))]
    scored = store.scores.get(assay.name, version, strategy, unread).values()
    return [one for one in scored if one.candidate.split == "train"]


def returned(policy: QueuePolicy, holder: str) -> Return:
    """What becomes of skipped items for a holder: a list that everyone shares has nobody to return them to."""
    return "retire" if holder == SHARED else policy.skipped


def _known(store: Store, assay: Assay, version: str, strategy: str) -> NDArray[np.floating] | None:
    """What corrected items look like: a batch is spread beside them."""
    corrected = store.corrections.latest_items(assay.name, MOST_COMPARED)
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
    """A further reading of an item; one that was first given to a single expert for another reason is overlap now."""
    again = role.role if role.role in LEADING else "overlap"
    return Choice(candidate=candidate, role=again, canvas=role.canvas, readers=role.readers)


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
