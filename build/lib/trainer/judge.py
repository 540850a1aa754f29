"""What versions make of corrected items, each predicted once a cycle."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import median

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import cip_of
from cytoloop.domain.metrics import Evaluation, evaluate, mean_ignoring_nan, number_or_none
from cytoloop.domain.metrics.intervals import iou_of_present
from cytoloop.domain.types import HELD_OUT, Item, ModelVersion, Split
from cytoloop.pipeline.judging import JudgedItem, judged_items, recipe_seconds
from cytoloop.pipeline.predictors import Predictor, load_predictor
from trainer.report import Speed

TIMED_IMAGES = 3
"""Images the recipe is timed on in a cycle: weak labels are stored, and a median needs few."""


class Judge:
    """Predicts and compares; everything is kept for the length of a cycle.

    Parameters
    ----------
    standing : mapping of Item to StoredCorrection
        The corrections that count as the truth.
    waiting : collection of Item
        Those of them that do not count yet.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        assay: Assay,
        device: str,
        standing: Mapping[Item, StoredCorrection],
        waiting: Collection[Item],
    ) -> None:
        self._store = store
        self._registry = registry
        self._assay = assay
        self._device = device
        self._standing = standing
        self._waiting = waiting
        self._predictors: dict[str, Predictor] = {}
        self._judgements: dict[tuple[str, Split], list[JudgedItem]] = {}

    def predictor(self, model: ModelVersion) -> Predictor:
        """A version, opened once."""
        if model.version not in self._predictors:
            self._predictors[model.version] = load_predictor(
                self._store, self._registry, self._assay, model, self._device
            )
        return self._predictors[model.version]

    def judged(self, model: ModelVersion, split: Split) -> Sequence[JudgedItem]:
        """A version's masks of the corrected items of a split, beside the corrections."""
        key = (model.version, split)
        if key not in self._judgements:
            self._judgements[key] = list(
                judged_items(self._store, self._assay, self.predictor(model), self._counted(split))
            )
        return self._judgements[key]

    def evaluation(self, model: ModelVersion, split: Split) -> Evaluation | None:
        """Every metric of a version on a split; None where nothing of it is corrected."""
        judged = self.judged(model, split)
        if not judged:
            return None
        return evaluate(((j.name, j.truth_HW, j.pred_HW) for j in judged), self._assay.class_names)

    def mean_iou(self, model: ModelVersion, split: Split) -> float | None:
        """Mean IoU over the classes that the corrections hold, as in the contest; None where nothing counts."""
        evaluation = self.evaluation(model, split)
        if evaluation is None:
            return None
        return number_or_none(float(mean_ignoring_nan(iou_of_present(evaluation.confusion_KK))))

    def groups(self, split: Split) -> int:
        """Wells of a split that have corrected items."""
        return len({correction.group for correction in self._counted(split)})

    def speed(self, model: ModelVersion) -> Speed:
        """Seconds per image over the judged ones; a stored weak label tells nothing, so CIP is run anew."""
        judged = [one for split in HELD_OUT for one in self.judged(model, split)]
        seconds = {one.correction.item.image_id: one.seconds for one in judged}
        if model.method == "cip":
            records = (self._store.images.get(self._assay.name, name) for name in [*seconds][:TIMED_IMAGES])
            timed = recipe_seconds(self._assay, cip_of(model.config), records)
        else:
            timed = [*seconds.values()]
        return Speed(version=model.version, method=model.method, seconds=median(timed), images=len(timed))

    def _counted(self, split: Split) -> list[StoredCorrection]:
        return [c for c in self._standing.values() if c.split == split and c.item not in self._waiting]
