"""What a correction changed, worked by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cytoloop.domain.effort import correction_effort
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import correction_delta

NAMES = ("background", "spot", "ring")
MASKS = arrays(np.uint8, (6, 8), elements=st.sampled_from([0, 0, 1, 2, 255]))


def row(text: str) -> np.ndarray:
    return np.array([[255 if c == "x" else int(c) for c in text]], np.uint8)


def test_pixels_objects_errors_and_minutes_by_hand() -> None:
    before = row("11100220011000x")
    after = row("110001100000220")
    # spot shrinks by one pixel; ring becomes spot; a spot is deleted; a ring is drawn, one pixel of it over
    # what was background, and the pixel that was not looked at is background now
    delta = correction_delta(before, after, 3, lead_time_s=90.0)
    assert delta.pixels_KK.tolist() == [[5, 0, 2], [3, 2, 0], [0, 2, 0]]
    assert (delta.pixels_added, delta.pixels_removed, delta.pixels_relabelled) == (2, 3, 2)
    assert (delta.pixels_set_aside, delta.pixels_taken_up) == (0, 1)
    assert (delta.effort.objects_added, delta.effort.objects_removed) == (1, 1)
    assert delta.effort.objects_relabelled == 1
    # seen from the saved mask: the first spot was right, the second misclassified, the ring missed
    assert delta.errors.right_K.tolist() == [0, 1, 0]
    assert delta.errors.misclassified_K.tolist() == [0, 1, 0]
    assert delta.errors.missed_K.tolist() == [0, 0, 1]
    assert delta.errors.invented_K.tolist() == [0, 1, 0]
    assert delta.minutes_taken == 1.5
    assert not delta.is_unchanged


def test_a_mask_saved_as_it_was_proposed_is_unchanged() -> None:
    delta = correction_delta(row("0110x"), row("0110x"), 3)
    assert delta.is_unchanged
    assert delta.minutes_taken is None
    assert not correction_delta(row("0110"), row("011x"), 3).is_unchanged


@given(before=MASKS, after=MASKS)
def test_every_pixel_is_counted_once(before: np.ndarray, after: np.ndarray) -> None:
    delta = correction_delta(before, after, 3)
    both_hidden = np.count_nonzero((before == 255) & (after == 255))
    assert delta.pixels_KK.sum() + delta.pixels_set_aside + delta.pixels_taken_up + both_hidden == before.size
    stayed = np.trace(delta.pixels_KK)
    changed = delta.pixels_added + delta.pixels_removed + delta.pixels_relabelled
    assert delta.pixels_KK.sum() == stayed + changed
    assert delta.is_unchanged == bool((before == after).all())
    assert delta.effort == correction_effort(before, after)


def test_json() -> None:
    delta = correction_delta(row("0110"), row("0220"), 3, lead_time_s=0.0)
    document = json.loads(json.dumps(delta.to_dict(NAMES), allow_nan=False))
    assert document["pixels"]["class_to_class"][1] == [0, 0, 2]
    assert document["pixels"]["relabelled"] == 2
    assert document["objects"] == {"added": 0, "removed": 0, "relabelled": 1, "reshaped": 0}
    assert document["minutes"] == {"taken": 0.0, "estimated": delta.effort.minutes}
    assert document["errors"]["classes"][1]["misclassified"] == 1


def test_bad_input_is_refused() -> None:
    with pytest.raises(ShapeError, match="expected one shape"):
        correction_delta(row("00"), row("000"), 3)
    with pytest.raises(InputError, match=r"lead time -1\.0 s, expected >= 0"):
        correction_delta(row("00"), row("00"), 3, lead_time_s=-1.0)
    with pytest.raises(InputError, match="lead time nan"):
        correction_delta(row("00"), row("00"), 3, lead_time_s=float("nan"))
