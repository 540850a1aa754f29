"""The last studies of an assay, and people's minutes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import NOON, Item

from cytoloop.adapters.store import StoredCorrection
from cytoloop.domain.survey.rating import rating_report
from trainer.studies import human_times, latest_boxes, latest_rating

CORRECTION = StoredCorrection(
    item=Item(image_id="a", tile=0),
    revision=1,
    annotation_id=1,
    task_id=1,
    annotated_at=NOON,
    expert="ada",
    mask="",
    parent_version="cip-20250101-00000000",
    lead_time_s=300.0,
    conflict_pixels=0,
    split="train",
    group="A01",
    origins={"prediction": 2},
)


def write_rating(home: Path, name: str, assay: str, age_s: int, **changes: Any) -> None:
    report = rating_report(name, assay, ("cip-1", "cdl-1"), [], [], np.random.default_rng(0))
    path = home / "ratings" / name / "rating.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**report.to_dict(), **changes}))
    moment = NOON.timestamp() - age_s
    os.utime(path, (moment, moment))


def test_the_rating_collected_last_is_taken_and_of_this_assay_only(tmp_path: Path) -> None:
    write_rating(tmp_path, "old", "rosella", 100)
    write_rating(tmp_path, "new", "rosella", 50)
    write_rating(tmp_path, "other", "nuclei", 0)
    found = latest_rating(tmp_path, "rosella")
    assert found is not None
    assert found.name == "new"
    assert latest_rating(tmp_path, "cells2ch") is None
    assert latest_boxes(tmp_path, "rosella") is None


def test_a_damaged_study_costs_no_report(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_rating(tmp_path, "good", "rosella", 100)
    write_rating(tmp_path, "bad", "rosella", 0, complete="perhaps")
    found = latest_rating(tmp_path, "rosella")
    assert found is not None
    assert found.name == "good"
    assert "rating: complete" in caplog.text
    (tmp_path / "ratings" / "good" / "rating.json").write_text("{")
    assert latest_rating(tmp_path, "rosella") is None


def test_minutes_are_medians_of_each_task(tmp_path: Path) -> None:
    scratch = replace(CORRECTION, parent_version=None, origins={"manual": 3}, lead_time_s=1800.0)
    unknown = replace(CORRECTION, parent_version=None, origins={"prediction": 1}, lead_time_s=9999.0)
    corrections = [
        CORRECTION,
        replace(CORRECTION, lead_time_s=420.0),
        replace(CORRECTION, lead_time_s=3600.0),
        replace(CORRECTION, lead_time_s=None),
        scratch,
        unknown,
    ]
    write_rating(tmp_path, "r", "rosella", 0, minutes_median=0.75)
    told = {
        one.task: (one.minutes, one.n)
        for one in human_times(corrections, latest_rating(tmp_path, "rosella"), None)
    }
    assert told == {"rate": (0.75, 0), "boxes": (None, 0), "correct": (7.0, 3), "scratch": (30.0, 1)}
