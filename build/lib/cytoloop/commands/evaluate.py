"""``cytoloop evaluate``: two folders of masks, the truth and what a model made, compared.

The folders may be anybody's, so everything wrong with them is said at once and exactly: which file, what
was got, what was expected.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from cytoloop.adapters.images import read_mask
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.errors import ConfigError, CytoloopError, InputError, ShapeError
from cytoloop.domain.metrics import Evaluation, ImageMetrics, judge, summarise

SUFFIXES = (".png", ".tif", ".tiff")

_NAMED = 5  # names or values that a message lists before it only counts
_TOLD = 20  # problems that an error lists before it only counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FolderEvaluation:
    """The metrics of two folders, and what a reader of them should know."""

    evaluation: Evaluation
    warnings: tuple[str, ...]
    """What is odd but no error; each names its folder."""

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON, with the warnings."""
        return self.evaluation.to_dict() | {"warnings": list(self.warnings)}


def evaluate_command(
    truth: Path,
    pred: Path,
    assay: Assay,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FolderEvaluation:
    """Compare the masks of two folders, matched by stem (``a.png`` with ``a.png`` or ``a.tif``).

    Parameters
    ----------
    truth, pred : Path
        Folders of PNG or TIFF masks whose values are 0…K-1, or 255 (not looked at). Every true mask needs
        a prediction; predictions without a true mask cannot be judged, are left out, and are named in a
        warning.
    assay : Assay
        Gives the classes.
    workers : int
        Processes, >= 1; the numbers do not depend on it.
    progress : callable, optional
        Called as ``progress(done, total)`` after each pair.

    Raises
    ------
    InputError
        If a folder is missing or holds no masks, a prediction is missing, a file is no mask
        (``ImageUnreadable``), the sizes of a pair differ or a mask holds a value that is no class
        (``ShapeError``). Several problems are one ``InputError`` that lists them.
    ConfigError
        If ``workers`` is not positive.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers, expected >= 1")
    truths, preds = _masks_in(truth), _masks_in(pred)
    problems: list[CytoloopError] = []
    warnings = []
    if truth.resolve() == pred.resolve():
        warnings.append(f"{pred}: truth and predictions are one folder; every metric is perfect by itself")
    missing, extra = sorted(truths.keys() - preds.keys()), sorted(preds.keys() - truths.keys())
    if missing:
        unused = f"; without truth there: {_named(extra)}" if extra else ""
        problems.append(
            InputError(
                f"{pred}: no prediction for {len(missing)} of {len(truths)} masks of {truth}: "
                f"{_named(missing)}{unused}"
            )
        )
    elif extra:
        warnings.append(f"{pred}: {len(extra)} predictions without truth left out: {_named(extra)}")

    stems = sorted(truths.keys() & preds.keys())
    jobs = [
        _Job(name=stem, truth=truths[stem], pred=preds[stem], classes=assay.class_count, judge=not problems)
        for stem in stems
    ]
    judged: list[_Judged] = []
    for done, outcome in enumerate(_run(jobs, workers), start=1):
        judged.append(outcome)
        problems += outcome.problems
        if progress is not None:
            progress(done, len(jobs))
    _raise(problems)
    judged.sort(key=lambda one: one.name)
    for folder, is_binary in (
        (truth, [j.truth_binary for j in judged]),
        (pred, [j.pred_binary for j in judged]),
    ):
        if all(is_binary):
            warnings.append(
                f"{folder}: every mask holds 0 and {IGNORE} alone; {IGNORE} means not looked at and never "
                f"counts, classes are 1…{assay.class_count - 1}"
            )
    metrics = (one.metrics for one in judged if one.metrics is not None)
    return FolderEvaluation(evaluation=summarise(metrics, assay.class_names), warnings=tuple(warnings))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One pair to read, to check and, unless the run has failed already, to judge."""

    name: str
    truth: Path
    pred: Path
    classes: int
    judge: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """What came of a job."""

    name: str
    metrics: ImageMetrics | None
    problems: tuple[CytoloopError, ...] = ()
    truth_binary: bool = False
    pred_binary: bool = False


def _run(jobs: list[_Job], workers: int) -> Iterator[_Judged]:
    if workers == 1:
        yield from map(_judge_pair, jobs)
        return
    # Spawned, not forked: a fork of a process whose libraries run threads can hang.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(_judge_pair, job) for job in jobs]):
                yield future.result()
        finally:  # after ^C or a bug, do not read the rest first
            pool.shutdown(wait=False, cancel_futures=True)


def _judge_pair(job: _Job) -> _Judged:
    """Read, check and judge one pair; everything wrong with it, not only the first."""
    problems: list[CytoloopError] = []
    masks: list[tuple[NDArray[np.uint8], bool]] = []
    for path in (job.truth, job.pred):
        try:
            mask_HW = read_mask(path)
            masks.append((mask_HW, _check_values(mask_HW, job.classes, path)))
        except CytoloopError as error:
            problems.append(error)
    if len(masks) < 2:
        return _Judged(name=job.name, metrics=None, problems=tuple(problems))
    (truth_HW, truth_binary), (pred_HW, pred_binary) = masks
    if truth_HW.shape != pred_HW.shape:
        problem = ShapeError(
            f"{job.pred}: {_size(pred_HW)}, its truth {job.truth} {_size(truth_HW)}; expected one size"
        )
        return _Judged(name=job.name, metrics=None, problems=(problem,))
    return _Judged(
        name=job.name,
        metrics=judge(job.name, truth_HW, pred_HW, job.classes) if job.judge else None,
        truth_binary=truth_binary,
        pred_binary=pred_binary,
    )


def _check_values(mask_HW: NDArray[np.uint8], class_count: int, path: Path) -> bool:
    """Refuse values that are no class; True if the mask holds 0 and 255 alone, as binary masks do."""
    counts = np.bincount(mask_HW.ravel(), minlength=IGNORE + 1)
    wrong = np.flatnonzero(counts[class_count:IGNORE]) + class_count
    if wrong.size:
        told = []
        for value in wrong[:_NAMED]:
            row, column = np.argwhere(mask_HW == value)[0]
            told.append(f"{value} ({counts[value]} pixels, first at row {row}, column {column})")
        more = f" and {wrong.size - _NAMED} more values" if wrong.size > _NAMED else ""
        raise ShapeError(
            f"{path}: mask holds {', '.join(told)}{more}; expected 0…{class_count - 1} or {IGNORE} (not looked at)"
        )
    return bool(counts[IGNORE]) and not counts[1:class_count].any()


def _raise(problems: Sequence[CytoloopError]) -> None:
    """Nothing, the one problem there is, or all of them as one."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        lines = sorted(str(problem) for problem in problems)
        more = [f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
        raise InputError("\n  ".join([f"{len(lines)} problems:", *lines[:_TOLD], *more]))


def _size(mask_HW: NDArray[np.uint8]) -> str:
    return f"{mask_HW.shape[1]} x {mask_HW.shape[0]} pixels"


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the evaluation for the terminal: a row for each class, then the means."""
    whole = evaluation.dataset
    count = len(evaluation.images)
    table = Table(
        title=f"{count} {'mask' if count == 1 else 'masks'}: global accuracy {_number(whole.global_accuracy)}, "
        f"weighted IoU {_number(whole.weighted_iou)}",
        caption="IoU from pixels summed over all masks; BF is a mean over masks. Strict BF counts a class that "
        "is missing on one side as 0, BF leaves that mask out.",
    )
    table.add_column("class")
    for heading in ("IoU", "accuracy", "BF", "strict BF", "precision", "specificity", "true pixels"):
        table.add_column(heading, justify="right")
    for one in evaluation.classes:
        table.add_row(
            escape(one.name),
            _number(one.iou),
            _number(one.accuracy),
            _number(one.mean_bf),
            _number(one.mean_bf_strict),
            _number(one.precision),
            _number(one.specificity),
            f"{one.truth_pixels:,}",
        )
    table.add_section()
    table.add_row(
        "mean",
        _number(whole.mean_iou),
        _number(whole.mean_accuracy),
        _number(whole.mean_bf),
        _number(whole.mean_bf_strict),
        "",
        "",
        f"{int(evaluation.confusion_KK.sum()):,}",
        style="bold",
    )
    return table


def error_table(evaluation: Evaluation) -> Table:
    """Return what is wrong, object by object, for the terminal: a row for each class, then all of them."""
    document = evaluation.errors.to_dict(evaluation.class_names)
    boxes = evaluation.boxes
    table = Table(
        title="Objects of the truth",
        caption="Missed: under 10 % of it is found. Misclassified: most of what is found has another class. "
        "Incomplete: right class, IoU of at most 0.5. Invented: predicted where there is none. Boxes are matched "
        "one to one at IoU >= 0.1; overlapping: share of predicted boxes with that IoU to any true one.",
    )
    table.add_column("class")
    for heading in (
        *("objects", "right", "missed", "misclassified", "incomplete", "invented"),
        *("box FP ratio", "box FN ratio", "overlapping"),
    ):
        table.add_column(heading, justify="right")
    rows = [
        *zip((one["name"] for one in document["classes"]), document["classes"], boxes.classes, strict=True),
        ("all", document["foreground"], boxes.foreground),
    ]
    for place, (name, counts, box) in enumerate(rows, start=1):
        if place == len(rows):
            table.add_section()
        table.add_row(
            escape(name),
            *(
                f"{counts[kind]:,}"
                for kind in ("truth", "right", "missed", "misclassified", "incomplete", "invented")
            ),
            _number(box.false_positive_ratio),
            _number(box.false_negative_ratio),
            _number(box.overlapping_share),
            style="bold" if place == len(rows) else None,
        )
    return table


def _masks_in(folder: Path) -> dict[str, Path]:
    """Mask files of a folder by stem."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with PNG or TIFF masks")
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            others.append(path.name)
            continue
        if path.stem in found:
            raise InputError(
                f"{folder}: {found[path.stem].name} and {path.name} are one name, expected one mask"
            )
        found[path.stem] = path
    if not found:
        got = f"only {_named(others)}" if others else "it is empty"
        raise InputError(f"{folder}: holds no PNG or TIFF masks ({got}), expected at least one")
    return found


def _named(stems: list[str]) -> str:
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    return ", ".join(stems[:_NAMED]) + more


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
