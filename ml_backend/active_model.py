"""The version in force, loaded when it changes; one lock an assay, so that it is loaded once."""

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
                loaded = load_predictor(self._store, self._registry, assay, model, self._device)
                self._loaded[assay.name] = loaded
                logger.info("model loaded assay=%s version=%s", assay.name, model.version)
            return loaded
