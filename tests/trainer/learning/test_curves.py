import math

import numpy as np
import pytest

from cytoloop.domain.errors import InputError, ShapeError
from trainer.learning.curves import Curve, compare, paired_t_interval


def curve(*points: tuple[float, float]) -> Curve:
    minutes, scores = zip(*points, strict=True)
    return Curve(minutes_P=np.array(minutes), score_P=np.array(scores))


def test_area_is_the_mean_score_over_the_minutes() -> None:
    straight = curve((0, 0.5), (10, 0.7))
    assert straight.area(10) == pytest.approx(0.6)
    assert straight.area(5) == pytest.approx(0.55)
    assert straight.area(20) == pytest.approx((6.0 + 7.0) / 20), "beyond its end it stays at its last score"


def test_minutes_to_a_score_lie_on_the_line_before_it_is_first_reached() -> None:
    falling_back = curve((0, 0.5), (10, 0.8), (20, 0.6), (30, 0.9))
    assert falling_back.minutes_to(0.65) == pytest.approx(5)
    assert falling_back.minutes_to(0.5) == 0
    assert falling_back.minutes_to(0.85) == pytest.approx(20 + 10 * 0.25 / 0.3)
    assert falling_back.minutes_to(0.95) is None


@pytest.mark.parametrize(
    ("points", "error"),
    [
        ([(0, 0.5)], ShapeError),
        ([(0, 0.5), (10, math.nan)], InputError),
        ([(1, 0.5), (10, 0.6)], InputError),
        ([(0, 0.5), (10, 0.6), (10, 0.7)], InputError),
    ],
)
def test_what_is_no_curve_is_refused(points: list[tuple[float, float]], error: type[Exception]) -> None:
    with pytest.raises(error, match="curve"):
        curve(*points)


def test_strategies_are_compared_pair_by_pair() -> None:
    random = [curve((0, 0.5), (10, 0.7)), curve((0, 0.4), (10, 0.6))]
    twice_as_fast = [curve((0, 0.5), (5, 0.7), (10, 0.7)), curve((0, 0.4), (5, 0.6), (10, 0.6))]
    found = compare(twice_as_fast, random, [0.66, 0.56], 10)
    assert found.seeds == 2
    assert found.wins == 2
    assert found.gain.value == pytest.approx(0.05)
    assert found.gain.low == pytest.approx(0.05), "both seeds gain the same"
    assert found.ratios == pytest.approx((0.5, 0.5))
    assert found.median_ratio == pytest.approx(0.5)
    assert found.censored == 0


def test_a_curve_that_never_arrives_is_censored_and_counts() -> None:
    arrives, never = curve((0, 0.5), (10, 0.9)), curve((0, 0.5), (10, 0.6))
    only_random_fails = compare([arrives, arrives], [never, arrives], [0.7, 0.7], 10)
    assert only_random_fails.ratios == pytest.approx((0.5, 1.0)), "at most: random took longer than it lasted"
    assert only_random_fails.censored == 1
    only_the_strategy_fails = compare([never, never, arrives], [arrives] * 3, [0.7] * 3, 10)
    assert only_the_strategy_fails.ratios[:2] == (math.inf, math.inf)
    assert only_the_strategy_fails.median_ratio is None
    both_fail = compare([never, never], [never, never], [0.7, 0.7], 10)
    assert both_fail.ratios == (None, None)
    assert both_fail.median_ratio == 1.0
    assert both_fail.censored == 2


def test_the_interval_is_students() -> None:
    interval = paired_t_interval(np.array([0.01, 0.02, 0.03]))
    assert interval.value == pytest.approx(0.02)
    # standard error 0.01 / sqrt(3), t(0.975, 2) = 4.3027
    assert interval.high - interval.value == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)


def test_what_cannot_be_compared_is_refused() -> None:
    one = curve((0, 0.5), (10, 0.7))
    with pytest.raises(ShapeError, match="2 curves, 1 of random"):
        compare([one, one], [one], [0.6], 10)
    with pytest.raises(InputError, match="at least 2"):
        compare([one], [one], [0.6], 10)
    with pytest.raises(InputError, match="0 minutes"):
        one.area(0)
