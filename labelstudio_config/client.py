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

from cytoloop.domain.errors import InputError, LabelStudioRefused, LabelStudioUnavailable
from labelstudio_config.connection import Connection, LabelStudioNotFound
from labelstudio_config.payloads import ITEM_KEY, parse_time
from labelstudio_config.transport import LARGEST_BULK

Json = dict[str, Any]

IMPORT_CHUNK = 500
PREDICTION_CHUNK = 500
PREDICTION_BYTES = 8_000_000
"""Bulk calls are cut here: each stays within seconds, and an error costs one piece."""
_BULK_TIMEOUT_S = 300.0
_ID_PAGE = 1000
_WITHDRAWN = "withdrawn_"
"""Key in the task data, before a user's id, under which something stands while this user is not to get it."""

_HIDDEN_COLUMNS = tuple(
    f"tasks:{column}"
    for column in (
        *("inner_id", "completed_at", "cancelled_annotations", "total_predictions", "annotations_results"),
        *("annotations_ids", "predictions_model_versions", "predictions_results", "file_upload"),
        *("storage_filename", "created_at", "updated_at", "updated_by", "avg_lead_time", "draft_exists"),
        *(
            "data.image_id",
            "data.image_key",
            "data.tile",
            "data.doubt",
            *(f"data.channel_{n}" for n in range(8)),
        ),
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

    def tasks_lacking(self, project_id: int, key: str) -> list[Json]:
        """Tasks whose data have no ``key``, or nothing under it: ``id`` and ``data`` as imported."""
        tasks: list[Json] = []
        last = 0
        while True:
            items = [
                _filter(f"data.{key}", "empty", "String", True),
                _filter("id", "greater", "Number", last),
            ]
            page = self._tasks(project_id, items, ["tasks:id"], "task_only", 1, _ID_PAGE)
            tasks += page
            if len(page) < _ID_PAGE:
                return tasks
            last = page[-1]["id"]

    def set_task_data(self, task_id: int, data: Mapping[str, Any]) -> None:
        """Replace the data of a task as a whole; annotations and predictions stay. ``updated_at`` moves."""
        self._object("PATCH", f"/api/tasks/{task_id}/", body={"data": dict(data)})

    def set_readers(self, task_id: int, readers: int) -> None:
        """How many experts a task is handed to; what is submitted beyond that is taken all the same.

        Label Studio goes on calling a task labeled that was so before more readers were wanted, and would
        hand it to none of them: that is put right here. An import, or any change of the project but of
        its ``maximum_annotations``, leaves the number of a task alone.
        """
        if readers < 1:
            raise InputError(f"task {task_id}: {readers} readers, expected 1 or more")
        path = f"/api/tasks/{task_id}/"
        task = self._object("PATCH", path, body={"overlap": readers})
        is_labeled = task["total_annotations"] >= readers
        if task["is_labeled"] != is_labeled:
            self._object("PATCH", path, body={"is_labeled": is_labeled})

    def withdraw_tasks(self, project_id: int, task_ids: Sequence[int], user_id: int) -> None:
        """Keep tasks from a user: they leave the tab of this user, on a page that is open already too.

        A page keeps the filters that its tab had when it was loaded, and asks for the next task with
        these. So a tab for a user (``ensure_view``) has a filter on a key in the task data, which is set
        here, a fifth of a second each. The task that is on the screen can still be submitted.
        """
        key = _withdrawn_key(user_id)
        for task in self._tasks_by_id(project_id, task_ids):
            if not task["data"].get(key):
                self.set_task_data(task["id"], {**task["data"], key: "withdrawn"})

    def list_drafts(self, project_id: int, task_ids: Sequence[int]) -> list[Json]:
        """Unsubmitted work of any user on these tasks, without the masks.

        ``task``, ``user`` (an e-mail), ``created_at``, ``updated_at``, ``lead_time`` and ``annotation`` (the
        one that is being changed; None: nothing was submitted yet). The editor saves one five seconds
        after the last stroke; it moves no ``updated_at`` of a task and sends no event.
        """
        drafts: list[Json] = []
        for start in range(0, len(task_ids), _ID_PAGE):
            items = [
                _filter("id", "in_list", "Number", list(task_ids[start : start + _ID_PAGE])),
                _filter("draft_exists", "equal", "Boolean", True),
            ]
            # Of the drafts themselves a list of tasks holds only those of the one who asks.
            for task in self._tasks(project_id, items, ["tasks:id"], "task_only", 1, _ID_PAGE):
                found = self._list("GET", f"/api/tasks/{task['id']}/drafts", largest=LARGEST_BULK)
                drafts += [{key: value for key, value in d.items() if key != "result"} for d in found]
        return drafts

    def get_task(self, task_id: int) -> Json:
        """One task with its annotations and predictions.

        Label Studio asks a connected backend for a prediction if the task has none at all.
        """
        return self._object("GET", f"/api/tasks/{task_id}/", largest=LARGEST_BULK)

    def delete_task(self, task_id: int) -> None:
        """Delete a task with its annotations; its id will be used again."""
        self._connection.call("DELETE", f"/api/tasks/{task_id}/")

    def task_count(self, project_id: int) -> int:
        """How many tasks the project has; far cheaper than their ids (2 ms each)."""
        params = {"project": project_id, "page_size": 1, "resolve_uri": "false"}
        return int(self._object("GET", "/api/tasks", params=params)["total"])

    def get_annotation(self, annotation_id: int) -> Json | None:
        """An annotation as it is now; None if it is gone."""
        try:
            return self._object("GET", f"/api/annotations/{annotation_id}/", largest=LARGEST_BULK)
        except LabelStudioNotFound:
            return None

    def create_annotation(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        lead_time: float | None = None,
        parent_prediction: int | None = None,
        was_cancelled: bool = False,
    ) -> Json:
        """Submit (or skip) as the editor does; refused if the prediction it began with is gone."""
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
        """Delete an annotation; a task whose skip is deleted is handed to the one who skipped it again."""
        self._connection.call("DELETE", f"/api/annotations/{annotation_id}/")

    def export(self, project_id: int) -> list[Json]:
        """Every annotated task with its annotations, as Label Studio's JSON export."""
        return self._list(
            "GET",
            f"/api/projects/{project_id}/export",
            params={"exportType": "JSON"},
            timeout_s=_BULK_TIMEOUT_S,
            largest=LARGEST_BULK,
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

    def replace_predictions(self, project_id: int, predictions: Iterable[Mapping[str, Any]]) -> int:
        """Make tasks hold these predictions in place of what they hold of the same version; how many do.

        Each keeps its id, so that an editor that is open with the old one can still submit. A third of a
        second each; what a task lacks is pushed (count it, as with ``push_predictions``). Of several
        predictions of one version, whose scores Label Studio would average, one is left.

        Raises
        ------
        InputError
            If a score lies outside 0…1: on this way Label Studio would store it.
        """
        lacking: list[Mapping[str, Any]] = []
        replaced = 0
        for wanted in predictions:
            score = float(wanted["score"])
            if not 0 <= score <= 1:
                raise InputError(f"task {wanted['task']}: score {score}, expected 0 to 1")
            stored = self._list(
                "GET", "/api/predictions/", params={"task": wanted["task"]}, largest=LARGEST_BULK
            )
            same = sorted(p["id"] for p in stored if p["model_version"] == wanted["model_version"])
            if not same:
                lacking.append(wanted)
                continue
            body = {"score": score, "result": list(wanted["result"])}
            self._object("PATCH", f"/api/predictions/{same[0]}/", body=body)
            for double in same[1:]:
                self._connection.call("DELETE", f"/api/predictions/{double}/")
            replaced += 1
        return replaced + (self.push_predictions(project_id, lacking) if lacking else 0)

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
        """Delete all predictions of a version; how many there were.

        Whoever has a task open that began with one of them can no longer submit it (400), and has to
        reload the page and begin with the last draft.
        """
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
        self,
        project_id: int,
        title: str,
        task_ids: Sequence[int],
        ordering: Sequence[str],
        user_id: int | None = None,
    ) -> int:
        """The tab of this title, made to show exactly these tasks in this order; its id.

        ``ordering`` as Label Studio writes it: ``tasks:predictions_score``, lowest first. A page that is
        open keeps to the old tasks, in the order of the scores of the day, until it is loaded again.
        A tab for the user ``user_id`` loses what is withdrawn from this user at once; these tasks are
        given back.

        The tasks are told by their ``item``, in one regular expression. The API takes a list of ids
        (``in_list``) as well, but then the page never loads, for its user interface knows no such
        operator; and one filter per id makes each next task ten times slower at 500 (1.2 s).
        """
        tasks = self._tasks_by_id(project_id, task_ids)
        names = "|".join(re.escape(task["data"][ITEM_KEY]) for task in tasks)
        items = [_filter(f"data.{ITEM_KEY}", "regex", "String", f"^(?:{names})$")]
        hidden = list(_HIDDEN_COLUMNS)
        marks = self._withdrawn_columns(project_id)
        if user_id is not None:
            key = _withdrawn_key(user_id)
            self._give_back(tasks, key, is_known=key in marks)
            # "empty" is the one operator that a task without the key passes.
            items.append(_filter(f"data.{key}", "empty", "String", True))
            marks.add(key)
        # Those of other users too, whose marks may come later: the tab would show them as columns.
        marks.update(_withdrawn_key(user["id"]) for user in self.list_users())
        hidden += [f"tasks:data.{mark}" for mark in sorted(marks)]
        filters = {"conjunction": "and", "items": items}
        data = {"type": "list", "title": title, "target": "tasks", "gridWidth": 4, "columnsWidth": {}}
        data |= {"columnsDisplayType": {}, "filters": filters, "ordering": list(ordering)}
        # Both keys must be there: without "labeling" every list of this tab is a 500.
        data["hiddenColumns"] = {"explore": hidden, "labeling": hidden}
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

    def _tasks_by_id(self, project_id: int, task_ids: Sequence[int]) -> list[Json]:
        """``id`` and ``data`` of items' tasks, in this order."""
        found: dict[int, Json] = {}
        for start in range(0, len(task_ids), _ID_PAGE):
            items = [_filter("id", "in_list", "Number", list(task_ids[start : start + _ID_PAGE]))]
            for task in self._tasks(project_id, items, ["tasks:id"], "task_only", 1, _ID_PAGE):
                if isinstance(task["data"].get(ITEM_KEY), str):
                    found[task["id"]] = task
        lacking = [task_id for task_id in task_ids if task_id not in found]
        if lacking:
            raise LabelStudioRefused(
                f"Label Studio: {len(lacking)} tasks are not in project {project_id}, or their data have no "
                f"{ITEM_KEY!r}: {lacking[:5]}"
            )
        return [found[task_id] for task_id in task_ids]

    def _withdrawn_columns(self, project_id: int) -> set[str]:
        answer = self._object("GET", "/api/dm/columns/", params={"project": project_id})
        names = [str(column["id"]) for column in answer["columns"] if column.get("parent") == "data"]
        return {name for name in names if name.startswith(_WITHDRAWN)}

    def _give_back(self, tasks: Sequence[Json], key: str, is_known: bool) -> None:
        """Clear a user's mark, and see to it that one task carries the key.

        The page drops a filter on a key that no task of the project has, without a word. Null under it
        counts as nothing; an empty text does so only where the project's first task has text there.
        """
        for task in tasks:
            if task["data"].get(key):
                self.set_task_data(task["id"], {**task["data"], key: None})
                is_known = True
        if tasks and not is_known:
            self.set_task_data(tasks[0]["id"], {**tasks[0]["data"], key: None})

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
                largest=LARGEST_BULK,
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


def _withdrawn_key(user_id: int) -> str:
    return f"{_WITHDRAWN}{user_id}"


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
