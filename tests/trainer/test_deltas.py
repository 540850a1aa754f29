"""Each correction against what the expert was shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny import Tiny, make_tiny

from cytoloop.domain.errors import UnknownVersion
from cytoloop.domain.scoring import soften
from cytoloop.domain.types import ImageRecord, Item
from cytoloop.pipeline.consensus import agreed
from cytoloop.pipeline.predictors import Predictor
from labelstudio_config.payloads import prediction_result
from trainer.deltas import corrected_items, fresh_corrections, start_of
from trainer.report import CorrectedItem, ProposalErrors

ITEM = Item(image_id="P-A03", tile=0)
OTHER = Item(image_id="P-A04", tile=0)


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
    whole[ITEM.image_id][:32, :40] = before
    tiny.correct(ITEM, parent_prediction=tiny.prediction_of(ITEM), lead_time=90.0)
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
        tiny.correct(item, parent_prediction=tiny.prediction_of(item))
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
    # what a draft leads to that was taken up again after its prediction was deleted
    tiny.studio.annotate(tiny.task_of(ITEM), drawn(tiny, ITEM, origin), parent_prediction=None)
    items, _ = compare(tiny)
    assert (items[ITEM].start, items[ITEM].changes) == ("unknown", None)
    assert start_of(tiny.standing(ITEM)) == "unknown"


def test_a_version_that_is_gone_is_named_and_nothing_is_made_up(
    tiny: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    tiny.correct(ITEM, parent_prediction=tiny.prediction_of(ITEM))
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
    assert [c.item for c in fresh_corrections(tiny.store, tiny.assay, first, standing)] == [ITEM]
    tiny.store.cycles.start(first)
    tiny.store.cycles.finish(first, "done", "kept", "")
    second = tiny.store.cycles.ask(tiny.name, "test")
    assert fresh_corrections(tiny.store, tiny.assay, second, standing) == []


def test_each_item_says_what_it_was_handed_out_for(tiny: Tiny) -> None:
    given = tiny.store.leases.roles(tiny.name)
    ranked, audit = (next(i for i, one in given.items() if one.role == role) for role in ("ranked", "audit"))
    never = next(item for item in tiny.items() if item not in given)
    for item in (ranked, audit):
        tiny.correct(item, parent_prediction=tiny.prediction_of(item))
    tiny.correct(never)
    items, _ = compare(tiny, Shown(tiny.truth))
    assert [items[item].role for item in (ranked, audit, never)] == ["ranked", "audit", None]


def submit_as_bob(tiny: Tiny, item: Item) -> None:
    """Bob calls the nucleus cytoplasm."""
    mask_HW = tiny.truth_of(item)
    tiny.studio.annotate(
        tiny.task_of(item),
        prediction_result(np.minimum(mask_HW, 1), tiny.assay),
        completed_by=2,
        parent_prediction=tiny.prediction_of(item),
        lead_time=60.0,
    )
    tiny.intake.reconcile(tiny.assay)


def test_of_two_readers_each_is_compared_by_their_own_mask(tiny: Tiny) -> None:
    tiny.correct(ITEM, parent_prediction=tiny.prediction_of(ITEM), lead_time=30.0)
    submit_as_bob(tiny, ITEM)
    standing = agreed(tiny.store, tiny.assay)
    assert len(standing[ITEM].readers) == 2
    cycle = tiny.store.cycles.ask(tiny.name, "test")
    fresh = fresh_corrections(tiny.store, tiny.assay, cycle, standing)
    (ada, bob), _ = corrected_items(tiny.store, tiny.assay, fresh, lambda version: Shown(tiny.truth))
    assert [(one.expert, one.minutes) for one in (ada, bob)] == [("ada@lab.org", 0.5), ("bob@lab.org", 1.0)]
    assert ada.changes is not None
    assert bob.changes is not None
    assert (ada.changes.pixels_relabelled, ada.changes.pixels_set_aside) == (0, 0)
    assert bob.changes.pixels_relabelled == int((tiny.truth_of(ITEM) == 2).sum())


def test_a_second_reading_does_not_make_the_first_fresh_again(tiny: Tiny) -> None:
    tiny.correct(ITEM)
    tiny.intake.reconcile(tiny.assay)
    first = tiny.store.cycles.ask(tiny.name, "test")
    tiny.store.cycles.start(first)
    tiny.store.cycles.finish(first, "done", "kept", "")
    tiny.studio._now = datetime.now(UTC)
    submit_as_bob(tiny, ITEM)
    standing = agreed(tiny.store, tiny.assay)
    second = tiny.store.cycles.ask(tiny.name, "test")
    assert [c.expert for c in fresh_corrections(tiny.store, tiny.assay, second, standing)] == ["bob@lab.org"]


def test_a_reading_that_came_after_the_cycle_looked_is_of_the_next(tiny: Tiny) -> None:
    tiny.correct(ITEM)
    submit_as_bob(tiny, ITEM)
    standing = agreed(tiny.store, tiny.assay)
    tiny.studio._now = datetime.now(UTC)
    tiny.correct(ITEM, lead_time=1.0)  # Ada thinks again
    tiny.intake.reconcile(tiny.assay)
    cycle = tiny.store.cycles.ask(tiny.name, "test")
    assert [c.expert for c in fresh_corrections(tiny.store, tiny.assay, cycle, standing)] == ["bob@lab.org"]
