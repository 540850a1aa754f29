from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fakes import OTHER_EXPERT
from flask.testing import FlaskClient
from tiny import ADA, BATCH, BOB, Tiny, make_tiny

from cytoloop.domain.errors import AccessDenied, ConfigError
from cytoloop.domain.queue_policy import SHARED, QueuePolicy, item_name
from cytoloop.domain.types import Item
from labelstudio_config.handout import refill
from labelstudio_config.publish import publish
from labelstudio_config.tabs import view_title
from ml_backend.access import ApiTokens, add_token, token_digest
from ml_backend.app import create_app
from ml_backend.service import Backend

TOKENS = {"expert": "ada-token", "admin": "root-token", "service": "robot-token"}
NAMES = {"expert": "ada@lab.org", "admin": "root", "service": "robot"}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    made.listen()
    for role, token in TOKENS.items():
        add_token(made.home / "api-tokens", token, NAMES[role], role)  # type: ignore[arg-type]
    yield made
    made.store.close()


@pytest.fixture
def web(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    monkeypatch.setattr("ml_backend.app.LabelStudioClient", lambda url, token: tiny.studio)
    app = create_app(tiny.settings, start=False)
    yield app.test_client()
    app.extensions["cytoloop"]["store"].close()


def bearer(role: str = "service") -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS.get(role, role)}"}


def backend_of(web: FlaskClient) -> Backend:
    backend: Backend = web.application.extensions["cytoloop"]["backend"]
    return backend


def get(web: FlaskClient, path: str, role: str = "service", status: int = 200, **query: Any) -> Any:
    answer = web.get(path, headers=bearer(role), query_string=query)
    assert answer.status_code == status, answer.text
    return answer.get_json()


# --- tokens ---


def test_a_token_file_holds_digests_only(tiny: Tiny) -> None:
    path = tiny.home / "api-tokens"
    text = path.read_text()
    assert token_digest("ada-token") in text
    assert "ada-token" not in text.replace(token_digest("ada-token"), "")
    assert path.stat().st_mode & 0o077 == 0
    add_token(path, "ada-token", "ada@lab.org", "expert")
    assert path.read_text() == text, "the same token again is nothing new"


def test_a_token_is_appended_to_a_file_without_a_last_newline(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{token_digest('old')} root admin", encoding="utf-8")
    add_token(path, "new", "robot", "service")
    assert ApiTokens(path).caller("old").role == "admin"
    assert ApiTokens(path).caller("new").role == "service"


def test_tokens_are_read_again_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    tokens = ApiTokens(path)
    with pytest.raises(AccessDenied):
        tokens.caller("new")
    path.write_text(f"# who may ask\n\n{token_digest('new')} robot service\n", encoding="utf-8")
    assert tokens.caller("new").name == "robot"
    kept = path.rename(tmp_path / "aside")
    for wrong in ("new", "", None):
        with pytest.raises(AccessDenied):
            tokens.caller(wrong)
    kept.rename(path)
    assert tokens.caller("new").name == "robot", "put back as it was"


@pytest.mark.parametrize("line", ["robot service", "00 robot service", f"{'0' * 64} robot king"])
def test_a_wrong_line_is_named_without_showing_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# first\n{line}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="tokens line 2: expected") as caught:
        ApiTokens(path).caller("x")
    assert line not in str(caught.value)


def test_no_token_file_is_nobody() -> None:
    with pytest.raises(AccessDenied):
        ApiTokens(None).caller("x")


@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/worklist", "/api/v1/queues/default", "/api/v1/models", "/api/v1/cycles/x"),
        *("/api/v1/reports/x", "/reports/x"),
    ],
)
@pytest.mark.parametrize("token", ["guessed", ""])
def test_without_a_token_of_this_server_nothing_is_told(web: FlaskClient, path: str, token: str) -> None:
    get(web, path, token, 401)
    assert web.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/cycles/x", "/api/v1/queues/default"])
def test_what_an_expert_may_not_see(web: FlaskClient, path: str) -> None:
    assert "role 'expert' may not" in get(web, path, "expert", 403)["error"]


def test_a_browser_sends_the_token_as_a_password(web: FlaskClient) -> None:
    assert web.get("/api/v1/models", auth=("whoever", "robot-token")).status_code == 200
    assert web.get("/api/v1/models", auth=("robot-token", "")).status_code == 401


# --- worklist ---


def test_the_worklist_is_in_the_order_of_the_tab(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    entries = get(web, "/api/v1/worklist", queue="default")["entries"]
    leased = [entry for entry in entries if entry["lease"] is not None]
    title = view_title(tiny.store, tiny.assay, "default", SHARED)
    assert [entry["task_id"] for entry in leased] == tiny.studio.tab(title)
    assert len(leased) == BATCH.size
    assert [entry["rank"] for entry in entries] == list(range(1, len(entries) + 1))
    following = entries[BATCH.size :]
    assert len(following) == 3, "training items that nobody holds yet"
    for part in (leased, following):
        scores = [entry["score"] for entry in part]
        assert scores == sorted(scores, reverse=True), "higher = ask sooner"
    assert set(entries[0]) == {
        *("rank", "task_id", "image_id", "tile", "score", "reason", "strategy", "model_version", "lease"),
        "url",
    }


def test_what_is_finished_leaves_the_worklist(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    first, second = get(web, "/api/v1/worklist", limit=2)["entries"]
    tiny.correct(Item(image_id=first["image_id"], tile=first["tile"]))
    tiny.intake.drain()
    (now_first,) = get(web, "/api/v1/worklist", limit=1)["entries"]
    assert now_first == {**second, "rank": 1}
    assert first["task_id"] != now_first["task_id"]


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "many", "1.5", ""])
def test_a_limit_is_a_whole_number(web: FlaskClient, limit: str) -> None:
    message = get(web, "/api/v1/worklist", status=400, limit=limit)["error"]
    assert message == f"limit is {limit!r}, expected a whole number from 1 to 10000"


def test_an_unknown_queue_names_the_known_ones(web: FlaskClient) -> None:
    message = get(web, "/api/v1/worklist", status=400, queue="night")["error"]
    assert message == "queue 'night' is not known; expected one of ['tiny/default']"


def test_before_the_first_batch_the_worklist_is_empty(web: FlaskClient) -> None:
    assert get(web, "/api/v1/worklist", queue="tiny/default") == {"entries": []}


def test_an_expert_sees_its_own_list_only(web: FlaskClient) -> None:
    get(web, "/api/v1/worklist", "expert")
    get(web, "/api/v1/worklist", "expert", expert="ada@lab.org")
    assert "acts only as itself" in get(web, "/api/v1/worklist", "expert", 403, expert="bob")["error"]
    get(web, "/api/v1/worklist", "service", expert="bob")


# --- leases ---


TWO = QueuePolicy.all_ranked(strategy="entropy", size=2, cap=3, experts=(ADA, BOB))


def ask(
    web: FlaskClient, method: str, path: str, role: str = "service", status: int = 200, body: Any = None
) -> Any:
    answer = web.open(path, method=method, json=body, headers=bearer(role))
    assert answer.status_code == status, answer.text
    return answer.get_json()


def leases(tiny: Tiny, expert: str) -> list[str]:
    return [str(lease.id) for lease in tiny.store.leases.held(tiny.name, expert=expert)]


def test_an_expert_claims_for_itself(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    assert len(leases(tiny, ADA.email)) == 2
    (new,) = ask(web, "POST", "/api/v1/worklist/claim", "expert", 201, {})["entries"]
    held = leases(tiny, ADA.email)
    assert len(held) == 3, "up to the cap"
    assert new["lease"] == held[-1]
    listed = get(web, "/api/v1/worklist", "expert")["entries"]
    assert new in listed
    assert {entry["lease"] for entry in listed[:3]} == set(held)
    title = view_title(tiny.store, tiny.assay, "default", ADA.email)
    assert new["task_id"] in tiny.studio.tab(title)
    assert ask(web, "POST", "/api/v1/worklist/claim", "expert", 200, {}) == {"entries": []}


def test_an_expert_acts_as_nobody_else(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    bobs = leases(tiny, BOB.email)
    body = {"expert": BOB.email}
    said = ask(web, "POST", "/api/v1/worklist/claim", "expert", 403, body)["error"]
    assert said == "an expert's token acts only as itself ('ada@lab.org'), not as 'bob@lab.org'"
    said = ask(web, "DELETE", f"/api/v1/leases/{bobs[0]}", "expert", 403)["error"]
    assert said == f"lease {bobs[0]}: belongs to another expert, expected one of 'ada@lab.org'"
    assert leases(tiny, BOB.email) == bobs


def test_a_service_claims_for_whom_it_names(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    body = {"queue": "tiny/default", "expert": "Bob", "count": 1, "minutes": 500}
    assert len(ask(web, "POST", "/api/v1/worklist/claim", "service", 201, body)["entries"]) == 1
    assert len(leases(tiny, BOB.email)) == 3
    assert len(leases(tiny, ADA.email)) == 2
    said = ask(web, "POST", "/api/v1/worklist/claim", "service", 400, {})["error"]
    assert said == ("queue 'default': unknown expert None; expected one of ['ada@lab.org', 'bob@lab.org']")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "got NoneType, expected a JSON object"),
        ([], "got list, expected a JSON object"),
        ({"expert": 3}, "expert is 3, expected a name or an e-mail"),
        ({"expert": "eve"}, "unknown expert 'eve'"),
        ({"expert": "ada", "queue": "night"}, "queue 'night' is not known; expected one of ['tiny/default']"),
        ({"expert": "ada", "queue": ["default"]}, "queue is ['default'], expected a name"),
        ({"expert": "ada", "count": 0}, "count is 0, expected a whole number from 1 to 1000"),
        ({"expert": "ada", "count": True}, "count is True, expected a whole number"),
        ({"expert": "ada", "count": "3"}, "count is '3', expected a whole number"),
        ({"expert": "ada", "count": 1001}, "count is 1001, expected a whole number"),
        ({"expert": "ada", "minutes": 0}, "minutes is 0, expected a number above 0"),
        ({"expert": "ada", "minutes": float("inf")}, "minutes is inf, expected a number above 0"),
        ({"expert": "ada", "minutes": "20"}, "minutes is '20', expected a number above 0"),
    ],
)
def test_a_claim_that_cannot_be_understood(tiny: Tiny, web: FlaskClient, body: Any, told: str) -> None:
    tiny.publish_active(TWO)
    assert told in ask(web, "POST", "/api/v1/worklist/claim", "service", 400, body)["error"]
    assert len(tiny.held()) == 4


def test_a_claim_without_a_token_is_refused(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    for path in ("/api/v1/worklist/claim", "/api/v1/leases/1", "/api/v1/queues/default"):
        method = {"claim": "POST", "1": "DELETE"}.get(path.rsplit("/", 1)[1], "PUT")
        assert web.open(path, method=method, json={}).status_code == 401
        ask(web, method, path, "guessed", 401, {})
    assert len(tiny.held()) == 4


def test_a_claim_while_label_studio_is_down_promises_nothing(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    tiny.studio.is_down = True
    ask(web, "POST", "/api/v1/worklist/claim", "expert", 503, {})
    tiny.studio.is_down = False
    assert len(tiny.held()) == 4


def test_who_gives_an_item_back_sees_it_no_more(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    entry = get(web, "/api/v1/worklist", "expert")["entries"][0]
    title = view_title(tiny.store, tiny.assay, "default", ADA.email)
    next_task = tiny.studio.open_tab(title)
    assert next_task(1) == entry["task_id"]
    answer = ask(web, "DELETE", f"/api/v1/leases/{entry['lease']}", "expert")
    assert answer == {"lease": entry["lease"], "state": "released"}
    assert entry["task_id"] not in tiny.studio.tab(title)
    assert next_task(1) not in (entry["task_id"], None), "a page that is open goes on with the next"
    following = [e for e in get(web, "/api/v1/worklist", "expert")["entries"] if e["lease"] is None]
    assert entry["task_id"] in [e["task_id"] for e in following]
    said = ask(web, "DELETE", f"/api/v1/leases/{entry['lease']}", "expert", 409)["error"]
    assert f"lease {entry['lease']}: is released since" in said
    assert "lease 999: was never given" in ask(web, "DELETE", "/api/v1/leases/999", "expert", 404)["error"]


def test_what_is_given_back_while_label_studio_is_down_leaves_the_tab_at_the_next_look(
    tiny: Tiny, web: FlaskClient
) -> None:
    tiny.publish_active(TWO)
    first, second = get(web, "/api/v1/worklist", "service", expert=BOB.email)["entries"][:2]
    title = view_title(tiny.store, tiny.assay, "default", BOB.email)
    next_task = tiny.studio.open_tab(title)
    tiny.studio.is_down = True
    ask(web, "DELETE", f"/api/v1/leases/{first['lease']}", "admin", 503)
    tiny.studio.is_down = False
    assert leases(tiny, BOB.email) == [second["lease"]]
    refill(tiny.studio, tiny.store, tiny.assay)
    assert tiny.studio.tab(title) == [second["task_id"]]
    assert next_task(OTHER_EXPERT["id"]) == second["task_id"], "a page that is open shows it no more"


def test_the_last_item_that_is_given_back_leaves_the_tab_too(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(replace(TWO, size=1))
    (lease,) = leases(tiny, ADA.email)
    ask(web, "DELETE", f"/api/v1/leases/{lease}", "expert")
    assert tiny.studio.tab(view_title(tiny.store, tiny.assay, "default", ADA.email)) == []


def test_an_administrator_takes_an_item_back_from_anyone(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    first, second = leases(tiny, BOB.email)
    ask(web, "DELETE", f"/api/v1/leases/{first}", "admin")
    assert leases(tiny, BOB.email) == [second]


def test_a_lease_that_ran_out_is_not_given_back(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active(TWO)
    (lease, _) = leases(tiny, ADA.email)
    now = datetime.now(UTC) + timedelta(hours=5)
    assert tiny.store.leases.expire(int(lease), now)
    said = ask(web, "DELETE", f"/api/v1/leases/{lease}", "expert", 409)["error"]
    assert f"lease {lease}: is expired since {now.isoformat()[:16]}" in said


def test_on_a_shared_list_anyone_may_give_back(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    lease = leases(tiny, SHARED)[0]
    ask(web, "DELETE", f"/api/v1/leases/{lease}", "expert")
    assert lease not in leases(tiny, SHARED)


# --- policies of queues ---


def test_a_policy_is_shown_and_set_by_an_administrator(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    shown = get(web, "/api/v1/queues/default", "admin")
    assert shown == {"queue": "tiny/default", "policy": BATCH.document()}
    changed = ask(web, "PUT", "/api/v1/queues/tiny/default", "admin", 200, {"size": 3, "strategy": "margin"})
    assert changed["policy"] == QueuePolicy(size=3, strategy="margin").document()
    assert get(web, "/api/v1/queues/default", "admin") == changed
    assert tiny.store.queues.policy(tiny.name, "default") == changed["policy"]


@pytest.mark.parametrize("role", ["expert", "service"])
def test_nobody_else_sets_a_policy(tiny: Tiny, web: FlaskClient, role: str) -> None:
    said = ask(web, "PUT", "/api/v1/queues/default", role, 403, {"size": 3})["error"]
    assert said == f"role {role!r} may not do this; expected one of ['admin']"
    ask(web, "GET", "/api/v1/queues/default", role, 403)
    assert tiny.store.queues.policy(tiny.name, "default") is None


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (None, "expected a JSON object"),
        ({"size": 0}, "queue 'default': key 'size': got 0 (int), expected a whole number"),
        ({"sise": 3}, "queue 'default': key 'sise' is not known; expected one of"),
        ({"strategy": "luck"}, "key 'strategy': got 'luck' (str), expected one of"),
        ({"contest_share": 0.9, "audit_share": 0.2}, "shares are"),
    ],
)
def test_a_policy_that_is_wrong_changes_nothing(tiny: Tiny, web: FlaskClient, body: Any, told: str) -> None:
    tiny.publish_active()
    assert told in ask(web, "PUT", "/api/v1/queues/default", "admin", 400, body)["error"]
    assert tiny.store.queues.policy(tiny.name, "default") == BATCH.document()


def test_a_policy_of_no_queue(web: FlaskClient) -> None:
    said = ask(web, "PUT", "/api/v1/queues/night", "admin", 400, {"size": 3})["error"]
    assert said == "queue 'night' is not known; expected one of ['tiny/default']"
    assert "queue 'night' is not known" in get(web, "/api/v1/queues/night", "admin", 400)["error"]


def test_a_strategy_that_the_network_in_force_cannot_serve_is_refused(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    body = {"strategy": "mutual-information"}
    ask(
        web, "PUT", "/api/v1/queues/default", "admin", 200, body
    )  # CIP: stood in for, until there is a network
    tiny.set_policy(BATCH)
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version("cdl-20260101-0123abcd"))
    said = ask(web, "PUT", "/api/v1/queues/default", "admin", 400, body)["error"]
    assert said == (
        "queue 'default': key 'strategy': strategy mutual-information needs a network trained with dropout, "
        "which version cdl-20260101-0123abcd lacks"
    )
    assert tiny.store.queues.policy(tiny.name, "default") == BATCH.document()


def test_gold_items_of_a_policy_are_items_of_the_assay(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    known = item_name(tiny.items()[0])
    body = {"gold_share": 0.1, "gold": [known, "P-H12/0"]}
    said = ask(web, "PUT", "/api/v1/queues/default", "admin", 400, body)["error"]
    assert said == (
        "queue 'default': key 'gold': item 'P-H12/0' is not in assay 'tiny'; "
        "expected <image id>/<tile> of one of its 16 items"
    )
    assert tiny.store.queues.policy(tiny.name, "default") == BATCH.document()
    ask(web, "PUT", "/api/v1/queues/default", "admin", 200, {**body, "gold": [known]})


# --- models, cycles, reports, probes ---


def test_models_are_listed_with_their_status(tiny: Tiny, web: FlaskClient) -> None:
    (model,) = get(web, "/api/v1/models", "admin")["models"]
    assert model["version"] == tiny.store.models.active(tiny.name).version
    assert (model["status"], model["method"]) == ("active", "cip")


@pytest.mark.parametrize("body", [{"assay": "tiny"}, {}, None])
def test_a_cycle_is_asked_for_and_followed(tiny: Tiny, web: FlaskClient, body: Any) -> None:
    answer = web.post("/api/v1/cycles", json=body, headers=bearer())
    assert answer.status_code == 202
    cycle = answer.get_json()
    assert (cycle["state"], cycle["asked_by"]) == ("queued", "robot")
    assert [row["id"] for row in tiny.store.cycles.queued()] == [cycle["id"]]
    again = web.post("/api/v1/cycles", json=body, headers=bearer("admin")).get_json()
    assert again["id"] == cycle["id"], "one that waits serves both"
    assert get(web, f"/api/v1/cycles/{cycle['id']}", "admin") == cycle


@pytest.mark.parametrize("assay", ["other", ["tiny"], 3])
def test_a_cycle_of_an_assay_that_is_not_here(tiny: Tiny, web: FlaskClient, assay: Any) -> None:
    answer = web.post("/api/v1/cycles", json={"assay": assay}, headers=bearer())
    assert answer.status_code == 400
    assert "expected one of ['tiny']" in answer.get_json()["error"]
    assert tiny.store.cycles.queued() == []


def test_an_expert_asks_for_no_cycle(web: FlaskClient) -> None:
    assert web.post("/api/v1/cycles", json={}, headers=bearer("expert")).status_code == 403


def test_a_cycle_that_is_not_here(web: FlaskClient) -> None:
    assert "cycle 'x'" in get(web, "/api/v1/cycles/x", status=404)["error"]


def test_cycles_are_listed_newest_first(tiny: Tiny, web: FlaskClient) -> None:
    first = tiny.store.cycles.ask(tiny.name, "schedule", "21 corrections")
    second = tiny.store.cycles.ask(tiny.name, "root", kind="promote", target="cdl-1")
    listed = get(web, "/api/v1/cycles")["cycles"]
    assert [row["id"] for row in listed] == [second, first]
    assert (listed[0]["kind"], listed[0]["target"]) == ("promote", "cdl-1")
    assert (listed[1]["kind"], listed[1]["why"], listed[1]["cancelled_by"]) == (
        "train",
        "21 corrections",
        None,
    )
    assert [row["id"] for row in get(web, "/api/v1/cycles", "admin", limit=1)["cycles"]] == [second]
    get(web, "/api/v1/cycles", "expert", 403)
    get(web, "/api/v1/cycles", status=400, limit="all")


@pytest.mark.parametrize("role", ["admin", "service"])
def test_a_cycle_is_called_off(tiny: Tiny, web: FlaskClient, role: str) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "schedule")
    row = ask(web, "DELETE", f"/api/v1/cycles/{cycle_id}", role)
    assert (row["id"], row["state"], row["cancelled_by"]) == (cycle_id, "failed", NAMES[role])
    said = ask(web, "DELETE", f"/api/v1/cycles/{cycle_id}", role, 409)["error"]
    assert said == f"cycle {cycle_id} is failed; only a queued or running one can be cancelled"


def test_an_expert_calls_nothing_off(tiny: Tiny, web: FlaskClient) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "schedule")
    ask(web, "DELETE", f"/api/v1/cycles/{cycle_id}", "expert", 403)
    assert tiny.store.cycles.get(cycle_id)["state"] == "queued"
    ask(web, "DELETE", "/api/v1/cycles/x", "admin", 404)
    assert web.delete(f"/api/v1/cycles/{cycle_id}").status_code == 401


def test_a_version_is_asked_to_come_into_force(tiny: Tiny, web: FlaskClient) -> None:
    tiny.add_version("cdl-20260101-0123abcd")
    row = ask(web, "POST", "/api/v1/models/cdl-20260101-0123abcd/promote", "admin", 202)
    assert (row["kind"], row["target"], row["state"]) == ("promote", "cdl-20260101-0123abcd", "queued")
    assert (row["asked_by"], row["why"]) == ("root", "root decided for cdl-20260101-0123abcd")
    again = ask(web, "POST", "/api/v1/models/cdl-20260101-0123abcd/promote", "admin", 202)
    assert again["id"] == row["id"], "asked for twice, done once"
    assert tiny.active().startswith("cip-"), "the trainer does it"


def test_a_version_that_cannot_come_into_force_is_refused(tiny: Tiny, web: FlaskClient) -> None:
    said = ask(web, "POST", "/api/v1/models/cdl-1/promote", "admin", 404)["error"]
    assert "model 'cdl-1' is not in this home" in said
    said = ask(web, "POST", f"/api/v1/models/{tiny.active()}/promote", "admin", 409)["error"]
    assert said == f"model {tiny.active()} is in force already; expected another one"
    tiny.add_version("cdl-20260101-0123abcd")
    with tiny.store._file.transaction() as db:
        db.execute("UPDATE models SET status = 'pruned' WHERE method = 'cdl'")
    said = ask(web, "POST", "/api/v1/models/cdl-20260101-0123abcd/promote", "admin", 409)["error"]
    assert said == "model cdl-20260101-0123abcd is pruned: its weights are gone; expected one that has them"
    assert tiny.store.cycles.queued() == []


@pytest.mark.parametrize("body", [{"assay": "tiny"}, {}, None])
def test_going_back_leads_to_the_version_before(tiny: Tiny, web: FlaskClient, body: Any) -> None:
    tiny.publish_active()
    cip = tiny.active()
    said = ask(web, "POST", "/api/v1/models/rollback", "admin", 409, body)["error"]
    assert said == f"assay 'tiny': {cip} is the first version in force; there is none before it"
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version("cdl-20260101-0123abcd"))
    row = ask(web, "POST", "/api/v1/models/rollback", "admin", 202, body)
    assert (row["kind"], row["target"], row["assay"]) == ("rollback", cip, "tiny")
    assert row["why"] == f"root wants {cip} back in the place of cdl-20260101-0123abcd"
    row = ask(web, "POST", f"/api/v1/models/{cip}/promote", "admin", 202)
    assert row["target"] == cip, "a version of the CIP is one like the others"


def test_going_back_of_an_assay_that_is_not_here(web: FlaskClient) -> None:
    said = ask(web, "POST", "/api/v1/models/rollback", "admin", 400, {"assay": "night"})["error"]
    assert said == "assay is 'night', expected one of ['tiny']"


@pytest.mark.parametrize("role", ["expert", "service"])
@pytest.mark.parametrize("path", ["/api/v1/models/cdl-1/promote", "/api/v1/models/rollback"])
def test_only_an_administrator_decides_which_version_serves(
    tiny: Tiny, web: FlaskClient, role: str, path: str
) -> None:
    said = ask(web, "POST", path, role, 403)["error"]
    assert said == f"role {role!r} may not do this; expected one of ['admin']"
    assert web.post(path).status_code == 401
    assert tiny.store.cycles.queued() == []


def test_reports_are_served_once_they_are_there(tiny: Tiny, web: FlaskClient) -> None:
    cycle_id = tiny.store.cycles.ask(tiny.name, "test")
    assert "has no report" in get(web, f"/api/v1/reports/{cycle_id}", "expert", 404)["error"]
    tiny.store.cycles.finish(cycle_id, "done", "kept", "", "reports/tiny/1")
    get(web, f"/reports/{cycle_id}", "expert", 404)
    folder = tiny.home / "reports" / "tiny" / "1"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text('{"cycle": 1}')
    (folder / "report.html").write_text("<h1>Cycle</h1>")
    with web.get(f"/api/v1/reports/{cycle_id}", headers=bearer("expert")) as answer:
        assert answer.get_json() == {"cycle": 1}
    with web.get(f"/reports/{cycle_id}", headers=bearer("expert")) as answer:
        assert (answer.text, answer.mimetype) == ("<h1>Cycle</h1>", "text/html")


def test_the_probes_are_open(tiny: Tiny, web: FlaskClient) -> None:
    assert web.get("/livez").get_json() == {"status": "alive"}
    tiny.correct(tiny.items()[0])
    ready = {"status": "ready", "assays": ["tiny"]}
    assert web.get("/readyz").get_json() == {**ready, "inbox_waiting": 1}
    tiny.intake.drain()
    assert web.get("/readyz").get_json() == {**ready, "inbox_waiting": 0}
