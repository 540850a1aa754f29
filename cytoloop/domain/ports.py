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

    def prediction_tasks(self, project_id: int, version: str) -> set[int]:
        """Tasks that hold a prediction of a version."""

    def set_model_version(self, project_id: int, version: str) -> None:
        """Decide whose predictions count."""

    def model_versions(self, project_id: int) -> Mapping[str, int]:
        """Versions that have predictions, with their number."""

    def delete_model_version(self, project_id: int, version: str) -> object:
        """Delete every prediction of a version."""

    def ensure_view(
        self, project_id: int, title: str, task_ids: Sequence[int], ordering: Sequence[str]
    ) -> int:
        """A Data Manager tab of exactly these tasks."""
