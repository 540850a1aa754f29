"""Boxes around events: the source paper's surrogate for masks, which costs an expert minutes less.

An expert draws a box around each event; a mask gives a box for each object. Boxes are matched one to
one within a class, and what stays unmatched is an invented event (predicted) or a missed one (expert):
Garcia Santa Cruz et al. 2022 (doi:10.1038/s41598-022-15623-7), from box IoU 0.1 on, in two bands.

**Matching.** The paper does not say how it resolved several candidates. Here the assignment is the
best one (Hungarian method): as many pairs as possible, and among those the largest sum of IoU. The two
error ratios are then the lowest that one-to-one matching allows, and no order of boxes changes them;
taking the largest overlap first can leave two boxes unmatched where one pair less good serves both.

**Not looked at.** Pixels that are 255 on either side belong to no object. An object (or a drawn box) of
which more than half lies there, and that found no partner, is left out: nobody could tell whether it is
an error. One that found a partner counts.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, fields
from math import ceil, floor, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.pixels import check_pair, number_or_none
from cytoloop.domain.objects import Objects, SeenObjects, objects_of, seen_objects

MATCH_IOU = 0.1
"""Box IoU from which two boxes can be one event."""
STRONG_IOU = 0.5
"""Box IoU from which a matched pair is in the upper band."""
MOSTLY_IGNORED = 0.5
"""Share of a box that nobody looked at, above which it is no error to be unmatched."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Box:
    """A rectangle around one event, in pixels, half-open: rows top…bottom, columns left…right.

    Boxes of masks have whole numbers; those an expert drew may have fractions.
    """

    value: int
    """Class, 1…K-1."""
    top: float
    left: float
    bottom: float
    right: float

    def __post_init__(self) -> None:
        edges = (self.top, self.left, self.bottom, self.right)
        if not all(isfinite(edge) for edge in edges) or self.top >= self.bottom or self.left >= self.right:
            raise InputError(
                f"box of class {self.value}: rows {self.top}…{self.bottom}, columns {self.left}…{self.right}; "
                "expected numbers with top < bottom and left < right"
            )
        if not 1 <= self.value < IGNORE:
            raise InputError(f"box of class {self.value}: expected 1…{IGNORE - 1}")

    @property
    def area(self) -> float:
        """Square pixels, > 0."""
        return (self.bottom - self.top) * (self.right - self.left)


def boxes_of_mask(mask_HW: NDArray[np.uint8], class_count: int) -> tuple[Box, ...]:
    """Smallest boxes around the eight-connected components of each foreground class.

    Parameters
    ----------
    mask_HW : ndarray of uint8, shape (H, W)
        0 background, 1…K-1 classes, 255 (not looked at) no object.
    class_count : int
        K, background included.

    Returns
    -------
    boxes : tuple of Box
        By class, then in reading order.

    Raises
    ------
    ShapeError
        If the mask is not uint8 (H, W) or holds a value that is no class.

    Examples
    --------
    >>> boxes_of_mask(np.array([[1, 0, 0], [0, 1, 0]], np.uint8), 2)
    (Box(value=1, top=0, left=0, bottom=2, right=2),)
    """
    if mask_HW.ndim != 2 or mask_HW.dtype != np.uint8:
        raise ShapeError(f"boxes of a mask: it is {mask_HW.dtype} {mask_HW.shape}, expected uint8 (H, W)")
    return boxes_of_objects(objects_of(mask_HW), class_count)


def boxes_of_objects(objects: Objects, class_count: int) -> tuple[Box, ...]:
    """The same for objects already found.

    Raises
    ------
    ShapeError
        If an object's value is no class.
    """
    wrong = sorted({value for value in objects.classes if value >= class_count})
    if wrong:
        raise ShapeError(
            f"boxes of a mask: it holds values {wrong}, expected 0…{class_count - 1} or {IGNORE}"
        )
    return tuple(
        Box(value=value, top=rows.start, left=columns.start, bottom=rows.stop, right=columns.stop)
        for value, (rows, columns) in zip(objects.classes, objects.windows, strict=True)
    )


def box_iou(one: Box, other: Box) -> float:
    """Shared area over joint area, whatever the classes: 0 (apart or only touching) … 1 (equal).

    Examples
    --------
    >>> box_iou(Box(value=1, top=0, left=0, bottom=2, right=2), Box(value=1, top=0, left=1, bottom=2, right=3))
    0.3333333333333333
    """
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    width = min(one.right, other.right) - max(one.left, other.left)
    if height <= 0 or width <= 0:
        return 0.0
    shared = height * width
    return shared / (one.area + other.area - shared)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class BoxMatch:
    """One expert box and one predicted box that are the same event."""

    expert: int
    predicted: int
    """Positions in the sequences that were matched."""
    iou: float
    """0.1 … 1."""


def match_boxes(expert: Sequence[Box], predicted: Sequence[Box]) -> tuple[BoxMatch, ...]:
    """Match boxes one to one within each class, at IoU >= 0.1.

    As many pairs as possible; among those the largest sum of IoU. The pairs do not depend on the order
    of the boxes, except where two assignments are exactly as good.

    Returns
    -------
    matches : tuple of BoxMatch
        By position of the expert box.
    """
    if not expert or not predicted:
        return ()
    iou_EP = _iou_table(expert, predicted)
    is_match_EP = iou_EP >= MATCH_IOU
    # Only boxes with a candidate take part: the table shrinks from all boxes to the contested ones.
    rows, columns = np.flatnonzero(is_match_EP.any(axis=1)), np.flatnonzero(is_match_EP.any(axis=0))
    if rows.size == 0:
        return ()
    # In sorted order, so that the order of arrival decides nothing.
    rows = np.array(sorted(rows, key=lambda index: expert[index]))
    columns = np.array(sorted(columns, key=lambda index: predicted[index]))
    iou, allowed = iou_EP[np.ix_(rows, columns)], is_match_EP[np.ix_(rows, columns)]
    # A pair is worth 1 plus less than 1 / (pairs + 1) for its IoU: all IoU together never outweigh a pair.
    worth = np.where(allowed, 1.0 + iou / (min(iou.shape) + 1), 0.0)
    chosen_rows, chosen_columns = linear_sum_assignment(worth, maximize=True)
    return tuple(
        sorted(
            BoxMatch(expert=int(rows[r]), predicted=int(columns[c]), iou=float(iou[r, c]))
            for r, c in zip(chosen_rows, chosen_columns, strict=True)
            if allowed[r, c]
        )
    )


def _iou_table(expert: Sequence[Box], predicted: Sequence[Box]) -> NDArray[np.float64]:
    """IoU of each expert box (row) with each predicted box (column), 0 where the classes differ."""
    one, other = _edges(expert)[:, np.newaxis], _edges(predicted)[np.newaxis]
    height = np.minimum(one[..., 3], other[..., 3]) - np.maximum(one[..., 1], other[..., 1])
    width = np.minimum(one[..., 4], other[..., 4]) - np.maximum(one[..., 2], other[..., 2])
    shared = np.clip(height, 0, None) * np.clip(width, 0, None)
    areas = [(boxes[..., 3] - boxes[..., 1]) * (boxes[..., 4] - boxes[..., 2]) for boxes in (one, other)]
    table: NDArray[np.float64] = np.where(
        one[..., 0] == other[..., 0], shared / (areas[0] + areas[1] - shared), 0.0
    )
    return table


def _edges(boxes: Sequence[Box]) -> NDArray[np.float64]:
    return np.array([(box.value, box.top, box.left, box.bottom, box.right) for box in boxes], np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxCounts:
    """Boxes of one class (or of several together), summed over images with ``+``."""

    expert: int = 0
    predicted: int = 0
    matched: int = 0
    """Pairs at IoU >= 0.1; the two bands add up to it."""
    in_lower_band: int = 0
    """Pairs with IoU in [0.1, 0.5)."""
    in_upper_band: int = 0
    """Pairs with IoU in [0.5, 1]."""
    overlapping: int = 0
    """Predicted boxes with IoU >= 0.1 to some expert box of the class, however many share it."""

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(
            **{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)}
        )

    @property
    def false_positive_ratio(self) -> float:
        """Unmatched predicted / predicted: 0 (none invented) … 1; NaN if none was predicted."""
        return _ratio(self.predicted - self.matched, self.predicted)

    @property
    def false_negative_ratio(self) -> float:
        """Unmatched expert / expert: 0 (none missed) … 1; NaN if the expert drew none."""
        return _ratio(self.expert - self.matched, self.expert)

    @property
    def overlapping_share(self) -> float:
        """Predicted events that overlap an expert box / predicted: 0 … 1; NaN if none was predicted.

        The paper's 64.48 % (CIP) and 77.19 % (CDL). Not one to one: two halves of one event both count.
        """
        return _ratio(self.overlapping, self.predicted)

    @property
    def upper_band_share(self) -> float:
        """Pairs with IoU >= 0.5 / pairs; NaN without pairs."""
        return _ratio(self.in_upper_band, self.matched)

    def to_dict(self) -> dict[str, float | None]:
        """Counts and ratios as JSON; what is undefined is None."""
        counts = {one.name: getattr(self, one.name) for one in fields(self)}
        return counts | {name: number_or_none(getattr(self, name)) for name in RATIOS}


RATIOS = ("false_positive_ratio", "false_negative_ratio", "overlapping_share", "upper_band_share")
"""Names of the ratios of ``BoxCounts``."""
FIGURES = (*(one.name for one in fields(BoxCounts)), *RATIOS)
"""Names of all that ``over_experts`` takes the mean of."""


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxScores:
    """Expert boxes against predicted ones, by class; summed over images with ``+``."""

    classes: tuple[BoxCounts, ...]
    """Of class 1, 2, …, K-1: the background has no boxes."""

    def __add__(self, other: BoxScores) -> BoxScores:
        if len(self.classes) != len(other.classes):
            raise ShapeError(
                f"box scores of {len(self.classes)} and of {len(other.classes)} classes: expected one number"
            )
        return BoxScores(
            classes=tuple(one + more for one, more in zip(self.classes, other.classes, strict=True))
        )

    @property
    def foreground(self) -> BoxCounts:
        """All classes together; boxes were still matched within their class."""
        return sum(self.classes, BoxCounts())

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON.

        Parameters
        ----------
        class_names : sequence of str
            Names by pixel value, background first.
        """
        return {
            "match_iou": MATCH_IOU,
            "bands": [[MATCH_IOU, STRONG_IOU], [STRONG_IOU, 1.0]],
            "foreground": self.foreground.to_dict(),
            "classes": [
                {"name": name, **one.to_dict()}
                for name, one in zip(class_names[1:], self.classes, strict=True)
            ],
        }


def no_boxes(class_count: int) -> BoxScores:
    """The sum of nothing: where adding up images begins."""
    return BoxScores(classes=(BoxCounts(),) * (class_count - 1))


def box_scores(
    expert: Sequence[Box],
    predicted: Sequence[Box],
    class_count: int,
    ignored_HW: NDArray[np.bool_] | None = None,
) -> BoxScores:
    """Compare the boxes of one image.

    Parameters
    ----------
    expert, predicted : sequence of Box
        Of the same image, in any order.
    class_count : int
        K, background included.
    ignored_HW : ndarray of bool, shape (H, W), optional
        True where nobody looked: a box mostly there and unmatched is left out.

    Returns
    -------
    BoxScores
        Counts of the image; add those of several images, then take the ratios.

    Raises
    ------
    ShapeError
        If a box is of a class that is not there.
    """
    for name, boxes in (("expert", expert), ("predicted", predicted)):
        wrong = sorted({box.value for box in boxes if box.value >= class_count})
        if wrong:
            raise ShapeError(f"{name} boxes are of classes {wrong}, expected 1…{class_count - 1}")
    excused = [
        frozenset(
            index
            for index, box in enumerate(boxes)
            if ignored_HW is not None and _ignored_share(box, ignored_HW) > MOSTLY_IGNORED
        )
        for boxes in (expert, predicted)
    ]
    return _scores(expert, predicted, class_count, (excused[0], excused[1]))


def _scores(
    expert: Sequence[Box],
    predicted: Sequence[Box],
    class_count: int,
    excused: tuple[AbstractSet[int], AbstractSet[int]],
) -> BoxScores:
    """Match and count; ``excused`` are positions of boxes that do not count unless matched."""
    matches = match_boxes(expert, predicted)
    left_out = (
        excused[0] - {match.expert for match in matches},
        excused[1] - {match.predicted for match in matches},
    )
    touches_P = np.zeros(len(predicted), np.bool_)
    if expert and predicted:
        touches_P |= (_iou_table(expert, predicted) >= MATCH_IOU).any(axis=0)
    classes = []
    for value in range(1, class_count):
        ious = [match.iou for match in matches if expert[match.expert].value == value]
        upper = sum(iou >= STRONG_IOU for iou in ious)
        mine = [i for i, box in enumerate(predicted) if box.value == value and i not in left_out[1]]
        classes.append(
            BoxCounts(
                expert=sum(box.value == value and i not in left_out[0] for i, box in enumerate(expert)),
                predicted=len(mine),
                matched=len(ious),
                in_lower_band=len(ious) - upper,
                in_upper_band=upper,
                overlapping=sum(bool(touches_P[index]) for index in mine),
            )
        )
    return BoxScores(classes=tuple(classes))


def _ignored_share(box: Box, ignored_HW: NDArray[np.bool_]) -> float:
    """Share of the pixels a box touches that nobody looked at; 0 where it lies outside the image."""
    window_HW = ignored_HW[
        max(0, floor(box.top)) : max(0, ceil(box.bottom)), max(0, floor(box.left)) : max(0, ceil(box.right))
    ]
    return float(window_HW.mean()) if window_HW.size else 0.0


def mask_box_scores(truth_HW: NDArray[np.uint8], pred_HW: NDArray[np.uint8], class_count: int) -> BoxScores:
    """Compare the boxes of two masks of one image; the truth takes the expert's part.

    Parameters
    ----------
    truth_HW, pred_HW : ndarray of uint8, shape (H, W)
        Label masks: 0…K-1, or 255 (not looked at). What is 255 on either side belongs to no object.
    class_count : int
        K, background included.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.
    """
    check_pair(truth_HW, pred_HW)
    ignored_HW = (truth_HW == IGNORE) | (pred_HW == IGNORE)
    return object_box_scores(
        seen_objects(truth_HW, ignored_HW), seen_objects(pred_HW, ignored_HW), class_count
    )


def object_box_scores(truth: SeenObjects, pred: SeenObjects, class_count: int) -> BoxScores:
    """The same for objects already found."""
    return _scores(
        boxes_of_objects(truth.objects, class_count),
        boxes_of_objects(pred.objects, class_count),
        class_count,
        (_hidden(truth), _hidden(pred)),
    )


def _hidden(seen: SeenObjects) -> frozenset[int]:
    return frozenset(index for index, hidden in enumerate(seen.is_hidden) if hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """One figure over several experts."""

    mean: float
    """NaN where no expert gives a value."""
    sd: float
    """Sample standard deviation (n - 1); NaN below two values."""
    count: int
    """Experts that give a value."""

    def to_dict(self) -> dict[str, float | None]:
        """As JSON; what is undefined is None."""
        return {"mean": number_or_none(self.mean), "sd": number_or_none(self.sd), "count": self.count}


def spread_of(values: Iterable[float]) -> Spread:
    """Mean and standard deviation of what is not NaN.

    Examples
    --------
    >>> spread_of([1.0, 3.0, 5.0, float("nan")])
    Spread(mean=3.0, sd=2.0, count=3)
    """
    known = [value for value in values if not np.isnan(value)]
    return Spread(
        mean=float(np.mean(known)) if known else float("nan"),
        sd=float(np.std(known, ddof=1)) if len(known) > 1 else float("nan"),
        count=len(known),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSpreads:
    """Mean ± standard deviation over experts of each count and ratio (``FIGURES``), by its name."""

    foreground: Mapping[str, Spread]
    """All classes together."""
    classes: tuple[Mapping[str, Spread], ...]
    """Of class 1, 2, …, K-1."""

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON; ``class_names`` by pixel value, background first."""
        return {
            "foreground": {figure: spread.to_dict() for figure, spread in self.foreground.items()},
            "classes": [
                {"name": name, **{figure: spread.to_dict() for figure, spread in one.items()}}
                for name, one in zip(class_names[1:], self.classes, strict=True)
            ],
        }


def over_experts(by_expert: Sequence[BoxScores]) -> BoxSpreads:
    """Mean ± standard deviation over experts, as the paper reports its boxes.

    Parameters
    ----------
    by_expert : sequence of BoxScores
        One an expert, summed over the images that expert drew in.

    Raises
    ------
    InputError
        If there is no expert.
    """
    if not by_expert:
        raise InputError("boxes over experts: got none, expected at least one")
    return BoxSpreads(
        foreground=_spreads([scores.foreground for scores in by_expert]),
        classes=tuple(
            _spreads(list(of_class))
            for of_class in zip(*(scores.classes for scores in by_expert), strict=True)
        ),
    )


def _spreads(counts: Sequence[BoxCounts]) -> dict[str, Spread]:
    return {figure: spread_of(getattr(one, figure) for one in counts) for figure in FIGURES}
