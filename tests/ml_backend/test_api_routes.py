from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from tiny import BATCH, Tiny, make_tiny

from cytoloop.domain.errors import AccessDenied, ConfigError
from labelstudio_config.publish import view_title
from ml_backend.access import ApiTokens, add_token, same_secret, token_digest
from ml_backend.app import create_app

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


def test_nothing_given_is_never_the_secret() -> None:
    assert same_secret("a", "a")
    assert not same_secret(None, "a")
    assert not same_secret("", "a")
    assert not same_secret("ä", "a")


@pytest.mark.parametrize(
    "path", ["/api/v1/worklist", "/api/v1/models", "/api/v1/cycles/x", "/api/v1/reports/x", "/reports/x"]
)
@pytest.mark.parametrize("token", ["guessed", ""])
def test_without_a_token_of_this_server_nothing_is_told(web: FlaskClient, path: str, token: str) -> None:
    get(web, path, token, 401)
    assert web.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/cycles/x"])
def test_what_an_expert_may_not_see(web: FlaskClient, path: str) -> None:
    assert "role 'expert' may not" in get(web, path, "expert", 403)["error"]


def test_a_browser_sends_the_token_as_a_password(web: FlaskClient) -> None:
    assert web.get("/api/v1/models", auth=("whoever", "robot-token")).status_code == 200
    assert web.get("/api/v1/models", auth=("robot-token", "")).status_code == 401


# --- worklist ---


def test_the_worklist_is_in_the_order_of_the_tab(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    entries = get(web, "/api/v1/worklist", queue="default")["entries"]
    assert [entry["task_id"] for entry in entries] == tiny.studio.tab(view_title("default"))
    assert [entry["rank"] for entry in entries] == list(range(1, BATCH.size + 1))
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True), "higher = ask sooner"
    assert set(entries[0]) == {
        *("rank", "task_id", "image_id", "tile", "score", "reason", "strategy", "model_version", "lease"),
        "url",
    }


def test_what_is_finished_leaves_the_worklist(tiny: Tiny, web: FlaskClient) -> None:
    tiny.publish_active()
    first, second = get(web, "/api/v1/worklist", limit=2)["entries"]
    batch = tiny.store.publications.batch(tiny.name, "default")
    assert batch is not None
    tiny.correct(batch["items"][0])
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
