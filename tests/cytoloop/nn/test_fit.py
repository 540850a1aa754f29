from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.nn.averaging import WeightAverage
from cytoloop.nn.checkpoint import CheckpointRefused, epochs_done, remove_checkpoint
from cytoloop.nn.dataset import TrainingItem
from cytoloop.nn.fit import (
    EpochReport,
    TrainConfig,
    TrainingCancelled,
    TrainingDiverged,
    _optimiser,
    fit,
    learning_rate,
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
    config = replace(TINY, schedule="steps", learning_rate=0.002, epochs=7)
    rates = [learning_rate(config, step, 2) for step in range(14)]
    assert rates == pytest.approx([0.002] * 6 + [0.0016] * 6 + [0.00128] * 2)


def test_one_cycle_rises_for_a_tenth_and_ends_near_zero() -> None:
    config = replace(TINY, epochs=10)
    rates = [learning_rate(config, step, 10) for step in range(100)]
    assert max(rates) == rates[9] == pytest.approx(TINY.learning_rate)
    assert rates[0] == pytest.approx(TINY.learning_rate / 10)
    assert rates[-1] < TINY.learning_rate / 100


def test_each_step_learns_at_its_rate() -> None:
    """Rate 0 from the second epoch on: the second epoch changes no weight."""
    config = replace(TINY, schedule="steps", decay=0.0, decay_epochs=1, weight_decay=0.0, optimiser="sgd")
    heads: list[torch.Tensor] = []

    def keep(model: UNet) -> float:
        heads.append(model.head.weight.detach().clone())
        return 0.0

    fit(config, [two_discs()], validate=keep, device="cpu")
    assert not torch.equal(heads[0], UNet(NETWORK, seed=0).head.weight)
    assert torch.equal(heads[0], heads[1])


def test_the_l2_penalty_of_sgd_spares_the_biases_of_convolutions_alone() -> None:
    model = UNet(NETWORK)
    optimiser = _optimiser(replace(TINY, optimiser="sgd", weight_decay=0.001), model)
    decay = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    spared = {name for name, parameter in model.named_parameters() if decay[id(parameter)] == 0.0}
    assert spared == {"head.bias", "up.0.bias", "up.1.bias", "up.2.bias"}
    assert len(decay) == len(list(model.parameters()))


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
        {"max_class_weight": None},
        {"gradient_limit": 0.0},
        {"absent_class": "ignore"},
        {"precision": "float16"},
        {"average_decay": 1.5},
        {"steps_per_epoch": 3, "crop": None},
        {"trusted_share": 0.5, "steps_per_epoch": None, "crop": None},
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


@pytest.mark.parametrize(("old", "new"), [(None, "exact"), (0.01, "clamp")])
def test_a_manifest_from_before_absent_class_was_named_still_loads(old: float | None, new: str) -> None:
    document = TINY.to_dict()
    for key in ("absent_class", "precision", "average_decay"):
        del document[key]
    loaded = TrainConfig.from_dict({**document, "max_class_weight": old})
    assert loaded.absent_class == new
    assert loaded.max_class_weight == (1e-4 if old is None else old)


# --- confidence, precision, averages ---------------------------------------------------------------


def test_what_nobody_is_sure_of_teaches_nothing() -> None:
    """A wrong half of a mask at confidence 0 gives the very run of a mask that is 255 there."""
    item = two_discs()
    wrong, ignored, confidence = item.mask_HW.copy(), item.mask_HW.copy(), np.ones((64, 72), np.float32)
    wrong[:, 36:], ignored[:, 36:], confidence[:, 36:] = 1, 255, 0.0
    doubted = TrainingItem(image_CHW=item.image_CHW, mask_HW=wrong, confidence_HW=confidence)
    left_out = TrainingItem(image_CHW=item.image_CHW, mask_HW=ignored)
    losses = [[r.loss for r in fit(TINY, [one], device="cpu").history] for one in (doubted, left_out)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("share", [{"dice_share": 0.0}, {"cross_entropy_share": 0.0}])
def test_confidence_reaches_both_losses(share: dict[str, float]) -> None:
    item = two_discs()
    unsure = np.where(item.mask_HW == 1, np.float32(0.2), np.float32(1.0))
    doubted = TrainingItem(image_CHW=item.image_CHW, mask_HW=item.mask_HW, confidence_HW=unsure)
    config = replace(TINY, epochs=1, steps_per_epoch=1, **share)
    sure, less = (fit(config, [one], device="cpu").history[0].loss for one in (item, doubted))
    assert sure != less


def test_bfloat16_is_repeatable_and_close_to_float32() -> None:
    config = replace(TINY, precision="bfloat16")
    one, again, full = (fit(c, [two_discs()], device="cpu") for c in (config, config, TINY))
    assert [r.loss for r in one.history] == [r.loss for r in again.history]
    assert [r.loss for r in one.history] != [r.loss for r in full.history]
    assert [r.loss for r in one.history] == pytest.approx([r.loss for r in full.history], rel=0.02)
    assert {t.dtype for t in one.model.state_dict().values()} == {torch.float32, torch.int64}


def test_the_average_of_weights_by_hand() -> None:
    model = UNet(NETWORK, seed=1)
    average = WeightAverage(model, 0.5)
    first = model.head.bias.detach().clone()
    values = []
    for step in range(12):
        with torch.no_grad():
            model.head.bias.copy_(first + step + 1)
            model.encoder[0][1].running_mean.fill_(float(step))  # type: ignore[index, operator, union-attr]
        average.update(model, step)
        values.append(float((average.model.head.bias - first)[0].detach()))
    # Decay 1/10, then 2/11: 0·0.1 + 1·0.9, then 0.9·2/11 + 2·9/11.
    assert values[:2] == pytest.approx([0.9, 0.9 * 2 / 11 + 18 / 11], abs=1e-5)
    # At step 8 it would be 9/18, from where on it is the full 0.5.
    assert values[9] == pytest.approx((values[8] + 10) / 2, abs=1e-5)
    assert values[11] == pytest.approx((values[10] + 12) / 2, abs=1e-5)
    running = average.model.encoder[0][1].running_mean  # type: ignore[index]
    assert 9.0 < float(running[0]) < 11.0  # type: ignore[index, arg-type]


def test_the_average_is_validated_and_kept_and_does_not_change_the_run() -> None:
    heads: list[torch.Tensor] = []

    def keep(model: UNet) -> float:
        assert not model.training
        heads.append(model.head.weight.detach().clone())
        return float(len(heads))

    plain = fit(TINY, [two_discs()], device="cpu")
    averaged = fit(replace(TINY, average_decay=0.9), [two_discs()], validate=keep, device="cpu")
    assert [r.loss for r in plain.history] == [r.loss for r in averaged.history]
    assert torch.equal(averaged.model.head.weight, heads[1])
    assert not torch.equal(averaged.model.head.weight, plain.model.head.weight)


def test_weak_validation_is_told_and_chooses_nothing() -> None:
    clean, weak = iter([0.5, 0.4]), iter([0.6, 0.9])
    result = fit(
        TINY,
        [two_discs()],
        validate=lambda model: next(clean),
        validate_weak=lambda model: next(weak),
        device="cpu",
    )
    assert [(r.validation, r.weak_validation) for r in result.history] == [(0.5, 0.6), (0.4, 0.9)]
    assert result.best_epoch == 1


def test_a_run_whose_clean_score_stopped_rising_ends_and_keeps_the_best_epoch() -> None:
    scores = iter([0.3, 0.5, 0.4, 0.5, 0.9])
    config = replace(TINY, epochs=5, steps_per_epoch=1, patience=2)
    result = fit(config, [two_discs()], validate=lambda model: next(scores), device="cpu")
    assert [report.validation for report in result.history] == [0.3, 0.5, 0.4, 0.5]
    assert result.best_epoch == 2


def test_a_run_without_clean_data_ends_when_agreement_with_the_teacher_levels_off() -> None:
    # of the 0.4 that differed, 0.05 went: more than a tenth; of the 0.35 after that, 0.03: less
    weak = iter([0.40, 0.60, 0.65, 0.68, 0.9])
    config = replace(TINY, epochs=5, steps_per_epoch=1, stop_gain=0.1)
    result = fit(config, [two_discs()], validate_weak=lambda model: next(weak), device="cpu")
    assert [report.weak_validation for report in result.history] == [0.40, 0.60, 0.65, 0.68]
    assert result.best_epoch == 4


def test_clean_data_has_the_word_where_there_is_any() -> None:
    weak, clean = iter([0.5] * 3), iter([0.1, 0.2, 0.3])
    config = replace(TINY, epochs=3, steps_per_epoch=1, stop_gain=0.01)
    result = fit(
        config,
        [two_discs()],
        validate=lambda model: next(clean),
        validate_weak=lambda model: next(weak),
        device="cpu",
    )
    assert result.best_epoch == len(result.history) == 3


def test_a_run_that_stopped_by_itself_trains_no_further_when_started_again(tmp_path: Path) -> None:
    config = replace(TINY, epochs=4, steps_per_epoch=1, patience=1)

    def start(scores: list[float]) -> tuple[int, int]:
        given = iter(scores)
        result = fit(
            config,
            [two_discs()],
            validate=lambda model: next(given),
            device="cpu",
            checkpoint=tmp_path / "run",
        )
        return len(result.history), result.best_epoch

    assert start([0.5, 0.4]) == (2, 1)
    assert start([]) == (2, 1)


def test_the_constant_schedule_rises_and_stays() -> None:
    config = replace(TINY, schedule="constant", learning_rate=0.3, epochs=40)
    assert [learning_rate(config, step, 3) for step in (0, 14, 29, 30, 119)] == pytest.approx(
        [0.01, 0.15, 0.3, 0.3, 0.3]
    )


# --- items whole -----------------------------------------------------------------------------------


def test_items_go_in_whole_and_an_epoch_shows_each_once() -> None:
    config = replace(TINY, crop=None, steps_per_epoch=None, epochs=2)
    steps = 0

    def count() -> bool:
        nonlocal steps
        steps += 1
        return False

    result = fit(config, [two_discs(n) for n in range(3)], device="cpu", cancelled=count)
    assert steps == 4  # two batches, of two and of one, twice
    assert result.history[1].loss < result.history[0].loss


# --- going on --------------------------------------------------------------------------------------


class Killed(Exception):
    """The process ends here."""


def killed_after(calls: int) -> Any:
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        if asked > calls:
            raise Killed
        return False

    return ask


RESUMABLE = [
    pytest.param(replace(TINY, epochs=4), id="adamw"),
    pytest.param(replace(TINY, epochs=4, average_decay=0.8, precision="bfloat16"), id="averaged"),
    pytest.param(
        replace(
            TINY, epochs=4, optimiser="sgd", schedule="steps", decay_epochs=1, crop=None,
            steps_per_epoch=None, learning_rate=1e-2,
        ),
        id="paper",
    ),
]  # fmt: skip


@pytest.mark.parametrize("is_validated", [True, False])
@pytest.mark.parametrize("config", RESUMABLE)
def test_a_run_that_was_killed_ends_with_the_very_weights(
    tmp_path: Path, config: TrainConfig, is_validated: bool
) -> None:
    items = [two_discs(n) for n in range(5)]
    scores = {1: 0.3, 2: 0.8, 3: 0.7, 4: 0.6}

    def scored(first: int) -> Any:
        epochs = iter(range(first, 5))
        return (lambda model: scores[next(epochs)]) if is_validated else None

    through = fit(config, items, validate=scored(1), device="cpu")
    with pytest.raises(Killed):  # in the third epoch
        fit(
            config, items, validate=scored(1), device="cpu",
            checkpoint=tmp_path / "run", cancelled=killed_after(8),
        )  # fmt: skip
    assert epochs_done(tmp_path / "run") == 2
    told: list[EpochReport] = []
    resumed = fit(
        config, items, validate=scored(3), device="cpu", checkpoint=tmp_path / "run", progress=told.append
    )
    assert [report.epoch for report in told] == [3, 4]
    assert (through.resumed_after, resumed.resumed_after) == (0, 2)
    assert resumed.best_epoch == through.best_epoch == (2 if is_validated else 4)
    timeless = [{**asdict(r), "seconds_left": 0} for r in resumed.history]
    assert timeless == [{**asdict(r), "seconds_left": 0} for r in through.history]
    for name, tensor in through.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_a_finished_run_that_is_started_again_trains_nothing(tmp_path: Path) -> None:
    first = fit(TINY, [two_discs()], device="cpu", checkpoint=tmp_path / "run")
    again = fit(TINY, [two_discs()], device="cpu", checkpoint=tmp_path / "run", cancelled=lambda: True)
    assert again.history == first.history
    assert torch.equal(again.model.head.weight, first.model.head.weight)
    remove_checkpoint(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    def start(config: TrainConfig = TINY, seed: int = 0, **options: Any) -> None:
        fit(config, [two_discs(seed)], device="cpu", checkpoint=tmp_path, **options)

    start()
    with pytest.raises(CheckpointRefused, match=r"config\.learning_rate 0\.003, expected 0\.01"):
        start(replace(TINY, learning_rate=0.01))
    with pytest.raises(CheckpointRefused, match=r"config\.network\.width 4, expected 8"):
        start(replace(TINY, network=replace(NETWORK, width=8)))
    with pytest.raises(CheckpointRefused, match="with items '"):
        start(seed=1)
    with pytest.raises(CheckpointRefused, match="with initial None, expected '"):
        start(initial=UNet(NETWORK, seed=5))
    with pytest.raises(CheckpointRefused, match="with validation"):
        start(validation_digest="other masks")
    with pytest.raises(CheckpointRefused, match="with validated False, expected True"):
        start(validate=lambda model: 0.5)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half a fi")
    with pytest.raises(CheckpointRefused, match="not a checkpoint of cytoloop"):
        fit(TINY, [two_discs()], device="cpu", checkpoint=tmp_path)
    with pytest.raises(CheckpointRefused, match="not a checkpoint of cytoloop"):
        epochs_done(tmp_path)


# --- on a GPU --------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_learns_what_a_cpu_learns(precision: Any) -> None:
    config = replace(TINY, precision=precision, average_decay=0.9)
    on_cpu, on_gpu = (fit(config, [two_discs()], device=device) for device in ("cpu", "cuda"))
    assert next(on_gpu.model.parameters()).is_cuda
    losses = [[r.loss for r in result.history] for result in (on_cpu, on_gpu)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="sees no GPU"):
        fit(TINY, [two_discs()], device="cuda")
