"""Predict, score and rank every item by one version, under the strategy of each queue."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from cytoloop.adapters.store import Store
from cytoloop.adapters.store.scores import Scored
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.queue_policy import QueuePolicy, item_name, policy_in_force
from cytoloop.domain.scoring import ItemScores
from cytoloop.domain.strategies import COLD_START, Need, Strategy, needs_of, strategy_named
from cytoloop.domain.types import StoredPrediction
from cytoloop.pipeline.minutes import minutes_model
from cytoloop.pipeline.predictors import Predictor, offers_of
from labelstudio_config.payloads import confidence_of
from labelstudio_config.prelabel import prelabel

Progress = Callable[[str, int, int], None]

MAKING = "making "
"""Before the name of a ranking that is not whole yet, and not in force."""
_ALWAYS: frozenset[Need] = frozenset({"features", "cip"})
"""Asked for wherever it can be had, at next to no cost: to hold near-duplicates back, to tell what differs."""


def policies_of(store: Store, assay: Assay) -> dict[str, QueuePolicy]:
    """The policy in force of each queue of an assay."""
    return {
        queue: policy_in_force(assay, queue, store.queues.policy(assay.name, queue)) for queue in assay.queues
    }


def strategy_for(policy: QueuePolicy, offers: Collection[Need], version: str) -> Strategy:
    """The strategy that ranks a version's items: the policy's, or a simple one until there is a network.

    Raises
    ------
    ConfigError
        If a network lacks what the policy's strategy needs.
    """
    strategy = strategy_named(policy.strategy)
    if strategy.needs <= set(offers):
        return strategy
    if "network" not in offers:
        return strategy_named(COLD_START)
    strategy.check(offers, version)
    raise AssertionError("a strategy that lacks something is refused")


def check_policy(store: Store, assay: Assay, policy: QueuePolicy, where: str) -> None:
    """Refuse a policy that this home cannot follow.

    Raises
    ------
    ConfigError
        If a gold item is none of the assay's, or the strategy needs what the network in force lacks.
    """
    if policy.gold:
        known = {item_name(item) for item in store.images.tasks(assay.name)}
        unknown = [name for name in policy.gold if name not in known]
        if unknown:
            raise ConfigError(
                f"{where}: key 'gold': item {unknown[0]!r} is not in assay {assay.name!r}; "
                f"expected <image id>/<tile> of one of its {len(known)} items"
            )
    if store.assays.get(assay.name)["active_version"] is not None:
        model = store.models.active(assay.name)
        try:
            strategy_for(policy, offers_of(model), model.version)
        except ConfigError as error:
            raise ConfigError(f"{where}: key 'strategy': {error}") from None


def strategies_for(store: Store, assay: Assay, offers: Collection[Need], version: str) -> list[Strategy]:
    """Strategies of an assay's queues, each once; the first queue's, which orders all lists, first."""
    used = [strategy_for(policy, offers, version) for policy in policies_of(store, assay).values()]
    return list({strategy.name: strategy for strategy in used}.values())


def rank_everything(
    store: Store,
    assay: Assay,
    predictor: Predictor,
    progress: Progress | None = None,
    *,
    only: Collection[str] | None = None,
    most: int | None = None,
) -> int:
    """Predict and rank every image that this version has not seen; returns how many images that were.

    An interrupted ranking goes on where it was. What is ranked so far is in force at once, unless it is to take
    the place of a ranking: that one stays until the new one is whole. Where a strategy has changed, stored scores
    are ranked anew: nothing is predicted again, unless it looks for what was not looked for.

    Parameters
    ----------
    only : collection of str, optional
        Ids of the images that matter now; the others wait for another call.
    most : int, optional
        Images of one call.

    Raises
    ------
    ConfigError
        If a queue's strategy needs what the version lacks.
    """
    version = predictor.version
    main, *others = strategies_for(store, assay, predictor.offers, version)
    needs = (needs_of([main, *others]) | _ALWAYS) & predictor.offers
    there = store.scores.strategies(assay.name, version)
    for abandoned in there:  # the policy changed while it was made
        if abandoned.startswith(MAKING) and abandoned != MAKING + main.name:
            store.scores.forget(assay.name, version, abandoned)
    there = store.scores.strategies(assay.name, version)
    name = _begin(store, assay, version, main, others, there)
    new = [strategy for strategy in others if strategy.name not in there]
    minutes = minutes_model(store, assay.name)
    known = store.scores.images(assay.name, version, name) & store.predictions.images(assay.name, version)
    left = [record for record in store.images.all(assay.name) if record.image_id not in known]
    todo = [record for record in left if only is None or record.image_id in only][:most]
    for done, record in enumerate(todo, start=1):
        look = predictor.look(record, needs)
        predictions, ranked = prelabel(record, look, assay, version, main, minutes)
        store.predictions.put(assay.name, predictions)  # first: what is ranked can be shown
        store.scores.add(assay.name, version, name, ranked)
        if progress:
            progress("predict", done, len(todo))
    if name != main.name:
        if len(todo) < len(left):  # not whole: what is in force stays
            return len(todo)
        store.scores.put(assay.name, version, main.name, store.scores.all(assay.name, version, name))
        store.scores.forget(assay.name, version, name)
    count = store.scores.count(assay.name, version, main.name)
    for strategy in others:
        is_behind = strategy in new or store.scores.count(assay.name, version, strategy.name) < count
        if todo or is_behind:
            rows = _again(store, assay, version, main.name, strategy)
            store.scores.put(assay.name, version, strategy.name, rows)
    store.worklist.note_all(assay.name)  # a new ranking takes everything for open
    return len(todo)


def _begin(
    store: Store, assay: Assay, version: str, main: Strategy, others: list[Strategy], there: list[str]
) -> str:
    """The ranking to fill: the main strategy's, made of stored scores where they do.

    Where items must be looked at again although they are ranked already, it is filled under another name: what
    is in force stays until it is whole.
    """
    making = MAKING + main.name
    if making in there:
        return making
    if main.name not in there:
        source = next((name for name in there if _holds(store, assay, version, name, main)), None)
        if source is None and there:
            store.scores.put(assay.name, version, making, ())
            return making
        rows = _again(store, assay, version, source, main) if source else ()
        store.scores.put(assay.name, version, main.name, rows)
        _reorder(store, assay, version, main.name)
    new = [strategy for strategy in others if strategy.name not in there]
    if all(_holds(store, assay, version, main.name, strategy) for strategy in new):
        return main.name
    store.scores.put(assay.name, version, making, ())
    return making


def _holds(store: Store, assay: Assay, version: str, source: str, strategy: Strategy) -> bool:
    """Whether stored scores hold what another strategy ranks by."""
    try:
        for _ in _again(store, assay, version, source, strategy):
            pass
    except InputError:
        return False
    return True


def _again(store: Store, assay: Assay, version: str, source: str, strategy: Strategy) -> Iterator[Scored]:
    """Stored scores, valued by another strategy."""
    keys = {record.image_id: record.image_key for record in store.images.all(assay.name)}
    for scored in store.scores.all(assay.name, version, source):
        candidate = scored.candidate
        scores = ItemScores(
            values=scored.values,
            minutes=candidate.minutes or 1.0,
            features_F=None,
            reason=scored.reason,
        )
        value = strategy.value(scores, candidate.lot)
        confidence = confidence_of(value, keys[scored.item.image_id], scored.item.tile)
        yield replace(scored, candidate=replace(candidate, score=value, confidence=confidence))


def _reorder(store: Store, assay: Assay, version: str, strategy: str) -> None:
    """Let predictions that were stored already carry the scores of the ranking that orders the lists."""
    changed: list[StoredPrediction] = []
    for scored in store.scores.all(assay.name, version, strategy):
        stored = store.predictions.get(assay.name, version, scored.item)
        if stored is not None:
            candidate = scored.candidate
            changed.append(replace(stored, score=candidate.score, confidence=candidate.confidence))
    store.predictions.put(assay.name, changed)
