"""A version that exists already is brought into force by a person: forward, or back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import Painted, Tiny, make_tiny

from cytoloop.domain.errors import LabelStudioUnavailable, StateError, UnknownVersion
from labelstudio_config.publish import resume
from trainer import bringing
from trainer.bringing import bring_into_force

ONE, TWO = "cdl-20260101-00000001", "cdl-20260102-00000002"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=8)
    made.publish_active()
    real = bringing.load_predictor
    monkeypatch.setattr(
        bringing,
        "load_predictor",
        lambda store, registry, assay, model, device: (
            real(store, registry, assay, model)
            if model.method == "cip"
            else Painted(model.version, made.truth)
        ),
    )
    for version in (ONE, TWO):
        made.add_version(version)
    yield made
    made.store.close()


def bring(tiny: Tiny, kind: str, target: str | None = None) -> str:
    brought = bring_into_force(
        tiny.store,
        tiny.registry,
        tiny.studio,
        tiny.assay,
        kind,  # type: ignore[arg-type]
        target,
        "ada",
        "c1",
    )
    assert tiny.active() == tiny.studio.model_version == brought.active_after
    assert all(tiny.prediction_of(item) for item in tiny.held()), "what is leased shows it"
    return brought.reason


def test_going_back_leads_through_all_that_served(tiny: Tiny) -> None:
    cip = tiny.active()
    assert bring(tiny, "promote", ONE) == f"ada brought into force {ONE}; in force before: {cip}"
    bring(tiny, "promote", TWO)
    assert bring(tiny, "rollback") == f"ada went back to {ONE}; in force before: {TWO}"
    bring(tiny, "rollback")
    assert tiny.active() == cip, "the second step back does not lead forward again"
    with pytest.raises(StateError, match=f"{cip} is the first version in force; there is none before it"):
        bring(tiny, "rollback")
    bring(tiny, "promote", TWO)
    assert tiny.store.publications.previous(tiny.name) == cip


def test_leases_stay_with_their_experts(tiny: Tiny) -> None:
    held = tiny.held()
    bring(tiny, "promote", ONE)
    bring(tiny, "rollback")
    assert tiny.held() == held


def test_what_cannot_serve_is_refused_and_nothing_changes(tiny: Tiny) -> None:
    cip = tiny.active()
    with pytest.raises(UnknownVersion, match="'cdl-20260109-00000009' is not in this home"):
        bring(tiny, "promote", "cdl-20260109-00000009")
    with pytest.raises(StateError, match="is in force already"):
        bring(tiny, "promote", cip)
    with pytest.raises(StateError, match="no version was named"):
        bring(tiny, "promote")
    tiny.store.models.set_status(ONE, "rejected")
    tiny.store.models.set_status(ONE, "pruned")
    with pytest.raises(StateError, match=r"its weights were removed \(trainer\.keep_versions\)"):
        bring(tiny, "promote", ONE)
    assert tiny.active() == tiny.studio.model_version == cip


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_step_back_that_is_cut_off_anywhere_is_finished_or_undone(tiny: Tiny, when: str) -> None:
    bring(tiny, "promote", ONE)
    bring(tiny, "promote", TWO)
    cut_off = 0
    for call in range(1, 100):
        tiny.studio.crash = (len(tiny.studio.calls) + call, when)
        try:
            bring(tiny, "rollback", ONE)
            break
        except LabelStudioUnavailable:
            cut_off += 1
        tiny.studio.crash = None
        resume(tiny.studio, tiny.store, tiny.assay)
        assert tiny.active() in (ONE, TWO)
        assert tiny.studio.model_version == tiny.active()
        assert all(tiny.prediction_of(item) for item in tiny.held())
        if tiny.active() == ONE:
            bring(tiny, "promote", TWO)
    assert cut_off > 5
    assert tiny.active() == ONE
