"""What the use cases ask of the outside; the edges implement it, tests fake it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol


class LabelStudio(Protocol):
    """The part of Label Studio's API that reconciling and publishing need.

    Every method raises ``LabelStudioUnavailable`` if it does not answer and ``LabelStudioRefused``
    if it says no.
    """

    def iter_tasks(self, project_id: int, updated_after: datetime | None = None) -> Iterator[dict[str, Any]]:
        """Tasks with their annotations, those changed first coming first."""

    def task_ids(self, project_id: int) -> set[int]:
        """Every task of a project."""

    def list_users(self) -> list[dict[str, Any]]:
        """Users with ``id`` and ``email``."""

    def prediction_version(self, prediction_id: int) -> str | None:
        """Model version of a stored prediction; None if it is gone."""

    def get_project(self, project_id: int) -> dict[str, Any]:
        """A project's settings."""

    def push_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Bulk import; returns how many Label Studio kept."""

    def replace_predictions(self, project_id: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Put predictions in the place of those of the same version, or push them; returns how many stand."""

    def prediction_tasks(self, project_id: int, version: str) -> set[int]:
        """Tasks that hold a prediction of a version."""

    def set_model_version(self, project_id: int, version: str) -> None:
        """Decide whose predictions count."""

    def model_versions(self, project_id: int) -> Mapping[str, int]:
        """Versions that have predictions, with their number."""

    def delete_model_version(self, project_id: int, version: str) -> object:
        """Delete every prediction of a version; work that began with one can no longer be submitted."""

    def ensure_view(
        self,
        project_id: int,
        title: str,
        task_ids: Sequence[int],
        ordering: Sequence[str],
        user_id: int | None = None,
    ) -> int:
        """A Data Manager tab of exactly these tasks, for everyone or for one user.

        A page that is open learns of a change when it is loaded again.
        """

    def withdraw_tasks(self, project_id: int, task_ids: Sequence[int], user_id: int) -> None:
        """Keep tasks from a user, on a page of this user's tab that is open too."""

    def set_readers(self, task_id: int, readers: int) -> None:
        """To how many experts a task is handed."""

    def list_drafts(self, project_id: int, task_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Unsubmitted work on tasks: ``task``, ``user`` (an e-mail), ``updated_at``, ``annotation``."""

    def get_annotation(self, annotation_id: int) -> Mapping[str, Any] | None:
        """An annotation as it is now; None if it is gone."""

    def delete_annotation(self, annotation_id: int) -> None:
        """Delete an annotation; its task goes back to the one who skipped or submitted it."""
