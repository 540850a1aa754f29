from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import OTHER_EXPERT
from numpy.typing import NDArray
from tiny import ADA, BOB, Painted, Tiny, add_plate, make_tiny, write_fields

import trainer.cycle
import trainer.judge
import trainer.runs
from cytoloop.domain.assay import Teacher
from cytoloop.domain.errors import LabelStudioUnavailable
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy
from cytoloop.domain.types import Item, ModelVersion, Split
from cytoloop.nn.normalisation import Normalisation
from cytoloop.pipeline.predictors import Predictor, load_predictor
from labelstudio_config.handout import refill
from trainer.cycle import Cycle, CycleCancelled, CycleOutcome
from trainer.presets import smoke
from trainer.runs import InProcess

POLICY = TrainerPolicy(contest=ContestPolicy(min_groups=4, min_class_groups=4), methods=("cdl", "joint"))
"""Four of the five contest wells suffice; the MDL has a test of its own."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small networks gain nothing from more, and a busy machine loses much."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    """20 wells: 10 teach, 3 validate, 5 decide, 2 are sealed. CIP is published and far from perfect."""
    made = make_tiny(tmp_path, wells=20)
    made.publish_active()
    yield made
    made.store.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of training: what a network learned is not the matter here."""

    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        return replace(smoke(method, assay, seed), crop=32, batch=2, epochs=1, steps_per_epoch=2)

    monkeypatch.setattr(trainer.runs, "preset", preset)
    monkeypatch.setattr(trainer.cycle, "preset", preset)


class Said:
    """Networks that say what a test wants of them; CIP speaks for itself."""

    def __init__(self, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_method: dict[str, dict[str, NDArray[np.uint8]]] = {}
        self.truth = tiny.truth
        self.nothing = {image_id: np.zeros_like(mask_HW) for image_id, mask_HW in tiny.truth.items()}
        monkeypatch.setattr(trainer.judge, "load_predictor", self._load)

    def _load(self, store: Any, registry: Any, assay: Any, model: ModelVersion, device: str) -> Predictor:
        masks = self.by_method.get(model.method)
        if masks is None:
            return load_predictor(store, registry, assay, model)
        return Painted(model.version, masks)


@pytest.fixture
def said(tiny: Tiny, quick: None, monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(tiny, monkeypatch)


def run(tiny: Tiny, policy: TrainerPolicy = POLICY, preset: str = "smoke", **options: Any) -> CycleOutcome:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test", "a test")
    tiny.store.cycles.start(cycle_id)
    cycle = Cycle(
        tiny.store,
        tiny.registry,
        tiny.studio,
        tiny.intake,
        tiny.assay,
        policy,
        InProcess(tiny.store, tiny.registry, lambda name: tiny.assay),
        preset=preset,
        device="cpu",
        **options,
    )
    try:
        outcome = cycle.run(cycle_id)
    except BaseException:
        tiny.store.cycles.finish(cycle_id, "failed", "failed", "")
        raise
    tiny.store.cycles.finish(cycle_id, "done", outcome.outcome, outcome.reason)
    return outcome


def correct(tiny: Tiny, split: Split, count: int | None = None, tile: int = 0) -> list[Item]:
    """Correct one tile of each image of a split's wells."""
    records = tiny.store.images.all(tiny.name, [split])[:count]
    items = [Item(image_id=record.image_id, tile=tile) for record in records]
    for item in items:
        tiny.correct(item)
    return items


def correct_all_splits(tiny: Tiny) -> None:
    for split in ("train", "validation", "contest", "sealed"):
        correct(tiny, split)  # type: ignore[arg-type]


def methods(outcome: CycleOutcome) -> list[str]:
    return [trained.model.method for trained in outcome.trained]


def status(tiny: Tiny, version: str | None) -> str:
    assert version is not None
    return tiny.store.models.get(version).status


def check_in_force(tiny: Tiny, version: str, before: str | None = None) -> None:
    """``before`` was in force until now: what experts began from its predictions can still be submitted."""
    assert tiny.store.models.active(tiny.name).version == version
    assert tiny.studio.model_version == version
    assert set(tiny.studio.model_versions(3)) == {version, before or version}


# --- one whole cycle ---


def test_a_whole_cycle_with_real_networks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        return replace(smoke(method, assay, seed), crop=64, batch=4)  # the fields are no larger than that

    monkeypatch.setattr(trainer.runs, "preset", preset)
    correct_all_splits(tiny)
    cip = tiny.store.models.active(tiny.name).version
    outcome = run(tiny)
    assert methods(outcome) == ["cdl", "joint"]
    cdl, joint = (trained.model for trained in outcome.trained)
    assert (cdl.parent, joint.parent) == (None, cdl.version), "a joint model begins from the CDL"
    assert outcome.challenger in (cdl.version, joint.version)
    assert outcome.decision is not None
    assert (outcome.decision.groups, outcome.decision.items) == (5, 5)
    assert outcome.active_before == cip
    assert outcome.active_after == (outcome.challenger if outcome.decision.promote else cip)
    check_in_force(tiny, outcome.active_after, cip)
    for trained in outcome.trained:
        losses = [epoch.loss for epoch in trained.result.history]
        assert len(losses) == 2
        assert all(epoch.validation is not None for epoch in trained.result.history)
        assert tiny.registry.manifest(trained.model.version)["snapshot"] == trained.snapshot.digest
    (contest,) = tiny.store.models.contests(tiny.name)
    assert (contest["challenger"], contest["active"]) == (outcome.challenger, cip)
    assert {split for _, split in outcome.evaluations} == {"validation", "contest", "sealed"}
    assert set(outcome.seconds) >= {"reconcile", "train", "contest", "refill", "measure"}


def test_held_out_wells_never_teach(tiny: Tiny, quick: None) -> None:
    correct_all_splits(tiny)
    outcome = run(tiny)
    split_of = {record.image_id: record.split for record in tiny.store.images.all(tiny.name)}
    for trained in outcome.trained:
        rows = trained.snapshot.rows
        assert {split_of[row.image_id] for row in rows} <= {"train", "validation"}
        assert {row.split for row in rows} <= {"train", "validation"}
        assert all(row.split == split_of[row.image_id] for row in rows)
        assert all(row.tile is None for row in rows if row.split == "validation" and row.source == "weak")
    cdl, joint = (trained.snapshot.rows for trained in outcome.trained)
    assert not [row for row in cdl if row.source == "correction" and row.split == "train"]
    assert len([row for row in joint if row.source == "correction" and row.split == "train"]) == 10


def test_what_reaches_the_network_is_of_training_wells(
    tiny: Tiny, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by the snapshot's word: by the pixels that ``fit`` gets."""
    import cytoloop.pipeline.training as training
    from cytoloop.adapters.images import read_image

    fitted: list[bytes] = []
    fit = training.fit

    def spy(config: Any, items: Any, **options: Any) -> Any:
        fitted.extend(item.image_CHW.tobytes() for item in items)
        return fit(config, items, **options)

    monkeypatch.setattr(training, "fit", spy)
    correct_all_splits(tiny)
    run(tiny)
    pixels = {
        split: {
            read_image(record, tiny.assay).tobytes()
            for record in tiny.store.images.all(tiny.name, [split])  # type: ignore[list-item]
        }
        for split in ("train", "validation", "contest", "sealed")
    }
    assert set(fitted) == pixels["train"]
    assert not set(fitted) & (pixels["validation"] | pixels["contest"] | pixels["sealed"])


def test_a_lost_webhook_is_learned_from_all_the_same(tiny: Tiny, quick: None) -> None:
    assert tiny.studio.listener is None
    items = correct(tiny, "train", 2)
    outcome = run(tiny)
    assert methods(outcome) == ["cdl", "joint"]
    rows = outcome.trained[-1].snapshot.rows
    assert {(r.image_id, r.tile) for r in rows if r.source == "correction"} == {
        (item.image_id, item.tile) for item in items
    }


# --- what to train ---


def test_without_corrections_a_cdl_is_trained_alone(tiny: Tiny, quick: None) -> None:
    outcome = run(tiny)
    assert methods(outcome) == ["cdl"]
    assert outcome.outcome == "kept"
    assert "4 are needed" in outcome.reason


def test_with_nothing_new_nothing_is_trained(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.nothing}
    correct_all_splits(tiny)
    run(tiny)
    before = [(m.version, m.status) for m in tiny.store.models.all(tiny.name)]
    outcome = run(tiny)
    assert outcome.trained == []
    assert (outcome.outcome, outcome.decision) == ("not-trained", None)
    assert "nothing new: 0 correction(s)" in outcome.reason
    assert [(m.version, m.status) for m in tiny.store.models.all(tiny.name)] == before
    assert outcome.active_after == outcome.active_before


def test_corrections_of_held_out_wells_are_no_reason_to_train(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.nothing}
    correct_all_splits(tiny)
    run(tiny)
    correct(tiny, "contest", tile=1)
    assert run(tiny).trained == []


def test_new_corrections_make_a_joint_model_from_the_same_base(tiny: Tiny, quick: None) -> None:
    correct(tiny, "train", 2)
    first = run(tiny)
    correct(tiny, "train", 1, tile=1)
    second = run(tiny)
    assert methods(second) == ["joint"]
    assert second.trained[0].model.parent == first.trained[0].model.version
    rows = second.trained[0].snapshot.rows
    assert sum(row.source == "correction" for row in rows) == 3, "all corrections, not only the new one"


def test_a_correction_that_was_changed_is_new(tiny: Tiny, quick: None) -> None:
    (item,) = correct(tiny, "train", 1)
    run(tiny)
    tiny.studio.advance(1)
    tiny.studio.update(1, result=tiny.regions(item)[:1])
    assert methods(run(tiny)) == ["joint"]


def test_fewer_corrections_than_asked_for_train_nothing(tiny: Tiny, quick: None) -> None:
    policy = replace(POLICY, min_new_corrections=3)
    correct(tiny, "train", 2)
    assert methods(run(tiny, policy)) == ["cdl"]
    assert run(tiny, policy).trained == []
    correct(tiny, "train", 1, tile=1)
    assert methods(run(tiny, policy)) == ["joint"]


def test_many_more_weak_labels_make_a_new_base(tiny: Tiny, quick: None, tmp_path: Path) -> None:
    run(tiny)
    write_fields(tmp_path / "more", [f"E{n:02d}" for n in range(1, 9)])
    add_plate(tiny, tmp_path / "more")
    assert methods(run(tiny)) == ["cdl"]
    assert run(tiny).trained == []


def test_another_normalisation_makes_a_new_base(
    tiny: Tiny, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A joint model that went on from the old one would be shown other images than its base knew."""
    assert methods(run(tiny, POLICY)) == ["cdl"]
    before = trainer.runs.preset

    def softened(*args: Any, **rest: Any) -> Any:
        return replace(before(*args, **rest), normalisation=Normalisation(softness=10))

    monkeypatch.setattr(trainer.runs, "preset", softened)
    monkeypatch.setattr(trainer.cycle, "preset", softened)
    assert methods(run(tiny, POLICY)) == ["cdl"]
    assert run(tiny, POLICY).trained == []


def test_another_teacher_or_another_agreement_makes_a_new_base(tiny: Tiny, quick: None) -> None:
    run(tiny)
    cip = replace(tiny.assay.cip, teachers=(Teacher(parameters={"cell_sigma": 3}),))
    for changed in (cip, replace(cip, agreement=1.0)):
        tiny.assay = replace(tiny.assay, cip=changed)
        outcome = run(tiny)
        assert methods(outcome) == ["cdl"]
        rows = [row for row in outcome.trained[0].snapshot.rows if row.source == "weak"]
        assert {row.agreement for row in rows} == {changed.agreement}
        assert all(row.confidence is not None for row in rows)
        assert run(tiny).trained == []


def test_another_preset_makes_a_new_base(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of another shape cannot go on from the old CDL."""

    def preset(name: str, method: Any, assay: Any, seed: int, **_: Any) -> Any:
        config = replace(smoke(method, assay, seed), crop=32, batch=2, epochs=1, steps_per_epoch=2)
        return replace(config, network=replace(config.network, width=8 if name == "smoke" else 4))

    monkeypatch.setattr(trainer.runs, "preset", preset)
    correct(tiny, "train", 1)
    run(tiny)
    correct(tiny, "train", 1, tile=1)
    assert methods(run(tiny, preset="fast")) == ["cdl", "joint"]


# --- the contest ---


def test_a_winning_challenger_is_promoted_and_published(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    correct_all_splits(tiny)
    outcome = run(tiny)
    cdl, joint = (trained.model.version for trained in outcome.trained)
    assert (outcome.outcome, outcome.challenger, outcome.active_after) == ("promoted", joint, joint)
    assert outcome.reason.startswith("promoted: mean IoU 1.00 against 0.7")
    assert (status(tiny, joint), status(tiny, cdl)) == ("active", "rejected")
    assert status(tiny, outcome.active_before) == "retired"
    window = {item for item in tiny.items() if tiny.split_of(item) == "train" and tiny.standing(item) is None}
    assert len(window) == 30, "40 of training wells, 10 of them finished"
    leased = set(tiny.held())
    assert leased - window, "held-out items are handed out too"
    assert outcome.published_tasks == len(window | leased)
    check_in_force(tiny, joint, outcome.active_before)
    scores = tiny.studio.scores()
    assert all(scores[tiny.task_of(item)] is not None for item in leased)


def test_the_better_one_on_validation_is_the_challenger(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.truth, "joint": said.nothing}
    correct_all_splits(tiny)
    outcome = run(tiny)
    assert outcome.challenger == outcome.trained[0].model.version, "the CDL, although the joint is newer"


def test_a_losing_challenger_is_rejected_and_nothing_changes(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.nothing}
    correct_all_splits(tiny)
    tiny.intake.reconcile(tiny.assay)
    cip = tiny.store.models.active(tiny.name).version
    predictions = dict(tiny.studio.predictions)
    outcome = run(tiny)
    assert (outcome.outcome, outcome.active_after) == ("kept", cip)
    assert "on validation items no candidate is better than it (joint 0.2" in outcome.reason
    assert outcome.reason.endswith("3 wells), so no contest was held")
    assert tiny.store.models.contests(tiny.name) == []
    assert {status(tiny, t.model.version) for t in outcome.trained} == {"rejected"}
    assert outcome.published_tasks == 0
    check_in_force(tiny, cip)
    assert {n: p for n, p in tiny.studio.predictions.items() if n in predictions} == predictions


def test_a_challenger_that_loses_the_contest_is_rejected_and_the_next_one_must_prove_more(
    tiny: Tiny, said: Said
) -> None:
    validation = {record.image_id for record in tiny.store.images.all(tiny.name, ["validation"])}
    misled = {name: said.truth[name] if name in validation else said.nothing[name] for name in said.truth}
    said.by_method = {"cdl": said.nothing, "joint": misled}
    correct_all_splits(tiny)
    cip = tiny.active()
    first = run(tiny)
    assert (first.outcome, first.active_after) == ("kept", cip)
    assert "not better than it" in first.reason
    assert {status(tiny, t.model.version) for t in first.trained} == {"rejected"}
    check_in_force(tiny, cip)
    said.by_method["cdl"] = misled
    tiny.add_version("cdl-20260101-0123abcd")
    second = run(tiny)
    assert second.challenger == "cdl-20260101-0123abcd"
    assert first.decision is not None
    assert second.decision is not None
    assert (first.decision.look, second.decision.look) == (1, 2)
    assert second.decision.confidence > first.decision.confidence


def test_four_methods_stand_side_by_side(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "mdl": said.truth, "joint": said.nothing}
    correct_all_splits(tiny)
    outcome = run(tiny, replace(POLICY, methods=("cdl", "mdl", "joint")))
    assert methods(outcome) == ["cdl", "mdl", "joint"]
    assert [one.method for one in outcome.candidates] == ["cip", "cdl", "mdl", "joint"]
    (mdl,) = (one for one in outcome.candidates if one.is_challenger)
    assert (mdl.method, mdl.validation_mean_iou) == ("mdl", pytest.approx(1.0))
    (cip,) = (one for one in outcome.candidates if one.is_active)
    assert cip.version == outcome.active_before
    assert (outcome.outcome, outcome.active_after) == ("promoted", mdl.version)
    judged = {version for version, split in outcome.evaluations if split == "sealed"}
    assert judged == {one.version for one in outcome.candidates}


def test_a_cycle_that_is_called_off_changes_nothing(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    correct_all_splits(tiny)
    cip = tiny.active()
    with pytest.raises(CycleCancelled, match="cancelled before step 'contest'"):
        run(tiny, cancelled=lambda: len(tiny.store.models.all(tiny.name)) == 3)
    check_in_force(tiny, cip)
    assert run(tiny).outcome == "promoted", "what was trained waits for the next cycle"


def test_with_too_few_contest_wells_the_candidates_wait(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    for split, count in (("train", 3), ("validation", 3), ("contest", 3)):
        correct(tiny, split, count)  # type: ignore[arg-type]
    waiting = run(tiny)
    assert waiting.outcome == "kept"
    assert "4 are needed (1 more)" in waiting.reason
    assert {status(tiny, t.model.version) for t in waiting.trained} == {"candidate"}
    correct(tiny, "contest")
    decided = run(tiny)
    assert decided.trained == []
    assert (decided.outcome, decided.challenger) == ("promoted", waiting.trained[1].model.version)
    check_in_force(tiny, decided.active_after, decided.active_before)


def test_contest_items_that_wait_for_their_second_reader_do_not_count(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.nothing}
    tiny.set_policy(QueuePolicy.all_ranked(strategy="entropy", size=8, contest_share=1.0, experts=(ADA, BOB)))
    refill(tiny.studio, tiny.store, tiny.assay)
    asked = tiny.held(ADA.email)
    assert asked == tiny.held(BOB.email), "both read every contest item"
    correct_all_splits(tiny)
    waiting = [item for item in asked if tiny.studio.task(tiny.task_of(item))["annotations"]]
    assert waiting
    outcome = run(tiny)
    (note,) = outcome.notes
    assert note.startswith(f"{len(waiting)} contest item(s) do not count yet")
    assert {version for version, _ in outcome.judged} >= {outcome.active_before}
    judged = {item.correction.item for item in outcome.judged[outcome.active_before, "contest"]}
    assert not judged & set(waiting)
    assert len(judged) == 5 - len(waiting)
    for item in waiting:
        tiny.correct(item, completed_by=OTHER_EXPERT["id"])
    again = run(tiny)
    assert again.notes == [], "two experts agree"
    judged = {item.correction.item for item in again.judged[again.active_before, "contest"]}
    assert set(waiting) <= judged


def test_a_validation_nobody_could_judge_counts_for_nothing(tiny: Tiny, said: Said) -> None:
    """All pixels ignored: the mean IoU is not a number, and must not decide who the challenger is."""
    from labelstudio_config.payloads import prediction_result

    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    correct(tiny, "train", 1)
    correct(tiny, "contest")
    record = tiny.store.images.all(tiny.name, ["validation"])[0]
    unsure_HW = np.full((32, 40), 255, np.uint8)
    tiny.studio.annotate(
        tiny.task_of(Item(image_id=record.image_id, tile=0)), prediction_result(unsure_HW, tiny.assay)
    )
    outcome = run(tiny)
    assert outcome.challenger == outcome.trained[-1].model.version, "the newest"


# --- what goes wrong ---


def test_a_cycle_whose_publication_is_cut_off_leaves_the_old_version_in_force(
    tiny: Tiny, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    correct_all_splits(tiny)
    cip = tiny.store.models.active(tiny.name).version
    push = tiny.studio.push_predictions

    def half(project_id: int, predictions: Any) -> int:
        push(project_id, predictions[:5])
        raise LabelStudioUnavailable("Label Studio: POST import/predictions: timed out")

    monkeypatch.setattr(tiny.studio, "push_predictions", half)
    with pytest.raises(LabelStudioUnavailable):
        run(tiny)
    assert (tiny.store.models.active(tiny.name).version, tiny.studio.model_version) == (cip, cip)
    monkeypatch.setattr(tiny.studio, "push_predictions", push)
    outcome = run(tiny)
    assert outcome.trained == [], "the candidate that won is still there"
    assert outcome.outcome == "promoted"
    assert any("undid the half publication" in note for note in outcome.notes)
    check_in_force(tiny, outcome.active_after, cip)


def test_a_cycle_that_finishes_an_earlier_publication_knows_who_serves(tiny: Tiny, said: Said) -> None:
    said.by_method = {"cdl": said.nothing, "joint": said.truth}
    correct_all_splits(tiny)
    cip = tiny.active()
    activate = tiny.store.models.activate
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(tiny.studio, "delete_model_version", _refuse)
        broken.setattr(tiny.store.models, "activate", _refuse)
        with pytest.raises(LabelStudioUnavailable):
            run(tiny)
    assert tiny.store.models.activate == activate
    outcome = run(tiny)
    (joint,) = (m.version for m in tiny.store.models.all(tiny.name) if m.method == "joint")
    assert (outcome.active_before, outcome.active_after) == (joint, joint)
    assert any("finished the publication" in note for note in outcome.notes)
    check_in_force(tiny, joint, cip)


def _refuse(*_: Any) -> None:
    raise LabelStudioUnavailable("Label Studio: cut off")


def test_a_task_deleted_unheard_does_not_hold_up_an_interrupted_publication(
    tiny: Tiny, quick: None, tmp_path: Path
) -> None:
    """More items of the version in force were being pushed when all stopped; one of them is gone since."""
    write_fields(tmp_path / "more", ["E01"])
    add_plate(tiny, tmp_path / "more")
    tiny.studio.crash = (len(tiny.studio.calls) + 2, "before")
    with pytest.raises(LabelStudioUnavailable):
        tiny.publish_active()
    tiny.studio.crash = None
    tiny.studio.delete_task(tiny.task_of(Item(image_id="P-E01", tile=2)))
    outcome = run(tiny)
    assert any("finished the publication" in note for note in outcome.notes)
    held = tiny.studio.prediction_tasks(3, outcome.active_after)
    assert {tiny.task_of(Item(image_id="P-E01", tile=tile)) for tile in (0, 1, 3)} <= held


def test_progress_is_told_and_grows(tiny: Tiny, quick: None) -> None:
    told: list[tuple[str, float]] = []
    run(tiny, progress=lambda step, share: told.append((step, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert any("epoch 1/1" in step for step, _ in told)
