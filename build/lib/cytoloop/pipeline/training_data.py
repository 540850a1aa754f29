"""A snapshot's rows -> images and masks for the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.cip.committee import SURE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import SnapshotRow, TrainingSnapshot
from cytoloop.nn.dataset import TrainingItem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CleanImage:
    """An image of a validation well with what experts said of it; 255 where nobody looked."""

    image_CHW: NDArray[np.float32]
    truth_HW: NDArray[np.uint8]


def training_items(
    store: Store, assay: Assay, snapshot: TrainingSnapshot, weak_weight: float
) -> tuple[list[TrainingItem], list[CleanImage]]:
    """Read what a snapshot names.

    Parameters
    ----------
    weak_weight : float
        How much a weak label is trusted beside a correction (1.0).

    Returns
    -------
    (items, validation)
        Items of training wells, a weak mask being 255 where a correction stands; and the corrected
        images of validation wells.
    """
    weak: dict[str, NDArray[np.uint8]] = {}
    doubts: dict[str, tuple[NDArray[np.uint8], float]] = {}
    corrected: dict[str, NDArray[np.uint8]] = {}
    clean: dict[str, NDArray[np.uint8]] = {}
    looked: dict[str, NDArray[np.bool_]] = {}
    records = {record.image_id: record for record in store.images.all(assay.name)}
    for row in snapshot.rows:
        if is_watched(row):
            continue
        mask_HW = store.masks.get(row.mask)
        record = records[row.image_id]
        if row.tile is None:
            weak[row.image_id] = mask_HW
            if row.confidence is not None:
                doubts[row.image_id] = store.masks.get(row.confidence), row.agreement
            continue
        target = clean if row.split == "validation" else corrected
        full_HW = target.setdefault(row.image_id, np.full((record.height, record.width), IGNORE, np.uint8))
        tile = tiles_of(record.height, record.width, assay.tiling)[row.tile]
        full_HW[tile.slices] = mask_HW
        looked.setdefault(row.image_id, np.zeros(full_HW.shape, bool))[tile.slices] = True
    items = []
    for image_id in sorted(weak.keys() | corrected.keys()):
        image_CHW = read_image(records[image_id], assay)
        weak_HW = weak.get(image_id)
        if weak_HW is not None and image_id in looked:
            # what an expert left out as doubtful (Ignore) is not the teacher's to fill in
            weak_HW = np.where(looked[image_id], np.uint8(IGNORE), weak_HW)
        confidence_HW, agreement = doubts.get(image_id, (None, 0.0))
        items += learning_items(
            image_CHW, corrected.get(image_id), weak_HW, weak_weight, confidence_HW, agreement
        )
    validation = [
        CleanImage(image_CHW=read_image(records[image_id], assay), truth_HW=truth_HW)
        for image_id, truth_HW in sorted(clean.items())
    ]
    return items, validation


def is_watched(row: SnapshotRow) -> bool:
    """Whether a row is a weak label that a run only looks at, to see how well it imitates the teacher."""
    return row.source == "weak" and row.split == "validation"


def learning_items(
    image_CHW: NDArray[np.float32],
    corrected_HW: NDArray[np.uint8] | None,
    weak_HW: NDArray[np.uint8] | None,
    weak_weight: float,
    confidence_HW: NDArray[np.uint8] | None = None,
    agreement: float = 0.0,
) -> list[TrainingItem]:
    """An image's masks as training items: the correction, and the weak mask where no expert looked.

    Parameters
    ----------
    image_CHW : ndarray of float32, shape (C, H, W)
        Raw grey values.
    corrected_HW, weak_HW : ndarray of uint8, shape (H, W), optional
        0…K-1, or 255 where nobody looked.
    weak_weight : float
        How much the weak mask is trusted beside the correction (1.0).
    confidence_HW : ndarray of uint8, shape (H, W), optional
        Share of the teachers behind each pixel of the weak mask, 255 = all: weighs the pixel.
    agreement : float
        Share, 0…1, below which a pixel of the weak mask is left out (255). Compared in steps of
        1/255, so that 0.667 keeps what two of three teachers said.

    Raises
    ------
    ShapeError
        If the confidence has another size than the weak mask.
    """
    items = []
    if corrected_HW is not None and (corrected_HW != IGNORE).any():
        items.append(TrainingItem(image_CHW=image_CHW, mask_HW=corrected_HW, weight=1.0))
    if weak_HW is not None:
        if corrected_HW is not None:
            weak_HW = np.where(corrected_HW == IGNORE, weak_HW, np.uint8(IGNORE))
        share_HW = None
        if confidence_HW is not None:
            if confidence_HW.shape != weak_HW.shape:
                raise ShapeError(f"confidence {confidence_HW.shape}, expected its mask's {weak_HW.shape}")
            weak_HW = np.where(confidence_HW < round(SURE * agreement), np.uint8(IGNORE), weak_HW)
            share_HW = confidence_HW.astype(np.float32) / np.float32(SURE)
        if (weak_HW != IGNORE).any():
            items.append(
                TrainingItem(image_CHW=image_CHW, mask_HW=weak_HW, weight=weak_weight, confidence_HW=share_HW)
            )
    return items
