"""``cytoloop bench scores``: what doubt costs, as a ratio to one plain prediction of the same image.

The network learns for a moment from the CIP of simulated fields: it must see objects, since they are counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import numpy as np

from cytoloop.adapters.assays import load_assay
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.scoring import Look, score_item
from cytoloop.domain.simulate.plate import simulate_field
from cytoloop.domain.strategies import Need
from cytoloop.domain.tiling import tiles_of

ROUNDS = 7
FIELDS = 3
LEARNING_STEPS = 60


def score_costs(tell: Callable[[str, int, int], None]) -> dict[str, float]:
    """Seconds of processor time by what is asked for; ``plain prediction`` is the reference.

    All are measured in turn, round by round, and the median of each is taken: a busy machine slows all alike.
    """
    from cytoloop.nn.dataset import TrainingItem
    from cytoloop.nn.fit import fit
    from cytoloop.nn.look import look_at
    from cytoloop.nn.predict import predict_prob, stochastic_passes
    from trainer.presets import preset

    assay = load_assay("rosella")
    tell("learn", 0, 1)
    images = [simulate_field("reference-1", 1, index).image_CHW.astype(np.float32) for index in range(FIELDS)]
    items = [
        TrainingItem(image_CHW=image, mask_HW=make_weak_label(image, str(number), assay.cip).mask_HW)
        for number, image in enumerate(images)
    ]
    config = replace(preset("fast", "cdl", assay, 0), epochs=1, steps_per_epoch=LEARNING_STEPS)
    model = fit(config, items, device="cpu").model
    image_CHW, normalisation = images[0], config.normalisation
    tell("learn", 1, 1)
    _, height, width = image_CHW.shape
    tiles = tiles_of(height, width, assay.tiling)

    def look(*needs: Need) -> Look:
        return look_at(model, image_CHW, normalisation, needs=needs)

    def scored(*needs: Need) -> None:
        seen = look(*needs)
        for tile in tiles:
            score_item(seen, tile.slices)

    asked: dict[str, Callable[[], object]] = {
        "plain prediction": lambda: predict_prob(model, image_CHW, normalisation),
        "entropy, effort and reason": scored,
        "the same with features": lambda: scored("features"),
        "mutual information": lambda: scored("features", "dropout"),
        "augmentation": lambda: scored("features", "augmentation"),
        "eight whole passes": lambda: stochastic_passes(model, image_CHW, normalisation, passes=8),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(ROUNDS + 1):
        for name, ask in asked.items():
            begun = time.process_time()
            ask()
            if number:  # the first round warms up
                seconds[name].append(time.process_time() - begun)
        tell("scores", number, ROUNDS)
    return {name: median(of_name) for name, of_name in seconds.items()}
