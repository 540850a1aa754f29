"""Bringing a version that exists already into force, as an administrator asks: forward or back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import StateError
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.types import CycleKind, ModelVersion
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.doubt_maps import show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.publish import publish, resume, window_of
from trainer.report import Outcome

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What came of it."""

    cycle_id: str
    outcome: Outcome
    reason: str
    active_before: str
    active_after: str


def version_to_bring(store: Store, assay: str, kind: CycleKind, target: str | None) -> ModelVersion:
    """The version that is to come into force.

    Raises
    ------
    UnknownVersion
        If there is none of that name.
    StateError
        If it serves already, its weights were removed, it is of another assay, or there is none to go back to.
    """
    active = store.models.active(assay)
    if kind == "rollback" and target is None:
        target = store.publications.previous(assay)
        if target is None:
            raise StateError(
                f"assay {assay!r}: {active.version} is the first version in force; there is none before it"
            )
    if target is None:
        raise StateError(f"assay {assay!r}: no version was named; expected one to promote")
    model = store.models.get(target)
    if model.assay != assay:
        raise StateError(f"model {target} is of assay {model.assay!r}, expected one of {assay!r}")
    if model.version == active.version:
        raise StateError(f"model {target} is in force already")
    if model.status == "pruned":
        raise StateError(
            f"model {target}: its weights were removed (trainer.keep_versions); only its lineage is left"
        )
    return model


def bring_into_force(
    store: Store,
    registry: Registry,
    label_studio: LabelStudio,
    assay: Assay,
    kind: CycleKind,
    target: str | None,
    asked_by: str,
    cycle_id: str,
    *,
    device: str = "auto",
    progress: Callable[[str, float], None] | None = None,
) -> Brought:
    """Publish a version the way a cycle does; no contest is held, since a person decides.

    Raises
    ------
    UnknownVersion, StateError
        As ``version_to_bring``; nothing is changed.
    """
    told = progress or (lambda step, share: None)
    resume(label_studio, store, assay)
    before = store.models.active(assay.name)
    model = version_to_bring(store, assay.name, kind, target)
    predictor = load_predictor(store, registry, assay, model, device)
    publish(
        label_studio,
        store,
        assay,
        predictor,
        lambda step, done, total: told(f"{step} {done}/{total}", 0.9 * done / max(total, 1)),
    )
    refill(label_studio, store, assay)
    if model.method != "cip":
        show_doubts(store, assay, predictor, window_of(store, assay, predictor))
    verb = "went back to" if kind == "rollback" else "brought into force"
    reason = f"{asked_by} {verb} {model.version}; in force before: {before.version}"
    logger.info("%s assay=%s", reason, assay.name)
    return Brought(
        cycle_id=cycle_id,
        outcome="rolled-back" if kind == "rollback" else "promoted",
        reason=reason,
        active_before=before.version,
        active_after=model.version,
    )
