"""The contest: may a challenger replace the active version? Pure decision, no I/O.

Both versions predict the same items of the contest groups. The gain in mean IoU is judged with a
paired bootstrap over *groups* (wells): items of a well share cells, staining and focus, and resampling
them one by one would claim more certainty than there is. The active version keeps its place unless
the challenger is better beyond doubt and no class pays for it.

Legend: G groups, K classes, B bootstrap replicates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.errors import ConfigError, InputError, ShapeError
from cytoloop.domain.metrics.intervals import draw_groups, iou_of_present, resampled_mean_iou
from cytoloop.domain.metrics.pixels import mean_ignoring_nan, number_or_none

_ROUNDING = 1e-9  # a drop of exactly the allowed size is allowed, whatever binary fractions say


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
class ContestPolicy:
    """What a challenger has to prove."""

    min_groups: int = 4
    """Groups below which nothing is proved, however large the gain."""
    confidence: float = 0.95
    """One-sided: the gain's lower bound at this confidence must be above zero."""
    max_class_drop: float = 0.02
    """Largest fall of one class's IoU that is accepted, as a share (0.02 = 2 percentage points)."""
    bootstrap: int = 2000
    """Replicates."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that make no contest."""
        expected = {
            "min_groups": (self.min_groups >= 2, "at least 2"),
            "confidence": (0.5 < self.confidence < 1, "between 0.5 and 1"),
            "max_class_drop": (0 <= self.max_class_drop <= 1, "0…1"),
            "bootstrap": (self.bootstrap >= 100, "at least 100"),
        }
        for key, (holds, wanted) in expected.items():
            if not holds:
                raise ConfigError(f"contest policy: {key} is {getattr(self, key)}, expected {wanted}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassContest:
    """One class in the contest."""

    name: str
    iou_challenger: float
    iou_active: float
    difference: float
    """Challenger minus active; negative = the class fell."""
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
    """Of the difference, one-sided, at the policy's confidence; NaN if there are too few groups."""
    confidence: float
    classes: tuple[ClassContest, ...]
    left_out: tuple[str, ...]
    """Classes the truth of the contest never holds: they cannot be judged."""
    groups: int
    items: int

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
            "classes": [
                {
                    "name": one.name,
                    "iou_challenger": number_or_none(one.iou_challenger),
                    "iou_active": number_or_none(one.iou_active),
                    "difference": number_or_none(one.difference),
                    "is_drop_too_large": one.is_drop_too_large,
                }
                for one in self.classes
            ],
            "left_out": list(self.left_out),
            "groups": self.groups,
            "items": self.items,
        }


def decide(
    items: Sequence[ContestItem], policy: ContestPolicy, class_names: Sequence[str]
) -> ContestDecision:
    """Judge a challenger against the active version on the same items.

    The challenger is promoted if all of this holds: enough groups took part; its mean IoU (from summed
    confusion matrices, over the classes the truth holds) is higher; the lower bound of that gain, from
    a percentile bootstrap over groups, is above zero; no class lost more IoU than allowed. A tie keeps
    the active version. With few groups a percentile bootstrap is somewhat too sure of itself: that is
    what ``min_groups`` is for.

    Parameters
    ----------
    items : sequence of ContestItem
        Each item once. Items without a counted pixel (nobody looked at them) take no part.
    policy : ContestPolicy
    class_names : sequence of str
        K names by pixel value, background first.

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
        version that leaves pixels out would choose its own questions).
    """
    class_count = len(class_names)
    _check(items, class_count)
    counted = [item for item in items if item.confusion_active.sum() > 0]
    groups = sorted({item.group for item in counted})
    place = {group: g for g, group in enumerate(groups)}
    challenger_GKK = np.zeros((len(groups), class_count, class_count))
    active_GKK = np.zeros_like(challenger_GKK)
    for item in counted:
        challenger_GKK[place[item.group]] += item.confusion_challenger
        active_GKK[place[item.group]] += item.confusion_active

    iou_challenger_K = iou_of_present(challenger_GKK.sum(axis=0))
    iou_active_K = iou_of_present(active_GKK.sum(axis=0))
    present = active_GKK.sum(axis=(0, 2)) > 0
    mean_challenger = float(mean_ignoring_nan(iou_challenger_K))
    mean_active = float(mean_ignoring_nan(iou_active_K))
    classes = tuple(
        ClassContest(
            name=name,
            iou_challenger=float(iou_challenger_K[k]),
            iou_active=float(iou_active_K[k]),
            difference=float(iou_challenger_K[k] - iou_active_K[k]),
            is_drop_too_large=bool(iou_active_K[k] - iou_challenger_K[k] > policy.max_class_drop + _ROUNDING),
        )
        for k, name in enumerate(class_names)
        if present[k]
    )
    enough = len(groups) >= policy.min_groups
    lower_bound = _lower_bound(challenger_GKK, active_GKK, policy) if enough else float("nan")
    promote, reason = _verdict(
        mean_challenger, mean_active, lower_bound, classes, len(counted), len(groups), policy
    )
    left_out = tuple(name for k, name in enumerate(class_names) if not present[k])
    if left_out and counted:
        reason += f" (left out, since the truth holds none: {', '.join(left_out)})"
    return ContestDecision(
        promote=promote,
        reason=reason,
        mean_iou_challenger=mean_challenger,
        mean_iou_active=mean_active,
        difference=mean_challenger - mean_active,
        lower_bound=lower_bound,
        confidence=policy.confidence,
        classes=classes,
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


def _lower_bound(
    challenger_GKK: NDArray[np.float64], active_GKK: NDArray[np.float64], policy: ContestPolicy
) -> float:
    """One-sided lower bound of the gain in mean IoU: groups drawn with replacement, both sides alike."""
    times_BG = draw_groups(len(active_GKK), policy.bootstrap, policy.seed)
    mean_B = [resampled_mean_iou(side, times_BG) for side in (challenger_GKK, active_GKK)]
    return float(np.quantile(mean_B[0] - mean_B[1], 1 - policy.confidence))


def _verdict(
    challenger: float,
    active: float,
    lower_bound: float,
    classes: Sequence[ClassContest],
    item_count: int,
    group_count: int,
    policy: ContestPolicy,
) -> tuple[bool, str]:
    """Promote or not, and the sentence that says why."""
    if group_count < policy.min_groups:
        return False, (
            f"kept the active model: corrected contest items of {_count(group_count, 'well')} are too few "
            f"to judge, {policy.min_groups} are needed ({policy.min_groups - group_count} more)"
        )
    difference = challenger - active
    # Two digits are what a human compares; a third where two would print a real difference as zero.
    digits = 2 if min(abs(difference), abs(lower_bound)) >= 0.005 else 3
    scope = (
        f"mean IoU {challenger:.{digits}f} against {active:.{digits}f} on {_count(item_count, 'item')} "
        f"of {_count(group_count, 'well')}"
    )
    bound = f"{policy.confidence * 100:g} % lower bound {_signed(lower_bound, digits)}"
    gain = f"{_signed(difference, digits)} ({bound})"
    if not challenger > active:
        how = "as good as" if challenger == active else "not better than"
        return False, f"kept the active model: the challenger is {how} it, {scope}, difference {gain}"
    if not lower_bound > 0:
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _signed(value: float, digits: int) -> str:
    """A signed number with a real minus; a bound that rounds to zero keeps its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")
