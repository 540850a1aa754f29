"""What a study learns from and what judges it: images, truth, weak labels, and folds that keep groups whole."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.images import read_mask
from cytoloop.adapters.plates import label_folder, read_plate
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ConfigError, PlateError
from cytoloop.domain.types import ImageRecord, Split, check_label_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Images of one split into what teaches, what chooses epochs, and what judges."""

    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One set of images with masks of experts or of the simulator."""

    name: str
    assay: Assay
    plate: Path
    """Folder of the images; masks in its ``labels``."""
    weak: Path
    """Folder of the CIP's masks, ``<image_id>.png``."""
    folds: tuple[Fold, ...]
    group: str
    """What is resampled for intervals and never straddles a split, in words."""
    remark: str
    """What a reader must know beside the figures."""

    def truth(self, record: ImageRecord) -> NDArray[np.uint8]:
        """The expert's mask of an image."""
        return _mask(_labels(self.plate) / f"{record.image_id}.png", self.assay)

    def weak_label(self, record: ImageRecord) -> NDArray[np.uint8]:
        """The CIP's mask of an image."""
        return _mask(self.weak / f"{record.image_id}.png", self.assay)


REFERENCE_SEED = 11
REFERENCE_WELLS = {"train": 80, "validation": 8, "sealed": 16}
"""Wells of two fields each: 160, 16 and 32 images."""
U2OS_FOLDS = 5
U2OS_VALIDATION_WELLS = 2
DSB_VALIDATION_IMAGES = 16


def reference_1(plate: Path, weak: Path) -> Dataset:
    """The simulated plate ``reference-1``; truth is exact, looks of the fields differ."""
    assay = load_assay("rosella")
    records = read_plate(plate, assay)
    wells = _shuffled({record.group for record in records}, seed=0)
    wanted = sum(REFERENCE_WELLS.values())
    if len(wells) != wanted:
        raise PlateError(f"{plate}: {len(wells)} wells, expected the {wanted} of this study")
    split_of: dict[str, str] = {}
    for split, count in REFERENCE_WELLS.items():
        split_of |= dict.fromkeys(wells[len(split_of) : len(split_of) + count], split)
    return Dataset(
        name="reference-1",
        assay=assay,
        plate=plate,
        weak=weak,
        folds=(_fold(records, split_of),),
        group="well",
        remark="Simulated Rosella plate with pixel-exact truth, 208 fields of 104 wells.",
    )


def u2os(plate: Path, weak: Path) -> Dataset:
    """Real cells in two channels, cross-validated over wells: 17 fields are too few for one test split."""
    assay = load_assay("cells2ch")
    # the data's own split puts one well on both sides: wells override it
    records = read_plate(plate, assay)
    wells = _shuffled({record.group for record in records}, seed=0)
    folds = []
    for number in range(U2OS_FOLDS):
        test = wells[number::U2OS_FOLDS]
        rest = [well for well in wells if well not in test]
        # another choice of validation wells in each fold, so that no two wells choose all epochs
        start = number * U2OS_VALIDATION_WELLS % len(rest)
        chosen = (rest + rest)[start : start + U2OS_VALIDATION_WELLS]
        split_of = dict.fromkeys(rest, "train") | dict.fromkeys(chosen, "validation")
        folds.append(_fold(records, split_of | dict.fromkeys(test, "sealed")))
    return Dataset(
        name="u2os-hoechst-gal3",
        assay=assay,
        plate=plate,
        weak=weak,
        folds=tuple(folds),
        group="well",
        remark="Real images, 17 fields of 16 wells, five folds over wells; each field judges once. The recipe's "
        "constants were chosen on these images, so the CIP's figures are somewhat optimistic.",
    )


def dsb2018(plate: Path, weak: Path) -> Dataset:
    """Real nuclei of several experiments, split as the data's index says."""
    assay = load_assay("nuclei")
    records = read_plate(plate, assay)
    names: Mapping[str, Split] = {"train": "train", "val": "validation", "test": "sealed"}
    with (plate / "index.csv").open(encoding="utf-8", newline="") as file:
        given = {row["id"]: names[row["split"]] for row in csv.DictReader(file)}
    # one image a group: nothing larger is known
    fold = _fold(records, {record.group: given[record.image_id] for record in records})
    fold = replace(fold, validation=fold.validation[:DSB_VALIDATION_IMAGES])
    return Dataset(
        name="dsb2018-fluo",
        assay=assay,
        plate=plate,
        weak=weak,
        folds=(fold,),
        group="image",
        remark="Real images of several experiments. Plates and wells are not known, and several images may be "
        "crops of one field: the split is optimistic, and so are the intervals over images.",
    )


LABELLED_TEST_SHARE = 0.4
"""Of the groups of any labelled folder; two fifths judge well even where there are few."""


def labelled_folder(plate: Path, weak: Path, assay: Assay) -> Dataset:
    """Any folder with images and, in its ``labels``, their masks: some groups judge, the others teach.

    Raises
    ------
    PlateError
        If there is no such folder of masks, a mask is missing, or there are fewer than three groups.
    """
    labels = _labels(plate)
    records = read_plate(plate, assay)
    lacking = [r.image_id for r in records if not (labels / f"{r.image_id}.png").is_file()]
    if lacking:
        raise PlateError(f"{labels}: no mask of {len(lacking)} image(s): {', '.join(lacking[:3])}")
    groups = _shuffled({record.group for record in records}, seed=0)
    if len(groups) < 3:
        raise PlateError(
            f"{plate}: {len(groups)} group(s) of images, expected at least 3 to learn and to judge"
        )
    judging = groups[: max(1, round(LABELLED_TEST_SHARE * len(groups)))]
    fold = _fold(records, dict.fromkeys(groups, "train") | dict.fromkeys(judging, "sealed"))
    return Dataset(
        name=plate.resolve().name,
        assay=assay,
        plate=plate,
        weak=weak,
        folds=(fold,),
        group="well",
        remark=f"{len(records)} images of {len(groups)} groups, {len(judging)} of which judge.",
    )


BUILDERS: Mapping[str, Callable[[Path, Path], Dataset]] = {
    "reference-1": reference_1,
    "u2os-hoechst-gal3": u2os,
    "dsb2018-fluo": dsb2018,
}


@lru_cache(maxsize=4)
def open_dataset(name: str, plate: Path, weak: Path) -> Dataset:
    """The data set of that name, its images found but not read.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in BUILDERS:
        raise ConfigError(f"data set {name!r}: expected one of {', '.join(BUILDERS)}")
    return BUILDERS[name](plate, weak)


def _fold(records: Sequence[ImageRecord], split_of: Mapping[str, str]) -> Fold:
    by_split: dict[str, list[ImageRecord]] = {"train": [], "validation": [], "sealed": []}
    for record in sorted(records, key=lambda r: r.image_id):
        by_split[split_of[record.group]].append(record)
    return Fold(
        train=tuple(by_split["train"]),
        validation=tuple(by_split["validation"]),
        test=tuple(by_split["sealed"]),
    )


def _shuffled(groups: set[str], seed: int) -> list[str]:
    ordered = sorted(groups)
    np.random.default_rng(seed).shuffle(ordered)
    return ordered


@lru_cache(maxsize=8)
def _labels(plate: Path) -> Path:
    folder = label_folder(plate)
    if folder is None:
        raise PlateError(f"{plate}: no folder 'labels' with the truth in it")
    return folder


def _mask(path: Path, assay: Assay) -> NDArray[np.uint8]:
    return check_label_mask(read_mask(path), assay.class_count, str(path))
