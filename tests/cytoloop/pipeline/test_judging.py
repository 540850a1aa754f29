"""Beside the masks: calibration, time and doubt of a version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import Item

import cytoloop.pipeline.judging as judging
from cytoloop.domain.metrics import calibration_of
from cytoloop.domain.types import ImageRecord
from cytoloop.pipeline.judging import doubt_maps, judged_items, predicted_masks, recipe_seconds

if TYPE_CHECKING:
    from conftest import SmallHome


class Half:
    """Sure of class 1 in the upper half of a field, without an idea in the lower; counts who asks."""

    version = "cdl-20240517-00000000"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        self.asked.append(record.image_id)
        prob_KHW = np.full((3, record.height, record.width), 1 / 3, np.float32)
        prob_KHW[:, : record.height // 2] = np.array([0, 1, 0])[:, None, None]
        return prob_KHW


def corrections_of(home: SmallHome) -> list:  # type: ignore[type-arg]
    return list(home.store.corrections.standing(home.assay.name).values())


def test_each_item_carries_the_calibration_of_its_own_pixels(home: SmallHome) -> None:
    image_id = home.of("train")[0].image_id
    truth = home.correct(image_id, 0, np.ones((32, 32), np.uint8))
    home.correct(image_id, 3, np.zeros((32, 32), np.uint8))
    predictor = Half()
    upper, lower = judged_items(home.store, home.assay, predictor, corrections_of(home))
    prob_KHW = Half().predict(home.store.images.get(home.assay.name, image_id))
    expected = calibration_of(prob_KHW[:, :32, :32], truth)
    np.testing.assert_array_equal(upper.calibration.pixels_KB, expected.pixels_KB)
    assert upper.calibration.foreground_ece == 0.0
    assert lower.calibration.class_ece_K[0] == pytest.approx(2 / 3), "a third sure, always right"
    assert predictor.asked == [image_id]
    assert upper.seconds == lower.seconds > 0


def test_doubt_is_a_share_of_the_most_there_can_be(home: SmallHome) -> None:
    image_id = home.of("train")[0].image_id
    items = [Item(image_id=image_id, tile=tile) for tile in (3, 0)]
    predictor = Half()
    doubts = doubt_maps(home.store, home.assay, predictor, items)
    assert set(doubts) == set(items)
    assert (doubts[items[1]] == 0).all()
    np.testing.assert_allclose(doubts[items[0]], 1.0, atol=1e-6)
    assert doubts[items[0]].max() <= 1.0
    assert predictor.asked == [image_id]


def test_between_two_of_three_classes_there_is_less_doubt_than_without_an_idea(home: SmallHome) -> None:
    class Torn(Half):
        def predict(self, record: ImageRecord) -> NDArray[np.float32]:
            prob_KHW = np.full((3, record.height, record.width), 0.5, np.float32)
            prob_KHW[0] = 0
            return prob_KHW

    item = Item(image_id=home.of("train")[0].image_id, tile=0)
    doubt_HW = doubt_maps(home.store, home.assay, Torn(), [item])[item]
    np.testing.assert_allclose(doubt_HW, np.log(2) / np.log(3), atol=1e-6)


def test_masks_of_items_come_from_one_prediction_an_image(home: SmallHome) -> None:
    first, second = (record.image_id for record in home.store.images.all(home.assay.name)[:2])
    items = [
        Item(image_id=first, tile=1),
        Item(image_id=second, tile=2),
        Item(image_id=first, tile=2),
    ]
    predictor = Half()
    masks = dict(predicted_masks(home.store, home.assay, predictor, items))
    assert predictor.asked == [first, second]
    assert [int(masks[item].max()) for item in items] == [1, 0, 0]


def test_the_recipe_is_timed_by_running_it(home: SmallHome, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[str] = []
    monkeypatch.setattr(judging, "make_weak_label", lambda image, key, cip: run.append(key))
    records = home.store.images.all(home.assay.name)[:2]
    seconds = recipe_seconds(home.assay, home.assay.cip, records)
    assert run == [record.image_key for record in records]
    assert len(seconds) == 2
    assert min(seconds) > 0
