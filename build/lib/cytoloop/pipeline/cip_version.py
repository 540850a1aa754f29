"""CIP as the first model version: there is an active one from the start."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION, cip_document
from cytoloop.domain.digest import digest_of
from cytoloop.domain.types import ModelVersion
from cytoloop.pipeline.predictors import RECIPE_FILE, cip_digest


def ensure_cip_version(store: Store, registry: Registry, assay: Assay) -> ModelVersion:
    """The version of the assay's present recipe, registered if need be; active if nothing else is."""
    known = _registered(store, assay)
    if known is not None:
        return known
    digest = _digest(assay)
    document = {**cip_document(assay.cip), "code_version": CODE_VERSION}

    def write(folder: Path) -> str:
        (folder / RECIPE_FILE).write_text(json.dumps(document, indent=2, sort_keys=True), encoding="utf-8")
        return digest

    version, _ = registry.add("cip", write, {"assay": assay.document(), "config": document})
    model = ModelVersion(
        version=version,
        assay=assay.name,
        method="cip",
        status="candidate",
        digest=digest,
        parent=None,
        snapshot=None,
        config=document,
        metrics={},
        created_at=datetime.now(UTC),
    )
    store.models.add(model)
    if store.assays.get(assay.name)["active_version"] is None:
        store.models.activate(assay.name, version)
    return store.models.get(version)


def cip_version_of(store: Store, assay: Assay) -> str | None:
    """Name of the version of the assay's present recipe; None where it is not registered."""
    known = _registered(store, assay)
    return None if known is None else known.version


def _registered(store: Store, assay: Assay) -> ModelVersion | None:
    digest = _digest(assay)
    models = (model for model in store.models.all(assay.name) if model.method == "cip")
    return next((model for model in models if model.digest == digest), None)


def _digest(assay: Assay) -> str:
    # with the assay's name: assays that share a recipe have each their version
    return digest_of({"assay": assay.name, "cip": cip_digest(assay.cip)})
