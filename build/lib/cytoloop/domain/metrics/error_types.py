"""What is wrong with a mask, object by object: the source paper's three types of error, and a fourth.

Garcia Santa Cruz et al. 2022 (doi:10.1038/s41598-022-15623-7) name three errors of weak labels:
**missed event, misclassified event, incomplete segmentation**. They give no thresholds; here, for each
object of the truth (eight-connected component of one class), in this order:

1. *missed*: the prediction gives less than 10 % of its pixels to any class but background;
2. *misclassified*: of those pixels it gives most to another class (a tie is in favour of the right one);
3. *incomplete*: no predicted object of its class agrees with it by IoU > 0.5: part of it is missing, it
   has a halo, it was split, or it was merged with a neighbour;
4. else it is *right*.

Their counterpart, *invented*, is a predicted object of whose pixels the truth gives less than 10 % to
any class but background. Above an IoU of one half no object can agree with two others, so that no
pairing has to be chosen (Kirillov et al. 2019, doi:10.1109/CVPR.2019.00963).

The two masks may be any two of one item: weak label, prediction or correction against the truth, or
what a model proposed against what the expert saved.

Pixels that are 255 on either side do not count. An object of which more than half lies there is left
out where it would be missed or invented: nobody looked.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics.pixels import check_pair, number_or_none
from cytoloop.domain.objects import Objects, SeenObjects, overlaps, seen_objects

FOUND_COVERAGE = 0.1
"""Share of an object's pixels that must be foreground on the other side for it to be there."""
COMPLETE_IOU = 0.5
"""Overlap above which an object of the right class has the right outline."""

WORDS = {
    "right": "right",
    "missed": "missed event",
    "misclassified": "misclassified event",
    "incomplete": "incomplete segmentation",
    "invented": "invented event",
}
"""The types as people read them; the first four are every object of the truth once."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ErrorTypes:
    """Objects by what became of them; summed over items with ``+``."""

    objects_KK: NDArray[np.int64]
    """Rows: class of the true object; columns: class the prediction gives it, 0 if it is missed. Row 0:
    invented objects by predicted class. ``[0, 0]`` is 0."""
    incomplete_K: NDArray[np.int64]
    """Objects of the right class with a wrong outline; among those on the diagonal."""

    def __add__(self, other: ErrorTypes) -> ErrorTypes:
        if self.objects_KK.shape != other.objects_KK.shape:
            raise ShapeError(
                f"error types of {len(self.incomplete_K)} and of {len(other.incomplete_K)} classes: "
                "expected one number"
            )
        return ErrorTypes(
            objects_KK=self.objects_KK + other.objects_KK, incomplete_K=self.incomplete_K + other.incomplete_K
        )

    @property
    def truth_K(self) -> NDArray[np.int64]:
        """Objects of the truth; right + missed + misclassified + incomplete."""
        truth_K: NDArray[np.int64] = self.objects_KK.sum(axis=1)
        truth_K[0] = 0
        return truth_K

    @property
    def missed_K(self) -> NDArray[np.int64]:
        """Objects of the truth that the prediction does not have."""
        missed_K: NDArray[np.int64] = self.objects_KK[:, 0].copy()
        return missed_K

    @property
    def misclassified_K(self) -> NDArray[np.int64]:
        """Objects of the truth that are there with another class."""
        elsewhere_K: NDArray[np.int64] = self.truth_K - self.missed_K - self._same_class_K
        return elsewhere_K

    @property
    def right_K(self) -> NDArray[np.int64]:
        """Objects of the truth that are there with their class and outline."""
        right_K: NDArray[np.int64] = self._same_class_K - self.incomplete_K
        return right_K

    @property
    def invented_K(self) -> NDArray[np.int64]:
        """Predicted objects where the truth has none, by predicted class."""
        invented_K: NDArray[np.int64] = self.objects_KK[0].copy()
        return invented_K

    @property
    def _same_class_K(self) -> NDArray[np.int64]:
        diagonal_K: NDArray[np.int64] = np.diagonal(self.objects_KK).copy()
        return diagonal_K

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON.

        Parameters
        ----------
        class_names : sequence of str
            Names by pixel value, background first.
        """
        by_class = [
            {"name": name, **self._counts(slice(value, value + 1))}
            for value, name in enumerate(class_names)
            if value
        ]
        return {
            "found_coverage": FOUND_COVERAGE,
            "complete_iou": COMPLETE_IOU,
            "foreground": self._counts(slice(1, None)),
            "classes": by_class,
            "objects": self.objects_KK.tolist(),
        }

    def _counts(self, classes: slice) -> dict[str, float | None]:
        truth = int(self.truth_K[classes].sum())
        counts = {name: int(getattr(self, f"{name}_K")[classes].sum()) for name in WORDS}
        shares = {
            f"{name}_share": number_or_none(count / truth if truth else float("nan"))
            for name, count in counts.items()
            if name != "invented"  # no share of the truth's objects: it is none of them
        }
        return {"truth": truth, **counts, **shares}

    def words(self, class_names: Sequence[str]) -> str:
        """In one sentence for people; ``class_names`` by pixel value, background first.

        Examples
        --------
        >>> objects_KK = np.array([[0, 1], [2, 5]])
        >>> ErrorTypes(objects_KK=objects_KK, incomplete_K=np.array([0, 1])).words(("background", "spot"))
        'spot: 4 of 7 right, 2 missed, 1 incomplete, 1 invented'
        """
        parts = []
        for value, name in enumerate(class_names):
            if value == 0:
                continue
            errors = [
                f"{count} {kind}"
                for kind in ("missed", "misclassified", "incomplete", "invented")
                if (count := int(getattr(self, f"{kind}_K")[value]))
            ]
            truth = int(self.truth_K[value])
            head = f"{self.right_K[value]} of {truth} right" if truth else "none there"
            parts.append(f"{name}: {', '.join([head, *errors])}")
        return "; ".join(parts)


def no_errors(class_count: int) -> ErrorTypes:
    """The sum of nothing: where adding up items begins."""
    return ErrorTypes(
        objects_KK=np.zeros((class_count, class_count), np.int64),
        incomplete_K=np.zeros(class_count, np.int64),
    )


def error_types(truth_HW: NDArray[np.uint8], pred_HW: NDArray[np.uint8], class_count: int) -> ErrorTypes:
    """Count the objects of one item by type of error.

    Parameters
    ----------
    truth_HW, pred_HW : ndarray of uint8, shape (H, W)
        Label masks: 0…K-1, or 255 (not looked at, on either side: not counted).
    class_count : int
        K, background included.

    Raises
    ------
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.

    Examples
    --------
    >>> truth = np.array([[1, 1, 0, 2, 2, 0, 1]], np.uint8)
    >>> pred = np.array([[1, 1, 0, 1, 1, 0, 0]], np.uint8)
    >>> found = error_types(truth, pred, 3)
    >>> found.right_K.tolist(), found.missed_K.tolist(), found.misclassified_K.tolist()
    ([0, 1, 0], [0, 1, 0], [0, 0, 1])
    """
    check_pair(truth_HW, pred_HW)
    ignored_HW = (truth_HW == IGNORE) | (pred_HW == IGNORE)
    return object_error_types(
        seen_objects(truth_HW, ignored_HW), seen_objects(pred_HW, ignored_HW), class_count
    )


def object_error_types(truth: SeenObjects, pred: SeenObjects, class_count: int) -> ErrorTypes:
    """The same for objects already found.

    Raises
    ------
    ShapeError
        If an object's value is no class.
    """
    true_classes = _classes(truth.objects, class_count, "truth")
    pred_classes = _classes(pred.objects, class_count, "prediction")
    shared = overlaps(truth.objects, pred.objects)

    # Pixels of each true object by the class the prediction gives them; column 0 stays 0.
    given_TK = np.zeros((len(true_classes), class_count), np.int64)
    np.add.at(given_TK, (shared.old, pred_classes[shared.new]), shared.shared)
    covered_T = given_TK.sum(axis=1)
    is_there_T = covered_T >= FOUND_COVERAGE * shared.old_sizes
    # A tie is in favour of the right class: half a pixel more for it.
    votes_TK = given_TK.astype(np.float64)
    votes_TK[np.arange(len(true_classes)), true_classes] += 0.5
    seen_as_T = np.where(is_there_T, votes_TK.argmax(axis=1), 0)
    best_T = np.zeros(len(true_classes))
    same = true_classes[shared.old] == pred_classes[shared.new]
    np.maximum.at(best_T, shared.old[same], shared.iou[same])

    covered_P = np.zeros(len(pred_classes), np.int64)
    np.add.at(covered_P, shared.new, shared.shared)
    is_invented_P = covered_P < FOUND_COVERAGE * shared.new_sizes

    counted_T = np.array([False, *(not hidden for hidden in truth.is_hidden)]) | is_there_T
    counted_T[0] = False
    invented_P = is_invented_P & np.array([False, *(not hidden for hidden in pred.is_hidden)])

    objects_KK = np.zeros((class_count, class_count), np.int64)
    np.add.at(objects_KK, (true_classes[counted_T], seen_as_T[counted_T]), 1)
    objects_KK[0] = np.bincount(pred_classes[invented_P], minlength=class_count)
    is_incomplete_T = counted_T & (seen_as_T == true_classes) & (best_T <= COMPLETE_IOU)
    return ErrorTypes(
        objects_KK=objects_KK,
        incomplete_K=np.bincount(true_classes[is_incomplete_T], minlength=class_count),
    )


def _classes(objects: Objects, class_count: int, side: str) -> NDArray[np.int64]:
    """Class of each object by its number; 0 for number 0, which is no object."""
    wrong = sorted({value for value in objects.classes if value >= class_count})
    if wrong:
        raise ShapeError(f"{side} holds values {wrong}, expected 0…{class_count - 1} or {IGNORE}")
    return np.array([0, *objects.classes], np.int64)
