"""Every method of the client against a real Label Studio."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import LabelStudioRefused
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.payloads import (
    TaskData,
    confidence_of,
    correction_from_annotation,
    parse_event,
    parse_task_data,
    parse_time,
    prediction,
    prediction_result,
)
from labelstudio_config.schema import check_label_config, labeling_config

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300)]

ASSAY = Assay(
    name="two channels",
    channels=(Channel(name="gal3"), Channel(name="LC3")),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Phagophore", colour="#ff5500", hotkey="1"),
        LabelClass(name="Autolysosome", colour="#00aaff", hotkey="2"),
    ),
    ignore=LabelClass(name="Ignore", colour="#888888", hotkey="9"),
    cip=Cip(recipe="none"),
)
MASK_HW = np.array([[0, 1, 1, 255], [0, 0, 2, 2]], dtype=np.uint8)
OLD, NEW = "cip-20260101-00000001", "cdl-20260102-00000002"


def data_of(number: int) -> dict[str, Any]:
    url = f"/data/local-files/?d=plate/{number}.png"
    name = f"P1-B{number:02d} (a|b).1"  # what a regular expression would take for its own
    return TaskData(
        image=url, channels=(url, url), doubt=url, image_id=name, image_key="ab", tile=0
    ).document()


@pytest.fixture(scope="module")
def client(studio: Any) -> LabelStudioClient:
    found: LabelStudioClient = studio.client
    return found


@pytest.fixture
def project(client: LabelStudioClient) -> Iterator[int]:
    project_id = client.create_project(
        "cytoloop test", labeling_config(ASSAY), sampling="Sequential sampling"
    )
    yield project_id
    client.delete_project(project_id)


class Backend(BaseHTTPRequestHandler):
    """The least a backend must answer; keeps what webhooks bring."""

    def do_GET(self) -> None:
        self._answer({"status": "UP"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        self._answer({"model_version": NEW, "results": []})

    def _answer(self, document: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.received = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_server_knows_us_and_its_version(client: LabelStudioClient, studio: Any) -> None:
    me = client.whoami()
    assert me["email"] == "expert@example.com"
    assert client.version().startswith("1.")
    assert [user["email"] for user in client.list_users()] == ["expert@example.com"]
    with (
        LabelStudioClient(studio.server.url, "0" * 40) as stranger,
        pytest.raises(LabelStudioRefused, match="401"),
    ):
        stranger.whoami()


def test_a_project_is_made_found_changed_and_deleted(client: LabelStudioClient) -> None:
    project_id = client.create_project("cytoloop one", labeling_config(ASSAY))
    client_ids = [p["id"] for p in client.list_projects("cytoloop one")]
    assert client_ids == [project_id]
    assert client.list_projects("cytoloop") == []  # the whole title, not a part of it
    changed = client.update_project(project_id, expert_instruction="look twice")
    assert changed["expert_instruction"] == "look twice"
    check_label_config(client.get_project(project_id)["label_config"], ASSAY)
    client.delete_project(project_id)
    with pytest.raises(LabelStudioRefused, match="404"):
        client.get_project(project_id)


def test_files_are_served_once_a_storage_covers_them(
    client: LabelStudioClient, project: int, studio: Any
) -> None:
    folder = studio.document_root / "plate"
    folder.mkdir(exist_ok=True)
    (folder / "1.png").write_bytes(b"pixels")
    url = data_of(1)["image"]
    with pytest.raises(LabelStudioRefused, match="404"):
        client.download(url)
    storage = client.ensure_local_storage(project, str(folder), "views")
    assert client.ensure_local_storage(project, str(folder), "views") == storage
    assert client.download(url) == b"pixels"


def test_tasks_keep_their_order_and_their_identity(client: LabelStudioClient, project: int) -> None:
    ids = client.import_tasks(project, [data_of(n) for n in range(12)])
    assert client.task_ids(project) == set(ids)
    assert client.task_count(project) == 12
    for number in (0, 7, 11):
        assert parse_task_data(client.get_task(ids[number])["data"], "task").document() == data_of(number)
    client.delete_task(ids[3])
    assert client.task_ids(project) == set(ids) - {ids[3]}
    assert client.import_tasks(project, []) == []


def test_every_change_of_an_annotation_is_found_by_polling(client: LabelStudioClient, project: int) -> None:
    ids = client.import_tasks(project, [data_of(n) for n in range(7)])
    seen = list(client.iter_tasks(project, page_size=3))
    assert sorted(task["id"] for task in seen) == sorted(ids)

    def changed_since(mark: datetime) -> tuple[list[dict[str, Any]], datetime]:
        tasks = list(client.iter_tasks(project, mark))
        return tasks, max([mark, *(parse_time(task["updated_at"], "task") for task in tasks)])

    mark = max(parse_time(task["updated_at"], "task") for task in seen)
    assert changed_since(mark)[0] == []
    made = client.create_annotation(ids[4], prediction_result(MASK_HW, ASSAY), lead_time=3.5)
    tasks, mark = changed_since(mark)
    assert [task["id"] for task in tasks] == [ids[4]]
    [annotation] = tasks[0]["annotations"]
    data = parse_task_data(tasks[0]["data"], "task")
    correction = correction_from_annotation(annotation, ids[4], data, ASSAY, 2, 4, "a@b.c", None)
    assert np.array_equal(correction.mask_HW, MASK_HW)
    assert correction.lead_time_s == 3.5
    assert [task["id"] for task in client.export(project)] == [ids[4]]

    client.update_annotation(made["id"], result=[])
    tasks, mark = changed_since(mark)
    assert tasks[0]["annotations"][0]["result"] == []
    held = client.get_annotation(made["id"])
    assert held is not None
    assert (held["id"], held["result"]) == (made["id"], [])
    client.delete_annotation(made["id"])
    assert client.get_annotation(made["id"]) is None
    tasks, mark = changed_since(mark)
    assert [(task["id"], task["annotations"]) for task in tasks] == [(ids[4], [])]
    client.create_annotation(ids[0], [], was_cancelled=True)
    tasks, mark = changed_since(mark)
    assert tasks[0]["annotations"][0]["was_cancelled"] is True


def test_publishing_a_version_and_deleting_the_old_one(client: LabelStudioClient, project: int) -> None:
    ids = client.import_tasks(project, [data_of(n) for n in range(4)])
    result = prediction_result(MASK_HW, ASSAY)
    assert client.prediction_tasks(project, OLD) == set()
    assert client.push_predictions(project, [prediction(i, result, 0.5, OLD) for i in ids]) == 4
    with pytest.raises(LabelStudioRefused, match="400"):
        client.set_model_version(project, NEW)
    client.set_model_version(project, OLD)
    assert client.push_predictions(project, [prediction(i, [], 0.1, NEW) for i in ids[:3]]) == 3
    assert client.prediction_tasks(project, NEW) == set(ids[:3])
    assert client.model_versions(project) == {OLD: 4, NEW: 3}
    client.set_model_version(project, NEW)
    assert client.delete_model_version(project, OLD) == 4
    assert client.model_versions(project) == {NEW: 3}
    assert client.get_project(project)["model_version"] == NEW
    stored = client.get_task(ids[0])["predictions"][0]
    assert client.prediction_version(stored["id"]) == NEW
    made = client.create_annotation(ids[0], [], parent_prediction=stored["id"])
    assert made["parent_prediction"] == stored["id"]
    assert client.prediction_version(10**6) is None


def test_predictions_it_drops_in_silence_are_missing_from_the_count(
    client: LabelStudioClient, project: int
) -> None:
    [task] = client.import_tasks(project, [data_of(1)])
    other = [{**region, "value": {**region["value"], "brushlabels": ["Vesicle"]}}
             for region in prediction_result(MASK_HW, ASSAY)]  # fmt: skip
    sent = [prediction(task, [], 0.5, OLD), prediction(task, [], 1.5, OLD), prediction(task, other, 0.5, OLD)]
    assert client.push_predictions(project, sent) == 1
    with pytest.raises(LabelStudioRefused, match="400"):
        client.push_predictions(project, [prediction(10**6, [], 0.5, OLD)])


def test_a_tab_shows_exactly_its_500_tasks_lowest_confidence_first(
    client: LabelStudioClient, project: int
) -> None:
    ids = client.import_tasks(project, [data_of(n) for n in range(510)])
    scores = dict(zip(ids, np.random.default_rng(1).integers(0, 100, len(ids)).tolist(), strict=True))
    keys = {task: f"{(task * 7919) % 65536:04x}" for task in ids}
    pushed = [prediction(i, [], confidence_of(scores[i], keys[i], 0), OLD) for i in ids]
    assert client.push_predictions(project, pushed) == 510
    client.set_model_version(project, OLD)
    chosen = ids[5:505]
    view = client.ensure_view(project, "Worklist a", chosen, ("tasks:predictions_score",))
    assert client.view_tasks(project, view) == sorted(chosen, key=lambda i: (-scores[i], keys[i]))
    fewer = chosen[:7]
    assert client.ensure_view(project, "Worklist a", fewer, ("tasks:predictions_score",)) == view
    assert client.view_tasks(project, view) == sorted(fewer, key=lambda i: (-scores[i], keys[i]))
    other = client.ensure_view(project, "Worklist b", [], ("tasks:predictions_score",))
    assert client.view_tasks(project, other) == []
    assert {v["id"] for v in client.list_views(project)} == {view, other}
    client.delete_view(other)
    assert [v["id"] for v in client.list_views(project)] == [view]
    with pytest.raises(LabelStudioRefused, match="1 tasks are not in project"):
        client.ensure_view(project, "Worklist a", [10**6], ("tasks:predictions_score",))


def test_the_backend_is_connected_once_and_its_events_carry_the_secret(
    client: LabelStudioClient, project: int, backend: Any
) -> None:
    url = f"http://127.0.0.1:{backend.server_address[1]}"
    with pytest.raises(LabelStudioRefused, match="400"):
        client.connect_backend(project, "http://127.0.0.1:9", "cytoloop", "u", "p")  # nobody answers there
    first = client.connect_backend(project, f"{url}/old", "cytoloop", "user", "password")
    assert client.get_project(project)["model_version"] == ""  # not the title, which no prediction has
    actions = ["ANNOTATION_CREATED", "TASKS_DELETED"]
    secret = {"X-Cytoloop-Secret": "one"}
    client.ensure_webhook(project, f"{url}/old/webhook", secret, actions)
    assert client.connect_backend(project, url, "cytoloop", "user", "other") == first
    theirs = {"project": project, "url": f"{url}/theirs", "send_payload": True, "is_active": True}
    theirs |= {"send_for_all_actions": True, "headers": {}}
    headers = {"Authorization": f"Token {client._connection._token}"}
    httpx.post(f"{client.base_url}/api/webhooks/", json=theirs, headers=headers).raise_for_status()
    secret = {"X-Cytoloop-Secret": "two"}
    hook = client.ensure_webhook(project, f"{url}/webhook", secret, actions)
    assert client.ensure_webhook(project, f"{url}/webhook", secret, actions) == hook
    assert [b["url"] for b in client.list_backends(project)] == [url]
    hooks = {h["url"].removeprefix(url): h for h in client.list_webhooks(project)}
    assert set(hooks) == {"/webhook", "/theirs"}
    assert hooks["/webhook"]["id"] == hook
    assert hooks["/webhook"]["headers"] == secret
    assert sorted(hooks["/webhook"]["actions"]) == actions
    [task] = client.import_tasks(project, [data_of(1)])
    client.push_predictions(project, [prediction(task, [], 0.5, OLD)])
    backend.received.clear()
    made = client.create_annotation(task, prediction_result(MASK_HW, ASSAY))
    events = [(sent, body) for path, sent, body in backend.received if path == "/webhook"]
    assert len(events) == 1
    assert events[0][0]["X-Cytoloop-Secret"] == "two"
    event = parse_event(events[0][1])
    assert (event.action, event.project_id) == ("ANNOTATION_CREATED", project)
    assert event.annotations[0]["id"] == made["id"]
    assert event.tasks[0]["data"] == data_of(1)


@pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")
def test_a_personal_access_token_serves_as_well(client: LabelStudioClient, studio: Any) -> None:
    headers = {"Authorization": f"Token {studio.server.token}"}
    answer = httpx.post(f"{client.base_url}/api/token/", headers=headers)
    assert answer.status_code == 201
    with LabelStudioClient(client.base_url, answer.json()["token"]) as other:
        assert other.whoami()["email"] == "expert@example.com"
