"""How many contest items a batch draws while the contest lacks wells, and of which wells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Tiny, make_tiny

from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy
from cytoloop.domain.types import Item
from cytoloop.pipeline.contest_wells import contest_wells, needed_wells
from labelstudio_config.contest_draw import contest_draw

QUEUE = QueuePolicy.all_ranked(strategy="entropy", size=8, contest_share=0.125)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    """20 wells, five of the contest; three of them are asked for, each with every class."""
    made = make_tiny(tmp_path, wells=20)
    made.assay = replace(
        made.assay, trainer=TrainerPolicy(contest=ContestPolicy(min_groups=3, min_class_groups=3))
    )
    made.publish_active(replace(QUEUE, contest_share=0.0))
    yield made
    made.store.close()


def wells(tiny: Tiny) -> list[str]:
    return [record.image_id for record in tiny.store.images.all(tiny.name, ["contest"])]


def correct(tiny: Tiny, image_id: str, tile: int = 0) -> None:
    tiny.correct(Item(image_id=image_id, tile=tile))
    tiny.intake.reconcile(tiny.assay)


def test_the_share_grows_to_what_is_lacking_and_no_further(tiny: Tiny) -> None:
    first, second, third, *_ = wells(tiny)
    shares = [contest_draw(tiny.store, tiny.assay, QUEUE, 8).policy.contest_share]
    for image_id in (first, second, third):
        correct(tiny, image_id)
        shares.append(contest_draw(tiny.store, tiny.assay, QUEUE, 8).policy.contest_share)
    assert shares == [3 / 8, 2 / 8, 1 / 8, 1 / 8]


def test_half_a_batch_is_the_most(tiny: Tiny) -> None:
    assert contest_draw(tiny.store, tiny.assay, QUEUE, 4).policy.contest_share == 0.5


def test_no_share_stays_none(tiny: Tiny) -> None:
    none = replace(QUEUE, contest_share=0.0)
    assert contest_draw(tiny.store, tiny.assay, none, 8).policy == none


def test_a_larger_share_is_not_lowered(tiny: Tiny) -> None:
    large = replace(QUEUE, contest_share=0.75)
    assert contest_draw(tiny.store, tiny.assay, large, 8).policy == large


def test_a_batch_holds_items_of_wells_that_lack_first(tiny: Tiny) -> None:
    done, *others = wells(tiny)
    correct(tiny, done)
    for item in tiny.held():
        tiny.correct(item)
    tiny.intake.reconcile(tiny.assay)
    tiny.publish_active(QUEUE)
    drawn = [item for item in tiny.held() if tiny.split_of(item) == "contest"]
    assert len(drawn) == 2, "one of two wells that are lacking each"
    assert {item.image_id for item in drawn} <= set(others)
    # what is held already is not asked for again
    assert contest_draw(tiny.store, tiny.assay, QUEUE, 8).policy.contest_share == 1 / 8


def test_the_wells_that_are_needed_are_named(tiny: Tiny) -> None:
    groups = {image_id: tiny.store.images.get(tiny.name, image_id).group for image_id in wells(tiny)}
    first, *others = wells(tiny)
    correct(tiny, first)
    needs = needed_wells(tiny.store, tiny.assay)
    assert needs.lacking.groups == 2
    assert set(needs.uncorrected) == {groups[name] for name in others}
    assert set(needs.probable["Nucleus"]) <= set(groups.values()) - {groups[first]}
    assert all(group in needs.words() for group in needs.uncorrected)
    (read,) = (well for well in contest_wells(tiny.store, tiny.assay) if well.read)
    assert (read.group, read.classes) == (groups[first], frozenset(tiny.assay.class_names))
    waiting = {Item(image_id=first, tile=0): "read by 1 of 2 experts"}
    assert needed_wells(tiny.store, tiny.assay, waiting=waiting).waiting == {
        groups[first]: "read by 1 of 2 experts"
    }
