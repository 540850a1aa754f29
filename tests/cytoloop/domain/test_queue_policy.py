"""Policy of a queue: what may be written, and what each mistake is answered with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import Item, make_assay

from cytoloop.domain.errors import ConfigError, InputError
from cytoloop.domain.queue_policy import SHARES, Expert, QueuePolicy, item_name, item_named, policy_in_force
from cytoloop.domain.strategies import DEFAULT_STRATEGY, STRATEGIES

ADA = {"name": "Ada", "email": "ada@lab.org"}
BOB = {"name": "Bob", "email": "bob@lab.org"}
TWO = [ADA, BOB]


def read(**document: Any) -> QueuePolicy:
    return QueuePolicy.from_document(document, "q.yaml")


def test_what_is_left_out_is_at_its_default() -> None:
    policy = read()
    assert policy == QueuePolicy()
    assert (policy.strategy, policy.experts, policy.size, policy.most_held) == (DEFAULT_STRATEGY, (), 40, 40)
    assert [getattr(policy, key) for key in SHARES] == [0.25, 0.15, 0.05, 0.1, 0.0, 0.0, 0.0]


def test_every_key_arrives() -> None:
    document = {
        "strategy": "entropy/minute+diverse",
        "experts": TWO,
        "size": 20,
        "cap": 10,
        "lease_minutes": 60.5,
        "minutes": 30,
        "contest_share": 0.2,
        "validation_share": 0.1,
        "sealed_share": 0,
        "audit_share": 0.15,
        "overlap_share": 0.05,
        "gold_share": 0.1,
        "blank_share": 0.02,
        "contest_canvas": "blank",
        "contest_readers": 1,
        "overlap_readers": 2,
        "gold": ["plate/B03/0", "b/1"],
        "max_per_group": 3,
        "max_per_plate": 9,
        "skipped": "retire",
        "deleted": "retire",
    }
    policy = read(**document)
    assert policy.document() == document
    assert policy.experts == (
        Expert(name="Ada", email="ada@lab.org"),
        Expert(name="Bob", email="bob@lab.org"),
    )
    assert policy.most_held == 10


@given(
    share=st.sampled_from(SHARES),
    value=st.floats(0, 0.2),
    size=st.integers(1, 500),
    cap=st.none() | st.integers(1, 500),
    experts=st.sampled_from([[], [ADA], TWO]),
    strategy=st.sampled_from(list(STRATEGIES)),
)
def test_a_document_is_read_back_as_it_was_written(
    share: str, value: float, size: int, cap: int | None, experts: list[Any], strategy: str
) -> None:
    if share == "overlap_share" and len(experts) < 2:
        value = 0.0
    policy = read(**{share: value, "size": size, "cap": cap, "experts": experts, "strategy": strategy})
    assert QueuePolicy.from_document(json.loads(json.dumps(policy.document())), "again") == policy


WRONG: list[tuple[Any, str]] = [
    ([], "q.yaml: got [] (list), expected a mapping of keys ['strategy', 'experts'"),
    (None, "q.yaml: got nothing, expected a mapping"),
    ({"leases": 3}, "q.yaml: key 'leases' is not known; expected one of ['strategy', 'experts', 'size'"),
    ({3: 3}, "q.yaml: key 3 is not known"),
    ({"size": "40"}, "q.yaml: key 'size': got '40' (str), expected a whole number of at least 1"),
    ({"size": 0}, "key 'size': got 0 (int), expected a whole number of at least 1"),
    ({"size": True}, "key 'size': got True (bool)"),
    ({"size": 4.0}, "key 'size': got 4.0 (float)"),
    ({"cap": 0}, "key 'cap': got 0 (int), expected a whole number of at least 1, or nothing"),
    ({"size": None}, "key 'size': got nothing, expected a whole number"),
    ({"lease_minutes": 0}, "key 'lease_minutes': got 0 (int), expected minutes above 0"),
    ({"lease_minutes": float("inf")}, "key 'lease_minutes': got inf (float)"),
    ({"minutes": -1}, "key 'minutes': got -1 (int), expected minutes above 0, or nothing"),
    ({"audit_share": 10}, "key 'audit_share': got 10 (int), expected a share from 0 to 1"),
    ({"audit_share": "10 %"}, "key 'audit_share': got '10 %' (str), expected a share from 0 to 1"),
    ({"blank_share": -0.1}, "key 'blank_share': got -0.1 (float)"),
    ({"sealed_share": float("nan")}, "key 'sealed_share': got nan (float), expected a share from 0 to 1"),
    (
        {"contest_share": 0.7, "validation_share": 0.3, "sealed_share": 0, "audit_share": 0.1},
        "q.yaml: shares are 110 % in all (contest_share 0.7 + validation_share 0.3 + audit_share 0.1), "
        "expected at most 100 %",
    ),
    ({"gold_share": 0.5}, "q.yaml: shares are 105 % in all (contest_share 0.25 + "),
    ({"strategy": "entropie"}, "key 'strategy': got 'entropie' (str), expected one of ['random', 'entropy'"),
    ({"strategy": ["entropy"]}, "key 'strategy': got ['entropy'] (list)"),
    ({"contest_canvas": "white"}, "got 'white' (str), expected one of ['model', 'cip', 'blank']"),
    ({"contest_readers": 3}, "key 'contest_readers': got 3 (int), expected 1, 2 or nothing"),
    ({"contest_readers": True}, "key 'contest_readers': got True (bool)"),
    ({"overlap_readers": 1}, "key 'overlap_readers': got 1 (int), expected a whole number of at least 2"),
    ({"skipped": "drop"}, "key 'skipped': got 'drop' (str), expected one of ['return', 'retire']"),
    ({"gold": "a/0"}, "key 'gold': got 'a/0' (str), expected a list of <image id>/<tile>"),
    ({"gold": ["a/0", "a"]}, "key 'gold.1': got 'a' (str), expected <image id>/<tile>"),
    ({"gold": ["a/0", 7]}, "key 'gold.1': got 7 (int)"),
    ({"gold": ["a/0", "a/0"]}, "key 'gold': item 'a/0' is there twice, expected each once"),
    ({"experts": "ada@lab.org"}, "key 'experts': got 'ada@lab.org' (str), expected a list of name and email"),
    ({"experts": ["ada@lab.org"]}, "q.yaml: key 'experts.0': got 'ada@lab.org' (str), expected a mapping"),
    ({"experts": [ADA, {"name": "Bob"}]}, "key 'experts.1': key 'email' is missing"),
    ({"experts": [{**ADA, "role": "admin"}]}, "key 'experts.0': key 'role' is not known"),
    ({"experts": [{**ADA, "email": "ada"}]}, "key 'experts.0': email is 'ada' (str), expected <name>@<host>"),
    ({"experts": [{**ADA, "email": "a@b, c@d"}]}, "expected <name>@<host>"),
    ({"experts": [{**ADA, "name": ""}]}, "key 'experts.0': name is '', expected 1 to 64 characters"),
    ({"experts": [{**ADA, "name": 3}]}, "key 'experts.0': name is 3 (int), expected printable text"),
    ({"experts": [{**ADA, "name": "a\nb"}]}, "expected printable text"),
    ({"experts": [{**ADA, "name": "Everyone"}]}, "and not 'everyone'"),
    ({"experts": [ADA, {**BOB, "name": "ada"}]}, "key 'experts': name 'ada' is there twice"),
    ({"experts": [ADA, {**BOB, "email": "ADA@lab.org"}]}, "e-mail 'ada@lab.org' is there twice"),
    (
        {"overlap_share": 0.1},
        "key 'overlap_readers': got 2, the queue has one list that everyone shares; "
        "expected as many experts, or overlap_share 0",
    ),
    ({"overlap_share": 0.1, "experts": [ADA]}, "key 'overlap_readers': got 2, the queue has 1 expert; "),
    ({"overlap_share": 0.1, "overlap_readers": 3, "experts": TWO}, "got 3, the queue has 2 experts; "),
    ({"contest_readers": 2, "experts": [ADA]}, "key 'contest_readers': got 2, the queue has 1 expert; "),
]


@pytest.mark.parametrize(("document", "message"), WRONG)
def test_a_mistake_is_answered_with_place_key_and_what_was_expected(document: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        QueuePolicy.from_document(document, "q.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("q.yaml: ")


def test_a_policy_made_in_code_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"queue policy: key 'size': got 0 \(int\)"):
        QueuePolicy(size=0)
    with pytest.raises(ConfigError, match="queue policy: shares are 135 % in all"):
        replace(QueuePolicy(), gold_share=0.8)
    with pytest.raises(ConfigError, match="expert: email is 'ada'"):
        Expert(name="Ada", email="ada")


def test_a_batch_all_ranked_has_no_shares() -> None:
    policy = QueuePolicy.all_ranked(size=7, audit_share=0.5)
    assert policy.size == 7
    assert {key: getattr(policy, key) for key in SHARES if getattr(policy, key)} == {"audit_share": 0.5}


def test_two_experts_read_a_contest_item_where_there_are_two() -> None:
    assert [read(experts=experts).readers_of("contest") for experts in ([], [ADA], TWO)] == [1, 1, 2]
    assert read(experts=TWO, contest_readers=1).readers_of("contest") == 1
    several = read(experts=TWO, overlap_share=0.1)
    assert [several.readers_of(role) for role in ("overlap", "ranked", "gold", "blank")] == [2, 1, 1, 1]


def test_the_canvas_is_that_of_the_role() -> None:
    policy = read(contest_canvas="blank")
    assert policy.canvas_of("contest") == policy.canvas_of("blank") == "blank"
    assert QueuePolicy().canvas_of("contest") == "cip"
    assert {policy.canvas_of(role) for role in ("ranked", "audit", "overlap", "gold", "sealed")} == {"model"}


def test_an_expert_is_known_by_name_and_by_email() -> None:
    policy = read(experts=TWO)
    assert policy.expert("bob", "q") == policy.expert("Bob@Lab.org", "q") == Expert(**BOB)
    assert QueuePolicy().expert("anyone", "q") is None
    for stranger in ("eve@lab.org", None):
        with pytest.raises(InputError, match=r"queue 'q': unknown expert .*expected one of \['ada@lab.org"):
            policy.expert(stranger, "q")


def test_gold_items_are_named_by_image_and_tile() -> None:
    item = Item(image_id="plate/B03", tile=2)
    assert item_name(item) == "plate/B03/2"
    assert item_named(item_name(item)) == item


def test_what_was_applied_wins_over_the_file_and_the_file_over_the_defaults() -> None:
    assay = replace(make_assay(), queues=("one", "two"), queue_policies={"one": {"size": 5}})
    assert policy_in_force(assay, "one", {"size": 7}).size == 7
    assert policy_in_force(assay, "one", None).size == 5
    assert policy_in_force(assay, "two", None) == QueuePolicy()
    with pytest.raises(ConfigError, match=f"queue {assay.name}/one, as applied: key 'old' is not known"):
        policy_in_force(assay, "one", {"old": 1})


def test_policies_are_no_part_of_an_assays_digest() -> None:
    assay = make_assay()
    with_policy = replace(assay, queue_policies={"default": {"size": 5}})
    assert with_policy.digest == assay.digest
