from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny, make_tiny

from cytoloop.domain.expected_effort import MinutesModel
from cytoloop.domain.scoring import Look, soften
from cytoloop.domain.strategies import strategy_named
from cytoloop.domain.worklist import lot_of
from labelstudio_config.payloads import prediction_result
from labelstudio_config.prelabel import prelabel
from labelstudio_config.rle import decode_rle

VERSION = "cdl-20260101-0123abcd"
ENTROPY = strategy_named("entropy")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    yield made
    made.store.close()


def test_every_tile_gets_its_own_part_of_the_mask(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    look = Look(prob_KHW=soften(tiny.truth[record.image_id], 3))
    made, _ = prelabel(record, look, tiny.assay, VERSION, ENTROPY)
    assert [p.item.tile for p in made] == [0, 1, 2, 3]
    for stored in made:
        assert stored.version == VERSION
        assert stored.result == prediction_result(tiny.truth_of(stored.item), tiny.assay)
        mask_HW = np.zeros((32, 40), np.uint8)
        for region in stored.result:
            value = tiny.assay.value_of(region["value"]["brushlabels"][0])
            mask_HW[decode_rle(region["value"]["rle"], 32, 40) >= 128] = value
        np.testing.assert_array_equal(mask_HW, tiny.truth_of(stored.item))


def test_doubt_sinks_confidence(tiny: Tiny) -> None:
    """Tile 0 is certain, tile 1 does not know, tile 2 and 3 are empty."""
    record = tiny.store.images.all(tiny.name)[0]
    prob_KHW = np.zeros((3, 64, 80), np.float32)
    prob_KHW[0] = 1.0
    prob_KHW[:, :20, :20] = np.array([0.01, 0.98, 0.01], np.float32)[:, None, None]
    prob_KHW[:, :20, 50:70] = np.array([0.2, 0.4, 0.4], np.float32)[:, None, None]
    made, ranked = prelabel(record, Look(prob_KHW=prob_KHW), tiny.assay, VERSION, ENTROPY)
    certain, doubtful, empty, also_empty = made
    assert doubtful.confidence < certain.confidence < empty.confidence
    assert doubtful.score > certain.score > empty.score == also_empty.score == 0
    assert empty.result == []
    assert 0 < doubtful.confidence < 1
    assert empty.confidence != also_empty.confidence, "no two items share a place in the order"
    assert all(p.reason for p in (certain, doubtful, empty))
    for stored, one in zip(made, ranked, strict=True):
        candidate = one.candidate
        assert (one.item, candidate.score, candidate.confidence) == (
            stored.item,
            stored.score,
            stored.confidence,
        )
        assert (candidate.split, candidate.group, candidate.plate) == (
            record.split,
            record.group,
            record.plate,
        )
        assert candidate.lot == lot_of("tiny", one.item)


def test_the_strategy_decides_and_all_scores_are_kept(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    look = Look(prob_KHW=soften(tiny.truth[record.image_id], 3), cip_HW=np.zeros((64, 80), np.uint8))
    for name in ("margin", "disagreement", "random"):
        made, ranked = prelabel(record, look, tiny.assay, VERSION, strategy_named(name))
        for stored, one in zip(made, ranked, strict=True):
            assert set(one.values) == {"entropy", "margin", "effort", "disagreement"}
            assert stored.score == (one.candidate.lot if name == "random" else one.values[name])


def test_the_words_tell_the_minutes_that_experts_take_and_the_place_those_at_fixed_prices(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    look = Look(prob_KHW=soften(tiny.truth[record.image_id], 3))
    _, fixed = prelabel(record, look, tiny.assay, VERSION, ENTROPY)
    _, slow = prelabel(record, look, tiny.assay, VERSION, ENTROPY, MinutesModel(scale=10.0))
    for one, other in zip(fixed, slow, strict=True):
        assert one.candidate.minutes == pytest.approx(other.candidate.minutes)
        assert one.reason != other.reason
