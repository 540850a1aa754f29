"""Where the reports of cycles lie."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cytoloop.adapters.store import Store
from cytoloop.domain.errors import UnknownVersion


def report_file(store: Store, home: Path, cycle_id: str, name: Literal["report.html", "report.json"]) -> Path:
    """The page of a cycle, or its document.

    Raises
    ------
    UnknownVersion
        If there is no such cycle, or it has no report.
    """
    report: str | None = store.cycles.get(cycle_id)["report"]
    path = home / report / name if report else None
    if path is None or not path.is_file():
        raise UnknownVersion(f"cycle {cycle_id!r} has no report")
    return path
