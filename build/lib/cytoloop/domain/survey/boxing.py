"""The box surrogate: experts' boxes against those of CIP and models, per expert and class.

The paper had events boxed in 100 images by two groups of two experts, and reports mean ± SD over experts
(Garcia Santa Cruz et al. 2022, doi:10.1038/s41598-022-15623-7). Boxes are compared in
``cytoloop.domain.metrics.boxes``.

``BoxSurvey.to_dict`` is what ``boxes.json`` holds; numbers that are undefined are null::

    {
      "name": "rosella-1", "assay": "rosella", "class_names": ["Background", "Phagophore", …],
      "complete": true,
      "progress": [{"expert", "set", "done", "total", "left", "skipped", "by_others", "project_id"}],
      "experts":  [{"expert", "set", "images", "boxes", "minutes_median"}],
      "minutes_median": 4.2,
      "methods":  [{
        "method": "cip-…",
        "experts": [{"expert", "set", "match_iou", "bands",
                     "foreground": {"expert", "predicted", "matched", "in_lower_band", "in_upper_band", "overlapping",
                                    "false_positive_ratio", "false_negative_ratio", "overlapping_share",
                                    "upper_band_share"},
                     "classes": [{"name", …the same}]}],
        "over_experts": {"foreground": {figure: {"mean", "sd", "count"}},
                         "classes": [{"name", figure: {"mean", "sd", "count"}}]}
      }]
    }

``over_experts`` is null while nobody has drawn anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cytoloop.domain.metrics.boxes import Box, BoxScores, BoxSpreads, over_experts
from cytoloop.domain.metrics.pixels import number_or_none
from cytoloop.domain.survey.study import Progress, missing_words
from cytoloop.domain.types import Item

PAPER_IMAGES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedItem:
    """What one expert drew in one item."""

    expert: str
    set: int
    item: Item
    boxes: tuple[Box, ...]
    """Pixels of the item, from its own corner; empty where the expert saw no event."""
    lead_time_s: float | None
    """Seconds the editor was open, as Label Studio counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodBoxes:
    """One method against every expert who has drawn anything."""

    method: str
    experts: tuple[tuple[str, int, BoxScores], ...]
    """(expert, set, scores summed over the items that expert drew in)."""

    @property
    def spread(self) -> BoxSpreads | None:
        """Mean ± SD over experts; None while there is none."""
        return over_experts([scores for _, _, scores in self.experts]) if self.experts else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxSurvey:
    """All that a box survey says; the module's docstring shows its JSON."""

    name: str
    assay: str
    class_names: tuple[str, ...]
    """By pixel value, background first."""
    progress: tuple[Progress, ...]
    boxed: tuple[BoxedItem, ...]
    methods: tuple[MethodBoxes, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nobody has anything left."""
        return all(one.left == 0 for one in self.progress)

    @property
    def missing(self) -> str:
        """Who has how much left, as a sentence; empty when all is done."""
        return missing_words(self.progress)

    @property
    def minutes_median(self) -> float:
        """Per item; NaN where no time is known."""
        return _minutes(self.boxed)

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what ``boxes.json`` holds."""
        return {
            "name": self.name,
            "assay": self.assay,
            "class_names": list(self.class_names),
            "complete": self.is_complete,
            "progress": [one.to_dict() for one in self.progress],
            "experts": [self._expert(one) for one in self.progress],
            "minutes_median": number_or_none(self.minutes_median),
            "methods": [
                {
                    "method": one.method,
                    "experts": [
                        {"expert": expert, "set": set_, **scores.to_dict(self.class_names)}
                        for expert, set_, scores in one.experts
                    ],
                    "over_experts": None if one.spread is None else one.spread.to_dict(self.class_names),
                }
                for one in self.methods
            ],
        }

    def _expert(self, one: Progress) -> dict[str, Any]:
        mine = [boxed for boxed in self.boxed if boxed.expert == one.expert]
        return {
            "expert": one.expert,
            "set": one.set,
            "images": len(mine),
            "boxes": sum(len(boxed.boxes) for boxed in mine),
            "minutes_median": number_or_none(_minutes(mine)),
        }


def _minutes(boxed: Sequence[BoxedItem]) -> float:
    seconds = [one.lead_time_s for one in boxed if one.lead_time_s is not None]
    return float(np.median(seconds)) / 60 if seconds else float("nan")
