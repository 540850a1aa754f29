"""A version as something that predicts: CIP and networks behind one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import read_image
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.domain.assay import Assay, Cip
from cytoloop.domain.cip import CODE_VERSION, cip_of, make_weak_label, recipe_digest
from cytoloop.domain.digest import digest_of
from cytoloop.domain.documents import told
from cytoloop.domain.errors import InputError
from cytoloop.domain.scoring import Look, image_features, soften
from cytoloop.domain.strategies import Need, check_needs
from cytoloop.domain.types import ImageRecord, ModelVersion
from cytoloop.files import read_json

RECIPE_FILE = "recipe.json"


class Predictor(Protocol):
    """One version, ready to be asked."""

    @property
    def version(self) -> str:
        """Its name."""

    @property
    def offers(self) -> frozenset[Need]:
        """What :meth:`look` can be asked for."""

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """``prob_KHW`` of a whole image."""

    def look(self, record: ImageRecord, needs: Collection[Need]) -> Look:
        """Look at a whole image for all that strategies need, computed together.

        Raises
        ------
        ConfigError
            If the version does not offer it.
        """


class CipMasks:
    """Masks of a CIP recipe: the stored ones, or a fresh one for an image that came in later."""

    def __init__(self, store: Store, assay: Assay, cip: Cip, code_version: str) -> None:
        self._store = store
        self._assay = assay
        self._cip = cip
        self._made_by = recipe_digest(cip), code_version

    def get(self, record: ImageRecord) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """``mask_HW``, and ``confidence_HW`` where several teachers voted."""
        stored = self._store.images.weak_label(self._assay.name, record.image_id, *self._made_by)
        if stored is None:
            weak = make_weak_label(read_image(record, self._assay), record.image_key, self._cip)
            return weak.mask_HW, weak.confidence_HW
        mask, sure = stored
        return self._store.masks.get(mask), None if sure is None else self._store.masks.get(sure)


class CipPredictor:
    """A CIP recipe as a version: stored weak labels, softened into probabilities.

    Where several teachers voted, a pixel is doubtful at edges and where they differ. Its look holds
    features of the image itself, so that items can be told apart before there is a network.
    """

    offers: frozenset[Need] = frozenset({"features"})

    def __init__(self, version: str, store: Store, assay: Assay, cip: Cip, code_version: str) -> None:
        self.version = version
        self._assay = assay
        self._masks = CipMasks(store, assay, cip, code_version)

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """The mask, made soft."""
        mask_HW, confidence_HW = self._masks.get(record)
        return soften(mask_HW, self._assay.class_count, confidence_HW)

    def look(self, record: ImageRecord, needs: Collection[Need]) -> Look:
        """The mask made soft, and on request features of the image."""
        check_needs(needs, self.offers, self.version, "a look")
        mask_HW, confidence_HW = self._masks.get(record)
        class_count = self._assay.class_count
        return Look(
            prob_KHW=soften(mask_HW, class_count, confidence_HW),
            features_FHW=image_features(read_image(record, self._assay), mask_HW, class_count)
            if "features" in needs
            else None,
            is_cip=True,
        )


class NetworkPredictor:
    """A U-Net version.

    On a CPU its masks are made by the engine wherever it is installed (`cytoloop.nn.engine`): those that are
    served, published, ranked by, and judged in contests. It agrees with PyTorch to some 1e-5 of a probability,
    checked whenever a version is loaded; a pixel whose two best classes are closer than that may go either way,
    as it may between two machines.
    """

    def __init__(
        self,
        version: str,
        assay: Assay,
        folder: Path,
        digest: str | None,
        device: str,
        cip_masks: Callable[[], CipMasks] | None = None,
        threads: int | None = None,
    ) -> None:
        # torch costs seconds to import; a process that serves CIP never pays them
        from cytoloop.nn.device import choose_device
        from cytoloop.nn.engine import engine_of
        from cytoloop.nn.look import look_at
        from cytoloop.nn.predict import predict_prob
        from cytoloop.nn.weights import load_weights

        self.version = version
        self._assay = assay
        self._device = choose_device(device)
        self._predict = predict_prob
        self._look = look_at
        self._open_cip_masks = cip_masks
        self._cip_masks: CipMasks | None = None
        self._loaded = load_weights(folder, digest)
        self._engine = engine_of(self._loaded.model, self._device, threads)
        self._loaded.model.to(self._device)

    @property
    def engine(self) -> str:
        """What computes the masks, with its version and where."""
        if self._engine is not None:
            return f"{self._engine.name}, cpu"
        return f"torch {installed_version('torch')}, {self._device.type}"

    @property
    def offers(self) -> frozenset[Need]:
        """Dropout only if it was trained with it, CIP's mask only where there is a store of them."""
        offered: set[Need] = {"network", "augmentation", "features"}
        if self._loaded.config.dropout > 0:
            offered.add("dropout")
        if self._open_cip_masks is not None:
            offered.add("cip")
        return frozenset(offered)

    @property
    def has_engine(self) -> bool:
        """Whether several threads may well ask at once: PyTorch and a GPU are better asked by one."""
        return self._engine is not None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return self._loaded.digest

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        """One deterministic pass over the raw pixels."""
        return self._predict(
            self._loaded.model,
            read_image(record, self._assay),
            self._loaded.normalisation,
            self._device,
            engine=self._engine,
        )

    def look(self, record: ImageRecord, needs: Collection[Need]) -> Look:
        """One deterministic pass, and what else is asked for beside it."""
        check_needs(needs, self.offers, self.version, "a look")
        look = self.look_at(read_image(record, self._assay), needs)
        return replace(look, cip_HW=self._cip_mask(record)) if "cip" in needs else look

    def look_at(self, image_CHW: NDArray[Any], needs: Collection[Need] = ()) -> Look:
        """A look at raw pixels (C, H, W) that were read already, without a CIP mask."""
        return self._look(
            self._loaded.model,
            image_CHW,
            self._loaded.normalisation,
            self._device,
            needs=needs,
            engine=self._engine,
        )

    def _cip_mask(self, record: ImageRecord) -> NDArray[np.uint8]:
        if self._cip_masks is None:
            assert self._open_cip_masks is not None, "checked by offers"
            self._cip_masks = self._open_cip_masks()
        return self._cip_masks.get(record)[0]


def read_recipe(folder: Path) -> dict[str, Any]:
    """What a CIP version keeps: its recipe, and under ``code_version`` the code that runs it.

    Raises
    ------
    InputError
        If the file is missing, is no JSON, or says no recipe.
    """
    path = folder / RECIPE_FILE
    try:
        document = read_json(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected the recipe of a CIP version"
        ) from error
    wanted = {"recipe": str, "parameters": dict, "code_version": str}
    if not isinstance(document, dict) or not all(isinstance(document.get(k), v) for k, v in wanted.items()):
        raise InputError(f"{path}: {told(document)}, expected the recipe of a CIP version")
    return document


def recipe_file_digest(document: Mapping[str, Any], assay: str) -> str:
    """Digest of a CIP version from what its file says, also of recipes that this code no longer knows."""
    recipe = {key: value for key, value in document.items() if key != "code_version"}
    made_by = {"recipe": digest_of(recipe), "code": document["code_version"]}
    return digest_of({"assay": assay, "cip": digest_of(made_by)})


def load_predictor(
    store: Store, registry: Registry, assay: Assay, model: ModelVersion, device: str = "auto"
) -> Predictor:
    """Open a version; weights and recipes are checked against the digest the store knows.

    A network differs from the CIP that the assay names now.
    """
    folder = registry.folder(model.version)
    if model.method == "cip":
        document = read_recipe(folder)
        found = recipe_file_digest(document, assay.name)
        if found != model.digest:
            raise InputError(
                f"{folder / RECIPE_FILE}: digest {found}, expected {model.digest}; the file was changed"
            )
        return CipPredictor(model.version, store, assay, cip_of(document), document["code_version"])
    return NetworkPredictor(
        model.version,
        assay,
        folder,
        model.digest,
        device,
        lambda: CipMasks(store, assay, assay.cip, CODE_VERSION),
    )


def offers_of(model: ModelVersion) -> frozenset[Need]:
    """What a version can be asked for, told without loading it."""
    if model.method == "cip":
        return CipPredictor.offers
    dropout = model.config.get("train", {}).get("network", {}).get("dropout", 0.0)
    offered: frozenset[Need] = frozenset({"network", "augmentation", "features", "cip"})
    return offered | {"dropout"} if dropout > 0 else offered


def cip_digest(cip: Cip) -> str:
    """Digest of a CIP version: the recipe and the code that runs it."""
    return digest_of({"recipe": recipe_digest(cip), "code": CODE_VERSION})
