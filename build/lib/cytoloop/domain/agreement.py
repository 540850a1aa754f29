"""How far readers of one item agree: pixels, chance taken out, outlines, objects.

Kappa is agreement with chance taken out. Pooled over classes it is of little use here: with 95 %
background it tells how much the *background* is agreed on, and chance alone reaches 0.9 of plain
agreement. So each class is held against the rest of the image (one-vs-rest), and the pooled value
is given beside it, never alone.

Pixels that any of the readers compared left out (255) are not counted.

Legend: K classes, H rows, W columns, R readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics.boundary import boundary_scores
from cytoloop.domain.metrics.pixels import confusion_matrix, iou_of, mean_ignoring_nan, number_or_none
from cytoloop.domain.objects import overlaps, pair_objects, seen_objects
from cytoloop.domain.types import check_label_mask


def dice_of(confusion_KK: NDArray[Any]) -> NDArray[np.float64]:
    """Dice overlap of each class: 2 C_kk / (row_k + column_k).

    Parameters
    ----------
    confusion_KK : ndarray, shape (K, K)
        Pixels by one reader's class (row) and the other's (column).

    Returns
    -------
    dice_K : ndarray of float64, shape (K,)
        0 (no common pixel) … 1 (identical); NaN for a class that neither has. The same whichever
        reader comes first.

    Examples
    --------
    >>> dice_of(np.array([[6, 1, 0], [1, 2, 0], [0, 0, 0]])).round(3).tolist()
    [0.857, 0.667, nan]
    """
    both_K = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1)
    return _ratio(2 * np.diagonal(confusion_KK), both_K)


def cohen_kappa(confusion_KK: NDArray[Any]) -> float:
    """Agreement of two readers beyond chance (Cohen 1960, doi:10.1177/001316446002000104).

    (observed - expected) / (1 - expected), expected being the agreement of two readers who give
    the same classes as often, at random places.

    Parameters
    ----------
    confusion_KK : ndarray, shape (K, K)
        Pixels by one reader's class (row) and the other's (column).

    Returns
    -------
    float
        1 identical, 0 as by chance, below 0 worse than that (never below -1); NaN where both give
        one and the same class everywhere, or no pixel was looked at by both.

    Examples
    --------
    >>> round(cohen_kappa(np.array([[20, 5], [10, 15]])), 3)  # 0.7 observed, 0.5 expected
    0.4
    """
    total = confusion_KK.sum()
    expected = _ratio((confusion_KK.sum(axis=0) * confusion_KK.sum(axis=1)).sum(), total * total)
    observed = _ratio(np.trace(confusion_KK), total)
    return float(_ratio(observed - expected, 1 - expected))


def class_kappas(confusion_KK: NDArray[Any]) -> NDArray[np.float64]:
    """Cohen's kappa of each class against all others together; see :func:`cohen_kappa`.

    Returns
    -------
    kappa_K : ndarray of float64, shape (K,)
        NaN for a class that neither reader gives.
    """
    total = confusion_KK.sum()
    kappa_K = np.empty(len(confusion_KK))
    for value in range(len(confusion_KK)):
        hit = confusion_KK[value, value]
        row, column = confusion_KK[value].sum(), confusion_KK[:, value].sum()
        kappa_K[value] = cohen_kappa(np.array([[hit, row - hit], [column - hit, total - row - column + hit]]))
    return kappa_K


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleissKappas:
    """Fleiss' kappa of some readers: all classes together, and each class against the rest."""

    pooled: float
    """1 identical, 0 as by chance; NaN where nobody ever gives but one class."""
    kappa_K: NDArray[np.float64]
    """NaN for a class that nobody gives, or everybody everywhere."""


def fleiss_kappas(votes_NK: NDArray[Any]) -> FleissKappas:
    """Agreement of two or more readers beyond chance (Fleiss 1971, doi:10.1037/h0031619).

    Chance is drawn from the classes' shares over all readers together, so that for two readers it
    is Scott's pi, not quite Cohen's kappa.

    Parameters
    ----------
    votes_NK : ndarray of integer, shape (N, K)
        How many readers gave each pixel each class; every row has the same sum R >= 2.

    Raises
    ------
    ShapeError
        If the array is not (N, K), or pixels have different numbers of readers, or fewer than two.

    Examples
    --------
    >>> found = fleiss_kappas(np.array([[3, 0], [2, 1], [0, 3], [0, 3]]))
    >>> round(found.pooled, 4), found.kappa_K.round(4).tolist()
    (0.6571, [0.6571, 0.6571])
    """
    if votes_NK.ndim != 2:
        raise ShapeError(f"votes are {votes_NK.shape}, expected (N pixels, K classes)")
    voters = np.unique(votes_NK.sum(axis=1))
    if voters.size > 1 or (voters.size and voters[0] < 2):
        raise ShapeError(f"pixels with {voters.tolist()} readers, expected one number of at least 2")
    readers = int(voters[0]) if voters.size else 2
    pixels = len(votes_NK)
    share_K = _ratio(votes_NK.sum(axis=0), np.array(pixels * readers))
    apart_K = (votes_NK * (readers - votes_NK)).sum(axis=0)
    chance_K = share_K * (1 - share_K)
    pairs = pixels * readers * (readers - 1)
    return FleissKappas(
        pooled=float(1 - _ratio(apart_K.sum(), pairs * chance_K.sum())),
        kappa_K=1 - _ratio(apart_K, pairs * chance_K),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectDifferences:
    """Objects of two masks, paired one to one; summed over items with ``+``."""

    shared: int
    """Pairs, whatever their class."""
    relabelled: int
    """Those of them whose two sides have different classes."""
    one_only_K: NDArray[np.int64]
    """Objects that only the first has, by class."""
    other_only_K: NDArray[np.int64]

    def __add__(self, other: ObjectDifferences) -> ObjectDifferences:
        return ObjectDifferences(
            shared=self.shared + other.shared,
            relabelled=self.relabelled + other.relabelled,
            one_only_K=self.one_only_K + other.one_only_K,
            other_only_K=self.other_only_K + other.other_only_K,
        )

    @property
    def added_share(self) -> float:
        """Of the first's objects, those that the other lacks; NaN if it has none."""
        alone = int(self.one_only_K.sum())
        return alone / (alone + self.shared) if alone + self.shared else float("nan")

    @property
    def missed_share(self) -> float:
        """Of the other's objects, those that the first lacks; NaN if it has none."""
        alone = int(self.other_only_K.sum())
        return alone / (alone + self.shared) if alone + self.shared else float("nan")


def object_differences(
    one_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], class_count: int
) -> ObjectDifferences:
    """Which objects two masks share, and which only one of them has.

    Objects are paired one to one, largest overlap (IoU >= 0.1) first, whatever their class. An object
    of which more than half lies where one of the two did not look (255) counts on neither side alone.

    Parameters
    ----------
    one_HW, other_HW : ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at); one shape.
    class_count : int
        K, background included.
    """
    ignored_HW = (one_HW == IGNORE) | (other_HW == IGNORE)
    one, other = seen_objects(one_HW, ignored_HW), seen_objects(other_HW, ignored_HW)
    pairs = pair_objects(overlaps(one.objects, other.objects))
    only: list[NDArray[np.int64]] = []
    for side, seen in enumerate((one, other)):
        paired = {pair[side] for pair in pairs}
        alone = [
            value
            for number, (value, is_hidden) in enumerate(
                zip(seen.objects.classes, seen.is_hidden, strict=True), start=1
            )
            if number not in paired and not is_hidden
        ]
        only.append(np.bincount(np.array(alone, np.int64), minlength=class_count))
    return ObjectDifferences(
        shared=len(pairs),
        relabelled=sum(one.objects.classes[a - 1] != other.objects.classes[b - 1] for a, b in pairs),
        one_only_K=only[0],
        other_only_K=only[1],
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """Two masks of an item, or of many with ``+``: what one reader says against another."""

    items: int
    confusion_KK: NDArray[np.int64]
    """Pixels by the first's class (row) and the other's (column), of all items."""
    bf_sum_K: NDArray[np.float64]
    bf_items_K: NDArray[np.int64]
    """Sum of the boundary scores, and items with the class on either side."""
    objects: ObjectDifferences

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            items=self.items + other.items,
            confusion_KK=self.confusion_KK + other.confusion_KK,
            bf_sum_K=self.bf_sum_K + other.bf_sum_K,
            bf_items_K=self.bf_items_K + other.bf_items_K,
            objects=self.objects + other.objects,
        )

    @property
    def dice_K(self) -> NDArray[np.float64]:
        """Dice of each class over the pixels of all items."""
        return dice_of(self.confusion_KK)

    @property
    def iou_K(self) -> NDArray[np.float64]:
        """IoU of each class over the pixels of all items."""
        return iou_of(self.confusion_KK)

    @property
    def kappa_K(self) -> NDArray[np.float64]:
        """Cohen's kappa of each class against the rest."""
        return class_kappas(self.confusion_KK)

    @property
    def bf_K(self) -> NDArray[np.float64]:
        """Boundary score of each class, mean over the items that hold it; 0 where one side lacks it."""
        return _ratio(self.bf_sum_K, self.bf_items_K)

    @property
    def mean_dice(self) -> float:
        """Mean Dice over the classes but background that either has; 1 where neither has any.

        Two readers who both leave an item empty agree. NaN if there is no pixel that both looked at.
        """
        if not self.confusion_KK.sum():
            return float("nan")
        mean = float(mean_ignoring_nan(self.dice_K[1:]))
        return 1.0 if np.isnan(mean) else mean

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON; ``class_names`` by pixel value, background first."""
        return {
            "items": self.items,
            "mean_dice": number_or_none(self.mean_dice),
            "pooled_kappa": number_or_none(cohen_kappa(self.confusion_KK)),
            "classes": _class_rows(class_names, self.dice_K, self.iou_K, self.kappa_K, self.bf_K),
            "objects": {
                "shared": self.objects.shared,
                "relabelled": self.objects.relabelled,
                "added": int(self.objects.one_only_K.sum()),
                "missed": int(self.objects.other_only_K.sum()),
                "added_share": number_or_none(self.objects.added_share),
                "missed_share": number_or_none(self.objects.missed_share),
            },
            "pixels": self.confusion_KK.tolist(),
        }


def compare(one_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], class_count: int) -> Comparison:
    """Hold one reader's mask of an item against another's.

    Everything but the objects of one side alone is the same whichever comes first: the boundary score
    (:func:`cytoloop.domain.metrics.boundary_scores`, its strict form) is the harmonic mean of both
    directions.

    Parameters
    ----------
    one_HW, other_HW : ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at).
    class_count : int
        K, background included.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.
    """
    strict_K = boundary_scores(one_HW, other_HW, class_count).strict_K
    return Comparison(
        items=1,
        confusion_KK=confusion_matrix(one_HW, other_HW, class_count),
        bf_sum_K=np.nan_to_num(strict_K, nan=0.0),
        bf_items_K=(~np.isnan(strict_K)).astype(np.int64),
        objects=object_differences(one_HW, other_HW, class_count),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemAgreement:
    """How far all readers of one item agree; of more than two, overlaps are means over their pairs."""

    readers: tuple[str, ...]
    pixels: int
    """Looked at by all of them."""
    mean_dice: float
    """Over pairs, of the mean over classes but background; 1 where nobody drew anything."""
    dice_K: NDArray[np.float64]
    iou_K: NDArray[np.float64]
    bf_K: NDArray[np.float64]
    """0 … 1 each; NaN for a class that nobody has."""
    kappa_K: NDArray[np.float64]
    """Each class against the rest: Cohen's for two readers, Fleiss' for more."""
    pooled_kappa: float
    """All classes together: mostly a statement about the background."""

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON; ``class_names`` by pixel value, background first."""
        return {
            "readers": list(self.readers),
            "pixels": self.pixels,
            "mean_dice": number_or_none(self.mean_dice),
            "pooled_kappa": number_or_none(self.pooled_kappa),
            "kappa": "cohen" if len(self.readers) == 2 else "fleiss",
            "classes": _class_rows(class_names, self.dice_K, self.iou_K, self.kappa_K, self.bf_K),
        }


def item_agreement(masks: Mapping[str, NDArray[np.uint8]], class_count: int) -> ItemAgreement:
    """Agreement of the readers of one item.

    Parameters
    ----------
    masks : mapping of reader to ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at); two readers or more.
    class_count : int
        K, background included.

    Raises
    ------
    InputError
        If there are fewer than two readers.
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.
    """
    if len(masks) < 2:
        raise InputError(f"agreement: readers {sorted(masks)}, expected two or more")
    readers = tuple(sorted(masks))
    pairs = [compare(masks[a], masks[b], class_count) for a, b in combinations(readers, 2)]
    votes_KHW = votes_of([masks[name] for name in readers], class_count)
    is_seen_HW = votes_KHW.sum(axis=0) == len(readers)
    if len(pairs) == 1:
        kappa_K, pooled = pairs[0].kappa_K, cohen_kappa(pairs[0].confusion_KK)
    else:
        found = fleiss_kappas(votes_KHW[:, is_seen_HW].T)
        kappa_K, pooled = found.kappa_K, found.pooled
    return ItemAgreement(
        readers=readers,
        pixels=int(np.count_nonzero(is_seen_HW)),
        mean_dice=float(mean_ignoring_nan(np.array([pair.mean_dice for pair in pairs]))),
        dice_K=mean_ignoring_nan(np.stack([pair.dice_K for pair in pairs]), axis=0),
        iou_K=mean_ignoring_nan(np.stack([pair.iou_K for pair in pairs]), axis=0),
        bf_K=mean_ignoring_nan(np.stack([pair.bf_K for pair in pairs]), axis=0),
        kappa_K=kappa_K,
        pooled_kappa=pooled,
    )


def votes_of(masks: Sequence[NDArray[np.uint8]], class_count: int) -> NDArray[np.int64]:
    """How many readers gave each pixel each class.

    Returns
    -------
    votes_KHW : ndarray of int64, shape (K, H, W)
        Sums over K to the readers who looked at the pixel.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.

    Examples
    --------
    >>> votes_of([np.array([[0, 1]], np.uint8), np.array([[1, 255]], np.uint8)], 2).tolist()
    [[[1, 0]], [[1, 1]]]
    """
    for number, mask_HW in enumerate(masks, start=1):
        check_label_mask(mask_HW, class_count, f"reader {number} of {len(masks)}")
        if mask_HW.shape != masks[0].shape:
            raise ShapeError(
                f"reader {number} of {len(masks)}: mask {mask_HW.shape}, expected the first's {masks[0].shape}"
            )
    return np.stack([sum(((m == value) for m in masks), np.int64(0)) for value in range(class_count)])


def _ratio(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """Divide; NaN, without a warning, where there is nothing to divide by."""
    top, bottom = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    ratio: NDArray[np.float64] = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return ratio


def _class_rows(
    class_names: Sequence[str],
    dice_K: NDArray[np.float64],
    iou_K: NDArray[np.float64],
    kappa_K: NDArray[np.float64],
    bf_K: NDArray[np.float64],
) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "dice": number_or_none(float(dice_K[value])),
            "iou": number_or_none(float(iou_K[value])),
            "kappa": number_or_none(float(kappa_K[value])),
            "bf": number_or_none(float(bf_K[value])),
        }
        for value, name in enumerate(class_names)
    ]
