"""The settings of a queue as a form: every key, what was typed, what was wrong with it."""

from __future__ import annotations

from dataclasses import fields
from html import unescape
from typing import TYPE_CHECKING

import pytest
from tiny import ADA, BATCH, BOB, Tiny

from cytoloop.domain.errors import InputError
from cytoloop.domain.queue_policy import QueuePolicy, item_name
from labelstudio_config.publish import publish
from ml_backend.dashboard.queue_form import FIELDS, document_of, key_of, typed

if TYPE_CHECKING:
    from conftest import Browser

PATH = "/queues/tiny/default"
FULL = QueuePolicy(
    strategy="entropy/minute+diverse",
    experts=(ADA, BOB),
    size=12,
    cap=20,
    lease_minutes=90.5,
    minutes=30,
    contest_share=0.2,
    overlap_share=0.1,
    gold_share=1 / 3,
    contest_canvas="blank",
    contest_readers=2,
    gold=("P-A01/0", "P-A02/3"),
    max_per_group=2,
    max_per_plate=9,
    skipped="retire",
    deleted="retire",
)


@pytest.fixture
def admin(home: Tiny, browser: Browser) -> Browser:
    home.publish_active()
    browser.log_in("admin")
    return browser


def applied(home: Tiny) -> object:
    return home.store.queues.policy(home.name, "default")


def test_every_key_of_a_policy_has_a_field_and_a_meaning() -> None:
    keys = [field.key for field in FIELDS]
    assert sorted(keys) == sorted(field.name for field in fields(QueuePolicy))
    assert all(field.help or field.kind == "choice" for field in FIELDS)


@pytest.mark.parametrize("policy", [QueuePolicy(), FULL, BATCH])
def test_what_is_shown_is_read_back_as_it_was(policy: QueuePolicy) -> None:
    assert QueuePolicy.from_document(document_of(typed(policy), "queue 'q'"), "queue 'q'") == policy


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), (" 0.25 ", 0.25), ("", None), ("many", "many"), ("0,25", "0,25"), ("1e2", 100.0)],
)
def test_a_number_is_read_as_typed(text: str, value: object) -> None:
    read = document_of({"size": text}, "queue 'q'")["size"]
    assert (read, type(read)) == (value, type(value))


def test_experts_are_a_line_each() -> None:
    lines = "Ada Lovelace <ada@lab.org>\r\n\r\n  Bob <BOB@lab.org>  \n<script> <c@lab.org>"
    assert document_of({"experts": lines}, "queue 'q'")["experts"] == [
        {"name": "Ada Lovelace", "email": "ada@lab.org"},
        {"name": "Bob", "email": "BOB@lab.org"},
        {"name": "<script>", "email": "c@lab.org"},
    ]


@pytest.mark.parametrize("line", ["ada@lab.org", "Ada ada@lab.org", "<ada@lab.org>", "Ada <ada@lab.org> x"])
def test_a_line_that_is_no_expert_is_named(line: str) -> None:
    with pytest.raises(InputError) as caught:
        document_of({"experts": f"Bob <bob@lab.org>\n{line}"}, "queue 'q'")
    assert str(caught.value) == (
        f"queue 'q': key 'experts': line 2: got {line!r}, expected a name and an e-mail, as in 'Ada <ada@lab.org>'"
    )


def test_an_error_points_at_its_field() -> None:
    assert key_of("queue 'q': key 'gold.3': got '' (str), expected <image id>/<tile>") == "gold"
    assert key_of("queue 'q': shares are 120 % in all, expected at most 100 %") is None


def test_the_form_shows_the_policy_in_force(home: Tiny, admin: Browser) -> None:
    home.set_policy(FULL)
    page = admin.get(PATH)
    assert 'name="size"' in page
    assert 'value="12"' in page
    assert '<option value="entropy/minute+diverse" selected>' in page
    assert '<option value="blank" selected>nothing</option>' in page
    assert "Ada &lt;ada@lab.org&gt;\nBob &lt;bob@lab.org&gt;</textarea>" in page
    assert "P-A01/0\nP-A02/3</textarea>" in page


def test_what_is_saved_holds_for_the_next_batch(home: Tiny, admin: Browser) -> None:
    changed = QueuePolicy(strategy="margin", experts=(ADA,), size=3, gold=(item_name(home.items()[0]),))
    told = admin.does(PATH, typed(changed), on=PATH)
    assert (
        "Saved. The next batch of tiny/default is made by it; what experts hold now stays with them." in told
    )
    assert applied(home) == changed.document()
    assert "default : Ada; 3 items a batch, ranked by margin" in admin.reads()


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("size", "many", "key 'size': got 'many' (str), expected a whole number of at least 1"),
        ("size", "", "key 'size': got nothing, expected a whole number of at least 1"),
        ("size", "2.5", "key 'size': got 2.5 (float), expected a whole number of at least 1"),
        ("contest_share", "25", "key 'contest_share': got 25 (int), expected a share from 0 to 1"),
        ("contest_share", "nan", "key 'contest_share': got nan (float), expected a share from 0 to 1"),
        ("audit_share", "0.95", "shares are"),
        ("strategy", "luck", "key 'strategy': got 'luck' (str), expected one of"),
        ("experts", "Ada", "key 'experts': line 1: got 'Ada', expected a name and an e-mail"),
        ("experts", "Ada <ada>", "key 'experts.0': email is 'ada' (str), expected <name>@<host>"),
        ("gold", "P-Z99/0", "key 'gold': item 'P-Z99/0' is not in assay 'tiny'"),
        ("contest_readers", "2", "key 'contest_readers': got 2, the queue has one list that everyone shares"),
    ],
)
def test_what_is_wrong_comes_back_as_typed_with_the_reason(
    home: Tiny, admin: Browser, key: str, text: str, told: str
) -> None:
    answer = admin.send(PATH, {**typed(QueuePolicy()), "minutes": "30", key: text}, on=PATH)
    assert answer.status_code == 400
    page = unescape(answer.text)
    assert f"Nothing was saved: queue 'tiny/default': {told}" in page
    assert f'value="{text}"' in page or f">{text}</" in page or f"\n{text}</textarea>" in page
    assert 'value="30"' in page, "what was right is not lost"
    marked = page.count('aria-invalid="true"')
    assert marked == (0 if told == "shares are" else 1)
    assert applied(home) == BATCH.document()


def test_a_strategy_that_the_model_in_use_cannot_serve_is_refused(home: Tiny, admin: Browser) -> None:
    publish(home.studio, home.store, home.assay, home.add_version("cdl-20260101-0123abcd"))
    answer = admin.send(PATH, {**typed(QueuePolicy()), "strategy": "mutual-information"}, on=PATH)
    assert answer.status_code == 400
    assert "needs a network trained with dropout, which version cdl-20260101-0123abcd lacks" in answer.text
    assert applied(home) == BATCH.document()


def test_a_queue_that_is_not_there(home: Tiny, admin: Browser) -> None:
    told = "queue 'tiny/night' is not known; expected one of ['tiny/default']"
    assert told in admin.reads("/queues/tiny/night", 400)
    assert told in unescape(admin.send("/queues/tiny/night", typed(FULL)).text)
