"""A recipe's parameters against corrections: searched on training wells, chosen on validation wells.

A search that tries many settings finds some that fit its images by chance. So it only proposes: the
few that beat the assay's present setting by most on training wells are compared with it on wells the
search never saw, and the present one stays unless it is beaten there too.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import IGNORE, Assay, Cip
from cytoloop.domain.cip import effective_parameters, recipe_of
from cytoloop.domain.cip.operators import use_one_thread
from cytoloop.domain.cip.recipe import Range, Recipe
from cytoloop.domain.errors import StateError
from cytoloop.domain.metrics import confusion_matrix, mean_ignoring_nan
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord
from cytoloop.pipeline.weak_labels import illumination_of

logger = logging.getLogger(__name__)

FINALISTS: Final = 5
"""Settings that go from the search to the comparison on validation wells."""
_PREPARED_BYTES: Final = 1 << 30
"""Prepared images kept by one process; those beyond are prepared again in each trial."""
_DIGITS: Final = 4
"""Significant digits of a tuned value: what is pasted is exactly what was judged."""

Progress = Callable[[int, int, float], None]
"""(trials done, trials in all, best mean IoU on training wells so far)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CorrectedField:
    """An image with what experts said of it."""

    image_CHW: NDArray[np.float32]
    illumination_CHW: NDArray[np.float32] | None
    truth_HW: NDArray[np.uint8]
    """Class values; 255 where nobody looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How a setting does on one split, from the confusion matrix summed over its fields."""

    mean_iou: float
    class_iou: tuple[float, ...]
    """By pixel value, background first; NaN for a class in neither truth nor mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Parameters, and how they do on training and on validation wells."""

    parameters: Mapping[str, float]
    """As the assay file would say them: what is not named stays at the recipe's default."""
    train: Judgement
    validation: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What a search found."""

    present: Setting
    """The assay's setting before."""
    best: Setting | None
    """Of the settings the search proposed, the best on validation wells; None if it proposed none."""
    searched: Mapping[str, Range]
    trials: int

    @property
    def is_better(self) -> bool:
        """Whether the search beats the present setting where it could not fit."""
        return self.best is not None and self.best.validation.mean_iou > self.present.validation.mean_iou


def corrected_fields(
    store: Store, assay: Assay, progress: Callable[[int, int], None] | None = None
) -> tuple[list[CorrectedField], list[CorrectedField]]:
    """Corrected images of training wells and of validation wells, as the store holds them.

    Items of contest and sealed wells are not read.
    """
    truth: dict[str, NDArray[np.uint8]] = {}
    split: dict[str, str] = {}
    records = {record.image_id: record for record in store.images.all(assay.name)}
    for item, correction in store.corrections.standing(assay.name).items():
        if correction.split not in ("train", "validation"):
            continue
        record = records[item.image_id]
        full_HW = truth.setdefault(item.image_id, np.full((record.height, record.width), IGNORE, np.uint8))
        tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
        full_HW[tile.slices] = store.masks.get(correction.mask)
        split[item.image_id] = correction.split
    fields: dict[str, list[CorrectedField]] = {"train": [], "validation": []}
    for image_id, one in fields_with_light(records.values(), truth, assay, progress):
        fields[split[image_id]].append(one)
    return fields["train"], fields["validation"]


def fields_with_light(
    records: Iterable[ImageRecord],
    truth: Mapping[str, NDArray[np.uint8]],
    assay: Assay,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, CorrectedField]]:
    """Images that have a truth, each with the illumination of its whole plate; in order of plate and id.

    Parameters
    ----------
    records : iterable of ImageRecord
        All images of the plates, corrected or not: light is estimated from the plate.
    truth : mapping
        ``truth_HW`` by image id.
    """

    def optics(record: ImageRecord) -> tuple[str, int, int]:
        return record.plate, record.height, record.width

    done = 0
    for _plate, of_plate in groupby(sorted(records, key=lambda r: (optics(r), r.image_id)), key=optics):
        fields = list(of_plate)
        corrected = [record for record in fields if record.image_id in truth]
        if not corrected:
            continue
        illumination_CHW = illumination_of(fields, assay)
        for record in corrected:
            done += 1
            if progress:
                progress(done, len(truth))
            yield (
                record.image_id,
                CorrectedField(
                    image_CHW=read_image(record, assay),
                    illumination_CHW=illumination_CHW,
                    truth_HW=truth[record.image_id],
                ),
            )


def tune(
    cip: Cip,
    train: Sequence[CorrectedField],
    validation: Sequence[CorrectedField],
    *,
    trials: int = 60,
    seed: int = 0,
    names: tuple[str, ...] = (),
    workers: int = 1,
    progress: Progress | None = None,
) -> Tuned:
    """Search parameters of an assay's (first) recipe with a tree-structured Parzen estimator.

    Parameters
    ----------
    cip : Cip
        The present setting; of several teachers the first one is tuned.
    train, validation : sequence of CorrectedField
        Where settings are searched, and where one is chosen.
    trials : int
        Settings tried, >= 1, besides the present one.
    seed : int
        Of the search: the same seed and images give the same outcome, whatever ``workers`` is.
    names : tuple of str
        Parameters to change; empty for those the recipe searches by default.
    workers : int
        Processes, each with a share of the images.

    Raises
    ------
    ConfigError
        If the recipe is unknown, or a name is not one of its tunable parameters.
    StateError
        If there is nothing to search on, or nothing to choose on.
    """
    recipe = recipe_of(cip)
    searched = recipe.tuned(names)
    for fields, wells in ((train, "training"), (validation, "validation")):
        if not any((field.truth_HW != IGNORE).any() for field in fields):
            raise StateError(f"no corrections of {wells} wells yet; expected at least one corrected item")
    present = effective_parameters(cip)
    with judging(recipe, train, workers) as on_train:
        base = on_train(present)
        tried = _search(recipe, present, base, on_train, searched, trials, seed, progress)
    with judging(recipe, validation, workers) as on_validation:
        before = Setting(parameters=dict(cip.parameters), train=base, validation=on_validation(present))
        finalists = [
            Setting(
                parameters={**cip.parameters, **values},
                train=judgement,
                validation=on_validation({**present, **values}),
            )
            for values, judgement in _finalists(tried, base)
        ]
    # of equals the first, which is the better on training wells
    best = max(finalists, key=lambda one: one.validation.mean_iou, default=None)
    logger.info(
        "tuned recipe=%s trials=%d present=%.4f best=%.4f",
        recipe.name,
        trials,
        before.validation.mean_iou,
        float("nan") if best is None else best.validation.mean_iou,
    )
    return Tuned(present=before, best=best, searched=searched, trials=trials)


_Judge = Callable[[Mapping[str, float]], Judgement]


def _search(
    recipe: Recipe,
    present: Mapping[str, float],
    base: Judgement,
    judge: _Judge,
    searched: Mapping[str, Range],
    trials: int,
    seed: int,
    progress: Progress | None,
) -> list[tuple[dict[str, float], Judgement]]:
    """Every setting tried, in order, with its judgement on training wells."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    space = {name: _distribution(span) for name, span in searched.items()}
    start = {name: present[name] for name in searched}
    if all(_is_within(start[name], span) for name, span in searched.items()):
        # What is known already: the search goes on from there.
        study.add_trial(optuna.trial.create_trial(params=start, distributions=space, value=base.mean_iou))
    tried = []
    highest = base.mean_iou
    for done in range(1, trials + 1):
        trial = study.ask(space)
        values = {name: float(f"{value:.{_DIGITS}g}") for name, value in trial.params.items()}
        judgement = judge({**present, **values})
        study.tell(trial, judgement.mean_iou)
        tried.append((values, judgement))
        highest = max(highest, judgement.mean_iou)
        if progress:
            progress(done, trials, highest)
    return tried


def _finalists(
    tried: Sequence[tuple[dict[str, float], Judgement]], base: Judgement
) -> list[tuple[dict[str, float], Judgement]]:
    """The settings most above the present one on training wells; one below it could win by chance alone."""
    above = [one for one in tried if one[1].mean_iou > base.mean_iou]
    return sorted(above, key=lambda one: -one[1].mean_iou)[:FINALISTS]


def _is_within(value: float, span: Range) -> bool:
    return span.low <= value <= span.high and (not span.integer or float(value).is_integer())


def _distribution(span: Range) -> BaseDistribution:
    if span.integer:
        return IntDistribution(int(span.low), int(span.high), log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


# --- judging a setting, in this process or in several ----------------------------------------------


class _Share:
    """Fields that one process judges, with what preparing them gave."""

    def __init__(self, recipe: str, fields: Sequence[CorrectedField]) -> None:
        self._recipe = recipe_of(Cip(recipe=recipe))
        self._fields = fields
        self._prepared: dict[int, NDArray[np.float32]] = {}
        self._prepared_with: dict[str, float] = {}

    def confusion(self, parameters: Mapping[str, float]) -> NDArray[np.int64]:
        """Pixels by true class (rows) and class of the mask, summed over the fields: shape (K, K)."""
        own = {name: parameters[name] for name in self._recipe.prepared_by}
        if own != self._prepared_with:
            self._prepared, self._prepared_with = {}, own
        total = np.zeros((self._recipe.class_count, self._recipe.class_count), np.int64)
        for number, field in enumerate(self._fields):
            mask_HW = self._recipe.label(self._prepare(number, field, parameters), parameters, None)
            total += confusion_matrix(field.truth_HW, mask_HW, self._recipe.class_count)
        return total

    def _prepare(
        self, number: int, field: CorrectedField, parameters: Mapping[str, float]
    ) -> NDArray[np.float32]:
        known = self._prepared.get(number)
        if known is not None:
            return known
        prepared_CHW = self._recipe.prepare(field.image_CHW, parameters, field.illumination_CHW)
        if sum(one.nbytes for one in self._prepared.values()) + prepared_CHW.nbytes <= _PREPARED_BYTES:
            self._prepared[number] = prepared_CHW
        return prepared_CHW


_share: _Share | None = None
"""What this process judges, where it is a worker."""


def _start_worker(recipe: str, fields: Sequence[CorrectedField]) -> None:
    global _share
    use_one_thread()
    _share = _Share(recipe, fields)


def _confusion_here(parameters: Mapping[str, float]) -> NDArray[np.int64]:
    assert _share is not None  # set by the initializer
    return _share.confusion(parameters)


@contextmanager
def judging(recipe: Recipe, fields: Sequence[CorrectedField], workers: int) -> Iterator[_Judge]:
    """A function that judges parameters on all fields; counts are whole numbers, so workers change nothing."""
    workers = max(1, min(workers, len(fields)))
    with ExitStack() as stack:
        if workers == 1:
            alone = _Share(recipe.name, fields)
            yield lambda parameters: _judgement(alone.confusion(parameters))
            return
        # One process a share, not a pool for all: each keeps what it prepared of its own fields.
        context = multiprocessing.get_context("spawn")
        pools = [
            stack.enter_context(
                ProcessPoolExecutor(
                    1,
                    mp_context=context,
                    initializer=_start_worker,
                    initargs=(recipe.name, fields[number::workers]),
                )
            )
            for number in range(workers)
        ]

        def judge(parameters: Mapping[str, float]) -> Judgement:
            futures = [pool.submit(_confusion_here, parameters) for pool in pools]
            return _judgement(np.sum([future.result() for future in futures], axis=0))

        yield judge


def _judgement(confusion_KK: NDArray[np.int64]) -> Judgement:
    # over the classes that the corrections hold: else a setting is rewarded for never finding the others
    iou_K = iou_of_present(confusion_KK)
    return Judgement(mean_iou=float(mean_ignoring_nan(iou_K)), class_iou=tuple(iou_K.tolist()))
