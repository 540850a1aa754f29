from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny, make_tiny

from cytoloop.domain.scoring import soften
from labelstudio_config.payloads import prediction_result
from labelstudio_config.prelabel import prelabel
from labelstudio_config.rle import decode_rle

VERSION = "cdl-20260101-0123abcd"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    yield made
    made.store.close()


def test_every_tile_gets_its_own_part_of_the_mask(tiny: Tiny) -> None:
    record = tiny.store.images.all(tiny.name)[0]
    made = prelabel(record, soften(tiny.truth[record.image_id], 3), tiny.assay, VERSION)
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
    certain, doubtful, empty, also_empty = prelabel(record, prob_KHW, tiny.assay, VERSION)
    assert doubtful.confidence < certain.confidence < empty.confidence
    assert doubtful.score > certain.score > empty.score == also_empty.score == 0
    assert empty.result == []
    assert 0 < doubtful.confidence < 1
    assert empty.confidence != also_empty.confidence, "no two items share a place in the order"
    assert all(p.reason for p in (certain, doubtful, empty))
