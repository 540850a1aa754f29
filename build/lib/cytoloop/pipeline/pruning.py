"""Which weights a home keeps: those in use, those to go back to, and the newest of the rest."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.types import ModelStatus, ModelVersion

logger = logging.getLogger(__name__)

PRUNED: ModelStatus = "pruned"
"""Of a version whose weights were removed by policy: only its lineage is left."""


def prune(store: Store, registry: Registry, assay: str, keep: int) -> list[str]:
    """Remove the weights of rejected and retired versions beyond the ``keep`` newest; call it holding the assay.

    Their rows, snapshots and contests stay, so that a lineage can be told for ever; their predictions and
    scores go. First the store says that a version is pruned, then its folder goes: killed in between, no
    version claims weights that are not there, and the next call finds the folder and finishes.

    Parameters
    ----------
    keep : int
        Versions kept beside those that :func:`prunable` never lets go, 0 or more.

    Returns
    -------
    list of str
        The versions whose weights were removed, oldest first.
    """
    chosen = prunable(store.models.all(assay), keep, _in_use(store, assay))
    for model in chosen:
        store.models.set_status(model.version, PRUNED)
    fresh = {model.version for model in chosen}
    removed = []
    for model in store.models.all(assay):
        if model.status != PRUNED or not (model.version in fresh or registry.holds(model.version)):
            continue
        store.predictions.forget(assay, model.version)
        store.scores.forget(assay, model.version)
        registry.remove(model.version)
        removed.append(model.version)
        logger.info("pruned version=%s assay=%s", model.version, assay)
    registry.clear_leftovers()
    return removed


def prunable(models: Sequence[ModelVersion], keep: int, in_use: Collection[str] = ()) -> list[ModelVersion]:
    """The versions whose weights nobody needs any more.

    Never one that is active or a candidate, one of ``in_use``, a CIP version (some kilobytes), the newest CDL
    (the next joint model starts from it), nor what a kept version was made from. Of the others the ``keep``
    newest stay.

    Parameters
    ----------
    models : sequence of ModelVersion
        All of an assay, oldest first.
    in_use : collection of str
        Versions to keep in any case, beside ``keep``.
    """
    newest_cdl = next((m.version for m in reversed(models) if m.method == "cdl"), None)
    spare = [
        model
        for model in models
        if model.status in ("rejected", "retired")
        and model.method != "cip"
        and model.version != newest_cdl
        and model.version not in in_use
    ]
    doomed = {model.version for model in (spare[:-keep] if keep else spare)}
    parents = {model.version: model.parent for model in models}
    for version in [m.version for m in models if m.version not in doomed and m.status != PRUNED]:
        parent = parents[version]
        while parent is not None:
            doomed.discard(parent)
            parent = parents.get(parent)
    return [model for model in spare if model.version in doomed]


def _in_use(store: Store, assay: str) -> set[str]:
    """Versions that somebody may turn to: to go back, to finish a publication, or as was asked for."""
    wanted = {store.assays.get(assay)["active_version"], store.publications.previous(assay)}
    publication = store.publications.unfinished(assay)
    if publication is not None:
        wanted |= {publication["version"], publication["previous"]}
    wanted |= {c["target"] for c in store.cycles.all(assay) if c["state"] in ("queued", "running")}
    return {version for version in wanted if version is not None}
