"""What versions, splits and tasks are called on the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cytoloop.domain.types import Split

if TYPE_CHECKING:  # parts of the report name things, too
    from trainer.report import CycleReport

SPLIT_TITLES: Mapping[Split, str] = {
    "contest": "Contest items: they decide which model is used",
    "sealed": "Sealed items: they decide nothing, so these numbers are the honest ones",
    "validation": "Validation items: they chose the epoch and the challenger, so these numbers flatter",
    "train": "Training items: the models learned from them",
}
METHOD_NAMES: Mapping[str, str] = {
    "cip": "CIP (conventional image processing)",
    "cdl": "CDL (learned from weak labels)",
    "mdl": "MDL (learned from corrections)",
    "joint": "Joint (weak labels and corrections)",
}
SHORT_NAMES: Mapping[str, str] = {"cip": "CIP", "cdl": "CDL", "mdl": "MDL", "joint": "Joint"}
TASKS: Mapping[str, str] = {
    "rate": "rate a mask",
    "boxes": "draw boxes",
    "correct": "correct a prediction",
    "scratch": "draw from scratch",
}


def role_of(report: CycleReport, version: str) -> str:
    """What a version was to this cycle, in words; empty for bystanders."""
    roles = []
    if report.contest is not None and version == report.contest.challenger:
        roles.append("challenger")
    if version == report.active_after:
        roles.append("in use now")
    elif version == report.active_before:
        roles.append("in use before")
    return ", ".join(roles)


def label_of(report: CycleReport, version: str) -> str:
    """A version for the legend of a figure: its method, and its role where it has one."""
    role = role_of(report, version)
    short = SHORT_NAMES.get(version.partition("-")[0], version)
    return f"{short}, {role}" if role else short


def short_labels(names: Iterable[str]) -> dict[str, str]:
    """Methods of a study by name: ``CIP`` for a version of it, the whole name where two would be called alike.

    Examples
    --------
    >>> short_labels(["cip-20250101-aaaaaaaa", "cdl-20250101-bbbbbbbb"])["cip-20250101-aaaaaaaa"]
    'CIP'
    >>> short_labels(["cdl-20250101-aaaaaaaa", "cdl-20250102-bbbbbbbb"])["cdl-20250101-aaaaaaaa"]
    'cdl-20250101-aaaaaaaa'
    """
    given = list(names)
    short = [SHORT_NAMES.get(name.partition("-")[0], name) for name in given]
    return {name: told if short.count(told) == 1 else name for name, told in zip(given, short, strict=True)}
