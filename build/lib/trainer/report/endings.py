"""Cycles that came to no decision of their own: failed, called off, or a person brought a version into force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cytoloop.domain.trainer_policy import Triggers
from cytoloop.domain.types import Method


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How far a cycle came, and what is left of it."""

    step: str
    """As the trainer noted it: ``train joint: epoch 3/8, loss 0.412``."""
    log: str
    """File that tells more, relative to the home."""
    then: str
    """What the trainer will do next, in words."""
    waiting: tuple[str, ...] = ()
    """Versions that were trained before it ended, and wait for a contest."""

    @property
    def doing(self) -> str:
        """What was going on, in words; empty for a step without any."""
        return next((words for begin, words in _STEPS.items() if self.step.startswith(begin)), "")


_STEPS: Mapping[str, str] = {
    "queued": "before it had done anything",
    "reconcile": "while corrections were brought in from Label Studio",
    "train cdl": "while the CDL model was trained",
    "train mdl": "while the MDL model was trained",
    "train joint": "while the joint model was trained",
    "train": "while a model was trained",
    "contest": "while the challenger was compared with the model in use",
    "publish": "while the new model’s predictions were brought into Label Studio",
    "refill": "while the worklists were filled",
    "measure": "while the models were measured",
    "compare": "while it was told what the experts had changed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVersion:
    """A version and what is known of it."""

    version: str
    method: Method
    made_at: datetime
    contest_mean_iou: float | None = None
    """As last measured; None where it never was."""
    sealed_mean_iou: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """A person brought a version into force that existed already; no contest was held."""

    by: str
    before: KnownVersion
    after: KnownVersion


def triggers_in_words(triggers: Triggers) -> str:
    """What makes the next cycle due.

    Examples
    --------
    >>> triggers_in_words(Triggers())
    'after 20 new corrections'
    >>> triggers_in_words(Triggers(corrections=1, minutes=90, cron="0 3 * * *"))
    'after 1 new correction, after 90 more minutes of expert work, or by the schedule 0 3 * * *'
    """
    told = []
    if triggers.corrections is not None:
        told.append(f"after {triggers.corrections} new correction{'s' if triggers.corrections != 1 else ''}")
    if triggers.minutes is not None:
        told.append(f"after {triggers.minutes:g} more minutes of expert work")
    if triggers.agreement_fall is not None:
        told.append(
            f"when experts’ agreement with the model in use falls by {triggers.agreement_fall:g} (mean Dice)"
        )
    if triggers.cron is not None:
        told.append(f"by the schedule {triggers.cron}")
    if len(told) > 1:
        told[-1] = f"or {told[-1]}"
    return ", ".join(told)
