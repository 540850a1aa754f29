"""The worst cases of a cycle: which items, and their pictures in the report's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.display import composite, display_ranges
from cytoloop.domain.metrics import Evaluation, ImageMetrics, number_or_none
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, Split
from cytoloop.pipeline.judging import JudgedItem
from trainer.report import CasePanel, WorstCase
from trainer.report.figures import doubt_panel, image_panel, outline_panel

WORST_CASES = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Said:
    """What one version made of one item, and how that was judged."""

    version: str
    judged: JudgedItem
    metrics: ImageMetrics


Judged = Mapping[tuple[str, Split], Sequence[JudgedItem]]
Evaluations = Mapping[tuple[str, Split], Evaluation]


def worst_of(evaluations: Evaluations, judged: Judged, version: str) -> tuple[Split | None, list[Said]]:
    """Contest items a version gets most wrong, worst first; those of validation where there are none."""
    for split in ("contest", "validation"):
        said = _said(evaluations, judged, version, split)
        known = [one for one in said.values() if not np.isnan(one.metrics.mean_iou)]
        if known:  # else every pixel was left out as doubtful
            return split, sorted(known, key=lambda one: one.metrics.mean_iou)[:WORST_CASES]
    return None, []


def _said(evaluations: Evaluations, judged: Judged, version: str, split: Split) -> dict[Item, Said]:
    evaluation = evaluations.get((version, split))
    if evaluation is None:
        return {}
    return {
        item.correction.item: Said(version=version, judged=item, metrics=metrics)
        for item, metrics in zip(judged[version, split], evaluation.images, strict=True)
    }


def worst_cases(
    store: Store,
    assay: Assay,
    evaluations: Evaluations,
    judged: Judged,
    shown: Mapping[str, str],
    doubts: Mapping[Item, NDArray[np.float32]],
    doubtful: str,
    folder: Path,
) -> tuple[WorstCase, ...]:
    """Write the pictures of the worst cases and say what is wrong in each.

    Parameters
    ----------
    shown : mapping of version to title
        The version in use first: the items it gets most wrong are taken.
    doubts : mapping of Item to ndarray of float32, shape (H, W)
        0 (sure) … 1 (no idea); empty where no network has been asked.
    doubtful : str
        Title of the version whose doubt it is.
    folder : Path
        The report's.
    """
    serving = next(iter(shown))
    split, worst = worst_of(evaluations, judged, serving)
    if split is None:
        return ()
    others = {version: _said(evaluations, judged, version, split) for version in shown}
    colours = [label.colour for label in assay.classes]
    cases = []
    for one in worst:
        item = one.judged.correction.item
        name = f"worst-{item.image_id}-{item.tile}"
        picture = _view(store, assay, item)
        unseen_HW = one.judged.truth_HW == IGNORE
        panels = [("image", image_panel(picture), "as the editor shows it")]
        panels.append(
            (
                "expert",
                outline_panel(picture, one.judged.truth_HW, unseen_HW, colours),
                "as the expert drew it",
            )
        )
        # CIP first, the network that learned from it beside it.
        for version, title in sorted(shown.items(), key=lambda one: not one[0].startswith("cip-")):
            said = others[version].get(item)
            if said is None:
                continue
            png = outline_panel(picture, said.judged.pred_HW, unseen_HW, colours)
            panels.append((title, png, _faults(said, assay)))
        if item in doubts:
            panels.append(("doubt", doubt_panel(doubts[item]), f"where {doubtful} was unsure: yellow"))
        told = []
        for number, (title, png, caption) in enumerate(panels):
            file = f"{name}-{number}.png"
            (folder / file).write_bytes(png)
            told.append(CasePanel(title=title, picture=file, caption=caption))
        cases.append(
            WorstCase(
                image_id=item.image_id,
                tile=item.tile,
                version=serving,
                mean_iou=number_or_none(one.metrics.mean_iou),
                faults=_faults(one, assay),
                panels=tuple(told),
            )
        )
    return tuple(cases)


def _faults(said: Said, assay: Assay) -> str:
    return said.metrics.errors.words(assay.class_names)


def _view(store: Store, assay: Assay, item: Item) -> NDArray[np.uint8]:
    record = store.images.get(assay.name, item.image_id)
    image_CHW = read_image(record, assay)
    ranges = store.images.display_ranges(assay.name, record.plate) or display_ranges([image_CHW], assay)
    rows, columns = tiles_of(record.height, record.width, assay.tiling)[item.tile].slices
    return composite(image_CHW, ranges, assay)[rows, columns]
