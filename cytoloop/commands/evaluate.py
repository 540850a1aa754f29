"""``cytoloop evaluate``: two folders of masks, the truth and what a model made, compared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from cytoloop.adapters.images import read_mask
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError, ShapeError
from cytoloop.domain.metrics import Evaluation, evaluate
from cytoloop.domain.types import check_label_mask

logger = logging.getLogger(__name__)

_NAMED = 5  # missing masks that a message lists before it only counts


def evaluate_command(
    truth: Path, pred: Path, assay: Assay, progress: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Compare the masks of two folders, matched by stem (``a.png`` with ``a.png``).

    Parameters
    ----------
    truth, pred : Path
        Folders of indexed PNG masks: 0…K-1, or 255 (not looked at). Every true mask needs a prediction;
        predictions without a true mask cannot be judged, are left out, and are named in a warning.
    assay : Assay
        Gives the classes.
    progress : callable, optional
        Called as ``progress(done, total)`` after each pair.

    Raises
    ------
    InputError
        If a folder is missing or holds no masks, or a prediction is missing.
    ShapeError
        If the sizes of a pair differ, or a mask holds a value that is no class.
    ImageUnreadable
        If a file is no mask.
    """
    truths, preds = _masks_in(truth), _masks_in(pred)
    missing = sorted(truths.keys() - preds.keys())
    if missing:
        raise InputError(
            f"{pred}: no prediction for {len(missing)} of {len(truths)} masks of {truth}: {_named(missing)}"
        )
    extra = sorted(preds.keys() - truths.keys())
    if extra:
        logger.warning(
            "predictions without truth left out folder=%s count=%d names=%s", pred, len(extra), _named(extra)
        )

    def pairs() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
        for done, stem in enumerate(sorted(truths), start=1):
            true_path, pred_path = truths[stem], preds[stem]
            truth_HW = check_label_mask(read_mask(true_path), assay.class_count, str(true_path))
            pred_HW = check_label_mask(read_mask(pred_path), assay.class_count, str(pred_path))
            if truth_HW.shape != pred_HW.shape:
                raise ShapeError(f"{pred_path.name}: mask {pred_HW.shape}, truth {truth_HW.shape}")
            yield stem, truth_HW, pred_HW
            if progress is not None:
                progress(done, len(truths))

    return evaluate(pairs(), assay.class_names)


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


def _masks_in(folder: Path) -> dict[str, Path]:
    """PNG files of a folder by stem."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected one with PNG masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(
                f"{folder}: {found[path.stem].name} and {path.name} are one name, expected one mask"
            )
        found[path.stem] = path
    if not found:
        raise InputError(f"{folder}: holds no PNG masks, expected at least one")
    return found


def _named(stems: list[str]) -> str:
    more = f" and {len(stems) - _NAMED} more" if len(stems) > _NAMED else ""
    return ", ".join(stems[:_NAMED]) + more


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
