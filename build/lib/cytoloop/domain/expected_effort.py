"""What a correction will probably cost, before anyone has made it: expected changes, then minutes.

The counts are those of :mod:`cytoloop.domain.effort`, each weighted by how probable the version itself
thinks it, and priced with the same constants. What the version is sure of and wrong about is not
counted: the estimate is low for a bad model, and `MinutesModel` takes the difference up as real lead
times come in.

Legend: K classes, N objects, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.effort import (
    MINUTES_PER_ADDED,
    MINUTES_PER_BOUNDARY_PIXEL,
    MINUTES_PER_RELABELLED,
    MINUTES_PER_REMOVED,
    MINUTES_PER_RESHAPED,
    MINUTES_PER_SEARCH,
    MINUTES_TO_LOOK,
    TOLERANCE,
)
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.objects import Objects, objects_of, outline_of

SUSPECTED = 0.1
"""Foreground probability from which background may hide an object."""
REACH = 3
"""Pixels beyond the tolerance in which doubt can pull an outline."""

_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpectedEffort:
    """Expected counts of what must change in an item, and the minutes at the fixed prices."""

    objects_added: float
    objects_removed: float
    objects_relabelled: float
    objects_reshaped: float
    boundary_pixels: float
    """Length of the outlines that will be painted or erased."""
    minutes: float
    """At the prices of `cytoloop.domain.effort`, the look included. It cannot exceed drawing all from
    scratch: every change costs less than the object it is made to."""
    sizes_N: NDArray[np.int64]
    """Pixels of object 1, 2, …"""
    other_class_N: NDArray[np.float64]
    """Probability that object 1, 2, … is of another object class, 0…1."""

    @property
    def changing_minutes(self) -> float:
        """Minutes beyond the look that every item costs, >= 0."""
        return max(0.0, self.minutes - MINUTES_TO_LOOK)


def expected_effort(prob_KHW: NDArray[np.floating], objects: Objects | None = None) -> ExpectedEffort:
    """Expect what an expert changes in the most probable mask.

    An object is removed with its mean probability of background, and relabelled with that of the other
    object classes. An object is added where background has a foreground probability of 0.1 or more out of reach
    of any outline, with the largest such probability of the blob. An outline pixel moves with the
    largest doubt (1 - the largest probability) that lies beyond the tolerance of 2 pixels but within 5;
    an object is reshaped with the largest such doubt along its outline, if it stays as it is otherwise.

    Parameters
    ----------
    prob_KHW : ndarray of float, shape (K, H, W)
        Sums to 1 over K.
    objects : Objects, optional
        Of the most probable mask, where they are known already.

    Returns
    -------
    ExpectedEffort
        All 0, and a look's minutes, where the version is certain.

    Raises
    ------
    ShapeError
        If the array is not (K >= 2, H, W).

    Examples
    --------
    >>> expected_effort(np.eye(2)[0][:, None, None] * np.ones((2, 8, 8))).minutes == MINUTES_TO_LOOK
    True
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[0] < 2:
        raise ShapeError(f"expected effort: probabilities {prob_KHW.shape}, expected (K >= 2, H, W)")
    if objects is None:
        objects = objects_of(prob_KHW.argmax(axis=0).astype(np.uint8))
    count = len(objects)
    labels_HW = objects.labels_HW
    is_object_HW = labels_HW > 0
    labels = labels_HW[is_object_HW]
    sizes_N = np.bincount(labels, minlength=count + 1)[1:]
    # (K, N): mean probability of each class in each object
    share_KN = (
        np.stack(
            [np.bincount(labels, weights=plane[is_object_HW], minlength=count + 1)[1:] for plane in prob_KHW]
        )
        / sizes_N
    )
    own_N = share_KN[np.array(objects.classes, np.int64), np.arange(count)]
    gone_N = np.clip(share_KN[0], 0.0, 1.0)
    other_N = np.clip(1.0 - gone_N - own_N, 0.0, 1.0)

    outline_HW = outline_of(labels_HW)
    near_HW = _largest_within(outline_HW, int(TOLERANCE))
    far_HW = prob_KHW.max(axis=0)
    np.subtract(1, far_HW, out=far_HW)
    far_HW[near_HW] = 0
    pulled = _largest_within(far_HW, int(TOLERANCE) + REACH)[outline_HW]
    on_outline = labels_HW[outline_HW]
    moved_N = np.bincount(on_outline, weights=pulled, minlength=count + 1)[1:]
    most_N = np.zeros(count + 1)
    np.maximum.at(most_N, on_outline, pulled)

    added, added_outline = _hidden(prob_KHW[0], ~(is_object_HW | near_HW))
    kept_N = 1.0 - gone_N
    removed = float(gone_N.sum())
    relabelled = float(other_N.sum())
    reshaped = float((np.clip(kept_N - other_N, 0, 1) * most_N[1:]).sum())
    boundary = float((kept_N * moved_N).sum()) + added_outline
    objects_true = float(kept_N.sum()) + added
    missing_share = added / objects_true if objects_true > 0 else 0.0
    change = (
        (MINUTES_PER_ADDED + MINUTES_PER_SEARCH * missing_share) * added
        + MINUTES_PER_REMOVED * removed
        + MINUTES_PER_RELABELLED * relabelled
        + MINUTES_PER_RESHAPED * reshaped
        + MINUTES_PER_BOUNDARY_PIXEL * boundary
    )
    return ExpectedEffort(
        objects_added=added,
        objects_removed=removed,
        objects_relabelled=relabelled,
        objects_reshaped=reshaped,
        boundary_pixels=boundary,
        minutes=MINUTES_TO_LOOK + change,
        sizes_N=sizes_N,
        other_class_N=other_N,
    )


def _largest_within(map_HW: NDArray[Any], reach: int) -> NDArray[Any]:
    """Largest value, or 0, in the square that reaches so many pixels to each side.

    By doubling: a window of 11 takes four passes over the array; scipy's filter takes ten times as long.
    """
    for axis in (0, 1):
        margins = [(0, 0), (0, 0)]
        margins[axis] = (reach, reach)
        map_HW = np.pad(map_HW, margins)
        covered = 1
        while covered < 2 * reach + 1:
            step = min(covered, 2 * reach + 1 - covered)
            length = map_HW.shape[axis] - step
            map_HW = np.maximum(
                map_HW[:, :length] if axis else map_HW[:length],
                map_HW[:, step:] if axis else map_HW[step:],
            )
            covered += step
    return map_HW


def _hidden(background_HW: NDArray[np.floating], is_free_HW: NDArray[np.bool_]) -> tuple[float, float]:
    """Expected number of objects in what is taken for background, and the length of their outlines."""
    suspected_HW = is_free_HW & (background_HW < 1.0 - SUSPECTED)
    blobs_HW, count = ndimage.label(suspected_HW, _EIGHT)
    if not count:
        return 0.0, 0.0
    blobs = blobs_HW[suspected_HW]
    chance = np.zeros(count + 1)
    np.maximum.at(chance, blobs, 1.0 - background_HW[suspected_HW])
    outlines = np.bincount(blobs_HW[outline_of(blobs_HW)], minlength=count + 1)
    return float(chance.sum()), float((chance * outlines).sum())


PRIOR_CORRECTIONS = 10
"""So many corrections weigh as much as what was believed before them."""
SHORTEST_S = 5.0
"""Lead times below are not work: an annotation saved by a script, or opened and submitted at once."""
SCALE_LIMITS = (0.1, 10.0)
"""A scale never leaves these, whatever the lead times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One correction, once it is made: what was expected and what it took."""

    expert: str
    expected_minutes: float
    """At the fixed prices, as `ExpectedEffort.minutes` was when the item was handed out."""
    lead_time_s: float
    """Seconds the editor was open, as Label Studio counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MinutesModel:
    """Expected minutes at the fixed prices -> minutes of an expert: one scale each.

    A scale and not a price for each kind of change: lead times are heavy-tailed (a lunch with the editor open),
    and the six counts of an item rise and fall together, so that few corrections cannot tell their
    prices apart.
    """

    scale: float = 1.0
    """Of anyone; 1 before there is a lead time."""
    experts: Mapping[str, float] = field(default_factory=dict)
    """Of those whose lead times are known."""
    corrections: int = 0
    """Lead times behind it."""

    def __post_init__(self) -> None:
        for name, scale in (("anyone", self.scale), *self.experts.items()):
            if not (math.isfinite(scale) and scale > 0):
                raise InputError(f"minutes model: scale {scale} of {name}, expected a finite number above 0")
        if self.corrections < 0:
            raise InputError(f"minutes model: {self.corrections} corrections, expected >= 0")

    def minutes(self, expected_minutes: float, expert: str | None = None) -> float:
        """Minutes that an expert (None: anyone) needs for what the fixed prices expect."""
        scale = self.scale if expert is None else self.experts.get(expert, self.scale)
        return scale * expected_minutes

    def document(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"scale": self.scale, "experts": dict(self.experts), "corrections": self.corrections}

    @classmethod
    def from_document(cls, document: Mapping[str, Any], where: str = "minutes model") -> MinutesModel:
        """The reverse of :meth:`document`; InputError names ``where`` and what was got."""
        expected = {"scale", "experts", "corrections"}
        if set(document) != expected or not isinstance(document["experts"], Mapping):
            raise InputError(f"{where}: {dict(document)}, expected the keys {sorted(expected)}")
        try:
            return cls(
                scale=float(document["scale"]),
                experts={str(name): float(scale) for name, scale in document["experts"].items()},
                corrections=int(document["corrections"]),
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {dict(document)}, expected numbers") from error


MINUTES_AS_FIXED = MinutesModel()
"""The fixed prices as they are: what holds before any lead time came in."""


def fit_minutes(timings: Iterable[Timing]) -> MinutesModel:
    """Fit the scales on real lead times.

    The scale of a group is the median of ln(taken / expected), times n / (n + 10), its exponential: half way between
    1 and the median after ten corrections. An expert's is shrunk the same way towards that of all.
    The median forgets which half of a heavy tail is how far out, so that no lead time has to be thrown out
    for being long; those below 5 s are.

    Parameters
    ----------
    timings : iterable of Timing
        Of corrections of the training wells only: those of the other splits judge.

    Returns
    -------
    MinutesModel
        Scales within 0.1…10; the fixed prices where there are no timings.

    Raises
    ------
    InputError
        If a number is not finite, a lead time is negative, or the expected minutes are not above 0.

    Examples
    --------
    >>> slow = [Timing(expert="a", expected_minutes=2, lead_time_s=240)] * 10
    >>> round(fit_minutes(slow).scale, 3)  # twice the expected, believed half
    1.414
    """
    logarithms: dict[str, list[float]] = {}
    for one in timings:
        if not (math.isfinite(one.expected_minutes) and one.expected_minutes > 0):
            raise InputError(
                f"timing of {one.expert}: {one.expected_minutes} expected minutes, expected a finite number above 0"
            )
        if not (math.isfinite(one.lead_time_s) and one.lead_time_s >= 0):
            raise InputError(
                f"timing of {one.expert}: lead time {one.lead_time_s} s, expected a finite number >= 0"
            )
        if one.lead_time_s >= SHORTEST_S:
            taken = one.lead_time_s / 60
            logarithms.setdefault(one.expert, []).append(math.log(taken / one.expected_minutes))
    everyone = [value for values in logarithms.values() for value in values]
    if not everyone:
        return MINUTES_AS_FIXED
    of_all = _shrunk(everyone, 0.0)
    return MinutesModel(
        scale=_scale(of_all),
        experts={name: _scale(_shrunk(values, of_all)) for name, values in sorted(logarithms.items())},
        corrections=len(everyone),
    )


def _shrunk(values: list[float], prior: float) -> float:
    believed = len(values) / (len(values) + PRIOR_CORRECTIONS)
    return believed * median(values) + (1.0 - believed) * prior


def _scale(logarithm: float) -> float:
    return min(max(math.exp(logarithm), SCALE_LIMITS[0]), SCALE_LIMITS[1])
