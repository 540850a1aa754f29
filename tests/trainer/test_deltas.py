"""Each correction against what the expert was shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import Tiny, make_tiny

from cytoloop.domain.errors import UnknownVersion
from cytoloop.domain.scoring import soften
from cytoloop.domain.types import ImageRecord, Item
from cytoloop.pipeline.predictors import Predictor
from trainer.deltas import corrected_items, fresh_corrections, start_of
from trainer.report import CorrectedItem, ProposalErrors

ITEM = Item(image_id="P-A01", tile=0)
OTHER = Item(image_id="P-A02", tile=0)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.publish_active()
    yield made
    made.store.close()


class Shown:
    """A version that saw each field as a test says."""

    version = "cip-20250101-00000000"

    def __init__(self, masks: dict[str, NDArray[np.uint8]]) -> None:
        self.masks = masks

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        return soften(self.masks[record.image_id], 3)


def prediction_of(tiny: Tiny, item: Item) -> int:
    task = tiny.task_of(item)
    return next(number for number, one in tiny.studio.predictions.items() if one["task"] == task)


def drawn(tiny: Tiny, item: Item, origin: str) -> list[dict[str, Any]]:
    return [{**region, "origin": origin} for region in tiny.regions(item)]


def compare(
    tiny: Tiny, predictor: Predictor | None = None
) -> tuple[dict[Item, CorrectedItem], tuple[ProposalErrors, ...]]:
    tiny.intake.reconcile(tiny.assay)
    standing = tiny.store.corrections.standing(tiny.name)

    def predictor_of(version: str) -> Predictor:
        if predictor is None:
            raise UnknownVersion(f"model {version!r}: no folder")
        return predictor

    items, proposals = corrected_items(tiny.store, tiny.assay, standing.values(), predictor_of)
    return {Item(image_id=one.image_id, tile=one.tile): one for one in items}, proposals


def test_a_correction_is_compared_with_the_prediction_it_started_from(tiny: Tiny) -> None:
    truth = tiny.truth_of(ITEM)
    before = truth.copy()
    before[truth == 2] = 1  # the nucleus was taken for cytoplasm
    before[0, 0] = 1  # and a pixel was invented
    whole = {image_id: mask.copy() for image_id, mask in tiny.truth.items()}
    whole["P-A01"][:32, :40] = before
    tiny.correct(ITEM, parent_prediction=prediction_of(tiny, ITEM), lead_time=90.0)
    items, (proposal,) = compare(tiny, Shown(whole))
    found = items[ITEM]
    assert (found.start, found.version) == ("prediction", tiny.store.models.active(tiny.name).version)
    assert found.minutes == 1.5
    assert found.changes is not None
    assert (found.changes.pixels_added, found.changes.pixels_removed) == (0, 1)
    nucleus = int((truth == 2).sum())
    assert found.changes.pixels_relabelled == found.changes.class_to_class[1][2] == nucleus
    assert (found.changes.objects_added, found.changes.objects_removed) == (1, 1)
    assert (proposal.version, proposal.items) == (found.version, 1)
    cytoplasm, nuclei = proposal.classes
    assert (nuclei.name, nuclei.truth, nuclei.misclassified) == ("Nucleus", 1, 1)
    assert (cytoplasm.truth, cytoplasm.invented) == (1, 1)


def test_proposals_of_one_version_are_summed(tiny: Tiny) -> None:
    for item in (ITEM, OTHER):
        tiny.correct(item, parent_prediction=prediction_of(tiny, item))
    _, (proposal,) = compare(tiny, Shown(tiny.truth))
    assert proposal.items == 2
    assert [(one.truth, one.right) for one in proposal.classes] == [(2, 2), (2, 2)]


def test_what_was_drawn_by_hand_alone_began_with_an_empty_canvas(tiny: Tiny) -> None:
    tiny.studio.annotate(tiny.task_of(ITEM), drawn(tiny, ITEM, "manual"))
    items, proposals = compare(tiny)
    found = items[ITEM]
    assert (found.start, found.version, proposals) == ("blank", None, ())
    assert found.changes is not None
    assert found.changes.pixels_added == int((tiny.truth_of(ITEM) > 0).sum())
    assert (found.changes.objects_added, found.changes.objects_reshaped) == (2, 0)


@pytest.mark.parametrize("origin", ["prediction", "prediction-changed"])
def test_regions_of_a_forgotten_prediction_are_not_compared(tiny: Tiny, origin: str) -> None:
    tiny.studio.annotate(tiny.task_of(ITEM), drawn(tiny, ITEM, origin), parent_prediction=999)
    items, _ = compare(tiny)
    assert (items[ITEM].start, items[ITEM].changes) == ("unknown", None)
    assert start_of(tiny.standing(ITEM)) == "unknown"


def test_a_version_that_is_gone_is_named_and_nothing_is_made_up(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.correct(ITEM, parent_prediction=prediction_of(tiny, ITEM))
    items, proposals = compare(tiny, None)
    found = items[ITEM]
    assert (found.start, found.changes, proposals) == ("prediction", None, ())
    assert found.version is not None
    assert "corrections not compared" in caplog.text


def test_fresh_is_what_came_since_the_last_finished_cycle_began(tiny: Tiny) -> None:
    tiny.correct(ITEM)
    tiny.intake.reconcile(tiny.assay)
    standing = tiny.store.corrections.standing(tiny.name)
    first = tiny.store.cycles.ask(tiny.name, "test")
    assert [c.item for c in fresh_corrections(tiny.store, tiny.name, first, standing)] == [ITEM]
    tiny.store.cycles.start(first)
    tiny.store.cycles.finish(first, "done", "kept", "")
    second = tiny.store.cycles.ask(tiny.name, "test")
    assert fresh_corrections(tiny.store, tiny.name, second, standing) == []
