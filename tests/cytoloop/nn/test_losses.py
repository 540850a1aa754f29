import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cytoloop.domain.errors import ConfigError, ShapeError
from cytoloop.nn.losses import cross_entropy_loss, generalised_dice_loss

# One image, one row of four pixels, two classes. Class 0 is true at three pixels, class 1 at one.
TARGET = torch.tensor([[[0, 0, 0, 1]]])
PROB_1 = torch.tensor([0.0, 0.5, 0.0, 0.5])
PROB = torch.stack((1.0 - PROB_1, PROB_1)).reshape(1, 2, 1, 4)


def test_generalised_dice_by_hand() -> None:
    # w_0 = 1/9, w_1 = 1. Overlap: class 0: 1 + 0.5 + 1 = 2.5; class 1: 0.5.
    # Squares: class 0: (1 + 0.25 + 1 + 0.25) + 3 = 5.5; class 1: (0.25 + 0.25) + 1 = 1.5.
    # D = 2 (2.5/9 + 0.5) / (5.5/9 + 1.5) = 14/19.
    assert float(generalised_dice_loss(PROB, TARGET)) == pytest.approx(1 - 14 / 19, abs=1e-6)


def test_denominator_holds_squares_not_sums() -> None:
    # With plain sums (Sudre) the same pixels would give 2 (7/9) / ((3+3)/9 + (1+1)) = 7/12.
    assert abs(float(generalised_dice_loss(PROB, TARGET)) - (1 - 7 / 12)) > 0.05


def test_dice_is_per_image_then_averaged() -> None:
    perfect = torch.nn.functional.one_hot(TARGET, 2).permute(0, 3, 1, 2).float()
    both = generalised_dice_loss(torch.cat((PROB, perfect)), torch.cat((TARGET, TARGET)))
    assert float(both) == pytest.approx((1 - 14 / 19) / 2, abs=1e-6)


def test_absent_class_takes_the_exact_loss_over_and_the_clamp_prevents_it() -> None:
    # Nothing but class 0, and the network 0.1 wrong in each of four pixels.
    target = torch.zeros(1, 1, 4, dtype=torch.long)
    prob = torch.tensor([0.9, 0.1]).reshape(1, 2, 1, 1).expand(1, 2, 1, 4)
    # w_1 = 1/eps: D = (2·3.6/16 + eps) / ((3.24 + 4)/16 + 0.04/eps + eps) ~ 1e-7.
    assert float(generalised_dice_loss(prob, target)) == pytest.approx(1.0, abs=1e-5)
    # w_0 = 1/16, w_1 = 1/16 (clamped): D = 2·3.6 / (3.24 + 4 + 0.04) = 7.2/7.28.
    clamped = generalised_dice_loss(prob, target, absent_class="clamp", max_class_weight=1 / 16)
    assert float(clamped) == pytest.approx(1 - 7.2 / 7.28, abs=1e-5)


def test_absent_class_can_be_left_out() -> None:
    target = torch.zeros(1, 1, 4, dtype=torch.long)
    prob = torch.tensor([0.9, 0.1]).reshape(1, 2, 1, 1).expand(1, 2, 1, 4)
    # w_0 = 1/16, w_1 = 0: D = 2·3.6 / (3.24 + 4) = 7.2/7.24.
    left_out = generalised_dice_loss(prob, target, absent_class="leave-out")
    assert float(left_out) == pytest.approx(1 - 7.2 / 7.24, abs=1e-5)
    # Where every class is there, nothing is left out.
    assert float(generalised_dice_loss(PROB, TARGET, absent_class="leave-out")) == pytest.approx(5 / 19)
    # A class all of whose pixels are doubted away is absent too.
    doubted = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    alone = generalised_dice_loss(PROB, TARGET, doubted, absent_class="leave-out")
    without = generalised_dice_loss(PROB, torch.tensor([[[0, 0, 0, 255]]]), absent_class="leave-out")
    assert float(alone) == float(without) > 0.0


def test_the_clamp_and_its_weight_go_together() -> None:
    with pytest.raises(ConfigError, match="'clamp' with max_class_weight None"):
        generalised_dice_loss(PROB, TARGET, absent_class="clamp")
    with pytest.raises(ConfigError, match=r"'exact' with max_class_weight 0\.5"):
        generalised_dice_loss(PROB, TARGET, max_class_weight=0.5)
    with pytest.raises(ConfigError, match="'ignore', expected one of"):
        generalised_dice_loss(PROB, TARGET, absent_class="ignore")  # type: ignore[arg-type]


def test_pixel_weights_by_hand() -> None:
    # Weight 2 on the last pixel: areas 3 and 2, w = 1/9 and 1/4. Overlap 2.5 and 1.
    # Squares: class 0: 1 + 0.25 + 1 + 2·0.25 + 3 = 5.75; class 1: 0.25 + 2·0.25 + 2 = 2.75.
    weight = torch.tensor([[[1.0, 1.0, 1.0, 2.0]]])
    expected = 1 - 2 * (2.5 / 9 + 1 / 4) / (5.75 / 9 + 2.75 / 4)
    assert float(generalised_dice_loss(PROB, TARGET, weight)) == pytest.approx(expected, abs=1e-6)


def test_image_weight_scales_the_loss_where_a_uniform_pixel_weight_cannot() -> None:
    plain = float(generalised_dice_loss(PROB, TARGET))
    uniform = float(generalised_dice_loss(PROB, TARGET, torch.full((1, 1, 4), 0.3)))
    weighted = float(generalised_dice_loss(PROB, TARGET, image_weight_N=torch.tensor([0.3])))
    assert uniform == pytest.approx(plain, abs=1e-6)
    assert weighted == pytest.approx(0.3 * plain, abs=1e-6)


def test_cross_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.8, 0.25, 0.9], [0.5, 0.2, 0.75, 0.1]])).reshape(1, 2, 1, 4)
    target = torch.tensor([[[0, 0, 1, 255]]])
    nats = (-math.log(0.5), -math.log(0.8), -math.log(0.75))
    assert float(cross_entropy_loss(logits, target)) == pytest.approx(sum(nats) / 3, abs=1e-6)
    weighted = cross_entropy_loss(logits, target, class_weight_K=torch.tensor([1.0, 3.0]))
    assert float(weighted) == pytest.approx((nats[0] + nats[1] + 3 * nats[2]) / 5, abs=1e-6)


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_ignored_pixels_change_neither_loss_nor_gradient(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, 3, (2, 6, 5)))
    ignored = torch.from_numpy(rng.random((2, 6, 5)) < 0.4)
    target[ignored] = 255
    logits = torch.from_numpy(rng.normal(size=(2, 3, 6, 5)).astype(np.float32))
    elsewhere = (
        logits + 5.0 * torch.from_numpy(rng.normal(size=logits.shape).astype(np.float32)) * ignored[:, None]
    )

    def loss_and_gradient(values: torch.Tensor) -> tuple[float, torch.Tensor]:
        leaf = values.clone().requires_grad_()
        loss = generalised_dice_loss(
            leaf.softmax(1), target, absent_class="clamp", max_class_weight=1e-2
        ) + cross_entropy_loss(leaf, target)
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return float(loss.detach()), leaf.grad

    loss, gradient = loss_and_gradient(logits)
    loss_elsewhere, gradient_elsewhere = loss_and_gradient(elsewhere)
    counted = ~ignored[:, None].expand_as(gradient)
    assert loss == pytest.approx(loss_elsewhere, abs=1e-6)
    assert bool((gradient[~counted] == 0).all())
    torch.testing.assert_close(gradient[counted], gradient_elsewhere[counted], rtol=1e-4, atol=1e-7)


def test_an_image_nobody_looked_at_gives_zero_and_no_gradient() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.full((1, 4, 4), 255, dtype=torch.uint8)
    loss = generalised_dice_loss(logits.softmax(1), target) + cross_entropy_loss(logits, target)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert bool((logits.grad == 0).all())


def test_half_precision_probabilities_are_summed_in_float32() -> None:
    """65 536 pixels of probability 1 overflow a 16-bit sum."""
    target = torch.zeros(1, 256, 256, dtype=torch.uint8)
    target[0, 0, 0] = 1
    prob = torch.nn.functional.one_hot(target.long(), 2).permute(0, 3, 1, 2).half()
    loss = generalised_dice_loss(prob, target)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ShapeError, match="target"):
        generalised_dice_loss(PROB, torch.zeros(1, 4, 1))
    with pytest.raises(ShapeError, match="target"):
        cross_entropy_loss(PROB[0], TARGET)
    with pytest.raises(ShapeError, match="weight"):
        generalised_dice_loss(PROB, TARGET, torch.ones(1, 4))
