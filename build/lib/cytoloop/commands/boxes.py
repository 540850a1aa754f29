"""``cytoloop boxes create`` and ``collect``: experts box events, unaided; CIP and models are scored against them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

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
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError
from cytoloop.domain.metrics.boxes import FIGURES, Box, BoxCounts, Spread, box_scores, boxes_of_mask, no_boxes
from cytoloop.domain.survey.boxing import PAPER_IMAGES, BoxedItem, BoxSurvey, MethodBoxes
from cytoloop.domain.survey.study import PAPER_SETS, assign_experts, default_experts, draw_sets
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, ModelVersion, Split
from cytoloop.pipeline.predictors import load_predictor
from labelstudio_config.boxing import INSTRUCTION, boxing_config, parse_boxes
from labelstudio_config.payloads import parse_task_data, task_data
from labelstudio_config.renders import render_folder, render_images, view_urls
from labelstudio_config.study import StudyProject


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxOptions:
    """Which images are boxed, and by whom."""

    images: int | None = None
    """Items drawn; default: the paper's 100, or all there are."""
    sets: int = PAPER_SETS
    experts: tuple[str, ...] = ()
    """E-mails of Label Studio users, or names; default: four names, the paper's two groups of two."""
    seed: int | None = None
    split: Split | None = None
    """None: sealed wells."""
    name: str | None = None


def create_boxes(home: Home, assay: Assay, options: BoxOptions, tell: Tell) -> CreatedStudy:
    """Draw items and set up a box survey; every expert gets a project, and no prediction is shown.

    Raises
    ------
    InputError
        If there are too few items.
    """
    experts = options.experts or default_experts()
    folder = new_folder(home.settings.home, "boxes", options.name, assay.name)
    check_experts(home, experts)
    home.store.assays.get(assay.name)
    split = options.split or DEFAULT_SPLIT
    items = items_of_split(home, assay.name, split)
    count = how_many(options.images, PAPER_IMAGES, len(items), f"split {split} of assay {assay.name!r}")
    seed = number_of_seed(options.seed)
    rng = np.random.default_rng(seed)
    set_of = dict(zip(experts, assign_experts(experts, options.sets), strict=True))
    sets = draw_sets(items, count, options.sets, rng)
    wanted = {item.image_id for of_set in sets for item in of_set}
    records = {r.image_id: r for r in home.store.images.all(assay.name) if r.image_id in wanted}
    render_images(home.store, assay, list(records.values()), lambda done, total: tell("render", done, total))

    def document(item: Item) -> dict[str, object]:
        record = records[item.image_id]
        composite, *channels = view_urls(record, item.tile, assay)
        return task_data(record, item.tile, composite, channels)

    plans = []
    for number, expert in enumerate(experts, start=1):
        mine = sets[set_of[expert] - 1]
        plans.append(
            StudyProject(
                title=project_title("boxes", folder.name, number),
                description=f"For {expert}: boxes around every event in {len(mine)} pictures.",
                label_config=boxing_config(assay),
                instruction=INSTRUCTION,
                pictures=render_folder(home.settings.home, assay.name),
                documents=tuple(document(mine[i]) for i in rng.permutation(len(mine))),
            )
        )
    design: dict[str, Any] = {
        "name": folder.name,
        "assay": assay.name,
        "split": split,
        "seed": seed,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "experts": set_of,
        "sets": [[{"image_id": i.image_id, "tile": i.tile} for i in of_set] for of_set in sets],
    }
    design = open_study(home, folder, design, experts, plans)
    return CreatedStudy(
        name=folder.name,
        assay=assay.name,
        items=count,
        methods=(),
        seats=seats_of(home, design, set_of),
        design=folder / DESIGN,
    )


def collect_boxes(home: Home, name: str, versions: Sequence[str], tell: Tell) -> BoxSurvey:
    """Fetch the boxes there are and score CIP and the named versions (by default the active one).

    Writes ``boxes.json``, ``boxes.csv`` (a line a method, expert and class) and ``drawn.csv`` (a line a
    box) beside the design.

    Raises
    ------
    InputError
        If there is no such study, a task is not of its design, or a version is another assay's.
    StateError
        If a project is gone.
    """
    folder, design = read_design(home.settings.home, "boxes", name)
    assay = home.load(design["assay"])
    models = _models(home, assay.name, versions)
    known = [{Item(**item) for item in of_set} for of_set in design["sets"]]
    boxed: list[BoxedItem] = []
    progress = []
    for seat, given in answers_of(home, seats_of(home, design, design["experts"]), tell):
        progress.append(progress_of(seat, given))
        for answer in given:
            if answer.result is None:
                continue
            data = parse_task_data(answer.data, answer.where)
            item = Item(image_id=data.image_id, tile=data.tile)
            record = home.store.images.get(assay.name, item.image_id)
            if item not in known[seat.set - 1] or record.image_key != data.image_key:
                raise InputError(
                    f"{answer.where}: shows {item.image_id}/{item.tile}, expected an item of set {seat.set} of "
                    f"boxes {name!r}"
                )
            if any((one.expert, one.item) == (seat.expert, item) for one in boxed):
                raise InputError(
                    f"{answer.where}: {item.image_id}/{item.tile} is in project {seat.project_id} twice, expected once"
                )
            tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
            boxed.append(
                BoxedItem(
                    expert=seat.expert,
                    set=seat.set,
                    item=item,
                    boxes=parse_boxes(answer.result, assay, tile.height, tile.width, answer.where),
                    lead_time_s=answer.lead_time_s,
                )
            )
    drawn_items = {one.item for one in boxed}
    methods = []
    for model in models:
        pred = _predicted_boxes(home, assay, model, drawn_items, tell)
        scored = []
        for one in progress:
            mine = [b for b in boxed if b.expert == one.expert]
            scores = (box_scores(b.boxes, pred[b.item], assay.class_count) for b in mine)
            if mine:
                scored.append((one.expert, one.set, sum(scores, no_boxes(assay.class_count))))
        methods.append(MethodBoxes(method=model.version, experts=tuple(scored)))
    survey = BoxSurvey(
        name=name,
        assay=assay.name,
        class_names=assay.class_names,
        progress=tuple(progress),
        boxed=tuple(boxed),
        methods=tuple(methods),
    )
    write_private(folder / "boxes.json", json.dumps(survey.to_dict(), indent=1, allow_nan=False))
    write_private(folder / "boxes.csv", _scores_csv(survey))
    write_private(folder / "drawn.csv", _drawn_csv(survey))
    return survey


def boxes_table(survey: BoxSurvey) -> Table:
    """Mean ± SD over experts of each method and class, for the terminal."""
    experts = max((len(one.experts) for one in survey.methods), default=0)
    table = Table(
        title=f"Boxes {escape(survey.name)}: mean ± SD over {experts} expert(s)",
        title_justify="left",
        caption="False positives: predicted events without a partner among the expert's boxes; false negatives: "
        "expert boxes without a predicted partner (one to one, box IoU >= 0.1). Overlapping: predicted events "
        "that overlap some expert box.",
    )
    for heading in ("Method", "Class"):
        table.add_column(heading)
    for heading in (
        *("Expert boxes", "Predicted", "IoU 0.1–0.5", "IoU >= 0.5"),
        *("False positives", "False negatives", "Overlapping"),
    ):
        table.add_column(heading, justify="right")
    for one in survey.methods:
        spread = one.spread
        if spread is None:
            table.add_row(escape(one.method), "nobody has drawn anything yet")
            continue
        rows = [*zip(survey.class_names[1:], spread.classes, strict=True), ("all", spread.foreground)]
        for number, (name, figures) in enumerate(rows):
            table.add_row(
                escape(one.method) if number == 0 else "",
                escape(name),
                *(
                    _spread(figures[figure], 1)
                    for figure in ("expert", "predicted", "in_lower_band", "in_upper_band")
                ),
                *(
                    _spread(figures[figure], 3)
                    for figure in ("false_positive_ratio", "false_negative_ratio", "overlapping_share")
                ),
                style="bold" if name == "all" else None,
            )
        table.add_section()
    return table


def _models(home: Home, assay: str, versions: Sequence[str]) -> list[ModelVersion]:
    asked = [version_of(home, assay, version) for version in versions] or [home.store.models.active(assay)]
    chosen = {model.version: model for model in [cip_version(home, assay), *asked]}
    return list(chosen.values())


def _predicted_boxes(
    home: Home, assay: Assay, model: ModelVersion, items: set[Item], tell: Tell
) -> dict[Item, tuple[Box, ...]]:
    predictor = load_predictor(home.store, home.registry, assay, model, home.settings.device)
    found: dict[Item, tuple[Box, ...]] = {}
    for image_id, of_image in groupby(sorted(items), key=lambda item: item.image_id):
        record = home.store.images.get(assay.name, image_id)
        mask_HW = predictor.predict(record).argmax(axis=0).astype(np.uint8)
        tiles = tiles_of(record.height, record.width, assay.tiling)
        for item in of_image:
            # An event that the tile cuts is cut for the expert too.
            found[item] = boxes_of_mask(mask_HW[tiles[item.tile].slices], assay.class_count)
        tell(f"predict {model.version}", len(found), len(items))
    return found


def _scores_csv(survey: BoxSurvey) -> str:
    rows = []
    for one in survey.methods:
        for expert, set_, scores in one.experts:
            for name, counts in _by_class(survey, scores.classes, scores.foreground):
                figures = counts.to_dict()
                values = ["" if figures[figure] is None else figures[figure] for figure in FIGURES]
                rows.append([one.method, expert, set_, name, *values])
    return csv_text(["method", "expert", "set", "class", *(_column(f) for f in FIGURES)], rows)


def _column(figure: str) -> str:
    return "expert_boxes" if figure == "expert" else figure


def _by_class(
    survey: BoxSurvey, classes: Sequence[BoxCounts], foreground: BoxCounts
) -> list[tuple[str, BoxCounts]]:
    return [*zip(survey.class_names[1:], classes, strict=True), ("all", foreground)]


def _drawn_csv(survey: BoxSurvey) -> str:
    rows = [
        [
            *(one.expert, one.set, one.item.image_id, one.item.tile, survey.class_names[box.value]),
            *(box.top, box.left, box.bottom, box.right),
        ]
        for one in survey.boxed
        for box in one.boxes
    ]
    columns = ["expert", "set", "image_id", "tile", "class", "top", "left", "bottom", "right"]
    return csv_text(columns, rows)


def _spread(value: Spread, places: int) -> str:
    if np.isnan(value.mean):
        return "–"
    sd = "" if np.isnan(value.sd) else f" ± {value.sd:.{places}f}"
    return f"{value.mean:.{places}f}{sd}"
