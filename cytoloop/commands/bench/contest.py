"""``cytoloop bench contest``: how often a contest promotes what gained nothing, and how often what did.

Everything is simulated as confusion matrices of wells: of unequal size and difficulty, 95 % background, some
treated so that a class is nearly absent or abundant, some out of focus. What a contest decides is decided by the
same function as in production (`jackknifed_gain`), for thousands of contests at once.

Legend: R contests side by side, G wells, F foreground classes, K classes, B bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

from cytoloop.commands.bench.figures import Figure, Tell
from cytoloop.domain.metrics.intervals import (
    draw_groups,
    iou_of_present,
    jackknifed_gain,
    resampled_mean_iou,
)
from cytoloop.domain.promotion import alpha_of
from cytoloop.domain.trainer_policy import ContestPolicy

Array = NDArray[np.float64]
Judge = Callable[[Array, Array, NDArray[np.int64]], NDArray[np.bool_]]
"""Given confusion matrices (R, G, K, K) of challenger and active version and the looks (R,): who is promoted."""

WRONG_PERCENT = 10.0
"""Bar: histories of 30 cycles that may have a wrong promotion."""
CYCLES = 30
REIGNS = 4000
"""Histories of 30 cycles for each rate."""
BOOTSTRAPPED_REIGNS, REPLICATES = 400, 1000
CONTESTS = 4000
"""For each share of promotions of a real gain."""
CALIBRATED = 40_000
"""Contests at the first look by which bounds are compared; a tenth of them where one resamples."""
POPULATION = 40_000
"""Wells over which a gain is set: large enough to be without chance."""
WELLS = (12, 16, 24)
LOOKS = (1, 5, 20)
GAINS = (0.005, 0.01, 0.02, 0.05, 0.1)
NOISE = 0.05
"""How far two trainings differ on a well, in logits: gains of nothing then have a standard error of 0.003 on 12
wells. On real plates it was 0.002 on 16 wells (docs/results.md, u2os, joint against MDL)."""

ITEM_PIXELS = 340 * 256
SHARES_F = np.array([0.023, 0.024])
"""Of the pixels (doi:10.1038/s41598-022-15623-7)."""
QUALITY_F = np.array([2.0, 2.4])
"""Logit of the recall on a typical well: IoU about 0.78 and 0.84."""
OBJECT_PIXELS = 40
CHURN = 0.1
"""Objects that come and go on a typical well, as a share of those found."""
RARE, COLLAPSE = 0.1, 3.0
"""Share of wells of a kind on which a challenger fails, and by how much, in logits."""
POLICY = ContestPolicy()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Wells:
    """Wells drawn at random, shape (R, G): what there is to be found, and how hard it is."""

    pixels_RG: Array
    size_RGF: Array
    """Pixels of each foreground class in the truth."""
    quality_RGF: Array
    """Logit of the recall of a version of typical quality."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a version makes of wells, in pixels of each foreground class, shape (R, G, F)."""

    hits_RGF: Array
    stray_RGF: Array
    """Background that is taken for the class."""

    def where(self, is_other_R: NDArray[np.bool_], other: Found) -> Found:
        """The other version where it took over."""
        is_other_R111 = is_other_R[:, None, None]
        return Found(
            hits_RGF=np.where(is_other_R111, other.hits_RGF, self.hits_RGF),
            stray_RGF=np.where(is_other_R111, other.stray_RGF, self.stray_RGF),
        )


# --- wells and versions --------------------------------------------------------------------------------------


def draw_wells(rng: np.random.Generator, reigns: int, wells: int) -> Wells:
    """One to three corrected items a well; 70 % typical wells, 15 % out of focus, 15 % treated."""
    shape = (reigns, wells)
    kind_RG = rng.choice(4, size=shape, p=[0.7, 0.15, 0.075, 0.075])
    pixels_RG = ITEM_PIXELS * rng.integers(1, 4, shape).astype(np.float64)
    share_RGF = SHARES_F * rng.lognormal(-0.25, 0.7, (*shape, 2))
    share_RGF[..., 1] *= np.choose(kind_RG, [1.0, 1.0, 0.05, 2.5])  # blocked, induced
    quality_RGF = QUALITY_F + rng.normal(0, 0.5, shape)[..., None] + rng.normal(0, 0.3, (*shape, 2))
    quality_RGF -= (kind_RG == 1)[..., None]
    return Wells(
        pixels_RG=pixels_RG,
        size_RGF=np.maximum(np.minimum(share_RGF, 0.2) * pixels_RG[..., None], OBJECT_PIXELS),
        quality_RGF=quality_RGF,
    )


def found_by(wells: Wells, shift_RGF: Array) -> Found:
    """What a version finds that is better than typical by so many logits."""
    quality_RGF = wells.quality_RGF + shift_RGF
    typical_RGF = (
        SHARES_F * wells.pixels_RG[..., None]
    )  # where there is little of a class, some is still imagined
    stray_RGF = np.exp(-np.maximum(quality_RGF, -2)) * (wells.size_RGF + typical_RGF) / 2
    return Found(
        hits_RGF=wells.size_RGF * expit(quality_RGF),
        stray_RGF=np.minimum(stray_RGF, 0.1 * wells.pixels_RG[..., None]),
    )


def noise(rng: np.random.Generator, wells: Wells) -> Array:
    """What a training left to chance, in logits: heavy-tailed (t with 3 degrees), shared by the classes of a well in
    part, larger on some wells than on others."""
    shape = wells.pixels_RG.shape
    scale_RG1 = NOISE / np.sqrt(3) * rng.lognormal(-0.125, 0.5, shape)[..., None]
    shift_RGF: Array = scale_RG1 * (
        0.8 * rng.standard_t(3, shape)[..., None] + 0.6 * rng.standard_t(3, (*shape, 2))
    )
    return shift_RGF


def flipped(rng: np.random.Generator, wells: Wells, active: Found) -> Found:
    """The active version's masks with whole objects flipped, as many lost as found on average."""
    missed_RGF = wells.size_RGF - active.hits_RGF

    def change(base_RGF: Array, room_RGF: Array) -> Array:
        """Objects found less objects lost; some wells change a lot, most hardly. Never more than fits either way."""
        busy_RG1 = rng.gamma(0.5, 2, wells.pixels_RG.shape)[..., None]
        mean_RGF = CHURN * busy_RG1 * base_RGF / OBJECT_PIXELS
        found_RGF, lost_RGF = (np.minimum(OBJECT_PIXELS * rng.poisson(mean_RGF), room_RGF) for _ in range(2))
        difference_RGF: Array = found_RGF - lost_RGF
        return difference_RGF

    return Found(
        hits_RGF=active.hits_RGF + change(active.hits_RGF, np.minimum(active.hits_RGF, missed_RGF)),
        stray_RGF=active.stray_RGF + change(active.stray_RGF, active.stray_RGF),
    )


def confusion_of(wells: Wells, found: Found) -> Array:
    """Confusion matrices (R, G, K, K), rows = truth; of what is missed, 15 % is taken for the other class."""
    missed_RGF = np.round(wells.size_RGF) - np.round(found.hits_RGF)
    mistaken_RGF = np.round(0.15 * missed_RGF)
    matrix = np.zeros((*wells.pixels_RG.shape, 3, 3))
    matrix[..., 0, 1:] = np.round(found.stray_RGF)
    matrix[..., 0, 0] = wells.pixels_RG - np.round(wells.size_RGF).sum(-1) - matrix[..., 0, 1:].sum(-1)
    for k, other in ((1, 2), (2, 1)):
        matrix[..., k, k] = np.round(found.hits_RGF[..., k - 1])
        matrix[..., k, other] = mistaken_RGF[..., k - 1]
        matrix[..., k, 0] = (missed_RGF - mistaken_RGF)[..., k - 1]
    return matrix


# --- who is promoted -----------------------------------------------------------------------------------------


def promoted(challenger: Array, active: Array, look_R: NDArray[np.int64]) -> NDArray[np.bool_]:
    """As `cytoloop.domain.promotion.decide` would have it, contest by contest."""
    gain = jackknifed_gain(challenger, active)
    alpha_R = np.array([alpha_of(int(look), POLICY.confidence) for look in look_R])
    is_proved_R: NDArray[np.bool_] = (gain.value_B > 0) & (gain.lower_bound(alpha_R) > 0)
    return is_proved_R & _no_class_falls(challenger, active)


def promoted_by_bootstrap(challenger: Array, active: Array, _look_R: NDArray[np.int64]) -> NDArray[np.bool_]:
    """By the 5th percentile of a bootstrap over wells, the same at every look: how it is not to be done."""
    low_R = percentile_bounds(challenger, active, 1 - POLICY.confidence)
    return (low_R > 0) & _no_class_falls(challenger, active)


def percentile_bounds(challenger: Array, active: Array, alpha: float) -> Array:
    """One-sided lower bound of each gain: a percentile of the gain over resampled wells."""
    times_BG = draw_groups(active.shape[1], REPLICATES, seed=0)
    return np.array(
        [
            np.quantile(resampled_mean_iou(one, times_BG) - resampled_mean_iou(other, times_BG), alpha)
            for one, other in zip(challenger, active, strict=True)
        ]
    )


def studentised_bounds(challenger: Array, active: Array, alpha: float) -> Array:
    """The same by the bootstrap-t, each replicate with a jackknife of its own (Efron & Tibshirani 1993, ch. 12)."""
    groups = active.shape[1]
    drawn_BG = np.random.default_rng(0).integers(0, groups, (REPLICATES, groups))
    whole = jackknifed_gain(challenger, active)
    bound_R = np.empty(len(active))
    for r, (one, other) in enumerate(zip(challenger, active, strict=True)):
        gain = jackknifed_gain(one[drawn_BG], other[drawn_BG])
        t_B = (gain.value_B - whole.value_B[r]) / np.maximum(gain.error_B, 1e-12)
        bound_R[r] = whole.value_B[r] - np.quantile(t_B, 1 - alpha) * whole.error_B[r]
    return bound_R


def _no_class_falls(challenger: Array, active: Array) -> NDArray[np.bool_]:
    fall_RK = iou_of_present(active.sum(axis=1)) - iou_of_present(challenger.sum(axis=1))
    is_kept_R: NDArray[np.bool_] = fall_RK.max(axis=-1) <= POLICY.max_class_drop
    return is_kept_R


# --- histories in which nothing was gained -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often it happened that a history of 30 cycles had a wrong promotion."""

    histories: int
    with_one: int
    promotions: int
    """In all; after one, the next contest is the first look again."""

    @property
    def share(self) -> float:
        """Of the histories, 0…1."""
        return self.with_one / self.histories

    @property
    def interval(self) -> tuple[float, float]:
        """Two-sided 95 % of the share (Clopper & Pearson 1934)."""
        found = stats.binomtest(self.with_one, self.histories).proportion_ci(0.95)
        return float(found.low), float(found.high)

    @property
    def per_contest(self) -> float:
        """Wrong promotions by contest, 0…1."""
        return self.promotions / (self.histories * CYCLES)


def null_histories(
    variant: str, wells: int, histories: int, *, judge: Judge = promoted, seed: int = 0
) -> Rate:
    """Histories of 30 cycles on the same wells; no challenger is better than what it meets.

    Parameters
    ----------
    variant : {'equal', 'flips', 'rare failures'}
        *equal*: versions differ from one quality, the same for all, by chance alone. *flips*: the challenger's
        masks are the active version's with objects flipped at random. *rare failures*: each challenger is
        better on nine wells in ten and fails on the tenth kind, so that over all wells nothing is gained.
    """
    rng = np.random.default_rng(seed)
    there = draw_wells(rng, histories, wells)
    active = found_by(there, noise(rng, there))
    is_rare_RG1 = (rng.random((histories, wells)) < RARE)[..., None]
    lift = shift_of_gain(0.0, has_rare_failures=True) if variant == "rare failures" else 0.0
    look_R: NDArray[np.int64] = np.ones(histories, np.int64)
    has_one_R, promotions = np.zeros(histories, bool), 0
    for _ in range(CYCLES):
        if variant == "flips":
            challenger = flipped(rng, there, active)
        else:
            failure_RG1 = COLLAPSE * is_rare_RG1 if variant == "rare failures" else 0.0
            challenger = found_by(there, noise(rng, there) + lift - failure_RG1)
        is_new_R = judge(confusion_of(there, challenger), confusion_of(there, active), look_R)
        has_one_R |= is_new_R
        promotions += int(is_new_R.sum())
        if variant != "rare failures":  # there the next challenger would need another kind to fail on
            active = active.where(is_new_R, challenger)
            look_R = np.where(is_new_R, 1, look_R + 1)
        else:
            look_R = look_R + 1
    return Rate(histories=histories, with_one=int(has_one_R.sum()), promotions=promotions)


def shift_of_gain(gain: float, *, has_rare_failures: bool = False) -> float:
    """Logits by which a version must be better everywhere to gain so much mean IoU over all wells."""
    there = draw_wells(np.random.default_rng(1), 1, POPULATION)
    rng = np.random.default_rng(2)
    active, chance_RGF = confusion_of(there, found_by(there, noise(rng, there))), noise(rng, there)
    failure = COLLAPSE * (rng.random((1, POPULATION, 1)) < RARE) if has_rare_failures else 0.0

    def gained(shift: float) -> float:
        better = confusion_of(there, found_by(there, chance_RGF + shift - failure))
        return float((_mean_iou(better) - _mean_iou(active))[0])

    low, high = -1.0, 3.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if gained(middle) > gain else (middle, high)
    return (low + high) / 2


def _mean_iou(matrix: Array) -> Array:
    mean_R: Array = iou_of_present(matrix.sum(axis=1)).mean(axis=-1)
    return mean_R


# --- what is told --------------------------------------------------------------------------------------------


def power(gain: float, wells: int, contests: int) -> dict[int, float]:
    """Share of contests that promote a challenger who gained so much over all wells, by look."""
    rng = np.random.default_rng(3)
    there = draw_wells(rng, contests, wells)
    active = confusion_of(there, found_by(there, noise(rng, there)))
    shift = shift_of_gain(gain)
    challenger = confusion_of(there, found_by(there, noise(rng, there) + shift))
    return {look: float(promoted(challenger, active, np.full(contests, look)).mean()) for look in LOOKS}


def calibration(wells: int) -> dict[str, float]:
    """Wrong promotions over those allowed at a first look (2.5 %), by the bound; 1 is right, more is too sure."""
    alpha = alpha_of(1, POLICY.confidence)
    rng = np.random.default_rng(4)
    there = draw_wells(rng, CALIBRATED, wells)
    one, other = (confusion_of(there, found_by(there, noise(rng, there))) for _ in range(2))
    gain = jackknifed_gain(one, other)
    few = slice(CALIBRATED // 10)  # resampling takes its time
    bounds = {
        "jackknife, Student's t": gain.lower_bound(alpha),
        "jackknife, normal": gain.value_B - stats.norm.isf(alpha) * gain.error_B,
        "percentile bootstrap": percentile_bounds(one[few], other[few], alpha),
        "bootstrap-t": studentised_bounds(one[few], other[few], alpha),
    }
    return {name: float((bound_R > 0).mean()) / alpha for name, bound_R in bounds.items()}


def contest_figures(tell: Tell) -> list[Figure]:
    """Wrong promotions beside their bar, then the power to promote a real gain, then bounds compared."""
    steps = len(WELLS) * (4 + len(GAINS)) + 1
    figures: list[Figure] = []
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        tell("contests", done, steps)

    def add(name: str, value: float, unit: str = "%", bar: float | None = None) -> None:
        figures.append(Figure(name=name, value=value, unit=unit, bar=bar))

    for variant in ("equal", "flips"):
        for wells in WELLS:
            rate = null_histories(variant, wells, REIGNS)
            name = f"{variant}, {wells} wells: 30 cycles with a wrong promotion"
            add(name, 100 * rate.share, bar=WRONG_PERCENT)
            add(f"{name}, from", 100 * rate.interval[0])
            add(f"{name}, to", 100 * rate.interval[1], bar=WRONG_PERCENT)
            add(f"{variant}, {wells} wells: wrong promotions by contest", 100 * rate.per_contest)
            step()
    for wells in WELLS:
        rate = null_histories("equal", wells, BOOTSTRAPPED_REIGNS, judge=promoted_by_bootstrap)
        add(f"equal, {wells} wells: the same by a bootstrap at 95 % each time", 100 * rate.share)
        step()
    for wells in WELLS:
        rate = null_histories("rare failures", wells, REIGNS)
        add(f"rare failures, {wells} wells: 30 cycles with a wrong promotion", 100 * rate.share)
        step()
    for wells in WELLS:
        for gain in GAINS:
            for look, share in power(gain, wells, CONTESTS).items():
                add(f"gain {gain:g}, {wells} wells, look {look}: promoted", 100 * share)
            step()
    for name, ratio in calibration(WELLS[0]).items():
        add(f"{WELLS[0]} wells, first look, {name}: wrong promotions", ratio, "x what is allowed")
    step()
    return figures
