"""What lies on an item when it is opened: the active model's mask, or for some items CIP's, an imported one, or nothing.

An item keeps its canvas through promotions. Label Studio scores an item by a prediction of the version in
force and by no other, so CIP's regions and the empty canvas go under that version's name there; the
store knows better, and notes CIP, or no version at all, as what the expert began with.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby
from typing import Any

from cytoloop.adapters.store import Store
from cytoloop.adapters.store.imported import ImportedMask
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, ItemRole
from cytoloop.pipeline.cip_version import cip_version_of
from cytoloop.pipeline.predictors import CipMasks
from labelstudio_config.payloads import prediction_result

LEADING = frozenset({"contest", "overlap", "gold", "blank"})
"""Roles in which an expert is to judge alone: no doubt map is shown."""


def proposals(store: Store, assay: Assay, items: Collection[Item]) -> dict[Item, list[dict[str, Any]]]:
    """Regions of those of these items that do not show the active model's."""
    roles = store.leases.roles(assay.name, items)
    imported = _imported(store, assay, items, roles)
    found: dict[Item, list[dict[str, Any]]] = {
        item: [] for item, role in roles.items() if role.canvas == "blank"
    }
    of_cip = sorted(item for item, role in roles.items() if role.canvas == "cip")
    masks = CipMasks(store, assay, assay.cip, CODE_VERSION) if of_cip else None
    for image_id, of_image in groupby(of_cip, key=lambda item: item.image_id):
        assert masks is not None, "there are items of CIP"
        record = store.images.get(assay.name, image_id)
        mask_HW, _ = masks.get(record)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for item in of_image:
            found[item] = prediction_result(mask_HW[tiles[item.tile].slices], assay)
    for digest, of_mask in groupby(
        sorted(imported, key=lambda i: imported[i].mask), key=lambda i: imported[i].mask
    ):
        mask_HW = store.masks.get(digest)
        tiles = tiles_of(mask_HW.shape[0], mask_HW.shape[1], assay.tiling)
        for item in of_mask:
            found[item] = prediction_result(mask_HW[tiles[item.tile].slices], assay)
    return found


def _imported(
    store: Store, assay: Assay, items: Collection[Item], roles: Mapping[Item, ItemRole]
) -> dict[Item, ImportedMask]:
    """The mask from elsewhere that lies on an item, unless its role says CIP's or none."""
    open_to_it = [item for item in items if item not in roles or roles[item].canvas == "model"]
    return store.imported.shown(assay.name, open_to_it)


def began_with(store: Store, assay: Assay, item: Item, shown: str | None) -> str | None:
    """The version (or import) whose mask an expert began with, given whose prediction Label Studio says it was."""
    role = store.leases.roles(assay.name, [item]).get(item)
    if shown is None:
        return None
    if role is None or role.canvas == "model":
        imported = store.imported.shown(assay.name, [item]).get(item)
        return shown if imported is None else imported.version
    return cip_version_of(store, assay) if role.canvas == "cip" else None


def hidden_doubts(store: Store, assay: Assay, items: Collection[Item]) -> set[Item]:
    """Those of these items whose doubt map would lead an expert's hand: by their first role, or a lease's now."""
    roles = store.leases.roles(assay.name, items).values()
    wanted = set(items)
    held = {lease.item for lease in store.leases.held(assay.name) if lease.role in LEADING}
    return {role.item for role in roles if role.role in LEADING or role.canvas != "model"} | (held & wanted)
