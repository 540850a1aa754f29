"""One mask out of what several readers of an item drew.

Two readers cannot outvote each other: where they differ, nobody knows (255). Of three or more the
truth is estimated together with how well each reader finds each class (STAPLE: Warfield, Zou and
Wells 2004, doi:10.1109/TMI.2004.828354, the form for many classes), so that the word of a good reader
weighs more than that of two poor ones.

STAPLE is biased where one class fills the image: with 95 % background every reader seems nearly
perfect on it, and the prior share of the classes overrules votes for small objects. So it is
estimated *near disagreements only*: pixels closer than ``NEAR`` to one on which readers differ. What
lies elsewhere is agreed on and needs no estimate; what lies nearer, down to the disputed pixels alone,
leaves no agreement to learn from, and serves worse than a majority.

Two things differ from the paper. Each reader's record begins with imagined pixels that are mostly
right, as in the maximum a posteriori form (Commowick and Warfield, MICCAI 2010), so that a class with a
handful of pixels is not learned as its opposite. And the classes' shares are estimated along with the
rest, as by Dawid and Skene (1979, doi:10.2307/2346806), where the paper fixes them to the shares of the
votes: a reader who draws too much would shift them for everybody.

A majority is taken instead where STAPLE has next to nothing to learn from or does not settle. A tie of
votes is 255, unless the readers' records on *other* pixels speak clearly for one side; how common a class
is has no say in it. A pixel that fewer than two readers looked at is 255 too: one opinion is no consensus.

Legend: K classes, H rows, W columns, R readers, N different patterns of votes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.agreement import votes_of
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics.boundary import nearer_than

NEAR = 3.0
"""Pixels from a disagreement below which a pixel takes part in the estimate."""
LEAST_DISPUTED = 30
"""Pixels readers must differ on before their quality is estimated; below, the majority decides."""
LEAD = 0.1
LEAD_OF_TIE = 0.5
"""Lead of the most probable class below which a pixel is undecided; greater where votes are equal."""
PRIOR_PIXELS = 200.0
PRIOR_RIGHT = 0.9
"""Every reader's record with each class starts with so many imagined pixels, so large a share of them right."""
MOST_ROUNDS = 500
SETTLED = 1e-6
"""Change of the posterior below which the estimate has settled, and the rounds it may take."""

ConsensusMethod = Literal["agreement", "staple", "majority"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Consensus:
    """What several readers hold together."""

    mask_HW: NDArray[np.uint8]
    """0…K-1; 255 where readers differ and nothing tips the scales, or fewer than two looked."""
    method: ConsensusMethod
    """*agreement*: two readers, or none differ; else how differences were settled."""
    disputed: int
    """Pixels on which readers differ."""
    undecided: int
    """Those of them that stayed 255."""
    quality_RKK: NDArray[np.float64] | None
    """With STAPLE: probability that reader r says class (second axis) where the truth is class (third axis).
    Of pixels near disagreements, where everybody is worse than elsewhere."""


def consensus_of(masks: Sequence[NDArray[np.uint8]], class_count: int) -> Consensus:
    """Consensus of two or more readers' masks of one item.

    The same masks give the same consensus, in whatever order they come.

    Parameters
    ----------
    masks : sequence of ndarray of uint8, shape (H, W)
        0…K-1, or 255 (not looked at): no vote.
    class_count : int
        K, background included.

    Raises
    ------
    InputError
        If there are fewer than two masks.
    ShapeError
        If a mask is not uint8 (H, W), the shapes differ, or a value is no class.

    Examples
    --------
    >>> one, other = np.array([[0, 1, 1, 255]], np.uint8), np.array([[0, 1, 2, 2]], np.uint8)
    >>> consensus_of([one, other], 3).mask_HW.tolist()
    [[0, 1, 255, 255]]
    """
    if len(masks) < 2:
        raise InputError(f"consensus: {len(masks)} mask(s), expected two or more")
    votes_KHW = votes_of(masks, class_count)
    is_disputed_HW = (votes_KHW > 0).sum(axis=0) > 1
    mask_HW = majority_of(votes_KHW)
    method: ConsensusMethod = "agreement"
    quality_RKK = None
    disputed = int(np.count_nonzero(is_disputed_HW))
    if len(masks) > 2 and disputed:
        method = "majority"
        if disputed >= LEAST_DISPUTED:
            near_HW = nearer_than(is_disputed_HW, NEAR)
            estimate = staple(np.stack([m[near_HW] for m in masks]), class_count)
            if estimate is not None:
                method, quality_RKK = "staple", estimate.quality_RKK
                settled_HW = mask_HW.copy()
                settled_HW[near_HW] = estimate.labels_N
                # unanimous pixels near by taught the estimate; they are not its to change
                mask_HW = np.where(is_disputed_HW, settled_HW, mask_HW)
    return Consensus(
        mask_HW=mask_HW,
        method=method,
        disputed=disputed,
        undecided=int(np.count_nonzero(mask_HW[is_disputed_HW] == IGNORE)),
        quality_RKK=quality_RKK,
    )


def majority_of(votes_KHW: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The class most readers give each pixel; 255 on a tie, or where fewer than two looked.

    Parameters
    ----------
    votes_KHW : ndarray of int, shape (K, H, W)
        As :func:`cytoloop.domain.agreement.votes_of` counts them; K >= 2.

    Examples
    --------
    >>> majority_of(np.array([[[3, 1, 1, 0]], [[0, 2, 1, 1]]])).tolist()
    [[0, 1, 255, 255]]
    """
    second_HW, first_HW = np.partition(votes_KHW, len(votes_KHW) - 2, axis=0)[-2:]
    is_settled_HW = (first_HW > second_HW) & (votes_KHW.sum(axis=0) >= 2)
    return np.where(is_settled_HW, votes_KHW.argmax(axis=0), IGNORE).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StapleEstimate:
    """Where STAPLE settled."""

    labels_N: NDArray[np.uint8]
    """Most probable class of each pixel among those a reader gave it; 255 where two are about as probable, or
    fewer than two readers looked."""
    quality_RKK: NDArray[np.float64]
    """Probability of what a reader says (second axis), given the truth (third axis); sums to 1 over the second."""
    share_K: NDArray[np.float64]
    """Of the classes, on these pixels."""
    rounds: int


def staple(labels_RN: NDArray[np.uint8], class_count: int) -> StapleEstimate | None:
    """Estimate the truth of some pixels and every reader's quality together (doi:10.1109/TMI.2004.828354).

    Expectation maximisation, begun at the shares of the votes: no random start. A reader who left a
    pixel out has no word on it.

    Parameters
    ----------
    labels_RN : ndarray of uint8, shape (R, N)
        What R >= 3 readers say of N pixels: 0…K-1, or 255 (not looked at). Hand in pixels near
        disagreements only, or the background takes over.
    class_count : int
        K, background included.

    Returns
    -------
    StapleEstimate or None
        None if it has not settled after ``MOST_ROUNDS``.

    Raises
    ------
    InputError
        If there are fewer than three readers: with two, either could be the poor one.
    """
    readers = len(labels_RN)
    if readers < 3:
        raise InputError(f"STAPLE: {readers} reader(s), expected three or more")
    # Pixels with one pattern of votes have one posterior: thousands of pixels are some dozens of patterns.
    patterns_RN, place, pixels_N = np.unique(labels_RN, axis=1, return_inverse=True, return_counts=True)
    is_said_RKN = patterns_RN[:, None, :] == np.arange(class_count)[None, :, None]
    votes_KN = is_said_RKN.sum(axis=0)
    voters_N = votes_KN.sum(axis=0)

    truth_KN = votes_KN / np.maximum(voters_N, 1)
    for number in range(1, MOST_ROUNDS + 1):
        # what each reader said, by what the truth probably is, learned from the pixels there are …
        quality_RKK = _quality(is_said_RKN, truth_KN * pixels_N)
        share_K = (truth_KN * pixels_N).sum(axis=1) / pixels_N.sum()
        # … and what the truth probably is, given what such readers say
        log_share_K1 = np.log(np.maximum(share_K, np.finfo(float).tiny))[:, None]
        before_KN = truth_KN
        truth_KN = _normalised(log_share_K1 + _log_likelihood(is_said_RKN, quality_RKK))
        if np.abs(truth_KN - before_KN).max() < SETTLED:
            is_tied_N = _leaders(votes_KN) > 1
            # A record that counts how often its owner won a tie would break that very tie.
            elsewhere_RKK = _quality(is_said_RKN, np.where(is_tied_N, 0.0, truth_KN * pixels_N))
            apart_KN = _normalised(_log_likelihood(is_said_RKN, elsewhere_RKK))
            labels_N = np.where(
                is_tied_N, _decided(apart_KN, votes_KN, LEAD_OF_TIE), _decided(truth_KN, votes_KN, LEAD)
            )[place.ravel()]
            return StapleEstimate(labels_N=labels_N, quality_RKK=quality_RKK, share_K=share_K, rounds=number)
    return None


def _quality(is_said_RKN: NDArray[np.bool_], pixels_KN: NDArray[np.float64]) -> NDArray[np.float64]:
    """What each reader says (second axis) where the truth is so (third axis), with the imagined pixels."""
    class_count = len(pixels_KN)
    counts_RKK = np.einsum("rsn,kn->rsk", is_said_RKN, pixels_KN)
    counts_RKK += PRIOR_PIXELS * (1 - PRIOR_RIGHT) / (class_count - 1)
    counts_RKK[:, np.arange(class_count), np.arange(class_count)] += (
        PRIOR_PIXELS * PRIOR_RIGHT - PRIOR_PIXELS * (1 - PRIOR_RIGHT) / (class_count - 1)
    )
    quality_RKK: NDArray[np.float64] = counts_RKK / counts_RKK.sum(axis=1, keepdims=True)
    return quality_RKK


def _log_likelihood(is_said_RKN: NDArray[np.bool_], quality_RKK: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well each class explains what the readers say."""
    log_KN: NDArray[np.float64] = np.einsum("rsn,rsk->kn", is_said_RKN, np.log(quality_RKK))
    return log_KN


def _normalised(log_KN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of unnormalised logarithms."""
    prob_KN: NDArray[np.float64] = np.exp(log_KN - log_KN.max(axis=0))
    prob_KN /= prob_KN.sum(axis=0)
    return prob_KN


def _leaders(votes_KN: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes share the most votes."""
    leaders_N: NDArray[np.int64] = (votes_KN == votes_KN.max(axis=0)).sum(axis=0)
    return leaders_N


def _decided(truth_KN: NDArray[np.float64], votes_KN: NDArray[np.int64], lead: float) -> NDArray[np.uint8]:
    """The most probable of the classes that some reader gave; 255 if the next is nearer than ``lead``, or where
    fewer than two looked."""
    possible_KN = np.where(votes_KN > 0, truth_KN, 0.0)
    second_N, first_N = np.partition(possible_KN, len(possible_KN) - 2, axis=0)[-2:]
    is_settled_N = (first_N - second_N >= lead) & (votes_KN.sum(axis=0) >= 2)
    return np.where(is_settled_N, possible_KN.argmax(axis=0), IGNORE).astype(np.uint8)
