"""Strategies: what an item is worth to a queue, by name.

A name is a score (``entropy``), optionally per minute it will cost (``entropy/minute``), optionally
spread over what looks different (``entropy+diverse``, ``entropy/minute+diverse``) or standing for most of the
others (``entropy+typical``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.scoring import ItemScores

Need = Literal["network", "dropout", "cip", "augmentation", "features"]
"""What a version must have to be looked at in a way.

*network*: it is one, not CIP; *dropout*: it was trained with dropout, so that passes differ; *cip*:
there is a mask of CIP beside its own; *augmentation*: it can be asked about the image flipped and turned;
*features*: it can say what an item looks like.
"""
Spread = Literal["none", "diverse", "typical"]
NEEDS: tuple[Need, ...] = get_args(Need)

_MEANS: Mapping[Need, str] = {
    "network": "a network",
    "dropout": "a network trained with dropout",
    "cip": "a CIP mask beside its own",
    "augmentation": "predictions of the image flipped and turned",
    "features": "features to tell items apart",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a queue ranks: the higher the value of an item, the sooner it is asked."""

    name: str
    words: str
    """For people: what it asks first."""
    needs: frozenset[Need]
    """What a version must have."""
    spread: Spread
    """How a batch is spread over features: not at all, over what looks different (k-centre), or over what
    stands for most of the others (facility location)."""
    rank: Callable[[ItemScores, float], float]
    """Of an item's scores and its lot; see :meth:`value`."""

    def value(self, scores: ItemScores, lot: float) -> float:
        """What an item is worth, higher = ask sooner; finite and >= 0.

        Parameters
        ----------
        scores : ItemScores
            Made from a look that had what this strategy needs.
        lot : float
            Drawn once for each item, 0…1; only ``random`` looks at it.

        Raises
        ------
        InputError
            If the score it ranks by was not made, or the lot is outside 0…1.
        """
        if not 0.0 <= lot <= 1.0:
            raise InputError(f"strategy {self.name}: lot {lot}, expected 0…1")
        return self.rank(scores, lot)

    def check(self, available: Collection[Need], version: str) -> None:
        """Refuse a version that cannot be ranked this way.

        Raises
        ------
        ConfigError
            Naming the strategy, what is missing, and the version.
        """
        check_needs(self.needs, available, version, f"strategy {self.name}")


def check_needs(needs: Collection[Need], available: Collection[Need], version: str, who: str) -> None:
    """Refuse what ``version`` does not have (ConfigError), in the name of ``who`` asks."""
    missing = [need for need in NEEDS if need in needs and need not in available]
    if missing:
        told = " and ".join(_MEANS[need] for need in missing)
        raise ConfigError(f"{who} needs {told}, which version {version} lacks")


def needs_of(strategies: Iterable[Strategy]) -> frozenset[Need]:
    """What all of these need together: what a look must be asked for."""
    return frozenset().union(*(strategy.needs for strategy in strategies))


def strategy_named(name: str) -> Strategy:
    """The strategy of that name.

    Raises
    ------
    ConfigError
        If there is none; the message lists them.

    Examples
    --------
    >>> strategy_named("entropy/minute+diverse").words
    'the greatest doubt over foreground first, per expected minute, spread over what looks different'
    """
    try:
        return STRATEGIES[name]
    except KeyError:
        raise ConfigError(f"strategy {name!r}: expected one of {', '.join(STRATEGIES)}") from None


def _by_lot(scores: ItemScores, lot: float) -> float:
    return lot


def _alike(scores: ItemScores, lot: float) -> float:
    return 1.0


def _by_score(score: str, name: str, per_minute: bool) -> Callable[[ItemScores, float], float]:
    def rank(scores: ItemScores, lot: float) -> float:
        if score not in scores.values:
            made = ", ".join(scores.values) or "none"
            raise InputError(f"strategy {name}: scores {made}; expected {score} among them")
        value = scores.values[score]
        return value / scores.minutes if per_minute else value

    return rank


_SCORES: tuple[tuple[str, str, frozenset[Need]], ...] = (
    ("entropy", "the greatest doubt over foreground first", frozenset()),
    ("margin", "the closest call between two classes first", frozenset()),
    ("mutual-information", "what the weights know least of first", frozenset({"network", "dropout"})),
    ("disagreement", "where the model and the CIP differ most first", frozenset({"network", "cip"})),
    (
        "augmentation",
        "where flips and turns change the answer most first",
        frozenset({"network", "augmentation"}),
    ),
    ("effort", "what will cost most to correct first", frozenset()),
)


_SPREADS: Mapping[Spread, str] = {
    "diverse": "spread over what looks different",
    "typical": "what stands for most of the others before the odd ones",
}


def _all() -> Mapping[str, Strategy]:
    plain = [Strategy(name="random", words="at random", needs=frozenset(), spread="none", rank=_by_lot)]
    for score, words, needs in _SCORES:
        for per_minute in (False, True):
            name = f"{score}/minute" if per_minute else score
            plain.append(
                Strategy(
                    name=name,
                    words=f"{words}, per expected minute" if per_minute else words,
                    needs=needs,
                    spread="none",
                    rank=_by_score(score, name, per_minute),
                )
            )
    spread = [
        Strategy(
            name=f"{one.name}+{how}",
            words=f"{one.words}, {words}",
            needs=one.needs | {"features"},
            spread=how,
            rank=one.rank,
        )
        for how, words in _SPREADS.items()
        for one in plain
    ]
    typical = Strategy(
        name="typical",
        words="what stands for most of the others first",
        needs=frozenset({"features"}),
        spread="typical",
        rank=_alike,
    )
    return MappingProxyType({one.name: one for one in (*plain, typical, *spread)})


STRATEGIES: Mapping[str, Strategy] = _all()
"""Every strategy by name. There is no ``random/minute``: a draw that favours short items is none."""

DEFAULT_STRATEGY = "random+diverse"
"""The winner of the study in ``docs/ranking.md``; doubt costs an expert more minutes than it saves there."""
COLD_START = "entropy+diverse"
"""What ranks the items of a CIP where the queue's strategy needs a network: how much outline there is to
doubt, spread over what looks different."""
