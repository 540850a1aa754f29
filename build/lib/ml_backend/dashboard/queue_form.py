"""The policy of a queue as a form: every key with its meaning, and what was typed as the policy's document."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cytoloop.domain.errors import InputError
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.strategies import STRATEGIES

Kind = Literal["number", "choice", "experts", "lines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of the policy."""

    key: str
    label: str
    help: str
    kind: Kind = "number"
    choices: tuple[tuple[str, str], ...] = ()
    """Value and words, where ``kind`` is *choice*."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Fields that belong together."""

    title: str
    help: str
    fields: tuple[Field, ...]


_RETURN = (("return", "goes back to the queue"), ("retire", "is never asked for again"))
GROUPS: tuple[Group, ...] = (
    Group(
        title="Who works on it",
        help="",
        fields=(
            Field(
                key="experts",
                label="Experts",
                kind="experts",
                help="One a line: name <e-mail>, with the e-mail of Label Studio. Empty: one list that everyone shares.",
            ),
        ),
    ),
    Group(
        title="A batch",
        help="What an expert is handed at once.",
        fields=(
            Field(
                key="strategy",
                label="Ranked by",
                kind="choice",
                choices=tuple((one.name, f"{one.name} — {one.words}") for one in STRATEGIES.values()),
                help="What comes first among the items that are not drawn at random.",
            ),
            Field(key="size", label="Items in a batch", help="A whole number."),
            Field(
                key="minutes",
                label="Minutes in a batch",
                help="Expected work; a batch ends where it is reached. Empty: the number of items alone ends it.",
            ),
            Field(
                key="cap",
                label="Most items held at a time",
                help="By one expert. Empty: as many as there are in a batch.",
            ),
            Field(
                key="lease_minutes",
                label="Minutes an item stays",
                help="With an expert who does nothing; then it goes back to the queue.",
            ),
        ),
    ),
    Group(
        title="Drawn at random, to measure",
        help="Shares of a batch from 0 to 1: 0.25 is a quarter. All shares together are at most 1; what is left is ranked.",
        fields=(
            Field(
                key="contest_share",
                label="Contest wells",
                help="They decide which model serves. With 0 no new model can ever win.",
            ),
            Field(
                key="validation_share",
                label="Validation wells",
                help="They choose when a training stops, and which of the new models is the challenger.",
            ),
            Field(
                key="sealed_share", label="Sealed wells", help="They decide nothing and are only reported."
            ),
            Field(
                key="audit_share",
                label="Training wells",
                help="They tell what the ranking is worth, beside the items it chose.",
            ),
        ),
    ),
    Group(
        title="To compare experts",
        help="Further shares of a batch.",
        fields=(
            Field(
                key="overlap_share",
                label="Read by several",
                help="Ranked items that several experts read, none seeing the others’ work.",
            ),
            Field(key="overlap_readers", label="How many read those", help="2 or more."),
            Field(
                key="gold_share",
                label="Gold items",
                help="Items whose mask is known, read by everyone: how well does each expert agree with it?",
            ),
            Field(
                key="gold",
                label="Which those are",
                kind="lines",
                help="One a line: <image id>/<tile>. Items that two experts have read are gold besides.",
            ),
            Field(
                key="blank_share",
                label="From scratch",
                help="Ranked items without a proposal: how far does a proposal lead the hand?",
            ),
        ),
    ),
    Group(
        title="Contest items",
        help="",
        fields=(
            Field(
                key="contest_canvas",
                label="What lies on them",
                kind="choice",
                choices=(
                    ("cip", "the CIP’s mask"),
                    ("blank", "nothing"),
                    ("model", "the mask of the model in use"),
                ),
                help="A model that judged its own proposals would be favoured.",
            ),
            Field(
                key="contest_readers",
                label="How many read each",
                help="1 or 2. Empty: 2 where the queue has two experts or more, else 1.",
            ),
        ),
    ),
    Group(
        title="Limits, and what is passed by",
        help="",
        fields=(
            Field(key="max_per_group", label="Most items of one well", help="In a batch. Empty: no limit."),
            Field(key="max_per_plate", label="Most items of one plate", help="In a batch. Empty: no limit."),
            Field(
                key="skipped",
                label="An item that is skipped",
                kind="choice",
                choices=_RETURN,
                help="For others: whoever skipped it is not asked again.",
            ),
            Field(
                key="deleted",
                label="An item whose correction is deleted",
                kind="choice",
                choices=_RETURN,
                help="",
            ),
        ),
    ),
)
FIELDS: tuple[Field, ...] = tuple(field for group in GROUPS for field in group.fields)
_EXPERT = re.compile(r"(.+?)\s*<([^<>]*)>")


def typed(policy: QueuePolicy) -> dict[str, str]:
    """A policy as it would be typed."""
    document = policy.document()
    return {field.key: _shown(field, document[field.key]) for field in FIELDS}


def document_of(form: Mapping[str, str], where: str) -> dict[str, Any]:
    """What was typed, as a policy's document; whether it makes sense is ``QueuePolicy``'s to judge.

    A number that is none stays text, and is refused with what was typed.

    Raises
    ------
    InputError
        If a line of experts is not ``name <e-mail>``.
    """
    return {field.key: _value(field, form.get(field.key, ""), where) for field in FIELDS}


def key_of(message: str) -> str | None:
    """The key that an error is about, so that the form can point at it.

    Examples
    --------
    >>> key_of("queue 'tiny/default': key 'experts.0': name is '' (str), expected …")
    'experts'
    """
    found = re.search(r"key '(\w+)", message)
    return found[1] if found else None


def _shown(field: Field, value: Any) -> str:
    if value is None:
        return ""
    if field.kind == "experts":
        return "\n".join(f"{expert['name']} <{expert['email']}>" for expert in value)
    if field.kind == "lines":
        return "\n".join(value)
    return str(value).removesuffix(".0")


def _value(field: Field, text: str, where: str) -> Any:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if field.kind == "experts":
        return [_expert(line, f"{where}: key 'experts': line {n}") for n, line in enumerate(lines, start=1)]
    if field.kind == "lines":
        return lines
    return text.strip() if field.kind == "choice" else _number(text.strip())


def _expert(line: str, where: str) -> dict[str, str]:
    found = _EXPERT.fullmatch(line)
    if found is None:
        raise InputError(f"{where}: got {line!r}, expected a name and an e-mail, as in 'Ada <ada@lab.org>'")
    return {"name": found[1], "email": found[2].strip()}


def _number(text: str) -> int | float | str | None:
    if not text:
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
