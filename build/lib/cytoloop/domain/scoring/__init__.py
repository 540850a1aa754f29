"""How much a person's look at an item is worth: higher = ask sooner.

Maps of doubt by pixel (:mod:`.maps`), their mean over the foreground (:mod:`.aggregate`), and all that
together for one item (:func:`score_item`).
"""

from cytoloop.domain.scoring.aggregate import (
    EMPTY_SHARE,
    foreground_entropy,
    foreground_mean,
    foreground_weight,
)
from cytoloop.domain.scoring.features import image_features
from cytoloop.domain.scoring.items import score_item
from cytoloop.domain.scoring.look import SCORES, WHOLE, ItemScores, Look, Slices
from cytoloop.domain.scoring.maps import disagreement, entropy, margin, mutual_information
from cytoloop.domain.scoring.soften import soften

__all__ = [
    "EMPTY_SHARE",
    "SCORES",
    "WHOLE",
    "ItemScores",
    "Look",
    "Slices",
    "disagreement",
    "entropy",
    "foreground_entropy",
    "foreground_mean",
    "foreground_weight",
    "image_features",
    "margin",
    "mutual_information",
    "score_item",
    "soften",
]
