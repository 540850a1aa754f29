"""Where a version comes from, what became of it, and whether its files are what they should be."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from samples import NOON, Item, make_correction, make_model

from cytoloop.adapters.registry import MANIFEST
from cytoloop.domain.errors import UnknownVersion
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import Method, ModelVersion
from cytoloop.nn.train_config import TrainConfig
from cytoloop.nn.unet import UNet, UNetConfig
from cytoloop.nn.weights import WEIGHTS_FILE, save_weights
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.lineage import METHOD_WORDS, STATUS_WORDS, lineage_of, look_at_files
from cytoloop.pipeline.predictors import RECIPE_FILE
from cytoloop.pipeline.pruning import PRUNED
from cytoloop.pipeline.training import train_version
from cytoloop.pipeline.weak_labels import weak_label_store, weak_masks

if TYPE_CHECKING:
    from conftest import SmallHome

TINY = TrainConfig(
    network=UNetConfig(in_channels=2, class_count=3, width=4),
    epochs=1,
    steps_per_epoch=1,
    batch=2,
    crop=32,
    cross_entropy_share=1.0,
    dice_share=0.0,
)


def train(home: SmallHome, method: Method, base: ModelVersion | None = None) -> ModelVersion:
    corrected = {item: c.mask for item, c in home.store.corrections.standing("rosella").items()}
    splits = {record.image_id: record.split for record in home.store.images.all("rosella")}
    model, _ = train_version(
        home.store,
        home.registry,
        home.assay,
        make_snapshot("rosella", method, weak_masks(home.store, home.assay), corrected, splits),
        method=method,
        preset="tiny",
        config=TINY,
        weak_weight=0.5,
        base=base,
        device="cpu",
    )
    return model


def network_of(home: SmallHome) -> ModelVersion:
    """A version with weights that nobody trained."""
    version, digest = home.registry.add(
        "mdl",
        lambda folder: save_weights(folder, UNet(TINY.network), TINY.network, TINY.normalisation),
        {"assay": home.assay.document()},
    )
    model = make_model(version, digest=digest)
    home.store.models.add(model)
    return model


# --- where it comes from ---------------------------------------------------------------------------


def test_the_chain_leads_through_the_cdl_to_the_recipe_of_its_labels(home: SmallHome) -> None:
    weak_label_store(home.store, home.assay)
    cip = ensure_cip_version(home.store, home.registry, home.assay)
    taught = home.of("train")[0].image_id
    home.correct(taught, 0)
    home.correct(taught, 1)
    home.correct(home.of("validation")[0].image_id, 0)
    base = train(home, "cdl")
    lineage = lineage_of(home.store, home.registry, train(home, "joint", base).version)
    assert [(p.version, p.method, p.status) for p in lineage.parents] == [
        (base.version, "cdl", "candidate"),
        (cip.version, "cip", "active"),
    ]
    learned = lineage.learned
    assert learned is not None
    assert learned.digest == lineage.model.snapshot
    assert learned.corrections == {"train": 2, "validation": 1}
    assert learned.weak == {"train": len(home.of("train"))}
    assert learned.experts == ("ada@example.com",)
    assert learned.first_at is not None
    assert learned.last_at is not None
    assert learned.first_at < learned.last_at
    assert lineage.files.problem == ""


def test_labels_of_a_recipe_that_is_no_version_are_named_by_its_digest(home: SmallHome) -> None:
    model = make_model(config={"weak_rows": 3, "recipe": "ab12", "cip_code": "1"})
    home.store.models.add(model)
    ensure_cip_version(home.store, home.registry, home.assay)
    (teacher,) = lineage_of(home.store, home.registry, model.version).parents
    assert (teacher.version, teacher.method, teacher.recipe) == (None, "cip", "ab12")


def test_what_learned_from_corrections_alone_has_no_parent(home: SmallHome) -> None:
    model = make_model("mdl-20240517-00000000", config={"weak_rows": 0, "recipe": "ab12", "cip_code": "1"})
    home.store.models.add(model)
    assert lineage_of(home.store, home.registry, model.version).parents == ()


def test_parents_that_are_gone_or_lead_in_a_circle_end_the_chain(home: SmallHome) -> None:
    first, second = "joint-20240517-00000001", "joint-20240517-00000002"
    home.store.models.add(make_model(first, parent=second))
    home.store.models.add(make_model(second, parent=first))
    home.store.models.add(make_model(parent="cdl-20240101-00000000"))
    assert [p.version for p in lineage_of(home.store, home.registry, first).parents] == [second]
    assert lineage_of(home.store, home.registry, make_model().version).parents == ()


def test_a_consensus_was_drawn_by_all_who_had_read_the_item_by_then(home: SmallHome) -> None:
    item = Item(image_id=home.of("train")[0].image_id, tile=0)
    mask_HW = home.truth_of(item)
    for number, (expert, minutes) in enumerate([("ada", 0), ("bob", 5), ("eve", 5_000_000)], start=1):
        correction = make_correction(item, number, minutes, expert=f"{expert}@example.com")
        home.store.corrections.append("rosella", correction, home.store.masks.put(mask_HW))
    agreed = "c" * 64  # made of several, saved by none
    snapshot = make_snapshot("rosella", "mdl", {}, {item: agreed}, {item.image_id: "train"})
    home.store.models.add_snapshot(snapshot)
    made = datetime(2024, 6, 1, tzinfo=UTC)
    model = make_model("mdl-20240601-00000000", snapshot=snapshot.digest, created_at=made)
    home.store.models.add(model)
    learned = lineage_of(home.store, home.registry, model.version).learned
    assert learned is not None
    assert learned.experts == ("ada@example.com", "bob@example.com")
    assert learned.first_at == NOON


def test_a_snapshot_that_is_not_in_the_home_is_not_known(home: SmallHome) -> None:
    home.store.models.add(make_model(snapshot="0" * 64))
    assert lineage_of(home.store, home.registry, make_model().version).learned is None
    with pytest.raises(UnknownVersion):
        lineage_of(home.store, home.registry, "cdl-20240101-00000000")


# --- what became of it -----------------------------------------------------------------------------


def contest(home: SmallHome, challenger: str, active: str, promoted: bool, bound: float | None = 0.1) -> None:
    document = {"lower_bound": bound}
    home.store.models.add_contest("rosella", "c1", challenger, active, promoted, "because", document)


def test_contests_are_those_it_was_in_and_say_why(home: SmallHome) -> None:
    one, two, three = (f"mdl-20240517-0000000{n}" for n in (1, 2, 3))
    for version in (one, two, three):
        home.store.models.add(make_model(version))
    contest(home, two, one, True)
    contest(home, three, two, False)
    found = lineage_of(home.store, home.registry, one).contests
    assert [(f.challenger, f.active, f.promoted, f.reason, f.cycle) for f in found] == [
        (two, one, True, "because", "c1")
    ]
    assert len(lineage_of(home.store, home.registry, two).contests) == 2


def test_since_when_is_told_as_far_as_it_is_known(home: SmallHome) -> None:
    one, two, three = (f"mdl-20240517-0000000{n}" for n in (1, 2, 3))
    for version in (one, two, three):
        home.store.models.add(make_model(version))

    def since(version: str) -> datetime | None:
        return lineage_of(home.store, home.registry, version).since

    assert since(one) == NOON, "a candidate is one from the start"
    home.store.models.activate("rosella", one)
    assert since(one) == NOON, "in force without any cycle"
    cycle = home.store.cycles.ask("rosella", "cli")
    home.store.cycles.start(cycle)
    contest(home, two, one, True)
    home.store.models.activate("rosella", two)
    home.store.cycles.finish(cycle, "done", "promoted", "better")
    finished = datetime.fromisoformat(home.store.cycles.get(cycle)["finished_at"])
    assert since(two) == finished
    retired = since(one)
    assert retired is not None
    assert retired <= finished
    home.store.models.set_status(three, "rejected")
    assert since(three) is None, "left behind without a contest"
    contest(home, three, two, False, None)
    assert since(three) is None, "too few wells decided nothing"
    contest(home, three, two, False)
    assert since(three) is not None


def test_every_method_and_status_has_words() -> None:
    assert set(METHOD_WORDS) == {"cip", "cdl", "mdl", "joint"}
    assert set(STATUS_WORDS) == {"candidate", "active", "retired", "rejected", PRUNED}


# --- its files -------------------------------------------------------------------------------------


def test_a_whole_folder_has_no_problem_and_a_size(home: SmallHome) -> None:
    model = network_of(home)
    cip = ensure_cip_version(home.store, home.registry, home.assay)
    for version in (model, cip):
        files = look_at_files(home.registry, version)
        assert (files.folder, files.problem) == (home.registry.folder(version.version), "")
        assert files.size == sum(path.stat().st_size for path in files.folder.iterdir())


def changed(path: Path, change: Callable[[bytes], bytes | None]) -> None:
    content = change(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (WEIGHTS_FILE, lambda content: content[:-1] + b"\0\1", "digest of its files is {found}, expected"),
        (WEIGHTS_FILE, lambda content: None, "cannot be read .*No such file"),
        (MANIFEST, lambda content: content[:-5], "not JSON"),
        (MANIFEST, lambda content: None, "no manifest.json in"),
        (
            MANIFEST,
            lambda content: content.replace(b'"digest": "', b'"digest": "0'),
            "digest of its manifest",
        ),
    ],
)
def test_changed_files_are_noticed_and_named(
    home: SmallHome, name: str, change: Callable[[bytes], bytes | None], said: str
) -> None:
    model = network_of(home)
    path = home.registry.folder(model.version) / name
    changed(path, change)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
    problem = look_at_files(home.registry, model).problem
    assert re.search(said.replace("{found}", found), problem), problem


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.replace(b": 1", b": 2", 1),
        lambda content: b"[]",
        lambda content: b"{}",
        lambda content: None,
    ],
)
def test_a_changed_recipe_is_noticed(home: SmallHome, change: Callable[[bytes], bytes | None]) -> None:
    cip = ensure_cip_version(home.store, home.registry, home.assay)
    path = home.registry.folder(cip.version) / RECIPE_FILE
    assert b": 1" in path.read_bytes()
    changed(path, change)
    assert str(path.parent) in look_at_files(home.registry, cip).problem


def test_a_pruned_version_has_no_files_and_says_so(home: SmallHome) -> None:
    model = network_of(home)
    home.registry.remove(model.version)
    lost = look_at_files(home.registry, model)
    assert (lost.folder, lost.size) == (None, 0)
    assert "no folder" in lost.problem
    assert "removed to save space" in look_at_files(home.registry, replace(model, status=PRUNED)).problem


def test_the_document_holds_the_version_and_all_that_was_found(home: SmallHome) -> None:
    model = network_of(home)
    document = lineage_of(home.store, home.registry, model.version).to_dict()
    assert {"version", "config", "metrics", "what", "status_in_words", "parents", "files"} <= set(document)
    assert document["version"] == model.version
    json.dumps(document, default=str)
