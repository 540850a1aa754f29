"""The methods side by side and the contest, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.report import Contest, ContestClass, CycleReport, PastContest
from trainer.report.figures import difference_dots, method_dots
from trainer.report.methods import MethodRow, choice_in_words, method_rows
from trainer.report.names import label_of, role_of
from trainer.report.views import Picture, picture_of


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodsView:
    """The table and the figure of the methods, and how the challenger was chosen."""

    words: str
    rows: tuple[tuple[MethodRow, str, str], ...]
    """Each with its role in the cycle, and when it was trained, in words."""
    picture: Picture | None


def methods_view(report: CycleReport) -> MethodsView | None:
    """None where no methods were compared, and in reports older than that."""
    if not report.candidates:
        return None
    rows = method_rows(report)
    labels = [label_of(report, one.version).replace(", ", "\n", 1) for one in report.candidates]
    return MethodsView(
        words=choice_in_words(report),
        rows=tuple((row, role_of(report, row.candidate.version), _made(row)) for row in rows),
        picture=picture_of(
            method_dots(rows, labels),
            "Mean IoU of each method on validation, contest and sealed items; table beside it",
        ),
    )


def _made(row: MethodRow) -> str:
    if row.candidate.is_new:
        return "trained in this cycle"
    if row.candidate.method == "cip":
        return "not trained"
    made = row.candidate.made_at
    return "trained earlier" if made is None else f"trained on {made.day} {made:%B %Y}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContestView:
    """The contest of this cycle."""

    contest: Contest
    rows: tuple[ContestClass, ...]
    has_groups: bool
    """Whether it is known how many wells hold each class."""
    lacking: tuple[str, ...]
    """What is missing before it can be judged, one sentence each."""
    picture: Picture | None


def contest_view(report: CycleReport) -> ContestView | None:
    """None where none was held."""
    contest = report.contest
    if contest is None:
        return None
    return ContestView(
        contest=contest,
        rows=contest.classes,
        has_groups=any(one.groups is not None for one in contest.classes),
        lacking=_lacking(contest),
        picture=picture_of(
            difference_dots(contest) if contest.items else None,
            "Difference in IoU between challenger and model in use, in all and by class; table beside it",
        ),
    )


def _lacking(contest: Contest) -> tuple[str, ...]:
    told = []
    if contest.lacking_groups:
        told.append(f"{_wells(contest.lacking_groups)} with corrected contest items")
    told += [
        f"{_wells(more)} that hold{'s' if more == 1 else ''} {name}"
        for name, more in contest.lacking_classes.items()
        if more > contest.lacking_groups  # else the wells that are missing anyway may do
    ]
    return tuple(told)


def _wells(number: int) -> str:
    return f"{number} more well{'s' if number != 1 else ''}"


def earlier_contests(report: CycleReport) -> tuple[PastContest, ...]:
    """All contests of the assay, newest first."""
    return tuple(reversed(report.contests))
