"""The command line: parsing only; each command is imported when called."""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from cytoloop import __version__
from cytoloop.commands.context import Context
from cytoloop.domain.errors import ConfigError, CytoloopError

EXIT_BUG = 3
EXIT_INTERRUPTED = 130
METHODS = ("cdl", "mdl", "joint")
DEVICES = ("auto", "cpu", "cuda")
SPLITS = ("train", "validation", "contest", "sealed")


def shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--home`` and ``--json``, before or after the command's name."""

    @click.option(
        "--home",
        type=click.Path(path_type=Path, file_okay=False),
        help="Home folder [CYTOLOOP_HOME, ./cytoloop-home].",
    )
    @click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout; progress goes to stderr."
    )
    @functools.wraps(command)
    def wrapped(home: Path | None, as_json: bool, **options: Any) -> Any:
        context = click.get_current_context().ensure_object(Context)
        context.update(home, as_json)
        return command(context, **options)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    help="Home folder [CYTOLOOP_HOME, ./cytoloop-home].",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; progress goes to stderr.")
@click.version_option(__version__, prog_name="cytoloop")
@click.pass_context
def cli(ctx: click.Context, home: Path | None, as_json: bool) -> None:
    """From conventional image processing to an expert-grade segmentation model, in a loop.

    Start here:  cytoloop up --demo
    """
    ctx.ensure_object(Context).update(home, as_json)


def folder(**options: Any) -> Any:
    """A folder on the command line."""
    return click.Path(path_type=Path, file_okay=False, **options)


@cli.command()
@click.option("--demo", is_flag=True, help="Simulate a Rosella plate and fill the home with it.")
@click.option("--data", type=folder(exists=True), help="Fill the home with this plate.")
@click.option("--assay", help="Assay of --data (rosella, cells2ch, nuclei, or one of your own).")
@click.option(
    "--images", type=click.IntRange(8), default=40, show_default=True, help="Images of the simulated plate."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Label Studio [a free one].")
@click.option("--backend-port", type=click.IntRange(1, 65535), help="Port of the backend [a free one].")
@click.option(
    "--label-studio",
    type=click.Path(path_type=Path, exists=True),
    help="Label Studio's environment or command [.venv-studio].",
)
@click.option(
    "--train/--no-train",
    default=True,
    show_default=True,
    help="Train the first model before the login is printed.",
)
@click.option(
    "--stop-after", type=click.FloatRange(0), help="Stop by itself this many seconds after it is up."
)
@shared
def up(context: Context, stop_after: float | None, **options: Any) -> None:
    """Start and supervise everything on this machine; Ctrl-C stops it all.

    \b
    cytoloop up --demo
    cytoloop up --data plates/2024-05-17 --assay rosella
    """
    from cytoloop.commands import entry

    entry.up(context, stop_after, **options)


@cli.command()
@click.option(
    "--images", type=click.IntRange(8), default=40, show_default=True, help="Images of the simulated plate."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Times the expert works through a batch.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of plate and training.")
@click.option("--batch", type=click.IntRange(4), default=24, show_default=True, help="Items a batch.")
@click.option("--preset", help="Numbers of the training runs [the assay's]: fast, paper, smoke.")
@click.option("--data", type=folder(exists=True), help="A plate with labels/ instead of a simulated one.")
@click.option("--assay", help="Assay of --data.")
@click.option(
    "--label-studio",
    type=click.Path(path_type=Path, exists=True),
    help="Label Studio's environment or command [.venv-studio].",
)
@shared
def demo(context: Context, **options: Any) -> None:
    """Turn the whole loop without hands: a simulated expert corrects from the truth.

    Runs in a home of its own (<home>/demo-…), through the real Label Studio API.

    \b
    cytoloop demo --images 40 --rounds 3 --seed 0
    """
    from cytoloop.commands import entry

    entry.demo(context, **options)


@cli.command()
@click.option(
    "--deep",
    is_flag=True,
    help="Compare every annotation in Label Studio with the store, and read every mask.",
)
@shared
def doctor(context: Context, deep: bool) -> None:
    """Check tokens, image access, labeling config, webhook, masks, disk, versions; name the fix.

    \b
    cytoloop doctor
    cytoloop doctor --deep
    """
    from cytoloop.commands import entry

    entry.doctor(context, deep)


@cli.command()
@click.argument(
    "archive", metavar="[ARCHIVE.tar]", required=False, type=click.Path(path_type=Path, dir_okay=False)
)
@click.option("--verify", "verify_only", is_flag=True, help="Check an archive that is there; write none.")
@shared
def backup(context: Context, archive: Path | None, verify_only: bool) -> None:
    """The home as one archive, verified, while everything runs.

    Left out is what is made again: predictions, renders, checkpoints, logs. Plates outside the home are not in it.

    \b
    cytoloop backup /backups/rosella-2024-05-17.tar
    cytoloop backup --verify /backups/rosella-2024-05-17.tar
    """
    from cytoloop.commands import care

    care.backup(context, archive, verify_only)


@cli.command()
@click.argument("archive", metavar="ARCHIVE.tar", type=click.Path(path_type=Path, dir_okay=False))
@shared
def restore(context: Context, archive: Path) -> None:
    """Make a home from an archive: whole and verified, or not at all.

    The home must not exist yet. What happened in Label Studio since is brought in by the trainer's first look.

    \b
    cytoloop restore /backups/rosella-2024-05-17.tar --home cytoloop-home
    """
    from cytoloop.commands import care

    care.restore_home(context, archive)


@cli.command("rotate-secrets")
@shared
def rotate_secrets(context: Context) -> None:
    """Make the password and the secret that Label Studio proves itself with anew, while everything runs.

    No event is lost: until Label Studio knows the new ones, the old ones are taken as well.

    \b
    cytoloop rotate-secrets
    """
    from cytoloop.commands import rotation

    rotation.rotate_secrets(context)


@cli.group()
def tokens() -> None:
    """Tokens of people and scripts, for dashboard and API.

    \b
    cytoloop tokens list
    """


@tokens.command("add")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["expert", "admin", "service"]), default="expert", show_default=True
)
@shared
def tokens_add(context: Context, name: str, role: Literal["expert", "admin", "service"]) -> None:
    """Make a token and show it, once; an expert's NAME is the e-mail address in Label Studio.

    \b
    cytoloop tokens add ada@lab.org
    cytoloop tokens add nightly-export --role service
    """
    from cytoloop.commands import care

    care.tokens_add(context, name, role)


@tokens.command("list")
@shared
def tokens_list(context: Context) -> None:
    """Who holds tokens; the tokens themselves are not stored.

    \b
    cytoloop tokens list
    """
    from cytoloop.commands import care

    care.tokens_list(context)


@tokens.command("remove")
@click.argument("name")
@shared
def tokens_remove(context: Context, name: str) -> None:
    """Take back every token of a name; its sessions end at once.

    \b
    cytoloop tokens remove ada@lab.org
    """
    from cytoloop.commands import care

    care.tokens_remove(context, name)


@cli.command("simulate-plate")
@click.argument("out", type=folder())
@click.option("--preset", default="rosella", show_default=True, help="rosella, or reference-1 (frozen).")
@click.option("--images", type=click.IntRange(1), default=40, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--layout",
    type=click.Choice(("flat", "harmony")),
    default="flat",
    show_default=True,
    help="A file a field, or an export of Harmony (Opera, Operetta): Images/Index.idx.xml.",
)
@shared
def simulate_plate(context: Context, out: Path, **options: Any) -> None:
    """Simulate a Rosella plate with pixel-exact truth, as 16-bit TIFF.

    \b
    cytoloop simulate-plate plates/simulated --images 40 --seed 7
    cytoloop simulate-plate plates/export --images 40 --layout harmony
    """
    from cytoloop.commands import entry

    entry.simulate_plate(context, out, **options)


@cli.command("import")
@click.argument("source", metavar="DIR", type=folder(exists=True))
@click.option("--assay", required=True)
@click.option(
    "--masks",
    type=folder(exists=True),
    help="Existing masks, <image_id>.png, to be edited in the place of CIP's.",
)
@shared
def import_(context: Context, source: Path, assay: str, masks: Path | None) -> None:
    """Bring a plate into the store and into Label Studio, pre-annotated.

    The plate is a folder of images, or an export of Harmony (Opera, Operetta).

    \b
    cytoloop import plates/2024-05-17 --assay rosella
    cytoloop import plates/2024-05-17 --assay rosella --masks old-study/masks
    """
    from cytoloop.commands import entry

    entry.import_(context, source, assay, masks)


@cli.command()
@click.argument("out", type=folder())
@click.option("--assay", help="[the only one of the home]")
@click.option(
    "--format",
    "format_",
    type=click.Choice(("png", "coco")),
    default="png",
    show_default=True,
    help="Indexed PNG a tile and a whole image, or one COCO file with an annotation an object.",
)
@click.option(
    "--which",
    type=click.Choice(("corrected", "all")),
    default="corrected",
    show_default=True,
    help="What experts drew; or all images, the rest as the model in force segments it.",
)
@shared
def export(context: Context, out: Path, **options: Any) -> None:
    """Corrected masks as files, and for each who drew it, when, and on what.

    OUT/index.csv has a line an item, OUT/provenance.json names versions and files. Made again into the same folder, an
    export is brought up to date.

    \b
    cytoloop export corrected/
    cytoloop export plate-coco/ --assay rosella --format coco --which all
    """
    from cytoloop.commands import entry

    entry.export(context, out, **options)


@cli.command("weak-label")
@click.argument("source", metavar="IN", type=folder(exists=True))
@click.argument("out", type=folder())
@click.option("--assay", required=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--debug-dir", type=folder(), help="Write each step of each image here: <image>/index.html shows them."
)
@shared
def weak_label(
    context: Context, source: Path, out: Path, assay: str, workers: int, debug_dir: Path | None
) -> None:
    """Conventional image processing on a folder: indexed PNG masks and their provenance.

    \b
    cytoloop weak-label plates/2024-05-17 weak/ --assay rosella --workers 2
    cytoloop weak-label plates/2024-05-17 weak/ --assay rosella --debug-dir steps/
    """
    from cytoloop.commands import entry

    entry.weak_label(context, source, out, assay, workers, debug_dir)


@cli.command("tune-cip")
@click.option("--assay", required=True)
@click.option("--images", type=folder(exists=True), help="A plate; without it the store is used.")
@click.option("--labels", type=folder(exists=True), help="Expert masks, <image_id>.png.")
@click.option("--trials", type=click.IntRange(1), default=60, show_default=True, help="Settings to try.")
@click.option(
    "--parameters", default="", help="Names to change, a,b,… [those the recipe searches by default]."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the search.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="New file for the tuned cip: block; the assay itself is left alone.",
)
@shared
def tune_cip(context: Context, assay: str, **options: Any) -> None:
    """Fit the recipe's parameters to corrections.

    Settings are searched on corrected training wells and compared with the present one on
    corrected validation wells; only one that is better on both is proposed. Of several teachers
    the first is tuned.

    \b
    cytoloop tune-cip --assay rosella --trials 60
    cytoloop tune-cip --assay rosella --images plate --labels plate/labels --out cip.yaml
    """
    from cytoloop.commands import entry

    entry.tune_cip(context, assay, **options)


@cli.command()
@click.option("--assay", required=True)
@click.option("--method", type=click.Choice(METHODS), required=True)
@click.option("--preset", default=None, help="Numbers of the run [the assay's]: fast, paper, smoke.")
@click.option("--images", type=folder(exists=True), help="A plate; without it the store is used.")
@click.option("--labels", type=folder(exists=True), help="Expert masks, <image_id>.png.")
@click.option("--weak", type=folder(exists=True), help="Weak masks, <image_id>.png.")
@click.option(
    "--base",
    type=folder(exists=True),
    help="Weights of the CDL that a joint run starts from (with --images).",
)
@click.option("--out", type=folder(), help="Where the weights go (with --images).")
@click.option("--device", type=click.Choice(DEVICES), default=None, help="[CYTOLOOP_DEVICE, auto]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@shared
def train(context: Context, assay: str, **options: Any) -> None:
    """One training run, from the store or from folders.

    The preset paper is the source paper's training to the letter. From folders it also splits the wells as
    the paper did; a store keeps the splits it drew when it first saw a well.

    A run that is interrupted goes on after its last whole epoch when it is started again with the same
    arguments, and ends with the weights of one that ran through.

    \b
    cytoloop train --assay rosella --method cdl
    cytoloop train --assay rosella --method cdl --images plate --weak weak --out cdl
    cytoloop train --assay rosella --method mdl --preset paper --images plate --labels labels --out mdl
    """
    from cytoloop.commands import entry

    entry.train(context, assay, **options)


@cli.command()
@click.argument("source", metavar="IN", type=folder(exists=True))
@click.argument("out", type=folder())
@click.option("--assay", required=True)
@click.option("--model", help="Version of the home [the active one].")
@click.option("--weights", type=folder(exists=True), help="Folder that `cytoloop train --out` wrote.")
@click.option("--device", type=click.Choice(DEVICES), default=None, help="[CYTOLOOP_DEVICE, auto]")
@click.option(
    "--uncertainty", is_flag=True, help="Doubt maps too, doubt/<image_id>.png: 0 sure, 255 no idea."
)
@click.option("--workers", type=click.IntRange(1), help="Images side by side [one a core].")
@shared
def predict(context: Context, source: Path, out: Path, assay: str, **options: Any) -> None:
    """Segment a folder of images: indexed PNG masks, scores.csv and provenance.json.

    A run that is interrupted goes on where it stopped when it is started again: masks of the same version and the
    same pixels are kept. An image that cannot be read is named at the end; the others go on.

    \b
    cytoloop predict plates/2024-05-17 masks/ --assay rosella
    cytoloop predict plates/2024-05-17 masks/ --assay rosella --weights cdl --uncertainty
    """
    from cytoloop.commands import entry

    entry.predict(context, source, out, assay, **options)


@cli.command()
@click.option("--truth", type=folder(exists=True), required=True)
@click.option("--pred", type=folder(exists=True), required=True)
@click.option("--assay", required=True)
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@shared
def evaluate(context: Context, truth: Path, pred: Path, assay: str, workers: int) -> None:
    """Metrics of masks against expert masks of the same names: pixels, outlines, boxes, types of error.

    \b
    cytoloop evaluate --truth plate/labels --pred masks --assay rosella
    """
    from cytoloop.commands import entry

    entry.evaluate(context, truth, pred, assay, workers)


@cli.command()
@click.option("--assay", help="[the only one of the home]")
@shared
def agreement(context: Context, assay: str | None) -> None:
    """How far experts agree on the items that several of them have read, and who differs from whom.

    \b
    cytoloop agreement --assay rosella
    """
    from cytoloop.commands import entry

    entry.agreement(context, assay)


@cli.command()
@click.option("--assay", help="[the only one of the home]")
@click.option(
    "--folds",
    type=click.IntRange(2),
    default=3,
    show_default=True,
    help="Parts the training wells are dealt into; a network is trained for each.",
)
@click.option(
    "--top", type=click.IntRange(1), default=20, show_default=True, help="Most corrections to ask about."
)
@click.option("--preset", help="Numbers of the training runs [the assay's]: fast, paper, smoke.")
@click.option("--device", type=click.Choice(DEVICES), default=None, help="[CYTOLOOP_DEVICE, auto]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@shared
def audit(context: Context, assay: str | None, **options: Any) -> None:
    """Which corrections are worth a second look, by a model that learned without them.

    Judges corrections of training wells only, and puts the most doubtful on the list of reviews. Trains
    a network a fold: minutes each.

    \b
    cytoloop audit --assay rosella --folds 3 --top 20
    """
    from cytoloop.commands import entry

    entry.audit(context, assay, **options)


@cli.command()
@click.option("--queue", default="default", show_default=True, help="<queue>, or <assay>/<queue>.")
@click.option("--expert", help="Name or e-mail, where the queue has experts.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True)
@shared
def worklist(context: Context, queue: str, expert: str | None, limit: int) -> None:
    """What to open next: ranked, with scores, reasons and links.

    \b
    cytoloop worklist --queue default --limit 10
    """
    from cytoloop.commands import entry

    entry.worklist(context, queue, expert, limit)


@cli.group()
def queues() -> None:
    """Policies of the queues: who works on them, and what a batch is made of.

    \b
    cytoloop queues show
    """


@queues.command("apply")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@shared
def queues_apply(context: Context, file: Path) -> None:
    """Set the policies that a YAML or JSON file names, all or none; see docs/queues.md.

    \b
    cytoloop queues apply queues.yaml
    """
    from cytoloop.commands import entry

    entry.queues_apply(context, file)


@queues.command("show")
@click.option("--queue", help="<queue>, or <assay>/<queue> [all].")
@shared
def queues_show(context: Context, queue: str | None) -> None:
    """The policy in force of every queue; with --json as `queues apply` reads it.

    \b
    cytoloop queues show --queue default --json
    """
    from cytoloop.commands import entry

    entry.queues_show(context, queue)


@queues.command("strategies")
@shared
def queues_strategies(context: Context) -> None:
    """What a queue may be ranked by, and what a model must have for it.

    \b
    cytoloop queues strategies
    """
    from cytoloop.commands import entry

    entry.queues_strategies(context)


@cli.command()
@click.option("--assay", help="[the only one of the home]")
@click.option(
    "--cancel",
    metavar="ID",
    help="Run none, but call this one off: one that waits ends at once, one that runs at its next step.",
)
@shared
def cycle(context: Context, assay: str | None, cancel: str | None) -> None:
    """One training cycle now, in this process.

    \b
    cytoloop cycle --assay rosella
    cytoloop cycle --cancel 0a1b2c3d4e5f
    """
    from cytoloop.commands import entry

    entry.cycle(context, assay, cancel)


@cli.group()
def models() -> None:
    """The model versions of a home.

    \b
    cytoloop models list
    """


@models.command("list")
@shared
def models_list(context: Context) -> None:
    """Every version, the newest last: what became of it, and its mean IoU on contest items.

    \b
    cytoloop models list
    """
    from cytoloop.commands import entry

    entry.models_list(context)


@models.command("show")
@click.argument("version")
@shared
def models_show(context: Context, version: str) -> None:
    """Lineage of one version: what it learned from and how, code and machine, numbers, contests, files.

    The digest of its files is checked now. Of a version whose weights were removed, all the rest is still told.

    \b
    cytoloop models show cdl-20240517-0a1b2c3d
    cytoloop models show cdl-20240517-0a1b2c3d --json
    """
    from cytoloop.commands import entry

    entry.models_show(context, version)


@models.command("promote")
@click.argument("version")
@shared
def models_promote(context: Context, version: str) -> None:
    """Bring a version into force without a contest, because you say so.

    Its predictions are published the way a cycle does it. `cytoloop models rollback` undoes it.

    \b
    cytoloop models promote joint-20240517-0a1b2c3d
    """
    from cytoloop.commands import entry

    entry.models_promote(context, version)


@models.command("rollback")
@click.option("--assay", help="[the only one of the home]")
@shared
def models_rollback(context: Context, assay: str | None) -> None:
    """Go back to the version that was in force before the present one.

    Going back twice leads to the one before that, not forward again.

    \b
    cytoloop models rollback --assay rosella
    """
    from cytoloop.commands import entry

    entry.models_rollback(context, assay)


@models.command("export")
@click.argument("version")
@click.argument("out", metavar="OUT.onnx", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
@shared
def models_export(context: Context, version: str, out: Path, force: bool) -> None:
    """Write a network as ONNX, for programs without PyTorch.

    Its input `image` is float32 (N, C, H, W), of any size, and NORMALISED: each channel of the whole image by its
    percentiles, as docs/models.md shows; the numbers are in the file's metadata. Its output `probabilities` is
    (N, K, H, W). The file is written only if ONNX Runtime gives what PyTorch gives. Needs
    pip install 'cytoloop[onnx]'.

    \b
    cytoloop models export joint-20240517-0a1b2c3d rosella.onnx
    """
    from cytoloop.commands import entry

    entry.models_export(context, version, out, force)


def comma_separated(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """``ada@lab.org,bob@lab.org`` as names."""
    return tuple(name.strip() for name in value.split(",")) if value else ()


def named_folders(
    _: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, Path], ...]:
    """``cdl=masks/cdl`` as a name and a folder that is there."""
    found = []
    for text in value:
        name, sign, path = text.partition("=")
        if not (name and sign and path):
            raise click.BadParameter(f"{text!r}, expected name=DIR", param=parameter)
        if not Path(path).is_dir():
            raise click.BadParameter(f"Directory {path!r} does not exist.", param=parameter)
        found.append((name, Path(path)))
    return tuple(found)


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every study with experts is told: the assay, who takes part, and the draw."""
    for option in reversed(
        (
            click.option("--assay", required=True),
            click.option(
                "--experts",
                callback=comma_separated,
                help="E-mails of Label Studio users, or names, comma-separated [expert-1 to expert-4].",
            ),
            click.option(
                "--sets",
                type=click.IntRange(1),
                default=2,
                show_default=True,
                help="Sets the items are dealt into; the experts are shared out among them.",
            ),
            click.option(
                "--split",
                type=click.Choice(SPLITS),
                help="Items of these wells of the home are drawn [sealed].",
            ),
            click.option("--seed", type=click.IntRange(0), help="Of the draw [a new one]."),
            click.option("--name", help="Of the study [<assay>-<number>]."),
        )
    ):
        command = option(command)
    return command


@cli.group()
def rate() -> None:
    """Blind rating: masks of two methods, 1 to 10, by experts who do not know which.

    \b
    cytoloop rate create --assay rosella
    """


@rate.command("create")
@study_options
@click.option("--a", help="Version [the newest CIP version].")
@click.option("--b", help="Version [the active one].")
@click.option(
    "--images",
    type=click.IntRange(1),
    help="Items (tiles) drawn; each is shown with both masks [40, or all there are].",
)
@click.option("--image-dir", type=folder(exists=True), help="Images from here instead of the home.")
@click.option(
    "--masks",
    multiple=True,
    metavar="NAME=DIR",
    callback=named_folders,
    help="With --image-dir, twice: a method and its masks, <image_id>.png.",
)
@shared
def rate_create(context: Context, assay: str, **options: Any) -> None:
    """Set up a blind rating in Label Studio: a project for each expert, methods hidden.

    \b
    cytoloop rate create --assay rosella --b cdl-20240517-0a1b2c3d --experts ada@lab.org,bob@lab.org
    cytoloop rate create --assay rosella --image-dir plate --masks cip=weak --masks ours=masks
    """
    from cytoloop.commands import entry

    entry.rate_create(context, assay, **options)


@rate.command("collect")
@click.argument("name")
@shared
def rate_collect(context: Context, name: str) -> None:
    """Fetch the ratings there are, test them, write ratings.csv and rating.json.

    \b
    cytoloop rate collect rosella-1
    """
    from cytoloop.commands import entry

    entry.rate_collect(context, name)


@cli.group()
def boxes() -> None:
    """The box surrogate: experts box events unaided, CIP and models are scored against the boxes.

    \b
    cytoloop boxes create --assay rosella
    """


@boxes.command("create")
@study_options
@click.option("--images", type=click.IntRange(1), help="Items (tiles) drawn [100, or all there are].")
@shared
def boxes_create(context: Context, assay: str, **options: Any) -> None:
    """Set up a box survey in Label Studio: a project for each expert, no predictions shown.

    \b
    cytoloop boxes create --assay rosella --experts ada@lab.org,bob@lab.org --images 40
    """
    from cytoloop.commands import entry

    entry.boxes_create(context, assay, **options)


@boxes.command("collect")
@click.argument("name")
@click.option("--model", "models_", multiple=True, help="Version to score beside CIP; repeatable [active].")
@shared
def boxes_collect(context: Context, name: str, models_: tuple[str, ...]) -> None:
    """Fetch the boxes there are, score CIP and models, write boxes.csv, drawn.csv and boxes.json.

    \b
    cytoloop boxes collect rosella-1 --model cdl-20240517-0a1b2c3d
    """
    from cytoloop.commands import entry

    entry.boxes_collect(context, name, models_)


@cli.command()
@click.argument("cycle_id", metavar="[CYCLE]", required=False)
@shared
def report(context: Context, cycle_id: str | None) -> None:
    """Render a cycle's report again (the last one's by default) and print its path.

    \b
    cytoloop report
    """
    from cytoloop.commands import entry

    entry.report(context, cycle_id)


@cli.command()
@click.option("--out", type=folder(), default="results", show_default=True, help="Plates, masks and runs.")
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
    default="docs/results.md",
    show_default=True,
    help="The page; its figures go into a folder of the same name.",
)
@click.option("--data", type=folder(exists=True), help="Folder with u2os-hoechst-gal3 and dsb2018-fluo.")
@click.option(
    "--dataset", "datasets", multiple=True, help="One of reference-1, u2os-hoechst-gal3, dsb2018-fluo [all]."
)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="Runs at once, a core each."
)
@click.option("--paper", is_flag=True, help="Train the paper's preset too, on reference-1 (hours).")
@click.option("--so-far", is_flag=True, help="Train nothing: the page of the runs that are finished.")
@click.option("--device", type=click.Choice(DEVICES), default=None, help="[CYTOLOOP_DEVICE, auto]")
@shared
def results(context: Context, **options: Any) -> None:
    """Compare CIP, CDL, MDL and joint models on data whose truth is known; write the results page.

    Simulates, weak-labels and trains what is not there yet: stopped, it goes on where it was.

    \b
    cytoloop results --data ../shared/data
    cytoloop results --dataset reference-1 --seeds 1 --page results/first-look.md
    """
    from cytoloop.commands import entry

    entry.results(context, **options)


@cli.command("simulate-learning")
@click.option(
    "--strategies",
    default="",
    metavar="NAME,NAME…",
    help="Compared with random choice; default: the default strategy. See `cytoloop queues strategies`.",
)
@click.option("--seeds", type=click.IntRange(min=1), default=10, show_default=True, help="Pairs compared.")
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Screen strategies on some seeds, then confirm the winner on others.",
)
@click.option(
    "--data", type=folder(), help="A folder of images with `labels` (with --assay), or of the real data sets."
)
@click.option("--assay", "assay_name", help="Assay of the folder given with --data.")
@click.option(
    "--dataset",
    default="reference-1",
    show_default=True,
    help="Where no --assay is given: reference-1 is simulated, the others are looked for in --data.",
)
@click.option("--out", type=folder(), default="results", show_default=True, help="Plates, masks and runs.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Runs side by side."
)
@click.option(
    "--preset",
    type=click.Choice(("fast", "smoke")),
    default="fast",
    show_default=True,
    help="Of every training; smoke only shows that it runs.",
)
@click.option("--so-far", is_flag=True, help="Train nothing: compare the runs that are finished.")
@click.option("--device", type=click.Choice(DEVICES), default=None, help="[CYTOLOOP_DEVICE, auto]")
@shared
def simulate_learning(context: Context, **options: Any) -> None:
    """Active learning against random choice, in minutes of a simulated expert.

    A simulated expert works through worklists of each strategy; models are trained as the minutes go by. Writes
    learning curves (SVG) and JSON. Stopped, it goes on where it was.

    \b
    cytoloop simulate-learning --strategies entropy,entropy/minute --seeds 3
    cytoloop simulate-learning --data my-plate --assay rosella --seeds 5
    """
    from cytoloop.commands import entry

    entry.simulate_learning(context, **options)


@cli.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--items",
    type=click.IntRange(1000),
    default=1_000_000,
    show_default=True,
    help="Items of the synthetic home (worklist).",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    help="How long clients ask for a bit of everything (serving).",
)
@shared
def bench(context: Context, names: tuple[str, ...], items: int, minutes: float) -> None:
    """Measure what has to be fast, beside the bar it has to meet; without names, all of it.

    A bar that is missed is told, and is no error: the machine may be small, or busy.

    \b
    worklist   a queue over a million items: the list, claims, scoring everything anew
    scores     what each score costs beside a plain prediction
    contest    how often a contest promotes what gained nothing, and how often what did
    serving    the backend under eight clients, while a training and a re-scoring run
    uncached   items that have no stored prediction yet, asked for by four clients
    codec      brush RLE beside Label Studio's converter
    engine     what predicts on a CPU beside PyTorch: time, and how far masks differ
    prediction one prediction end to end; items nobody predicted, asked by several clients
    publish    predictions into a Label Studio that is started for it
    step       a training step beside the bare one
    cip        the whole Rosella recipe on one core
    \b
    cytoloop bench worklist --items 100000
    cytoloop bench serving --minutes 10
    """
    from cytoloop.commands import entry

    entry.bench(context, names, items, minutes)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(1, 65535), default=9090, show_default=True)
@click.option(
    "--open",
    "is_open",
    is_flag=True,
    help="Ask Label Studio for no password or secret that is not set; on 127.0.0.1 alone, to try things out.",
)
@shared
def backend(context: Context, host: str, port: int, is_open: bool) -> None:
    """The web process alone.

    \b
    cytoloop backend --port 9090
    """
    from cytoloop.commands.servers import run_backend

    run_backend(context.settings, host, port, is_open)


@cli.command()
@click.option(
    "--every",
    type=click.IntRange(1),
    help="Corrections after which a cycle is due [each assay's triggers].",
)
@click.option(
    "--look",
    "look_every_s",
    type=click.IntRange(1),
    default=15,
    show_default=True,
    help="Seconds between two looks.",
)
@shared
def trainer(context: Context, every: int | None, look_every_s: int) -> None:
    """The scheduled process alone: looks, and runs a cycle when one is due.

    What makes one due is in each assay's file, under trainer.triggers.

    \b
    cytoloop trainer
    cytoloop trainer --every 20
    """
    from cytoloop.commands.servers import run_trainer

    run_trainer(context.settings, every, look_every_s)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; leave with 0 ok, 1 data or world at fault, 2 usage or configuration, 3 bug, 130 ^C."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    context = Context()
    try:
        code = cli.main(args=arguments, prog_name="cytoloop", standalone_mode=False, obj=context)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CytoloopError as error:
        click.echo(f"cytoloop: {error}", err=True)
        return error.exit_code
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):
            return 0  # nobody reads the output any more (| head)
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except OSError as error:  # no space, no permission, no such file: the world, not us
        click.echo(f"cytoloop: {error}", err=True)
        return CytoloopError.exit_code
    except Exception as error:
        from cytoloop.adapters.storage import storage_error

        about_disk = storage_error(error)  # SQLite's words for it
        if about_disk is None:
            return _bug(error, context)
        click.echo(f"cytoloop: {about_disk}", err=True)
        return about_disk.exit_code


def _bug(error: Exception, context: Context) -> int:
    """Our fault: the traceback goes to a log file, the screen gets one line that names it."""
    try:
        home = context.settings.home
    except ConfigError:
        home = context.home or Path("cytoloop-home")
    log = home / "logs" / "error.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
        where = f"the traceback is in {log}"
    except OSError:
        logging.getLogger(__name__).exception("bug")
        where = "the log could not be written"
    click.echo(f"cytoloop: a bug ({type(error).__name__}: {error}); {where}", err=True)
    return EXIT_BUG


if __name__ == "__main__":
    main()
