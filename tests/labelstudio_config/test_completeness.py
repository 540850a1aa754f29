"""Whether the store holds what Label Studio holds is told annotation by annotation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import Tiny, make_tiny

from labelstudio_config.completeness import Completeness, compare


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    for item in made.items()[:4]:
        made.correct(item)
    made.studio.annotate(made.task_of(made.items()[4]), [], was_cancelled=True)
    made.intake.reconcile(made.assay)
    yield made
    made.store.close()


def found(tiny: Tiny) -> Completeness:
    return compare(tiny.store, tiny.studio, tiny.assay)


def test_what_was_reconciled_is_complete(tiny: Tiny) -> None:
    told = found(tiny)
    assert told.is_complete
    assert (told.tasks, told.annotations, told.equal) == (16, 5, 5)


def test_what_lacks_differs_or_lives_on_is_named(tiny: Tiny) -> None:
    first, second, third, skipped, *_ = list(tiny.studio.annotations)
    new = tiny.correct(tiny.items()[6])
    tiny.studio.update(second, result=tiny.regions(tiny.items()[1])[:1])
    tiny.studio.delete_annotation(third)
    tiny.studio.update(skipped, was_cancelled=True)
    told = found(tiny)
    assert not told.is_complete
    assert len(told.missing) == 1
    assert f"annotation {new} " in told.missing[0]
    assert "not in the store" in told.missing[0]
    assert len(told.different) == 2
    for number, line in zip((second, skipped), told.different, strict=True):
        assert f"annotation {number} " in line
    assert len(told.undeleted) == 1
    assert f"annotation {third}:" in told.undeleted[0]
    tiny.intake.reconcile(tiny.assay, everything=True)
    assert found(tiny).is_complete
    assert first in tiny.store.corrections.living_annotations(tiny.name)


def test_a_mask_that_was_changed_behind_our_back_is_seen(tiny: Tiny) -> None:
    """Same annotation, same time stamp, other pixels: nothing but the mask itself tells."""
    number = next(iter(tiny.studio.annotations))
    tiny.studio.annotations[number]["result"] = tiny.regions(tiny.items()[0])[:1]
    assert len(found(tiny).different) == 1


def test_what_is_no_mask_of_this_assay_is_told_apart(tiny: Tiny) -> None:
    number = tiny.correct(tiny.items()[7])
    tiny.studio.annotations[number]["result"][0]["value"]["brushlabels"] = ["Dust"]
    tiny.intake.reconcile(tiny.assay)
    told = found(tiny)
    assert told.is_complete
    assert len(told.unreadable) == 1
    assert "Dust" in told.unreadable[0]
