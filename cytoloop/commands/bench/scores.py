"""``cytoloop bench scores``: what doubt costs, as a ratio to one plain prediction of the same image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cytoloop.commands.bench.material import in_turn, teach
from cytoloop.domain.scoring import Look, score_item
from cytoloop.domain.strategies import Need
from cytoloop.domain.tiling import tiles_of

ROUNDS = 7


def score_costs(tell: Callable[[str, int, int], None]) -> dict[str, float]:
    """Seconds of processor time by what is asked for; ``plain prediction`` is the reference."""
    from cytoloop.nn.look import look_at
    from cytoloop.nn.predict import predict_prob, stochastic_passes

    taught = teach(tell)
    assay, model, normalisation = taught.assay, taught.model, taught.config.normalisation
    image_CHW = taught.images[0].astype(np.float32)
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
    return {name: spent.work for name, spent in in_turn(asked, tell, "scores", ROUNDS).items()}
