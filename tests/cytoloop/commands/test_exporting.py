"""``cytoloop export``: the masks that stand, whose they are, and nothing else."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import HEIGHT, WIDTH, Tiny, make_tiny

from cytoloop.adapters.images import read_mask
from cytoloop.commands.exporting import ExportSummary, export
from cytoloop.commands.home import Home
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.coco import decode
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import InputError, StateError
from cytoloop.domain.types import Item


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    made = make_tiny(tmp_path)
    made.publish_active()
    made.listen()
    return made


def run(tiny: Tiny, out: Path, format_: str = "png", which: str = "corrected") -> ExportSummary:
    home = Home(tiny.settings)
    try:
        return export(home, tiny.assay, out, format_, which, lambda *_: None)  # type: ignore[arg-type]
    finally:
        home.close()


def correct(tiny: Tiny, *items: tuple[str, int]) -> None:
    for image_id, tile in items:
        tiny.correct(Item(image_id=image_id, tile=tile))
    tiny.intake.drain()


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "index.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_each_corrected_item_and_each_whole_image_is_a_mask(tiny: Tiny, tmp_path: Path) -> None:
    correct(tiny, ("P-A01", 0), ("P-A01", 1), ("P-A01", 2), ("P-A01", 3), ("P-A02", 2))
    summary = run(tiny, tmp_path / "out")
    assert (summary.items, summary.corrected, summary.images, summary.whole_images) == (5, 5, 2, 1)
    out = tmp_path / "out"
    assert [p.name for p in (out / "masks").iterdir()] == ["P-A01.png"]
    np.testing.assert_array_equal(read_mask(out / "masks" / "P-A01.png"), tiny.truth["P-A01"])
    item_HW = read_mask(out / "items" / "P-A02_t2.png")
    np.testing.assert_array_equal(item_HW, tiny.truth_of(Item(image_id="P-A02", tile=2)))


def test_a_line_an_item_says_whose_it_is(tiny: Tiny, tmp_path: Path) -> None:
    correct(tiny, ("P-A02", 2))
    run(tiny, tmp_path / "out")
    (row,) = rows_of(tmp_path / "out")
    standing = tiny.standing(Item(image_id="P-A02", tile=2))
    assert (row["image_id"], row["tile"], row["plate"], row["well"]) == ("P-A02", "2", "P", "A02")
    assert (row["row_start"], row["column_start"], row["height"], row["width"]) == ("32", "0", "32", "40")
    assert (row["source"], row["expert"]) == ("correction", standing.expert)
    assert row["annotated_at"] == standing.annotated_at.isoformat()
    assert (row["revision"], row["annotation_id"]) == ("1", str(standing.annotation_id))
    assert row["begun_with"] == (standing.parent_version or "")
    assert row["minutes"] == f"{standing.lead_time_s / 60:.2f}"
    assert row["split"] == tiny.split_of(Item(image_id="P-A02", tile=2))
    assert row["mask_digest"] == digest_of_pixels(read_mask(tmp_path / "out" / row["file"]))
    note = json.loads((tmp_path / "out" / "provenance.json").read_text(encoding="utf-8"))
    assert (note["assay"], note["assay_digest"]) == ("tiny", tiny.assay.digest)
    assert note["classes"] == {"0": "Background", "1": "Cytoplasm", "2": "Nucleus", "255": "Ignore"}
    assert (note["complete"], note["active_version"]) == (True, tiny.active())


def test_the_mask_that_stands_is_written_and_a_deleted_one_goes(tiny: Tiny, tmp_path: Path) -> None:
    item = Item(image_id="P-A01", tile=0)
    correct(tiny, ("P-A01", 0), ("P-A03", 1))
    annotation = tiny.studio.annotate(tiny.task_of(item), [])  # the same expert draws nothing
    tiny.intake.drain()
    out = tmp_path / "out"
    run(tiny, out)
    assert not read_mask(out / "items" / "P-A01_t0.png").any()
    tiny.studio.delete_annotation(annotation)
    tiny.intake.drain()
    run(tiny, out)
    np.testing.assert_array_equal(read_mask(out / "items" / "P-A01_t0.png"), tiny.truth_of(item))


def test_all_fills_the_rest_with_the_version_in_force(tiny: Tiny, tmp_path: Path) -> None:
    correct(tiny, ("P-A01", 0))
    summary = run(tiny, tmp_path / "out", which="all")
    assert (summary.items, summary.corrected, summary.images, summary.whole_images) == (16, 1, 4, 4)
    mask_HW = read_mask(tmp_path / "out" / "masks" / "P-A01.png")
    assert mask_HW.shape == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(mask_HW[:32, :40], tiny.truth["P-A01"][:32, :40])
    rows = rows_of(tmp_path / "out")
    assert {(row["source"], row["begun_with"]) for row in rows if row["image_id"] == "P-A04"} == {
        ("prediction", tiny.active())
    }


def test_coco_holds_every_object_and_tiles_nobody_drew_are_crowds(tiny: Tiny, tmp_path: Path) -> None:
    correct(tiny, ("P-A01", 0), ("P-A01", 3))
    summary = run(tiny, tmp_path / "out", format_="coco")
    document = json.loads((tmp_path / "out" / "coco.json").read_text(encoding="utf-8"))
    (image,) = document["images"]
    assert (image["height"], image["width"], image["well"]) == (HEIGHT, WIDTH, "A01")
    assert image["file_name"] == "P-A01_c0.png"
    assert [c["name"] for c in document["categories"]] == ["Cytoplasm", "Nucleus"]
    assert len({one["id"] for one in document["annotations"]}) == len(document["annotations"])
    assert summary.objects == 4
    again_HW = np.zeros((HEIGHT, WIDTH), np.uint8)
    for one in document["annotations"]:
        again_HW[decode(one["segmentation"])] = IGNORE if one["iscrowd"] else one["category_id"]
    expected_HW = np.full((HEIGHT, WIDTH), IGNORE, np.uint8)
    expected_HW[:32, :40], expected_HW[32:, 40:] = (
        tiny.truth["P-A01"][:32, :40],
        tiny.truth["P-A01"][32:, 40:],
    )
    np.testing.assert_array_equal(again_HW, expected_HW)
    assert not (tmp_path / "out" / "items").exists()


def test_nothing_corrected_is_nothing_to_export(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="assay 'tiny': no correction to export yet"):
        run(tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_id_that_leads_elsewhere_is_refused_before_the_first_file(tiny: Tiny, tmp_path: Path) -> None:
    correct(tiny, ("P-A01", 0))
    with tiny.store.transaction():
        db = tiny.store.images._file.db
        db.execute("PRAGMA defer_foreign_keys = ON")
        for table in ("images", "items", "corrections", "leases", "item_roles", "weak_labels"):
            db.execute(f"UPDATE {table} SET image_id = '../../P-A01' WHERE image_id = 'P-A01'")
    with pytest.raises(InputError, match=r"image id '\.\./\.\./P-A01' cannot be the name of a file"):
        run(tiny, tmp_path / "out")
    assert not (tmp_path / "out").exists()
