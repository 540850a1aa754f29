"""Versions, snapshots, contests, cycles and publications."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from samples import NOON, Item, make_assay, make_model

from cytoloop.adapters.store import Store
from cytoloop.adapters.store.models import TRANSITIONS
from cytoloop.domain.errors import InvalidTransition, StateError, UnknownVersion
from cytoloop.domain.types import SnapshotRow, TrainingSnapshot

ONE, TWO = "cdl-20240517-00000001", "cdl-20240518-00000002"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.assays.ensure(make_assay())
    opened.models.add(make_model(ONE))
    opened.models.add(make_model(TWO, created_at=NOON + timedelta(days=1), parent=ONE, metrics={"iou": 0.5}))
    yield opened
    opened.close()


def test_a_version_comes_back_as_it_was(store: Store) -> None:
    assert store.models.get(TWO) == make_model(
        TWO, created_at=NOON + timedelta(days=1), parent=ONE, metrics={"iou": 0.5}
    )
    assert [m.version for m in store.models.all("rosella")] == [ONE, TWO]
    assert store.models.all("other") == []


def test_a_version_is_registered_once(store: Store) -> None:
    store.models.add(make_model(ONE, digest="f" * 64))
    assert store.models.get(ONE).digest == make_model(ONE).digest


def test_an_unknown_version_is_told_what_there_is(store: Store) -> None:
    with pytest.raises(
        UnknownVersion, match=rf"model 'cdl-x' is not in this home; it holds \['{ONE}', '{TWO}'\]"
    ):
        store.models.get("cdl-x")


def test_without_an_active_version_the_next_step_is_named(store: Store) -> None:
    with pytest.raises(StateError, match="no active version yet; expected an import first"):
        store.models.active("rosella")


def test_activating_retires_the_predecessor_and_can_be_undone(store: Store) -> None:
    store.models.activate("rosella", ONE)
    store.models.activate("rosella", ONE)
    store.models.activate("rosella", TWO)
    assert store.models.active("rosella").version == TWO
    assert (store.models.get(ONE).status, store.models.get(TWO).status) == ("retired", "active")
    store.models.activate("rosella", ONE)
    assert (store.models.get(ONE).status, store.models.get(TWO).status) == ("active", "retired")


def test_activating_is_all_or_nothing(store: Store) -> None:
    store.models.activate("rosella", ONE)
    with pytest.raises(UnknownVersion):
        store.models.activate("rosella", "cdl-x")
    assert store.models.active("rosella").version == ONE
    assert store.models.get(ONE).status == "active"


@pytest.mark.parametrize("before", TRANSITIONS)
@pytest.mark.parametrize("after", TRANSITIONS)
def test_a_status_moves_only_where_it_may(store: Store, before: str, after: str) -> None:
    store.models.add(make_model("mdl-20240517-00000003", status=before))
    if after == before or after in TRANSITIONS[before]:  # type: ignore[index]
        store.models.set_status("mdl-20240517-00000003", after)  # type: ignore[arg-type]
        assert store.models.get("mdl-20240517-00000003").status == after
        return
    with pytest.raises(InvalidTransition, match=f"{before} cannot become {after}, only "):
        store.models.set_status("mdl-20240517-00000003", after)  # type: ignore[arg-type]


def test_metrics_can_be_attached(store: Store) -> None:
    store.models.set_metrics(ONE, {"iou": 0.25})
    assert store.models.get(ONE).metrics == {"iou": 0.25}


def test_a_snapshot_tells_which_corrections_it_held(store: Store) -> None:
    rows = (
        SnapshotRow(image_id="a", tile=None, source="weak", split="train", mask="m0"),
        SnapshotRow(image_id="a", tile=1, source="correction", split="train", mask="m1"),
        SnapshotRow(image_id="b", tile=0, source="correction", split="validation", mask="m2"),
    )
    for _ in range(2):
        store.models.add_snapshot(TrainingSnapshot(assay="rosella", rows=rows, digest="d"))
    assert store.models.snapshot_masks("d") == {
        (Item(image_id="a", tile=1), "m1"),
        (Item(image_id="b", tile=0), "m2"),
    }
    assert store.models.snapshot_masks("unknown") == store.models.snapshot_masks(None) == set()


def test_contests_are_kept_in_order(store: Store) -> None:
    store.models.add_contest("rosella", None, TWO, ONE, True, "better", {"difference": 0.1})
    store.models.add_contest("rosella", "c1", ONE, TWO, False, "worse", [1, 2])
    first, second = store.models.contests("rosella")
    assert (first["challenger"], first["promoted"], first["document"]) == (TWO, 1, {"difference": 0.1})
    assert (second["cycle_id"], second["reason"], second["document"]) == ("c1", "worse", [1, 2])


# --- cycles ----------------------------------------------------------------------------------------


def test_a_cycle_that_waits_serves_every_request(store: Store) -> None:
    first = store.cycles.ask("rosella", "ada")
    assert store.cycles.ask("rosella", "webhook") == first
    other = store.cycles.ask("other", "ada")
    assert [c["id"] for c in store.cycles.queued()] == [first, other]


def test_one_cycle_at_a_time_an_assay(store: Store) -> None:
    first = store.cycles.ask("rosella", "ada")
    store.cycles.start(first)
    second = store.cycles.ask("rosella", "ada")
    assert second != first
    with pytest.raises(
        StateError, match=rf"assay 'rosella': cycle {first} is running; expected one at a time"
    ):
        store.cycles.start(second)
    store.cycles.step(first, "train", 0.25)
    assert (store.cycles.get(first)["step"], store.cycles.get(first)["progress"]) == ("train", 0.25)
    store.cycles.finish(first, "done", "promoted", "better", "reports/x")
    closed = store.cycles.get(first)
    assert (closed["state"], closed["outcome"], closed["report"], closed["progress"]) == (
        "done",
        "promoted",
        "reports/x",
        1.0,
    )
    store.cycles.start(second)
    assert [c["state"] for c in store.cycles.all("rosella")] == ["done", "running"]


def test_a_stopped_trainers_cycle_is_closed_with_the_reason(store: Store) -> None:
    left = store.cycles.ask("rosella", "ada")
    store.cycles.start(left)
    waiting = store.cycles.ask("rosella", "ada")
    assert store.cycles.close_abandoned("another") == []
    assert store.cycles.close_abandoned("rosella") == [left]
    assert store.cycles.close_abandoned("rosella") == []
    assert (store.cycles.get(left)["state"], store.cycles.get(left)["outcome"]) == ("failed", "abandoned")
    assert store.cycles.get(waiting)["state"] == "queued"


def test_an_unknown_cycle_is_named(store: Store) -> None:
    with pytest.raises(UnknownVersion, match="cycle 'nope' is not in this home"):
        store.cycles.start("nope")


# --- publications ----------------------------------------------------------------------------------

WINDOW = [Item(image_id="b", tile=1), Item(image_id="a", tile=0)]


def test_an_interrupted_publication_is_found_again_with_its_window(store: Store) -> None:
    assert store.publications.unfinished("rosella") is None
    number = store.publications.begin("rosella", TWO, ONE, WINDOW)
    store.publications.advance(number, "commit")
    found = store.publications.unfinished("rosella")
    assert found is not None
    assert (found["id"], found["version"], found["previous"], found["step"]) == (number, TWO, ONE, "commit")
    assert found["window"] == WINDOW
    assert store.publications.unfinished("other") is None


def test_a_version_is_in_force_since_it_took_the_place_of_another(store: Store) -> None:
    def publish(version: str, previous: str | None) -> None:
        store.publications.advance(store.publications.begin("rosella", version, previous, []), "done")

    assert store.publications.since("rosella", ONE) is None
    publish(ONE, None)
    publish(TWO, ONE)
    since = store.publications.since("rosella", TWO)
    assert since is not None
    assert since > (store.publications.since("rosella", ONE) or since)
    publish(TWO, TWO)  # more items of it
    assert store.publications.since("rosella", TWO) == since
    publish(ONE, TWO)
    assert (store.publications.since("rosella", ONE) or since) > since


@pytest.mark.parametrize("end", ["done", "undone"])
def test_a_publication_ends(store: Store, end: str) -> None:
    store.publications.advance(store.publications.begin("rosella", TWO, None, []), end)
    assert store.publications.unfinished("rosella") is None


def test_a_version_made_again_after_its_weights_were_removed_waits_for_a_contest_again(store: Store) -> None:
    made = make_model("mdl-20240517-00000003", status="candidate")
    store.models.add(made)
    store.models.set_status(made.version, "rejected")
    store.models.add(made)
    assert store.models.get(made.version).status == "rejected", "the same again is nothing new"
    store.models.set_status(made.version, "pruned")
    store.models.add(made)
    assert store.models.get(made.version).status == "candidate"
