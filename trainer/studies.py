"""The last blind rating and box survey of an assay, and the minutes people take."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from cytoloop.adapters.store import StoredCorrection
from cytoloop.domain.errors import InputError
from cytoloop.files import read_json
from trainer.deltas import start_of
from trainer.report import BoxStudy, HumanTime, RatingStudy, Start

logger = logging.getLogger(__name__)
Study = TypeVar("Study")


def latest_rating(home: Path, assay: str) -> RatingStudy | None:
    """What was collected last with ``cytoloop rate``; None without any rating of the assay."""
    return _latest(home.glob("ratings/*/rating.json"), assay, RatingStudy.from_document)


def latest_boxes(home: Path, assay: str) -> BoxStudy | None:
    """What was collected last with ``cytoloop boxes``; None without any boxes of the assay."""
    return _latest(home.glob("boxes/*/boxes.json"), assay, BoxStudy.from_document)


def _latest(paths: Iterable[Path], assay: str, read: Callable[[Any], Study]) -> Study | None:
    newest_first = sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in newest_first:
        try:
            document = read_json(path)
            if isinstance(document, dict) and document.get("assay") == assay:
                return read(document)
        except (OSError, InputError) as error:  # no reason to have no report
            logger.warning("study left out of the report path=%s: %s", path, error)
    return None


def human_times(
    corrections: Iterable[StoredCorrection], rating: RatingStudy | None, boxes: BoxStudy | None
) -> tuple[HumanTime, ...]:
    """Median minutes by the editor's clock, of each thing people are asked to do.

    Corrections whose start is unknown count as neither corrected nor drawn from scratch.
    """
    seconds: dict[Start, list[float]] = {"prediction": [], "imported": [], "blank": [], "unknown": []}
    for correction in corrections:
        if correction.lead_time_s is not None:
            seconds[start_of(correction)].append(correction.lead_time_s)
    return (
        HumanTime(
            task="rate",
            minutes=rating.minutes_median if rating else None,
            n=rating.ratings if rating else 0,
        ),
        HumanTime(
            task="boxes", minutes=boxes.minutes_median if boxes else None, n=boxes.items if boxes else 0
        ),
        HumanTime(task="correct", minutes=_minutes(seconds["prediction"]), n=len(seconds["prediction"])),
        HumanTime(task="scratch", minutes=_minutes(seconds["blank"]), n=len(seconds["blank"])),
    )


def _minutes(seconds: list[float]) -> float | None:
    return median(seconds) / 60 if seconds else None
