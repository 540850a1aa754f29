"""The nouns of cytoloop. Every type is frozen; arrays carry shape suffixes.

Legend: N batch, P passes, K classes, C channels, H rows, W columns. Height before width everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cytoloop.domain.assay import IGNORE
from cytoloop.domain.errors import ShapeError

Split = Literal["train", "validation", "contest", "sealed"]
"""What a group of images is for; fixed when the group is first seen.

*train* teaches; *validation* chooses epochs, settings and the challenger; *contest* compares the
challenger with the active version once a cycle; *sealed* is only reported.
"""
SPLITS: tuple[Split, ...] = get_args(Split)
HELD_OUT: tuple[Split, ...] = ("validation", "contest", "sealed")

Method = Literal["cip", "cdl", "mdl", "joint"]
ModelStatus = Literal["candidate", "active", "retired", "rejected", "pruned"]
"""*candidate* waits for a contest; *active* serves; *retired* served once; *rejected* lost; *pruned*: its weights were
removed by policy, its lineage is left."""
CycleKind = Literal["train", "promote", "rollback"]
"""What was asked for: a training cycle, or a version that exists already brought into force."""

Role = Literal["ranked", "audit", "contest", "validation", "sealed", "overlap", "gold", "blank", "review"]
"""Why an item was handed out.

*ranked* by its score; *audit* training items drawn at random, which tell what the ranking is worth;
*contest*, *validation* and *sealed* drawn at random from wells of that split; *overlap* read by several
experts; *gold* read by all; *blank* without a proposal, which tells how far proposals lead the expert;
*review* a correction worth a second look.
"""
IMPORTED = "imported"
"""Begins the name of what is no model's: an import of masks from elsewhere (``imported-<YYYYMMDD>-<8 hex>``)."""
Canvas = Literal["model", "cip", "blank"]
"""What lies on an item when an expert opens it: the active model's mask, CIP's, or nothing."""
LeaseState = Literal["held", "done", "skipped", "released", "expired"]
"""*held* until the expert submits (*done*), skips, gives it back (*released*), or time is over (*expired*)."""


def check_label_mask(mask: NDArray[Any], class_count: int, where: str) -> NDArray[np.uint8]:
    """Return ``mask`` if it is a label mask: uint8 (H, W), values 0…K-1 or 255 (not looked at).

    Raises
    ------
    ShapeError
        Naming ``where``, what was got and what was expected.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ShapeError(f"{where}: mask is {mask.dtype} {mask.shape}, expected uint8 (H, W)")
    values = np.unique(mask)
    wrong = [int(v) for v in values if v >= class_count and v != IGNORE]
    if wrong:
        raise ShapeError(
            f"{where}: mask holds values {wrong}, expected 0…{class_count - 1} or {IGNORE} (not looked at)"
        )
    return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One field of view as it was found; its pixels are just ``image_CHW``."""

    image_id: str
    """From the index or the file name; unique in an assay."""
    image_key: str
    """SHA-256 of the raw pixels; survives a rename. Blank frames may share one and stay two records."""
    files: tuple[str, ...]
    """Absolute paths: one file with all planes, or one a channel in the assay's order."""
    height: int
    width: int
    plate: str
    """Empty where unknown."""
    well: str
    """``B03``; empty where unknown."""
    field: str
    treatment: str
    group: str
    """What must not straddle a split: plate and well, or the image where wells are unknown."""
    split: Split = "train"
    z_plane: str = ""
    """Which focal plane it is, as the microscope numbers them; empty where unknown."""
    pixel_size_um: float | None = None
    """Side of a pixel in micrometres, as the microscope wrote it down; None where it did not."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Item:
    """What an expert corrects: one tile of one image."""

    image_id: str
    tile: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeakLabel:
    """A mask proposed by conventional image processing, not checked by anyone."""

    image_key: str
    mask_HW: NDArray[np.uint8]
    """0 background, 1…K-1 classes, 255 not looked at."""
    recipe: str
    recipe_digest: str
    """SHA-256 of the recipe's name and every parameter."""
    code_version: str
    """Version of the operators: equal recipe and code, equal mask."""
    confidence_HW: NDArray[np.uint8] | None = None
    """Share of the teachers that gave a pixel its class, in steps of 1/255; 255 = all. None: one teacher."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Correction:
    """A mask a person saved for an item: who, when, on which prediction."""

    image_id: str
    tile: int
    mask_HW: NDArray[np.uint8]
    expert: str
    """E-mail in Label Studio."""
    annotation_id: int
    task_id: int
    annotated_at: datetime
    """Label Studio's ``updated_at`` of the annotation, UTC."""
    parent_version: str | None
    """Version whose prediction was corrected; None if drawn from scratch."""
    lead_time_s: float | None
    """Seconds the editor was open, as Label Studio counts them."""
    conflict_pixels: int
    """Pixels that carried more than one class and were given to the stronger one."""
    origins: Mapping[str, int] = field(default_factory=dict)
    """Regions by what the expert did: ``prediction``, ``prediction-changed``, ``manual``."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Class probabilities of one version for one whole image."""

    version: str
    image_key: str
    prob_KHW: NDArray[np.float32]

    @property
    def mask_HW(self) -> NDArray[np.uint8]:
        """The most probable class of each pixel."""
        mask: NDArray[np.uint8] = self.prob_KHW.argmax(axis=0).astype(np.uint8)
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrediction:
    """What a version says of one item, as Label Studio will be told: regions, score, reason."""

    version: str
    item: Item
    score: float
    """Higher = ask sooner, any finite number."""
    confidence: float
    """What Label Studio calls ``score``: 0..1, lowest first; equal scores never share one."""
    reason: str
    """In words, for the worklist."""
    result: list[dict[str, Any]]
    """Label Studio regions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRow:
    """One mask a training run may learn from."""

    image_id: str
    tile: int | None
    """None: the whole image (weak labels are made per image)."""
    source: Literal["weak", "correction"]
    split: Split
    mask: str
    """SHA-256 under which the mask is stored."""
    confidence: str | None = None
    """SHA-256 under which a weak mask's confidence is stored; None: sure everywhere."""
    agreement: float = 0.0
    """Confidence, 0…1, below which a pixel of the mask is not learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSnapshot:
    """The exact rows a training run saw."""

    assay: str
    rows: tuple[SnapshotRow, ...]
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One immutable model: weights or a CIP recipe, where it came from, how it did."""

    version: str
    """``<method>-<YYYYMMDD>-<8 hex>``."""
    assay: str
    method: Method
    status: ModelStatus
    digest: str
    """SHA-256 of the weights, or of the CIP recipe."""
    parent: str | None
    snapshot: str | None
    """Digest of the training snapshot."""
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistEntry:
    """One place in an expert's list: what to open next, and why."""

    rank: int
    """From 1."""
    task_id: int
    image_id: str
    tile: int
    score: float
    """Higher = ask sooner."""
    reason: str
    """In words, for the expert."""
    strategy: str
    model_version: str
    lease: str | None
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One expert's claim on one item, for a time."""

    id: int
    assay: str
    queue: str
    expert: str
    """E-mail in Label Studio, or ``queue_policy.SHARED`` for a list that everyone shares."""
    item: Item
    seat: int
    """0: the first reader; more where several experts read an item."""
    role: Role
    canvas: Canvas
    strategy: str
    version: str
    """The version whose scores chose the item."""
    score: float
    """Higher = ask sooner, as it was when the item was chosen."""
    claimed_at: datetime
    expires_at: datetime
    state: LeaseState
    ended_at: datetime | None
    """None while it is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRole:
    """What an item was first handed out for; it stays with the item through promotions."""

    item: Item
    role: Role
    canvas: Canvas
    readers: int
    """Experts who are to read the item, each without seeing the others."""
    queue: str
    strategy: str
    version: str
    given_at: datetime
