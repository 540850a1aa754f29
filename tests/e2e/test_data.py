"""A plate as Opera and Operetta export it, through everything real: imported with masks, labelled, corrected, framed,
trained on, reported by wells, and exported."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from editor import Editor, log_in
from numpy.typing import NDArray
from places import LABEL_STUDIO

from cytoloop.adapters.assays import shipped_folder
from cytoloop.adapters.images import read_mask, write_mask
from cytoloop.commands.doctor import run_doctor
from cytoloop.commands.exporting import export
from cytoloop.commands.home import Home, find_assay
from cytoloop.commands.importing import ImportSummary, import_plate
from cytoloop.commands.processes import ensure_secrets
from cytoloop.commands.reference import Truth, submit_reference
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.commands.up import UpOptions, running_stack
from cytoloop.domain.assay import IGNORE, Assay
from cytoloop.domain.coco import decode
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy
from cytoloop.domain.types import HELD_OUT, Item
from labelstudio_config.payloads import drawn_mask, prediction_result
from labelstudio_config.project import connect
from trainer.schedule import Trainer

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

W, H = 340, 256
NAME = "framed"


@dataclass(frozen=True)
class Imported:
    """A served home with an export in it, two images of which came with masks."""

    home: Home
    assay: Assay
    plate: Path
    truth: Truth
    summary: ImportSummary
    masks: dict[str, NDArray[np.uint8]]

    def task_of(self, item: Item) -> int:
        task = self.home.store.images.tasks(NAME)[item]
        assert task is not None
        return task

    def shown(self, item: Item) -> tuple[int, NDArray[np.uint8]]:
        """Id and mask of the prediction that Label Studio shows."""
        version = self.home.store.models.active(NAME).version
        task = self.home.label_studio.get_task(self.task_of(item))
        (held,) = [p for p in task["predictions"] if p["model_version"] == version]
        return held["id"], drawn_mask(held["result"], self.assay, (H, W), "shown").mask_HW

    def truth_of(self, item: Item) -> NDArray[np.uint8]:
        return self.truth.item(item, 2 * H, 2 * W)

    def stored(self, item: Item) -> Any:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.home.store.corrections.standing(NAME).get(item)
            if found is not None:
                return found
            time.sleep(0.1)
        raise AssertionError(f"no correction of {item} within 20 s")


def quiet(what: str, done: int, total: int) -> None:
    """No progress bars in tests."""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Imported]:
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    folder = tmp_path_factory.mktemp("data")
    plate = folder / "export"
    simulate_plate_command(plate, "rosella", 16, 3, layout="harmony")
    text = (shipped_folder() / "rosella.yaml").read_text(encoding="utf-8")
    (folder / "home" / "assays").mkdir(parents=True)
    (folder / "home" / "assays" / f"{NAME}.yaml").write_text(
        text.replace("name: rosella", f"name: {NAME}\nreviewed_region: true"), encoding="utf-8"
    )
    with running_stack(folder / "home", UpOptions(label_studio=LABEL_STUDIO), lambda line: None, {}) as stack:
        home = stack.home
        assay = find_assay(home.settings.home, NAME)
        home.store.queues.set(NAME, "default", QueuePolicy(strategy="entropy", size=10).document())
        summary = import_plate(home, plate, assay, quiet)
        # Masks come after the plate: what the editor showed before is replaced.
        teaching = [record.image_id for record in home.store.images.all(NAME) if record.split == "train"][:2]
        masks = {}
        for image_id in teaching:
            masks[image_id] = np.roll(read_mask(plate / "labels" / f"{image_id}.png"), 5, axis=1)
            write_mask(folder / "masks" / f"{image_id}.png", masks[image_id])
        again = import_plate(home, plate, assay, quiet, folder / "masks")
        assert (again.new_images, again.masks) == (0, 2)
        assert again.masks_version is not None
        connect(home.label_studio, home.store, assay, home.settings)
        yield Imported(home, assay, plate, Truth(plate, assay), summary, masks)


def test_wells_fields_and_pixel_sizes_are_on_the_items(imported: Imported) -> None:
    assert (imported.summary.images, imported.summary.new_tasks, imported.summary.warnings) == (16, 64, ())
    for record in imported.home.store.images.all(NAME)[:3]:
        data = imported.home.label_studio.get_task(imported.task_of(Item(image_id=record.image_id, tile=0)))[
            "data"
        ]
        assert (data["plate"], data["well"], data["field"]) == ("rosella-s3-p1", record.well, record.field)
        assert record.group == f"rosella-s3-p1/{record.well}"
        assert record.pixel_size_um == pytest.approx(0.2152)


def test_doctor_finds_nothing_wrong(imported: Imported) -> None:
    checks = list(run_doctor(imported.home))
    assert [(check.name, check.detail) for check in checks if check.state != "ok"] == []


def test_imported_masks_are_what_the_editor_shows(imported: Imported) -> None:
    for image_id, mask_HW in imported.masks.items():
        for tile in tiles_of(2 * H, 2 * W, imported.assay.tiling):
            _, shown_HW = imported.shown(Item(image_id=image_id, tile=tile.index))
            np.testing.assert_array_equal(shown_HW, mask_HW[tile.slices])


@pytest.mark.browser
def test_an_expert_frames_what_was_looked_at(imported: Imported, chromium_page: Callable[..., Any]) -> None:
    """What the editor itself says of a rectangle drawn with the mouse."""
    home = imported.home
    local = ensure_secrets(home.settings.home)
    item = Item(image_id=next(iter(imported.masks)), tile=0)
    page = chromium_page()
    log_in(
        page, home.settings.label_studio_url or "", local["label_studio_user"], local["label_studio_password"]
    )
    project = home.store.assays.get(NAME)["project_id"]
    page.goto(f"{home.settings.label_studio_url}/projects/{project}/data?task={imported.task_of(item)}")
    editor = Editor(page, W, H)
    page.click('.lsf-label:has-text("Reviewed region")')
    editor.stroke((50, 40), (210, 180))
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    (frame,) = [r for r in answer.value.json()["result"] if r["type"] == "rectanglelabels"]
    page.context.close()
    mask_HW = home.store.masks.get(imported.stored(item).mask)
    rows, columns = np.nonzero(mask_HW != IGNORE)
    assert abs(columns.min() - 50) <= 2, frame
    assert abs(columns.max() - 209) <= 2, frame
    assert abs(rows.min() - 40) <= 2, frame
    assert abs(rows.max() - 179) <= 2, frame
    tile = tiles_of(2 * H, 2 * W, imported.assay.tiling)[0]
    before_HW = imported.masks[item.image_id][tile.slices]
    inside = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    np.testing.assert_array_equal(mask_HW[inside], before_HW[inside])


def test_corrected_reported_by_well_and_exported(imported: Imported, tmp_path: Path) -> None:
    home, store = imported.home, imported.home.store
    image_id = list(imported.masks)[1]
    items = [Item(image_id=image_id, tile=tile) for tile in range(4)]
    for item in items:
        shown, _ = imported.shown(item)
        regions = prediction_result(imported.truth_of(item), imported.assay)
        home.label_studio.create_annotation(imported.task_of(item), regions, 90.0, shown)
    assert {imported.stored(item).parent_version for item in items} == {
        store.imported.get(NAME, image_id).version
    }  # type: ignore[union-attr]

    # a cycle, and the report of it
    submit_reference(home, imported.assay, imported.truth, HELD_OUT, 2, quiet)
    policy = TrainerPolicy(contest=ContestPolicy(min_groups=3, min_class_groups=1), methods=("cdl",))
    runner = Trainer(home.settings, policy, preset="smoke")
    try:
        cycle_id = store.cycles.ask(NAME, "test")
        outcome = runner.run_one(cycle_id)
        page = runner.report_path(cycle_id)
    finally:
        runner.close()
    assert outcome.outcome in ("promoted", "kept"), outcome.reason
    assert page is not None
    assert "The plate, well by well" in page.read_text(encoding="utf-8")
    wells = {
        one["well"]: one
        for one in json.loads((page.parent / "report.json").read_text(encoding="utf-8"))["wells"]
    }
    assert len(wells) == 8
    record = store.images.get(NAME, image_id)
    mine = wells[record.well]
    assert (mine["plate"], mine["split"], mine["items"]) == ("rosella-s3-p1", "train", 8)
    assert mine["corrected"] >= 4
    assert mine["minutes"] >= 6.0
    judged = [one for one in wells.values() if one["split"] != "train"]
    assert judged
    assert all(0 < one["mean_iou"] < 1 for one in judged if one["corrected"])
    # the masks from elsewhere are told as such, and no model is blamed for them
    assert {one.start for one in outcome.corrected if one.image_id == image_id} == {"imported"}

    # and out again: the very masks, whose they are, and where on the plate
    summary = export(home, imported.assay, tmp_path / "png", "png", "corrected", lambda *_: None)
    assert summary.whole_images >= 1
    whole_HW = read_mask(tmp_path / "png" / "masks" / f"{image_id}.png")
    np.testing.assert_array_equal(whole_HW, read_mask(imported.plate / "labels" / f"{image_id}.png"))
    with (tmp_path / "png" / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["image_id"] == image_id]
    assert [(row["well"], row["field"], row["minutes"], row["pixel_size_um"]) for row in rows] == [
        (record.well, record.field, "1.50", "0.2152")
    ] * 4
    assert all(row["begun_with"].startswith("imported-") for row in rows)
    export(home, imported.assay, tmp_path / "coco", "coco", "corrected", lambda *_: None)
    document = json.loads((tmp_path / "coco" / "coco.json").read_text(encoding="utf-8"))
    (image,) = [one for one in document["images"] if one["cytoloop_image_id"] == image_id]
    again_HW = np.zeros((2 * H, 2 * W), np.uint8)
    for one in document["annotations"]:
        if one["image_id"] == image["id"]:
            again_HW[decode(one["segmentation"])] = one["category_id"]
    np.testing.assert_array_equal(again_HW, whole_HW)
