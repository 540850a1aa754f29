"""What ratings say, against numbers worked by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from cytoloop.domain.errors import InputError
from cytoloop.domain.survey.rating import (
    Rating,
    RatingReport,
    holm,
    rank_biserial,
    rank_biserial_interval,
    rating_report,
    signed_rank_test,
)
from cytoloop.domain.survey.study import Progress
from cytoloop.domain.types import Item

A, B = "cip-20240517-00000000", "cdl-20240518-11111111"


# --- statistics, by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_p", "expected"),
    [
        # Holm's textbook case: 0.01 x 4, 0.02 x 3, then 0.03 x 2 = 0.06 and 0.04 x 1 lifted to 0.06.
        ([0.01, 0.04, 0.03, 0.02], [0.04, 0.06, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.2], [0.2]),
        ([], []),
    ],
)
def test_holm_steps_down(given_p: list[float], expected: list[float]) -> None:
    assert holm(given_p) == pytest.approx(expected)


def test_holm_refuses_what_is_no_p() -> None:
    with pytest.raises(InputError, match=r"p values \[1.5\]"):
        holm([0.1, 1.5])


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1, 2, 3], 1.0),
        ([-1, -2], -1.0),
        ([0, 0], 0.0),
        # |d| 1 1 2 4 -> ranks 1.5 1.5 3 4: W+ = 1.5 + 3 + 4 = 8.5, W- = 1.5, effect 7 / 10
        ([1, -1, 2, 4], 0.7),
        # Pratt: the zero takes rank 1, |−2| 2, |3| 3: (3 − 2) / 5
        ([0, -2, 3], 0.2),
    ],
)
def test_rank_biserial_by_hand(differences: list[int], expected: float) -> None:
    assert float(rank_biserial(np.array(differences, float))) == pytest.approx(expected)


def test_signed_ranks_by_hand() -> None:
    # 5 positive differences: smaller sum 0, two-sided exact p = 2 / 2^5
    assert signed_rank_test(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == (0.0, 0.0625)
    # Pratt: zero ranks first and drops out, so -2 has rank 2
    assert signed_rank_test(np.array([0.0, -2.0, 3.0, 4.0]))[0] == 2.0


def test_nothing_but_ties_is_no_sign_of_a_difference() -> None:
    assert signed_rank_test(np.zeros(20)) == (0.0, 1.0)
    assert rank_biserial_interval(np.zeros(20), np.random.default_rng(0)) == (0.0, 0.0)


def test_the_interval_covers_the_effect_and_narrows() -> None:
    rng = np.random.default_rng(4)
    few, many = (np.tile([3.0, -2.0, 1.0, 2.0, -1.0], n) for n in (2, 40))
    widths = []
    for differences in (few, many):
        low, high = rank_biserial_interval(differences, rng)
        assert -1 <= low < float(rank_biserial(differences)) < high <= 1
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    assert rank_biserial_interval(np.array([1.0, 2.0]), rng) == (1.0, 1.0)


# --- the report --------------------------------------------------------------------------------------------


def ratings_of(
    expert: str, set_: int, a: Sequence[int], b: Sequence[int], seconds: float = 30
) -> list[Rating]:
    return [
        Rating(
            expert=expert,
            set=set_,
            item=Item(image_id=f"s{set_}-{n}", tile=0),
            method=method,
            value=value,
            lead_time_s=seconds,
        )
        for method, values in ((A, a), (B, b))
        for n, value in enumerate(values)
    ]


def report_of(*ratings: Rating, total: int = 40) -> RatingReport:
    sets = {one.expert: one.set for one in ratings}
    progress = [
        Progress(
            expert=expert, set=set_, done=sum(r.expert == expert for r in ratings), total=total, project_id=n
        )
        for n, (expert, set_) in enumerate(sets.items(), start=1)
    ]
    return rating_report("r1", "rosella", (A, B), progress, ratings, np.random.default_rng(0))


def test_the_paper_s_ks_is_reached_when_20_ratings_do_not_overlap() -> None:
    report = report_of(*ratings_of("ada", 1, [4, 5] * 10, [8, 9] * 10))
    [test] = report.between_methods
    # 2 / C(40, 20): the paper's smallest p is of this order
    assert test.ks == 1.0
    assert test.ks_p == pytest.approx(1.451e-11, rel=1e-3)
    assert (test.pairs, test.mean_difference, test.effect, test.favours) == (20, 4.0, 1.0, 1)
    assert (test.effect_low, test.effect_high) == (1.0, 1.0)
    assert report.is_complete
    assert report.conclusion == (
        f"The one expert rated {B} higher than {A} (mean ± SD 8.5 ± 0.5 ({B}) against 4.5 ± 0.5 ({A}); "
        "Wilcoxon signed-rank, p < 0.05 after Holm's correction)."
    )


def test_means_and_spreads_by_hand() -> None:
    report = report_of(
        *ratings_of("ada", 1, [2, 4], [6, 8], seconds=30), *ratings_of("bob", 2, [6, 8], [9, 9], seconds=90)
    )
    document = report.to_dict()
    first = document["distributions"][0]
    assert (first["expert"], first["set"], first["method"], first["n"]) == ("ada", 1, A, 2)
    assert (first["mean"], first["median"], first["values"]) == (3.0, 3.0, [2, 4])
    assert first["sd"] == pytest.approx(2**0.5)
    pooled = document["methods"][0]
    assert (pooled["method"], pooled["n"], pooled["mean"], pooled["experts"]) == (A, 4, 5.0, 2)
    # experts' means are 3 and 7
    assert pooled["sd_over_experts"] == pytest.approx(8**0.5)
    assert document["minutes_median"] == 1.0
    # bob's set against ada's: 2 4 | 6 8 do not overlap
    assert document["between_sets"][0] == {
        "method": A,
        "sets": [1, 2],
        "ks": 1.0,
        "ks_p": pytest.approx(1 / 3),
    }
    assert not document["complete"]
    assert document["conclusion"].startswith("Incomplete: 72 of 80 tasks are open (ada 36, bob 36). None of")
    json.dumps(document, allow_nan=False)


def test_holm_runs_over_the_experts() -> None:
    low, high = [3, 4, 5, 4, 3, 2, 4, 5], [6, 8, 7, 9, 5, 7, 8, 9]
    report = report_of(*ratings_of("ada", 1, low, high), *ratings_of("bob", 1, low, low))
    ada, bob = report.between_methods
    assert ada.holm_p == pytest.approx(2 * ada.wilcoxon_p)
    assert (bob.wilcoxon_p, bob.holm_p, bob.effect, bob.favours) == (1.0, 1.0, 0.0, 0)
    assert bob.note == "every item got the same rating with both masks"
    assert "Not every expert is convinced: of 2, 1 rated" in report.conclusion
    assert "1 saw no clear difference" in report.conclusion


def test_experts_who_contradict_each_other_are_said_to() -> None:
    low, high = [3, 4, 5, 4, 3, 2, 4, 5, 3], [6, 8, 7, 9, 5, 7, 8, 9, 8]
    both = [*ratings_of("ada", 1, low, high), *ratings_of("bob", 2, high, low)]
    assert report_of(*both).conclusion.partition(". ")[2].startswith("The experts disagree: of 2, 1 rated")
    for a, b, better in ((low, high, B), (high, low, A)):
        agreeing = [*ratings_of("ada", 1, a, b), *ratings_of("bob", 2, a, b)]
        assert f"All 2 experts rated {better} higher than" in report_of(*agreeing).conclusion


def test_who_has_rated_nothing_or_one_side_only_stays_in_without_numbers() -> None:
    progress = [
        Progress(expert=expert, set=1, done=done, total=8, project_id=1)
        for expert, done in (("ada", 0), ("bob", 1))
    ]
    one_sided = ratings_of("bob", 1, [5], [])
    report = rating_report("r1", "rosella", (A, B), progress, one_sided, np.random.default_rng(0))
    assert [test.pairs for test in report.between_methods] == [0, 0]
    assert report.between_methods[0].note == "no item rated with both masks yet"
    assert report.conclusion.endswith("Nobody has rated an item with both masks yet.")
    document = report.to_dict()
    assert document["between_methods"][1]["holm_p"] is None
    assert document["distributions"][0]["mean"] is None
    json.dumps(document, allow_nan=False)
