"""What ``cytoloop rate`` and ``cytoloop boxes`` share: the study's folder, its key, its projects, its answers.

A study lies in ``<home>/<kind>/<name>/``; ``design.json`` there is the key, readable by its owner alone.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cytoloop.commands.home import Home
from cytoloop.domain.errors import ConfigError, InputError, StateError
from cytoloop.domain.survey.study import Progress
from cytoloop.domain.types import Item, ModelVersion, Split
from cytoloop.files import read_json
from labelstudio_config.study import (
    Answer,
    StudyProject,
    answers,
    create_projects,
    labeling_url,
    users_of,
)

Tell = Callable[[str, int, int], None]
"""(what is being done, done, total)"""
Kind = Literal["ratings", "boxes"]
DESIGN = "design.json"
_TITLES: dict[Kind, str] = {"ratings": "Blind rating", "boxes": "Boxes"}
_LONGEST_NAME = 24  # Label Studio's titles end at 50 characters
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One expert's project."""

    expert: str
    set: int
    """From 1."""
    project_id: int
    title: str
    tasks: int
    url: str
    """Where this expert begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedStudy:
    """What a ``create`` made."""

    name: str
    assay: str
    items: int
    methods: tuple[str, ...]
    """Compared by a rating; empty for boxes."""
    seats: tuple[Seat, ...]
    design: Path
    """The key: keep it away from the experts."""


def new_folder(home: Path, kind: Kind, name: str | None, assay: str) -> Path:
    """Where a new study will lie; by default ``<assay>-<number>``. Nothing is made yet.

    Raises
    ------
    ConfigError
        If the name cannot be one.
    StateError
        If there is a study of that name.
    """
    if name is None:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", assay).strip("-._")[: _LONGEST_NAME - 4] or "study"
        numbers = iter(range(1, 1000))
        return next(folder for n in numbers if not (folder := home / kind / f"{stem}-{n}").exists())
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"--name {name!r}: expected at most {_LONGEST_NAME} letters, digits, dots, dashes or underscores"
        )
    folder = home / kind / name
    if folder.exists():
        raise StateError(f"{folder} is there already; expected a new name")
    return folder


DEFAULT_SPLIT: Split = "sealed"
"""Wells that a study with people looks at: nothing learned from them, nothing was chosen by them."""


def items_of_split(home: Home, assay: str, split: Split) -> list[Item]:
    """Every item of a split of the home."""
    wanted = {record.image_id for record in home.store.images.all(assay, [split])}
    return [item for item in home.store.images.tasks(assay) if item.image_id in wanted]


def how_many(asked: int | None, paper: int, available: int, where: str) -> int:
    """Items to draw: as asked, else the paper's number or all there are.

    Raises
    ------
    InputError
        If there are fewer than asked, or none.
    """
    count = min(paper, available) if asked is None else asked
    if available == 0 or count > available:
        raise InputError(f"{where}: {available} items, expected at least {max(count, 1)}")
    return count


def cip_version(home: Home, assay: str) -> ModelVersion:
    """The newest CIP version of an assay."""
    found = [model for model in home.store.models.all(assay) if model.method == "cip"]
    if not found:
        raise StateError(f"assay {assay!r} has no CIP version yet; expected an import first")
    return found[-1]


def version_of(home: Home, assay: str, version: str) -> ModelVersion:
    """A version by name; ``InputError`` if it is another assay's."""
    model = home.store.models.get(version)
    if model.assay != assay:
        raise InputError(f"model {version} is of assay {model.assay!r}, expected {assay!r}")
    return model


def open_study(
    home: Home, folder: Path, document: dict[str, Any], experts: Sequence[str], plans: Sequence[StudyProject]
) -> dict[str, Any]:
    """Make the experts' projects and write the key, all or nothing; the key with the projects in it."""
    label_studio = home.label_studio
    project_ids = create_projects(label_studio, plans)
    projects = [
        {"expert": expert, "project_id": project_id, "title": plan.title, "tasks": len(plan.documents)}
        for expert, project_id, plan in zip(experts, project_ids, plans, strict=True)
    ]
    document = {**document, "projects": projects}
    try:
        write_private(folder / DESIGN, json.dumps(document, indent=1))
    except BaseException:  # answers to a study without its key are worth nothing
        for project_id in project_ids:
            label_studio.delete_project(project_id)
        raise
    return document


def project_title(kind: Kind, name: str, number: int) -> str:
    """Says which study and whose project, and nothing else: experts read it."""
    return f"{_TITLES[kind]} {name} – expert {number}"


def check_experts(home: Home, experts: Sequence[str]) -> None:
    """Refuse an e-mail that nobody in Label Studio has, and an empty name."""
    if not all(expert.strip() for expert in experts):
        raise ConfigError(f"--experts {','.join(experts)}: a name is empty, expected names or e-mails")
    users_of(home.label_studio, experts)


def write_private(path: Path, text: str) -> Path:
    """Write a file that its owner alone can read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return path


def read_design(home: Path, kind: Kind, name: str) -> tuple[Path, dict[str, Any]]:
    """Folder and key of a study.

    Raises
    ------
    InputError
        If there is none of that name, naming those there are, or its key is damaged.
    """
    folder = home / kind / name
    known = sorted(path.parent.name for path in (home / kind).glob(f"*/{DESIGN}"))
    if name not in known:
        raise InputError(f"{folder}: no such study, expected one of {known}")
    try:
        document = read_json(folder / DESIGN)
    except OSError as error:
        raise InputError(f"{folder / DESIGN}: cannot be read ({error.strerror})") from None
    if not isinstance(document, dict) or "projects" not in document:
        raise InputError(f"{folder / DESIGN}: not the key of a study")
    return folder, document


def seats_of(home: Home, document: dict[str, Any], set_of: dict[str, int]) -> tuple[Seat, ...]:
    """Every expert's place in Label Studio."""
    base_url = home.label_studio.base_url
    return tuple(
        Seat(
            expert=one["expert"],
            set=set_of[one["expert"]],
            project_id=one["project_id"],
            title=one["title"],
            tasks=one["tasks"],
            url=labeling_url(base_url, one["project_id"]),
        )
        for one in document["projects"]
    )


def answers_of(home: Home, seats: Sequence[Seat], tell: Tell) -> Iterator[tuple[Seat, list[Answer]]]:
    """What stands in each expert's project."""
    users = users_of(home.label_studio, [seat.expert for seat in seats])
    for number, seat in enumerate(seats, start=1):
        given = list(answers(home.label_studio, seat.project_id, seat.title, users.get(seat.expert)))
        yield seat, given
        tell("collect", number, len(seats))


def progress_of(seat: Seat, given: Sequence[Answer]) -> Progress:
    """How far an expert is; tasks deleted meanwhile are still to be done."""
    open_ = [answer for answer in given if answer.result is None]
    return Progress(
        expert=seat.expert,
        set=seat.set,
        done=len(given) - len(open_),
        total=seat.tasks,
        skipped=sum(answer.was_skipped for answer in open_),
        by_others=sum(answer.by_other for answer in open_),
        project_id=seat.project_id,
    )


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()


def number_of_seed(seed: int | None) -> int:
    """The seed, or a fresh one that the design then remembers."""
    return int.from_bytes(os.urandom(4), "big") if seed is None else seed
