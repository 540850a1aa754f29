"""The version in force, loaded ahead when another one is about to come; one lock an assay, so that it is loaded once."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay
from cytoloop.pipeline.predictors import Predictor, load_predictor

logger = logging.getLogger(__name__)


class ActiveModel:
    """Hands out the predictor of an assay's active version."""

    def __init__(self, store: Store, registry: Registry, device: str) -> None:
        self._store = store
        self._registry = registry
        self._device = device
        self._loaded: dict[str, Predictor] = {}
        self._coming: dict[str, Predictor] = {}
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def version(self, assay: str) -> str:
        """Name of the version in force; cheap, asked on every request."""
        return self._store.models.active(assay).version

    def predictor(self, assay: Assay) -> Predictor:
        """The version in force, loaded."""
        with self._locks[assay.name]:
            model = self._store.models.active(assay.name)
            loaded = self._loaded.get(assay.name)
            if loaded is None or loaded.version != model.version:
                coming = self._coming.pop(assay.name, None)
                loaded = coming if coming is not None and coming.version == model.version else None
                if loaded is None:
                    loaded = load_predictor(self._store, self._registry, assay, model, self._device)
                self._loaded[assay.name] = loaded
                logger.info("model loaded assay=%s version=%s", assay.name, model.version)
            return loaded

    def prepare(self, assay: Assay) -> str | None:
        """Load the version that a publication is bringing, beside the one in force: no request waits for it.

        Returns
        -------
        str or None
            Name of the version, if it was loaded by this call.
        """
        publication = self._store.publications.unfinished(assay.name)
        if publication is None:
            return None
        version: str = publication["version"]
        there = (self._loaded.get(assay.name), self._coming.get(assay.name))
        if any(one is not None and one.version == version for one in there):
            return None
        model = self._store.models.get(version)
        self._coming[assay.name] = load_predictor(self._store, self._registry, assay, model, self._device)
        return version
