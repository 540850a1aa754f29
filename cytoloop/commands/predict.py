"""``cytoloop predict``: masks, scores and doubt maps of a folder of images.

An image passes from thread to thread: read, seen, encoded, written. A few wait between two of them, so that memory
does not grow with the plate, and nothing waits for a disk while the network could work.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cytoloop
from cytoloop.adapters.images import encode_mask, palette_of
from cytoloop.adapters.plates import Field, holds_images, list_fields, read_field
from cytoloop.adapters.prediction_folder import (
    ItemScore,
    MaskFolder,
    Predicted,
    open_prediction_folder,
    sha256,
)
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay, Cip
from cytoloop.domain.cip import CODE_VERSION, cip_of, make_weak_label, recipe_digest
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ConfigError, CytoloopError, InputError, StateError
from cytoloop.domain.scoring import Look, score_item, soften
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, ModelVersion
from cytoloop.pipeline.judging import doubt_of
from cytoloop.pipeline.predictors import NetworkPredictor
from cytoloop.pipeline.stages import Stage, pipelined
from cytoloop.pipeline.weak_labels import illumination_of

logger = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
_Plate = tuple[str, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What ``cytoloop predict`` is asked for."""

    model: str | None = None
    """A version of the home; None: the active one."""
    weights: Path | None = None
    """A folder that ``cytoloop train --out`` wrote, in place of a version."""
    device: str = "auto"
    uncertainty: bool = False
    """Doubt maps too."""
    workers: int | None = None
    """Threads of each stage; None: one a core."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictSummary:
    """What was written, and what could not be."""

    images: int
    """That have a mask now."""
    made: int
    """Of them, in this run; the others lay there already, of the same pixels and version."""
    out: str
    version: str
    engine: str
    """What computed the masks."""
    seconds: float
    images_per_second: float
    """Of those made."""
    failures: tuple[str, ...]
    """One message an image that has no mask; each names its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segmenter:
    """A version, ready to look at pixels."""

    version: str
    engine: str
    made_by: Mapping[str, Any]
    """JSON that decides what its masks are."""
    look: Callable[[ImageRecord, NDArray[Any]], Look]
    threads: int
    """That may well ask at once."""


@dataclass(slots=True, kw_only=True)
class _Work:
    """An image on its way; each stage fills in its part, and lets go of what no later one needs."""

    field: Field
    record: ImageRecord | None = None
    raw_CHW: NDArray[Any] | None = None
    look: Look | None = None
    done: Predicted | None = None
    is_old: bool = False
    """Done by an earlier run."""
    mask: bytes | None = None
    doubt: bytes | None = None
    problem: str = ""


def predict_folder(
    source: Path,
    out: Path,
    assay: Assay,
    home: Home | None,
    options: PredictOptions,
    progress: Progress,
) -> PredictSummary:
    """Write ``<image_id>.png`` for each image, ``scores.csv`` with a line an item, and ``provenance.json``.

    With ``uncertainty``, ``doubt/<image_id>.png`` (8-bit grey) tells what is doubted: 0 sure, 255 no idea.

    A run that ended early goes on when it is started again: an image whose mask of the same version lies there
    whole is read, since its pixels may have changed, but not predicted again. ``provenance.json`` and
    ``scores.csv`` are removed first and written last: where they stand, the run came to its end. An image that
    cannot be read or predicted has no mask and a message in ``failures``; the others go on.

    Raises
    ------
    ConfigError
        If both ``model`` and ``weights`` are given, or masks would be written among the images.
    PlateError
        If ``source`` holds no image.
    StateError
        If another process writes to ``out``.
    """
    if options.model and options.weights:
        raise ConfigError(f"--model {options.model} and --weights {options.weights}: expected one of them")
    if holds_images(out, source, assay):
        raise ConfigError(f"{out}: the images are there; expected another folder for the masks")
    failures: list[str] = []
    fields = list_fields(source, assay, on_problem=lambda error: failures.append(str(error)))
    workers = options.workers or os.cpu_count() or 1
    segmenter = _segmenter(fields, assay, home, options, workers)
    made_by = {
        "version": segmenter.version,
        **segmenter.made_by,
        "engine": segmenter.engine,
        "assay": assay.name,
        "assay_digest": assay.digest,
        "uncertainty": options.uncertainty,
        "cytoloop": cytoloop.__version__,
    }
    begun, done, made = time.perf_counter(), 0, 0
    with open_prediction_folder(out, made_by) as folder:
        steps = _Steps(assay=assay, segmenter=segmenter, folder=folder, uncertainty=options.uncertainty)
        stages = [
            Stage(name="read", run=steps.read, threads=workers),
            Stage(name="look", run=steps.look, threads=segmenter.threads),
            Stage(name="encode", run=steps.encode, threads=workers),
            Stage(name="write", run=steps.write),
        ]
        with closing(pipelined((_Work(field=one) for one in fields), stages)) as finished:
            for number, work in enumerate(finished, start=1):
                if work.problem:
                    failures.append(work.problem)
                else:
                    done, made = done + 1, made + (not work.is_old)
                progress(number, len(fields))
        folder.finish(sorted(failures))
    seconds = time.perf_counter() - begun
    logger.info("predicted images=%d made=%d failed=%d seconds=%.1f", done, made, len(failures), seconds)
    return PredictSummary(
        images=done,
        made=made,
        out=str(out),
        version=segmenter.version,
        engine=segmenter.engine,
        seconds=seconds,
        images_per_second=made / seconds,
        failures=tuple(sorted(failures)),
    )


# --- what is done to an image ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Steps:
    """The work of each stage. A step that fails is told with its image, and the later ones let it pass."""

    assay: Assay
    segmenter: _Segmenter
    folder: MaskFolder
    uncertainty: bool
    palette: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "palette", palette_of(self.assay))

    def read(self, work: _Work) -> _Work:
        return self._tried(work, self._read)

    def look(self, work: _Work) -> _Work:
        return work if work.done else self._tried(work, self._look)

    def encode(self, work: _Work) -> _Work:
        return work if work.done else self._tried(work, self._encode)

    def write(self, work: _Work) -> _Work:
        if work.problem:
            self.folder.drop(work.field.image_id)
        elif work.done is not None:
            self.folder.keep(work.done, work.mask, work.doubt)
        work.mask = work.doubt = None
        return work

    def _tried(self, work: _Work, step: Callable[[_Work], None]) -> _Work:
        if not work.problem:
            try:
                step(work)
            except CytoloopError as error:
                path, message = str(work.field.files[0]), str(error)
                work.problem = message if path in message else f"{path}: {message}"
                work.raw_CHW = work.look = None
        return work

    def _read(self, work: _Work) -> None:
        work.record, work.raw_CHW = read_field(work.field, self.assay)
        work.done = self.folder.found(work.record.image_id, work.record.image_key)
        if work.done is not None:
            work.is_old, work.raw_CHW = True, None

    def _look(self, work: _Work) -> None:
        assert work.record is not None, "it was read"
        assert work.raw_CHW is not None, "it was read"
        work.look = self.segmenter.look(work.record, work.raw_CHW)
        work.raw_CHW = None

    def _encode(self, work: _Work) -> None:
        assert work.record is not None, "it was read"
        assert work.look is not None, "it was seen"
        record, look = work.record, work.look
        mask_HW = look.prob_KHW.argmax(axis=0).astype(np.uint8)
        work.mask = encode_mask(mask_HW, self.palette)
        if self.uncertainty:
            work.doubt = encode_mask(np.rint(255 * doubt_of(look.prob_KHW)).astype(np.uint8))
        scores = []
        for tile in tiles_of(record.height, record.width, self.assay.tiling):
            scored = score_item(look, tile.slices)
            scores.append(
                ItemScore(tile=tile.index, score=float(scored.values["entropy"]), reason=scored.reason)
            )
        pixels = np.bincount(mask_HW.ravel(), minlength=self.assay.class_count)
        work.done = Predicted(
            image_id=record.image_id,
            image_key=record.image_key,
            mask_sha256=sha256(work.mask),
            doubt_sha256=None if work.doubt is None else sha256(work.doubt),
            class_pixels={name: int(n) for name, n in zip(self.assay.class_names, pixels, strict=True)},
            scores=tuple(scores),
        )
        work.look = None


# --- who predicts ------------------------------------------------------------------------------------


def _segmenter(
    fields: Sequence[Field], assay: Assay, home: Home | None, options: PredictOptions, workers: int
) -> _Segmenter:
    if options.weights is None and home is not None:
        version = (
            home.store.models.get(options.model) if options.model else home.store.models.active(assay.name)
        )
        if version.assay != assay.name:
            raise InputError(
                f"model {version.version} is of assay {version.assay!r}, expected {assay.name!r}"
            )
        if version.method == "cip":
            return _cip(fields, replace(assay, cip=_recipe_of(version)), version.version, workers)
        weights, expected, name = home.registry.folder(version.version), version.digest, version.version
    elif options.weights is None:
        return _cip(fields, assay, f"cip {assay.cip.recipe}", workers)
    else:
        weights, expected, name = options.weights, None, options.weights.name
    # images side by side, a thread each, keep the cores busier than threads that share an image
    predictor = NetworkPredictor(name, assay, weights, expected, options.device, threads=1)
    return _Segmenter(
        version=name,
        engine=predictor.engine,
        made_by={"weights_digest": predictor.digest},
        look=lambda _, raw_CHW: predictor.look_at(raw_CHW),
        threads=workers if predictor.has_engine else 1,
    )


def _recipe_of(version: ModelVersion) -> Cip:
    """The recipe a version was made with; the assay may say another by now."""
    config = version.config
    if config["code_version"] != CODE_VERSION:
        raise StateError(
            f"model {version.version}: made by CIP code {config['code_version']}, this is {CODE_VERSION}; "
            "expected the same: import the plate again for a version of this code"
        )
    return cip_of(config)


def _cip(fields: Sequence[Field], assay: Assay, version: str, workers: int) -> _Segmenter:
    """A recipe; what it makes of an image depends on the plate's illumination, so all fields are read before."""
    plates: dict[_Plate, list[ImageRecord]] = {}
    for one in fields:
        try:
            record, _ = read_field(one, assay)
        except CytoloopError:
            continue  # told when the image itself is read
        plates.setdefault((record.plate, record.height, record.width), []).append(record)
    illumination = {plate: illumination_of(records, assay) for plate, records in plates.items()}

    def look(record: ImageRecord, raw_CHW: NDArray[Any]) -> Look:
        illumination_CHW = illumination[record.plate, record.height, record.width]
        weak = make_weak_label(raw_CHW.astype(np.float32), record.image_key, assay.cip, illumination_CHW)
        prob_KHW = soften(weak.mask_HW, assay.class_count, weak.confidence_HW)
        return Look(prob_KHW=prob_KHW, is_cip=True)

    return _Segmenter(
        version=version,
        engine=f"CIP code {CODE_VERSION}",
        made_by={
            "recipe_digest": recipe_digest(assay.cip),
            "illumination": [
                [plate, height, width, None if factor_CHW is None else digest_of_pixels(factor_CHW)]
                for (plate, height, width), factor_CHW in sorted(illumination.items(), key=lambda one: one[0])
            ],
        },
        look=look,
        threads=workers,
    )
