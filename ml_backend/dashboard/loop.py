"""State of the loop of one assay: what is in use, what came in, what makes the next cycle due, what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cytoloop.adapters.cron import next_time
from cytoloop.adapters.store import Store, Totals
from cytoloop.domain.trainer_policy import Triggers
from cytoloop.domain.types import ModelVersion
from ml_backend.dashboard import words

MOST_DOUBTS = 20
"""Told one by one, the latest; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """One thing that makes a cycle due."""

    words: str
    share: float | None = None
    """How far it has come, 0…1; None where there is nothing to count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A cycle that waits or runs."""

    id: str
    title: str
    step: str
    share: float
    """How far, 0…1."""
    asked: str
    """By whom and why."""
    cancelled_by: str | None
    is_queued: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the last cycle came to."""

    title: str
    reason: str
    at: datetime
    is_good: bool
    is_bad: bool
    report: str | None
    """Id of the cycle whose report tells more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The state of one assay."""

    active: ModelVersion
    since: datetime
    corrected: int
    """Items whose mask an expert saved."""
    minutes: float
    """Experts spent on them."""
    new: int
    """Corrections since the last cycle began."""
    last_correction: datetime | None
    triggers: tuple[Trigger, ...]
    running: tuple[Running, ...]
    decision: Decision | None
    lacking: str | None
    """What the last contest could not do without, in words; None if it could judge."""
    doubts: int
    doubts_told: tuple[str, ...]
    """The latest few."""


def loop_of(store: Store, assay: str, triggers: Triggers, now: datetime) -> Loop:
    """Read the state of an assay.

    Raises
    ------
    StateError
        If nothing was imported yet.
    """
    active = store.models.active(assay)
    cycles = store.cycles.all(assay)
    last = store.cycles.last_training(assay)
    totals = store.corrections.totals(assay, None if last is None else last["started_at"])
    doubts = [d for d in store.corrections.doubts() if d["assay"] in (assay, None)]
    return Loop(
        active=active,
        since=store.publications.since(assay, active.version) or active.created_at,
        corrected=totals.corrected,
        minutes=totals.seconds / 60,
        new=totals.new,
        last_correction=_moment(totals.last_received),
        triggers=_triggers(triggers, totals, last, now),
        running=tuple(_running(c) for c in cycles if c["state"] in ("running", "queued")),
        decision=_decision(cycles),
        lacking=_lacking(store.models.contests(assay)),
        doubts=len(doubts),
        doubts_told=tuple(f"{d['reference']}: {d['message']}" for d in doubts[: -MOST_DOUBTS - 1 : -1]),
    )


def _triggers(
    triggers: Triggers, totals: Totals, last: Mapping[str, Any] | None, now: datetime
) -> tuple[Trigger, ...]:
    """Every trigger that is on, in words and as far as it has come."""
    since = "" if last is None else " since the last cycle"
    told: list[Trigger] = []
    if triggers.corrections is not None:
        share = min(1.0, totals.new / triggers.corrections)
        told.append(Trigger(words=f"{totals.new} of {triggers.corrections} corrections{since}", share=share))
    if triggers.minutes is not None:
        minutes = totals.new_seconds / 60
        share = min(1.0, minutes / triggers.minutes)
        told.append(
            Trigger(words=f"{minutes:.0f} of {triggers.minutes:g} minutes of expert work{since}", share=share)
        )
    if triggers.cron is not None:
        told.append(Trigger(words=_by_schedule(triggers.cron, last, now)))
    if triggers.agreement_fall is not None:
        told.append(
            Trigger(
                words="earlier, if experts change clearly more of the proposals than they did at first "
                f"(agreement down by {triggers.agreement_fall:g})"
            )
        )
    return tuple(told)


def _by_schedule(cron: str, last: Mapping[str, Any] | None, now: datetime) -> str:
    if last is None:
        return "by schedule: at once, since there was no cycle yet"
    began = datetime.fromisoformat(last["started_at"]).astimezone(now.tzinfo)
    named = next_time(cron, began)
    if named is None:
        return "by schedule: never again"
    return "by schedule: now" if named <= now else f"by schedule: {words.moment(named, now)}"


def _running(cycle: Mapping[str, Any]) -> Running:
    title = words.KINDS.get(cycle["kind"], cycle["kind"])
    return Running(
        id=cycle["id"],
        title=title if cycle["target"] is None else f"{title}: {cycle['target']}",
        step=words.step(cycle["step"]),
        share=cycle["progress"],
        asked=words.asked_by(cycle) + (f": {cycle['why']}" if cycle["why"] else ""),
        cancelled_by=cycle["cancelled_by"],
        is_queued=cycle["state"] == "queued",
    )


def _decision(cycles: Sequence[Mapping[str, Any]]) -> Decision | None:
    """Of the cycle that ended last."""
    ended = [cycle for cycle in cycles if cycle["state"] in ("done", "failed")]
    if not ended:
        return None
    last = max(ended, key=lambda cycle: cycle["finished_at"])
    return Decision(
        title=words.outcome(last),
        reason=words.sentence(last["reason"] or ""),
        at=datetime.fromisoformat(last["finished_at"]),
        is_good=last["outcome"] == "promoted",
        is_bad=last["outcome"] == "failed",
        report=last["id"] if last["report"] else None,
    )


def _lacking(contests: Sequence[Mapping[str, Any]]) -> str | None:
    """What is missing for the next contest, if the last one missed anything."""
    if not contests:
        return None
    lacking = contests[-1]["document"].get("lacking") or {}
    wells, classes = lacking.get("groups", 0), lacking.get("classes", {})
    parts = [f"{words.count(wells, 'more contest well')} with a correction"] if wells else []
    parts += [f"{words.count(n, 'more contest well')} that show {name}" for name, n in classes.items()]
    return " and ".join(parts) or None


def _moment(stored: str | None) -> datetime | None:
    return None if stored is None else datetime.fromisoformat(stored).astimezone(UTC)
