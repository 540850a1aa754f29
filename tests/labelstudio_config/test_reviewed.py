"""Ignore and what lies outside a reviewed region: no loss, metric, contest or ranking hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import Tiny, make_tiny

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.contest_needs import ContestWell
from cytoloop.domain.label_quality import label_quality
from cytoloop.domain.metrics import calibration_of, correction_delta, evaluate
from cytoloop.domain.scoring import soften
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import Item
from cytoloop.nn.losses import generalised_dice_loss
from cytoloop.pipeline.contest_wells import contest_wells
from cytoloop.pipeline.training_data import training_items
from cytoloop.pipeline.weak_labels import weak_masks
from labelstudio_config.payloads import prediction_result

LEFT = np.zeros((32, 40), bool)
LEFT[:, :20] = True
"""What was looked at of an item."""
FRAME = {
    "id": "frame",
    "from_name": "reviewed",
    "to_name": "image",
    "type": "rectanglelabels",
    "origin": "manual",
    "original_width": 40,
    "original_height": 32,
    "image_rotation": 0,
    "value": {
        "x": 0,
        "y": 0,
        "width": 50,
        "height": 100,
        "rotation": 0,
        "rectanglelabels": ["Reviewed region"],
    },
}
TRAIN, CONTEST = Item(image_id="P-A03", tile=1), Item(image_id="P-A01", tile=1)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = make_tiny(tmp_path)
    made.publish_active()
    made.listen()
    return made


def framed(tiny: Tiny, item: Item) -> list[dict[str, Any]]:
    """The truth where the expert looked, and what lay there before where not."""
    mask_HW = tiny.truth_of(item).copy()
    mask_HW[:, 20:] = 2
    return [*prediction_result(mask_HW, tiny.assay), FRAME]


def brushed(tiny: Tiny, item: Item) -> list[dict[str, Any]]:
    """The same, said with the Ignore brush."""
    return prediction_result(np.where(LEFT, tiny.truth_of(item), np.uint8(IGNORE)), tiny.assay)


@pytest.mark.parametrize("way", [framed, brushed])
def test_a_model_learns_from_what_was_looked_at_alone(tiny: Tiny, way: Any) -> None:
    tiny.studio.annotate(tiny.task_of(TRAIN), way(tiny, TRAIN))
    tiny.intake.drain()
    stored_HW = tiny.store.masks.get(tiny.standing(TRAIN).mask)
    np.testing.assert_array_equal(stored_HW, np.where(LEFT, tiny.truth_of(TRAIN), IGNORE))
    splits = {record.image_id: record.split for record in tiny.store.images.all(tiny.name)}
    weak = {"P-A03": weak_masks(tiny.store, tiny.assay)["P-A03"]}
    snapshot = make_snapshot(tiny.name, "joint", weak, {TRAIN: tiny.standing(TRAIN).mask}, splits)
    corrected, from_weak = training_items(tiny.store, tiny.assay, snapshot, 0.5)[0]
    assert (corrected.mask_HW[:32, 40:][:, 20:] == IGNORE).all()
    assert (corrected.mask_HW[:32, 40:][:, :20] != IGNORE).all()
    assert (from_weak.mask_HW[:32, 40:] == IGNORE).all()  # nor is it the teacher's to fill in


@pytest.mark.parametrize("way", [framed, brushed])
def test_a_contest_well_holds_what_was_looked_at_alone(tiny: Tiny, way: Any) -> None:
    def well() -> ContestWell:
        return next(one for one in contest_wells(tiny.store, tiny.assay) if one.group.endswith("A01"))

    empty_HW = np.where(LEFT, np.uint8(0), np.uint8(2))
    regions = [*prediction_result(empty_HW, tiny.assay), FRAME]
    if way is brushed:
        regions = prediction_result(np.where(LEFT, empty_HW, np.uint8(IGNORE)), tiny.assay)
    tiny.studio.annotate(tiny.task_of(CONTEST), regions)
    tiny.intake.drain()
    assert well().classes == {"Background"}


def outsiders(tiny: Tiny) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """A correction with its right half set aside, and two proposals that differ there alone."""
    truth_HW = np.where(LEFT, tiny.truth_of(TRAIN), np.uint8(IGNORE))
    # away from the edge of what was looked at: boundaries and objects are compared with what is near
    one_HW, other_HW = np.zeros((32, 40), np.uint8), np.zeros((32, 40), np.uint8)
    one_HW[8:20, 4:12] = other_HW[8:20, 4:12] = 1
    other_HW[4:28, 28:38] = 2
    proposals = [soften(mask_HW, 3) for mask_HW in (one_HW, other_HW)]
    proposals[1][:, :, :24] = proposals[0][:, :, :24]
    return truth_HW, proposals[0], proposals[1]


def test_no_metric_hears_of_what_was_not_looked_at(tiny: Tiny) -> None:
    truth_HW, *probs = outsiders(tiny)
    masks = [prob_KHW.argmax(axis=0).astype(np.uint8) for prob_KHW in probs]
    assert (masks[0] != masks[1]).any()
    names = tiny.assay.class_names
    told = [evaluate([("item", truth_HW, mask_HW)], names).to_dict() for mask_HW in masks]
    assert str(told[0]) == str(told[1])
    calibrations = [calibration_of(prob_KHW, truth_HW) for prob_KHW in probs]
    np.testing.assert_array_equal(calibrations[0].pixels_KB, calibrations[1].pixels_KB)


def test_no_loss_hears_of_what_was_not_looked_at(tiny: Tiny) -> None:
    truth_HW, *probs = outsiders(tiny)
    target = torch.from_numpy(truth_HW)[None]
    losses = [generalised_dice_loss(torch.from_numpy(prob_KHW)[None], target) for prob_KHW in probs]
    assert float(losses[0]) == float(losses[1])


def test_no_second_look_is_asked_for_what_was_not_looked_at(tiny: Tiny) -> None:
    truth_HW, *probs = outsiders(tiny)
    qualities = [label_quality(truth_HW, prob_KHW) for prob_KHW in probs]
    assert str(qualities[0]) == str(qualities[1])


def test_what_is_set_aside_is_told_as_set_aside_and_not_as_an_error(tiny: Tiny) -> None:
    truth_HW, *probs = outsiders(tiny)
    masks = [prob_KHW.argmax(axis=0).astype(np.uint8) for prob_KHW in probs]
    deltas = [correction_delta(mask_HW, truth_HW, 3) for mask_HW in masks]
    assert str(deltas[0].errors) == str(deltas[1].errors)
