"""Label Studio in memory as studies use it: several projects, their tasks, what experts answered."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cytoloop.domain.errors import LabelStudioUnavailable
from labelstudio_config.connection import LabelStudioNotFound

Json = dict[str, Any]
ADA, BOB = "ada@lab.org", "bob@lab.org"


class Desk:
    """What ``cytoloop rate`` and ``cytoloop boxes`` ask of the client; ``breaks_at`` fails the n-th import."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.base_url = "http://127.0.0.1:8080"
        self.projects: dict[int, Json] = {}
        self.tasks: dict[int, Json] = {}
        self._breaks_at = breaks_at
        self._imports = 0

    def list_users(self) -> list[Json]:
        return [{"id": 1, "email": ADA}, {"id": 2, "email": BOB}]

    def create_project(self, title: str, label_config: str, **fields: Any) -> int:
        assert 3 <= len(title) <= 50, title  # Label Studio refuses others
        number = len(self.projects) + 1
        self.projects[number] = {"title": title, "label_config": label_config, **fields}
        return number

    def get_project(self, project_id: int) -> Json:
        if project_id not in self.projects:
            raise LabelStudioNotFound(f"project {project_id}: 404")
        return self.projects[project_id]

    def delete_project(self, project_id: int) -> None:
        del self.projects[project_id]

    def ensure_local_storage(self, project_id: int, path: str, title: str) -> int:
        self.projects[project_id]["storage"] = path
        return 1

    def import_tasks(self, project_id: int, documents: Sequence[Mapping[str, Any]]) -> list[int]:
        self._imports += 1
        if self._imports == self._breaks_at:
            raise LabelStudioUnavailable("Label Studio: import: connection reset")
        ids = []
        for data in documents:
            number = len(self.tasks) + 1
            self.tasks[number] = {"id": number, "project": project_id, "data": dict(data), "annotations": []}
            ids.append(number)
        return ids

    def iter_tasks(self, project_id: int) -> list[Json]:
        return copy.deepcopy(self.of(project_id))

    def close(self) -> None:
        pass

    # --- what experts do ------------------------------------------------------------------------

    def of(self, project_id: int) -> list[Json]:
        """Tasks of a project in the order in which they come."""
        return [task for task in self.tasks.values() if task["project"] == project_id]

    def answer(self, task: Json, result: Sequence[Mapping[str, Any]], user: int = 1, **fields: Any) -> None:
        """Submit."""
        minute = len(task["annotations"])
        task["annotations"].append(
            {
                "result": list(result),
                "completed_by": user,
                "updated_at": f"2024-05-17T12:{minute:02d}:00Z",
                "was_cancelled": False,
                "lead_time": 45.0,
                **fields,
            }
        )

    def rate_all(self, project_id: int, value_of: Callable[[Json], int], user: int = 1) -> None:
        """Give every task of a project its stars."""
        for task in self.of(project_id):
            region = {"type": "rating", "from_name": "rating", "to_name": "overlay"}
            self.answer(task, [{**region, "value": {"rating": value_of(task["data"])}}], user)
