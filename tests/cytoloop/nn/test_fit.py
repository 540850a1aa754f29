from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import (
    EpochReport,
    TrainConfig,
    TrainingCancelled,
    TrainingDiverged,
    _optimiser,
    _schedule,
    fit,
)
from cytoloop.nn.normalisation import Normalisation
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet, UNetConfig

NETWORK = UNetConfig(in_channels=2, class_count=3, width=4)
TINY = TrainConfig(
    network=NETWORK,
    epochs=2,
    steps_per_epoch=3,
    batch=2,
    crop=32,
    cross_entropy_share=1.0,
    max_class_weight=1e-2,
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_discs(seed: int = 0) -> TrainingItem:
    """A yellow and a red disc on a dark field, as raw grey values, with exact truth."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:64, :72]
    mask = np.zeros((64, 72), np.uint8)
    mask[(rows - 20) ** 2 + (columns - 20) ** 2 < 60] = 1
    mask[(rows - 40) ** 2 + (columns - 50) ** 2 < 80] = 2
    image = np.stack((np.where(mask == 1, 5000, 600), np.where(mask > 0, 3000, 200)))
    return TrainingItem(image_CHW=rng.poisson(image).astype(np.float32), mask_HW=mask)


def test_one_tiny_image_is_learnt_by_heart() -> None:
    item = two_discs()
    config = replace(TINY, epochs=1, steps_per_epoch=80, batch=4, network=replace(NETWORK, width=8))
    result = fit(config, [item], device="cpu")
    pred = predict_prob(result.model, item.image_CHW, config.normalisation).argmax(axis=0)
    assert np.mean(pred == item.mask_HW) > 0.99
    for value in (1, 2):
        both = np.logical_and(pred == value, item.mask_HW == value).sum()
        assert both / np.logical_or(pred == value, item.mask_HW == value).sum() > 0.85


def test_same_seed_same_loss_and_weights_whatever_the_global_generator() -> None:
    items = [two_discs(0), two_discs(1)]
    torch.manual_seed(1)
    one = fit(TINY, items, device="cpu")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = fit(TINY, items, device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    assert [r.loss for r in one.history] == [r.loss for r in other.history]
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])
    different = fit(replace(TINY, seed=1), items, device="cpu")
    assert [r.loss for r in one.history] != [r.loss for r in different.history]


def test_the_best_epoch_on_clean_data_is_kept() -> None:
    scores = iter([0.2, 0.9, 0.9, 0.1])
    heads: list[torch.Tensor] = []

    def validate(model: UNet) -> float:
        assert not model.training
        heads.append(model.head.weight.detach().clone())
        return next(scores)

    result = fit(replace(TINY, epochs=4), [two_discs()], validate=validate, device="cpu")
    assert result.best_epoch == 2
    assert torch.equal(result.model.head.weight, heads[1])
    assert not torch.equal(heads[1], heads[3])
    assert not result.model.training


def test_without_validation_the_last_epoch_is_kept() -> None:
    result = fit(TINY, [two_discs()], device="cpu")
    assert result.best_epoch == 2
    assert [r.validation for r in result.history] == [None, None]


def test_progress_is_told_after_each_epoch() -> None:
    told: list[EpochReport] = []
    result = fit(TINY, [two_discs()], device="cpu", progress=told.append)
    assert tuple(told) == result.history
    assert [(r.epoch, r.epochs) for r in told] == [(1, 2), (2, 2)]
    assert told[0].seconds_left > 0.0
    assert told[-1].seconds_left == 0.0


def test_training_goes_on_from_a_model_without_changing_it() -> None:
    base = UNet(NETWORK, seed=9)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    result = fit(replace(TINY, learning_rate=1e-6), [two_discs()], initial=base, device="cpu")
    for name, tensor in base.state_dict().items():
        assert torch.equal(tensor, before[name])
    moved = (result.model.head.weight - base.head.weight).abs().max()
    assert 0.0 < float(moved.detach()) < 1e-4
    with pytest.raises(InputError, match="goes on from"):
        fit(replace(TINY, network=replace(NETWORK, width=8)), [two_discs()], initial=base, device="cpu")


def test_cancelling_stops_before_the_next_step() -> None:
    asked = iter([False] * 4 + [True])
    with pytest.raises(TrainingCancelled, match="epoch 2, step 2 of 3"):
        fit(TINY, [two_discs()], device="cpu", cancelled=lambda: next(asked))


def test_a_loss_that_is_no_number_is_an_error() -> None:
    with pytest.raises(TrainingDiverged, match="epoch 1 of 2"):
        fit(replace(TINY, optimiser="sgd", learning_rate=1e30), [two_discs()], device="cpu")
    with pytest.raises(TrainingDiverged, match="validation"):
        fit(TINY, [two_discs()], device="cpu", validate=lambda model: float("nan"))


def test_weak_items_of_weight_zero_teach_nothing() -> None:
    wrong = TrainingItem(image_CHW=two_discs(3).image_CHW, mask_HW=2 - two_discs(3).mask_HW, weight=0.0)
    alone = fit(TINY, [two_discs()], device="cpu")
    with_wrong = fit(TINY, [two_discs(), wrong], device="cpu")
    assert [r.loss for r in alone.history] == [r.loss for r in with_wrong.history]


def test_an_epoch_shows_each_pixel_once_on_average() -> None:
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    fit(replace(TINY, epochs=1, steps_per_epoch=None), [two_discs()] * 3, device="cpu", cancelled=count)
    assert steps == 7  # ceil(3 · 64 · 72 / (2 · 32²))


def test_the_papers_schedule_falls_by_a_fifth_every_three_epochs() -> None:
    config = replace(TINY, optimiser="sgd", schedule="steps", learning_rate=0.002, epochs=7)
    optimiser = _optimiser(config, UNet(NETWORK))
    schedule = _schedule(config, optimiser, 2)
    rates = []
    for _ in range(7):
        rates.append(optimiser.param_groups[0]["lr"])
        for _ in range(2):
            optimiser.step()
            schedule.step()
    assert rates == pytest.approx([0.002] * 3 + [0.0016] * 3 + [0.00128])


def test_one_cycle_ends_near_zero() -> None:
    optimiser = _optimiser(TINY, UNet(NETWORK))
    schedule = _schedule(replace(TINY, epochs=10), optimiser, 10)
    rates = []
    for _ in range(100):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert max(rates) == pytest.approx(TINY.learning_rate)
    assert rates[0] == pytest.approx(TINY.learning_rate / 10)
    assert rates[-1] < TINY.learning_rate / 100


def test_images_of_the_wrong_channels_are_refused() -> None:
    item = two_discs()
    with pytest.raises(InputError, match="1 channels, network of 2"):
        fit(TINY, [TrainingItem(image_CHW=item.image_CHW[:1], mask_HW=item.mask_HW)], device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"crop": 20},
        {"batch": 1.5},
        {"steps_per_epoch": 0},
        {"foreground_share": 1.1},
        {"trusted_share": -0.1},
        {"learning_rate": 0.0},
        {"max_class_weight": float("inf")},
        {"jitter": float("nan")},
        {"dice_share": 0.0, "cross_entropy_share": 0.0},
        {"optimiser": "adam"},
        {"schedule": "flat"},
    ],
)
def test_config_names_what_is_wrong(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        replace(TINY, **change)


def test_config_round_trip() -> None:
    config = replace(TINY, normalisation=Normalisation(low=2.0), steps_per_epoch=None)
    assert TrainConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="speed"):
        TrainConfig.from_dict({**config.to_dict(), "speed": 1})
