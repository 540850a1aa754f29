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
    # with the assay's name: assays that share a recipe have each their version
    digest = digest_of({"assay": assay.name, "cip": cip_digest(assay.cip)})
    for model in store.models.all(assay.name):
        if model.method == "cip" and model.digest == digest:
            return model
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
