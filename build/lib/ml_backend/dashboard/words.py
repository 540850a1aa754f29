"""How the dashboard says things: plain words for biologists, times of the day they live in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from cytoloop.domain.types import CycleKind, Method

METHODS: Mapping[Method, str] = {
    "cip": "conventional image processing (CIP): filters and thresholds, nothing learned",
    "cdl": "a network that learned from the CIP’s masks (CDL)",
    "mdl": "a network that learned from experts’ corrections alone (MDL)",
    "joint": "a network that learned from the CIP’s masks and from experts’ corrections (joint)",
}
SHORT_METHODS: Mapping[Method, str] = {
    "cip": "CIP: nothing learned",
    "cdl": "CDL: learned from the CIP",
    "mdl": "MDL: learned from corrections",
    "joint": "joint: CIP and corrections",
}
STATUSES: Mapping[str, str] = {
    "candidate": "waits for a contest",
    "active": "in use",
    "retired": "was in use before",
    "rejected": "lost its contest",
    "pruned": "only its history is left",
}
KINDS: Mapping[CycleKind, str] = {
    "train": "Training",
    "promote": "Bringing a chosen version into use",
    "rollback": "Going back to an earlier version",
}
OUTCOMES: Mapping[str, str] = {
    "promoted": "A better model came into use",
    "kept": "The model in use stayed",
    "not-trained": "Nothing was trained",
    "failed": "It failed; the model in use stayed",
    "cancelled": "It was called off; the model in use stayed",
    "rolled-back": "An earlier model came back into use",
    "abandoned": "It was interrupted, and is tried again",
}
STEPS: Mapping[str, str] = {
    "queued": "waits for the trainer",
    "reconcile": "collects the latest corrections",
    "train": "learns",
    "contest": "compares with the model in use",
    "publish": "brings the new model into use",
    "predict": "looks at every image",
    "push": "shows its proposals in Label Studio",
    "refill": "hands out new items",
    "measure": "measures all models",
    "compare": "compares corrections with proposals",
}
ASKED_BY: Mapping[str, str] = {
    "schedule": "began by itself",
    "restart": "began again after an interruption",
    "retry": "began again after an interruption",
    "up": "asked for when cytoloop was started",
}
DASH = "–"


def step(told: str) -> str:
    """What a cycle does, with whatever numbers it told.

    Examples
    --------
    >>> step("contest"), step("predict 3/16"), step("train joint: epoch 2/9, loss 0.120")
    ('compares with the model in use', 'looks at every image 3/16', 'learns (joint, epoch 2/9, loss 0.120)')
    >>> step("something new")
    'something new'
    """
    first, _, rest = told.partition(" ")
    if first not in STEPS:
        return told
    if first == "train" and rest:
        method, _, epoch = rest.partition(":")
        return f"{STEPS[first]} ({method},{epoch})" if epoch else f"{STEPS[first]} ({method})"
    return f"{STEPS[first]} {rest}".rstrip()


def outcome(cycle: Mapping[str, Any]) -> str:
    """What became of a cycle that is over.

    Examples
    --------
    >>> outcome({"kind": "promote", "outcome": "promoted"})
    'A version was brought into use by hand'
    >>> outcome({"kind": "train", "outcome": "kept"})
    'The model in use stayed'
    """
    if cycle["kind"] == "promote" and cycle["outcome"] == "promoted":
        return "A version was brought into use by hand"
    return OUTCOMES.get(cycle["outcome"], cycle["outcome"])


def asked_by(cycle: Mapping[str, Any]) -> str:
    """Who or what began a cycle."""
    return ASKED_BY.get(cycle["asked_by"], f"asked for by {cycle['asked_by']}")


def sentence(text: str) -> str:
    """Begin large, end with a full stop.

    Examples
    --------
    >>> sentence("kept the active model: too few wells"), sentence("Done."), sentence("")
    ('Kept the active model: too few wells.', 'Done.', '')
    """
    text = text.strip()
    if not text:
        return ""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def moment(when: datetime, now: datetime) -> str:
    """A time as people say it, in the time zone of ``now``.

    Examples
    --------
    >>> now = datetime.fromisoformat("2025-03-05T14:00+00:00")
    >>> for when in ("2025-03-05T03:00+00:00", "2025-03-06T03:00+00:00", "2025-03-09T03:00+00:00"):
    ...     moment(datetime.fromisoformat(when), now)
    'today 03:00'
    'tomorrow 03:00'
    'Sunday 03:00'
    >>> moment(datetime.fromisoformat("2025-03-01T03:00+00:00"), now)
    '1 March, 03:00'
    >>> moment(datetime.fromisoformat("2024-12-24T18:30+00:00"), now)
    '24 December 2024, 18:30'
    """
    local = when.astimezone(now.tzinfo)
    days = (local.date() - now.date()).days
    near = {-1: "yesterday", 0: "today", 1: "tomorrow"}
    if days in near:
        return f"{near[days]} {local:%H:%M}"
    if 1 < days < 7:
        return f"{local:%A %H:%M}"
    year = "" if local.year == now.year else f" {local.year}"
    return f"{local.day} {local:%B}{year}, {local:%H:%M}"


def number(value: float | None, digits: int = 2) -> str:
    """A number, or a dash for what is not known.

    Examples
    --------
    >>> number(0.5), number(None), number(float("nan")), number(12.0, 0)
    ('0.50', '–', '–', '12')
    """
    return f"{value:.{digits}f}" if value is not None and isfinite(value) else DASH


def count(how_many: int, what: str, many: str | None = None) -> str:
    """A number of things.

    Examples
    --------
    >>> count(1, "item"), count(0, "item"), count(2, "reply", "replies")
    ('1 item', '0 items', '2 replies')
    """
    return f"{how_many} {what if how_many == 1 else many or what + 's'}"
