"""``cytoloop audit``: which corrections are worth a second look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cytoloop.adapters.store import Review
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.metrics import number_or_none
from cytoloop.domain.types import Method
from cytoloop.pipeline.label_audit import AuditedCorrection, audit_corrections
from cytoloop.pipeline.weak_labels import weak_masks
from trainer.presets import WEAK_WEIGHT, is_trained_as, preset


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What an audit was asked for."""

    folds: int
    top: int
    preset: str
    device: str
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSummary:
    """What an audit found."""

    assay: str
    corrections: int
    """Of training wells, judged."""
    folds: int
    method: Method
    new_reviews: int
    """Asked for now that were not before."""
    open_reviews: int
    """All that wait for a second look, those of earlier audits among them."""
    found: tuple[dict[str, Any], ...]
    """Corrections that a second look was asked for, the most doubtful first."""


def audit(
    home: Home, assay: Assay, options: AuditOptions, progress: Callable[[str, float], None] | None = None
) -> AuditSummary:
    """Rank the corrections of training wells by what speaks against them, and ask for second looks.

    A correction with which nothing is wrong but a few doubtful pixels is never asked about, so that there may
    be fewer than ``top``.

    Raises
    ------
    StateError
        If there are fewer corrected training wells than folds.
    """
    like = preset(options.preset, "cdl", assay, options.seed)
    bases = [
        model
        for model in home.store.models.all(assay.name)
        if model.method == "cdl" and is_trained_as(model.config["train"], like)
    ]
    method: Method = "joint" if weak_masks(home.store, assay) else "mdl"
    audited = audit_corrections(
        home.store,
        home.registry,
        assay,
        preset(options.preset, method, assay, options.seed),
        method=method,
        weak_weight=WEAK_WEIGHT[method],
        base=bases[-1] if bases and method == "joint" else None,
        folds=options.folds,
        device=options.device,
        progress=progress,
    )
    asked = [one for one in audited if one.quality.findings][: options.top]
    new = home.store.reviews.ask(assay.name, (_review(one, assay) for one in asked))
    tasks = home.store.images.tasks(assay.name) if asked else {}
    return AuditSummary(
        assay=assay.name,
        corrections=len(audited),
        folds=options.folds,
        method=method,
        new_reviews=new,
        open_reviews=len(home.store.reviews.open(assay.name)),
        found=tuple(
            {
                "image_id": one.correction.item.image_id,
                "tile": one.correction.item.tile,
                "task_id": tasks[one.correction.item],
                "expert": one.correction.expert,
                "score": one.quality.score,
                "pixel_quality": number_or_none(one.quality.pixels),
                "findings": one.quality.findings,
                "reason": one.quality.reason(assay.class_names),
            }
            for one in asked
        ),
    )


def _review(one: AuditedCorrection, assay: Assay) -> Review:
    return Review(
        item=one.correction.item,
        expert=one.correction.expert,
        mask=one.correction.mask,
        score=one.quality.score,
        reason=one.quality.reason(assay.class_names),
    )
