"""Studies in Label Studio: one project an expert, and what each expert answered.

Label Studio Community assigns no task to anyone, and in one project an expert sees what others answered.
So every expert gets a project: it keeps the order of the tasks and the others' answers out of sight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cytoloop.domain.errors import InputError, LabelStudioRefused, StateError
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.connection import LabelStudioNotFound
from labelstudio_config.payloads import lead_time_of, parse_time


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyProject:
    """What one expert's project is to be."""

    title: str
    """3 to 50 characters."""
    description: str
    label_config: str
    instruction: str
    """HTML, shown when labeling begins."""
    pictures: Path
    """Folder that holds the pictures, below Label Studio's document root."""
    documents: tuple[Mapping[str, Any], ...]
    """Data of the tasks, in the order in which they come."""


def create_projects(label_studio: LabelStudioClient, wanted: Sequence[StudyProject]) -> list[int]:
    """Make the projects, all or none; their ids."""
    made: list[int] = []
    try:
        for one in wanted:
            project_id = label_studio.create_project(
                one.title,
                one.label_config,
                description=one.description,
                expert_instruction=one.instruction,
                show_instruction=True,
                show_skip_button=False,
                enable_empty_annotation=True,
                show_collab_predictions=False,
                sampling="Sequential sampling",
            )
            made.append(project_id)
            label_studio.ensure_local_storage(project_id, str(one.pictures), one.title)
            label_studio.import_tasks(project_id, one.documents)
    except BaseException:
        for project_id in made:
            label_studio.delete_project(project_id)
        raise
    return made


def labeling_url(base_url: str, project_id: int) -> str:
    """The page that shows an expert one task after the other, in their order."""
    return f"{base_url}/projects/{project_id}/data?labeling=1"


def users_of(label_studio: LabelStudioClient, experts: Sequence[str]) -> dict[str, int]:
    """Label Studio's user id of each expert that is named by e-mail.

    Raises
    ------
    InputError
        If an e-mail belongs to no user, naming those there are.
    """
    known = {str(user["email"]): int(user["id"]) for user in label_studio.list_users()}
    wanted = [expert for expert in experts if "@" in expert]
    unknown = [expert for expert in wanted if expert not in known]
    if unknown:
        raise InputError(
            f"experts {', '.join(unknown)}: not in Label Studio, expected e-mails of {', '.join(sorted(known))} "
            "or names without @ (whoever works in the expert's project then counts)"
        )
    return {expert: known[expert] for expert in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What stands in one task of one expert's project."""

    task_id: int
    data: Mapping[str, Any]
    """The task's data."""
    result: tuple[Mapping[str, Any], ...] | None
    """The expert's regions; None: not answered yet."""
    lead_time_s: float | None = None
    was_skipped: bool = False
    """Skipped and not answered since."""
    by_other: bool = False
    """Answered by somebody else only."""

    @property
    def where(self) -> str:
        """Beginning of a message about it."""
        return f"task {self.task_id}"


def answers(
    label_studio: LabelStudioClient, project_id: int, title: str, user_id: int | None
) -> Iterator[Answer]:
    """Every task of an expert's project with the answer that stands: the expert's last one.

    Parameters
    ----------
    title : str
        What the project was called when it was made: another Label Studio may have given its id away.
    user_id : int, optional
        Whose annotations count; None: anybody's.

    Raises
    ------
    StateError
        If the project is gone.
    """
    try:
        found = label_studio.get_project(project_id)["title"]
    except LabelStudioNotFound:
        found = None
    if found != title:
        what = "is gone" if found is None else f"is called {found!r}"
        raise StateError(f"project {project_id} {what} in Label Studio; expected {title!r}")
    # a page boundary that moves while an expert works gives a task twice: the last word counts
    latest = {int(task["id"]): task for task in label_studio.iter_tasks(project_id)}
    for task in latest.values():
        yield _standing(task, user_id)


def _standing(task: Mapping[str, Any], user_id: int | None) -> Answer:
    task_id, data = int(task["id"]), task.get("data") or {}
    where = f"task {task_id}: annotation"
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        raise LabelStudioRefused(f"task {task_id}: annotations are {annotations!r}, expected a list")
    given = sorted(annotations, key=lambda one: parse_time(one.get("updated_at"), f"{where}: updated_at"))
    submitted = [one for one in given if not one.get("was_cancelled")]
    mine = [one for one in submitted if user_id is None or _user(one) == user_id]
    if not mine:
        return Answer(
            task_id=task_id,
            data=data,
            result=None,
            was_skipped=len(given) > len(submitted),
            by_other=bool(submitted),
        )
    last = mine[-1]
    return Answer(
        task_id=task_id,
        data=data,
        result=tuple(last.get("result") or ()),
        lead_time_s=lead_time_of(last),
    )


def _user(annotation: Mapping[str, Any]) -> object:
    user = annotation.get("completed_by")
    return user.get("id") if isinstance(user, Mapping) else user
