"""Masks from elsewhere: checked before anything is kept, shown in the editor, and credited to no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from tiny import HEIGHT, WIDTH, Tiny, make_tiny

from cytoloop.adapters.images import write_mask
from cytoloop.adapters.mask_folder import MaskFile, masks_of
from cytoloop.domain.assay import IGNORE
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.errors import ImageUnreadable, InputError, PlateError, ShapeError
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item
from cytoloop.pipeline.weak_labels import weak_confidences, weak_masks
from labelstudio_config import imported
from labelstudio_config.imported import check_masks, put_masks, show_masks
from labelstudio_config.payloads import drawn_mask
from labelstudio_config.publish import publish
from trainer.deltas import corrected_items, start_of

ITEM = Item(image_id="P-A03", tile=1)
"""Of a well that teaches."""


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make_tiny(tmp_path)


def files_of(tiny: Tiny, folder: Path) -> list[MaskFile]:
    return masks_of(folder, tiny.store.images.all(tiny.name))


def write_masks(folder: Path, **masks: NDArray[np.uint8]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, mask_HW in masks.items():
        write_mask(folder / f"{name.replace('_', '-')}.png", mask_HW)
    return folder


def another(tiny: Tiny, image_id: str = "P-A01") -> NDArray[np.uint8]:
    """Neither the truth nor what any version says: shifted, and with a corner that nobody looked at."""
    mask_HW = np.roll(tiny.truth[image_id], 3, axis=1)
    mask_HW[:5, :7] = IGNORE
    return mask_HW


def bring(tiny: Tiny, folder: Path) -> str | None:
    files = files_of(tiny, folder)
    brought = put_masks(tiny.store, tiny.assay, files, check_masks(files, tiny.assay))
    tiny.store.imported.add(tiny.name, brought)
    return brought[0].version if brought else None


def shown(tiny: Tiny, item: Item) -> NDArray[np.uint8]:
    """What the editor shows of an item."""
    document = tiny.studio.predictions[tiny.prediction_of(item)]
    return drawn_mask(document["result"], tiny.assay, (32, 40), "test").mask_HW


def tile_of(mask_HW: NDArray[np.uint8], item: Item) -> NDArray[np.uint8]:
    return mask_HW[tiles_of(HEIGHT, WIDTH, (2, 2))[item.tile].slices]


def recipe(tiny: Tiny) -> tuple[str, str]:
    return recipe_digest(tiny.assay.cip), CODE_VERSION


# --- checked first -----------------------------------------------------------------------------------------


def test_masks_are_found_by_the_ids_of_their_images(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A03=another(tiny), P_A01=another(tiny))
    tifffile.imwrite(folder / "P-A02.tif", another(tiny))
    (folder / "notes.txt").write_text("mine")
    assert [file.record.image_id for file in files_of(tiny, folder)] == ["P-A01", "P-A02", "P-A03"]


def test_a_mask_of_no_image_is_told(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A01=another(tiny), P_B07=another(tiny))
    with pytest.raises(
        PlateError, match=r"m: P-B07\.png: no image of that id .* expected names like P-A01\.png"
    ):
        files_of(tiny, folder)
    (tmp_path / "none").mkdir()
    with pytest.raises(PlateError, match=r"none: no mask, expected <image_id>\.png"):
        files_of(tiny, tmp_path / "none")


def test_a_mask_that_lies_elsewhere_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A01=another(tiny))
    (folder / "P-A01.png").rename(tmp_path / "secret.png")
    (folder / "P-A01.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(PlateError, match=r"P-A01\.png: leads to .*secret\.png, out of"):
        files_of(tiny, folder)


def test_two_masks_of_one_image_are_told(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A01=another(tiny))
    tifffile.imwrite(folder / "P-A01.tif", another(tiny))
    with pytest.raises(PlateError, match=r"P-A01\.tif: P-A01\.png is a mask of that image too"):
        files_of(tiny, folder)


def test_another_size_or_class_is_told_with_its_file(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A01=np.zeros((WIDTH, HEIGHT), np.uint8))
    with pytest.raises(ShapeError, match=r"P-A01\.png: mask \(80, 64\), its image 'P-A01' is \(64, 80\)"):
        bring(tiny, folder)
    write_masks(folder, P_A01=np.full((HEIGHT, WIDTH), 7, np.uint8))
    with pytest.raises(ShapeError, match=r"P-A01\.png: mask holds values \[7\], expected 0…2 or 255"):
        bring(tiny, folder)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "P-A01.png")
    with pytest.raises(ImageUnreadable, match=r"P-A01\.png: a RGB picture, expected an 8-bit index image"):
        bring(tiny, folder)
    assert tiny.store.imported.latest(tiny.name) == {}


def test_a_mask_that_does_not_come_back_is_refused(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_masks(tmp_path / "m", P_A01=another(tiny))
    whole = imported.prediction_result
    monkeypatch.setattr(imported, "prediction_result", lambda mask_HW, assay: whole(mask_HW, assay)[1:])
    with pytest.raises(
        InputError, match=r"P-A01\.png: tile 0: \d+ pixels come back .* as others, expected none"
    ):
        check_masks(files_of(tiny, folder), tiny.assay)


def test_a_file_that_changes_meanwhile_leaves_no_trace(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A01=another(tiny), P_A02=another(tiny, "P-A02"))
    files = files_of(tiny, folder)
    digests = check_masks(files, tiny.assay)
    write_masks(folder, P_A02=tiny.truth["P-A02"])
    with pytest.raises(InputError, match=r"P-A02\.png: was changed while it was imported"):
        put_masks(tiny.store, tiny.assay, files, digests)
    assert tiny.store.imported.latest(tiny.name) == {}


# --- shown, and credited to nobody ---------------------------------------------------------------------------


def test_an_item_shows_the_imported_mask(tiny: Tiny, tmp_path: Path) -> None:
    version = bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    assert version is not None
    assert version.startswith("imported-")
    tiny.publish_active()
    np.testing.assert_array_equal(shown(tiny, ITEM), tile_of(another(tiny, "P-A03"), ITEM))
    other = Item(image_id="P-A04", tile=1)
    assert (shown(tiny, other) != tile_of(another(tiny, "P-A03"), other)).any()


def test_an_item_that_is_to_be_judged_on_cips_mask_shows_that(tiny: Tiny, tmp_path: Path) -> None:
    bring(tiny, write_masks(tmp_path / "m", P_A01=another(tiny)))
    tiny.publish_active()
    roles = tiny.store.leases.roles(tiny.name, tiny.held())
    item = next(item for item, role in roles.items() if role.canvas == "cip")
    assert item.image_id == "P-A01"
    cip_HW = tiny.store.masks.get(tiny.store.images.weak_labels(tiny.name, *recipe(tiny))["P-A01"])
    np.testing.assert_array_equal(shown(tiny, item), tile_of(cip_HW, item))
    tiny.listen()
    tiny.correct(item, parent_prediction=tiny.prediction_of(item))
    tiny.intake.drain()
    assert tiny.standing(item).parent_version == tiny.active()  # CIP is in force


def test_what_is_shown_already_is_replaced(tiny: Tiny, tmp_path: Path) -> None:
    tiny.publish_active()
    before = tiny.prediction_of(ITEM)
    assert (shown(tiny, ITEM) != tile_of(another(tiny, "P-A03"), ITEM)).any()
    bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    assert show_masks(tiny.studio, tiny.store, tiny.assay, ["P-A03"]) == 4
    np.testing.assert_array_equal(shown(tiny, ITEM), tile_of(another(tiny, "P-A03"), ITEM))
    assert tiny.prediction_of(ITEM) == before  # an editor that is open began with it


def test_it_stays_when_a_model_is_promoted(tiny: Tiny, tmp_path: Path) -> None:
    bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    tiny.publish_active()
    publish(tiny.studio, tiny.store, tiny.assay, tiny.add_version("cdl-20240517-00000001"))
    np.testing.assert_array_equal(shown(tiny, ITEM), tile_of(another(tiny, "P-A03"), ITEM))


def test_a_correction_is_told_to_have_begun_with_the_import(tiny: Tiny, tmp_path: Path) -> None:
    version = bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    tiny.publish_active()
    tiny.listen()
    tiny.correct(ITEM, parent_prediction=tiny.prediction_of(ITEM))
    tiny.intake.drain()
    correction = tiny.standing(ITEM)
    assert correction.parent_version == version
    assert start_of(correction) == "imported"

    def no_model(version: str) -> None:
        raise AssertionError(f"{version} is no model")

    (told,), proposals = corrected_items(tiny.store, tiny.assay, [correction], no_model)  # type: ignore[arg-type]
    assert proposals == ()
    assert told.changes is not None
    added = np.count_nonzero((tile_of(another(tiny, "P-A03"), ITEM) == 0) & (tiny.truth_of(ITEM) > 0))
    assert told.changes.pixels_added == added


def test_what_was_finished_before_keeps_what_it_was_begun_with(tiny: Tiny, tmp_path: Path) -> None:
    tiny.publish_active()
    tiny.listen()
    prediction = tiny.prediction_of(ITEM)
    tiny.correct(ITEM, parent_prediction=prediction)
    tiny.intake.drain()
    bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    tiny.correct(ITEM, parent_prediction=prediction)
    tiny.intake.drain()
    assert tiny.standing(ITEM).revision == 2
    assert tiny.standing(ITEM).parent_version == tiny.active()
    tiles = {item.tile for item in tiny.store.imported.shown(tiny.name, tiny.items())}
    assert tiles == {0, 2, 3}


def test_a_later_import_does_not_take_from_a_finished_item_what_it_was_begun_with(
    tiny: Tiny, tmp_path: Path
) -> None:
    first = bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    tiny.publish_active()
    tiny.listen()
    prediction = tiny.prediction_of(ITEM)
    tiny.correct(ITEM, parent_prediction=prediction)
    tiny.intake.drain()
    second = bring(tiny, write_masks(tmp_path / "n", P_A03=another(tiny, "P-A01")))
    assert second != first
    tiny.correct(ITEM, parent_prediction=prediction)
    tiny.intake.drain()
    assert (tiny.standing(ITEM).revision, tiny.standing(ITEM).parent_version) == (2, first)
    shown_by = {
        i.tile: mask.version for i, mask in tiny.store.imported.shown(tiny.name, tiny.items()).items()
    }
    assert shown_by == {0: second, 1: first, 2: second, 3: second}


def test_models_learn_from_it_where_no_expert_looked(tiny: Tiny, tmp_path: Path) -> None:
    before = weak_masks(tiny.store, tiny.assay)
    bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    after = weak_masks(tiny.store, tiny.assay)
    assert {image_id for image_id in after if after[image_id] != before[image_id]} == {"P-A03"}
    np.testing.assert_array_equal(tiny.store.masks.get(after["P-A03"]), another(tiny, "P-A03"))


def test_a_vote_of_teachers_says_nothing_of_an_imported_mask(tiny: Tiny, tmp_path: Path) -> None:
    for record in tiny.store.images.all(tiny.name)[2:]:
        sure = tiny.store.masks.put(np.full((HEIGHT, WIDTH), 200, np.uint8))
        mask = tiny.store.masks.put(tiny.truth[record.image_id])
        tiny.store.images.add_weak_label(tiny.name, record, "cells2ch", *recipe(tiny), mask, sure)
    bring(tiny, write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03")))
    assert list(weak_confidences(tiny.store, tiny.assay)) == ["P-A04"]


def test_the_same_masks_again_are_nothing_new_and_the_latest_counts(tiny: Tiny, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "m", P_A03=another(tiny, "P-A03"))
    first = bring(tiny, folder)
    assert bring(tiny, folder) is None
    write_masks(folder, P_A03=tiny.truth["P-A03"])
    second = bring(tiny, folder)
    assert second not in (None, first)
    mask = tiny.store.imported.get(tiny.name, "P-A03")
    assert mask is not None
    assert mask.version == second
    np.testing.assert_array_equal(tiny.store.masks.get(mask.mask), tiny.truth["P-A03"])
    assert first is not None
    assert set(tiny.store.imported.of_version(tiny.name, first)) == {"P-A03"}
