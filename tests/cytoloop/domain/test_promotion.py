"""The contest: who is promoted, who is not, and what the sentence says."""

import json
import random

import numpy as np
import pytest

from cytoloop.domain.errors import ConfigError, InputError, ShapeError
from cytoloop.domain.promotion import ContestItem, alpha_of, decide
from cytoloop.domain.trainer_policy import ContestPolicy

NAMES = ("background", "phagophore", "autolysosome")
POLICY = ContestPolicy(min_groups=4, min_class_groups=3)


def confusion(*hits: int) -> np.ndarray:
    """Truth 900 / 50 / 50 pixels; ``hits`` of the last two classes found, the rest taken for background."""
    return np.array(
        [[900, 0, 0], [50 - hits[0], hits[0], 0], [50 - hits[1], 0, hits[1]]],
        np.int64,
    )


def contest(
    challenger: tuple[int, int], active: tuple[int, int], groups: int = 6, each: int = 4
) -> list[ContestItem]:
    return [
        ContestItem(
            image_id=f"w{g}",
            tile=tile,
            group=f"P1/B{g:02d}",
            confusion_challenger=confusion(*challenger),
            confusion_active=confusion(*active),
        )
        for g in range(groups)
        for tile in range(each)
    ]


def test_a_clear_gain_promotes() -> None:
    found = decide(contest((40, 40), (20, 20)), POLICY, NAMES)
    assert found.promote
    # foreground IoU 40/50 and 20/50; background 900/(900 + missed)
    assert found.mean_iou_challenger == pytest.approx((900 / 920 + 0.8 + 0.8) / 3)
    assert found.mean_iou_active == pytest.approx((900 / 960 + 0.4 + 0.4) / 3)
    assert found.lower_bound == pytest.approx(found.difference)  # all wells are alike
    assert (found.groups, found.items) == (6, 24)
    assert found.reason == (
        "promoted: mean IoU 0.86 against 0.58 on 24 items of 6 wells, "
        "gain +0.28 (97.5 % lower bound +0.28), no class fell"
    )


def test_a_tie_keeps_the_active() -> None:
    found = decide(contest((30, 30), (30, 30)), POLICY, NAMES)
    assert not found.promote
    assert found.difference == 0.0
    assert "as good as" in found.reason


def test_a_worse_challenger_is_rejected() -> None:
    found = decide(contest((20, 20), (40, 40)), POLICY, NAMES)
    assert not found.promote
    assert "not better" in found.reason
    assert "−0.28" in found.reason


def test_a_gain_that_one_well_carries_alone_may_be_chance() -> None:
    items = [
        *contest((20, 20), (22, 22), groups=5),
        ContestItem(
            image_id="lucky",
            tile=0,
            group="P1/Z01",
            confusion_challenger=20 * confusion(50, 50),
            confusion_active=20 * confusion(10, 10),
        ),
    ]
    found = decide(items, POLICY, NAMES)
    assert found.difference > 0.1
    assert found.lower_bound < 0
    assert not found.promote
    assert "may be chance" in found.reason


def test_items_of_a_well_count_as_one_witness() -> None:
    """The same items, once in wells of their own and once in few wells: fewer wells, wider bound."""
    rng = np.random.default_rng(3)
    hits = [(int(rng.integers(20, 50)), int(rng.integers(20, 50))) for _ in range(24)]

    def items(wells: int) -> list[ContestItem]:
        return [
            ContestItem(
                image_id=str(n),
                tile=0,
                group=f"w{n * wells // 24}",
                confusion_challenger=confusion(*(h + (4 if n < 12 else -2) for h in hits[n])).clip(0),
                confusion_active=confusion(*hits[n]),
            )
            for n in range(24)
        ]

    single, grouped = decide(items(24), POLICY, NAMES), decide(items(4), POLICY, NAMES)
    assert single.difference == pytest.approx(grouped.difference)
    assert grouped.lower_bound < single.lower_bound


def test_a_class_that_pays_for_the_gain_rejects() -> None:
    found = decide(contest((28, 45), (30, 20)), POLICY, NAMES)
    assert not found.promote
    assert found.lower_bound > 0
    assert "phagophore fell from 0.60 to 0.56" in found.reason
    assert [one.is_drop_too_large for one in found.classes] == [False, True, False]


def test_a_fall_of_just_the_allowed_size_passes_and_is_named() -> None:
    found = decide(contest((29, 45), (30, 20)), POLICY, NAMES)  # 0.60 -> 0.58
    assert found.promote
    assert found.reason.endswith("largest fall of a class phagophore −0.020")


def test_too_few_wells_are_named() -> None:
    found = decide(contest((50, 50), (10, 10), groups=3), POLICY, NAMES)
    assert not found.promote
    assert "3 wells are too few to judge, 4 are needed (1 more)" in found.reason
    assert np.isnan(found.lower_bound)
    assert found.difference > 0  # told, though not believed


def test_no_items_at_all() -> None:
    found = decide([], POLICY, NAMES)
    assert not found.promote
    assert "0 wells are too few to judge, 4 are needed (4 more)" in found.reason
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["mean_iou_active"] is None


def test_items_nobody_looked_at_take_no_part() -> None:
    blank = np.zeros((3, 3), np.int64)
    items = contest((40, 40), (20, 20), groups=3)
    items += [
        ContestItem(
            image_id="blank", tile=0, group="P1/Z09", confusion_challenger=blank, confusion_active=blank
        )
    ]
    found = decide(items, POLICY, NAMES)
    assert (found.groups, found.items) == (3, 12)
    assert not found.promote


def absent(wells: int) -> list[ContestItem]:
    """Items without any autolysosome; the challenger sees one."""
    stray = np.array([[899, 0, 1], [10, 40, 0], [0, 0, 0]], np.int64)
    clean = np.array([[900, 0, 0], [20, 30, 0], [0, 0, 0]], np.int64)
    return [
        ContestItem(
            image_id=str(n), tile=0, group=f"w{n}", confusion_challenger=stray, confusion_active=clean
        )
        for n in range(wells)
    ]


def test_a_class_absent_from_all_truth_lacks_wells() -> None:
    found = decide(absent(7), POLICY, NAMES)
    assert (found.promote, found.is_enough) == (False, False)
    assert found.lacking.classes == {"autolysosome": 3}
    assert found.reason == (
        "kept the active model: autolysosome is in 0 corrected contest wells, 3 are needed (3 more)"
    )


def test_a_class_that_twice_the_wells_do_not_show_is_left_out_and_named() -> None:
    found = decide(absent(8), POLICY, NAMES)
    assert found.promote
    assert found.left_out == ("autolysosome",)
    assert [one.name for one in found.classes] == ["background", "phagophore"]
    assert found.mean_iou_challenger == pytest.approx((899 / 910 + 40 / 50) / 2)
    assert "left out, since the truth holds none: autolysosome" in found.reason


def test_a_class_that_one_well_alone_holds_widens_the_bound() -> None:
    items = contest((40, 40), (20, 20))
    none = np.array([[950, 0, 0], [10, 40, 0], [0, 0, 0]], np.int64)
    items = items[:4] + [
        ContestItem(image_id=f"n{n}", tile=0, group=f"n{n}", confusion_challenger=none, confusion_active=none)
        for n in range(5)
    ]
    found = decide(items, ContestPolicy(min_groups=4, min_class_groups=1), NAMES)
    assert found.difference > 0
    assert np.isfinite(found.lower_bound)
    assert found.lower_bound < found.difference / 2


def test_the_order_of_the_items_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    items = [
        ContestItem(
            image_id=str(n),
            tile=0,
            group=f"w{n % 7}",
            confusion_challenger=confusion(int(rng.integers(10, 50)), int(rng.integers(10, 50))),
            confusion_active=confusion(int(rng.integers(10, 50)), int(rng.integers(10, 50))),
        )
        for n in range(21)
    ]
    shuffled = random.Random(5).sample(items, len(items))
    assert decide(items, POLICY, NAMES) == decide(shuffled, POLICY, NAMES)


def test_the_bound_is_the_jackknife_worked_by_hand() -> None:
    """One class, three wells: gains 0.1, 0.2 and 0.3 of 100 pixels each, so that the mean is their mean."""
    items = [
        ContestItem(
            image_id=str(n),
            tile=0,
            group=str(n),
            confusion_challenger=np.array([[0, 0], [40 - gain, 60 + gain]], np.int64),
            confusion_active=np.array([[0, 0], [40, 60]], np.int64),
        )
        for n, gain in enumerate((10, 20, 30))
    ]
    found = decide(items, ContestPolicy(min_groups=3, min_class_groups=3), ("background", "spot"))
    assert found.lacking.classes == {"background": 3}, "no pixel of it is in the truth"
    background = [
        ContestItem(
            image_id=item.image_id,
            tile=0,
            group=item.group,
            confusion_challenger=item.confusion_challenger + np.diag([10**9, 0]),
            confusion_active=item.confusion_active + np.diag([10**9, 0]),
        )
        for item in items
    ]
    found = decide(background, ContestPolicy(min_groups=3, min_class_groups=3), ("background", "spot"))
    # half of each gain (the background's IoU stays at 1); t of 97.5 % with 2 degrees of freedom is 4.303
    standard_error = 0.05 / np.sqrt(3)
    assert found.difference == pytest.approx(0.1, abs=1e-6)
    assert found.lower_bound == pytest.approx(0.1 - 4.302653 * standard_error, abs=1e-5)


def test_what_is_spent_over_any_number_of_contests_is_what_was_allowed() -> None:
    spent = [alpha_of(look, 0.95) for look in range(1, 10_000)]
    assert sum(spent) == pytest.approx(0.05, rel=1e-3)
    assert sum(spent) < 0.05
    assert spent == sorted(spent, reverse=True)


def test_a_later_contest_asks_for_more() -> None:
    rng = np.random.default_rng(4)
    items = [
        ContestItem(
            image_id=str(n),
            tile=0,
            group=f"w{n}",
            confusion_challenger=confusion(*(int(v) for v in rng.integers(21, 41, 2))),
            confusion_active=confusion(*(int(v) for v in rng.integers(20, 40, 2))),
        )
        for n in range(12)
    ]
    first, tenth = (decide(items, POLICY, NAMES, look=look) for look in (1, 10))
    assert first.difference == tenth.difference
    assert first.promote
    assert not tenth.promote
    assert "99.955 % lower bound" in tenth.reason
    assert "contest 10 of the active model" in tenth.reason
    with pytest.raises(InputError, match="look is 0, expected 1 or more"):
        decide(items, POLICY, NAMES, look=0)


def test_the_bound_is_rarely_above_zero_when_nothing_was_gained() -> None:
    """Both versions draw from one distribution: promotions by chance stay near the 2.5 % of a first contest."""
    rng = np.random.default_rng(11)
    policy = ContestPolicy()
    promoted = 0
    for _ in range(200):
        items = [
            ContestItem(
                image_id=str(n),
                tile=0,
                group=str(n),
                confusion_challenger=confusion(*(int(v) for v in rng.integers(20, 45, 2))),
                confusion_active=confusion(*(int(v) for v in rng.integers(20, 45, 2))),
            )
            for n in range(12)
        ]
        promoted += decide(items, policy, NAMES).lower_bound > 0
    assert promoted / 200 < 0.06


def test_unfair_or_impossible_contests_are_refused() -> None:
    good = contest((40, 40), (20, 20))
    with pytest.raises(InputError, match="come more than once"):
        decide([*good, good[0]], POLICY, NAMES)
    abstains = ContestItem(
        image_id="x",
        tile=1,
        group="w",
        confusion_challenger=confusion(10, 10) - np.array([[100, 0, 0], [0, 0, 0], [0, 0, 0]]),
        confusion_active=confusion(10, 10),
    )
    with pytest.raises(
        InputError, match=r"contest item 'x' tile 1: true pixels by class are \[800, 50, 50\]"
    ):
        decide([abstains], POLICY, NAMES)
    with pytest.raises(ShapeError, match=r"confusion matrix \(3, 3\), expected \(2, 2\)"):
        decide(good, POLICY, NAMES[:2])


@pytest.mark.parametrize(
    "wrong", [{"min_groups": 1}, {"confidence": 1.0}, {"max_class_drop": -0.1}, {"min_class_groups": 0}]
)
def test_policies_that_make_no_contest_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"trainer: contest.{next(iter(wrong))}: got"):
        ContestPolicy(**wrong)  # type: ignore[arg-type]


def null_contest(rng: np.random.Generator, found_G2: np.ndarray, size_G2: np.ndarray) -> list[ContestItem]:
    """Wells of unequal size and difficulty; the challenger is the active version plus heavy-tailed noise."""
    noisy_G2 = np.clip(found_G2 + 0.03 * rng.standard_t(3, found_G2.shape), 0, 1)
    return [
        ContestItem(
            image_id=str(g),
            tile=0,
            group=str(g),
            confusion_challenger=spotted(size_G2[g], noisy_G2[g]),
            confusion_active=spotted(size_G2[g], found_G2[g]),
        )
        for g in range(len(size_G2))
    ]


def spotted(size_2: np.ndarray, found_2: np.ndarray) -> np.ndarray:
    hits = np.round(size_2 * found_2)
    matrix = np.diag([85_000.0, *hits])
    matrix[1:, 0] = np.round(size_2) - hits
    return matrix


def test_thirty_null_cycles_rarely_promote_anything() -> None:
    """Of reigns of 30 contests on one set of 12 wells, at most one in ten may end by chance."""
    rng = np.random.default_rng(0)
    ended = 0
    for _ in range(100):
        size_G2 = rng.lognormal(6.5, 0.6, (12, 2))
        found_G2 = np.clip(rng.beta(8, 2, (12, 1)), 0.3, 0.85) * np.ones((1, 2))
        ended += any(
            decide(null_contest(rng, found_G2, size_G2), ContestPolicy(), NAMES, look=look).promote
            for look in range(1, 31)
        )
    assert ended <= 10
