"""``cytoloop agreement``: how far experts agree where several read one item."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from cytoloop.adapters.store import Store
from cytoloop.domain.agreement import Comparison, ItemAgreement, compare, item_agreement
from cytoloop.domain.assay import Assay
from cytoloop.domain.consensus import consensus_of
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.types import Item
from cytoloop.pipeline.consensus import readings


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementReport:
    """Who agrees with whom, over every item that two experts or more have read."""

    assay: str
    class_names: tuple[str, ...]
    items: dict[Item, ItemAgreement]
    methods: dict[Item, str]
    """How the consensus of each item came about."""
    undecided: dict[Item, float]
    """Share of an item's pixels that its readers were of several minds about and that stayed 255."""
    pairs: dict[tuple[str, str], Comparison]
    """By two experts, over the items they share; the first is the rows."""
    others: dict[str, Comparison]
    """By expert: against the consensus of the *other* readers of each item; the expert is the rows."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "assay": self.assay,
            "note": NOTE,
            "items": [
                {
                    "image_id": item.image_id,
                    "tile": item.tile,
                    "consensus": self.methods[item],
                    "undecided_share": number_or_none(self.undecided[item]),
                    **agreement.to_dict(self.class_names),
                }
                for item, agreement in self.items.items()
            ],
            "pairs": [
                {"experts": list(names), **one.to_dict(self.class_names)} for names, one in self.pairs.items()
            ],
            "experts": [
                {"expert": name, **one.to_dict(self.class_names)} for name, one in self.others.items()
            ],
        }


NOTE = (
    "Kappa of a class is that class against the rest; the pooled kappa is mostly about the background. Pixels "
    "that a reader left out (255) are not counted."
)


def agreement_report(
    store: Store, assay: Assay, progress: Callable[[int, int], None] | None = None
) -> AgreementReport:
    """Compare all readers of every item that has several.

    An expert is held against the consensus of the *others*, not of all: a mask is bound to agree with a
    consensus it is part of, and that of two readers is where they agree.
    """
    shared = {item: found for item, found in readings(store, assay).items() if len(found) > 1}
    report = AgreementReport(
        assay=assay.name,
        class_names=assay.class_names,
        items={},
        methods={},
        undecided={},
        pairs={},
        others={},
    )
    count = assay.class_count
    for done, (item, found) in enumerate(shared.items(), start=1):
        read = {one.expert: store.masks.get(one.mask) for one in sorted(found, key=lambda one: one.expert)}
        report.items[item] = item_agreement(read, count)
        consensus = consensus_of(list(read.values()), count)
        report.methods[item] = consensus.method
        report.undecided[item] = consensus.undecided / consensus.mask_HW.size
        for pair in combinations(read, 2):
            _add(report.pairs, pair, compare(read[pair[0]], read[pair[1]], count))
        for name, mask_HW in read.items():
            others = [other for who, other in read.items() if who != name]
            _add(report.others, name, compare(mask_HW, _consensus(others, count), count))
        if progress is not None:
            progress(done, len(shared))
    return report


def agreement_tables(report: AgreementReport) -> list[Table]:
    """Return the report for the terminal: experts by pairs, then each against the others."""
    drawn = report.class_names[1:]
    pairs = Table(
        title=f"{len(report.items)} items read by two experts or more",
        caption="Dice, kappa (class against the rest) and boundary score by class, "
        f"{', '.join(drawn)}. Only in one: objects that the other has not, as shares of the expert's objects.",
    )
    for heading in (
        "expert",
        "and",
        "items",
        "mean Dice",
        "Dice",
        "kappa",
        "boundary",
        "only first",
        "only second",
    ):
        pairs.add_column(heading, justify="left" if heading in ("expert", "and") else "right")
    for (one, other), found in sorted(report.pairs.items(), key=lambda pair: _last_if_nan(pair[1].mean_dice)):
        pairs.add_row(
            escape(one),
            escape(other),
            str(found.items),
            _number(found.mean_dice),
            *(_numbers(values) for values in (found.dice_K, found.kappa_K, found.bf_K)),
            _percent(found.objects.added_share),
            _percent(found.objects.missed_share),
        )
    experts = Table(
        title="Each expert against the consensus of the others",
        caption="Added: of the expert's objects, those the others have not. Missed: of theirs, those the "
        "expert has not. Where only two read an item, the other one is the consensus.",
    )
    for heading in ("expert", "items", "mean Dice", "added", "missed", "other class"):
        experts.add_column(heading, justify="left" if heading == "expert" else "right")
    for name, found in sorted(report.others.items(), key=lambda one: _last_if_nan(one[1].mean_dice)):
        objects = found.objects
        experts.add_row(
            escape(name),
            str(found.items),
            _number(found.mean_dice),
            _percent(objects.added_share),
            _percent(objects.missed_share),
            _percent(objects.relabelled / objects.shared if objects.shared else float("nan")),
        )
    return [pairs, experts]


def _consensus(masks: list[NDArray[np.uint8]], class_count: int) -> NDArray[np.uint8]:
    return masks[0] if len(masks) == 1 else consensus_of(masks, class_count).mask_HW


def _add(sums: dict[Any, Comparison], key: Any, one: Comparison) -> None:
    sums[key] = sums[key] + one if key in sums else one


def _last_if_nan(value: float) -> tuple[bool, float]:
    return np.isnan(value), value


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2f}"


def _numbers(values_K: NDArray[np.float64]) -> str:
    return " / ".join(_number(value) for value in values_K[1:])


def _percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{share:.0%}"
