"""What a correction took is learned where it is known what it was expected to take."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from samples import make_assay, make_record

from cytoloop.adapters.store import Scored, Store
from cytoloop.domain.expected_effort import MINUTES_AS_FIXED, Timing
from cytoloop.domain.types import Correction, Item, Split
from cytoloop.domain.worklist import Candidate
from cytoloop.pipeline.minutes import minutes_model, note_time

ASSAY, VERSION, STRATEGY = "rosella", "cdl-1", "entropy"
TRAIN, CONTEST, UNKNOWN = (Item(image_id=name, tile=0) for name in ("a", "b", "c"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two items ranked by a version: 3 minutes expected each, one of a training well."""
    opened = Store(tmp_path)
    opened.images.add(make_assay(), [make_record("a"), make_record("b")])
    opened.scores.put(
        ASSAY, VERSION, STRATEGY, [scored(TRAIN, "train", 3.0), scored(CONTEST, "contest", 3.0)]
    )
    yield opened
    opened.close()


def scored(item: Item, split: Split, minutes: float | None) -> Scored:
    return Scored(
        candidate=Candidate(
            item=item,
            split=split,
            group="P/A01",
            plate="P",
            score=1.0,
            confidence=0.2,
            lot=0.5,
            minutes=minutes,
        )
    )


def correction(annotation_id: int = 1, item: Item = TRAIN, **changes: Any) -> Correction:
    fields = {
        "annotation_id": annotation_id,
        "task_id": 7,
        "image_id": item.image_id,
        "tile": item.tile,
        "mask_HW": np.zeros((4, 4), np.uint8),
        "parent_version": VERSION,
        "annotated_at": datetime(2026, 1, 1, tzinfo=UTC),
        "lead_time_s": 120.0,
        "expert": "ada@lab.org",
        "conflict_pixels": 0,
        "origins": {},
    }
    return Correction(**{**fields, **changes})


def test_before_the_first_correction_the_fixed_prices_hold(store: Store) -> None:
    assert minutes_model(store, ASSAY) == MINUTES_AS_FIXED


def test_a_correction_of_a_training_well_teaches(store: Store) -> None:
    assert note_time(store, ASSAY, correction())
    assert store.handouts.timings(ASSAY) == [
        Timing(expert="ada@lab.org", expected_minutes=3.0, lead_time_s=120.0)
    ]
    assert store.handouts.timings("other") == []
    model = minutes_model(store, ASSAY)
    assert model.corrections == 1
    assert model.minutes(3.0, "ada@lab.org") < 3.0, "2 minutes where 3 were expected"


def test_an_annotation_that_is_saved_again_counts_once_with_its_longest_time(store: Store) -> None:
    for seconds in (120.0, 300.0, 200.0):
        note_time(store, ASSAY, correction(lead_time_s=seconds))
    note_time(store, ASSAY, correction(2, lead_time_s=60.0))
    assert [timing.lead_time_s for timing in store.handouts.timings(ASSAY)] == [300.0, 60.0]


@pytest.mark.parametrize(
    "of",
    [
        correction(item=CONTEST),
        correction(item=UNKNOWN),
        correction(parent_version=None),
        correction(parent_version="cdl-0"),
        correction(lead_time_s=None),
    ],
    ids=["held out", "not ranked", "from an empty canvas", "of a version that is gone", "no time told"],
)
def test_what_teaches_nothing(store: Store, of: Correction) -> None:
    assert not note_time(store, ASSAY, of)
    assert store.handouts.timings(ASSAY) == []


def test_an_item_without_expected_minutes_teaches_nothing(store: Store) -> None:
    store.scores.put(ASSAY, VERSION, STRATEGY, [scored(TRAIN, "train", None)])
    assert not note_time(store, ASSAY, correction())


def test_ten_corrections_that_took_twice_as_long_are_believed_half(store: Store) -> None:
    for number in range(10):
        note_time(store, ASSAY, correction(number, lead_time_s=360.0))
    assert minutes_model(store, ASSAY).scale == pytest.approx(2**0.5)
