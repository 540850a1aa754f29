"""The first screen in words: why the cycle ran, whether the model in use is better, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cytoloop.domain.types import Split
from trainer.report import CycleReport, Outcome, VersionScores
from trainer.report.methods import mean_iou_of_present, worst_class

HEADLINES: Mapping[Outcome, str] = {
    "promoted": "A better model is now in use",
    "kept": "The model in use stays",
    "not-trained": "Nothing was trained in this cycle",
    "failed": "This cycle failed; the model in use stays",
    "cancelled": "This cycle was called off; the model in use stays",
    "rolled-back": "An older model is in use again",
}
BRIEF: Mapping[str, str] = {
    "promoted": "new model in use",
    "kept": "model stays",
    "not-trained": "nothing trained",
    "failed": "failed",
    "cancelled": "called off",
    "rolled-back": "older model again",
}
"""An outcome in a table, where its colour says it too."""
_ASKED: Mapping[str, str] = {
    "label-studio": "Start Training was pressed in Label Studio",
    "cli": "it was asked for on the command line",
    "up": "the assay was set up, and has its first model trained",
    "demo": "the demonstration turns the loop",
    "schedule": "it was due",
    "restart": "the trainer was started anew",
    "retry": "it is tried again",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to do, or to know that nothing is."""

    words: str
    command: str = ""
    """To type, where that is how it is done."""
    wells: tuple[str, ...] = ()
    """To correct next."""


def headline(report: CycleReport) -> str:
    """What happened, in a few words."""
    if report.outcome in ("failed", "cancelled") and report.active_before != report.active_after:
        how = "failed" if report.outcome == "failed" else "was called off"
        return f"This cycle {how} after it had brought a new model into use"
    if report.handover is not None and report.outcome == "promoted":
        return "Another model is in use, brought in by hand"
    return HEADLINES[report.outcome]


def why_in_words(report: CycleReport) -> str:
    """Why the cycle ran; empty in reports that do not know."""
    if not report.asked_by:
        return ""
    asked = _ASKED.get(report.asked_by, f"{report.asked_by} asked for it")
    says_who = report.asked_by in ("schedule", "restart", "retry") or report.why.startswith(report.asked_by)
    if report.why and says_who:
        return f"Why now: {report.why}."
    return f"Why now: {asked}{f' ({report.why})' if report.why else ''}."


def standing_in_words(report: CycleReport) -> str:
    """How good the model in use is, on items that decided nothing if there are any; beside the CIP."""
    for split in ("sealed", "contest"):
        scores = {one.version: one for one in report.scores if one.split == split}
        serving = scores.get(report.active_after)
        if serving is not None:
            return _standing(split, serving, scores)
    point = next((p for p in reversed(report.curve) if p.version == report.active_after), None)
    if point is None or (point.contest_mean_iou is None and point.sealed_mean_iou is None):
        return (
            "How good the model in use is cannot be said: no contest or sealed item has been corrected yet."
        )
    measured = [
        f"{value:.2f} on {split} items"
        for split, value in (("sealed", point.sealed_mean_iou), ("contest", point.contest_mean_iou))
        if value is not None
    ]
    return f"The model in use reached a mean IoU of {' and '.join(measured)} when it was last measured."


def _standing(split: Split, serving: VersionScores, scores: Mapping[str, VersionScores]) -> str:
    chosen = "which decide nothing" if split == "sealed" else "which also decide the contest"
    where = f"On {_count(serving.items, f'{split} item')}, {chosen},"
    reached = mean_iou_of_present(serving)
    if reached is None:
        return f"{where} nothing can be said: every pixel was left out as doubtful."
    if serving.method == "cip":
        return (
            f"{where} conventional image processing, the model in use, reaches a mean IoU of {reached:.2f}."
        )
    told = f"{where} the model in use reaches a mean IoU of {reached:.2f}"
    cip = next((one for one in scores.values() if one.method == "cip"), None)
    if cip is not None and (of_cip := mean_iou_of_present(cip)) is not None:
        told += f"; conventional image processing {of_cip:.2f}"
    name, iou = worst_class(serving)
    return told + (f". It is weakest in {name} (IoU {iou:.2f})." if iou is not None else ".")


def advice_of(report: CycleReport) -> tuple[Advice, ...]:
    """What to do now, the most urgent first; never empty."""
    back = Advice(
        words="If the new proposals look worse to you, go back, on the dashboard or with",
        command=f"cytoloop models rollback --assay {report.assay}",
    )
    again = f"cytoloop cycle --assay {report.assay}"
    if report.handover is not None:
        return (
            Advice(
                words="Nothing has to be done: the worklists show this model’s proposals from now on. The next cycle "
                "compares new models with it."
            ),
            Advice(
                words="To bring the other model back, on the dashboard or with",
                command=f"cytoloop models promote {report.handover.before.version}",
            ),
        )
    if report.outcome == "failed":
        told = [Advice(words="Mend what the message names, then ask for a cycle:", command=again)]
        return (*told, back) if report.active_before != report.active_after else tuple(told)
    if report.outcome == "cancelled":
        return (Advice(words="Nothing has to be done. To have it after all:", command=again),)
    if report.outcome == "promoted":
        return (
            Advice(words="Nothing has to be done: the worklists show the new model’s proposals from now on."),
            back,
        )
    return (*_needs(report), *_next_corrections(report))


def _needs(report: CycleReport) -> tuple[Advice, ...]:
    """Wells without which no contest can be judged."""
    if report.contest_needs is not None:
        return (
            Advice(
                words="Correct more contest wells: until then no new model can be proved better, however good it is"
            ),
            Advice(words=report.contest_needs.words, wells=report.contest_needs.wells),
        )
    if report.contest is not None and not report.contest.is_enough:
        return (
            Advice(
                words="Correct more contest wells: until then no new model can be proved better, however good it is. The "
                "worklists hold items of them"
            ),
        )
    return ()


def _next_corrections(report: CycleReport) -> tuple[Advice, ...]:
    if report.contest is not None and not report.contest.is_enough:
        return ()  # what is missing is said already
    fallen = [] if report.contest is None else [c.name for c in report.contest.classes if c.is_drop_too_large]
    if fallen:
        return (
            Advice(
                words=f"Correct items with {' and '.join(fallen)}: there the challenger is worse than the model in use."
            ),
        )
    if report.outcome == "not-trained":
        return (Advice(words="Go on with the worklists: the next cycle learns from what is new."),)
    return (
        Advice(
            words="Go on with the worklists: the next cycle trains again on all corrections there are by then."
        ),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
