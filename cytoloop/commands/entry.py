"""One function a command: runs it, shows the outcome to a person or a script.

Each function imports what it needs when called, so that ``--help`` stays quick.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cytoloop.commands.console import print_json, progress_bars, stderr, stdout, table
from cytoloop.commands.context import Context
from cytoloop.commands.home import find_assay, open_home
from cytoloop.domain.errors import CytoloopError, InputError, StateError

if TYPE_CHECKING:
    from rich.table import Table

    from cytoloop.adapters.store import Store
    from cytoloop.commands.demo import Round
    from cytoloop.commands.study import CreatedStudy
    from cytoloop.domain.metrics.intervals import Interval
    from cytoloop.domain.survey.study import Progress
    from cytoloop.domain.types import CycleKind
    from cytoloop.nn.fit import EpochReport
    from trainer.learning.page import LearningSummary


class _Failed(CytoloopError):
    """The command did its work, and the work says no."""


def up(context: Context, stop_after: float | None, **options: Any) -> None:
    """Start everything, fill it, train the first model, print where to go, stay."""
    from cytoloop.commands import up as upping

    asked = upping.UpOptions(**options)
    if asked.demo and asked.data:
        raise InputError("--demo and --data: expected one of them")
    upping.end_on_signals()
    home_folder = context.settings.home
    with upping.running_stack(home_folder, asked, stderr.print) as stack:
        with progress_bars() as tell:
            filled = upping.fill(stack.home, asked, tell)
            if filled:
                upping.give_reference(stack.home, filled[0], filled[1], tell)
        upping.reconnect(stack.home)
        # asked for before the trainer starts, so that what the trainer finds due is this one cycle
        cycle_id = upping.ask_first_cycle(stack.home, filled[0]) if filled and asked.train else None
        upping.start_trainer(stack)
        where = upping.address(stack.home)
        if not context.as_json:
            _show_address(where)
        row = None
        if cycle_id is not None:
            stderr.print("Training the first model, minutes on two cores; the worklist is open meanwhile.")
            with progress_bars() as bars:
                row = upping.follow(stack, cycle_id, bars.step)
        if context.as_json:
            print_json({**asdict(where), "first_cycle": row})
        elif row is not None:
            _show_first_cycle(row, home_folder)
        upping.watch(stack, stop_after)


def _show_address(where: Any) -> None:
    for name, url in where.worklists.items():
        stdout.print(f"Worklist:     {url}   ({name})", soft_wrap=True)
    stdout.print(f"Label Studio: {where.label_studio}", soft_wrap=True)
    if where.user:
        stdout.print(f"Login:        {where.user}   {where.password}", soft_wrap=True)
    stdout.print(f"Dashboard:    {where.backend}   (token {where.admin_token})", soft_wrap=True, markup=False)
    stdout.print("Press Ctrl-C to stop everything.")


def _show_first_cycle(row: dict[str, Any], home_folder: Path) -> None:
    stdout.print(f"First model:  {row['reason']}", soft_wrap=True)
    if row["report"]:
        stdout.print(f"Report:       {home_folder / row['report'] / 'report.html'}", soft_wrap=True)


def demo(context: Context, **options: Any) -> None:
    """Turn the loop, a line a round."""
    from cytoloop.commands.demo import DemoOptions, run_demo
    from cytoloop.commands.up import end_on_signals

    asked = DemoOptions(**options)
    end_on_signals()
    home_folder = context.settings.home / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    if (own_assays := context.settings.home / "assays").is_dir():
        shutil.copytree(own_assays, home_folder / "assays")
    begun = time.monotonic()
    with progress_bars() as bars:
        rounds, report_path = run_demo(
            home_folder,
            asked,
            stderr.print,
            bars,
            bars.step,
            lambda one: stderr.print(_round_line(one), soft_wrap=True),
        )
    if context.as_json:
        print_json({"rounds": rounds, "report": report_path, "home": home_folder})
        return
    stdout.print(_rounds_table(rounds))
    stdout.print(f"Took {(time.monotonic() - begun) / 60:.1f} min. Report: {report_path}", soft_wrap=True)


def _round_line(one: Round) -> str:
    return f"round {one.round}: mean IoU {one.mean_iou:.3f} with {one.version}; {one.reason}"


def _rounds_table(rounds: list[Round]) -> Any:
    classes = list(rounds[0].class_iou)
    rows = [
        [
            str(one.round),
            one.version,
            f"{one.mean_iou:.3f}",
            *(f"{one.class_iou[name]:.3f}" for name in classes),
            "" if one.cdl_mean_iou is None else f"{one.cdl_mean_iou:.3f}",
            str(one.corrections),
            f"{one.expert_minutes:.0f}",
            one.outcome,
        ]
        for one in rounds
    ]
    columns = ["Round", "Serving", "Mean IoU", *classes, "CDL alone", "Corrected", "Expert min", "Outcome"]
    return table("IoU against the truth on contest and sealed wells", columns, rows)


def doctor(context: Context, deep: bool) -> None:
    """Print every check; fail if one failed."""
    from cytoloop.commands.doctor import Check, run_doctor

    marks = {"ok": "[green]ok[/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed[/red]"}
    checks: list[Check] = []
    with open_home(context.home) as home:
        for check in run_doctor(home, deep):
            checks.append(check)
            if not context.as_json:
                stdout.print(
                    f"{marks[check.state]:>8}  [bold]{check.name}[/bold]: {check.detail}", soft_wrap=True
                )
                if check.fix:
                    stdout.print(f"          → {check.fix}", soft_wrap=True)
    if context.as_json:
        print_json({"checks": checks})
    failed = [check.name for check in checks if check.state == "failed"]
    if failed:
        raise _Failed(f"{len(failed)} check(s) failed: {', '.join(failed)}")


def simulate_plate(
    context: Context, out: Path, preset: str, images: int, seed: int, layout: Literal["flat", "harmony"]
) -> None:
    """Write a simulated plate."""
    from cytoloop.commands.simulate_plate import simulate_plate_command

    with progress_bars() as tell:
        summary = simulate_plate_command(
            out, preset, images, seed, lambda done, total: tell("simulate", done, total), layout
        )
    _show(context, summary, f"{images} images of preset {preset}, seed {seed}, in {out}")


def import_(context: Context, source: Path, assay_name: str, masks: Path | None) -> None:
    """Import a plate."""
    from cytoloop.commands.importing import connect_backend, import_plate

    with open_home(context.home) as home:
        assay = home.load(assay_name)
        with progress_bars() as tell:
            summary = import_plate(home, source, assay, tell, masks)
        problem = connect_backend(home, assay)
    if problem is not None:
        stderr.print(
            f"Imported, but Label Studio is not connected to the backend: {problem}\n"
            "Corrections wait there until it is: start the backend and import again.",
            soft_wrap=True,
        )
    for warning in summary.warnings:
        stderr.print(f"warning: {warning}", soft_wrap=True, markup=False)
    groups = ", ".join(f"{count} {split}" for split, count in summary.groups.items())
    given = f", {summary.masks} with a mask ({summary.masks_version or 'all known'})" if summary.masks else ""
    _show(
        context,
        summary,
        f"{summary.images} images ({summary.new_images} new){given}, {summary.new_tasks} new tasks in project "
        f"{summary.project_id}; wells: {groups}; serving {summary.active_version}",
    )


def export(context: Context, out: Path, assay: str | None, **options: Any) -> None:
    """Write masks and where they came from."""
    from cytoloop.commands.exporting import export as export_masks

    with open_home(context.home) as home, progress_bars() as tell:
        chosen = home.load(_one_assay(home.store.assays.names(), assay))
        summary = export_masks(
            home, chosen, out, tell=lambda done, total: tell("export", done, total), **options
        )
    objects = "" if summary.objects is None else f", {summary.objects} objects"
    _show(
        context,
        summary,
        f"{summary.items} items ({summary.corrected} corrected) of {summary.images} images, {summary.whole_images} of "
        f"them whole{objects}, in {summary.out}",
    )


def weak_label(
    context: Context, source: Path, out: Path, assay_name: str, workers: int, debug_dir: Path | None
) -> None:
    """Weak-label a folder; fail if an image could not be read."""
    from cytoloop.commands.weak_label import weak_label_command

    assay = find_assay(context.settings.home, assay_name)
    with progress_bars() as tell:
        summary = weak_label_command(
            source, out, assay, workers, lambda done, total: tell("weak labels", done, total), debug_dir
        )
    steps = "" if debug_dir is None else f"; their steps in {debug_dir}/<image>/index.html"
    _show(context, summary, f"{len(summary.written)} masks in {out}{steps}")
    if summary.failures:
        raise _Failed("\n".join(summary.failures))


def tune_cip(context: Context, assay_name: str, parameters: str, **options: Any) -> None:
    """Search a recipe's parameters; show them beside the present ones, and what to paste."""
    from cytoloop.commands.tune_cip import TuneOptions, tune_from_folders, tune_from_store

    assay = find_assay(context.settings.home, assay_name)
    names = tuple(name.strip() for name in parameters.split(",") if name.strip())
    asked = TuneOptions(parameters=names, **options)
    with progress_bars() as bars:

        def reading(done: int, total: int) -> None:
            bars("read corrected images", done, total)

        def trial(done: int, total: int, best: float) -> None:
            bars.step(f"best mean IoU on training wells {best:.3f}, trial {done} of {total}", done / total)

        if asked.images is None:
            with open_home(context.home) as home:
                summary = tune_from_store(home, assay, asked, reading, trial)
        else:
            summary = tune_from_folders(assay, asked, reading, trial)
    if context.as_json:
        print_json(summary)
        return
    rows = [
        [name, wells, f"{on.mean_iou:.3f}", *(f"{iou:.3f}" for iou in on.class_iou)]
        for name, setting in (("present", summary.present), ("tuned", summary.tuned))
        if setting is not None
        for wells, on in (
            (f"training ({summary.train_images} images)", setting.train),
            (f"validation ({summary.validation_images} images)", setting.validation),
        )
    ]
    title = f"IoU against corrections, {summary.trials} trials in {summary.seconds:.0f} s"
    stdout.print(table(title, ["Setting", "Wells", "Mean IoU", *summary.classes], rows))
    if summary.cip is None:
        stdout.print("The search found nothing better on validation wells: keep the present setting.")
        return
    stdout.print(f"Better on validation wells. To use it, paste into the assay file of {summary.assay!r}:\n")
    stdout.print(summary.cip, soft_wrap=True, markup=False)
    if summary.out is not None:
        stdout.print(f"Written to {summary.out}", soft_wrap=True)


def train(context: Context, assay_name: str, **options: Any) -> None:
    """One training run, a line an epoch."""
    from cytoloop.commands.train import TrainOptions, train_from_folders, train_from_store

    settings = context.settings
    assay = find_assay(settings.home, assay_name)
    options["preset"] = options["preset"] or assay.training_preset
    options["device"] = options["device"] or settings.device
    asked = TrainOptions(**options)
    tell = _EpochLines()
    if asked.images is None:
        with open_home(context.home) as home:
            summary = train_from_store(home, assay, asked, tell)
    else:
        with progress_bars() as bars:
            summary = train_from_folders(
                assay, asked, tell, lambda done, total: bars("read images", done, total)
            )
    clean = (
        ""
        if summary.validation_mean_iou is None
        else f", clean validation mean IoU {summary.validation_mean_iou:.3f}"
    )
    _show(
        context,
        summary,
        f"{summary.version or summary.folder}: epoch {summary.best_epoch} kept{clean}, {summary.seconds:.0f} s",
    )


class _EpochLines:
    """A line an epoch; before the first, one that says if an interrupted run goes on."""

    def __init__(self) -> None:
        self._begun = False

    def __call__(self, epoch: EpochReport) -> None:
        if not self._begun and epoch.epoch > 1:
            stderr.print(f"goes on after epoch {epoch.epoch - 1} of a run that was interrupted")
        self._begun = True
        weak = "" if epoch.weak_validation is None else f"  weak validation {epoch.weak_validation:.3f}"
        clean = "" if epoch.validation is None else f"  clean validation {epoch.validation:.3f}"
        stderr.print(
            f"epoch {epoch.epoch}/{epoch.epochs}  loss {epoch.loss:.4f}{weak}{clean}  "
            f"{epoch.seconds_left:.0f} s left"
        )


def predict(
    context: Context, source: Path, out: Path, assay_name: str, device: str | None, **options: Any
) -> None:
    """Segment a folder; fail if an image could not be."""
    from cytoloop.commands.predict import PredictOptions, predict_folder

    asked = PredictOptions(device=device or context.settings.device, **options)
    with open_home(context.home) as home, progress_bars("images") as tell:
        summary = predict_folder(
            source,
            out,
            home.load(assay_name),
            None if asked.weights else home,
            asked,
            lambda done, total: tell("predict", done, total),
        )
    before = (
        f", {summary.images - summary.made} of them lay there already"
        if summary.made < summary.images
        else ""
    )
    speed = f"; {summary.images_per_second:.2g} images/s by {summary.engine}" if summary.made else ""
    _show(context, summary, f"{summary.images} masks of {summary.version} in {out}{before}{speed}")
    if summary.failures:
        raise _Failed("\n".join(summary.failures))


def evaluate(context: Context, truth: Path, pred: Path, assay_name: str, workers: int) -> None:
    """Metrics of a folder of masks."""
    from cytoloop.commands.evaluate import error_table, evaluate_command, evaluation_table

    assay = find_assay(context.settings.home, assay_name)
    with progress_bars() as tell:
        found = evaluate_command(
            truth, pred, assay, workers, lambda done, total: tell("evaluate", done, total)
        )
    for warning in found.warnings:
        stderr.print(f"warning: {warning}", soft_wrap=True, markup=False)
    if context.as_json:
        print_json(found.to_dict())
    else:
        stdout.print(evaluation_table(found.evaluation))
        stdout.print(error_table(found.evaluation))


def agreement(context: Context, assay_name: str | None) -> None:
    """Who agrees with whom."""
    from cytoloop.commands.agreement import NOTE, agreement_report, agreement_tables

    with open_home(context.home) as home, progress_bars() as tell:
        assay = home.load(_one_assay(home.store.assays.names(), assay_name))
        found = agreement_report(home.store, assay, lambda done, total: tell("compare", done, total))
    if context.as_json:
        print_json(found.to_dict())
        return
    if not found.items:
        stdout.print("No item has been read by two experts yet: queues ask for it with overlap_share.")
        return
    for one in agreement_tables(found):
        stdout.print(one)
    stdout.print(NOTE, soft_wrap=True)


def audit(context: Context, assay_name: str | None, **options: Any) -> None:
    """Corrections worth a second look."""
    from cytoloop.commands.audit import AuditOptions
    from cytoloop.commands.audit import audit as audit_home

    with open_home(context.home) as home, progress_bars() as bars:
        assay = home.load(_one_assay(home.store.assays.names(), assay_name))
        options["preset"] = options["preset"] or assay.training_preset
        options["device"] = options["device"] or home.settings.device
        summary = audit_home(home, assay, AuditOptions(**options), bars.step)
    if context.as_json:
        print_json(summary)
        return
    rows = [
        [str(rank), one["image_id"], str(one["tile"]), one["expert"], f"{one['score']:.3f}", one["reason"]]
        for rank, one in enumerate(summary.found, start=1)
    ]
    if rows:
        columns = ["Rank", "Image", "Tile", "Drawn by", "Score", "Reason"]
        stdout.print(table("Worth a second look", columns, rows))
    stdout.print(
        f"{len(rows)} of {summary.corrections} corrections of training wells are worth a second look; open "
        f"reviews: {summary.open_reviews}, new: {summary.new_reviews}",
        soft_wrap=True,
    )


def worklist(context: Context, queue: str, expert: str | None, limit: int) -> None:
    """What an expert holds in a queue, then what comes next."""
    from ml_backend.service import worklist as ranked

    with open_home(context.home) as home:
        url = home.settings.label_studio_public_url or home.settings.label_studio_url or ""
        entries = ranked(home.store, home.load, url, queue, expert, limit)
    if context.as_json:
        print_json({"entries": entries})
        return
    rows = [
        [
            str(e.rank),
            e.lease or "–",
            str(e.task_id),
            f"{e.image_id}/{e.tile}",
            f"{e.score:.3f}",
            e.reason,
            e.url,
        ]
        for e in entries
    ]
    title = f"Queue {queue}" if expert is None else f"Queue {queue}, {expert}"
    stdout.print(table(title, ["Rank", "Lease", "Task", "Item", "Score", "Reason", "Open"], rows))


def queues_apply(context: Context, file: Path) -> None:
    """Set policies from a file."""
    from cytoloop.commands.queues import apply_queues, document_of

    with open_home(context.home) as home:
        applied = apply_queues(home, file)
    _show(context, document_of(applied), f"{file}: applied to {', '.join(queue.name for queue in applied)}")


def queues_show(context: Context, queue: str | None) -> None:
    """Policies in force."""
    from cytoloop.commands.queues import document_of, queues_in_force, rows_of

    with open_home(context.home) as home:
        found = queues_in_force(home, queue)
    if context.as_json:
        print_json(document_of(found))
    else:
        stdout.print(table("Queues", ["Key", *(one.name for one in found)], rows_of(found)))


def queues_strategies(context: Context) -> None:
    """Every strategy by name."""
    from cytoloop.domain.strategies import STRATEGIES

    listed = [
        {"name": one.name, "words": one.words, "needs": sorted(one.needs)} for one in STRATEGIES.values()
    ]
    if context.as_json:
        print_json({"strategies": listed})
        return
    rows = [[one.name, one.words, ", ".join(sorted(one.needs)) or "–"] for one in STRATEGIES.values()]
    stdout.print(table("Strategies", ["Name", "Asks for", "Needs"], rows))


def cycle(context: Context, assay_name: str | None, cancel: str | None) -> None:
    """One cycle in this process, or one called off; fail if it failed."""
    if cancel is not None:
        _cancel_cycle(context, assay_name, cancel)
        return
    from trainer.schedule import Trainer

    trainer = Trainer(context.settings)
    try:
        name = _one_assay(trainer.store.assays.names(), assay_name)
        with progress_bars() as bars:
            outcome = trainer.run_now(name, "cli", bars.step)
        row = trainer.store.cycles.get(outcome.cycle_id)
        page = trainer.report_path(outcome.cycle_id)
    finally:
        trainer.close()
    _show(context, {**row, "page": page}, f"{row['outcome']}: {row['reason']}\nReport: {page}")


def _cancel_cycle(context: Context, assay_name: str | None, cycle_id: str) -> None:
    if assay_name is not None:
        raise InputError("--cancel and --assay: expected one of them, a cycle is of one assay")
    with open_home(context.home) as home:
        row = home.store.cycles.cancel(cycle_id, "cli")
    ended = (
        row["reason"]
        if row["state"] == "failed"
        else f"cancelled by {row['cancelled_by']}, ends at its next step"
    )
    _show(context, row, f"cycle {row['id']} of {row['assay']}: {ended}")


def models_list(context: Context) -> None:
    """Versions of every assay."""
    from cytoloop.commands.models import LIST_COLUMNS, list_rows, listed_models

    with open_home(context.home) as home:
        listed = listed_models(home)
    if context.as_json:
        print_json({"models": listed})
    else:
        stdout.print(table("Models", LIST_COLUMNS, list_rows(listed)))


def models_show(context: Context, version: str) -> None:
    """Lineage of one version."""
    from cytoloop.commands.models import contest_facts, describe, facts_of

    with open_home(context.home) as home:
        described = describe(home, version)
    if context.as_json:
        print_json(described.to_dict())
        return
    for name, said in facts_of(described):
        stdout.print(f"{name + ':':14} {said}", soft_wrap=True, markup=False)
    contests = contest_facts(described.lineage)
    stdout.print("Contests:" if contests else "Contests:      none", markup=False)
    for at, said in contests:
        stdout.print(f"  {at}  {said}", soft_wrap=True, markup=False)


def models_export(context: Context, version: str, out: Path, force: bool) -> None:
    """A network as ONNX."""
    from cytoloop.commands.models import export_version

    with open_home(context.home) as home, progress_bars() as bars:
        summary = export_version(home, version, out, force, bars.step)
    sizes = ", ".join(f"{count} x {height} x {width}" for count, height, width in summary.checked)
    _show(
        context,
        summary,
        f"{version} in {out}, ONNX opset {summary.opset}. Its input must be normalised: docs/models.md says how.\n"
        f"Checked with ONNX Runtime on images of {sizes}: probabilities differ from PyTorch's by at most "
        f"{summary.difference:.1e}",
    )


def models_promote(context: Context, version: str) -> None:
    """Bring a version into force, because a person says so."""
    _bring(context, "promote", lambda store: (store.models.get(version).assay, version))


def models_rollback(context: Context, assay_name: str | None) -> None:
    """Go back to the version in force before."""
    _bring(context, "rollback", lambda store: (_one_assay(store.assays.names(), assay_name), None))


def _bring(context: Context, kind: CycleKind, asked: Callable[[Store], tuple[str, str | None]]) -> None:
    from cytoloop.commands.models import bring
    from trainer.schedule import Trainer

    trainer = Trainer(context.settings)
    try:
        assay, version = asked(trainer.store)
        with progress_bars() as bars:
            row = bring(trainer, kind, version, assay, bars.step)
    finally:
        trainer.close()
    _show(context, row, f"{row['outcome']}: {row['reason']}")


def rate_create(context: Context, assay_name: str, **options: Any) -> None:
    """Set up a blind rating."""
    from cytoloop.commands.rate import RateOptions, create_rating

    with open_home(context.home) as home, progress_bars() as tell:
        made = create_rating(home, home.load(assay_name), RateOptions(**options), tell)
    _show_study(
        context,
        made,
        f"Blind rating {made.name}: {made.items} items, {' against '.join(made.methods)}",
        f"cytoloop rate collect {made.name}",
    )


def rate_collect(context: Context, name: str) -> None:
    """What the experts rated."""
    from cytoloop.commands.rate import collect_rating, rating_tables

    with open_home(context.home) as home, progress_bars() as tell:
        report = collect_rating(home, name, tell)
        folder = home.settings.home / "ratings" / name
    _warn_of_others(report.progress)
    if context.as_json:
        print_json(report.to_dict())
        return
    for one in rating_tables(report):
        stdout.print(one)
    stdout.print(report.conclusion, soft_wrap=True, markup=False)
    stdout.print(f"Written: {folder / 'ratings.csv'}, {folder / 'rating.json'}", soft_wrap=True, markup=False)


def boxes_create(context: Context, assay_name: str, **options: Any) -> None:
    """Set up a box survey."""
    from cytoloop.commands.boxes import BoxOptions, create_boxes

    with open_home(context.home) as home, progress_bars() as tell:
        made = create_boxes(home, home.load(assay_name), BoxOptions(**options), tell)
    _show_study(
        context, made, f"Boxes {made.name}: {made.items} items", f"cytoloop boxes collect {made.name}"
    )


def boxes_collect(context: Context, name: str, versions: tuple[str, ...]) -> None:
    """What the experts boxed, and how CIP and models do against it."""
    from cytoloop.commands.boxes import boxes_table, collect_boxes

    with open_home(context.home) as home, progress_bars() as tell:
        survey = collect_boxes(home, name, versions, tell)
        folder = home.settings.home / "boxes" / name
    _warn_of_others(survey.progress)
    if context.as_json:
        print_json(survey.to_dict())
        return
    stdout.print(boxes_table(survey))
    if survey.missing:
        stdout.print(survey.missing, soft_wrap=True, markup=False)
    if not math.isnan(survey.minutes_median):
        stdout.print(f"Median time: {survey.minutes_median:.1f} min an item")
    written = ", ".join(str(folder / file) for file in ("boxes.csv", "drawn.csv", "boxes.json"))
    stdout.print(f"Written: {written}", soft_wrap=True, markup=False)


def _show_study(context: Context, made: CreatedStudy, sentence: str, afterwards: str) -> None:
    if context.as_json:
        print_json(made)
        return
    stdout.print(sentence, soft_wrap=True, markup=False)
    rows = [[one.expert, str(one.set), str(one.tasks), one.url] for one in made.seats]
    stdout.print(table("One project an expert", ["Expert", "Set", "Tasks", "Begin here"], rows))
    stdout.print(f"Keep the key from the experts: {made.design}", soft_wrap=True, markup=False)
    stdout.print(f"Then: {afterwards}", soft_wrap=True, markup=False)


def _warn_of_others(progress: Sequence[Progress]) -> None:
    for one in progress:
        if one.by_others:
            stderr.print(
                f"warning: {one.expert}: {one.by_others} task(s) of project {one.project_id} were done by "
                "somebody else and do not count",
                soft_wrap=True,
                markup=False,
            )


def report(context: Context, cycle_id: str | None) -> None:
    """Render a report again."""
    from trainer.telling import rebuild

    with open_home(context.home) as home:
        cycles = [c for name in home.store.assays.names() for c in home.store.cycles.all(name) if c["report"]]
        chosen = [c for c in cycles if cycle_id in (None, c["id"])]
        if not chosen:
            raise StateError(f"no report of cycle {cycle_id!r}; there are {[c['id'] for c in cycles]}")
        row = max(chosen, key=lambda c: c["finished_at"])
        page = rebuild(home.store, row["assay"], row["id"])
    _show(context, {"cycle": row["id"], "page": page}, str(page))


def results(context: Context, **options: Any) -> None:
    """The study behind the results page."""
    from cytoloop.commands.results import ResultsOptions, results_command

    options["device"] = options["device"] or context.settings.device
    with progress_bars() as tell:
        summary = results_command(ResultsOptions(**options), tell)
    for name in summary.left_out:
        stderr.print(f"{name} is not at hand and was left out", soft_wrap=True)
    _show(context, summary, f"{summary.runs} runs: {summary.page}")


def simulate_learning(context: Context, strategies: str, assay_name: str | None, **options: Any) -> None:
    """Strategies against random choice."""
    from cytoloop.adapters.assays import load_assay
    from cytoloop.commands.simulate_learning import LearningOptions, simulate_learning_command
    from cytoloop.domain.strategies import DEFAULT_STRATEGY

    names = tuple(name.strip() for name in strategies.split(",") if name.strip()) or (DEFAULT_STRATEGY,)
    assay = load_assay(assay_name, [context.settings.home / "assays"]) if assay_name else None
    options["device"] = options["device"] or context.settings.device
    with progress_bars() as tell:
        summary = simulate_learning_command(LearningOptions(strategies=names, assay=assay, **options), tell)
    if context.as_json:
        print_json(summary)
        return
    stdout.print(_learning_table(summary))
    for name, value in summary.correlations.items():
        stdout.print(f"Spearman correlation of {name} with the minutes a correction takes: {value:+.2f}")
    stdout.print(f"Written: {summary.figure}, {summary.document}", soft_wrap=True, markup=False)


def _learning_table(summary: LearningSummary) -> Table:
    rows = []
    for one in summary.strategies:
        gain, worst = one.mean_iou, one.worst_class_iou
        rows.append(
            [
                one.strategy,
                str(len(one.seeds)),
                f"{one.area:.4f}",
                "" if gain is None else _interval(gain.gain),
                "" if worst is None else _interval(worst.gain),
                "" if gain is None or gain.median_ratio is None else f"{gain.median_ratio:.2f}",
                "" if gain is None else str(gain.censored),
            ]
        )
    columns = [
        "Strategy",
        "Seeds",
        "Mean IoU",
        "Gain (95 %)",
        "Worst class (95 %)",
        "Minutes to 95 %",
        "Censored",
    ]
    title = f"{summary.dataset}: mean over the first {summary.minutes:.0f} minutes; gains and minutes beside random"
    return table(title, columns, rows)


def _interval(interval: Interval) -> str:
    return f"{interval.value:+.4f} ({interval.low:+.4f}…{interval.high:+.4f})"


def bench(context: Context, names: Sequence[str], items: int, minutes: float) -> None:
    """Benchmarks, each with its bars."""
    from cytoloop.commands.bench.figures import BenchOptions
    from cytoloop.commands.bench.register import run_benchmarks

    with progress_bars() as tell:
        measured = run_benchmarks(names, BenchOptions(items=items, minutes=minutes), tell)
    if context.as_json:
        print_json({"benchmarks": [one.document() for one in measured]})
        return
    marks = {True: "met", False: "missed", None: ""}
    for one in measured:
        rows = [
            [
                f.name,
                f"{f.value:.3g} {f.unit}",
                f.bar_told,
                marks[f.is_met],
            ]
            for f in one.figures
        ]
        stdout.print(table(one.title, ["Figure", "Measured", "Bar", ""], rows))


def _one_assay(names: list[str], asked: str | None) -> str:
    if asked is None and len(names) == 1:
        return names[0]
    if asked not in names:
        raise InputError(f"--assay is {asked!r}, expected one of {names}")
    return asked


def _show(context: Context, document: Any, sentence: str) -> None:
    if context.as_json:
        print_json(document)
    else:
        stdout.print(sentence, soft_wrap=True)
