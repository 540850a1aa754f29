from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.nn.augment import Movement, jitter_intensity
from cytoloop.nn.dataset import CropSampler, TrainingItem
from cytoloop.nn.normalisation import Normalisation

ALL_MOVEMENTS = [Movement(quarter_turns=k, is_mirrored=m) for k in range(4) for m in (False, True)]


def draw_disc(centre: tuple[int, int], side: int = 21) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """An image of one bright disc, and its exact mask."""
    rows, columns = np.mgrid[:side, :side]
    is_disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= 16
    return np.where(is_disc, 900.0, 100.0).astype(np.float32)[None], is_disc.astype(np.uint8)


def sampler(items: Sequence[TrainingItem], **changes: Any) -> CropSampler:
    numbers: dict[str, Any] = {
        "class_count": 3,
        "normalisation": Normalisation(low=0, high=100),
        "crop": 16,
        "batch": 8,
        "foreground_share": 0.5,
        "trusted_share": None,
        "jitter": 0.0,
        "seed": 0,
    }
    return CropSampler(items, **{**numbers, **changes})


@pytest.mark.parametrize("movement", ALL_MOVEMENTS)
def test_moving_the_truth_and_drawing_again_gives_the_moved_image(movement: Movement) -> None:
    side, centre = 21, (6, 11)
    image, mask = draw_disc(centre, side)
    # The movement of a point, worked out without arrays: mirror the column, then turn.
    row, column = centre
    if movement.is_mirrored:
        column = side - 1 - column
    for _ in range(movement.quarter_turns):
        row, column = side - 1 - column, row
    expected_image, expected_mask = draw_disc((row, column), side)
    np.testing.assert_array_equal(movement.apply(image), expected_image)
    np.testing.assert_array_equal(movement.apply(mask), expected_mask)


def test_eight_movements_are_eight_different_pictures() -> None:
    picture = np.arange(9).reshape(3, 3)
    assert len({movement.apply(picture).tobytes() for movement in ALL_MOVEMENTS}) == 8


def test_drawn_movements_reach_all_eight_or_the_four_that_keep_the_sides() -> None:
    rng = np.random.default_rng(0)
    assert {Movement.drawn(rng) for _ in range(200)} == set(ALL_MOVEMENTS)
    kept = {Movement.drawn(rng, with_turns=False) for _ in range(100)}
    assert len(kept) == 4
    assert all(m.apply(np.zeros((3, 5))).shape == (3, 5) for m in kept)


def test_crops_keep_image_and_mask_together() -> None:
    """The image holds its own mask's value: wherever a crop lies and however it is turned, they agree."""
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 3, (40, 53)).astype(np.uint8)
    batch = sampler([TrainingItem(image_CHW=mask[None].astype(np.float32), mask_HW=mask)]).batch(0)
    np.testing.assert_array_equal(np.round(batch.image_NCHW[:, 0] * 2).astype(np.uint8), batch.mask_NHW)
    assert batch.image_NCHW.dtype == np.float32


@given(
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    top=st.floats(0, 1),
    left=st.floats(0, 1),
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_no_crop_is_entirely_ignored_nor_wastes_what_it_could_see(
    height: int, width: int, top: float, left: float, rows: int, columns: int, seed: int
) -> None:
    mask = np.full((height, width), 255, np.uint8)
    row, column = int(top * (height - 1)), int(left * (width - 1))
    mask[row : row + rows, column : column + columns] = 0
    looked_rows, looked_columns = min(rows, height - row), min(columns, width - column)
    image = np.random.default_rng(seed).random((1, height, width)).astype(np.float32)
    drawn = sampler([TrainingItem(image_CHW=image, mask_HW=mask)], seed=seed).batch(3).mask_NHW
    # One rectangle was looked at: as much of it as a crop can hold is in every crop.
    expected = min(looked_rows, 16) * min(looked_columns, 16)
    assert ((drawn != 255).sum(axis=(1, 2)) == expected).all()


def test_crops_favour_foreground_and_rare_classes() -> None:
    mask = np.zeros((256, 256), np.uint8)
    mask[20:24, 20:60] = 1
    mask[200, 200] = 2
    item = TrainingItem(image_CHW=np.random.default_rng(0).random((1, 256, 256)), mask_HW=mask)
    drawn = [sampler([item], foreground_share=1.0).batch(i).mask_NHW for i in range(20)]
    share = np.mean([(m == 2).any() for masks in drawn for m in masks])
    assert 0.35 < share < 0.65
    none = [sampler([item], foreground_share=0.0).batch(i).mask_NHW for i in range(20)]
    assert np.mean([(m > 0).any() for masks in none for m in masks]) < 0.2


def test_trusted_items_get_their_share() -> None:
    image, mask = draw_disc((8, 8))
    weak = [TrainingItem(image_CHW=image, mask_HW=mask, weight=0.3)] * 9
    items = [*weak, TrainingItem(image_CHW=image, mask_HW=mask, weight=1.0)]
    drawn = np.concatenate([sampler(items, trusted_share=0.5).batch(i).weight_N for i in range(50)])
    assert 0.4 < np.mean(drawn == 1.0) < 0.6
    alike = np.concatenate([sampler(items).batch(i).weight_N for i in range(50)])
    assert np.mean(alike == 1.0) < 0.2


def test_a_batch_depends_on_its_index_and_seed_alone() -> None:
    image, mask = draw_disc((8, 8))
    items = [TrainingItem(image_CHW=image, mask_HW=mask)]
    one, other = sampler(items, jitter=0.1), sampler(items, jitter=0.1)
    late_first = other.batch(5)
    other.batch(0)
    np.testing.assert_array_equal(one.batch(5).image_NCHW, late_first.image_NCHW)
    assert not np.array_equal(one.batch(5).image_NCHW, one.batch(6).image_NCHW)
    changed = sampler(items, jitter=0.1, seed=1).batch(5)
    assert not np.array_equal(changed.image_NCHW, late_first.image_NCHW)


def test_an_image_smaller_than_the_crop_is_mirrored_and_its_margin_ignored() -> None:
    image, mask = draw_disc((5, 5), side=10)
    batch = sampler([TrainingItem(image_CHW=image, mask_HW=mask)]).batch(0)
    assert ((batch.mask_NHW != 255).sum(axis=(1, 2)) == 100).all()
    assert (batch.image_NCHW.max(axis=(1, 2, 3)) == 1.0).all()


def test_an_image_of_nothing_but_foreground_can_be_learnt_from() -> None:
    mask = np.full((20, 20), 2, np.uint8)
    drawn = sampler([TrainingItem(image_CHW=np.zeros((1, 20, 20)), mask_HW=mask)], foreground_share=0.0)
    assert (drawn.batch(0).mask_NHW == 2).all()


def test_jitter_changes_brightness_only_and_zero_draws_nothing() -> None:
    image = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    rng = np.random.default_rng(0)
    untouched = image.copy()
    jitter_intensity(untouched, 0.0, rng)
    np.testing.assert_array_equal(untouched, image)
    assert rng.random() == np.random.default_rng(0).random()
    changed = image.copy()
    jitter_intensity(changed, 0.2, rng)
    steps = np.diff(changed.reshape(2, 4), axis=1)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), rtol=1e-4)
    assert not np.allclose(steps, 1.0)


def test_items_are_read_once_each() -> None:
    class Lazy(Sequence[TrainingItem]):
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[TrainingItem]:
            for index in range(3):
                self.read.append(index)
                image, mask = draw_disc((8, 8))
                yield TrainingItem(image_CHW=image, mask_HW=mask)

        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("read by index")

    items = Lazy()
    sampler(items).batch(0)
    assert items.read == [0, 1, 2]


def test_items_without_anything_to_learn_are_left_out_and_counted() -> None:
    image, mask = draw_disc((8, 8))
    empty = TrainingItem(image_CHW=image, mask_HW=np.full_like(mask, 255))
    good = TrainingItem(image_CHW=image, mask_HW=mask)
    assert sampler([empty, good]).item_count == 1
    assert sampler([empty, good]).looked_at_pixels == mask.size
    with pytest.raises(InputError, match="none with a pixel looked at"):
        sampler([empty])


def test_what_does_not_fit_is_named() -> None:
    image, mask = draw_disc((8, 8))
    good = TrainingItem(image_CHW=image, mask_HW=mask)
    with pytest.raises(ShapeError, match=r"training item 1: .*\(21, 20\)"):
        sampler([good, TrainingItem(image_CHW=image, mask_HW=mask[:, :-1])])
    with pytest.raises(ShapeError, match=r"training item 0: .*\[7\]"):
        sampler([TrainingItem(image_CHW=image, mask_HW=np.full_like(mask, 7))])
    with pytest.raises(ShapeError, match="channels"):
        sampler([good, TrainingItem(image_CHW=np.repeat(image, 2, axis=0), mask_HW=mask)])
    with pytest.raises(InputError, match="weight"):
        sampler([TrainingItem(image_CHW=image, mask_HW=mask, weight=float("nan"))])
