"""Which masks a training run may learn from, frozen as a list with a digest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from cytoloop.domain.digest import digest_of
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.types import Item, Method, SnapshotRow, Split, TrainingSnapshot


def make_snapshot(
    assay: str,
    method: Method,
    weak_masks: Mapping[str, str],
    corrected_masks: Mapping[Item, str],
    split_of_image: Mapping[str, Split],
    weak_confidences: Mapping[str, str] | None = None,
    agreement: float = 0.0,
    weak_validation: Iterable[str] = (),
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
    weak_confidences : mapping of image_id to confidence digest, optional
        Of the weak masks that several teachers voted for.
    agreement : float
        Confidence, 0…1, below which a pixel of these weak masks is not learned from.
    weak_validation : iterable of image_id
        Images of validation wells whose weak masks the run looks at: they may stop it, so they belong to what
        it saw.

    Raises
    ------
    StateError
        If nothing is left to learn from.
    InputError
        If an image of ``weak_validation`` is not of a validation well.
    """
    rows: list[SnapshotRow] = []
    confidences = weak_confidences or {}

    def weak(image_id: str) -> SnapshotRow:
        return SnapshotRow(
            image_id=image_id,
            tile=None,
            source="weak",
            split=split_of_image[image_id],
            mask=weak_masks[image_id],
            confidence=confidences.get(image_id),
            agreement=agreement if image_id in confidences else 0.0,
        )

    if method in ("cdl", "joint"):
        rows += [weak(image_id) for image_id in sorted(weak_masks) if split_of_image[image_id] == "train"]
    watched = sorted(set(weak_validation))
    wrong = [image_id for image_id in watched if split_of_image[image_id] != "validation"]
    if wrong:
        raise InputError(
            f"assay {assay!r}: image {wrong[0]!r} is of a {split_of_image[wrong[0]]} well; only those of "
            "validation wells may be looked at while a run goes on"
        )
    rows += [weak(image_id) for image_id in watched]
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
    return {"method": method, "rows": [_row_document(row) for row in rows]}


def _row_document(row: SnapshotRow) -> dict[str, object]:
    document = asdict(row)
    if row.confidence is None:  # as before there were votes: equal rows keep their digest
        del document["confidence"], document["agreement"]
    return document
