"""``cytoloop agreement``: who differs from whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from samples import Item, make_correction
from tiny import Tiny, make_tiny

from cytoloop.cli import run
from cytoloop.commands.agreement import agreement_report

ADA, BOB, CY = "ada@lab.org", "bob@lab.org", "cy@lab.org"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


def mask(*objects: tuple[int, int]) -> NDArray[np.uint8]:
    """An item of 32 x 40 with a 10 x 10 object of each (class, column)."""
    mask_HW = np.zeros((32, 40), np.uint8)
    for value, column in objects:
        mask_HW[4:14, column : column + 10] = value
    return mask_HW


def save(tiny: Tiny, item: Item, **read: NDArray[np.uint8]) -> None:
    """Each expert's mask of an item."""
    for number, (name, mask_HW) in enumerate(read.items()):
        annotation = len(tiny.store.corrections.revisions(tiny.name)) + 1
        correction = make_correction(item, annotation, number, expert=f"{name}@lab.org")
        tiny.store.corrections.append(tiny.name, correction, tiny.store.masks.put(mask_HW))


def test_pairs_and_experts_are_summed_over_the_items_they_share(tiny: Tiny) -> None:
    first, second, third, alone = tiny.items()[:4]
    both = mask((1, 2), (2, 20))
    save(tiny, first, ada=both, bob=both, cy=mask((1, 2)))
    save(tiny, second, ada=both, bob=both)
    save(tiny, third, bob=mask((1, 2)), cy=mask((2, 2)))
    save(tiny, alone, ada=both)
    found = agreement_report(tiny.store, tiny.assay)
    assert set(found.items) == {first, second, third}
    assert {names: one.items for names, one in found.pairs.items()} == {
        (ADA, BOB): 2,
        (ADA, CY): 1,
        (BOB, CY): 2,
    }
    assert found.pairs[ADA, BOB].mean_dice == 1.0
    cy = found.others[CY]
    # against where ada and bob agree, and against bob alone: 1 of 3 objects missed, 1 of 2 of another class
    assert cy.items == 2
    assert (cy.objects.missed_share, cy.objects.added_share) == (1 / 3, 0.0)
    assert (cy.objects.relabelled, cy.objects.shared) == (1, 2)
    # ada against bob and cy where these agree: the object that one of them lacks is not counted
    assert found.others[ADA].objects.added_share == 0.0


def test_the_consensus_of_each_item_is_told(tiny: Tiny) -> None:
    first, second = tiny.items()[:2]
    save(tiny, first, ada=mask((1, 2)), bob=mask())
    save(tiny, second, ada=mask((1, 2)), bob=mask((1, 2)), cy=mask())
    found = agreement_report(tiny.store, tiny.assay)
    assert found.methods == {first: "agreement", second: "staple"}
    assert found.undecided == {first: 100 / 1280, second: 0.0}


def test_json_is_one_document_with_every_class(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    save(tiny, tiny.items()[0], ada=mask((1, 2)), bob=mask((1, 4)))
    assert run(["agreement", "--home", str(tiny.home), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (item,) = document["items"]
    assert item["readers"] == [ADA, BOB]
    assert item["mean_dice"] == 0.8
    (pair,) = document["pairs"]
    assert pair["experts"] == [ADA, BOB]
    assert [one["name"] for one in pair["classes"]] == list(tiny.assay.class_names)
    assert pair["classes"][2]["dice"] is None  # a class that neither drew
    assert {one["expert"] for one in document["experts"]} == {ADA, BOB}


def test_tables_name_the_experts_the_most_at_odds_first(
    tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tiny, tiny.items()[0], ada=mask((1, 2)), bob=mask((1, 2)), cy=mask((1, 8)))
    assert run(["agreement", "--home", str(tiny.home), "--assay", "tiny"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "@lab.org" in line]
    assert ADA in rows[0]
    assert CY in rows[0]
    assert CY in rows[3]
    assert any("mostly about the background" in line for line in lines)


def test_no_item_of_two_readers_is_said(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    save(tiny, tiny.items()[0], ada=mask((1, 2)))
    assert run(["agreement", "--home", str(tiny.home)]) == 0
    assert "No item has been read by two experts yet" in capsys.readouterr().out


def test_an_unknown_assay_is_refused(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["agreement", "--home", str(tiny.home), "--assay", "tinny"]) == 1
    assert "--assay is 'tinny', expected one of ['tiny']" in capsys.readouterr().err
