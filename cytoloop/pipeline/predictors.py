"""A version as something that predicts: CIP and networks behind one call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay, Cip
from cytoloop.domain.cip import CODE_VERSION, cip_of, make_weak_label, recipe_digest
from cytoloop.domain.digest import digest_of
from cytoloop.domain.scoring import soften
from cytoloop.domain.types import ImageRecord, ModelVersion

RECIPE_FILE = "recipe.json"


class Predictor(Protocol):
    """One version, ready to be asked."""

    @property
    def version(self) -> str:
        """Its name."""

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """``prob_KHW`` of a whole image."""


class CipPredictor:
    """A CIP recipe as a version: stored weak labels, softened into probabilities.

    Where several teachers voted, a pixel is doubtful at edges and where they differ.
    """

    def __init__(self, version: str, store: Store, assay: Assay, cip: Cip, code_version: str) -> None:
        self.version = version
        self._store = store
        self._assay = assay
        self._cip = cip
        self._masks = store.images.weak_labels(assay.name, recipe_digest(cip), code_version)
        self._confidences = store.images.weak_confidences(assay.name, recipe_digest(cip), code_version)

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """The stored mask, or a fresh one for an image that came in later."""
        digest = self._masks.get(record.image_id)
        if digest is not None:
            mask_HW = self._store.masks.get(digest)
            sure = self._confidences.get(record.image_id)
            confidence_HW = None if sure is None else self._store.masks.get(sure)
        else:
            weak = make_weak_label(read_image(record, self._assay), record.image_key, self._cip)
            mask_HW, confidence_HW = weak.mask_HW, weak.confidence_HW
        return soften(mask_HW, self._assay.class_count, confidence_HW)


class NetworkPredictor:
    """A U-Net version."""

    def __init__(self, version: str, assay: Assay, folder: Path, digest: str | None, device: str) -> None:
        # torch costs seconds to import; a process that serves CIP never pays them
        from cytoloop.nn.device import choose_device
        from cytoloop.nn.predict import predict_prob
        from cytoloop.nn.weights import load_weights

        self.version = version
        self._assay = assay
        self._device = choose_device(device)
        self._predict = predict_prob
        self._loaded = load_weights(folder, digest)
        self._loaded.model.to(self._device)

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """One deterministic pass over the raw pixels."""
        return self._predict(
            self._loaded.model,
            read_image(record, self._assay),
            self._loaded.normalisation,
            self._device,
        )


def load_predictor(
    store: Store, registry: Registry, assay: Assay, model: ModelVersion, device: str = "auto"
) -> Predictor:
    """Open a version; weights are checked against the digest the store knows."""
    folder = registry.folder(model.version)
    if model.method == "cip":
        document = json.loads((folder / RECIPE_FILE).read_text(encoding="utf-8"))
        return CipPredictor(model.version, store, assay, cip_of(document), document["code_version"])
    return NetworkPredictor(model.version, assay, folder, model.digest, device)


def cip_digest(cip: Cip) -> str:
    """Digest of a CIP version: the recipe and the code that runs it."""
    return digest_of({"recipe": recipe_digest(cip), "code": CODE_VERSION})
