"""What a run may learn from, and what it never sees."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Item

from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import SPLITS, Method, Split

SPLIT_OF: dict[str, Split] = {"t1": "train", "t2": "train", "v": "validation", "c": "contest", "s": "sealed"}
WEAK = {image_id: f"weak-{image_id}" for image_id in SPLIT_OF}
CORRECTED = {Item(image_id=i, tile=t): f"mask-{i}-{t}" for i in ("t1", "v", "c", "s") for t in (0, 1)}


def rows(
    method: Method, weak: Any = WEAK, corrected: Any = CORRECTED
) -> list[tuple[str, int | None, str, str]]:
    snapshot = make_snapshot("rosella", method, weak, corrected, SPLIT_OF)
    return [(r.image_id, r.tile, r.source, r.split) for r in snapshot.rows]


VALIDATION = [("v", 0, "correction", "validation"), ("v", 1, "correction", "validation")]
TAUGHT = [("t1", 0, "correction", "train"), ("t1", 1, "correction", "train")]
WEAK_ROWS = [("t1", None, "weak", "train"), ("t2", None, "weak", "train")]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("cdl", [*WEAK_ROWS, *VALIDATION]),
        ("mdl", [*TAUGHT, *VALIDATION]),
        ("joint", [*WEAK_ROWS, *TAUGHT, *VALIDATION]),
    ],
)
def test_each_method_learns_from_its_own(method: Method, expected: list[Any]) -> None:
    assert rows(method) == expected


@given(
    splits=st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from(SPLITS), min_size=1),
    method=st.sampled_from(["cdl", "mdl", "joint"]),
)
def test_held_out_wells_never_teach(splits: dict[str, Split], method: Method) -> None:
    weak = dict.fromkeys(splits, "w")
    corrected = {Item(image_id=i, tile=0): "m" for i in splits}
    if "train" not in splits.values():
        with pytest.raises(StateError):
            make_snapshot("rosella", method, weak, corrected, splits)
        return
    for row in make_snapshot("rosella", method, weak, corrected, splits).rows:
        assert row.split == splits[row.image_id]
        assert row.split in ("train", "validation")
        assert row.split == "train" or row.source == "correction"


def test_the_digest_is_of_the_rows_and_the_method_alone() -> None:
    def digest(method: Method = "joint", weak: Any = WEAK, corrected: Any = CORRECTED) -> str:
        return make_snapshot("rosella", method, weak, corrected, SPLIT_OF).digest

    reference = digest()
    assert digest(weak=dict(reversed(WEAK.items())), corrected=dict(reversed(CORRECTED.items()))) == reference
    assert digest(corrected={**CORRECTED, Item(image_id="c", tile=0): "other"}) == reference
    assert digest(corrected={**CORRECTED, Item(image_id="t1", tile=0): "other"}) != reference
    assert digest(weak={**WEAK, "t2": "other"}) != reference
    assert digest("mdl") != reference


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        ("cdl", "de98f707715d4d3e172dd414ec75908038cba2f09c2a78347e5f694f3fe243ae"),
        ("mdl", "68177a68dc084a7dc32ff4aaddd8b6ca94524bc1288d8ce1e6f3355a2fc2e8e7"),
        ("joint", "6f2a5e27ed7ae1e2d3f7cd11e64293ad9353a1709fc3092f9df62b66387a0cf0"),
    ],
)
@pytest.mark.parametrize("agreement", [0.0, 0.8])
def test_masks_of_one_teacher_keep_the_digest_they_always_had(
    method: Method, digest: str, agreement: float
) -> None:
    corrected = {Item(image_id="t1", tile=0): "mask-t1-0", Item(image_id="v", tile=1): "mask-v-1"}
    snapshot = make_snapshot("rosella", method, {"t1": "weak-t1"}, corrected, SPLIT_OF, {}, agreement)
    assert snapshot.digest == digest
    assert {row.agreement for row in snapshot.rows} == {0.0}


def test_rows_say_how_sure_teachers_were_and_what_agreement_is_asked_of_them() -> None:
    def snapshot(confidences: Any, agreement: float) -> Any:
        return make_snapshot("rosella", "joint", WEAK, CORRECTED, SPLIT_OF, confidences, agreement)

    made = snapshot({"t1": "sure-t1", "c": "sure-c"}, 0.8)
    asked = {(r.image_id, r.source): (r.confidence, r.agreement) for r in made.rows}
    assert asked[("t1", "weak")] == ("sure-t1", 0.8)
    assert asked[("t2", "weak")] == asked[("t1", "correction")] == (None, 0.0)
    digests = {made.digest, snapshot({"t1": "other"}, 0.8).digest, snapshot({"t1": "sure-t1"}, 0.5).digest}
    assert len(digests | {snapshot({}, 0.8).digest}) == 4
    assert snapshot({"t1": "sure-t1"}, 0.8).digest == made.digest


@pytest.mark.parametrize(
    ("method", "weak", "corrected", "message"),
    [
        ("cdl", {}, CORRECTED, "no weak labels of training wells yet; cdl has nothing to learn from"),
        ("mdl", WEAK, {}, "no corrections of training wells yet; mdl has nothing"),
        ("mdl", WEAK, {Item(image_id="v", tile=0): "m"}, "no corrections of training wells"),
        ("cdl", {"c": "w"}, {}, "no weak labels of training wells"),
    ],
)
def test_nothing_to_learn_from_is_told(method: Method, weak: Any, corrected: Any, message: str) -> None:
    with pytest.raises(StateError, match=f"assay 'rosella': {message}"):
        rows(method, weak, corrected)


def test_what_a_run_only_watches_is_part_of_what_it_saw() -> None:
    def digest(*watched: str) -> str:
        weak = {**WEAK, "v1": "weak-v1", "v2": "weak-v2"}
        splits = {**SPLIT_OF, "v1": "validation", "v2": "validation"}
        return make_snapshot("rosella", "cdl", weak, {}, splits, weak_validation=watched).digest  # type: ignore[arg-type]

    assert digest() != digest("v1") != digest("v1", "v2")
    assert digest("v1", "v2") == digest("v2", "v1", "v1")
    with pytest.raises(InputError, match="image 't1' is of a train well; only those of validation wells"):
        digest("t1")
