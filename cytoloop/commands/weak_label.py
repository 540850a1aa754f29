"""``cytoloop weak-label``: conventional image processing on a folder of images; needs no store."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.images import PROVENANCE, palette_of, read_image, write_atomically, write_mask
from cytoloop.adapters.plates import holds_images, read_plate
from cytoloop.commands.cip_debug import DebugFolder, clear
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import (
    CODE_VERSION,
    cip_document,
    make_weak_label,
    plate_illumination,
    recipe_digest,
    teachers_of,
)
from cytoloop.domain.cip.operators import use_one_thread
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ConfigError, CytoloopError
from cytoloop.domain.types import ImageRecord

logger = logging.getLogger(__name__)

CONFIDENCE = "confidence"
"""Folder beside the masks."""
Progress = Callable[[int, int], None]

_Plate = tuple[str, int, int]
"""Plate, height and width: what shares an illumination."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakLabelFile:
    """One mask that was written."""

    image_id: str
    image_key: str
    mask: str
    """File name in the output folder."""
    class_pixels: Mapping[str, int]
    """Pixels by class name, background included."""
    confidence: str | None = None
    """Path in the output folder of the share of teachers behind each pixel; None: one teacher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeakLabelSummary:
    """What one run made, and what it could not."""

    assay: str
    recipe: str
    recipe_digest: str
    code_version: str
    out: Path
    written: tuple[WeakLabelFile, ...]
    failures: tuple[str, ...]
    """One message an image that has no mask; each names its file."""


def weak_label_command(
    source: Path,
    out: Path,
    assay: Assay,
    workers: int = 1,
    progress: Progress | None = None,
    debug_dir: Path | None = None,
) -> WeakLabelSummary:
    """Write ``out/<image_id>.png`` for every image of a plate folder, and how they were made.

    Where several teachers vote, ``out/confidence/<image_id>.png`` (8-bit grey) tells how many of them
    gave a pixel its class: 255 = all.

    ``provenance.json`` is removed first and written last: where it stands, the run came to its end,
    and it lists every mask that belongs to it. An image that cannot be read or labelled has no mask
    and a message in ``failures``; the others go on.

    Parameters
    ----------
    source : Path
        A plate folder, as ``cytoloop.adapters.plates.read_plate`` takes it.
    out : Path
        Made where missing; masks of the same names are replaced, other files left alone.
    workers : int
        Processes, >= 1; the masks do not depend on it.
    progress : callable, optional
        Called with (images done, images in all).
    debug_dir : Path, optional
        Where intermediate images go: ``debug_dir/<image_id>/index.html`` shows each step of an image.

    Raises
    ------
    ConfigError
        If the recipe, its parameters, the assay's channels or classes, or ``workers`` do not fit, or
        masks would be written among the images.
    PlateError
        If ``source`` holds no image.
    """
    _check(source, out, assay, workers)
    if debug_dir is not None and holds_images(debug_dir, source, assay):
        raise ConfigError(f"{debug_dir}: the images are there; expected another folder for the steps")
    failures: list[str] = []
    records = read_plate(source, assay, on_problem=lambda error: failures.append(str(error)))
    out.mkdir(parents=True, exist_ok=True)
    (out / PROVENANCE).unlink(missing_ok=True)

    illumination = _illumination_by_plate(records, assay)
    jobs = ((record, assay, illumination.get(_plate_of(record)), out, debug_dir) for record in records)
    written: list[WeakLabelFile] = []
    for done, result in enumerate(_run(jobs, workers), start=1):
        if isinstance(result, WeakLabelFile):
            written.append(result)
        else:
            failures.append(result)
        if progress:
            progress(done, len(records))

    summary = WeakLabelSummary(
        assay=assay.name,
        recipe=assay.cip.recipe,
        recipe_digest=recipe_digest(assay.cip),
        code_version=CODE_VERSION,
        out=out,
        written=tuple(sorted(written, key=lambda file: file.image_id)),
        failures=tuple(sorted(failures)),
    )
    _write_provenance(summary, assay, illumination)
    logger.info(
        "weak labels done assay=%s recipe=%s written=%d failed=%d",
        assay.name,
        assay.cip.recipe,
        len(written),
        len(failures),
    )
    return summary


def _check(source: Path, out: Path, assay: Assay, workers: int) -> None:
    recipe, _ = teachers_of(assay.cip)[0]
    if workers < 1:
        raise ConfigError(f"{workers} workers, expected >= 1")
    if len(assay.channels) != recipe.channel_count:
        raise ConfigError(
            f"assay {assay.name!r} has {len(assay.channels)} channel(s), "
            f"recipe {recipe.name!r} expects {recipe.channel_count}"
        )
    if assay.class_count != recipe.class_count:
        raise ConfigError(
            f"assay {assay.name!r} has {assay.class_count} classes, "
            f"recipe {recipe.name!r} gives {recipe.class_count}, background included"
        )
    if holds_images(out, source, assay):
        raise ConfigError(f"{out}: the images are there; expected another folder for the masks")


def _plate_of(record: ImageRecord) -> _Plate:
    return record.plate, record.height, record.width


def _illumination_by_plate(
    records: Iterable[ImageRecord], assay: Assay
) -> dict[_Plate, NDArray[np.float32] | None]:
    by_plate: dict[_Plate, list[ImageRecord]] = {}
    for record in records:
        by_plate.setdefault(_plate_of(record), []).append(record)
    return {
        plate: plate_illumination(_readable(fields, assay), assay.cip) for plate, fields in by_plate.items()
    }


def _readable(records: Iterable[ImageRecord], assay: Assay) -> Iterator[NDArray[np.float32]]:
    for record in records:
        try:
            image_CHW = read_image(record, assay)
        except CytoloopError:
            continue  # told when the image itself is labelled
        yield image_CHW


_Job = tuple[ImageRecord, Assay, NDArray[np.float32] | None, Path, Path | None]


def _run(jobs: Iterator[_Job], workers: int) -> Iterator[WeakLabelFile | str]:
    if workers == 1:
        yield from map(_label_one, jobs)
        return
    # Spawned, not forked: a fork of a process whose libraries run threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=use_one_thread) as pool:
        try:
            for future in as_completed([pool.submit(_label_one, job) for job in jobs]):
                yield future.result()
        finally:  # after ^C or a bug, do not label the rest of the plate first
            pool.shutdown(wait=False, cancel_futures=True)


def _label_one(job: _Job) -> WeakLabelFile | str:
    """Label one image; a message, not an error, if it cannot be done."""
    record, assay, illumination_CHW, out, debug_dir = job
    target = out / f"{record.image_id}.png"
    confidence = out / CONFIDENCE / target.name
    confidence.unlink(missing_ok=True)  # of an earlier run, whose teachers may have been others
    try:
        image_CHW = read_image(record, assay)
        debug = None
        if debug_dir is not None:
            debug = DebugFolder(debug_dir / record.image_id, record.image_id, image_CHW, assay)
        label = make_weak_label(image_CHW, record.image_key, assay.cip, illumination_CHW, debug)
    except CytoloopError as error:
        target.unlink(missing_ok=True)  # a mask of an earlier run would pass for one of this
        if debug_dir is not None:
            clear(debug_dir / record.image_id)  # and so would its steps
        message = str(error)
        return message if record.files[0] in message else f"{record.files[0]}: {message}"
    write_mask(target, label.mask_HW, palette_of(assay))
    if debug is not None:
        debug.write(label.mask_HW)
    if label.confidence_HW is not None:
        write_mask(confidence, label.confidence_HW)
    pixels = np.bincount(label.mask_HW.ravel(), minlength=assay.class_count)
    return WeakLabelFile(
        image_id=record.image_id,
        image_key=record.image_key,
        mask=target.name,
        class_pixels={name: int(n) for name, n in zip(assay.class_names, pixels, strict=True)},
        confidence=None if label.confidence_HW is None else f"{CONFIDENCE}/{confidence.name}",
    )


def _write_provenance(
    summary: WeakLabelSummary, assay: Assay, illumination: Mapping[_Plate, NDArray[np.float32] | None]
) -> None:
    document: dict[str, Any] = {
        "assay": assay.name,
        "assay_digest": assay.digest,
        **cip_document(assay.cip),
        "recipe_digest": summary.recipe_digest,
        "code_version": summary.code_version,
        "illumination": [
            {
                "plate": plate,
                "height": height,
                "width": width,
                "digest": None if factor_CHW is None else digest_of_pixels(factor_CHW),
            }
            for (plate, height, width), factor_CHW in sorted(illumination.items(), key=lambda item: item[0])
        ],
        "images": [
            {key: value for key, value in asdict(file).items() if value is not None}
            for file in summary.written
        ],
        "failures": list(summary.failures),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_atomically(summary.out / PROVENANCE, lambda file: file.write_text(text, encoding="utf-8"))
