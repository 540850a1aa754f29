"""Stored predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from samples import Item, make_prediction

from cytoloop.adapters.store import Store
from cytoloop.domain.errors import InputError

VERSION = "cdl-20240517-00000000"
ITEMS = [Item(image_id=name, tile=tile) for name in "ab" for tile in range(2)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def test_a_prediction_comes_back_as_it_was(store: Store) -> None:
    region = {"type": "brushlabels", "value": {"rle": [1, 2, 3], "brushlabels": ["µ"]}}
    prediction = make_prediction(ITEMS[0], result=[region], score=3.25, confidence=0.125)
    store.predictions.put("rosella", [prediction])
    assert store.predictions.get("rosella", VERSION, ITEMS[0]) == prediction
    for assay, version, item in (
        ("other", VERSION, ITEMS[0]),
        ("rosella", "other", ITEMS[0]),
        ("rosella", VERSION, ITEMS[1]),
    ):
        assert store.predictions.get(assay, version, item) is None


def test_the_most_doubtful_come_first_and_ties_by_item(store: Store) -> None:
    confidences = [0.5, 0.25, 0.5, 0.0]
    store.predictions.put(
        "rosella",
        [make_prediction(i, confidence=c, score=1 - c) for i, c in zip(ITEMS, confidences, strict=True)],
    )
    ranked = store.predictions.ranked("rosella", VERSION)
    assert [item for item, *_ in ranked] == [ITEMS[3], ITEMS[1], ITEMS[0], ITEMS[2]]
    assert ranked[0][1:] == (1.0, 0.0, "1 of 2 objects in doubt")


def test_a_prediction_is_replaced_and_a_version_forgotten(store: Store) -> None:
    store.predictions.put("rosella", [make_prediction(i) for i in ITEMS])
    store.predictions.put("rosella", [make_prediction(ITEMS[0], reason="new")])
    store.predictions.put("rosella", [make_prediction(ITEMS[0], version="other")])
    again = store.predictions.get("rosella", VERSION, ITEMS[0])
    assert again is not None
    assert again.reason == "new"
    store.predictions.forget("rosella", VERSION)
    assert store.predictions.ranked("rosella", VERSION) == []
    assert len(store.predictions.ranked("rosella", "other")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": math.nan}, "score is nan, expected a finite number"),
        ({"score": math.inf}, "score is inf, expected a finite number"),
        ({"confidence": math.nan}, "confidence is nan, expected a finite number"),
    ],
)
def test_a_score_that_ranks_nothing_is_refused_and_nothing_is_stored(
    store: Store, change: dict[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=f"image 'b' tile 1: {message}"):
        store.predictions.put("rosella", [make_prediction(ITEMS[0]), make_prediction(ITEMS[3], **change)])
    assert store.predictions.ranked("rosella", VERSION) == []


def test_predictions_may_be_thrown_away(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.predictions.put("rosella", [make_prediction(ITEMS[0])])
    store.close()
    for file in tmp_path.glob("predictions.sqlite3*"):
        file.unlink()
    again = Store(tmp_path)
    assert again.predictions.ranked("rosella", VERSION) == []
    again.close()
