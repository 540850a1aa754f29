"""The setting of one simulated project: which images are there to be corrected, and which judge.

Everything that a seed decides is drawn here, so that all strategies of a seed work on the same pool, from
the same first model, judged by the same images: they are compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from cytoloop.domain.effort import correction_minutes
from cytoloop.domain.errors import InputError
from cytoloop.domain.tiling import Tile, tiles_of
from cytoloop.domain.types import ImageRecord, Item
from trainer.results.datasets import Dataset

POOL_ITEMS = 64
"""Items an expert may be shown. All are scored before every stage: more would only cost time."""
MEDIAN_OF = 16
"""Images whose items' minutes set the stages."""
TEST_IMAGES = 16
STAGES = (0.5, 1.0, 2.0, 4.0)
"""When a model is trained anew, in multiples of the median minutes that a CIP's item takes to correct."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One seed of a data set."""

    dataset: Dataset
    seed: int
    pool: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    stages: tuple[float, ...]
    """Minutes of work, from the start, after which a model is trained and judged."""
    preset: str = "fast"
    """Of every training."""

    @property
    def items(self) -> list[tuple[ImageRecord, Item, Tile]]:
        """Everything that can be asked for."""
        return [
            (record, Item(image_id=record.image_id, tile=tile.index), tile)
            for record in self.pool
            for tile in tiles_of(record.height, record.width, self.dataset.assay.tiling)
        ]


def setting(dataset: Dataset, seed: int, stages: Sequence[float], preset: str = "fast") -> Setting:
    """Draw the pool and the judging images of a seed; where the data have folds, seeds take turns.

    Whole groups (wells) are drawn: fields of one well are never on both sides.

    Raises
    ------
    InputError
        If there is nothing to choose from or nothing to judge by.
    """
    fold = dataset.folds[seed % len(dataset.folds)]
    rng = np.random.default_rng((seed, 3))
    tiles = dataset.assay.tiling[0] * dataset.assay.tiling[1]
    pool = _whole_groups((*fold.train, *fold.validation), -(-POOL_ITEMS // tiles), rng)
    test = _whole_groups(fold.test, TEST_IMAGES, rng)
    if len(pool) < 2 or not test:
        raise InputError(
            f"{dataset.name}: {len(pool)} image(s) to choose from and {len(test)} to judge by, expected at least 2 and 1"
        )
    return Setting(dataset=dataset, seed=seed, pool=pool, test=test, stages=tuple(stages), preset=preset)


def stages_of(dataset: Dataset) -> tuple[float, ...]:
    """Minutes at which models are made: the same for every seed and strategy, from what the CIP's items cost."""
    records = dataset.folds[0].train[:MEDIAN_OF]
    minutes = []
    for record in records:
        weak_HW, truth_HW = dataset.weak_label(record), dataset.truth(record)
        tiles = tiles_of(record.height, record.width, dataset.assay.tiling)
        minutes += [correction_minutes(weak_HW[t.slices], truth_HW[t.slices]) for t in tiles]
    unit = median(minutes)
    return tuple(round(stage * unit, 1) for stage in STAGES)


def _whole_groups(
    records: Sequence[ImageRecord], most: int, rng: np.random.Generator
) -> tuple[ImageRecord, ...]:
    """Images of groups in random order, until there are as many as wanted."""
    groups = sorted({record.group for record in records})
    drawn: list[ImageRecord] = []
    for number in rng.permutation(len(groups)):
        if len(drawn) >= most:
            break
        drawn += [record for record in records if record.group == groups[number]]
    return tuple(sorted(drawn, key=lambda record: record.image_id))
