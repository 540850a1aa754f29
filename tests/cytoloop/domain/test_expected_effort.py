"""Expected effort: certain = a look; what is doubtful costs what its correction would."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cytoloop.domain import effort
from cytoloop.domain.effort import correction_minutes, drawing_minutes
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.expected_effort import (
    MINUTES_AS_FIXED,
    MinutesModel,
    Timing,
    _largest_within,
    expected_effort,
    fit_minutes,
)

SIDE = 40


def prob_of(*found: tuple[int, int, int, tuple[float, float, float]]) -> np.ndarray:
    """Certain background, with squares (row, column, side, probabilities)."""
    prob_KHW = np.zeros((3, SIDE, SIDE))
    prob_KHW[0] = 1
    for row, column, side, probs in found:
        prob_KHW[:, row : row + side, column : column + side] = np.array(probs)[:, None, None]
    return prob_KHW


def test_a_certain_version_costs_a_look() -> None:
    found = expected_effort(prob_of((5, 5, 9, (0, 1, 0)), (20, 20, 6, (0, 0, 1))))
    assert found.minutes == effort.MINUTES_TO_LOOK
    assert found.changing_minutes == 0
    assert found.sizes_N.tolist() == [81, 36]
    assert expected_effort(prob_of()).minutes == effort.MINUTES_TO_LOOK


def test_a_doubtful_object_is_removed_by_its_chance_of_being_none() -> None:
    found = expected_effort(prob_of((5, 5, 4, (0.3, 0.7, 0))))
    assert found.objects_removed == pytest.approx(0.3)
    assert (found.objects_added, found.boundary_pixels) == (0, 0)
    assert found.objects_relabelled == pytest.approx(0)
    assert found.minutes == pytest.approx(effort.MINUTES_TO_LOOK + 0.3 * effort.MINUTES_PER_REMOVED)


def test_an_object_between_two_classes_is_relabelled_by_its_chance() -> None:
    found = expected_effort(prob_of((5, 5, 4, (0, 0.6, 0.4)), (20, 20, 4, (0, 0, 1))))
    assert found.objects_relabelled == pytest.approx(0.4)
    np.testing.assert_allclose(found.other_class_N, [0.4, 0.0], atol=1e-12)


def test_what_may_hide_in_background_is_added_with_its_outline() -> None:
    found = expected_effort(prob_of((20, 20, 4, (0.6, 0.4, 0)), (5, 5, 9, (0, 0, 1))))
    assert found.objects_added == pytest.approx(0.4)
    assert found.boundary_pixels == pytest.approx(0.4 * 12)
    missing = 0.4 / 1.4
    assert found.changing_minutes == pytest.approx(
        0.4 * (effort.MINUTES_PER_ADDED + effort.MINUTES_PER_SEARCH * missing)
        + 0.4 * 12 * effort.MINUTES_PER_BOUNDARY_PIXEL
    )
    assert expected_effort(prob_of((20, 20, 4, (0.92, 0.08, 0)))).objects_added == 0


def test_doubt_within_the_tolerance_of_an_outline_moves_nothing() -> None:
    prob_KHW = prob_of((8, 8, 14, (0.45, 0.55, 0)), (10, 10, 10, (0, 1, 0)))
    assert expected_effort(prob_KHW).boundary_pixels == 0


def test_doubt_beyond_it_pulls_the_outline() -> None:
    """Rows 10 to 21, columns 8 to 31; from column 20 on it is background at 0.4.

    Beyond the tolerance lie rows 13 to 18, columns 20 to 28. Within 5 pixels of them: of the upper and the
    lower edge columns 15 to 31, of the right edge the ten rows between.
    """
    prob_KHW = prob_of((10, 8, 12, (0, 1, 0)), (10, 20, 12, (0.4, 0.6, 0)))
    found = expected_effort(prob_KHW)
    kept = 1 - 0.2
    assert found.objects_removed == pytest.approx(0.2)
    assert found.boundary_pixels == pytest.approx(kept * 0.4 * (17 + 17 + 10))
    assert found.objects_reshaped == pytest.approx(kept * 0.4)


def test_a_hopeless_proposal_never_costs_more_than_drawing_it() -> None:
    prob_KHW = prob_of()
    prob_KHW[:, ::4, ::4] = np.array([0.49, 0.51, 0])[:, None, None]
    prob_KHW[:, 2::4, 2::4] = np.array([0.7, 0.3, 0])[:, None, None]
    found = expected_effort(prob_KHW)
    assert found.minutes <= drawing_minutes((prob_KHW[0] < 0.99).astype(np.uint8))


def test_it_ranks_versions_as_the_fixed_model_does_afterwards() -> None:
    """Truth is drawn from the probabilities themselves, object by object: the mean must come out right."""
    rng = np.random.default_rng(0)
    expected, true = [], []
    for keep in (0.95, 0.8, 0.6):
        places = [(row, column) for row in (3, 13, 23, 33) for column in (3, 13, 23, 33)]
        prob_KHW = prob_of(*((r, c, 4, (1 - keep, keep, 0)) for r, c in places))
        proposal = prob_KHW.argmax(axis=0).astype(np.uint8)
        expected.append(expected_effort(prob_KHW).minutes)
        drawn = []
        for _ in range(60):
            truth = np.zeros_like(proposal)
            for row, column in places:
                truth[row : row + 4, column : column + 4] = rng.random() < keep
            drawn.append(correction_minutes(proposal, truth))
        true.append(float(np.mean(drawn)))
    assert expected == sorted(expected)
    np.testing.assert_allclose(expected, true, rtol=0.1)


@settings(max_examples=40, deadline=None)
@given(
    logits=arrays(np.float32, (3, 12, 15), elements=st.floats(-4, 4, width=32)),
    reach=st.integers(1, 6),
)
def test_expected_counts_are_never_negative_nor_the_minutes_below_a_look(
    logits: np.ndarray, reach: int
) -> None:
    prob_KHW = np.exp(logits) / np.exp(logits).sum(axis=0)
    found = expected_effort(prob_KHW)
    counts = [getattr(found, f"objects_{k}") for k in ("added", "removed", "relabelled", "reshaped")]
    assert min(*counts, found.boundary_pixels) >= 0
    assert math.isfinite(found.minutes)
    assert found.minutes >= effort.MINUTES_TO_LOOK
    window = 2 * reach + 1
    np.testing.assert_array_equal(
        _largest_within(prob_KHW[0], reach),
        ndimage.maximum_filter(prob_KHW[0], window, mode="constant"),
    )


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ShapeError, match=r"expected effort: probabilities \(4, 5\)"):
        expected_effort(np.zeros((4, 5)))


# --- lead times ------------------------------------------------------------------------------------


def timings(expert: str, ratio: float, count: int) -> list[Timing]:
    return [
        Timing(expert=expert, expected_minutes=1 + n % 5, lead_time_s=60 * ratio * (1 + n % 5))
        for n in range(count)
    ]


def test_before_any_lead_time_the_prices_are_as_fixed() -> None:
    assert fit_minutes([]) == MINUTES_AS_FIXED
    assert MINUTES_AS_FIXED.minutes(3.5, "ada") == 3.5


def test_the_more_corrections_the_less_the_fixed_prices_count() -> None:
    scales = [fit_minutes(timings("ada", 3.0, count)).scale for count in (1, 10, 100, 1000)]
    assert scales == sorted(scales)
    assert scales[1] == pytest.approx(3**0.5)
    assert scales[3] == pytest.approx(3.0, rel=0.02)


def test_each_expert_has_a_pace_shrunk_to_that_of_all() -> None:
    model = fit_minutes([*timings("ada", 2.0, 200), *timings("bob", 8.0, 100), *timings("new", 8.0, 1)])
    assert model.minutes(1.0, "ada") == pytest.approx(2.0, rel=0.05)
    assert model.minutes(1.0, "bob") == pytest.approx(8.0, rel=0.15)
    assert 2.0 < model.minutes(1.0, "new") < 2.5, "one correction says little"
    assert model.minutes(2.0, "nobody") == model.minutes(2.0) == 2.0 * model.scale
    assert model.corrections == 301


def test_a_lunch_with_the_editor_open_changes_nothing() -> None:
    plain = timings("ada", 1.5, 30)
    lunches = [Timing(expert="ada", expected_minutes=2, lead_time_s=4 * 3600)] * 9
    assert fit_minutes([*plain, *lunches]).scale == pytest.approx(fit_minutes(plain).scale, rel=0.1)
    clicks = [Timing(expert="ada", expected_minutes=2, lead_time_s=1)] * 100
    assert fit_minutes([*plain, *clicks]) == fit_minutes(plain)


def test_scales_are_bounded() -> None:
    assert fit_minutes(timings("ada", 1000.0, 500)).scale == 10.0


@given(
    scale=st.floats(0.1, 10),
    experts=st.dictionaries(st.text(max_size=5), st.floats(0.1, 10), max_size=3),
    corrections=st.integers(0, 10**6),
)
def test_a_model_survives_json(scale: float, experts: dict[str, float], corrections: int) -> None:
    model = MinutesModel(scale=scale, experts=experts, corrections=corrections)
    assert MinutesModel.from_document(json.loads(json.dumps(model.document()))) == model


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"scale": 1.0}, r"here: \{'scale': 1.0\}, expected the keys \['corrections', 'experts', 'scale'\]"),
        ({"scale": "x", "experts": {}, "corrections": 1}, "expected numbers"),
        ({"scale": float("nan"), "experts": {}, "corrections": 1}, "scale nan of anyone"),
        ({"scale": 1, "experts": {"ada": 0}, "corrections": 1}, "scale 0.0 of ada"),
        ({"scale": 1, "experts": {}, "corrections": -1}, "-1 corrections"),
    ],
)
def test_a_document_that_is_no_model_is_named(document: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MinutesModel.from_document(document, "here")


@pytest.mark.parametrize(
    ("expected_minutes", "lead_time_s", "message"),
    [
        (0.0, 60, "0.0 expected minutes"),
        (math.nan, 60, "nan expected"),
        (1, -1, "lead time -1 s"),
        (1, math.inf, "inf s"),
    ],
)
def test_timings_that_are_none_are_named(expected_minutes: float, lead_time_s: float, message: str) -> None:
    with pytest.raises(InputError, match=f"timing of ada: .*{message}|timing of ada: {message}"):
        fit_minutes([Timing(expert="ada", expected_minutes=expected_minutes, lead_time_s=lead_time_s)])
