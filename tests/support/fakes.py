"""Label Studio in memory: the port ``cytoloop.domain.ports.LabelStudio``, with the habits of the real one.

What it does in silence (drops a prediction, forgets the version in force, reuses a task id) it does
here too; each habit is one that was observed on release 1.23.2.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cytoloop.domain.errors import InputError, LabelStudioRefused, LabelStudioUnavailable

Json = dict[str, Any]
_Method = TypeVar("_Method", bound=Callable[..., Any])
PROJECT = 3
EXPERT = {"id": 1, "email": "ada@lab.org"}
OTHER_EXPERT = {"id": 2, "email": "bob@lab.org"}


def asked(method: _Method) -> _Method:
    """A call over the network: counted, and where a crash is set, it fails."""

    @functools.wraps(method)
    def wrapped(self: FakeLabelStudio, *arguments: Any, **options: Any) -> Any:
        self.calls.append(method.__name__)
        if self.is_down:
            raise LabelStudioUnavailable(f"Label Studio: {method.__name__}: connection refused")
        now = self.crash is not None and len(self.calls) == self.crash[0]
        if now and self.crash[1] == "before":
            raise LabelStudioUnavailable(f"Label Studio: {method.__name__}: cut off before it was done")
        answer = method(self, *arguments, **options)
        if now:
            raise LabelStudioUnavailable(f"Label Studio: {method.__name__}: done, but the answer was lost")
        return answer

    return wrapped  # type: ignore[return-value]


class FakeLabelStudio:
    """One project, its tasks, annotations, predictions and tabs.

    ``listener`` gets the body of each webhook; None is a webhook that is lost. ``crash`` cuts off the
    n-th call from now on, before or after it took effect. ``labels`` are those of the labeling config.
    """

    def __init__(self, labels: Sequence[str], project_id: int = PROJECT) -> None:
        self.labels = set(labels)
        self.project_id = project_id
        self.model_version: str | None = None
        self.tasks: dict[int, Json] = {}
        self.predictions: dict[int, Json] = {}
        self.annotations: dict[int, Json] = {}
        self.views: dict[int, Json] = {}
        self.drafts: dict[tuple[int, int], Json] = {}
        self.readers: dict[int, int] = {}
        self.withdrawn: set[tuple[int, int | None]] = set()
        self.users = [EXPERT, OTHER_EXPERT]
        self.listener: Callable[[bytes], object] | None = None
        self.is_down = False
        self.calls: list[str] = []
        self.crash: tuple[int, str] | None = None
        self._now = datetime.now(UTC)
        self._annotation_ids = 0
        self._prediction_ids = 0

    # --- the port ---------------------------------------------------------------------------------

    def iter_tasks(self, project_id: int, updated_after: datetime | None = None) -> Iterator[Json]:
        """Tasks by ``updated_at``, with what hangs on them."""
        return iter(self._changed(project_id, updated_after))

    @asked
    def _changed(self, project_id: int, updated_after: datetime | None) -> list[Json]:
        self._check(project_id)
        tasks = sorted(self.tasks.values(), key=lambda task: (task["updated_at"], task["id"]))
        return [
            self.task(task["id"])
            for task in tasks
            if updated_after is None or datetime.fromisoformat(task["updated_at"]) > updated_after
        ]

    @asked
    def task_ids(self, project_id: int) -> set[int]:
        """Every task."""
        self._check(project_id)
        return set(self.tasks)

    @asked
    def list_users(self) -> list[Json]:
        """Users."""
        return copy.deepcopy(self.users)

    @asked
    def prediction_version(self, prediction_id: int) -> str | None:
        """Version of a stored prediction."""
        stored = self.predictions.get(prediction_id)
        return stored["model_version"] if stored else None

    @asked
    def get_annotation(self, annotation_id: int) -> Json | None:
        """An annotation; None if it is gone."""
        return copy.deepcopy(self.annotations.get(annotation_id))

    @asked
    def get_project(self, project_id: int) -> Json:
        """Settings."""
        self._check(project_id)
        return {"id": project_id, "model_version": self.model_version or ""}

    @asked
    def push_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Drops in silence what it does not like; one unknown task refuses all."""
        self._check(project_id)
        unknown = [p["task"] for p in predictions if p["task"] not in self.tasks]
        if unknown:
            raise LabelStudioRefused(f"Label Studio: POST import/predictions answered 400: tasks {unknown}")
        kept = [p for p in json.loads(json.dumps(list(predictions))) if self._is_kept(p)]
        for document in kept:
            self._prediction_ids += 1
            self.predictions[self._prediction_ids] = {"id": self._prediction_ids, **document}
        return len(kept)

    @asked
    def replace_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """In place where a task holds one of the version: it keeps its id."""
        self._check(project_id)
        replaced, lacking = 0, []
        for wanted in predictions:
            same = [
                number
                for number, stored in sorted(self.predictions.items())
                if (stored["task"], stored["model_version"]) == (wanted["task"], wanted["model_version"])
            ]
            if not 0 <= wanted["score"] <= 1:
                raise InputError(f"task {wanted['task']}: score {wanted['score']}, expected 0 to 1")
            if not same:
                lacking.append(wanted)
                continue
            self.predictions[same[0]] = {"id": same[0], **json.loads(json.dumps(dict(wanted)))}
            self._drop_predictions(same[1:])
            replaced += 1
        return replaced + (self.push_predictions(project_id, lacking) if lacking else 0)

    @asked
    def prediction_tasks(self, project_id: int, version: str) -> set[int]:
        """Tasks that hold a prediction of a version."""
        self._check(project_id)
        return {p["task"] for p in self.predictions.values() if p["model_version"] == version}

    @asked
    def set_model_version(self, project_id: int, version: str) -> None:
        """Refused while no prediction has it."""
        self._check(project_id)
        if all(p["model_version"] != version for p in self.predictions.values()):
            raise LabelStudioRefused(f"Label Studio: PATCH project answered 400: no predictions of {version}")
        self.model_version = version

    @asked
    def model_versions(self, project_id: int) -> dict[str, int]:
        """Predictions by version."""
        self._check(project_id)
        counted: dict[str, int] = {}
        for stored in self.predictions.values():
            counted[stored["model_version"]] = counted.get(stored["model_version"], 0) + 1
        return counted

    @asked
    def delete_model_version(self, project_id: int, version: str) -> int:
        """Deleting the version in force leaves none in force."""
        self._check(project_id)
        doomed = [number for number, p in self.predictions.items() if p["model_version"] == version]
        self._drop_predictions(doomed)
        if self.model_version == version:
            self.model_version = None
        return len(doomed)

    @asked
    def ensure_view(
        self,
        project_id: int,
        title: str,
        task_ids: Sequence[int],
        ordering: Sequence[str],
        user_id: int | None = None,
    ) -> int:
        """The tab of a title; what it shows is given back to its user."""
        self._check(project_id)
        lacking = [task_id for task_id in task_ids if task_id not in self.tasks]
        if lacking:
            raise LabelStudioRefused(f"Label Studio: tasks {lacking} are not in project {project_id}")
        known = [number for number, view in self.views.items() if view["title"] == title]
        number = known[0] if known else len(self.views) + 1
        self.views[number] = {
            "title": title,
            "tasks": set(task_ids),
            "ordering": tuple(ordering),
            "user": user_id,
        }
        self.withdrawn -= {(task_id, user_id) for task_id in task_ids}
        return number

    @asked
    def withdraw_tasks(self, project_id: int, task_ids: Sequence[int], user_id: int) -> None:
        """Open pages of this user's tab leave these out."""
        self._check(project_id)
        for task_id in task_ids:
            self._task(task_id)["updated_at"] = self._tick()
            self.withdrawn.add((task_id, user_id))

    @asked
    def set_readers(self, task_id: int, readers: int) -> None:
        """How many experts a task is handed to."""
        self._task(task_id)["updated_at"] = self._tick()
        self.readers[task_id] = readers

    @asked
    def list_drafts(self, project_id: int, task_ids: Sequence[int]) -> list[Json]:
        """Drafts of every user."""
        self._check(project_id)
        return [copy.deepcopy(d) for d in self.drafts.values() if d["task"] in set(task_ids)]

    def import_tasks(self, project_id: int, documents: Sequence[Mapping[str, Any]]) -> list[int]:
        """Not of the port: what ``labelstudio_config.project`` asks of the client."""
        self._check(project_id)
        return [self.add_task(data) for data in documents]

    def close(self) -> None:
        """Nothing to close."""

    # --- what people and administrators do ----------------------------------------------------------

    def add_task(self, data: Mapping[str, Any]) -> int:
        """A new task; its id is the highest that exists plus one, so that ids come again (SQLite)."""
        task_id = max(self.tasks, default=0) + 1
        document = {"id": task_id, "project": self.project_id, "data": dict(data), "updated_at": self._tick()}
        self.tasks[task_id] = document
        return task_id

    def delete_task(self, task_id: int) -> None:
        """A task with its annotations and predictions; its webhook names the task alone."""
        del self.tasks[task_id]
        self.readers.pop(task_id, None)
        self.withdrawn = {mark for mark in self.withdrawn if mark[0] != task_id}
        self.drafts = {k: d for k, d in self.drafts.items() if d["task"] != task_id}
        self.annotations = {k: a for k, a in self.annotations.items() if a["task"] != task_id}
        self.predictions = {k: p for k, p in self.predictions.items() if p["task"] != task_id}
        self._send("TASKS_DELETED", tasks=[{"id": task_id}])

    def annotate(self, task_id: int, result: Sequence[Mapping[str, Any]], **fields: Any) -> int:
        """Submit (or, with ``was_cancelled``, skip) as an expert; returns the annotation's id.

        Refused where the prediction it began with is gone. The expert's draft of the task goes.
        """
        parent = fields.get("parent_prediction")
        if parent is not None and parent not in self.predictions:
            raise LabelStudioRefused(f"Label Studio: POST annotations answered 400: Invalid pk {parent}")
        self._annotation_ids += 1
        moment = self._tick()
        annotation = {
            "id": self._annotation_ids,
            "task": task_id,
            "project": self.project_id,
            "result": json.loads(json.dumps(list(result))),
            "was_cancelled": False,
            "created_at": moment,
            "updated_at": moment,
            "lead_time": 12.5,
            "completed_by": EXPERT["id"],
            "parent_prediction": None,
            **fields,
        }
        self.annotations[annotation["id"]] = annotation
        self.drafts.pop((task_id, annotation["completed_by"]), None)
        self.tasks[task_id]["updated_at"] = moment
        self._send("ANNOTATION_CREATED", annotation=annotation, task=self._task_of_event(task_id))
        return annotation["id"]

    def update(self, annotation_id: int, **fields: Any) -> None:
        """Change an annotation."""
        annotation = self.annotations[annotation_id]
        annotation.update(json.loads(json.dumps(fields)), updated_at=self._tick())
        self.tasks[annotation["task"]]["updated_at"] = annotation["updated_at"]
        self._send("ANNOTATION_UPDATED", annotation=annotation, task=self._task_of_event(annotation["task"]))

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation; its webhook does not say of which task."""
        task_id = self.annotations.pop(annotation_id)["task"]
        self.tasks[task_id]["updated_at"] = self._tick()
        self._send("ANNOTATIONS_DELETED", annotations=[{"id": annotation_id}])

    def draft(self, task_id: int, user_id: int = EXPERT["id"], annotation_id: int | None = None) -> None:
        """What the editor saves five seconds after a stroke: without event, and the task stays as old."""
        moment = self._tick()
        known = self.drafts.get((task_id, user_id), {"created_at": moment})
        email = next(user["email"] for user in self.users if user["id"] == user_id)
        self.drafts[task_id, user_id] = {
            "task": task_id,
            "user": email,
            "annotation": annotation_id,
            "lead_time": 5.0,
            "created_at": known["created_at"],
            "updated_at": moment,
        }

    def open_tab(self, title: str) -> Callable[[int], int | None]:
        """The label stream of a tab: a function that gives a user the next task, None at the end.

        It keeps to the tasks that the tab had when the page was loaded; their scores, the marks of the
        tab's user and what is finished are those of the moment.
        """
        view = copy.deepcopy(next(view for view in self.views.values() if view["title"] == title))

        def next_task(user_id: int) -> int | None:
            own = {a["task"] for a in self.annotations.values() if a["completed_by"] == user_id}
            left = [
                task_id
                for task_id in self._ordered(view["tasks"] & set(self.tasks))
                if task_id not in own
                and not self._is_labeled(task_id)
                and (task_id, view["user"]) not in self.withdrawn
            ]
            return left[0] if left else None

        return next_task

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)

    # --- what is on the screen ----------------------------------------------------------------------

    def task(self, task_id: int) -> Json:
        """A task as the API gives it."""
        document = copy.deepcopy(self.tasks[task_id])
        for name, kept in (("annotations", self.annotations), ("predictions", self.predictions)):
            document[name] = [copy.deepcopy(one) for one in kept.values() if one["task"] == task_id]
        return document

    def scores(self) -> dict[int, float | None]:
        """``predictions_score`` by task: of the version in force, null where it has none."""
        scores: dict[int, float | None] = {}
        for task_id in self.tasks:
            of_version = [
                p["score"]
                for p in self.predictions.values()
                if p["task"] == task_id and p["model_version"] == self.model_version
            ]
            scores[task_id] = sum(of_version) / len(of_version) if of_version else None
        return scores

    def tab(self, title: str) -> list[int]:
        """Tasks of a tab in its order; null scores come first, as on SQLite."""
        view = next(view for view in self.views.values() if view["title"] == title)
        there = view["tasks"] & set(self.tasks)
        return self._ordered({t for t in there if (t, view["user"]) not in self.withdrawn})

    # --- inside ---------------------------------------------------------------------------------------

    def _ordered(self, task_ids: set[int]) -> list[int]:
        scores = self.scores()
        return sorted(task_ids, key=lambda t: (scores[t] is not None, scores[t] or 0.0, t))

    def _is_labeled(self, task_id: int) -> bool:
        submitted = [a for a in self.annotations.values() if a["task"] == task_id and not a["was_cancelled"]]
        return len(submitted) >= self.readers.get(task_id, 1)

    def _task(self, task_id: int) -> Json:
        if task_id not in self.tasks:
            raise LabelStudioRefused(f"Label Studio: task {task_id} answered 404: Not found.")
        return self.tasks[task_id]

    def _drop_predictions(self, numbers: Sequence[int]) -> None:
        """Annotations that began with one forget which it was."""
        for number in numbers:
            del self.predictions[number]
        for annotation in self.annotations.values():
            if annotation["parent_prediction"] in numbers:
                annotation["parent_prediction"] = None

    def _tick(self) -> str:
        """The present, but never a moment twice: a copy of a server that was made minutes ago lives now."""
        self._now = max(datetime.now(UTC), self._now + timedelta(microseconds=1))
        return self._now.isoformat().replace("+00:00", "Z")

    def _check(self, project_id: int) -> None:
        if project_id != self.project_id:
            raise LabelStudioRefused(f"Label Studio: project {project_id} answered 404: Not found.")

    def _is_kept(self, document: Json) -> bool:
        names = [n for region in document["result"] for n in region["value"]["brushlabels"]]
        return 0 <= document["score"] <= 1 and set(names) <= self.labels

    def _task_of_event(self, task_id: int) -> Json:
        return {k: v for k, v in self.tasks[task_id].items() if k != "annotations"}

    def _send(self, action: str, **payload: Any) -> None:
        if self.listener is not None:
            body = {"action": action, "project": {"id": self.project_id}, **payload}
            self.listener(json.dumps(body).encode())
