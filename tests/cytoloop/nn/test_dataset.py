from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.nn.augment import Movement, jitter_intensity
from cytoloop.nn.dataset import Batch, CropSampler, TrainingItem, WholeSampler
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


def telling_item(seed: int, height: int = 40, width: int = 53) -> TrainingItem:
    """An item whose image and confidence hold its own mask's value at each pixel."""
    mask = np.random.default_rng(seed).integers(0, 3, (height, width)).astype(np.uint8)
    confidence = ((mask + 1) / 3).astype(np.float32)
    return TrainingItem(image_CHW=mask[None].astype(np.float32), mask_HW=mask, confidence_HW=confidence)


def check_telling(batch: Batch) -> None:
    np.testing.assert_array_equal(np.round(batch.image_NCHW[:, 0] * 2).astype(np.uint8), batch.mask_NHW)
    assert batch.confidence_NHW is not None
    np.testing.assert_array_equal(batch.confidence_NHW, (batch.mask_NHW + 1) * 85)
    assert batch.image_NCHW.dtype == np.float32


def test_crops_keep_image_mask_and_confidence_together() -> None:
    """Wherever a crop lies and however it is turned, the three agree."""
    check_telling(sampler([telling_item(1)]).batch(0))


def test_whole_items_keep_image_mask_and_confidence_together() -> None:
    whole = whole_sampler([telling_item(n) for n in range(4)])
    for index in range(6):
        check_telling(whole.batch(index))


def test_an_item_without_doubts_is_sure_beside_one_with_them() -> None:
    image, mask = draw_disc((8, 8))
    sure = TrainingItem(image_CHW=image, mask_HW=mask)
    half = TrainingItem(
        image_CHW=image, mask_HW=mask, weight=0.5, confidence_HW=np.full(mask.shape, 0.5, np.float32)
    )
    assert sampler([sure]).batch(0).confidence_NHW is None
    batch = sampler([sure, half]).batch(0)
    assert batch.confidence_NHW is not None
    for weight, confidence in zip(batch.weight_N, batch.confidence_NHW, strict=True):
        assert (confidence == (255 if weight == 1.0 else 128)).all()


def test_no_crop_lies_around_pixels_nobody_is_sure_of() -> None:
    mask = np.zeros((64, 64), np.uint8)
    confidence = np.zeros((64, 64), np.float32)
    confidence[:16, :16] = 0.4
    image = np.random.default_rng(0).random((1, 64, 64))
    batch = sampler([TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=confidence)]).batch(0)
    assert (batch.mask_NHW == 0).all()
    with pytest.raises(InputError, match="none with a pixel looked at"):
        sampler([TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=0.0 * confidence)])


# --- items whole -----------------------------------------------------------------------------------


def whole_sampler(items: Sequence[TrainingItem], **changes: Any) -> WholeSampler:
    numbers: dict[str, Any] = {
        "class_count": 3,
        "normalisation": Normalisation(low=0, high=100),
        "batch": 2,
        "jitter": 0.0,
        "seed": 0,
    }
    return WholeSampler(items, **{**numbers, **changes})


def numbered(count: int, height: int = 32, width: int = 48) -> list[TrainingItem]:
    """Items that can be told apart by their weight."""
    rng = np.random.default_rng(0)
    return [
        TrainingItem(
            image_CHW=rng.random((1, height, width)),
            mask_HW=np.zeros((height, width), np.uint8),
            weight=n + 1.0,
        )
        for n in range(count)
    ]


def test_an_epoch_shows_every_item_once_in_an_order_of_its_own() -> None:
    whole = whole_sampler(numbered(5))
    assert whole.steps_per_epoch == 3
    orders = []
    for epoch in range(3):
        batches = [whole.batch(3 * epoch + step).weight_N for step in range(3)]
        assert sorted(len(weights) for weights in batches) == [1, 2, 2], "the smaller last batch is kept"
        orders.append(np.concatenate(batches).tolist())
        assert sorted(orders[-1]) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert orders[0] != orders[1] != orders[2]
    again = whole_sampler(numbered(5))
    late = [again.batch(index).weight_N.tolist() for index in (8, 7, 6)]
    assert [weight for weights in reversed(late) for weight in weights] == orders[2]
    assert whole_sampler(numbered(5), seed=1).batch(0).weight_N.tolist() != whole.batch(0).weight_N.tolist()


def test_items_of_one_size_share_a_batch_that_has_one_shape() -> None:
    whole = whole_sampler([*numbered(3), *numbered(4, 40, 40)], batch=3)
    assert whole.steps_per_epoch == 1 + 2
    shapes = {whole.batch(index).mask_NHW.shape for index in range(30)}
    assert shapes == {(3, 32, 48), (3, 48, 32), (3, 40, 40), (1, 40, 40)}


def test_whole_items_are_turned_and_mirrored_in_all_ways() -> None:
    picture = np.arange(32 * 48, dtype=np.float32).reshape(1, 32, 48)
    item = TrainingItem(image_CHW=picture, mask_HW=np.zeros((32, 48), np.uint8))
    whole = whole_sampler([item])
    corners = {tuple(whole.batch(i).image_NCHW[0, 0, [0, 0, -1], [0, -1, 0]].tolist()) for i in range(100)}
    assert len(corners) == 8


def test_an_item_is_cut_to_what_was_looked_at_but_normalised_whole() -> None:
    image = np.zeros((1, 80, 96), np.float32)
    image[0, 0, 0], image[0, 40:, 48:] = 4.0, 2.0
    mask = np.full((80, 96), 255, np.uint8)
    mask[40:, 48:] = 1
    batch = whole_sampler([TrainingItem(image_CHW=image, mask_HW=mask)]).batch(0)
    assert sorted(batch.mask_NHW.shape[1:]) == [40, 48]
    assert (batch.mask_NHW == 1).all()
    assert (batch.image_NCHW == 0.5).all()


def test_an_area_keeps_its_doubtful_margin() -> None:
    mask = np.full((80, 96), 255, np.uint8)
    mask[45:80, 50:96] = 1
    tile = (slice(40, 80), slice(48, 96))
    item = TrainingItem(image_CHW=np.zeros((1, 80, 96)), mask_HW=mask, area=tile)
    assert sorted(whole_sampler([item]).batch(0).mask_NHW.shape[1:]) == [40, 48]
    elsewhere = TrainingItem(
        image_CHW=np.zeros((1, 80, 96)), mask_HW=mask, area=(slice(0, 60), slice(48, 96))
    )
    with pytest.raises(InputError, match=r"rows 45 to 80, .*expected all of it in its area, 0 to 60"):
        whole_sampler([elsewhere])


@pytest.mark.parametrize(("row", "column"), [(0, 0), (79, 95), (30, 60)])
def test_a_small_area_is_shown_with_its_surroundings(row: int, column: int) -> None:
    mask = np.full((80, 96), 255, np.uint8)
    mask[row, column] = 1
    batch = whole_sampler([TrainingItem(image_CHW=np.zeros((1, 80, 96)), mask_HW=mask)]).batch(0)
    assert batch.mask_NHW.shape == (1, 32, 32)
    assert (batch.mask_NHW == 1).sum() == 1


def test_an_image_too_small_to_go_in_whole_is_refused() -> None:
    item = TrainingItem(image_CHW=np.zeros((1, 20, 50)), mask_HW=np.zeros((20, 50), np.uint8))
    with pytest.raises(InputError, match=r"training item 0: \(20, 50\) pixels; expected at least 32 x 32"):
        whole_sampler([item])


# --- crops -----------------------------------------------------------------------------------------


def test_the_sources_of_a_run_say_what_part_of_the_loss_is_theirs() -> None:
    image, mask = draw_disc((8, 8))
    weak = [TrainingItem(image_CHW=image, mask_HW=mask, weight=0.1)] * 9
    items = [*weak, TrainingItem(image_CHW=image, mask_HW=mask, weight=1.0)]
    corrected, others = sampler(items, trusted_share=0.75).sources()
    assert (corrected.items, corrected.pixels, corrected.weight) == (1, 441, 1.0)
    assert (others.items, others.pixels, others.weight) == (9, 9 * 441, pytest.approx(0.1))
    assert (corrected.drawn_share, others.drawn_share) == (0.75, 0.25)
    assert others.loss_share == pytest.approx(0.025 / 0.775)
    assert corrected.loss_share + others.loss_share == pytest.approx(1.0)
    # All items alike: 1 of 10 draws, and 1.0 of 1.9 in weight.
    alike, _ = sampler(items).sources()
    assert (alike.drawn_share, alike.loss_share) == (0.1, pytest.approx(1 / 1.9))
    assert len(sampler(weak).sources()) == 1


def test_the_digest_tells_runs_of_different_items_apart() -> None:
    image, mask = draw_disc((8, 8))
    other = mask.copy()
    other[0, 0] = 2
    doubt = np.ones(mask.shape, np.float32)
    digests = {
        sampler([item]).digest()
        for item in (
            TrainingItem(image_CHW=image, mask_HW=mask),
            TrainingItem(image_CHW=image + np.eye(21), mask_HW=mask),
            TrainingItem(image_CHW=image, mask_HW=other),
            TrainingItem(image_CHW=image, mask_HW=mask, weight=0.5),
            TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=doubt),
            TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=doubt / 2),
        )
    }
    assert len(digests) == 6
    assert sampler([TrainingItem(image_CHW=image, mask_HW=mask)]).digest() in digests


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
    with pytest.raises(ShapeError, match=r"confidence \(21, 20\), mask \(21, 21\)"):
        sampler([TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=np.ones((21, 20), np.float32))])
    for wrong in (1.5, -0.1, float("nan")):
        doubt = np.full(mask.shape, wrong, np.float32)
        with pytest.raises(InputError, match=r"training item 0: confidence .* expected 0 to 1"):
            sampler([TrainingItem(image_CHW=image, mask_HW=mask, confidence_HW=doubt)])
