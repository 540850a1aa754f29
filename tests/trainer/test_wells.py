"""What a cycle knows of each well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import Tiny, make_tiny

from cytoloop.adapters.store import Store
from cytoloop.domain.types import Item
from cytoloop.pipeline.judging import judged_items
from trainer.wells import well_scores


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = make_tiny(tmp_path)
    made.publish_active()
    made.listen()
    return made


def test_each_well_tells_its_items_corrections_and_how_the_model_does(tiny: Tiny) -> None:
    for image_id, tile in (("P-A01", 0), ("P-A01", 1), ("P-A03", 2)):
        tiny.correct(Item(image_id=image_id, tile=tile), lead_time=90)
    tiny.intake.drain()
    standing = tiny.store.corrections.standing(tiny.name).values()
    painted = tiny.add_version("cdl-20240517-00000001")  # says the truth
    held_out = [c for c in standing if c.split != "train"]
    wells = well_scores(
        tiny.store, tiny.assay, standing, judged_items(tiny.store, tiny.assay, painted, held_out)
    )
    assert [(one.plate, one.well, one.split, one.items, one.corrected, one.minutes) for one in wells] == [
        ("P", "A01", "contest", 4, 2, 3.0),
        ("P", "A02", "validation", 4, 0, 0.0),
        ("P", "A03", "train", 4, 1, 1.5),
        ("P", "A04", "train", 4, 0, 0.0),
    ]
    assert [one.mean_iou for one in wells] == [1.0, None, None, None]


def test_pixels_of_all_items_of_a_well_count_together(tiny: Tiny) -> None:
    for tile in (0, 1):
        tiny.correct(Item(image_id="P-A01", tile=tile))
    tiny.intake.drain()
    standing = list(tiny.store.corrections.standing(tiny.name).values())
    truth_HW = tiny.truth["P-A01"][:32].copy()
    painted = tiny.add_version("cdl-20240517-00000001")
    painted._masks["P-A01"] = np.where(tiny.truth["P-A01"] == 2, 1, tiny.truth["P-A01"]).astype(np.uint8)
    (first, *_) = well_scores(
        tiny.store, tiny.assay, standing, judged_items(tiny.store, tiny.assay, painted, standing)
    )
    cytoplasm, nucleus = np.count_nonzero(truth_HW == 1), np.count_nonzero(truth_HW == 2)
    assert first.mean_iou == pytest.approx((1.0 + cytoplasm / (cytoplasm + nucleus) + 0.0) / 3)


def test_a_plate_without_wells_has_none(tmp_path: Path) -> None:
    made = make_tiny(tmp_path)
    with made.store.transaction():
        made.store.images._file.db.execute("UPDATE images SET well = ''")
    assert isinstance(made.store, Store)
    assert well_scores(made.store, made.assay, [], []) == ()
