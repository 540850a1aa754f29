"""Learning curves in expert minutes, and what a strategy is worth beside random choice.

Seeds are paired: a strategy and random choice of one seed share the pool, the first model and the
judging images, so that what is compared is the difference of each pair.

Legend: P points of a curve, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.intervals import Interval

FULL_SHARE = 0.95
"""Of what full supervision reaches: where the minutes of two curves are compared."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """A score against minutes of work."""

    minutes_P: NDArray[np.float64]
    """Strictly rising, from 0."""
    score_P: NDArray[np.float64]
    """Higher is better, 0 … 1."""

    def __post_init__(self) -> None:
        if self.minutes_P.shape != self.score_P.shape or self.minutes_P.ndim != 1 or len(self.minutes_P) < 2:
            raise ShapeError(
                f"curve: minutes {self.minutes_P.shape}, scores {self.score_P.shape}; expected two or more of each"
            )
        if not np.isfinite(self.minutes_P).all() or not np.isfinite(self.score_P).all():
            raise InputError("curve: a value is not finite")
        if self.minutes_P[0] != 0 or (np.diff(self.minutes_P) <= 0).any():
            raise InputError(f"curve: minutes {self.minutes_P.tolist()}, expected to rise from 0")

    def at(self, minutes: float) -> float:
        """Score after so many minutes, between points along a straight line; the last one beyond the end."""
        return float(np.interp(minutes, self.minutes_P, self.score_P))

    def area(self, minutes: float) -> float:
        """Mean score from 0 to ``minutes``: the area under the curve, divided by its width.

        A curve that ends before goes on at its last score.
        """
        if not minutes > 0:
            raise InputError(f"curve: area over {minutes} minutes, expected more than 0")
        inside = self.minutes_P < minutes
        knots = np.append(self.minutes_P[inside], minutes)
        scores = np.append(self.score_P[inside], self.at(minutes))
        return float(np.trapezoid(scores, knots) / minutes)

    def minutes_to(self, score: float) -> float | None:
        """Minutes after which the score is first reached; None if it never is (censored)."""
        reached = np.flatnonzero(self.score_P >= score)
        if not len(reached):
            return None
        after = int(reached[0])
        if after == 0:
            return 0.0
        (m0, m1), (s0, s1) = self.minutes_P[after - 1 : after + 1], self.score_P[after - 1 : after + 1]
        return float(m0 + (score - s0) / (s1 - s0) * (m1 - m0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A strategy beside random choice, over paired seeds."""

    seeds: int
    gain: Interval
    """Difference of the areas; two-sided paired t-interval of the mean over seeds."""
    wins: int
    """Seeds whose area is larger than random choice's."""
    ratios: tuple[float | None, ...]
    """Minutes to the target relative to random choice, by seed. None: neither reached it."""
    median_ratio: float | None
    """None where too many are undecided to tell."""
    censored: int
    """Seeds of which one or both curves never reached the target."""


def compare(
    strategy: Sequence[Curve], random: Sequence[Curve], targets: Sequence[float], minutes: float
) -> Comparison:
    """Compare the curves of a strategy with those of random choice, seed by seed.

    A curve that never reaches its target is *censored*: it took longer than it lasted. If only random
    choice is, the ratio is told as at most (strategy's minutes) / (random's last minute); if only the
    strategy is, as infinite; if both are, nothing is known, and the seed counts as 1 in the median: neither
    way.

    Parameters
    ----------
    strategy, random : sequence of Curve
        One a seed, in the same order.
    targets : sequence of float
        By seed, the score to reach.
    minutes : float
        Areas are taken from 0 to here.

    Raises
    ------
    ShapeError
        If there is not one of each for every seed.
    InputError
        With fewer than two seeds: there is no interval of one difference.
    """
    if not len(strategy) == len(random) == len(targets):
        raise ShapeError(
            f"comparison: {len(strategy)} curves, {len(random)} of random choice, {len(targets)} targets; "
            "expected as many of each"
        )
    if len(strategy) < 2:
        raise InputError(f"comparison: {len(strategy)} seed(s), expected at least 2")
    gains_S = np.array([a.area(minutes) - b.area(minutes) for a, b in zip(strategy, random, strict=True)])
    pairs = list(zip(strategy, random, targets, strict=True))
    ratios = [_ratio(mine, theirs, target) for mine, theirs, target in pairs]
    undecided = sum(mine.minutes_to(t) is None or theirs.minutes_to(t) is None for mine, theirs, t in pairs)
    middle = median(1.0 if ratio is None else ratio for ratio in ratios)
    return Comparison(
        seeds=len(strategy),
        gain=paired_t_interval(gains_S),
        wins=int((gains_S > 0).sum()),
        ratios=tuple(ratios),
        median_ratio=middle if math.isfinite(middle) else None,
        censored=undecided,
    )


def paired_t_interval(differences_S: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Mean of paired differences with Student's two-sided interval."""
    mean = float(differences_S.mean())
    error = float(stats.sem(differences_S))
    half = error * float(stats.t.ppf((1 + confidence) / 2, len(differences_S) - 1))
    return Interval(value=mean, low=mean - half, high=mean + half, confidence=confidence)


def _ratio(mine: Curve, theirs: Curve, target: float) -> float | None:
    ours, random = mine.minutes_to(target), theirs.minutes_to(target)
    if ours is None and random is None:
        return None
    if ours is None:
        return math.inf
    random = float(theirs.minutes_P[-1]) if random is None else random
    if random == 0.0:
        return 1.0 if ours == 0.0 else math.inf
    return ours / random
