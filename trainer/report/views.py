"""What the page shows of a report: figures beside the tables that hold their numbers."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cytoloop.domain.types import Split
from trainer.report import (
    AuditPoint,
    BoxedMethod,
    BoxStudy,
    CalibrationScores,
    CycleReport,
    ProposalAgreement,
    ProposalErrors,
    RatingStudy,
    TrainingRun,
    VersionScores,
    WorstCase,
    worth_in_words,
)
from trainer.report.figures import (
    agreement_curves,
    box_bands,
    box_ratios,
    class_bars,
    confusion_matrix_figure,
    error_bars,
    metric_bars,
    plate_map,
    rating_violins,
    reliability_diagram,
    training_curves,
)
from trainer.report.names import SPLIT_TITLES, label_of, short_labels
from trainer.report.ranking import FEWEST_ITEMS, together
from trainer.report.wells import PlateWells, plates_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture inside the page, and what to say to those who cannot see it."""

    source: str
    """A ``data:`` address."""
    text: str


def picture_of(svg: str | None, text: str) -> Picture | None:
    """A figure as a picture of the page; None stays None."""
    if svg is None:
        return None
    return Picture(source=_data_address(svg.encode("utf-8"), "image/svg+xml"), text=text)


def training_picture(run: TrainingRun) -> Picture | None:
    """How a run went."""
    return picture_of(training_curves(run), f"Loss and validation of {run.version} by epoch")


def plate_views(report: CycleReport) -> list[tuple[PlateWells, Picture | None]]:
    """Plates in which something is corrected, each from above."""
    return [
        (
            plate,
            picture_of(
                plate_map(plate.wells),
                f"Plate {plate.plate}: mean IoU of the model in use by well; table beside it",
            ),
        )
        for plate in plates_of(report.wells)
        if plate.corrected
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitView:
    """All versions on the items of one split: the paper's Fig. 3, and its Fig. 4 from masks."""

    split: Split
    title: str
    rows: tuple[VersionScores, ...]
    metrics: Picture | None
    classes: Picture | None
    matrices: tuple[Picture, ...]
    box_bands: Picture | None
    box_ratios: Picture | None
    boxed: tuple[tuple[str, BoxedMethod], ...]
    errors: Picture | None


def split_views(report: CycleReport) -> list[SplitView]:
    """One a split that was measured: contest, sealed, validation."""
    views = []
    for split, title in SPLIT_TITLES.items():
        rows = tuple(one for one in report.scores if one.split == split)
        if not rows:
            continue
        labels = [label_of(report, one.version) for one in rows]
        # Reports older than boxes and error types hold none.
        with_boxes = [(one, label) for one, label in zip(rows, labels, strict=True) if one.boxes]
        boxed = [BoxedMethod.from_masks(one.version, one.boxes) for one, _ in with_boxes]
        box_labels = [label for _, label in with_boxes]
        with_errors = [(one.errors, label) for one, label in zip(rows, labels, strict=True) if one.errors]
        views.append(
            SplitView(
                split=split,
                title=title,
                rows=rows,
                metrics=picture_of(
                    metric_bars(rows, labels),
                    f"General metrics of each version on the {split} items; table below",
                ),
                classes=picture_of(
                    class_bars(rows, labels),
                    f"IoU, accuracy and BF score of each class for each version on the {split} items; tables below",
                ),
                matrices=_matrices(rows, labels),
                box_bands=picture_of(
                    box_bands(boxed, box_labels),
                    f"How well boxes fit, by class and version, on the {split} items",
                ),
                box_ratios=picture_of(
                    box_ratios(boxed, box_labels),
                    f"Overlapping events, false positives and false negatives on the {split} items; table below",
                ),
                boxed=tuple(zip(box_labels, boxed, strict=True)),
                errors=picture_of(
                    error_bars([errors for errors, _ in with_errors], [label for _, label in with_errors]),
                    f"Objects by type of error, by class and version, on the {split} items; table below",
                ),
            )
        )
    return views


def _matrices(rows: Sequence[VersionScores], labels: Sequence[str]) -> tuple[Picture, ...]:
    pictures = []
    for one, label in zip(rows, labels, strict=True):
        names = [c.name for c in one.classes]
        svg = confusion_matrix_figure(one.confusion, names, label) if one.confusion else None
        picture = picture_of(svg, f"Confusion matrix of {one.version}: {_diagonal(one)}")
        if picture is not None:
            pictures.append(picture)
    return tuple(pictures)


def _diagonal(one: VersionScores) -> str:
    told = [f"{c.name} {c.accuracy:.0%}" for c in one.classes if c.accuracy is not None]
    return "rightly given: " + ", ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationView:
    """The reliability diagram of one network, and the errors of all."""

    shown: CalibrationScores
    is_serving: bool
    picture: Picture | None
    rows: tuple[CalibrationScores, ...]


def calibration_view(report: CycleReport) -> CalibrationView | None:
    """Of the network in use, else of the challenger, else of the last; None without any."""
    if not report.calibration:
        return None
    by_version = {one.version: one for one in report.calibration}
    challenger = report.contest.challenger if report.contest is not None else None
    chosen = by_version.get(report.active_after) or by_version.get(challenger or "") or report.calibration[-1]
    return CalibrationView(
        shown=chosen,
        is_serving=chosen.version == report.active_after,
        picture=picture_of(
            reliability_diagram(chosen),
            f"Reliability of {chosen.version}: share of right pixels against how sure it was; errors in the table",
        ),
        rows=report.calibration,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingView:
    """A blind rating."""

    study: RatingStudy
    picture: Picture | None
    labels: dict[str, str]


def rating_view(report: CycleReport) -> RatingView | None:
    """The last one of the assay."""
    study = report.rating
    if study is None:
        return None
    labels = short_labels([study.method_a, study.method_b])
    return RatingView(
        study=study,
        picture=picture_of(
            rating_violins(study, labels), "Ratings of both methods as violins; numbers below"
        ),
        labels=labels,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxView:
    """Boxes that experts drew."""

    study: BoxStudy
    bands: Picture | None
    ratios: Picture | None
    boxed: tuple[tuple[str, BoxedMethod], ...]


def box_view(report: CycleReport) -> BoxView | None:
    """The last survey of the assay."""
    study = report.boxes
    if study is None:
        return None
    labels = list(short_labels([one.method for one in study.methods]).values())
    return BoxView(
        study=study,
        bands=picture_of(
            box_bands(study.methods, labels), "How well boxes fit those the experts drew, by class and method"
        ),
        ratios=picture_of(
            box_ratios(study.methods, labels),
            "Overlapping events, false positives and false negatives against the experts’ boxes; table below",
        ),
        boxed=tuple(zip(labels, study.methods, strict=True)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalView:
    """What was wrong with what the experts were shown."""

    proposals: tuple[ProposalErrors, ...]
    picture: Picture | None


def proposal_view(report: CycleReport) -> ProposalView | None:
    """By version; None where no prediction was corrected, or none could be asked again."""
    if not report.proposals:
        return None
    names = short_labels([one.version for one in report.proposals])
    labels = [f"{names[one.version]} ({one.items})" for one in report.proposals]
    return ProposalView(
        proposals=report.proposals,
        picture=picture_of(
            error_bars([one.classes for one in report.proposals], labels),
            "Objects of the corrected predictions by type of error; table below",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingView:
    """What the ranking is worth."""

    words: str
    points: tuple[AuditPoint, ...]
    rows: tuple[tuple[str, ProposalAgreement], ...]
    """Over all cycles, by how the items were chosen."""
    picture: Picture | None
    fewest: int


def ranking_view(report: CycleReport) -> RankingView:
    """Ranked items beside those drawn at random; without any, the reason alone."""
    points = report.audit
    return RankingView(
        words=worth_in_words(points, report.corrected),
        points=points,
        rows=(
            ("Ranked", together([p.ranked for p in points])),
            ("At random", together([p.audit for p in points])),
        ),
        picture=picture_of(
            agreement_curves(points),
            "Agreement of proposals and corrections against expert time, ranked items beside items drawn at "
            "random; table beside it",
        ),
        fewest=FEWEST_ITEMS,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelView:
    """One picture of a worst case."""

    title: str
    caption: str
    picture: Picture | None
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseView:
    """One worst case; in old reports all panels are one wide picture."""

    case: WorstCase
    panels: tuple[PanelView, ...]


def case_views(report: CycleReport, folder: Path) -> list[CaseView]:
    """Worst cases with their pictures; ``folder`` is where relative paths start."""
    views = []
    for case in report.worst_cases:
        panels = [
            PanelView(
                title=panel.title,
                caption=panel.caption,
                picture=_read(
                    folder, panel.picture, f"Item of image {case.image_id}, {panel.title}: {panel.caption}"
                ),
                file=panel.picture,
            )
            for panel in case.panels
        ]
        if case.picture is not None:
            text = f"Item of image {case.image_id}: as imaged, with the model’s outlines, with the expert’s outlines"
            panels.append(
                PanelView(
                    title="image | model | expert",
                    caption="",
                    picture=_read(folder, case.picture, text),
                    file=case.picture,
                )
            )
        views.append(CaseView(case=case, panels=tuple(panels)))
    return views


def _read(folder: Path, picture: str, text: str) -> Picture | None:
    path = folder / picture  # an absolute path wins over the folder
    try:
        content = path.read_bytes()
    except OSError as error:
        logger.warning("report picture unreadable path=%s error=%s", path, error.strerror)
        return None
    return Picture(source=_data_address(content, "image/png"), text=text)


def _data_address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
