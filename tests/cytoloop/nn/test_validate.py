import numpy as np
import pytest
import torch

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.metrics import confusion_matrix, pixel_metrics
from cytoloop.nn.fit import TrainConfig
from cytoloop.nn.predict import predict_prob
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.validate import mean_iou_score

CONFIG = TrainConfig(network=UNetConfig(in_channels=1, class_count=3, width=4))


def test_a_tile_is_answered_as_in_its_whole_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.poisson(rng.integers(100, 900, (1, 30, 36)).repeat(8, 1).repeat(8, 2)).astype(np.float32)
    mask = np.full((240, 288), IGNORE, np.uint8)
    mask[100:170, 110:200] = rng.integers(0, 3, (70, 90))
    model = UNet(CONFIG.network, seed=3).eval()
    whole = predict_prob(model, image, CONFIG.normalisation).argmax(axis=0).astype(np.uint8)
    assert len(np.unique(whole[100:170, 110:200])) > 1, "else any cut would do"
    expected = pixel_metrics(confusion_matrix(mask, whole, 3)).mean_iou
    score = mean_iou_score([(image, mask)], CONFIG, "cpu")
    assert score is not None
    assert score(model) == pytest.approx(float(expected), abs=1e-3)


def test_only_what_was_looked_at_goes_through_the_network() -> None:
    sizes = []

    class Watched(UNet):
        def forward(self, image_NCHW: torch.Tensor, dropout: torch.Generator | None = None) -> torch.Tensor:
            sizes.append(tuple(image_NCHW.shape[-2:]))
            return super().forward(image_NCHW, dropout)

    mask = np.full((400, 500), IGNORE, np.uint8)
    mask[0:20, 300:330] = 1
    score = mean_iou_score([(np.zeros((1, 400, 500)), mask)], CONFIG, "cpu")
    assert score is not None
    score(Watched(CONFIG.network))
    assert sizes == [(68, 378 - 248)]


def test_a_class_that_no_mask_holds_chooses_nothing() -> None:
    """The truth has classes 0 and 1; a network of weights 0 calls every pixel what its biases say."""
    model = UNet(CONFIG.network)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.head.bias[0] = 1.0
    mask = np.zeros((32, 32), np.uint8)
    mask[:16] = 1
    score = mean_iou_score([(np.zeros((1, 32, 32)), mask)], CONFIG, "cpu")
    assert score is not None
    assert score(model) == pytest.approx((0.5 + 0.0) / 2), (
        "all background: half of it right, class 2 not asked"
    )
    with torch.no_grad():
        model.head.bias[2] = 2.0
    assert score(model) == pytest.approx(0.0), "stray pixels count against the classes they lie in"
