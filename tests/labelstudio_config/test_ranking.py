"""Ranking every item by a version: once, resumably, and again without a network where only the strategy changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import BATCH, Painted, Tiny, add_plate, make_tiny, write_fields

from cytoloop.domain.errors import ConfigError
from cytoloop.domain.expected_effort import Timing
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.strategies import Need
from cytoloop.domain.types import Item
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.batches import ranked_by
from labelstudio_config.ranking import (
    MAKING,
    policies_of,
    rank_everything,
    strategies_for,
    strategy_for,
)

NEW = "cdl-20260101-0123abcd"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.set_policy(BATCH)
    yield made
    made.store.close()


def order(tiny: Tiny, strategy: str, version: str = NEW) -> list[Item]:
    """Every item of a ranking, the first to be asked first."""
    found = tiny.store.scores.all(tiny.name, version, strategy)
    return [one.item for one in sorted(found, key=lambda one: one.candidate.confidence)]


def by_confidence(tiny: Tiny, version: str = NEW) -> list[Item]:
    return [item for item, *_ in tiny.store.predictions.ranked(tiny.name, version)]


# --- every item, once ---


def test_every_image_is_looked_at_once(tiny: Tiny) -> None:
    told: list[tuple[str, int, int]] = []
    painted = tiny.add_version(NEW)
    assert rank_everything(tiny.store, tiny.assay, painted, lambda *step: told.append(step)) == 4
    assert told == [("predict", done, 4) for done in (1, 2, 3, 4)]
    assert tiny.store.scores.count(tiny.name, NEW, "entropy") == 16
    assert tiny.store.predictions.count(tiny.name, NEW) == 16
    assert rank_everything(tiny.store, tiny.assay, painted) == 0
    assert painted.looks == 4


def test_candidates_know_their_well_and_split(tiny: Tiny) -> None:
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW))
    groups = tiny.store.images.groups(tiny.name)
    candidates = [one.candidate for one in tiny.store.scores.all(tiny.name, NEW, "entropy")]
    assert len(candidates) == 16
    assert all(c.group == f"P/{c.item.image_id[2:]}" and c.split == groups[c.group] for c in candidates)


def test_the_order_of_the_ranking_is_that_of_what_label_studio_is_told(tiny: Tiny) -> None:
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW))
    for one in tiny.store.scores.all(tiny.name, NEW, "entropy"):
        stored = tiny.store.predictions.get(tiny.name, NEW, one.item)
        assert stored is not None
        candidate = one.candidate
        assert (stored.score, stored.confidence) == (candidate.score, candidate.confidence)
        assert one.reason == stored.reason


def test_an_interrupted_ranking_goes_on_where_it_was(tiny: Tiny) -> None:
    painted = tiny.add_version(NEW)
    cut = "P-A03"

    class PowerCut(Exception):
        pass

    class Cut(Painted):
        def look(self, record, needs):  # type: ignore[no-untyped-def]
            if record.image_id == cut:
                raise PowerCut
            return super().look(record, needs)

    with pytest.raises(PowerCut):
        rank_everything(tiny.store, tiny.assay, Cut(NEW, tiny.truth))
    assert tiny.store.scores.count(tiny.name, NEW, "entropy") == 8
    assert rank_everything(tiny.store, tiny.assay, painted) == 2
    assert painted.looks == 2
    assert tiny.store.scores.count(tiny.name, NEW, "entropy") == 16


def test_a_part_of_the_images_can_be_ranked_ahead(tiny: Tiny) -> None:
    painted = tiny.add_version(NEW)
    assert rank_everything(tiny.store, tiny.assay, painted, only={"P-A03", "P-A04"}) == 2
    assert {item.image_id for item in order(tiny, "entropy")} == {"P-A03", "P-A04"}
    assert rank_everything(tiny.store, tiny.assay, painted, only={"P-A03"}) == 0
    assert rank_everything(tiny.store, tiny.assay, painted, most=1) == 1
    assert rank_everything(tiny.store, tiny.assay, painted, most=5) == 1
    assert len(order(tiny, "entropy")) == 16
    assert painted.looks == 4


def test_a_ranking_in_force_stays_until_the_one_that_takes_its_place_is_whole(tiny: Tiny) -> None:
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW))
    painted = Painted(NEW, tiny.truth, offers=("network", "features", "cip"))
    tiny.set_policy(replace(BATCH, strategy="disagreement"))
    for _ in range(3):
        assert rank_everything(tiny.store, tiny.assay, painted, most=1) == 1
        assert tiny.store.scores.strategies(tiny.name, NEW) == ["entropy", MAKING + "disagreement"]
    assert rank_everything(tiny.store, tiny.assay, painted, most=1) == 1
    assert "disagreement" in tiny.store.scores.strategies(tiny.name, NEW)
    assert len(order(tiny, "disagreement")) == 16


def test_predictions_that_are_lost_are_made_again(tiny: Tiny) -> None:
    painted = tiny.add_version(NEW)
    rank_everything(tiny.store, tiny.assay, painted)
    tiny.store.predictions.forget(tiny.name, NEW)
    assert rank_everything(tiny.store, tiny.assay, painted) == 4
    assert tiny.store.predictions.count(tiny.name, NEW) == 16
    assert tiny.store.scores.count(tiny.name, NEW, "entropy") == 16


def test_images_that_come_later_join_every_queues_ranking(tiny: Tiny, tmp_path: Path) -> None:
    tiny.assay = replace(tiny.assay, queues=("a", "b"))
    tiny.set_policy(QueuePolicy(strategy="entropy"), "a")
    tiny.set_policy(QueuePolicy(strategy="margin"), "b")
    painted = tiny.add_version(NEW)
    rank_everything(tiny.store, tiny.assay, painted)
    tiny.truth |= write_fields(tmp_path / "more", ["C01"])
    add_plate(tiny, tmp_path / "more")
    assert rank_everything(tiny.store, tiny.assay, Painted(NEW, tiny.truth)) == 1
    assert [tiny.store.scores.count(tiny.name, NEW, name) for name in ("entropy", "margin")] == [20, 20]


def test_what_experts_finished_is_closed_in_a_new_ranking(tiny: Tiny) -> None:
    tiny.publish_active()
    held = tiny.held()
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW))
    flagged = tiny.store.scores.top(tiny.name, NEW, "entropy", "train", 100)
    assert flagged
    assert not {one.item for one in flagged} & set(held), "without looking each up"


# --- under which strategy ---


def test_each_queue_has_the_ranking_of_its_strategy(tiny: Tiny) -> None:
    tiny.assay = replace(tiny.assay, queues=("a", "b", "c"))
    for queue, strategy in (("a", "margin"), ("b", "random"), ("c", "margin")):
        tiny.set_policy(QueuePolicy(strategy=strategy), queue)
    painted = tiny.add_version(NEW)
    named = strategies_for(tiny.store, tiny.assay, painted.offers, NEW)
    assert [strategy.name for strategy in named] == ["margin", "random"]
    rank_everything(tiny.store, tiny.assay, painted)
    assert painted.looks == 4
    assert tiny.store.scores.strategies(tiny.name, NEW) == ["margin", "random"]
    lots = {one.item: one.candidate.lot for one in tiny.store.scores.all(tiny.name, NEW, "random")}
    assert order(tiny, "random") == sorted(lots, key=lambda item: -lots[item])
    assert order(tiny, "margin") == by_confidence(tiny), "the first queue's orders the lists"
    assert order(tiny, "random") != order(tiny, "margin")


def test_a_changed_strategy_ranks_anew_without_predicting(tiny: Tiny) -> None:
    painted = tiny.add_version(NEW)
    rank_everything(tiny.store, tiny.assay, painted)
    results = {item: tiny.store.predictions.get(tiny.name, NEW, item).result for item in tiny.items()}  # type: ignore[union-attr]
    tiny.set_policy(replace(BATCH, strategy="random"))
    assert rank_everything(tiny.store, tiny.assay, painted) == 0
    assert painted.looks == 4
    assert by_confidence(tiny) == order(tiny, "random") != order(tiny, "entropy")
    assert {i: tiny.store.predictions.get(tiny.name, NEW, i).result for i in tiny.items()} == results  # type: ignore[union-attr]


@pytest.mark.parametrize("queue", ["a", "b"])
def test_a_strategy_that_looks_for_what_was_not_looked_for_looks_again(tiny: Tiny, queue: str) -> None:
    """Whether it is the queue that orders the lists or another one."""
    tiny.assay = replace(tiny.assay, queues=("a", "b"))
    tiny.set_policy(BATCH)
    painted = tiny.add_version(NEW, ("network", "dropout", "cip"))
    rank_everything(tiny.store, tiny.assay, painted)
    tiny.set_policy(QueuePolicy(strategy="disagreement"), queue)
    assert rank_everything(tiny.store, tiny.assay, painted) == 0, "CIP's mask was at hand"
    tiny.set_policy(QueuePolicy(strategy="mutual-information"), queue)
    assert rank_everything(tiny.store, tiny.assay, painted) == 4
    assert painted.looks == 8
    ranked = list(tiny.store.scores.all(tiny.name, NEW, "mutual-information"))
    assert len(ranked) == 16
    assert all(one.candidate.score == one.values["mutual-information"] > 0 for one in ranked)
    assert rank_everything(tiny.store, tiny.assay, painted) == 0
    tiny.set_policy(BATCH)
    assert rank_everything(tiny.store, tiny.assay, painted) == 0, "and knows the rest from before"


def test_a_ranking_that_was_cut_off_after_a_change_is_completed(tiny: Tiny) -> None:
    """Also that of another queue than the one that orders the lists."""
    tiny.assay = replace(tiny.assay, queues=("a", "b"))
    painted = tiny.add_version(NEW)
    tiny.set_policy(BATCH)
    tiny.set_policy(QueuePolicy(strategy="margin"), "b")
    rank_everything(tiny.store, tiny.assay, painted)
    some = list(tiny.store.scores.all(tiny.name, NEW, "margin"))[:8]
    tiny.store.scores.put(tiny.name, NEW, "margin", some)
    assert rank_everything(tiny.store, tiny.assay, painted) == 0
    assert tiny.store.scores.count(tiny.name, NEW, "margin") == 16


class PowerCut(Exception):
    """The process ends here."""


class Cut(Painted):
    """A network that ends the process when it is to look at the last image."""

    def look(self, record, needs):  # type: ignore[no-untyped-def]
        if record.image_id == "P-A04":
            raise PowerCut
        return super().look(record, needs)


def test_while_items_are_looked_at_anew_the_old_ranking_stays_in_force(tiny: Tiny) -> None:
    """Half a ranking would hand out the best of that half."""
    offers: tuple[Need, ...] = ("network", "dropout", "cip")
    tiny.set_policy(replace(BATCH, strategy="margin"))
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW, offers))
    before = order(tiny, "margin")
    policy = replace(BATCH, strategy="mutual-information")
    tiny.set_policy(policy)
    cut = Cut(NEW, tiny.truth, offers)
    with pytest.raises(PowerCut):
        rank_everything(tiny.store, tiny.assay, cut)
    assert cut.looks == 3
    assert f"{MAKING}mutual-information" in tiny.store.scores.strategies(tiny.name, NEW)
    assert ranked_by(tiny.store, tiny.assay, policy, NEW) == "margin"
    assert order(tiny, "margin") == before
    painted = Painted(NEW, tiny.truth, offers)
    assert rank_everything(tiny.store, tiny.assay, painted) == 1, "it goes on where it was"
    assert ranked_by(tiny.store, tiny.assay, policy, NEW) == "mutual-information"
    assert tiny.store.scores.count(tiny.name, NEW, "mutual-information") == 16
    assert tiny.store.scores.strategies(tiny.name, NEW) == ["margin", "mutual-information"]


def test_half_a_ranking_is_no_source_of_another(tiny: Tiny) -> None:
    """The policy changed once more, while items were looked at anew."""
    offers: tuple[Need, ...] = ("network", "dropout", "cip")
    rank_everything(tiny.store, tiny.assay, tiny.add_version(NEW, offers))
    cut = Cut(NEW, tiny.truth, offers)
    for strategy in ("mutual-information", "mutual-information/minute"):
        policy = replace(BATCH, strategy=strategy)
        tiny.set_policy(policy)
        with pytest.raises(PowerCut):
            rank_everything(tiny.store, tiny.assay, cut)
        assert ranked_by(tiny.store, tiny.assay, policy, NEW) == "entropy"
    rank_everything(tiny.store, tiny.assay, Painted(NEW, tiny.truth, offers))
    assert tiny.store.scores.count(tiny.name, NEW, strategy) == 16
    assert ranked_by(tiny.store, tiny.assay, policy, NEW) == strategy


def test_a_strategy_that_needs_what_a_network_lacks_is_refused(tiny: Tiny) -> None:
    tiny.set_policy(QueuePolicy(strategy="mutual-information/minute"))
    painted = tiny.add_version(NEW)
    message = (
        f"strategy mutual-information/minute needs a network trained with dropout, which version {NEW} lacks"
    )
    with pytest.raises(ConfigError, match=message):
        rank_everything(tiny.store, tiny.assay, painted)
    assert painted.looks == 0
    assert tiny.store.scores.strategies(tiny.name, NEW) == []


def test_a_strategy_that_needs_a_network_is_stood_in_for_while_there_is_none(tiny: Tiny) -> None:
    tiny.set_policy(QueuePolicy(strategy="disagreement/minute"))
    cip = load_predictor(tiny.store, tiny.registry, tiny.assay, tiny.store.models.active(tiny.name))
    (policy,) = policies_of(tiny.store, tiny.assay).values()
    assert strategy_for(policy, cip.offers, cip.version).name == "entropy+diverse"
    assert rank_everything(tiny.store, tiny.assay, cip) == 4
    assert tiny.store.scores.strategies(tiny.name, cip.version) == ["entropy+diverse"]
    ranked = list(tiny.store.scores.all(tiny.name, cip.version, "entropy+diverse"))
    assert all(one.candidate.features_F is not None for one in ranked), "to spread the first batches"


def test_the_policy_of_the_home_goes_before_the_assay_files(tiny: Tiny) -> None:
    tiny.assay = replace(
        tiny.assay, queues=("a", "b", "c"), queue_policies={"a": {"size": 3}, "b": {"size": 4}}
    )
    tiny.set_policy(QueuePolicy(strategy="entropy", size=5), "b")
    assert {q: policy.size for q, policy in policies_of(tiny.store, tiny.assay).items()} == {
        "a": 3,
        "b": 5,
        "c": QueuePolicy(strategy="entropy").size,
    }


def test_minutes_in_a_ranking_are_at_the_fixed_prices_whatever_experts_took(tiny: Tiny) -> None:
    """Each expert has a scale; a ranking that had one built in would be scaled twice."""
    painted = tiny.add_version(NEW)
    rank_everything(tiny.store, tiny.assay, painted)
    fixed = {one.item: one.candidate.minutes for one in tiny.store.scores.all(tiny.name, NEW, "entropy")}
    for number in range(200):
        timing = Timing(expert="ada@lab.org", expected_minutes=1.0, lead_time_s=300.0)
        tiny.store.handouts.add_timing(tiny.name, number, timing)
    tiny.store.scores.forget(tiny.name, NEW)
    rank_everything(tiny.store, tiny.assay, painted)
    for one in tiny.store.scores.all(tiny.name, NEW, "entropy"):
        assert one.candidate.minutes == pytest.approx(fixed[one.item])
