"""``cytoloop rate create`` and ``collect``: masks of two methods, rated 1 to 10 by experts who do not know which."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from cytoloop.adapters.images import read_image, read_mask
from cytoloop.adapters.plates import read_plate
from cytoloop.commands.home import Home
from cytoloop.commands.study import (
    DEFAULT_SPLIT,
    DESIGN,
    CreatedStudy,
    Tell,
    answers_of,
    check_experts,
    cip_version,
    csv_text,
    how_many,
    items_of_split,
    new_folder,
    number_of_seed,
    open_study,
    progress_of,
    project_title,
    read_design,
    seats_of,
    version_of,
    write_private,
)
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.display import composite, display_ranges
from cytoloop.domain.errors import ConfigError, InputError, ShapeError
from cytoloop.domain.survey.rating import (
    Distribution,
    Rating,
    RatingReport,
    rating_report,
)
from cytoloop.domain.survey.rating_design import PAPER_IMAGES, RatingDesign, draw_design
from cytoloop.domain.survey.study import PAPER_SETS, default_experts
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, Split, check_label_mask
from cytoloop.pipeline.predictors import Predictor, load_predictor
from labelstudio_config.rating import (
    INSTRUCTION,
    TOKEN_KEY,
    parse_rating,
    rating_config,
    rating_folder,
    rating_task,
    render_rating,
)
from labelstudio_config.renders import plate_ranges
from labelstudio_config.study import StudyProject

MaskOf = Callable[[ImageRecord], NDArray[np.uint8]]
"""A method: the label mask of a whole image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOptions:
    """What is to be rated, and by whom."""

    a: str | None = None
    """Version; default: the newest CIP version."""
    b: str | None = None
    """Version; default: the active one."""
    images: int | None = None
    """Items drawn; default: the paper's 40, or all there are."""
    sets: int = PAPER_SETS
    experts: tuple[str, ...] = ()
    """E-mails of Label Studio users, or names; default: four names, the paper's design."""
    seed: int | None = None
    split: Split | None = None
    """Of the home; None: sealed wells. A folder has no splits."""
    name: str | None = None
    image_dir: Path | None = None
    """A plate instead of the store's images, with ``masks``."""
    masks: tuple[tuple[str, Path], ...] = ()
    """(name, folder of ``<image_id>.png``) of both methods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Images to draw from, and the two methods."""

    records: dict[str, ImageRecord]
    items: list[Item]
    methods: dict[str, MaskOf]
    ranges_of: Callable[[ImageRecord, NDArray[np.float32]], dict[str, tuple[float, float]]]
    where: str


def create_rating(home: Home, assay: Assay, options: RateOptions, tell: Tell) -> CreatedStudy:
    """Draw, render and set up a blind rating; every expert gets a project.

    Raises
    ------
    InputError
        If there are too few images or masks, or the methods are one.
    """
    experts = options.experts or default_experts()
    folder = new_folder(home.settings.home, "ratings", options.name, assay.name)
    check_experts(home, experts)
    source = _from_folders(assay, options) if options.image_dir else _from_store(home, assay, options)
    images = how_many(options.images, PAPER_IMAGES, len(source.items), source.where)
    seed = number_of_seed(options.seed)
    a, b = source.methods
    design = draw_design(
        source.items,
        (a, b),
        experts,
        images,
        options.sets,
        np.random.default_rng(seed),
        lambda: secrets.token_hex(8),
    )
    pictures = rating_folder(home.settings.home, folder.name)
    document = {
        "name": folder.name,
        "assay": assay.name,
        "split": None if options.image_dir else options.split or DEFAULT_SPLIT,
        "seed": seed,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **design.to_dict(),
    }
    try:
        with_ignored = _render(pictures, source, design, assay, tell)
        plans = [
            StudyProject(
                title=project_title("ratings", folder.name, number),
                description=f"For {rater.expert}: {len(rater.showings)} pictures, rated 1 to 10.",
                label_config=rating_config(assay, with_ignored=with_ignored),
                instruction=INSTRUCTION,
                pictures=pictures,
                documents=tuple(rating_task(folder.name, showing) for showing in rater.showings),
            )
            for number, rater in enumerate(design.raters, start=1)
        ]
        document = open_study(home, folder, document, experts, plans)
    except BaseException:
        shutil.rmtree(pictures, ignore_errors=True)
        raise
    return CreatedStudy(
        name=folder.name,
        assay=assay.name,
        items=images,
        methods=design.methods,
        seats=seats_of(home, document, _sets(design)),
        design=folder / DESIGN,
    )


def _sets(design: RatingDesign) -> dict[str, int]:
    return {rater.expert: rater.set for rater in design.raters}


def collect_rating(home: Home, name: str, tell: Tell) -> RatingReport:
    """Fetch the ratings there are; write ``ratings.csv`` and ``rating.json`` beside the design.

    Raises
    ------
    InputError
        If there is no such study, or a task is not of its design.
    StateError
        If a project is gone.
    """
    folder, document = read_design(home.settings.home, "ratings", name)
    design = RatingDesign.from_dict(document)
    sides = {(r.expert, s.token): s.is_mask_left for r in design.raters for s in r.showings}
    ratings, progress, rows = [], [], []
    seen: set[tuple[str, str]] = set()
    for seat, given in answers_of(home, seats_of(home, document, _sets(design)), tell):
        progress.append(progress_of(seat, given))
        for answer in given:
            if answer.result is None:
                continue
            token = answer.data.get(TOKEN_KEY)
            picture = design.picture(str(token))
            if picture is None or (seat.expert, picture.token) not in sides:
                raise InputError(f"{answer.where}: {TOKEN_KEY} is {token!r}, expected one of rating {name!r}")
            if (seat.expert, picture.token) in seen:
                raise InputError(
                    f"{answer.where}: {TOKEN_KEY} {token!r} is in project {seat.project_id} twice, expected once"
                )
            seen.add((seat.expert, picture.token))
            rating = Rating(
                expert=seat.expert,
                set=seat.set,
                item=picture.item,
                method=picture.method,
                value=parse_rating(answer.result, answer.where),
                lead_time_s=answer.lead_time_s,
            )
            ratings.append(rating)
            side = "left" if sides[seat.expert, picture.token] else "right"
            rows.append(
                [
                    *(rating.expert, rating.set, rating.item.image_id, rating.item.tile, rating.method),
                    *(rating.value, "" if rating.lead_time_s is None else rating.lead_time_s, side),
                    *(answer.task_id, picture.token),
                ]
            )
    report = rating_report(
        name, document["assay"], design.methods, progress, ratings, np.random.default_rng(document["seed"])
    )
    columns = ["expert", "set", "image_id", "tile", "method", "rating", "seconds", "mask_side", "task_id"]
    write_private(folder / "ratings.csv", csv_text([*columns, "token"], rows))
    write_private(folder / "rating.json", json.dumps(report.to_dict(), indent=1, allow_nan=False))
    return report


def rating_tables(report: RatingReport) -> Iterable[Table]:
    """The ratings and the tests, for the terminal."""
    yield _ratings_table(report)
    yield _tests_table(report)
    if report.between_sets:
        yield _sets_table(report)


# --- where images and masks come from ----------------------------------------------------------------------


def _from_store(home: Home, assay: Assay, options: RateOptions) -> _Source:
    if options.masks:
        raise ConfigError("--masks without --image-dir: expected both, or neither")
    store = home.store
    store.assays.get(assay.name)
    models = [
        version_of(home, assay.name, options.a) if options.a else cip_version(home, assay.name),
        version_of(home, assay.name, options.b) if options.b else store.models.active(assay.name),
    ]
    if models[0].version == models[1].version:
        raise InputError(
            f"--a and --b are both {models[0].version}, expected two versions (`cytoloop models list`)"
        )
    methods: dict[str, MaskOf] = {}
    for model in models:
        predictor = load_predictor(store, home.registry, assay, model, home.settings.device)
        methods[model.version] = _mask_of(predictor)
    records = store.images.all(assay.name)

    @cache
    def of_plate(plate: str) -> dict[str, tuple[float, float]]:
        # As the plate looks where it is corrected, if it was rendered there already.
        fixed = store.images.display_ranges(assay.name, plate)
        return fixed or plate_ranges([record for record in records if record.plate == plate], assay)

    return _Source(
        records={record.image_id: record for record in records},
        items=items_of_split(home, assay.name, options.split or DEFAULT_SPLIT),
        methods=methods,
        ranges_of=lambda record, image_CHW: _ranges(assay, record, image_CHW, of_plate),
        where=f"split {options.split or DEFAULT_SPLIT} of assay {assay.name!r}",
    )


def _mask_of(predictor: Predictor) -> MaskOf:
    return lambda record: predictor.predict(record).argmax(axis=0).astype(np.uint8)


def _from_folders(assay: Assay, options: RateOptions) -> _Source:
    assert options.image_dir is not None
    if options.a or options.b:
        raise ConfigError("--a and --b name versions of the home; with --image-dir expected --masks alone")
    if options.split:
        raise ConfigError(
            "--split names wells of the home; with --image-dir all images of the folder are drawn from"
        )
    names = [name for name, _ in options.masks]
    if len(names) != 2 or len(set(names)) != 2:
        raise ConfigError(f"--masks {', '.join(names) or '(none)'}: expected two, name=DIR with two names")
    records = read_plate(options.image_dir, assay)
    for name, folder in options.masks:
        missing = [r.image_id for r in records if not (folder / f"{r.image_id}.png").is_file()]
        if missing:
            shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
            raise InputError(
                f"{folder}: no mask of {name!r} for {len(missing)} of {len(records)} images: {shown}"
            )

    @cache
    def of_plate(plate: str) -> dict[str, tuple[float, float]]:
        return plate_ranges([record for record in records if record.plate == plate], assay)

    return _Source(
        records={record.image_id: record for record in records},
        items=[
            Item(image_id=record.image_id, tile=tile.index)
            for record in records
            for tile in tiles_of(record.height, record.width, assay.tiling)
        ],
        methods={name: partial(_read_mask, folder, assay) for name, folder in options.masks},
        ranges_of=lambda record, image_CHW: _ranges(assay, record, image_CHW, of_plate),
        where=str(options.image_dir),
    )


def _read_mask(folder: Path, assay: Assay, record: ImageRecord) -> NDArray[np.uint8]:
    path = folder / f"{record.image_id}.png"
    mask_HW = check_label_mask(read_mask(path), assay.class_count, str(path))
    if mask_HW.shape != (record.height, record.width):
        raise ShapeError(f"{path}: mask {mask_HW.shape}, image {(record.height, record.width)}")
    return mask_HW


def _ranges(
    assay: Assay,
    record: ImageRecord,
    image_CHW: NDArray[np.float32],
    of_plate: Callable[[str], dict[str, tuple[float, float]]],
) -> dict[str, tuple[float, float]]:
    if assay.display.scope == "image":
        return display_ranges([image_CHW], assay)
    return of_plate(record.plate)


def _render(folder: Path, source: _Source, design: RatingDesign, assay: Assay, tell: Tell) -> bool:
    """Three pictures a token, computed image by image, written in the order of the tokens.

    Says whether some mask has pixels that nobody looked at.
    """
    ready = {}
    by_image = sorted(design.pictures, key=lambda one: one.item.image_id)
    for done, (image_id, of_image) in enumerate(groupby(by_image, key=lambda one: one.item.image_id), 1):
        record = source.records[image_id]
        image_CHW = read_image(record, assay)
        view = composite(image_CHW, source.ranges_of(record, image_CHW), assay)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        masks = {method: ask(record) for method, ask in source.methods.items()}
        for one in of_image:
            slices = tiles[one.item.tile].slices
            ready[one.token] = (view[slices].copy(), masks[one.method][slices].copy())
        tell("predict", done, len({one.item.image_id for one in design.pictures}))
    # The time of a file would else tell the methods apart.
    for done, token in enumerate(sorted(ready), start=1):
        render_rating(folder, token, *ready[token], assay)
        tell("render", done, len(ready))
    return any((mask_HW == IGNORE).any() for _, mask_HW in ready.values())


# --- for the terminal --------------------------------------------------------------------------------------


def _ratings_table(report: RatingReport) -> Table:
    table = Table(
        title=f"Blind rating {escape(report.name)}, 1 (useless) to 10 (nothing to correct)",
        title_justify="left",
    )
    for heading in ("Expert", "Set", "Method"):
        table.add_column(heading)
    for heading in ("n", "Mean", "SD", "Median", "Minutes"):
        table.add_column(heading, justify="right")
    for one in report.distributions:
        table.add_row(escape(one.expert or ""), str(one.set), escape(one.method), *_numbers(one))
    table.add_section()
    for one in report.pooled:
        table.add_row("all", "", escape(one.method), *_numbers(one), style="bold")
    return table


def _numbers(one: Distribution) -> Sequence[str]:
    return (
        str(len(one.values)),
        _number(one.mean, 2),
        _number(one.sd, 2),
        _number(one.median, 1),
        _number(one.minutes_median, 1),
    )


def _tests_table(report: RatingReport) -> Table:
    a, b = report.methods
    table = Table(
        title=f"{escape(b)} against {escape(a)}",
        title_justify="left",
        caption="KS ignores that each item was rated with both masks; Wilcoxon's signed-rank test does not. "
        "Effect: matched-pairs rank-biserial correlation, 1 = the first never rated lower.",
    )
    table.add_column("Expert")
    for heading in ("Pairs", "Difference", "KS", "KS p", "Wilcoxon p", "Holm p", "Effect (95 %)"):
        table.add_column(heading, justify="right")
    has_notes = any(one.note for one in report.between_methods)
    if has_notes:
        table.add_column("Note")
    for one in report.between_methods:
        interval = f" ({_number(one.effect_low, 2)} to {_number(one.effect_high, 2)})" if one.pairs else ""
        table.add_row(
            escape(one.expert),
            str(one.pairs),
            _number(one.mean_difference, 2),
            _number(one.ks, 2),
            _p(one.ks_p),
            _p(one.wilcoxon_p),
            _p(one.holm_p),
            _number(one.effect, 2) + interval,
            *([one.note] if has_notes else []),
        )
    return table


def _sets_table(report: RatingReport) -> Table:
    table = Table(
        title="Between the sets: other images, other experts (Kolmogorov–Smirnov)", title_justify="left"
    )
    table.add_column("Method")
    for heading in ("Sets", "KS", "p"):
        table.add_column(heading, justify="right")
    for one in report.between_sets:
        table.add_row(
            escape(one.method), f"{one.sets[0]} and {one.sets[1]}", _number(one.ks, 2), _p(one.ks_p)
        )
    return table


def _number(value: float, places: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{places}f}"


def _p(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.2g}"
