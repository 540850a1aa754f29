"""Which masks a training run may learn from, frozen as a list with a digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from cytoloop.domain.digest import digest_of
from cytoloop.domain.errors import StateError
from cytoloop.domain.types import Item, Method, SnapshotRow, Split, TrainingSnapshot


def make_snapshot(
    assay: str,
    method: Method,
    weak_masks: Mapping[str, str],
    corrected_masks: Mapping[Item, str],
    split_of_image: Mapping[str, Split],
) -> TrainingSnapshot:
    """Freeze what a run of ``method`` learns from and is validated on.

    *cdl* learns from weak labels, *mdl* from corrections, *joint* from both. Only training wells
    teach; corrections of validation wells are listed too, to choose the epoch. Contest and sealed
    wells never enter.

    Parameters
    ----------
    weak_masks : mapping of image_id to mask digest
    corrected_masks : mapping of Item to mask digest
    split_of_image : mapping of image_id to Split

    Raises
    ------
    StateError
        If nothing is left to learn from.
    """
    rows: list[SnapshotRow] = []
    if method in ("cdl", "joint"):
        rows += [
            SnapshotRow(image_id=image_id, tile=None, source="weak", split="train", mask=mask)
            for image_id, mask in sorted(weak_masks.items())
            if split_of_image[image_id] == "train"
        ]
    teaching = ("train", "validation") if method in ("mdl", "joint") else ("validation",)
    rows += [
        SnapshotRow(
            image_id=item.image_id,
            tile=item.tile,
            source="correction",
            split=split_of_image[item.image_id],
            mask=mask,
        )
        for item, mask in sorted(corrected_masks.items())
        if split_of_image[item.image_id] in teaching
    ]
    if not any(row.split == "train" for row in rows):
        needed = "weak labels" if method == "cdl" else "corrections"
        raise StateError(
            f"assay {assay!r}: no {needed} of training wells yet; {method} has nothing to learn from"
        )
    return TrainingSnapshot(assay=assay, rows=tuple(rows), digest=digest_of(_document(method, rows)))


def _document(method: Method, rows: Iterable[SnapshotRow]) -> dict[str, object]:
    return {"method": method, "rows": [asdict(row) for row in rows]}
