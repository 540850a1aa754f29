"""Policies of the queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytoloop.adapters.store import Store


def test_a_policy_comes_back_as_it_was_also_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.queues.policy("rosella", "main") is None
    store.queues.set("rosella", "main", {"size": 40, "experts": [{"name": "Ada µ"}], "max_per_group": None})
    store.queues.set("rosella", "second", {"size": 1})
    store.queues.set("other", "main", {"size": 2})
    store.queues.set("rosella", "second", {"size": 3})
    store.close()
    again = Store(tmp_path)
    assert again.queues.policy("rosella", "main") == {
        "size": 40,
        "experts": [{"name": "Ada µ"}],
        "max_per_group": None,
    }
    assert list(again.queues.all("rosella")) == ["main", "second"]
    assert again.queues.all("rosella")["second"] == {"size": 3}
    again.close()


def test_a_policy_that_is_no_json_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.queues.set("rosella", "main", {"size": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.queues.set("rosella", "main", {"audit_share": float("nan")})
    assert store.queues.policy("rosella", "main") == {"size": 1}
    store.close()
