"""``docs/results.md`` and its figures, from finished runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from cytoloop.adapters.images import write_atomically
from trainer.results.datasets import Dataset
from trainer.results.figures import learning_figure, teacher_figure, weak_figure
from trainer.results.plan import AMOUNTS, REMEDIES, WEAK_AMOUNTS
from trainer.results.summary import FULL, FULL_LONG, Arm, ArmResult, Study, bars_of, told

PAPER = {
    "CIP": (0.639, 0.721, 0.765),
    "MDL": (0.821, 0.910, 0.917),
    "CDL": (0.886, 0.934, 0.934),
}
"""Mean IoU, accuracy, BF on the paper's 31 test quarters (doi:10.1038/s41598-022-15623-7)."""

Draw = Callable[[str, str], str]
"""Keeps a figure of that name; gives the address the page has for it."""

REMEDY_NAMES = {
    "": "preset `fast`: cross-entropy, averaged weights, epoch chosen on corrected validation items",
    "dice": "generalised Dice loss beside the cross-entropy",
    "no-average": "weights as they are, not averaged",
    "last-epoch": "no corrected item at hand, trained to the end",
    "stopped": "no corrected item at hand, stopped when agreement with the teacher levels off",
    "committee": "three teachers vote, each pixel weighed by how many agree",
    "unanimous": "three teachers vote, pixels they differ on left out",
    "paper": "preset `paper` (one seed)",
}


def write_page(page: Path, studies: Sequence[tuple[Dataset, Study]], command: str) -> list[Path]:
    """Write the page and its figures (in a folder of the page's name); returns what was written."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def figure(name: str, text: str) -> str:
        path = folder / f"{name}.svg"
        write_atomically(path, lambda file: file.write_text(text, encoding="utf-8"))
        written.append(path)
        return f"{folder.name}/{path.name}"

    parts = [_head(command)]
    for dataset, study in studies:
        parts += _section(dataset, study, figure)
    text = "\n\n".join(part for part in parts if part) + "\n"
    write_atomically(page, lambda file: file.write_text(text, encoding="utf-8"))
    return [page, *written]


def _head(command: str) -> str:
    return f"""# Results

Made by `{command}`: it simulates the plate, makes the weak labels, trains every model and writes this page;
stopped anywhere, it goes on where it was.

CIP is conventional image processing. A CDL learned from its masks alone, an MDL from corrected items alone; a
joint model starts from the CDL and learns from corrections and down-weighted weak labels. A corrected item is
a tile whose mask is the truth. All methods of a seed see the same images and the same corrected items, and choose
their epoch on the same corrected validation items. Mean IoU is taken from the summed confusion matrix of all test items;
BF is the boundary F1 score, a mean over items. Intervals are 95 %, from a bootstrap over groups, on the same
draws for both sides of a difference; they do not hold the spread over seeds, which stands beside them. Seconds a run
are those of one core, wherever and beside whatever else it ran.

For comparison, the paper's test quarters (doi:10.1038/s41598-022-15623-7; other images, so no figure here can be set
against them):

| | mean IoU | mean accuracy | mean BF |
|---|---|---|---|
""" + "\n".join(
        f"| {name} | {iou:.3f} | {accuracy:.3f} | {bf:.3f} |" for name, (iou, accuracy, bf) in PAPER.items()
    )


def _section(dataset: Dataset, study: Study, figure: Draw) -> list[str]:
    results = {arm: study.result(arm) for arm in study.arms}
    fold = dataset.folds[0]
    tiles = dataset.assay.tiling[0] * dataset.assay.tiling[1]
    sizes = (
        f"{len(fold.train)} training, {len(fold.validation)} validation (one corrected item each) and "
        f"{len(fold.test)} test images"
    )
    if len(dataset.folds) > 1:
        sizes = f"{len(dataset.folds)} folds; the first has {sizes}"
    main = [
        arm
        for arm in (
            Arm(method="cip"),
            Arm(method="cdl"),
            *(Arm(method="mdl", corrected=amount) for amount in AMOUNTS),
            FULL_LONG,
            *(Arm(method="joint", corrected=amount) for amount in AMOUNTS),
        )
        if arm in results
    ]
    parts = [
        f"## {dataset.name}",
        f"{dataset.remark} {sizes[0].upper()}{sizes[1:]}; {len(study.groups)} {dataset.group}s judge. {_seeds(results)}",
        _table(dataset, [results[arm] for arm in main]),
    ]
    amounts = [n for n in AMOUNTS if any(Arm(method=m, corrected=n) in results for m in ("mdl", "joint"))]
    if len(amounts) > 1:  # one amount makes no curve
        source = figure(
            f"{dataset.name}-learning",
            learning_figure(dataset.name, results, amounts, len(fold.train) * tiles),
        )
        parts.append(
            f"![Mean IoU against corrected items]({source})\n\n*Mean IoU on test items against the number of "
            "corrected items, with 95 % intervals over groups.*"
        )
    parts.append(_bars(study))
    parts += _weak_amounts(study, results, len(fold.train), figure)
    parts += _remedies(study, results)
    parts += _teacher(study, results, figure)
    parts.append(_error_types(study, main))
    return parts


def _seeds(results: Mapping[Arm, ArmResult]) -> str:
    counts = [result.seeds for arm, result in results.items() if arm.method != "cip"]
    if not counts:
        return "Nothing was trained yet."
    most, fewest = max(counts), min(counts)
    if most == fewest:
        return f"Every model was trained with {most} seed{'s' if most > 1 else ''}."
    return f"Models were trained with {fewest} to {most} seeds."


def _table(dataset: Dataset, results: Sequence[ArmResult]) -> str:
    names = [label.name for label in dataset.assay.classes]
    head = [
        "",
        "mean IoU (95 %)",
        "SD over seeds",
        *(f"IoU {n}" for n in names),
        "mean accuracy",
        "mean BF",
        "strict BF",
        "s a run",
    ]
    rows = [
        [
            one.arm.title,
            told(one.mean_iou),
            "–" if one.seed_sd is None else f"{one.seed_sd:.3f}",
            *(f"{value:.3f}" for value in one.class_iou),
            f"{one.mean_accuracy:.3f}",
            f"{one.mean_bf:.3f}",
            f"{one.mean_bf_strict:.3f}",
            "–" if one.arm.method == "cip" else f"{one.train_s:.0f}",
        ]
        for one in results
    ]
    return markdown_table(head, rows)


def _bars(study: Study) -> str:
    rows = [[bar.text, bar.figure, "met" if bar.is_met else "**missed**"] for bar in bars_of(study)]
    return markdown_table(["Bar", "Figure", ""], rows) if rows else ""


def _weak_amounts(study: Study, results: Mapping[Arm, ArmResult], total: int, figure: Draw) -> list[str]:
    counts: list[tuple[int, Arm]] = [(count, Arm(method="cdl", weak=count)) for count in WEAK_AMOUNTS]
    found = [(count, results[arm]) for count, arm in [*counts, (total, Arm(method="cdl"))] if arm in results]
    if len(found) < 2:
        return []
    cip = results[Arm(method="cip")]
    source = figure("weak-images", weak_figure(found, cip))
    rows = [
        [str(count), told(result.mean_iou), told(study.gain(result.arm, Arm(method="cip")), signed=True)]
        for count, result in found
    ]
    return [
        "### How many weak images",
        markdown_table(["weak images", "mean IoU of the CDL (95 %)", "gain over CIP"], rows),
        f"![Mean IoU of the CDL against weak images]({source})",
    ]


def _remedies(study: Study, results: Mapping[Arm, ArmResult]) -> list[str]:
    base = Arm(method="cdl")
    arms = [Arm(method="cdl", variant=variant) for variant in (*REMEDIES, "paper")]
    found = [arm for arm in arms if arm in results]
    if base not in results or not found:
        return []
    rows = [[REMEDY_NAMES[""], told(results[base].mean_iou), ""]]
    for arm in found:
        change = study.gain(arm, base)
        rows.append([REMEDY_NAMES[arm.variant], told(results[arm].mean_iou), told(change, signed=True)])
    parts = [
        "### What keeps a CDL from trusting its teacher too much",
        markdown_table(["CDL trained with", "mean IoU (95 %)", "against `fast`"], rows),
    ]
    if any(arm.variant in ("committee", "unanimous") for arm in found):
        parts.append(
            "The committee is the recipe as published, one four times as strict, and one that sees no acidic dips. It "
            "was chosen on fields of this very plate, so its figures are somewhat optimistic."
        )
    paper = Arm(method="mdl", variant="paper")
    if paper in results and FULL in results:
        parts.append(
            f"The paper’s own MDL, on all corrected items: {told(results[paper].mean_iou)} "
            f"({results[paper].train_s / 60:.0f} min on one core); the preset `fast`: {told(results[FULL].mean_iou)} "
            f"({results[FULL].train_s / 60:.0f} min)."
        )
    return parts


def _teacher(study: Study, results: Mapping[Arm, ArmResult], figure: Draw) -> list[str]:
    arm = Arm(method="cdl", variant="teacher-curve")
    if arm not in results:
        return []
    runs = [document["history"] for document in study.documents(arm)]
    truth = [[epoch["validation"] for epoch in run] for run in runs]
    weak = [[epoch["weak_validation"] for epoch in run] for run in runs]
    steps = [50 * (number + 1) for number in range(len(truth[0]))]
    source = figure("teacher", teacher_figure(steps, truth, weak, results[Arm(method="cip")].mean_iou.value))
    peak = mean(max(run) for run in truth)
    last = mean(run[-1] for run in truth)
    return [
        f"![Agreement with teacher and truth during training]({source})\n\n*While a CDL is trained, its agreement "
        f"with the teacher goes on rising; its agreement with the truth peaks at {peak:.3f} and ends at {last:.3f} "
        "(means over seeds).*"
    ]


def _error_types(study: Study, arms: Sequence[Arm]) -> str:
    rows = []
    for arm in arms:
        totals = {"right": 0, "incomplete": 0, "misclassified": 0, "missed": 0, "invented": 0}
        documents = study.documents(arm)
        for document in documents:
            for counts in document["evaluation"]["errors"]["classes"]:
                for kind in totals:
                    totals[kind] += counts[kind]
        objects = sum(totals.values()) - totals["invented"]
        if objects:
            rows.append([arm.title, *(f"{100 * count / objects:.1f}" for count in totals.values())])
    if not rows:
        return ""
    return (
        "### Error types\n\nObjects per 100 objects of the truth, all classes together.\n\n"
        + markdown_table(["", "right", "incomplete", "misclassified", "missed", "invented"], rows)
    )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; numbers to the right.

    Examples
    --------
    >>> print(markdown_table(["", "IoU"], [["CIP", "0.61"]]))
    |  | IoU |
    |---|---:|
    | CIP | 0.61 |
    """
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)
