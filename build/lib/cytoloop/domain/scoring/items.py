"""A look and a tile -> the scores of one item, its minutes, and the reason in words.

Legend: F features, K classes, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.expected_effort import MINUTES_AS_FIXED, ExpectedEffort, MinutesModel, expected_effort
from cytoloop.domain.objects import Objects, objects_of, overlaps, pair_objects
from cytoloop.domain.scoring.aggregate import foreground_mean, foreground_weight
from cytoloop.domain.scoring.features import pooled
from cytoloop.domain.scoring.look import WHOLE, ItemScores, Look, Slices
from cytoloop.domain.scoring.maps import disagreement, entropy, margin

DOUBTFUL = 0.35
"""An object is named doubtful when its mean entropy exceeds this share of ln K."""
OTHER_CLASS = 0.2
"""An object stands at a class boundary when another object class has this mean probability in it."""
SAME_OUTLINE_IOU = 0.5
"""Below this overlap an object and CIP's differ; the paper's bands of box overlap part here, too."""


def score_item(
    look: Look,
    tile_slices: Slices = WHOLE,
    *,
    minutes: MinutesModel = MINUTES_AS_FIXED,
    expert: str | None = None,
) -> ItemScores:
    """Every score that a look allows, for one item.

    Parameters
    ----------
    look : Look
        Of the whole image.
    tile_slices : tuple of slice
        Rows and columns of the item; default: the image is the item.
    minutes : MinutesModel
        Turns expected changes into minutes; default: the fixed prices.
    expert : str, optional
        Whose minutes; default: anyone's.

    Returns
    -------
    ItemScores
        ``entropy``, ``margin`` and ``effort`` always; ``mutual-information``, ``augmentation`` and
        ``disagreement`` where the look holds what they need. All are means over the foreground
        (:func:`foreground_mean`) but ``effort``: the minutes that go into changes, beyond the look that
        every item costs.
    """
    prob_KHW = look.prob_KHW[:, tile_slices[0], tile_slices[1]]
    weight_HW = foreground_weight(prob_KHW)
    entropy_HW = entropy(prob_KHW)
    mask_HW = prob_KHW.argmax(axis=0).astype(np.uint8)
    objects = objects_of(mask_HW)
    effort = expected_effort(prob_KHW, objects)
    values = {
        "entropy": foreground_mean(entropy_HW, weight_HW),
        "margin": foreground_mean(margin(prob_KHW), weight_HW),
        "effort": effort.changing_minutes,
    }
    if look.mutual_information_HW is not None:
        values["mutual-information"] = foreground_mean(look.mutual_information_HW[tile_slices], weight_HW)
    if look.augmentation_HW is not None:
        values["augmentation"] = foreground_mean(look.augmentation_HW[tile_slices], weight_HW)
    cip_HW = None if look.cip_HW is None else look.cip_HW[tile_slices]
    if cip_HW is not None:
        values["disagreement"] = foreground_mean(
            disagreement(prob_KHW, cip_HW), foreground_weight(prob_KHW, cip_HW)
        )
    expected = minutes.minutes(effort.minutes, expert)
    return ItemScores(
        values={name: max(0.0, value) for name, value in values.items()},
        minutes=expected,
        features_F=None
        if look.features_FHW is None
        else pooled(look.features_FHW, look.prob_KHW, tile_slices),
        reason=f"{_finding(look, objects, effort, entropy_HW, cip_HW)}; {_minutes(expected)}",
    )


def _finding(
    look: Look,
    objects: Objects,
    effort: ExpectedEffort,
    entropy_HW: NDArray[np.floating],
    cip_HW: NDArray[np.uint8] | None,
) -> str:
    """What there is to see, in words."""
    total = len(objects)
    cip = None if cip_HW is None else objects_of(cip_HW)
    if total == 0:
        if cip is not None and len(cip):
            return f"no object seen where the CIP has {len(cip)}"
        return "no object seen; an empty field, or all of it missed"
    if look.is_cip:
        return f"{_count(total)}, by the CIP alone"
    at_boundary_N = effort.other_class_N >= OTHER_CLASS
    if cip is not None and cip_HW is not None:
        differs_N, lost = _differing(objects, cip, cip_HW)
        differing = int(differs_N.sum()) + lost
        if differing:
            verb = "differs" if differing == 1 else "differ"
            told = f"{_count(differing)} {verb} from the CIP"
            return told + _boundary(int((at_boundary_N & differs_N).sum()))
    inside_HW = objects.labels_HW > 0
    sums = np.bincount(objects.labels_HW[inside_HW], weights=entropy_HW[inside_HW], minlength=total + 1)
    doubtful_N = sums[1:] > DOUBTFUL * np.log(len(look.prob_KHW)) * effort.sizes_N
    told = f"{int(doubtful_N.sum())} of {_count(total)} in doubt"
    told += _boundary(int(at_boundary_N.sum()))
    return told if cip is None else f"as the CIP has it, {told}"


def _differing(objects: Objects, cip: Objects, cip_HW: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], int]:
    """Which objects CIP has not, or has of another class or outline; and how many of CIP's are gone."""
    differs_N = np.ones(len(objects), np.bool_)
    found = overlaps(cip, objects)
    iou = dict(zip(zip(found.old.tolist(), found.new.tolist(), strict=True), found.iou.tolist(), strict=True))
    pairs = pair_objects(found)
    for old, new in pairs:
        same_class = cip.classes[old - 1] == objects.classes[new - 1]
        differs_N[new - 1] = not (same_class and iou[old, new] >= SAME_OUTLINE_IOU)
    if (cip_HW == IGNORE).any():
        sizes = np.bincount(objects.labels_HW.ravel(), minlength=len(objects) + 1)[1:]
        hidden = np.bincount(objects.labels_HW[cip_HW == IGNORE], minlength=len(objects) + 1)[1:]
        differs_N &= 2 * hidden < sizes  # CIP did not look there
    return differs_N, len(cip) - len(pairs)


def _boundary(objects: int) -> str:
    return f", {objects} at a class boundary" if objects else ""


def _count(objects: int) -> str:
    return "1 object" if objects == 1 else f"{objects} objects"


def _minutes(minutes: float) -> str:
    return f"est. {max(1, round(minutes))} min"
