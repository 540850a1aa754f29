"""Which weights are kept, and that a removal that is cut off is finished."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from samples import NOON, Item, make_model, make_prediction

from cytoloop.adapters.store import Scored
from cytoloop.domain.types import ModelVersion
from cytoloop.domain.worklist import Candidate
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.pruning import PRUNED, prunable, prune

if TYPE_CHECKING:
    from conftest import SmallHome


def version_of(method: str, day: int, status: str = "rejected", **changes: Any) -> ModelVersion:
    return make_model(
        f"{method}-202405{day:02d}-0000000{day % 10}",
        status=status,
        created_at=NOON + timedelta(days=day),
        **changes,
    )


def days(models: list[ModelVersion]) -> list[int]:
    return [(model.created_at - NOON).days for model in models]


def test_the_newest_of_the_rejected_and_retired_are_kept() -> None:
    models = [version_of("mdl", day, "retired" if day % 2 else "rejected") for day in range(1, 6)]
    assert days(prunable(models, 2)) == [1, 2, 3]
    assert days(prunable(models, 0)) == [1, 2, 3, 4, 5]
    assert prunable(models, 5) == []


def test_what_serves_or_waits_or_is_conventional_is_never_pruned_and_does_not_count() -> None:
    models = [
        version_of("cip", 1, "retired"),
        version_of("mdl", 2, "active"),
        version_of("mdl", 3, "candidate"),
        version_of("mdl", 4),
        version_of("mdl", 5),
        version_of("mdl", 6, PRUNED),
    ]
    assert days(prunable(models, 1)) == [4]
    assert days(prunable(models, 0)) == [4, 5]


def test_what_is_in_use_is_kept_beside_the_newest() -> None:
    models = [version_of("mdl", day) for day in range(1, 5)]
    assert days(prunable(models, 1, {models[1].version})) == [1, 3]


def test_the_newest_cdl_is_kept_and_so_is_every_cdl_that_a_kept_version_started_from() -> None:
    first, second, third, newest = (version_of("cdl", day) for day in range(1, 5))
    models = [
        first,
        second,
        third,
        newest,
        version_of("joint", 5, parent=first.version),
        version_of("joint", 6, parent=second.version),
        version_of("joint", 7, "active", parent=third.version),
    ]
    assert days(prunable(models, 0)) == [1, 2, 5, 6], "the parents of what goes may go with it"
    assert days(prunable(models, 1)) == [1, 5]
    assert days(prunable(models, 2)) == []


# --- a home ----------------------------------------------------------------------------------------

ITEM = Item(image_id="P_B01_f1", tile=0)


@pytest.fixture
def versions(home: SmallHome) -> list[str]:
    """A CIP version in force, and four rejected MDL versions with weights, predictions and scores."""
    ensure_cip_version(home.store, home.registry, home.assay)
    return [add(home, number) for number in range(1, 5)]


def add(home: SmallHome, number: int) -> str:
    def write(folder: Path) -> str:
        (folder / "weights.bin").write_text(str(number))
        return f"{number}" * 64

    version, digest = home.registry.add("mdl", write, {})
    created = NOON + timedelta(days=number)
    home.store.models.add(make_model(version, digest=digest, created_at=created))
    home.store.models.set_status(version, "rejected")
    home.store.predictions.put("rosella", [make_prediction(ITEM, version=version)])
    candidate = Candidate(item=ITEM, split="train", group="", plate="P", score=0.5, confidence=0.5, lot=0.5)
    home.store.scores.put("rosella", version, "entropy", [Scored(candidate=candidate)])
    return version


def status(home: SmallHome, version: str) -> str:
    return home.store.models.get(version).status


def traces(home: SmallHome, version: str) -> tuple[bool, int, int]:
    """Weights, predictions and rankings of a version."""
    return (
        home.registry.holds(version),
        home.store.predictions.count("rosella", version),
        len(home.store.scores.strategies("rosella", version)),
    )


def test_of_a_pruned_version_the_lineage_is_left_and_nothing_else(
    home: SmallHome, versions: list[str]
) -> None:
    assert prune(home.store, home.registry, "rosella", 2) == versions[:2]
    assert [status(home, version) for version in versions] == [PRUNED, PRUNED, "rejected", "rejected"]
    assert [traces(home, version) for version in versions] == [(False, 0, 0)] * 2 + [(True, 1, 1)] * 2
    assert prune(home.store, home.registry, "rosella", 2) == []
    assert prune(home.store, home.registry, "rosella", 0) == versions[2:]
    assert home.registry.versions() == [home.store.models.active("rosella").version]


def test_the_version_to_go_back_to_is_kept(home: SmallHome, versions: list[str]) -> None:
    for version in versions[:2]:
        before = home.store.models.active("rosella").version
        publication = home.store.publications.begin("rosella", version, before, [])
        home.store.models.activate("rosella", version)
        home.store.publications.advance(publication, "done")
    assert home.store.publications.previous("rosella") == versions[0]
    assert prune(home.store, home.registry, "rosella", 0) == versions[2:]


def test_what_is_being_published_or_was_asked_for_is_kept(home: SmallHome, versions: list[str]) -> None:
    home.store.publications.begin("rosella", versions[0], versions[1], [])
    home.store.cycles.ask("rosella", "cli", kind="promote", target=versions[2])
    assert prune(home.store, home.registry, "rosella", 0) == versions[3:]


@pytest.mark.parametrize("moment", ["predictions.forget", "scores.forget", "remove"])
def test_a_pruning_that_is_killed_claims_no_weights_and_the_next_one_finishes(
    home: SmallHome, versions: list[str], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    owner: Any = home.registry if moment == "remove" else getattr(home.store, moment.partition(".")[0])
    with monkeypatch.context() as patched:
        patched.setattr(owner, moment.rpartition(".")[2], killed)
        with pytest.raises(KeyboardInterrupt):
            prune(home.store, home.registry, "rosella", 2)
    kept = [version for version in versions if status(home, version) != PRUNED]
    assert kept == versions[2:]
    assert all(home.registry.holds(version) for version in kept)
    assert prune(home.store, home.registry, "rosella", 2) == versions[:2]
    assert [traces(home, version) for version in versions[:2]] == [(False, 0, 0)] * 2


def test_a_version_whose_folder_is_gone_already_is_no_obstacle(home: SmallHome, versions: list[str]) -> None:
    home.registry.remove(versions[0])
    assert prune(home.store, home.registry, "rosella", 2) == versions[:2]
    assert traces(home, versions[0]) == (False, 0, 0)
