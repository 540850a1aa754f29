"""Maps of doubt: 0 where there is none, known values by hand, and the limits they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoloop.domain.errors import ShapeError
from cytoloop.domain.scoring import disagreement, entropy, margin, mutual_information


def column(*probs: float) -> np.ndarray:
    """Probabilities of one pixel."""
    return np.array(probs).reshape(-1, 1, 1)


@st.composite
def passes(draw: Any) -> np.ndarray:
    p, k = draw(st.integers(2, 6)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sharp = draw(st.sampled_from([0.1, 1.0, 50.0]))
    return rng.dirichlet(np.full(k, 1 / sharp), size=(p, 3, 4)).transpose(0, 3, 1, 2)


def test_entropy_runs_from_certain_to_no_idea() -> None:
    prob = np.array([[[1.0, 0.5, 1 / 3]], [[0.0, 0.5, 1 / 3]], [[0.0, 0.0, 1 / 3]]])
    np.testing.assert_allclose(entropy(prob)[0], [0.0, np.log(2), np.log(3)])
    np.testing.assert_allclose(entropy(prob.astype(np.float32))[0], [0.0, np.log(2), np.log(3)], rtol=1e-6)


@pytest.mark.parametrize(
    ("probs", "expected"),
    [
        ((1, 0, 0), 0.0),
        ((0.5, 0.5, 0), 1.0),
        ((1 / 3, 1 / 3, 1 / 3), 1.0),
        ((0.2, 0.7, 0.1), 0.5),
        ((0.3, 0.7), 0.6),
    ],
)
def test_margin_is_the_lead_of_the_first_class_over_the_second(probs: Any, expected: float) -> None:
    for order in (probs, probs[::-1]):
        assert margin(column(*order))[0, 0] == pytest.approx(expected)


def test_passes_that_agree_carry_no_information_however_unsure_they_are() -> None:
    unsure = np.full((4, 2, 1, 1), 0.5)
    assert mutual_information(unsure)[0, 0] == 0.0
    assert entropy(unsure[0])[0, 0] == pytest.approx(np.log(2))


def test_passes_that_are_sure_of_different_classes_carry_all_there_is() -> None:
    sure = np.eye(3)[:, :, None, None]
    assert mutual_information(sure)[0, 0] == pytest.approx(np.log(3))
    assert mutual_information(sure[:2])[0, 0] == pytest.approx(np.log(2)), "two passes know two classes"


def test_information_by_hand() -> None:
    two = np.stack([column(0.9, 0.1), column(0.5, 0.5)])
    by_hand = entropy(column(0.7, 0.3)) - (entropy(two[0]) + entropy(two[1])) / 2
    assert mutual_information(two)[0, 0] == pytest.approx(by_hand[0, 0])
    assert by_hand[0, 0] == pytest.approx(0.1018, abs=1e-4)


@given(prob_PKHW=passes())
def test_information_stays_within_its_limits(prob_PKHW: np.ndarray) -> None:
    found = mutual_information(prob_PKHW)
    assert (found >= 0).all()
    assert (found <= np.log(min(prob_PKHW.shape[:2])) + 1e-9).all()
    assert (found <= entropy(prob_PKHW.mean(axis=0)) + 1e-9).all(), "never more than the doubt there is"
    np.testing.assert_allclose(found, mutual_information(prob_PKHW[::-1]), atol=1e-12)


@given(prob_PKHW=passes())
def test_margin_and_entropy_stay_within_their_limits(prob_PKHW: np.ndarray) -> None:
    prob_KHW = prob_PKHW[0]
    assert (margin(prob_KHW) >= -1e-12).all()
    assert (margin(prob_KHW) <= 1 + 1e-12).all()
    assert (entropy(prob_KHW) >= 0).all()
    assert (entropy(prob_KHW) <= np.log(len(prob_KHW)) + 1e-9).all()


def test_disagreement_is_what_the_model_does_not_give_the_class_of_cip() -> None:
    prob = np.array([[[0.9, 0.9, 0.2, 0.9]], [[0.1, 0.1, 0.7, 0.1]], [[0.0, 0.0, 0.1, 0.0]]])
    cip = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_allclose(disagreement(prob, cip), [[0.1, 0.9, 0.9, 0.0]])


def test_a_cip_of_another_assay_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"CIP mask: values \[3, 7\], expected 0…2 or 255"):
        disagreement(np.full((3, 1, 3), 1 / 3), np.array([[3, 7, 255]], np.uint8))
    with pytest.raises(ShapeError, match=r"CIP mask \(3, 1\), probabilities \(3, 1, 3\)"):
        disagreement(np.full((3, 1, 3), 1 / 3), np.zeros((3, 1), np.uint8))


@pytest.mark.parametrize("measure", [entropy, margin])
@pytest.mark.parametrize("shape", [(3, 4), (1, 4, 4), (2, 3, 4, 4)])
def test_other_shapes_are_refused(measure: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(K >= 2, H, W\)"):
        measure(np.full(shape, 0.5))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4), (2, 1, 4, 4), (2, 4, 4)])
def test_one_pass_cannot_disagree_with_itself(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"expected \(P >= 2, K >= 2, H, W\)"):
        mutual_information(np.full(shape, 0.5))
