"""The methods side by side: which numbers are compared, and how the choice is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cytoloop.domain.types import Split
from trainer.report import Candidate, ClassScore, Contest, CycleReport, VersionScores
from trainer.report.methods import choice_in_words, mean_iou_of_present, method_rows, worst_class

CIP, JOINT = "cip-20250101-aaaaaaaa", "joint-20250102-bbbbbbbb"


def scores(version: str, split: Split, confusion: tuple[tuple[int, ...], ...]) -> VersionScores:
    """Classes a, b and c; ``c`` is in nobody's truth where its row is empty."""
    return VersionScores(
        version=version,
        method="cip" if version == CIP else "joint",
        split=split,
        items=1,
        mean_iou=0.123,
        mean_accuracy=None,
        mean_bf=None,
        classes=tuple(
            ClassScore(name=name, iou=iou, accuracy=None, bf=None)
            for name, iou in (("a", 0.9), ("b", 0.5), ("c", 0.0))
        ),
        confusion=confusion,
    )


ABSENT = ((90, 0, 0), (5, 5, 0), (0, 0, 0))
"""IoU of a 90/95, of b 5/10; c is not there."""


def report(*candidates: Candidate, **fields: object) -> CycleReport:
    now = datetime(2025, 1, 2, tzinfo=UTC)
    plain = CycleReport(
        cycle="c",
        assay="nuclei",
        started_at=now,
        finished_at=now,
        outcome="kept",
        reason="r",
        active_before=CIP,
        active_after=CIP,
        candidates=candidates,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


cip = Candidate(version=CIP, method="cip", validation_mean_iou=0.6, is_active=True)
joint = Candidate(version=JOINT, method="joint", validation_mean_iou=0.7, is_challenger=True)


def test_a_class_that_is_not_there_counts_neither_in_the_mean_nor_as_the_weakest() -> None:
    one = scores(CIP, "sealed", ABSENT)
    assert mean_iou_of_present(one) == pytest.approx((90 / 95 + 0.5) / 2)
    assert worst_class(one) == ("b", 0.5)


def test_of_an_old_report_the_mean_is_taken_as_it_is() -> None:
    old = scores(CIP, "sealed", ())
    assert mean_iou_of_present(old) == 0.123
    assert worst_class(old) == ("c", 0.0)
    assert worst_class(replace(old, classes=())) == ("", None)
    assert mean_iou_of_present(None) is None


def test_rows_take_contest_numbers_from_the_contest_and_others_from_what_was_measured() -> None:
    contest = Contest(
        challenger=JOINT,
        active=CIP,
        promote=False,
        reason="",
        mean_iou_challenger=0.81,
        mean_iou_active=0.64,
        difference=0.17,
        lower_bound=None,
        confidence=0.95,
        groups=1,
        items=1,
    )
    other = Candidate(version="mdl-1", method="mdl", validation_mean_iou=None)
    measured = (
        *(scores(CIP, split, ABSENT) for split in ("contest", "sealed")),
        scores("mdl-1", "contest", ABSENT),
        scores("mdl-1", "validation", ABSENT),
    )
    rows = method_rows(report(cip, joint, other, contest=contest, scores=measured))
    assert [(row.validation, row.contest) for row in rows] == [
        (0.6, 0.64),
        (0.7, 0.81),
        (None, pytest.approx((90 / 95 + 0.5) / 2)),
    ]
    assert [row.sealed is None for row in rows] == [False, True, True]
    assert [(row.worst_class, row.worst_split) for row in rows] == [
        ("b", "contest"),
        ("", None),
        ("b", "contest"),
    ]


@pytest.mark.parametrize(
    ("told", "of"),
    [
        ("", report()),
        ("Joint is the best candidate on the validation items (mean IoU 0.700)", report(cip, joint)),
        (
            "does as well or better there (0.700), but on too few wells",
            report(replace(cip, validation_mean_iou=0.7), joint),
        ),
        (
            "No validation item is corrected yet, so Joint met",
            report(cip, replace(joint, validation_mean_iou=None)),
        ),
        (
            "No candidate does better on the validation items than the model in use",
            report(cip, replace(joint, is_challenger=False)),
        ),
        ("No new model waited for a contest", report(cip, outcome="not-trained")),
    ],
)
def test_how_the_challenger_was_chosen_is_one_sentence(told: str, of: CycleReport) -> None:
    words = choice_in_words(of)
    assert told in words
    assert bool(words) == bool(told)
    assert ("too few wells" in words) == ("too few wells" in told)
