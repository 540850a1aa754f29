"""Is a correction worth a second look? What a model that never saw it makes of the mask.

The model must be *out of fold*: trained without the correction, and without others of its well. Then
where it is sure and the mask says otherwise, one of the two is wrong, and often it is the mask: an
object overlooked, a class slipped, a region moved.

The idea is the soft minimum of the probabilities that the model gives to the labels drawn (Lad and
Mueller 2023, arXiv:2307.05080): a few labels that cannot be right pull it down, many that are slightly
doubtful do not. Over the pixels of a whole image 95 % background answers for the rest, so that here it is
taken twice. Over **pixels** each weighs as much as it concerns foreground, by the mask or by the model
(:func:`pixel_quality`). Over **objects** each counts once, however small: every drawn one, and every one of
the model's that is not drawn. The second ranks; the first is reported beside it. On quarters of a simulated
plate (``docs/agreement.md``) both found corrupted masks with a good model, and with one that knew weak
labels only the second did far better: pixels along the outlines, where no two readers agree, drown a
small object whose class is wrong.

What the model is *sure* of is told in words, too, and lowers the quality: objects drawn that are not there
or are of another class, objects that are not drawn, outlines that lie elsewhere.

All this only *ranks*: a model that learned from few corrections is sure of wrong things too.

Legend: K classes, H rows, W columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics.error_types import COMPLETE_IOU, FOUND_COVERAGE
from cytoloop.domain.objects import SeenObjects, overlaps, seen_objects
from cytoloop.domain.types import check_label_mask

PIXEL_SOFTNESS = 0.1
OBJECT_SOFTNESS = 0.3
"""Temperatures of the soft minima: towards 0 the worst one decides, upwards it is the mean. The paper's over
pixels; greater over objects, which are fewer and whose beliefs are means already."""
EMPTY_SHARE = 0.0025
"""Share of the item that counts as surely right foreground, so that two doubtful pixels of an empty field
are no bad mask."""
SURE = 0.8
"""Mean probability over an object from which the model is sure of it."""
LEAST_PIXELS = 7
"""Smaller objects of the model are specks, not findings."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelQuality:
    """What speaks against one mask."""

    belief: float
    """Soft minimum over objects of how probable the model finds what is drawn there: 0 … 1 (all believed)."""
    pixels: float
    """The same over pixels; see :func:`pixel_quality`."""
    objects: int
    """Drawn objects that could be judged."""
    not_drawn_K: NDArray[np.int64]
    """Objects the model is sure of and the mask lacks, by the model's class."""
    not_there_K: NDArray[np.int64]
    """Drawn objects that the model is sure are background, by the drawn class."""
    other_class: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """Objects by (drawn class, class the model is sure of)."""
    other_outline: int = 0
    """Objects of the right class whose outline the model is sure lies elsewhere."""

    @property
    def findings(self) -> int:
        """Objects that something is wrong with."""
        return (
            int(self.not_drawn_K.sum() + self.not_there_K.sum())
            + sum(self.other_class.values())
            + self.other_outline
        )

    @property
    def score(self) -> float:
        """How much a second look is worth, 0 … 1, higher = ask sooner.

        1 - belief x share of the objects that nothing is wrong with, one imagined good object
        included: one wrong object out of one is not worse than ten out of ten.
        """
        objects = self.objects + int(self.not_drawn_K.sum()) + 1
        return 1.0 - self.belief * (1.0 - self.findings / objects)

    def reason(self, class_names: Sequence[str]) -> str:
        """In words, for the expert; ``class_names`` by pixel value, background first.

        Examples
        --------
        >>> none_K = np.array([0, 0])
        >>> found = LabelQuality(belief=0.4, pixels=0.2, objects=9, not_drawn_K=np.array([0, 4]), not_there_K=none_K)
        >>> found.reason(("background", "spot"))
        '4 objects the model is sure of are not drawn (spot)'
        """
        told = []
        if self.not_drawn_K.any():
            told.append(_counted(self.not_drawn_K, "the model is sure of {} not drawn", class_names))
        if self.not_there_K.any():
            told.append(_counted(self.not_there_K, "drawn where the model is sure {} none", class_names))
        for (drawn, seen), count in sorted(self.other_class.items()):
            told.append(
                f"{_objects(count)} drawn as {class_names[drawn]} that the model is sure "
                f"{'is' if count == 1 else 'are'} {class_names[seen]}"
            )
        if self.other_outline:
            told.append(f"{_objects(self.other_outline)} whose outline the model is sure lies elsewhere")
        if not told:
            return (
                f"no single object stands out; the model believes the least likely ones by {self.belief:.2f}"
            )
        return ", ".join(told)


def label_quality(label_HW: NDArray[np.uint8], prob_KHW: NDArray[np.floating]) -> LabelQuality:
    """Hold a mask against the probabilities of a model that did not learn from it.

    Parameters
    ----------
    label_HW : ndarray of uint8, shape (H, W)
        The drawn mask: 0…K-1, or 255 (not looked at), which is not judged.
    prob_KHW : ndarray of float, shape (K, H, W)
        Class probabilities, sum 1 over K.

    Raises
    ------
    ShapeError
        If the shapes do not fit together, a value is no class, or a probability is not in 0 … 1.
    """
    pixels = pixel_quality(label_HW, prob_KHW)
    class_count = len(prob_KHW)
    ignored_HW = label_HW == IGNORE
    drawn = seen_objects(label_HW, ignored_HW)
    seen = seen_objects(prob_KHW.argmax(axis=0).astype(np.uint8), ignored_HW)
    prob_of_drawn = _mean_prob(prob_KHW, drawn)
    prob_of_seen = _mean_prob(prob_KHW, seen)

    beliefs: list[float] = []
    not_drawn_K, not_there_K = np.zeros(class_count, np.int64), np.zeros(class_count, np.int64)
    for index in _not_drawn(drawn, seen):
        value = seen.objects.classes[index]
        beliefs.append(float(prob_of_seen[index, 0]))
        not_drawn_K[value] += prob_of_seen[index, value] >= SURE
    other_class: Counter[tuple[int, int]] = Counter()
    other_outline = 0
    outlines = _Outlines(drawn, seen, prob_KHW)
    for index, value in enumerate(drawn.objects.classes):
        beliefs.append(float(prob_of_drawn[index, value]))
        likely = int(prob_of_drawn[index].argmax())
        if likely == value or prob_of_drawn[index, likely] < SURE:
            other_outline += outlines.lies_elsewhere(index + 1)
        elif likely:
            other_class[value, likely] += 1
        elif not drawn.is_hidden[index]:
            not_there_K[value] += 1
    return LabelQuality(
        belief=_soft_minimum(np.array([*beliefs, 1.0])),
        pixels=pixels,
        objects=len(drawn.objects),
        not_drawn_K=not_drawn_K,
        not_there_K=not_there_K,
        other_class=dict(other_class),
        other_outline=other_outline,
    )


def pixel_quality(label_HW: NDArray[np.uint8], prob_KHW: NDArray[np.floating]) -> float:
    """Soft minimum of the probability of each pixel's label, weighed by foreground.

    With s the probability of the drawn class, sum(w e s) / sum(w e), e = exp((1 - s) / 0.1): as in
    Lad and Mueller (arXiv:2307.05080), with weights. A pixel weighs w = 1 where the mask says
    foreground, else 1 - p(background): the background's outline and what was overlooked count, its
    wide middle does not. 0.25 % of the item are taken as foreground that is surely right.

    Parameters
    ----------
    label_HW : ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at), which has no weight.
    prob_KHW : ndarray of float, shape (K, H, W)
        Class probabilities, sum 1 over K.

    Returns
    -------
    float
        0 (pixels that the model finds impossible) … 1 (it believes every one).

    Raises
    ------
    ShapeError
        If the shapes do not fit together, a value is no class, or a probability is not in 0 … 1.
    """
    if prob_KHW.ndim != 3 or len(prob_KHW) < 2 or prob_KHW.shape[1:] != label_HW.shape:
        raise ShapeError(
            f"label quality: probabilities {prob_KHW.shape}, expected (K >= 2, H, W) of mask {label_HW.shape}"
        )
    check_label_mask(label_HW, len(prob_KHW), "label quality")
    low, high = float(prob_KHW.min()), float(prob_KHW.max())
    if not (low >= 0.0 and high <= 1.0 + 1e-3):
        raise ShapeError(f"label quality: probabilities from {low} to {high}, expected 0 to 1")
    is_judged_HW = label_HW != IGNORE
    drawn_N = label_HW[is_judged_HW]
    prob_KN = prob_KHW[:, is_judged_HW]
    belief_N = np.take_along_axis(prob_KN, drawn_N[None].astype(np.intp), axis=0)[0].astype(np.float64)
    weight_N = np.where(drawn_N > 0, 1.0, 1.0 - prob_KN[0]) * np.exp((1.0 - belief_N) / PIXEL_SOFTNESS)
    right = EMPTY_SHARE * max(drawn_N.size, 1)
    return float(((weight_N * belief_N).sum() + right) / (weight_N.sum() + right))


def _soft_minimum(beliefs: NDArray[np.float64]) -> float:
    """Mean that weighs each belief by exp((1 - belief) / 0.3)."""
    weights = np.exp((1.0 - beliefs) / OBJECT_SOFTNESS)
    return float((weights * beliefs).sum() / weights.sum())


def _not_drawn(drawn: SeenObjects, seen: SeenObjects) -> list[int]:
    """Places of the model's objects, specks aside, under which the mask has next to nothing."""
    covered = _mean(drawn.objects.labels_HW > 0, seen)
    sizes = np.bincount(seen.objects.labels_HW.ravel(), minlength=len(seen.objects) + 1)[1:]
    return [
        index
        for index in range(len(seen.objects))
        if covered[index] < FOUND_COVERAGE and sizes[index] >= LEAST_PIXELS and not seen.is_hidden[index]
    ]


class _Outlines:
    """Which drawn objects the model has, but elsewhere."""

    def __init__(self, drawn: SeenObjects, seen: SeenObjects, prob_KHW: NDArray[np.floating]) -> None:
        self._drawn, self._seen = drawn.objects, seen.objects
        self._sureness_HW = prob_KHW.max(axis=0)
        found = overlaps(drawn.objects, seen.objects)
        drawn_class, seen_class = np.array([0, *drawn.objects.classes]), np.array([0, *seen.objects.classes])
        is_same = drawn_class[found.old] == seen_class[found.new]
        self._best: dict[int, tuple[float, int]] = {}
        for old, new, iou in zip(found.old[is_same], found.new[is_same], found.iou[is_same], strict=True):
            self._best[int(old)] = max(self._best.get(int(old), (0.0, 0)), (float(iou), int(new)))

    def lies_elsewhere(self, number: int) -> bool:
        """Its best match of the same class has IoU <= 0.5, and the model is sure where the two differ."""
        iou, other = self._best.get(number, (0.0, 0))
        if not other or iou > COMPLETE_IOU:
            return False
        differs_HW = (self._drawn.labels_HW == number) != (self._seen.labels_HW == other)
        return float(self._sureness_HW[differs_HW].mean()) >= SURE


def _mean_prob(prob_KHW: NDArray[np.floating], seen: SeenObjects) -> NDArray[np.float64]:
    """Mean probability of each class over each object, shape (objects, K)."""
    return np.stack([_mean(plane_HW, seen) for plane_HW in prob_KHW], axis=1)


def _mean(values_HW: NDArray[np.generic], seen: SeenObjects) -> NDArray[np.float64]:
    """Mean of an image over each object."""
    count = len(seen.objects)
    if not count:
        return np.zeros(0)
    return np.asarray(ndimage.mean(values_HW, seen.objects.labels_HW, np.arange(1, count + 1)), np.float64)


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _counted(count_K: NDArray[np.int64], words: str, class_names: Sequence[str]) -> str:
    count = int(count_K.sum())
    classes = ", ".join(class_names[value] for value in np.flatnonzero(count_K))
    return f"{_objects(count)} {words.format('is' if count == 1 else 'are')} ({classes})"
