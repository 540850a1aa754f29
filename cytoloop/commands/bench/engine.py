"""``cytoloop bench engine``: what serves on a CPU beside the same network in PyTorch.

Legend: K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import in_turn, machine, share, teach
from cytoloop.domain.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from cytoloop.nn.engine import Engine
    from cytoloop.nn.unet import UNet

TIME_BAR, IOU_BAR = 0.5, 0.005


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """Time as a share of eager PyTorch's, in its usual layout and in its quickest; and how far masks differ."""
    import torch

    from cytoloop.domain.metrics import confusion_matrix, pixel_metrics
    from cytoloop.nn.engine import Engine
    from cytoloop.nn.normalisation import normalise
    from cytoloop.nn.predict import channels_last

    taught = teach(tell)
    begun = time.perf_counter()
    engine = engine_for(taught.model)
    loading = time.perf_counter() - begun
    images = [torch.from_numpy(normalise(one, taught.config.normalisation))[None] for one in taught.images]

    def eager(image_1CHW: Tensor) -> Tensor:
        with torch.inference_mode():
            logits_1KHW: Tensor = taught.model(image_1CHW)
            return logits_1KHW.softmax(dim=1)

    def asked(engine: Engine) -> dict[str, Callable[[], Tensor]]:
        return {
            "eager": lambda: eager(images[0]),
            "eager, channels last": lambda: eager(channels_last(images[0])),
            "engine": lambda: engine.logits(images[0]).softmax(dim=1),
        }

    spent = in_turn(asked(engine), tell, "engine")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = in_turn(asked(Engine(taught.model)), tell, "engine, one thread")
    finally:
        torch.set_num_threads(threads)
    difference, confusion = 0.0, np.zeros((taught.assay.class_count,) * 2, np.int64)
    for image_1CHW in images:
        theirs_KHW = eager(image_1CHW)[0].numpy()
        ours_KHW = engine.logits(image_1CHW)[0].softmax(dim=0).numpy()
        difference = max(difference, float(np.abs(theirs_KHW - ours_KHW).max()))
        confusion += confusion_matrix(
            theirs_KHW.argmax(axis=0).astype(np.uint8),
            ours_KHW.argmax(axis=0).astype(np.uint8),
            taught.assay.class_count,
        )
    worst = min(float(iou) for iou in pixel_metrics(confusion).iou_K if np.isfinite(iou))
    figures = (
        Figure(name="engine, one field", value=spent["engine"].wall, unit="s"),
        share("share of eager PyTorch's time", spent["engine"].wall, spent["eager"].wall, TIME_BAR),
        share("share of it with channels last", spent["engine"].wall, spent["eager, channels last"].wall),
        share(
            "one thread: processor time, share of eager PyTorch's", alone["engine"].work, alone["eager"].work
        ),
        share(
            "one thread: share of it with channels last",
            alone["engine"].work,
            alone["eager, channels last"].work,
        ),
        Figure(name="worst class: 1 - IoU with PyTorch's masks", value=1 - worst, unit="", bar=IOU_BAR),
        Figure(name="largest difference of a probability", value=difference, unit=""),
        Figure(name="converting and checking, once a version", value=loading, unit="s"),
    )
    title = (
        f"{engine.name} beside PyTorch {torch.__version__}, float32, width 16, 680 x 512, "
        f"{torch.get_num_threads()} threads; {machine()}"
    )
    return Measured(name="engine", title=title, figures=figures)


def engine_for(model: UNet) -> Engine:
    """The engine of a network.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    from cytoloop.nn.engine import Engine, is_installed

    if not is_installed():
        raise ConfigError(
            "bench: the engine is not installed; expected after: pip install 'cytoloop[engine]'"
        )
    return Engine(model)
