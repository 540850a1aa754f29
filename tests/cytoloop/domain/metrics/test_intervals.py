import numpy as np
import pytest

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import pixel_metrics
from cytoloop.domain.metrics.intervals import (
    draw_groups,
    jackknifed_gain,
    mean_iou_interval,
    resampled_mean_iou,
)

GOOD = np.array([[90, 10], [10, 90]])  # IoU 90 / 110 for both classes
BAD = np.array([[50, 50], [50, 50]])  # IoU 50 / 150


def test_each_replicate_draws_as_many_groups_as_there_are() -> None:
    times_BG = draw_groups(7, 50, seed=1)
    assert times_BG.shape == (50, 7)
    assert (times_BG.sum(axis=1) == 7).all()
    assert (times_BG == draw_groups(7, 50, seed=1)).all()
    assert not (times_BG == draw_groups(7, 50, seed=2)).all()


def test_a_replicate_is_the_mean_iou_of_the_groups_it_drew() -> None:
    per_group = np.stack([GOOD, BAD])
    drawn = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    mixed = pixel_metrics(GOOD + BAD).mean_iou
    assert resampled_mean_iou(per_group, drawn).tolist() == pytest.approx([90 / 110, 50 / 150, mixed])


def test_a_class_the_drawn_truth_never_holds_is_left_out() -> None:
    stray = np.array([[99, 1], [0, 0]])  # one pixel called class 1 where the truth has none
    assert resampled_mean_iou(np.stack([stray]), np.ones((1, 1)))[0] == pytest.approx(0.99)


def test_equal_groups_leave_nothing_to_chance() -> None:
    interval = mean_iou_interval(np.stack([np.stack([GOOD] * 5)]))
    assert (interval.value, interval.low, interval.high) == pytest.approx((90 / 110,) * 3)


def test_a_pair_of_equals_gains_exactly_nothing_however_groups_differ() -> None:
    side = np.stack([np.stack([GOOD, BAD, GOOD, BAD])])
    gain = mean_iou_interval(side, side)
    assert (gain.value, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_pairing_takes_the_difficulty_of_groups_out() -> None:
    """One method gains a little in every group; groups differ a lot."""
    rng = np.random.default_rng(0)
    hit = rng.integers(300, 900, 12)
    base = np.stack([np.array([[9000, 1000 - h], [1000 - h, h]]) for h in hit])[None]
    better = np.stack([np.array([[9000, 990 - h], [990 - h, h + 10]]) for h in hit])[None]
    gain = mean_iou_interval(better, base)
    alone = mean_iou_interval(base)
    assert gain.low > 0
    assert gain.high - gain.low < 0.2 * (alone.high - alone.low)


def test_seeds_are_averaged_and_a_method_without_seeds_has_one() -> None:
    two_seeds = np.stack([np.stack([GOOD, GOOD]), np.stack([BAD, BAD])])
    assert mean_iou_interval(two_seeds).value == pytest.approx((90 / 110 + 50 / 150) / 2)
    gain = mean_iou_interval(two_seeds, np.stack([np.stack([BAD, BAD])]))
    assert gain.value == pytest.approx((90 / 110 - 50 / 150) / 2)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(InputError, match="1 group"):
        mean_iou_interval(GOOD[None, None])
    with pytest.raises(ShapeError, match="same groups"):
        mean_iou_interval(np.stack([GOOD, BAD])[None], np.stack([GOOD] * 3)[None])


def gains_of(*gains: int) -> tuple[np.ndarray, np.ndarray]:
    """A group a gain: 100 pixels of a class of which 60 were found, and so many more now; background untouched."""
    active = np.array([[[10**9, 0], [40, 60]] for _ in gains])
    challenger = np.array([[[10**9, 0], [40 - g, 60 + g]] for g in gains])
    return challenger, active


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    found = jackknifed_gain(*gains_of(10, 20, 30))
    assert float(found.value_B) == pytest.approx(0.1, abs=1e-6)
    assert float(found.error_B) == pytest.approx(0.05 / np.sqrt(3), abs=1e-6)
    assert float(found.lower_bound(0.025)) == pytest.approx(0.1 - 4.302653 * 0.05 / np.sqrt(3), abs=1e-5)


def test_groups_that_all_say_the_same_leave_no_doubt() -> None:
    found = jackknifed_gain(*gains_of(10, 10, 10, 10))
    assert float(found.error_B) == pytest.approx(0.0, abs=1e-9)
    assert float(found.lower_bound(1e-6)) == pytest.approx(float(found.value_B), abs=1e-7)


def test_many_gains_at_once_are_those_one_by_one() -> None:
    pairs = [gains_of(1, 5, 9), gains_of(-3, 0, 3)]
    together = jackknifed_gain(*(np.stack(side) for side in zip(*pairs, strict=True)))
    for n, pair in enumerate(pairs):
        alone = jackknifed_gain(*pair)
        assert together.value_B[n] == pytest.approx(float(alone.value_B))
        assert together.error_B[n] == pytest.approx(float(alone.error_B))


def test_a_gain_that_nobody_can_judge_is_refused() -> None:
    challenger, active = gains_of(1, 2, 3)
    with pytest.raises(InputError, match=r"gain: 1 group\(s\), expected at least 2"):
        jackknifed_gain(challenger[:1], active[:1])
    with pytest.raises(ShapeError, match=r"challenger \(3, 2, 2\), active \(2, 2, 2\)"):
        jackknifed_gain(challenger, active[:2])
