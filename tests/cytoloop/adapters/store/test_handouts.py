"""Tabs as they were last set, and what corrections took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cytoloop.adapters.store import Store, Tab
from cytoloop.domain.expected_effort import Timing
from cytoloop.domain.types import Item

ITEMS = tuple(Item(image_id=image_id, tile=tile) for image_id in ("b", "a") for tile in (1, 0))
ADA, BOB = "ada@lab.org", "bob@lab.org"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def test_a_tab_keeps_its_order_and_is_replaced_whole(store: Store) -> None:
    assert store.handouts.tab("rosella", "default", ADA) is None
    store.handouts.set_tab("rosella", "default", ADA, 3, ITEMS[:2])
    store.handouts.set_tab("rosella", "default", ADA, 4, ITEMS[::-1])
    assert store.handouts.tab("rosella", "default", ADA) == Tab(view_id=4, items=ITEMS[::-1])


def test_a_tab_is_one_an_expert_of_a_queue_of_an_assay(store: Store) -> None:
    store.handouts.set_tab("rosella", "default", ADA, 3, ITEMS)
    for other in (("nuclei", "default", ADA), ("rosella", "night", ADA), ("rosella", "default", BOB)):
        assert store.handouts.tab(*other) is None


def test_of_an_annotation_the_longest_time_counts(store: Store) -> None:
    for annotation_id, seconds in ((2, 60.0), (1, 120.0), (2, 40.0), (2, 90.0)):
        timing = Timing(expert=ADA, expected_minutes=1.5, lead_time_s=seconds)
        store.handouts.add_timing("rosella", annotation_id, timing)
    assert store.handouts.timings("rosella") == [
        Timing(expert=ADA, expected_minutes=1.5, lead_time_s=seconds) for seconds in (120.0, 90.0)
    ]
    assert store.handouts.timings("nuclei") == []
