"""Who challenges: CIP, CDL, MDL and joint compared on validation items, one of them sent into the contest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from cytoloop.adapters.store import Store
from cytoloop.domain.types import Method, ModelVersion
from trainer.judge import Judge

METHODS: tuple[Method, ...] = get_args(Method)

MIN_VALIDATION_GROUPS = 3
"""Wells with corrected validation items below which validation keeps nobody from the contest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidacy:
    """One version in the comparison of the methods."""

    version: str
    method: Method
    validation_mean_iou: float | None
    """None where no validation item is corrected yet."""
    is_challenger: bool = False
    is_active: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The methods side by side, and who goes on."""

    compared: tuple[Candidacy, ...]
    """One of each method, and the active version."""
    challenger: ModelVersion | None
    reason: str
    """Why there is no challenger; empty where there is one."""
    superseded: tuple[ModelVersion, ...] = ()
    """Candidates that another one of their method, or the active version, left behind."""


def select(store: Store, assay: str, judge: Judge, active: ModelVersion) -> Selection:
    """Compare the best of each method with the active version on validation items.

    Of several candidates of a method the best is compared, the newest of equals. The best candidate challenges
    the active version, unless the active one is at least as good on validation items of three wells or more:
    every contest spends some of the error that its items allow, so that none is held without reason.
    """
    models = store.models.all(assay)
    scores = {m.version: judge.mean_iou(m, "validation") for m in models if m.status == "candidate"}
    scores[active.version] = judge.mean_iou(active, "validation")

    def rank(model: ModelVersion) -> tuple[float, object]:
        score = scores.get(model.version)
        return (-1.0 if score is None else score, model.created_at)

    waiting = [m for m in models if m.status == "candidate" and m.version != active.version]
    best = {m: max((c for c in waiting if c.method == m), key=rank, default=None) for m in METHODS}
    challenger = max((c for c in best.values() if c is not None), key=rank, default=None)
    reason = "" if challenger is not None else "no candidate waits"
    left = [c for c in waiting if c not in best.values()]
    if challenger is not None and _is_held_back(scores, challenger, active, judge):
        theirs, ours = scores[active.version], scores[challenger.version]
        reason = (
            f"kept the active model: on validation items no candidate is better than it "
            f"({challenger.method} {ours:.3f} against {theirs:.3f} mean IoU, {judge.groups('validation')} wells), "
            "so no contest was held"
        )
        left = waiting
        challenger = None
    shown = _compared(models, best, active)
    compared = tuple(
        Candidacy(
            version=model.version,
            method=model.method,
            validation_mean_iou=scores[model.version]
            if model.version in scores
            else judge.mean_iou(model, "validation"),
            is_challenger=challenger is not None and model.version == challenger.version,
            is_active=model.version == active.version,
        )
        for model in shown
    )
    return Selection(compared=compared, challenger=challenger, reason=reason, superseded=tuple(left))


def _is_held_back(
    scores: dict[str, float | None], challenger: ModelVersion, active: ModelVersion, judge: Judge
) -> bool:
    ours, theirs = scores[challenger.version], scores[active.version]
    enough = judge.groups("validation") >= MIN_VALIDATION_GROUPS
    return enough and ours is not None and theirs is not None and ours <= theirs


def _compared(
    models: Sequence[ModelVersion], best: dict[Method, ModelVersion | None], active: ModelVersion
) -> list[ModelVersion]:
    """One of each method: its candidate, else its newest version that can still be asked; and the active one."""
    shown = []
    for method in METHODS:
        known = [m for m in models if m.method == method and m.status != "pruned"]
        chosen = (
            best[method] or (active if active.method == method else None) or (known[-1] if known else None)
        )
        if chosen is not None:
            shown.append(chosen)
    return shown if active in shown else [*shown, active]
