"""Does 0.8 mean right in four cases of five? Expected calibration error of class probabilities.

Guo et al. 2017 (arXiv:1706.04599), the binning of Naeini et al. 2015 (doi:10.1609/aaai.v29i1.9602): every
pixel is given its most probable class, with that probability as confidence; confidences are put into
bins of equal width, and in each bin the mean confidence is held against the share of pixels that are
right. ECE = sum over bins of (pixels of the bin / pixels) x |mean confidence - share right|.

Nineteen pixels of twenty are background and are surely so: pooled over all, the error is near zero for
any model. Hence it is told **by class given** and **for the foreground apart** (all pixels that are given
a class other than background). Pixels are grouped by what was given and never by what is true: a group
chosen by the truth is off even for a perfect model. A missed event shows in the background's error.

Legend: K classes, B bins, C cells of (class, bin), N pixels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.metrics.pixels import number_or_none

BINS = 15
"""As Guo et al."""
_SUM_TOLERANCE = 1e-3  # half precision softmax


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """One bar of a reliability diagram."""

    lower: float
    upper: float
    """Confidences in (lower, upper]."""
    pixels: int
    confidence: float
    """Mean confidence of its pixels; NaN without pixels."""
    accuracy: float
    """Share of its pixels that are right; NaN without pixels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """Sums from which calibration errors follow; those of several images are added with ``+``.

    A few numbers a class, whatever the number of images: nothing else has to be kept in memory.
    """

    pixels_KB: NDArray[np.int64]
    """Pixels by class given and bin of confidence."""
    confidence_KB: NDArray[np.float64]
    """Sum of their confidences."""
    right_KB: NDArray[np.int64]
    """Pixels whose class is the true one."""

    def __add__(self, other: Calibration) -> Calibration:
        if self.pixels_KB.shape != other.pixels_KB.shape:
            raise ShapeError(
                f"calibration of (classes, bins) {self.pixels_KB.shape} and {other.pixels_KB.shape}: "
                "expected one shape"
            )
        return Calibration(
            pixels_KB=self.pixels_KB + other.pixels_KB,
            confidence_KB=self.confidence_KB + other.confidence_KB,
            right_KB=self.right_KB + other.right_KB,
        )

    @property
    def class_ece_K(self) -> NDArray[np.float64]:
        """By class given: 0 (confidence is accuracy) … 1; NaN for a class never given."""
        return np.array([self._ece(slice(k, k + 1)) for k in range(len(self.pixels_KB))])

    @property
    def foreground_ece(self) -> float:
        """Of all pixels given a class other than background; NaN without any."""
        return self._ece(slice(1, None))

    @property
    def pooled_ece(self) -> float:
        """Of all pixels: what papers print, and what background makes look good."""
        return self._ece(slice(None))

    def reliability(self, classes: slice) -> tuple[ReliabilityBin, ...]:
        """The reliability diagram of some classes given: ``slice(1, None)`` for the foreground."""
        pixels_B = self.pixels_KB[classes].sum(axis=0)
        edges = np.linspace(0, 1, len(pixels_B) + 1)
        with np.errstate(invalid="ignore"):
            confidence_B = self.confidence_KB[classes].sum(axis=0) / pixels_B
            accuracy_B = self.right_KB[classes].sum(axis=0) / pixels_B
        return tuple(
            ReliabilityBin(
                lower=float(edges[b]),
                upper=float(edges[b + 1]),
                pixels=int(pixels_B[b]),
                confidence=float(confidence_B[b]),
                accuracy=float(accuracy_B[b]),
            )
            for b in range(len(pixels_B))
        )

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """As JSON, with the reliability diagrams; ``class_names`` by pixel value, background first."""
        return {
            "bins": self.pixels_KB.shape[1],
            "pooled_ece": number_or_none(self.pooled_ece),
            "foreground": {
                "ece": number_or_none(self.foreground_ece),
                "reliability": self._rows(slice(1, None)),
            },
            "classes": [
                {"name": name, "ece": number_or_none(ece), "reliability": self._rows(slice(k, k + 1))}
                for k, (name, ece) in enumerate(zip(class_names, self.class_ece_K, strict=True))
            ],
        }

    def _rows(self, classes: slice) -> list[dict[str, float | None]]:
        return [
            {
                "lower": one.lower,
                "upper": one.upper,
                "pixels": one.pixels,
                "confidence": number_or_none(one.confidence),
                "accuracy": number_or_none(one.accuracy),
            }
            for one in self.reliability(classes)
        ]

    def _ece(self, classes: slice) -> float:
        pixels = int(self.pixels_KB[classes].sum())
        if pixels == 0:
            return float("nan")
        # n_b / n x |confidence_b / n_b - right_b / n_b|: the n_b cancel
        gap_B = np.abs(self.confidence_KB[classes].sum(axis=0) - self.right_KB[classes].sum(axis=0))
        return float(gap_B.sum() / pixels)


def calibration_of(
    prob_KHW: NDArray[np.floating[Any]], truth_HW: NDArray[np.uint8], bins: int = BINS
) -> Calibration:
    """Sums of one image.

    Parameters
    ----------
    prob_KHW : ndarray of float, shape (K, H, W)
        Class probabilities; each pixel sums to 1 over K. Of equal ones the lower class is given.
    truth_HW : ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at: not counted).
    bins : int
        B >= 1 of equal width over (0, 1], each closed above.

    Raises
    ------
    ShapeError
        If the shapes do not fit, a value is no class, or a pixel that counts has no probabilities (NaN,
        negative, or a sum that is not 1).

    Examples
    --------
    >>> prob = np.array([[[0.9, 0.4]], [[0.1, 0.6]]])  # two pixels
    >>> found = calibration_of(prob, np.array([[0, 0]], np.uint8))
    >>> found.class_ece_K.round(2).tolist(), round(found.foreground_ece, 2)
    ([0.1, 0.6], 0.6)
    """
    if prob_KHW.ndim != 3 or prob_KHW.shape[1:] != truth_HW.shape or truth_HW.dtype != np.uint8:
        raise ShapeError(
            f"calibration: probabilities {prob_KHW.shape}, truth {truth_HW.dtype} {truth_HW.shape}; "
            "expected (K, H, W) and uint8 (H, W)"
        )
    if bins < 1:
        raise ShapeError(f"calibration: {bins} bins, expected >= 1")
    class_count = prob_KHW.shape[0]
    counts_HW = truth_HW != IGNORE
    prob_KN, truth_N = prob_KHW[:, counts_HW], truth_HW[counts_HW]
    if truth_N.size and truth_N.max() >= class_count:
        raise ShapeError(
            f"calibration: truth holds value {truth_N.max()}, expected 0…{class_count - 1} or {IGNORE}"
        )
    sums_N = prob_KN.sum(axis=0, dtype=np.float64)
    is_wrong_N = ~(np.abs(sums_N - 1) <= _SUM_TOLERANCE) | (prob_KN < 0).any(axis=0)
    if is_wrong_N.any():
        first = int(np.flatnonzero(is_wrong_N)[0])
        row, column = (int(axis[first]) for axis in np.nonzero(counts_HW))
        raise ShapeError(
            f"calibration: probabilities of pixel (row {row}, column {column}) are "
            f"{prob_KN[:, first].tolist()}, expected {class_count} in 0…1 that sum to 1"
        )
    given_N = prob_KN.argmax(axis=0)
    confidence_N = prob_KN.max(axis=0).astype(np.float64)
    bin_N = np.clip(np.ceil(confidence_N * bins).astype(np.int64) - 1, 0, bins - 1)
    cell_N = given_N * bins + bin_N
    shape, cells = (class_count, bins), class_count * bins
    confidence_C: NDArray[Any] = np.bincount(cell_N, weights=confidence_N, minlength=cells)
    return Calibration(
        pixels_KB=np.bincount(cell_N, minlength=cells).reshape(shape),
        confidence_KB=confidence_C.reshape(shape),
        right_KB=np.bincount(cell_N[given_N == truth_N], minlength=cells).reshape(shape),
    )
