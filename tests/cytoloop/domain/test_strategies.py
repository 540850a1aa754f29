"""Strategies by name: what they rank by, what they need, and who is refused."""

from __future__ import annotations

import numpy as np
import pytest

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.scoring import SCORES, ItemScores
from cytoloop.domain.strategies import (
    DEFAULT_STRATEGY,
    NEEDS,
    STRATEGIES,
    needs_of,
    strategy_named,
)

CIP = frozenset({"features"})
NETWORK = frozenset(NEEDS)


def scores(minutes: float = 2.0, **values: float) -> ItemScores:
    return ItemScores(
        values={name.replace("_", "-"): value for name, value in values.items()},
        minutes=minutes,
        features_F=np.ones(1, np.float32),
        reason="",
    )


def test_every_score_is_a_strategy_alone_per_minute_and_spread() -> None:
    expected = {"random", "typical"}
    for score in SCORES:
        expected |= {score, f"{score}/minute"}
    expected |= {f"{name}+{how}" for name in expected - {"typical"} for how in ("diverse", "typical")}
    assert set(STRATEGIES) == expected
    assert DEFAULT_STRATEGY in STRATEGIES
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert strategy.words
        assert (strategy.spread != "none") == ("features" in strategy.needs)
        assert (strategy.spread == "diverse") == name.endswith("+diverse")
        assert (strategy.spread == "typical") == name.endswith("typical")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("entropy", 0.6),
        ("entropy/minute", 0.3),
        ("entropy/minute+diverse", 0.3),
        ("mutual-information", 0.1),
        ("random", 0.25),
        ("random+diverse", 0.25),
    ],
)
def test_value(name: str, value: float) -> None:
    assert strategy_named(name).value(scores(entropy=0.6, mutual_information=0.1), lot=0.25) == pytest.approx(
        value
    )


def test_only_random_looks_at_the_lot() -> None:
    item = scores(entropy=0.6)
    assert strategy_named("entropy").value(item, 0.1) == strategy_named("entropy").value(item, 0.9)
    assert strategy_named("typical").value(item, 0.1) == strategy_named("typical").value(item, 0.9)
    assert strategy_named("random").value(item, 0.1) != strategy_named("random").value(item, 0.9)


def test_cip_can_be_ranked_by_what_a_mask_tells_and_a_network_by_all() -> None:
    of_cip = set()
    for name, strategy in STRATEGIES.items():
        strategy.check(NETWORK, "cdl-1")
        try:
            strategy.check(CIP, "cip-1")
        except ConfigError:
            continue
        of_cip.add(name.split("+")[0].split("/")[0])
    assert of_cip == {"random", "typical", "entropy", "margin", "effort"}


@pytest.mark.parametrize(
    ("name", "available", "message"),
    [
        (
            "mutual-information",
            NETWORK - {"dropout"},
            "strategy mutual-information needs a network trained with dropout, which version v lacks",
        ),
        (
            "disagreement",
            CIP,
            "strategy disagreement needs a network and a CIP mask beside its own, which version v lacks",
        ),
        ("entropy+diverse", frozenset(), "strategy entropy\\+diverse needs features to tell items apart"),
    ],
)
def test_a_version_that_lacks_something_is_refused_with_the_reason(
    name: str, available: frozenset[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        strategy_named(name).check(available, "v")  # type: ignore[arg-type]


def test_an_unknown_strategy_is_told_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"strategy 'entropi': expected one of random, entropy, entropy/minute"
    ):
        strategy_named("entropi")


def test_a_score_that_was_not_made_is_named() -> None:
    with pytest.raises(
        InputError, match="strategy margin/minute: scores entropy; expected margin among them"
    ):
        strategy_named("margin/minute").value(scores(entropy=1.0), 0.5)
    with pytest.raises(InputError, match=r"strategy random: lot 1.5, expected 0…1"):
        strategy_named("random").value(scores(entropy=1.0), 1.5)
    with pytest.raises(InputError, match="lot nan"):
        strategy_named("entropy").value(scores(entropy=1.0), float("nan"))


def test_a_look_for_several_strategies_is_asked_for_all_they_need() -> None:
    assert needs_of([]) == frozenset()
    assert needs_of(map(strategy_named, ("mutual-information", "disagreement+diverse"))) == {
        "network",
        "dropout",
        "cip",
        "features",
    }
