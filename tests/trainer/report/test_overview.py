"""The first screen: why, how good, what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest

from cytoloop.domain.types import Split
from trainer.report import (
    Contest,
    ContestClass,
    CurvePoint,
    CycleReport,
    Handover,
    KnownVersion,
    Outcome,
    VersionScores,
)
from trainer.report.overview import BRIEF, HEADLINES, advice_of, headline, standing_in_words, why_in_words

CIP, JOINT = "cip-20250101-aaaaaaaa", "joint-20250102-bbbbbbbb"
NOW = datetime(2025, 1, 2, tzinfo=UTC)
PLAIN = CycleReport(
    cycle="c",
    assay="nuclei",
    started_at=NOW,
    finished_at=NOW,
    outcome="kept",
    reason="r",
    active_before=CIP,
    active_after=CIP,
)


def test_every_outcome_has_its_words() -> None:
    assert set(HEADLINES) == set(BRIEF) == set(get_args(Outcome))
    for outcome in get_args(Outcome):
        report = replace(PLAIN, outcome=outcome)
        assert headline(report) == HEADLINES[outcome]
        assert advice_of(report)


@pytest.mark.parametrize(
    ("asked_by", "why", "told"),
    [
        ("", "", ""),
        ("schedule", "24 corrections since the last cycle", "Why now: 24 corrections since the last cycle."),
        ("schedule", "", "Why now: it was due."),
        ("restart", "cycle c1 was cut off at step 'train'", "Why now: cycle c1 was cut off at step 'train'."),
        ("cli", "", "Why now: it was asked for on the command line."),
        ("label-studio", "", "Why now: Start Training was pressed in Label Studio."),
        ("ada", "", "Why now: ada asked for it."),
        ("ada", "a new plate", "Why now: ada asked for it (a new plate)."),
        ("ada", "ada decided for it", "Why now: ada decided for it."),
    ],
)
def test_why_a_cycle_ran_is_said(asked_by: str, why: str, told: str) -> None:
    assert why_in_words(replace(PLAIN, asked_by=asked_by, why=why)) == told


def scores(version: str, split: Split, mean_iou: float | None) -> VersionScores:
    return VersionScores(
        version=version,
        method="cip" if version == CIP else "joint",
        split=split,
        items=1 if split == "sealed" else 4,
        mean_iou=mean_iou,
        mean_accuracy=None,
        mean_bf=None,
    )


def test_the_model_in_use_is_told_on_sealed_items_first_beside_the_cip() -> None:
    measured = (scores(JOINT, "contest", 0.9), scores(JOINT, "sealed", 0.8), scores(CIP, "sealed", 0.6))
    report = replace(PLAIN, active_after=JOINT, scores=measured)
    assert standing_in_words(report) == (
        "On 1 sealed item, which decide nothing, the model in use reaches a mean IoU of 0.80; conventional image "
        "processing 0.60."
    )
    report = replace(report, scores=measured[:1])
    assert standing_in_words(report) == (
        "On 4 contest items, which also decide the contest, the model in use reaches a mean IoU of 0.90."
    )


def test_the_cip_in_use_is_not_compared_with_itself() -> None:
    report = replace(PLAIN, scores=(scores(CIP, "sealed", 0.6),))
    assert standing_in_words(report).endswith(
        "conventional image processing, the model in use, reaches a mean IoU of 0.60."
    )


def test_what_was_not_measured_is_not_claimed() -> None:
    assert standing_in_words(PLAIN).startswith("How good the model in use is cannot be said")
    point = CurvePoint(cycle="b", version=CIP, corrections=0, expert_minutes=0)
    assert standing_in_words(replace(PLAIN, curve=(point,))).startswith("How good the model in use is cannot")
    measured = replace(point, sealed_mean_iou=0.6)
    assert standing_in_words(replace(PLAIN, curve=(measured,))) == (
        "The model in use reached a mean IoU of 0.60 on sealed items when it was last measured."
    )
    of_another = replace(measured, version=JOINT)
    assert "cannot be said" in standing_in_words(replace(PLAIN, curve=(of_another,)))
    doubtful = replace(PLAIN, scores=(scores(CIP, "sealed", None),))
    assert "every pixel was left out" in standing_in_words(doubtful)


def test_a_class_that_fell_too_far_is_what_to_correct() -> None:
    classes = tuple(
        ContestClass(name=name, iou_challenger=0.5, iou_active=0.6, difference=-0.1, is_drop_too_large=fallen)
        for name, fallen in (("spot", True), ("ring", False))
    )
    contest = Contest(
        challenger=JOINT,
        active=CIP,
        promote=False,
        reason="",
        mean_iou_challenger=0.7,
        mean_iou_active=0.6,
        difference=0.1,
        lower_bound=0.05,
        confidence=0.95,
        groups=12,
        items=12,
        classes=classes,
    )
    (advice,) = advice_of(replace(PLAIN, contest=contest))
    assert advice.words.startswith("Correct items with spot: there the challenger is worse")


def test_a_model_brought_in_by_hand_is_not_called_better() -> None:
    known = KnownVersion(version=CIP, method="cip", made_at=NOW)
    report = replace(PLAIN, outcome="promoted", handover=Handover(by="ada", before=known, after=known))
    assert headline(report) == "Another model is in use, brought in by hand"
    assert [one.command for one in advice_of(report)] == ["", f"cytoloop models promote {CIP}"]


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_a_failure_after_the_promotion_says_so_and_how_to_go_back(outcome: Outcome) -> None:
    report = replace(PLAIN, outcome=outcome, active_after=JOINT)
    assert "after it had brought a new model into use" in headline(report)
    if outcome == "failed":
        assert advice_of(report)[-1].command == "cytoloop models rollback --assay nuclei"
