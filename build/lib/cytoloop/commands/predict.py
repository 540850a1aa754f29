"""``cytoloop predict``: masks and scores of a folder of images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cytoloop.adapters.images import palette_of, read_image, write_atomically, write_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay, Cip
from cytoloop.domain.cip import CODE_VERSION, cip_of, make_weak_label
from cytoloop.domain.errors import ConfigError, InputError, StateError
from cytoloop.domain.scoring import Look, score_item, soften
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, ModelVersion
from cytoloop.pipeline.predictors import NetworkPredictor
from cytoloop.pipeline.weak_labels import illumination_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSummary:
    """What was written."""

    images: int
    out: str
    version: str


def predict_folder(
    source: Path,
    out: Path,
    assay: Assay,
    home: Home | None,
    model: str | None,
    weights: Path | None,
    device: str,
    progress: Callable[[int, int], None],
) -> PredictSummary:
    """Write ``<image_id>.png`` for each image and ``scores.csv``, a line an item.

    ``weights`` names a folder that ``cytoloop train --out`` wrote; else ``model`` names a version of
    the home, by default the active one.
    """
    if model and weights:
        raise ConfigError(f"--model {model} and --weights {weights}: expected one of them")
    records = read_plate(source, assay)
    version, ask = _predictor(records, assay, home, model, weights, device)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[list[object]] = []
    for done, record in enumerate(records, start=1):
        look = ask(record)
        write_mask(
            out / f"{record.image_id}.png", look.prob_KHW.argmax(axis=0).astype(np.uint8), palette_of(assay)
        )
        for tile in tiles_of(record.height, record.width, assay.tiling):
            scored = score_item(look, tile.slices)
            rows.append(
                [record.image_id, tile.index, f"{scored.values['entropy']:.6f}", scored.reason, version]
            )
        progress(done, len(records))

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image_id", "tile", "score", "reason", "version"])
            writer.writerows(rows)

    write_atomically(out / "scores.csv", write)
    return PredictSummary(images=len(records), out=str(out), version=version)


def _predictor(
    records: list[ImageRecord],
    assay: Assay,
    home: Home | None,
    model: str | None,
    weights: Path | None,
    device: str,
) -> tuple[str, Callable[[ImageRecord], Look]]:
    if weights is None and home is not None:
        version = home.store.models.get(model) if model else home.store.models.active(assay.name)
        if version.assay != assay.name:
            raise InputError(
                f"model {version.version} is of assay {version.assay!r}, expected {assay.name!r}"
            )
        if version.method == "cip":
            return version.version, _cip(records, replace(assay, cip=_recipe_of(version)))
        weights, expected, name = home.registry.folder(version.version), version.digest, version.version
    elif weights is None:
        return f"cip {assay.cip.recipe}", _cip(records, assay)
    else:
        expected, name = None, weights.name
    predictor = NetworkPredictor(name, assay, weights, expected, device)
    return name, lambda record: predictor.look(record, ())


def _recipe_of(version: ModelVersion) -> Cip:
    """The recipe a version was made with; the assay may say another by now."""
    config = version.config
    if config["code_version"] != CODE_VERSION:
        raise StateError(
            f"model {version.version}: made by CIP code {config['code_version']}, this is {CODE_VERSION}; "
            "expected the same: import the plate again for a version of this code"
        )
    return cip_of(config)


def _cip(records: list[ImageRecord], assay: Assay) -> Callable[[ImageRecord], Look]:
    fields: dict[tuple[str, int, int], list[ImageRecord]] = {}
    for one in records:
        fields.setdefault((one.plate, one.height, one.width), []).append(one)
    illumination = {key: illumination_of(of_plate, assay) for key, of_plate in fields.items()}

    def ask(record: ImageRecord) -> Look:
        illumination_CHW = illumination[record.plate, record.height, record.width]
        weak = make_weak_label(read_image(record, assay), record.image_key, assay.cip, illumination_CHW)
        prob_KHW = soften(weak.mask_HW, assay.class_count, weak.confidence_HW)
        return Look(prob_KHW=prob_KHW, is_cip=True)

    return ask
