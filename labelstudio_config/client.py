"""What cytoloop asks of Label Studio, one method a question; answers are plain JSON.

Everything here was tried on the real server (tests marked ``studio``). Where its API has a habit that
loses something in silence, the method that meets it says so and guards against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable
from labelstudio_config.connection import Connection, LabelStudioNotFound
from labelstudio_config.payloads import ITEM_KEY, parse_time

Json = dict[str, Any]

IMPORT_CHUNK = 500
PREDICTION_CHUNK = 500
PREDICTION_BYTES = 8_000_000
"""Bulk calls are cut here: each stays within seconds, and an error costs one piece."""
_BULK_TIMEOUT_S = 300.0
_ID_PAGE = 1000

_HIDDEN_COLUMNS = tuple(
    f"tasks:{column}"
    for column in (
        *("inner_id", "completed_at", "cancelled_annotations", "total_predictions", "annotations_results"),
        *("annotations_ids", "predictions_model_versions", "predictions_results", "file_upload"),
        *("storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists"),
        *("data.image_id", "data.image_key", "data.tile", *(f"data.channel_{n}" for n in range(8))),
    )
)
"""What a worklist tab leaves out: an expert looks for the picture, the well, the score and who was there."""


class LabelStudioClient:
    """The port to Label Studio; see ``Connection`` for retries and errors."""

    def __init__(
        self,
        base_url: str,
        token: str,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        first_wait_s: float = 0.3,
    ) -> None:
        self._connection = Connection(base_url, token, timeout_s, transport, first_wait_s)
        self.base_url = self._connection.base_url

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> LabelStudioClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- the server ---------------------------------------------------------------------------------------

    def whoami(self) -> Json:
        """The user the token belongs to (``id``, ``email``…)."""
        return self._object("GET", "/api/current-user/whoami")

    def version(self) -> str:
        """Release of the server."""
        return str(self._object("GET", "/api/version")["release"])

    def list_users(self) -> list[Json]:
        """Users of the organization (``id``, ``email``…)."""
        return self._list("GET", "/api/users/")

    def download(self, url: str) -> bytes:
        """A file as tasks name it, by path (``/data/…``) or by full URL on this server."""
        path = url.removeprefix(self.base_url)
        if not path.startswith("/"):
            raise LabelStudioRefused(f"Label Studio: {url} does not lie on {self.base_url}")
        return self._connection.request("GET", path).content

    # --- projects -----------------------------------------------------------------------------------------

    def list_projects(self, title: str | None = None) -> list[Json]:
        """All projects, or those with exactly this title."""
        projects: list[Json] = []
        page = 1
        while True:
            params = {"page": page, "page_size": 100} | ({"title": title} if title else {})
            answer = self._object("GET", "/api/projects/", params=params)
            projects += answer["results"]
            if not answer.get("next"):
                break
            page += 1
        return [p for p in projects if title is None or p["title"] == title]

    def create_project(self, title: str, label_config: str, **fields: Any) -> int:
        """A new project's id; Label Studio wants titles of 3 to 50 characters."""
        body = {"title": title, "label_config": label_config, **fields}
        return int(self._object("POST", "/api/projects/", body=body)["id"])

    def get_project(self, project_id: int) -> Json:
        """The project's settings and counts."""
        return self._object("GET", f"/api/projects/{project_id}/")

    def update_project(self, project_id: int, **fields: Any) -> Json:
        """Change settings; the others stay."""
        return self._object("PATCH", f"/api/projects/{project_id}/", body=fields)

    def delete_project(self, project_id: int) -> None:
        """Delete the project with all its tasks and annotations."""
        self._connection.call("DELETE", f"/api/projects/{project_id}/", timeout_s=_BULK_TIMEOUT_S)

    def connect_backend(self, project_id: int, url: str, title: str, user: str, password: str) -> int:
        """Connect the backend, or correct its URL, title and credentials; its id.

        Connecting writes the backend's title into an empty ``model_version``, a version no prediction
        has, so that every score would be null: that is taken back.
        """
        body = {
            "project": project_id,
            "url": url,
            "title": title,
            "is_interactive": False,
            "auth_method": "BASIC_AUTH",
            "basic_auth_user": user,
            "basic_auth_pass": password,
        }
        known = self._list("GET", "/api/ml/", params={"project": project_id})
        same = [b for b in known if b["title"] == title] or [b for b in known if b["url"] == url]
        if same:
            backend_id = int(same[0]["id"])
            self._object("PATCH", f"/api/ml/{backend_id}", body=body)
        else:
            backend_id = int(self._object("POST", "/api/ml/", body=body)["id"])
        if self.get_project(project_id)["model_version"] == title:
            self.update_project(project_id, model_version="")
        return backend_id

    def list_backends(self, project_id: int) -> list[Json]:
        """Backends of the project, with ``state`` and ``error_message`` as of a check made now."""
        return self._list("GET", "/api/ml/", params={"project": project_id})

    def ensure_webhook(
        self, project_id: int, url: str, headers: Mapping[str, str], actions: Sequence[str]
    ) -> int:
        """The one webhook that reports this project's ``actions`` to us, with our headers; its id.

        Connecting a backend leaves a hook without headers behind, and so does every backend before
        it: ours takes the place of one at the same URL, the others are deleted. Hooks that others
        made (any header, chosen actions, another path) are left alone.
        """
        body = {
            "project": project_id,
            "url": url,
            "send_payload": True,
            "send_for_all_actions": False,
            "actions": list(actions),  # a PATCH without it would empty the list
            "headers": dict(headers),
            "is_active": True,
        }
        hook_id = None
        for hook in self.list_webhooks(project_id):
            if hook_id is None and hook["url"] == url:
                hook_id = int(hook["id"])
            elif hook["url"] == url or _is_left_behind(hook, headers):
                self._connection.call("DELETE", f"/api/webhooks/{hook['id']}/")
        if hook_id is None:
            return int(self._object("POST", "/api/webhooks/", body=body)["id"])
        self._object("PATCH", f"/api/webhooks/{hook_id}/", body=body)
        return hook_id

    def list_webhooks(self, project_id: int) -> list[Json]:
        """Webhooks of the project; their headers are secrets."""
        return self._list("GET", "/api/webhooks/", params={"project": project_id})

    def ensure_local_storage(self, project_id: int, path: str, title: str) -> int:
        """A local-files storage over ``path`` (below the document root), without which files are 404."""
        route = "/api/storages/localfiles/"
        for storage in self._list("GET", route, params={"project": project_id}):
            if storage["path"] == path:
                return int(storage["id"])
        body = {"project": project_id, "path": path, "title": title, "use_blob_urls": True}
        return int(self._object("POST", route, body={**body, "regex_filter": ".*"})["id"])

    # --- tasks and annotations ----------------------------------------------------------------------------

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Ids of new tasks with these data, in the same order."""
        ids: list[int] = []
        for start in range(0, len(tasks), IMPORT_CHUNK):
            chunk = [{"data": dict(data)} for data in tasks[start : start + IMPORT_CHUNK]]
            answer = self._object(
                "POST",
                f"/api/projects/{project_id}/import",
                body=chunk,
                params={"return_task_ids": "true"},
                timeout_s=_BULK_TIMEOUT_S,
            )
            got = answer.get("task_ids") or []
            if len(got) != len(chunk):
                raise LabelStudioUnavailable(
                    f"Label Studio: import into project {project_id} made {len(got)} tasks of {len(chunk)}"
                )
            ids += got
        return ids

    def iter_tasks(
        self,
        project_id: int,
        updated_after: datetime | None = None,
        fields: str = "all",
        page_size: int = 100,
    ) -> Iterator[Json]:
        """Tasks by ``updated_at``, with annotations and predictions (``fields="all"``).

        ``updated_at`` moves when an annotation is made, changed or deleted. A task that changes while
        the list is read moves to its end; numbered pages would then skip another one. So each page
        begins at the time the last one ended with, and a task may come twice if it changed meanwhile.
        """
        after, page = updated_after, 1
        seen: set[tuple[int, str]] = set()
        while True:
            items = []
            if after is not None:
                stamp = after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                is_start = after == updated_after
                items = [
                    _filter("updated_at", "greater" if is_start else "greater_or_equal", "Datetime", stamp)
                ]
            answer = self._tasks(project_id, items, ["tasks:updated_at"], fields, page, page_size)
            for task in answer:
                if (key := (task["id"], task["updated_at"])) not in seen:
                    seen.add(key)
                    yield task
            if len(answer) < page_size:
                return
            last = parse_time(answer[-1]["updated_at"], f"task {answer[-1]['id']}: updated_at")
            # A page of one single time stamp (a bulk change) can only be passed by number.
            after, page = (last, 1) if after is None or last > after else (after, page + 1)

    def task_ids(self, project_id: int) -> set[int]:
        """Ids of all tasks of the project."""
        return self._filtered_ids(project_id, [])

    def get_task(self, task_id: int) -> Json:
        """One task with its annotations and predictions.

        Label Studio asks a connected backend for a prediction if the task has none at all.
        """
        return self._object("GET", f"/api/tasks/{task_id}/")

    def delete_task(self, task_id: int) -> None:
        """Delete a task with its annotations; its id will be used again."""
        self._connection.call("DELETE", f"/api/tasks/{task_id}/")

    def task_count(self, project_id: int) -> int:
        """How many tasks the project has; far cheaper than their ids (2 ms each)."""
        params = {"project": project_id, "page_size": 1, "resolve_uri": "false"}
        return int(self._object("GET", "/api/tasks", params=params)["total"])

    def create_annotation(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        lead_time: float | None = None,
        parent_prediction: int | None = None,
        was_cancelled: bool = False,
    ) -> Json:
        """Submit (or skip) as the editor does."""
        body: Json = {"result": list(result), "was_cancelled": was_cancelled}
        if lead_time is not None:
            body["lead_time"] = lead_time
        if parent_prediction is not None:
            body["parent_prediction"] = parent_prediction
        return self._object("POST", f"/api/tasks/{task_id}/annotations/", body=body)

    def update_annotation(self, annotation_id: int, **fields: Any) -> Json:
        """Change ``result``, ``lead_time``…, as the editor's Update button does."""
        return self._object("PATCH", f"/api/annotations/{annotation_id}/", body=fields)

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation."""
        self._connection.call("DELETE", f"/api/annotations/{annotation_id}/")

    def export(self, project_id: int) -> list[Json]:
        """Every annotated task with its annotations, as Label Studio's JSON export."""
        return self._list(
            "GET",
            f"/api/projects/{project_id}/export",
            params={"exportType": "JSON"},
            timeout_s=_BULK_TIMEOUT_S,
        )

    # --- predictions --------------------------------------------------------------------------------------

    def push_predictions(self, project_id: int, predictions: Iterable[Mapping[str, Any]]) -> int:
        """Store predictions (``payloads.prediction``); how many Label Studio says it created.

        Compare with how many were sent: it drops items with a score outside 0…1, an unknown label or no
        result, in silence. A task id it does not know refuses the piece it is in.
        """
        created = 0
        for body in _pieces(predictions):
            answer = self._connection.call(
                "POST",
                f"/api/projects/{project_id}/import/predictions",
                body=body,
                timeout_s=_BULK_TIMEOUT_S,
            )
            created += int(answer["created"])
        return created

    def prediction_tasks(self, project_id: int, version: str) -> set[int]:
        """Ids of the tasks that hold a prediction of this version.

        Label Studio compares by substring: a version that is part of another's name finds both.
        """
        if version not in self.model_versions(project_id):
            return set()  # what every new version finds, in a tenth of the time
        items = [_filter("predictions_model_versions", "contains", "List", [version])]
        return self._filtered_ids(project_id, items)

    def prediction_version(self, prediction_id: int) -> str | None:
        """Model version of a stored prediction; None if it is gone."""
        try:
            stored = self._object("GET", f"/api/predictions/{prediction_id}/")
        except LabelStudioNotFound:
            return None
        return str(stored["model_version"]) if stored.get("model_version") else None

    def set_model_version(self, project_id: int, version: str) -> None:
        """Which predictions count for scores and pre-annotation; refused while none has this version."""
        self.update_project(project_id, model_version=version)

    def model_versions(self, project_id: int) -> dict[str, int]:
        """Stored predictions of the project by version."""
        route = f"/api/projects/{project_id}/model-versions/"
        answer = self._object("GET", route, params={"extended": "true"})
        return {entry["model_version"]: entry["count"] for entry in answer["static"]}

    def delete_model_version(self, project_id: int, version: str) -> int:
        """Delete all predictions of a version; how many there were."""
        answer = self._object(
            "DELETE",
            f"/api/projects/{project_id}/model-versions/",
            body={"model_version": version},
            timeout_s=_BULK_TIMEOUT_S,
        )
        return int(answer["deleted_predictions"])

    # --- tabs ---------------------------------------------------------------------------------------------

    def list_views(self, project_id: int) -> list[Json]:
        """Tabs of the Data Manager."""
        return self._list("GET", "/api/dm/views/", params={"project": project_id})

    def ensure_view(
        self, project_id: int, title: str, task_ids: Sequence[int], ordering: Sequence[str]
    ) -> int:
        """The tab of this title, made to show exactly these tasks in this order; its id.

        ``ordering`` as Label Studio writes it: ``tasks:predictions_score``, lowest first.

        The tasks are told by their ``item``, in one regular expression. The API takes a list of ids
        (``in_list``) as well, but then the page never loads, for its user interface knows no such
        operator; and one filter per id makes each next task ten times slower at 500 (1.2 s).
        """
        names = "|".join(re.escape(name) for name in self._item_names(project_id, task_ids))
        items = [_filter(f"data.{ITEM_KEY}", "regex", "String", f"^(?:{names})$")]
        filters = {"conjunction": "and", "items": items}
        data = {"type": "list", "title": title, "target": "tasks", "gridWidth": 4, "columnsWidth": {}}
        data |= {"columnsDisplayType": {}, "filters": filters, "ordering": list(ordering)}
        # Both keys must be there: without "labeling" every list of this tab is a 500.
        data["hiddenColumns"] = {"explore": list(_HIDDEN_COLUMNS), "labeling": list(_HIDDEN_COLUMNS)}
        body = {"project": project_id, "data": data}
        for view in self.list_views(project_id):
            if view["data"].get("title") == title:
                self._object("PATCH", f"/api/dm/views/{view['id']}/", body=body)
                return int(view["id"])
        return int(self._object("POST", "/api/dm/views/", body=body)["id"])

    def view_tasks(self, project_id: int, view_id: int) -> list[int]:
        """Task ids as the tab shows them, in its order."""
        ids: list[int] = []
        params = {"project": project_id, "view": view_id, "page_size": _ID_PAGE, "resolve_uri": "false"}
        while True:
            page = {**params, "page": len(ids) // _ID_PAGE + 1}
            answer = self._object("GET", "/api/tasks", params=page, timeout_s=_BULK_TIMEOUT_S)
            ids += [task["id"] for task in answer["tasks"]]
            if len(ids) >= answer["total"]:
                return ids

    def delete_view(self, view_id: int) -> None:
        """Delete a tab; its tasks stay."""
        self._connection.call("DELETE", f"/api/dm/views/{view_id}/")

    # --- helpers ------------------------------------------------------------------------------------------

    def _item_names(self, project_id: int, task_ids: Sequence[int]) -> list[str]:
        names: dict[int, Any] = {}
        for start in range(0, len(task_ids), _ID_PAGE):
            items = [_filter("id", "in_list", "Number", list(task_ids[start : start + _ID_PAGE]))]
            for task in self._tasks(project_id, items, ["tasks:id"], "task_only", 1, _ID_PAGE):
                names[task["id"]] = task["data"].get(ITEM_KEY)
        lacking = [task_id for task_id in task_ids if not isinstance(names.get(task_id), str)]
        if lacking:
            raise LabelStudioRefused(
                f"Label Studio: {len(lacking)} tasks are not in project {project_id}, or their data have no "
                f"{ITEM_KEY!r}: {lacking[:5]}"
            )
        return [names[task_id] for task_id in task_ids]

    def _filtered_ids(self, project_id: int, items: list[Json]) -> set[int]:
        ids: set[int] = set()
        last = 0
        while True:
            beyond = [*items, _filter("id", "greater", "Number", last)]
            page = [t["id"] for t in self._tasks(project_id, beyond, ["tasks:id"], "task_only", 1, _ID_PAGE)]
            ids.update(page)
            if len(page) < _ID_PAGE:
                return ids
            last = page[-1]

    def _tasks(
        self, project_id: int, items: list[Json], ordering: list[str], fields: str, page: int, page_size: int
    ) -> list[Json]:
        query = {"filters": {"conjunction": "and", "items": items}, "ordering": ordering}
        params = {"project": project_id, "page": page, "page_size": page_size, "fields": fields}
        params["resolve_uri"] = "false"  # data as imported, and a third of the time saved
        try:
            answer = self._object(
                "GET",
                "/api/tasks",
                params={**params, "query": json.dumps(query)},
                timeout_s=_BULK_TIMEOUT_S,
            )
        except LabelStudioNotFound:
            # Where a list ends exactly with a page, the next page does not exist.
            if page == 1:
                raise
            return []
        return list(answer["tasks"])

    def _object(self, method: str, path: str, **options: Any) -> Json:
        answer = self._connection.call(method, path, **options)
        if not isinstance(answer, dict):
            raise LabelStudioUnavailable(
                f"Label Studio: {method} {path} answered {type(answer).__name__}, expected a JSON object"
            )
        return answer

    def _list(self, method: str, path: str, **options: Any) -> list[Json]:
        answer = self._connection.call(method, path, **options)
        if not isinstance(answer, list):
            raise LabelStudioUnavailable(
                f"Label Studio: {method} {path} answered {type(answer).__name__}, expected a JSON list"
            )
        return answer


def _filter(column: str, operator: str, kind: str, value: Any) -> Json:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _is_left_behind(hook: Mapping[str, Any], our_headers: Mapping[str, str]) -> bool:
    """Whether a hook at another URL came with a backend that was ours, or is our own of an earlier URL."""
    headers = hook.get("headers") or {}
    if headers:
        return set(headers) == set(our_headers)
    return bool(hook["send_for_all_actions"]) and urlsplit(hook["url"]).path.endswith("/webhook")


def _pieces(predictions: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Lists of at most 500 predictions and about 8 MB of JSON."""
    piece: list[Mapping[str, Any]] = []
    size = 0
    for item in predictions:
        # Bytes of a mask are about 3.6 characters each; the rest of a region is small change.
        weight = 300 + sum(300 + 4 * len(r.get("value", {}).get("rle", ())) for r in item.get("result", ()))
        if piece and (len(piece) == PREDICTION_CHUNK or size + weight > PREDICTION_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += weight
    if piece:
        yield piece
