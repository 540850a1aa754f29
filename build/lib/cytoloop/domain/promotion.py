"""The contest: may a challenger replace the active version? Pure decision, no I/O.

Both versions predict the same items of the contest groups. The gain in mean IoU is judged over *groups*
(wells): items of a well share cells, staining and focus, and taking them one by one would claim more
certainty than there is. The active version keeps its place unless the challenger is better beyond doubt and
no class pays for it.

Legend: G groups, K classes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.contest_needs import Lacking, lacking_wells
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.intervals import iou_of_present, jackknifed_gain
from cytoloop.domain.metrics.pixels import mean_ignoring_nan, number_or_none
from cytoloop.domain.trainer_policy import ContestPolicy

_ROUNDING = (
    1e-9  # a drop of exactly the allowed size is allowed, and no gain a tie, whatever binary fractions say
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContestItem:
    """What two versions made of one item of the contest split."""

    image_id: str
    tile: int
    group: str
    """The well, or whatever must not straddle a split."""
    confusion_challenger: NDArray[np.int64]
    """(K, K) pixel counts, rows = truth."""
    confusion_active: NDArray[np.int64]
    """(K, K) pixel counts, rows = truth; the row sums are those of the challenger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassContest:
    """One class in the contest."""

    name: str
    iou_challenger: float
    iou_active: float
    difference: float
    """Challenger minus active; negative = the class fell."""
    groups: int
    """Wells whose truth holds the class."""
    is_drop_too_large: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestDecision:
    """Promote or keep, why, and the numbers behind it (NaN where too little was measured)."""

    promote: bool
    reason: str
    """One sentence for a human."""
    mean_iou_challenger: float
    mean_iou_active: float
    difference: float
    lower_bound: float
    """Of the difference, one-sided, at ``confidence``; NaN if there are too few groups."""
    confidence: float
    """Of the bound: 1 − ``alpha``."""
    look: int
    """Which contest of the active version this is, from 1."""
    alpha: float
    """Share of wrong promotions that this contest is allowed, out of what the policy allows in all."""
    lacking: Lacking
    classes: tuple[ClassContest, ...]
    class_groups: Mapping[str, int]
    """For every class, wells whose truth holds it."""
    left_out: tuple[str, ...]
    """Classes the truth of the contest never holds: they cannot be judged."""
    groups: int
    """Wells with a counted pixel."""
    items: int

    @property
    def is_enough(self) -> bool:
        """Whether there were wells enough to judge by."""
        return not self.lacking

    def to_dict(self) -> dict[str, Any]:
        """The decision as JSON; what is undefined is None."""
        return {
            "promote": self.promote,
            "reason": self.reason,
            "mean_iou_challenger": number_or_none(self.mean_iou_challenger),
            "mean_iou_active": number_or_none(self.mean_iou_active),
            "difference": number_or_none(self.difference),
            "lower_bound": number_or_none(self.lower_bound),
            "confidence": self.confidence,
            "look": self.look,
            "alpha": self.alpha,
            "is_enough": self.is_enough,
            "lacking": {"groups": self.lacking.groups, "classes": dict(self.lacking.classes)},
            "classes": [
                {
                    "name": one.name,
                    "iou_challenger": number_or_none(one.iou_challenger),
                    "iou_active": number_or_none(one.iou_active),
                    "difference": number_or_none(one.difference),
                    "groups": one.groups,
                    "is_drop_too_large": one.is_drop_too_large,
                }
                for one in self.classes
            ],
            "class_groups": dict(self.class_groups),
            "left_out": list(self.left_out),
            "groups": self.groups,
            "items": self.items,
        }


def alpha_of(look: int, confidence: float) -> float:
    """Share of wrong promotions that one contest is allowed.

    A version that stands contest after contest on the same wells would lose one by chance in the end. What the
    policy allows in all, 1 − ``confidence``, is therefore spent over the contests: 1 / (k (k + 1)) of it on the
    k-th, which sums to the whole however many there are. Spending by union bound asks nothing of how the contests
    depend on each other.

    Parameters
    ----------
    look : int
        Which contest of a version this is, from 1.
    confidence : float
        Over all contests, 0.5…1.

    Examples
    --------
    >>> [round(alpha_of(look, 0.95), 4) for look in (1, 2, 3, 10)]
    [0.025, 0.0083, 0.0042, 0.0005]
    """
    return (1 - confidence) / (look * (look + 1))


def decide(
    items: Sequence[ContestItem],
    policy: ContestPolicy,
    class_names: Sequence[str],
    *,
    look: int = 1,
    wells: int | None = None,
) -> ContestDecision:
    """Judge a challenger against the active version on the same items.

    The challenger is promoted if all of this holds: enough groups took part, and enough of them hold each
    class; its mean IoU (from summed confusion matrices, over the classes the truth holds) is higher; the lower
    bound of that gain is above zero; no class lost more IoU than allowed. A tie keeps the active version.

    The bound is that of a jackknife over groups with Student's t (`jackknifed_gain`), at the share of wrong
    promotions that this look is allowed (`alpha_of`). Measured on contests in which nothing was gained, it
    keeps to that share at a dozen wells and far out in the tail, where a bootstrap is too sure of
    itself (docs/contest.md).

    A class that the truth never holds lacks wells like any other, until `lacking_wells` gives it up: then it is
    left out, and the reason says so.

    Parameters
    ----------
    items : sequence of ContestItem
        Each item once. Items without a counted pixel (nobody looked at them) take no part.
    policy : ContestPolicy
    class_names : sequence of str
        K names by pixel value, background first.
    look : int
        Which contest of the active version this is since it came into force, from 1; those that found too few
        groups do not count.
    wells : int, optional
        Contest wells there are, corrected or not: once all count, a class that none holds is not waited for any
        longer. None: not known.

    Returns
    -------
    ContestDecision
        The same for any order of ``items``.

    Raises
    ------
    ShapeError
        If a matrix is not (K, K).
    InputError
        If an item comes twice, or the two versions were not judged on the same pixels of an item (a
        version that leaves pixels out would choose its own questions); if ``look`` is below 1, or there are
        fewer ``wells`` than took part.
    """
    if look < 1:
        raise InputError(f"contest: look is {look}, expected 1 or more")
    class_count = len(class_names)
    _check(items, class_count)
    counted = [item for item in items if item.confusion_active.sum() > 0]
    groups = sorted({item.group for item in counted})
    if wells is not None and wells < len(groups):
        raise InputError(f"contest: {wells} wells in all, expected at least the {len(groups)} that took part")
    place = {group: g for g, group in enumerate(groups)}
    challenger_GKK = np.zeros((len(groups), class_count, class_count))
    active_GKK = np.zeros_like(challenger_GKK)
    for item in counted:
        challenger_GKK[place[item.group]] += item.confusion_challenger
        active_GKK[place[item.group]] += item.confusion_active

    iou_challenger_K = iou_of_present(challenger_GKK.sum(axis=0))
    iou_active_K = iou_of_present(active_GKK.sum(axis=0))
    groups_K = (active_GKK.sum(axis=2) > 0).sum(axis=0)
    present = groups_K > 0
    mean_challenger = float(mean_ignoring_nan(iou_challenger_K))
    mean_active = float(mean_ignoring_nan(iou_active_K))
    classes = tuple(
        ClassContest(
            name=name,
            iou_challenger=float(iou_challenger_K[k]),
            iou_active=float(iou_active_K[k]),
            difference=float(iou_challenger_K[k] - iou_active_K[k]),
            groups=int(groups_K[k]),
            is_drop_too_large=bool(iou_active_K[k] - iou_challenger_K[k] > policy.max_class_drop + _ROUNDING),
        )
        for k, name in enumerate(class_names)
        if present[k]
    )
    alpha = alpha_of(look, policy.confidence)
    class_groups = dict(zip(class_names, groups_K.tolist(), strict=True))
    lacking = lacking_wells(len(groups), class_groups, policy, wells)
    lower_bound = float("nan")
    if not lacking:
        lower_bound = float(jackknifed_gain(challenger_GKK, active_GKK).lower_bound(alpha))
    bound = _Bound(value=lower_bound, alpha=alpha, look=look)
    promote, reason = _verdict(
        mean_challenger, mean_active, bound, classes, lacking, len(counted), len(groups), policy
    )
    left_out = tuple(name for k, name in enumerate(class_names) if not present[k])
    if left_out and counted and not lacking:
        reason += f" (left out, since the truth holds none: {', '.join(left_out)})"
    return ContestDecision(
        promote=promote,
        reason=reason,
        mean_iou_challenger=mean_challenger,
        mean_iou_active=mean_active,
        difference=mean_challenger - mean_active,
        lower_bound=lower_bound,
        confidence=1 - alpha,
        look=look,
        alpha=alpha,
        lacking=lacking,
        classes=classes,
        class_groups=class_groups,
        left_out=left_out,
        groups=len(groups),
        items=len(counted),
    )


def _check(items: Sequence[ContestItem], class_count: int) -> None:
    """Refuse items that make the comparison unfair or impossible."""
    for item in items:
        where = f"contest item {item.image_id!r} tile {item.tile}"
        for side in (item.confusion_challenger, item.confusion_active):
            if side.shape != (class_count, class_count):
                raise ShapeError(
                    f"{where}: confusion matrix {side.shape}, expected ({class_count}, {class_count})"
                )
        truth_challenger = item.confusion_challenger.sum(axis=1)
        truth_active = item.confusion_active.sum(axis=1)
        if not np.array_equal(truth_challenger, truth_active):
            raise InputError(
                f"{where}: true pixels by class are {truth_challenger.tolist()} for the challenger and "
                f"{truth_active.tolist()} for the active version, expected the same pixels for both"
            )
    twice = [key for key, n in Counter((item.image_id, item.tile) for item in items).items() if n > 1]
    if twice:
        raise InputError(f"contest: items {twice} come more than once, expected each item once")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    value: float
    alpha: float
    look: int

    def told(self, digits: int) -> str:
        # two digits of what is allowed: 97.5 %, 99.17 % … however near to 100 % a late contest comes
        places = max(0, 1 - math.floor(math.log10(100 * self.alpha)))
        confidence = f"{100 * (1 - self.alpha):.{places}f}"
        if "." in confidence:
            confidence = confidence.rstrip("0").rstrip(".")
        words = f"{confidence} % lower bound {_signed(self.value, digits)}"
        return words if self.look == 1 else f"{words}, contest {self.look} of the active model"


def _verdict(
    challenger: float,
    active: float,
    bound: _Bound,
    classes: Sequence[ClassContest],
    lacking: Lacking,
    item_count: int,
    group_count: int,
    policy: ContestPolicy,
) -> tuple[bool, str]:
    """Promote or not, and the sentence that says why."""
    if lacking:
        return False, f"kept the active model: {_too_few(lacking, group_count, policy)}"
    difference = challenger - active
    # Two digits are what a human compares; a third where two would print a real difference as zero.
    digits = 2 if min(abs(difference), abs(bound.value)) >= 0.005 else 3
    scope = (
        f"mean IoU {challenger:.{digits}f} against {active:.{digits}f} on {_count(item_count, 'item')} "
        f"of {_count(group_count, 'well')}"
    )
    gain = f"{_signed(difference, digits)} ({bound.told(digits)})"
    if not difference > _ROUNDING:
        how = "as good as" if abs(difference) <= _ROUNDING else "not better than"
        return False, f"kept the active model: the challenger is {how} it, {scope}, difference {gain}"
    if not bound.value > 0:
        return False, f"kept the active model: the gain may be chance, {scope}, gain {gain}"
    fallen = [one for one in classes if one.is_drop_too_large]
    if fallen:
        told = ", ".join(
            f"{one.name} fell from {one.iou_active:.2f} to {one.iou_challenger:.2f}" for one in fallen
        )
        return False, (
            f"kept the active model: {told} (IoU), more than the {policy.max_class_drop:g} allowed, "
            f"although the mean rose: {scope}, gain {gain}"
        )
    worst = min(classes, key=lambda one: one.difference)
    if worst.difference < 0:
        falls = f"largest fall of a class {worst.name} {_signed(worst.difference, 3)}"
    else:
        falls = "no class fell"
    return True, f"promoted: {scope}, gain {gain}, {falls}"


def _too_few(lacking: Lacking, group_count: int, policy: ContestPolicy) -> str:
    told = []
    if lacking.groups:
        told.append(
            f"corrected contest items of {_count(group_count, 'well')} are too few to judge, "
            f"{policy.min_groups} are needed ({lacking.groups} more)"
        )
    told += [
        f"{name} is in {_count(policy.min_class_groups - more, 'corrected contest well')}, "
        f"{policy.min_class_groups} are needed ({more} more)"
        for name, more in lacking.classes.items()
        if not lacking.groups or more > lacking.groups
    ]
    return "; ".join(told)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _signed(value: float, digits: int) -> str:
    """A signed number with a real minus; a bound that rounds to zero keeps its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")
