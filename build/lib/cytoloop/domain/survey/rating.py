"""Blind rating: what the ratings say; ``rating_design`` is how they come about.

The paper (Garcia Santa Cruz et al. 2022, doi:10.1038/s41598-022-15623-7) compares the methods by
Kolmogorov–Smirnov per expert, which ignores that each item was rated twice. That test is reported, and
beside it the paired one: Wilcoxon signed-rank with Pratt's treatment of zeros, Holm's correction over
experts, and the matched-pairs rank-biserial correlation with its interval.

``RatingReport.to_dict`` is what ``rating.json`` holds; numbers that are undefined are null::

    {
      "name": "rosella-1", "assay": "rosella", "method_a": "cip-…", "method_b": "cdl-…", "scale": [1, 10],
      "complete": true, "conclusion": "All 4 experts rated …",
      "progress":        [{"expert", "set", "done", "total", "left", "skipped", "by_others", "project_id"}],
      "distributions":   [{"expert", "set", "method", "n", "mean", "sd", "median", "minutes_median", "values"}],
      "methods":         [{"method", "n", "mean", "sd", "median", "minutes_median", "values",
                           "experts", "sd_over_experts"}],
      "between_methods": [{"expert", "pairs", "mean_difference", "ks", "ks_p", "wilcoxon", "wilcoxon_p", "holm_p",
                           "effect", "effect_low", "effect_high", "note"}],
      "between_sets":    [{"method", "sets": [1, 2], "ks", "ks_p"}],
      "minutes_median": 0.7
    }

``distributions`` has one entry an expert and method; its ``values`` are the ratings that a violin is drawn
from. Differences and effects are ``method_b`` minus ``method_a``: positive where b was rated higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, rankdata, wilcoxon

from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics.pixels import number_or_none
from cytoloop.domain.survey.study import Progress, missing_words
from cytoloop.domain.types import Item

SCALE = (1, 10)
"""Lowest and highest rating."""
ALPHA = 0.05
"""Corrected p below which an expert is said to see a difference."""
RESAMPLES = 2000
"""Bootstrap samples behind an interval."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """What one expert said of one picture."""

    expert: str
    set: int
    item: Item
    method: str
    value: int
    """1 (useless) … 10 (perfect)."""
    lead_time_s: float | None
    """Seconds the editor was open, as Label Studio counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Ratings of one method, by one expert or by all."""

    expert: str | None
    """None: all experts together."""
    set: int | None
    method: str
    values: tuple[int, ...]
    minutes_median: float
    """Per rating; NaN where no time is known."""

    @property
    def mean(self) -> float:
        """1 … 10; NaN without ratings."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def sd(self) -> float:
        """Sample standard deviation (n - 1); NaN below two ratings."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else float("nan")

    @property
    def median(self) -> float:
        """1 … 10; NaN without ratings."""
        return float(np.median(self.values)) if self.values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "expert": self.expert,
            "set": self.set,
            "method": self.method,
            "n": len(self.values),
            "mean": number_or_none(self.mean),
            "sd": number_or_none(self.sd),
            "median": number_or_none(self.median),
            "minutes_median": number_or_none(self.minutes_median),
            "values": list(self.values),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodTest:
    """The two methods in the eyes of one expert; differences are b minus a."""

    expert: str
    pairs: int
    """Items the expert rated with both masks."""
    mean_difference: float
    ks: float
    """Largest distance of the two cumulative distributions, 0 … 1, over all ratings of the expert."""
    ks_p: float
    wilcoxon: float
    """The smaller sum of signed ranks, 0 … pairs (pairs + 1) / 2."""
    wilcoxon_p: float
    holm_p: float
    """``wilcoxon_p`` corrected over the experts."""
    effect: float
    """Rank-biserial correlation: 1 where b was never rated lower, -1 where it was never rated higher."""
    effect_low: float
    effect_high: float
    """Bootstrap interval of the effect, 95 %."""
    note: str = ""
    """Why a figure is not what it seems, in words."""

    @property
    def favours(self) -> int:
        """1: method b, -1: method a, 0: no clear difference."""
        if not self.holm_p < ALPHA:
            return 0
        return int(np.sign(self.effect))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        numbers = {
            name: number_or_none(getattr(self, name))
            for name in (
                *("mean_difference", "ks", "ks_p", "wilcoxon", "wilcoxon_p", "holm_p"),
                *("effect", "effect_low", "effect_high"),
            )
        }
        return {"expert": self.expert, "pairs": self.pairs, **numbers, "note": self.note}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTest:
    """One method in two sets of items, rated by different experts (Kolmogorov–Smirnov).

    All ratings of a set count alike, although its experts rated the same items.
    """

    method: str
    sets: tuple[int, int]
    ks: float
    ks_p: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "method": self.method,
            "sets": list(self.sets),
            "ks": number_or_none(self.ks),
            "ks_p": number_or_none(self.ks_p),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingReport:
    """All that a blind rating says; the module's docstring shows its JSON."""

    name: str
    assay: str
    methods: tuple[str, str]
    progress: tuple[Progress, ...]
    distributions: tuple[Distribution, ...]
    """One an expert and method."""
    pooled: tuple[Distribution, ...]
    """One a method."""
    between_methods: tuple[MethodTest, ...]
    """One an expert."""
    between_sets: tuple[SetTest, ...]
    minutes_median: float

    @property
    def is_complete(self) -> bool:
        """Whether nobody has anything left."""
        return all(one.left == 0 for one in self.progress)

    @property
    def conclusion(self) -> str:
        """What a biologist should take home."""
        missing = missing_words(self.progress)
        said = _conclusion(self.methods, self.between_methods, self.pooled)
        return f"{missing} {said}".strip()

    def experts_mean(self, method: str) -> tuple[int, float]:
        """Experts who rated a method, and the standard deviation of their means (NaN below two)."""
        means = [one.mean for one in self.distributions if one.method == method and one.values]
        return len(means), float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what ``rating.json`` holds."""
        methods = []
        for one in self.pooled:
            experts, sd = self.experts_mean(one.method)
            document = {**one.to_dict(), "experts": experts, "sd_over_experts": number_or_none(sd)}
            methods.append({key: value for key, value in document.items() if key not in ("expert", "set")})
        return {
            "name": self.name,
            "assay": self.assay,
            "method_a": self.methods[0],
            "method_b": self.methods[1],
            "scale": list(SCALE),
            "complete": self.is_complete,
            "conclusion": self.conclusion,
            "progress": [one.to_dict() for one in self.progress],
            "distributions": [one.to_dict() for one in self.distributions],
            "methods": methods,
            "between_methods": [one.to_dict() for one in self.between_methods],
            "between_sets": [one.to_dict() for one in self.between_sets],
            "minutes_median": number_or_none(self.minutes_median),
        }


def rating_report(
    name: str,
    assay: str,
    methods: tuple[str, str],
    progress: Sequence[Progress],
    ratings: Sequence[Rating],
    rng: np.random.Generator,
) -> RatingReport:
    """Everything at once; experts with few or no ratings stay in, with NaN where nothing can be said.

    Parameters
    ----------
    rng : numpy.random.Generator
        For the bootstrap intervals alone.
    """
    distributions, tests = [], []
    for one in progress:
        mine = [rating for rating in ratings if rating.expert == one.expert]
        distributions += [_distribution(mine, method, one.expert, one.set) for method in methods]
        tests.append(_method_test(one.expert, mine, methods, rng))
    tested = [test for test in tests if not np.isnan(test.wilcoxon_p)]
    corrected = dict(
        zip((t.expert for t in tested), holm([t.wilcoxon_p for t in tested]), strict=True),
    )
    sets = sorted({one.set for one in progress})
    return RatingReport(
        name=name,
        assay=assay,
        methods=methods,
        progress=tuple(progress),
        distributions=tuple(distributions),
        pooled=tuple(_distribution(ratings, method, None, None) for method in methods),
        between_methods=tuple(
            replace(test, holm_p=corrected.get(test.expert, float("nan"))) for test in tests
        ),
        between_sets=tuple(
            _set_test(ratings, method, pair) for method in methods for pair in combinations(sets, 2)
        ),
        minutes_median=_minutes(ratings),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests, in the order given.

    The k-th smallest of m is multiplied by m - k + 1; none falls below a smaller one's, none passes 1
    (Holm 1979, Scand J Statist 6:65).

    Raises
    ------
    InputError
        If a value is not in 0…1.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    wrong = [p for p in p_values if not 0 <= p <= 1]
    if wrong:
        raise InputError(f"p values {wrong}, expected 0…1")
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[index]))
        corrected[index] = highest
    return corrected


def rank_biserial(differences: NDArray[np.floating]) -> NDArray[np.floating]:
    """Matched-pairs rank-biserial correlation of paired differences (Kerby 2014, doi:10.2466/11.IT.3.1).

    (W+ - W-) / (W+ + W-), W the sums of the ranks of \\|difference\\|; zeros take part in the ranking and
    then drop out (Pratt), as in the test beside it.

    Parameters
    ----------
    differences : ndarray of float, shape (..., pairs)

    Returns
    -------
    effect : ndarray of float, shape (...)
        -1 (all that differ are negative) … 1 (all positive); 0 where nothing differs.

    Examples
    --------
    >>> float(rank_biserial(np.array([0.0, 1.0, 2.0, -3.0])))  # ranks 2, 3 against 4
    0.1111111111111111
    """
    ranks = rankdata(np.abs(differences), axis=-1)
    positive = np.where(differences > 0, ranks, 0.0).sum(axis=-1)
    negative = np.where(differences < 0, ranks, 0.0).sum(axis=-1)
    both = positive + negative
    effect: NDArray[np.floating] = np.divide(
        positive - negative, both, out=np.zeros_like(both), where=both > 0
    )
    return effect


def rank_biserial_interval(
    differences: NDArray[np.floating], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Percentile bootstrap interval (95 %) of ``rank_biserial``: pairs drawn with replacement.

    It has no width where all differences have one sign: no drawing of them can have another.

    Parameters
    ----------
    differences : ndarray of float, shape (pairs,)
        At least one.
    """
    drawn = rng.choice(differences, (resamples, len(differences)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(rank_biserial(drawn), [tail, 100 - tail])
    return float(low), float(high)


def signed_rank_test(differences: NDArray[np.floating]) -> tuple[float, float]:
    """Wilcoxon signed-rank test with Pratt's zeros, two-sided: the smaller rank sum, and p.

    Where nothing differs the test has nothing to rank; that is (0, 1): no sign of a difference.

    Parameters
    ----------
    differences : ndarray of float, shape (pairs,)
        At least one.
    """
    if not np.any(differences):
        return 0.0, 1.0
    result = wilcoxon(differences, zero_method="pratt")
    return float(result.statistic), float(result.pvalue)


def _method_test(
    expert: str, ratings: Sequence[Rating], methods: tuple[str, str], rng: np.random.Generator
) -> MethodTest:
    a, b = ({r.item: r.value for r in ratings if r.method == method} for method in methods)
    differences = np.array([b[item] - a[item] for item in sorted(a.keys() & b.keys())], np.float64)
    ks, ks_p = _ks(list(a.values()), list(b.values()))
    unknown = float("nan")
    if differences.size == 0:
        return MethodTest(
            expert=expert,
            pairs=0,
            mean_difference=unknown,
            ks=ks,
            ks_p=ks_p,
            wilcoxon=unknown,
            wilcoxon_p=unknown,
            holm_p=unknown,
            effect=unknown,
            effect_low=unknown,
            effect_high=unknown,
            note="no item rated with both masks yet",
        )
    statistic, p = signed_rank_test(differences)
    low, high = rank_biserial_interval(differences, rng)
    return MethodTest(
        expert=expert,
        pairs=len(differences),
        mean_difference=float(differences.mean()),
        ks=ks,
        ks_p=ks_p,
        wilcoxon=statistic,
        wilcoxon_p=p,
        holm_p=unknown,
        effect=float(rank_biserial(differences)),
        effect_low=low,
        effect_high=high,
        note="" if differences.any() else "every item got the same rating with both masks",
    )


def _set_test(ratings: Sequence[Rating], method: str, sets: tuple[int, int]) -> SetTest:
    one, other = ([r.value for r in ratings if r.method == method and r.set == s] for s in sets)
    ks, ks_p = _ks(one, other)
    return SetTest(method=method, sets=sets, ks=ks, ks_p=ks_p)


def _ks(one: Sequence[int], other: Sequence[int]) -> tuple[float, float]:
    """Kolmogorov–Smirnov, two-sided; on ratings, which are full of ties, its p errs to the large side."""
    if not one or not other:
        return float("nan"), float("nan")
    result = ks_2samp(one, other)
    return float(result.statistic), float(result.pvalue)


def _distribution(
    ratings: Sequence[Rating], method: str, expert: str | None, set_: int | None
) -> Distribution:
    mine = [rating for rating in ratings if rating.method == method]
    return Distribution(
        expert=expert,
        set=set_,
        method=method,
        values=tuple(rating.value for rating in mine),
        minutes_median=_minutes(mine),
    )


def _minutes(ratings: Sequence[Rating]) -> float:
    seconds = [rating.lead_time_s for rating in ratings if rating.lead_time_s is not None]
    return float(np.median(seconds)) / 60 if seconds else float("nan")


def _conclusion(methods: tuple[str, str], tests: Sequence[MethodTest], pooled: Sequence[Distribution]) -> str:
    judged = [test for test in tests if test.pairs]
    if not judged:
        return "Nobody has rated an item with both masks yet."
    a, b = methods
    means = " against ".join(
        f"{one.mean:.1f} ± {one.sd:.1f} ({one.method})" for one in reversed(pooled)
    ).replace(" ± nan", "")
    for_b, for_a, for_none = ([test.expert for test in judged if test.favours == side] for side in (1, -1, 0))
    total = len(judged)
    proof = f"mean ± SD {means}; Wilcoxon signed-rank, p < {ALPHA} after Holm's correction"
    who = "The one expert" if total == 1 else f"All {total} experts"
    if len(for_b) == total:
        return f"{who} rated {b} higher than {a} ({proof})."
    if len(for_a) == total:
        return f"{who} rated {a} higher than {b} ({proof})."
    if len(for_none) == total:
        whoever = "The one expert did not rate" if total == 1 else f"None of the {total} experts rated"
        return f"{whoever} one method clearly higher than the other ({means}; no p below {ALPHA})."
    parts = [
        f"{len(group)} {words}"
        for group, words in (
            (for_b, f"rated {b} higher"),
            (for_a, f"rated {a} higher"),
            (for_none, "saw no clear difference"),
        )
        if group
    ]
    verdict = "The experts disagree" if for_a and for_b else "Not every expert is convinced"
    return f"{verdict}: of {total}, {', '.join(parts)} ({proof})."
