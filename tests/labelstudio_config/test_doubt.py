"""The doubt map of an item: a file at a path that never changes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image
from tiny import Tiny, make_tiny

from cytoloop.domain.display import rgb_of
from cytoloop.domain.doubt_picture import UNSURE
from cytoloop.domain.errors import ShapeError
from cytoloop.domain.types import ImageRecord, Item
from labelstudio_config.doubt import (
    doubt_folder,
    doubt_name,
    doubt_url,
    ensure_doubts,
    notice_picture,
    withdraw_doubts,
)
from labelstudio_config.project import set_up_project
from labelstudio_config.renders import render_doubts, render_folder, render_images, view_names

SIZE = (32, 40)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    yield made
    made.store.close()


def path_of(tiny: Tiny, record: ImageRecord, tile: int) -> Path:
    return doubt_folder(tiny.home, tiny.name) / doubt_name(record, tile)


def pixels(path: Path) -> np.ndarray:  # type: ignore[type-arg]
    with Image.open(path) as picture:
        return np.asarray(picture)


def doubted(
    record: ImageRecord, tile: int, doubt: float = 1.0
) -> tuple[ImageRecord, int, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return record, tile, np.full(SIZE, doubt, np.float32), np.zeros(SIZE, np.uint8)


def is_notice(path: Path, word: str) -> bool:
    return path.is_symlink() and path.resolve().name == f"{word}_32x40.png" and pixels(path).shape == SIZE


def records(tiny: Tiny) -> list[ImageRecord]:
    return tiny.store.images.all(tiny.name)


def test_after_import_every_task_shows_a_notice_of_its_items_size(tiny: Tiny) -> None:
    for record in records(tiny):
        for tile in range(4):
            data = tiny.studio.tasks[tiny.task_of(Item(image_id=record.image_id, tile=tile))]["data"]
            assert data["doubt"] == doubt_url(record, tile, tiny.assay)
            below_root = parse_qs(urlsplit(data["doubt"]).query)["d"][0]
            path = tiny.home / "renders" / below_root
            assert path == path_of(tiny, record, tile)
            assert is_notice(path, "none")


def test_a_map_takes_the_place_of_what_was_shown_and_the_notice_stays_whole(tiny: Tiny) -> None:
    first, second = records(tiny)
    assert render_doubts(tiny.store, tiny.assay, [doubted(first, 1)]) == 1
    assert (pixels(path_of(tiny, first, 1)) == rgb_of(UNSURE)).all()
    assert not path_of(tiny, first, 1).is_symlink()
    assert is_notice(path_of(tiny, first, 2), "none"), "other items keep what they show"
    assert is_notice(path_of(tiny, second, 1), "none")
    render_doubts(tiny.store, tiny.assay, [doubted(first, 1, 0.0)])
    grey = pixels(path_of(tiny, first, 1))
    assert grey.max() <= 102, "0.4 of white"
    assert not np.ptp(grey, axis=2).any()


def test_the_map_lies_over_the_item_as_the_editor_shows_it(tiny: Tiny) -> None:
    record = records(tiny)[0]
    render_doubts(tiny.store, tiny.assay, [doubted(record, 3, 0.0)])
    composite = pixels(render_folder(tiny.home, tiny.name) / view_names(record, 3, 2)[0])
    expected = 0.4 * (composite @ np.array((0.299, 0.587, 0.114)))
    np.testing.assert_allclose(pixels(path_of(tiny, record, 3))[..., 0], expected, atol=0.6)


def test_a_hidden_item_shows_no_doubt_whatever_is_given_for_it(tiny: Tiny) -> None:
    first, second = records(tiny)
    hidden = {Item(image_id=first.image_id, tile=0), Item(image_id=second.image_id, tile=2)}
    shown = render_doubts(tiny.store, tiny.assay, [doubted(first, 0), doubted(first, 1)], hidden)
    assert shown == 1
    assert is_notice(path_of(tiny, first, 0), "hidden")
    assert is_notice(path_of(tiny, second, 2), "hidden"), "also where no doubt came for it"
    assert (pixels(path_of(tiny, first, 1)) == rgb_of(UNSURE)).all()


def test_what_was_shown_is_hidden_before_the_first_new_map_is_made(tiny: Tiny) -> None:
    first, _ = records(tiny)
    render_doubts(tiny.store, tiny.assay, [doubted(first, 0)])

    def failing() -> Iterator[tuple[ImageRecord, int, np.ndarray, np.ndarray]]:  # type: ignore[type-arg]
        raise ShapeError("no prediction")
        yield

    with pytest.raises(ShapeError, match="no prediction"):
        render_doubts(tiny.store, tiny.assay, failing(), {Item(image_id=first.image_id, tile=0)})
    assert is_notice(path_of(tiny, first, 0), "hidden")


def test_withdrawn_maps_give_way_to_the_notice_and_hidden_items_stay_hidden(tiny: Tiny) -> None:
    first, second = records(tiny)
    render_doubts(
        tiny.store,
        tiny.assay,
        [doubted(first, 0), doubted(second, 3)],
        {Item(image_id=first.image_id, tile=2)},
    )
    assert withdraw_doubts(tiny.home, tiny.assay) == 2
    assert is_notice(path_of(tiny, first, 0), "none")
    assert is_notice(path_of(tiny, second, 3), "none")
    assert is_notice(path_of(tiny, first, 2), "hidden")
    assert withdraw_doubts(tiny.home, tiny.assay) == 0
    assert {path.name for path in doubt_folder(tiny.home, tiny.name).iterdir() if not path.is_symlink()} == {
        "none_32x40.png",
        "hidden_32x40.png",
    }, "nothing half made is left"


def test_nothing_is_withdrawn_where_nothing_was_imported(tiny: Tiny) -> None:
    shutil.rmtree(render_folder(tiny.home, tiny.name))
    assert withdraw_doubts(tiny.home, tiny.assay) == 0


def test_views_that_were_deleted_come_back_with_their_notices(tiny: Tiny) -> None:
    shutil.rmtree(render_folder(tiny.home, tiny.name))
    render_images(tiny.store, tiny.assay, records(tiny))
    assert all(
        is_notice(path_of(tiny, record, tile), "none") for record in records(tiny) for tile in range(4)
    )
    shutil.rmtree(render_folder(tiny.home, tiny.name))
    assert render_doubts(tiny.store, tiny.assay, [doubted(records(tiny)[0], 0)]) == 1


def test_a_map_that_is_shown_survives_a_second_import(tiny: Tiny) -> None:
    record = records(tiny)[0]
    render_doubts(tiny.store, tiny.assay, [doubted(record, 0)])
    before = path_of(tiny, record, 0).read_bytes()
    ensure_doubts(tiny.home, tiny.assay, record)
    assert path_of(tiny, record, 0).read_bytes() == before


def test_images_of_equal_pixels_have_maps_of_their_own(tiny: Tiny) -> None:
    record = records(tiny)[0]
    twin = dataclasses.replace(record, image_id="twin/ä 1")
    names = {doubt_name(image, tile) for image in (record, twin) for tile in range(4)}
    assert len(names) == 8
    assert all(name.isascii() and "/" not in name and " " not in name for name in names)


def test_an_error_names_the_item(tiny: Tiny) -> None:
    record = records(tiny)[0]
    small = (record, 2, np.zeros((3, 4), np.float32), np.zeros((3, 4), np.uint8))
    with pytest.raises(ShapeError, match=rf"doubt of {record.image_id}/2: doubt \(3, 4\)"):
        render_doubts(tiny.store, tiny.assay, [small])
    assert is_notice(path_of(tiny, record, 2), "none")


def test_a_notice_has_words_where_they_can_be_read() -> None:
    for notice in ("none", "hidden"):
        readable = notice_picture(notice, 256, 340)
        assert (readable.shape, readable.dtype) == ((256, 340), np.uint8)
        assert readable.max() > 150
        assert not np.ptp(notice_picture(notice, 32, 40)), "too small for words: plain"
    assert not np.array_equal(notice_picture("none", 256, 340), notice_picture("hidden", 256, 340))


def test_a_small_notice_is_large_enough_for_the_editor(tiny: Tiny) -> None:
    """It calls pictures of less than 100 bytes broken."""
    assert path_of(tiny, records(tiny)[0], 0).stat().st_size >= 100


class Older:
    """Label Studio with a project of a time when tasks had no doubt map."""

    def __init__(self, tiny: Tiny) -> None:
        self._tiny = tiny
        self.done: list[str] = []
        for task in tiny.studio.tasks.values():
            del task["data"]["doubt"]

    def get_project(self, project_id: int) -> dict[str, object]:
        return {"id": project_id}

    def tasks_lacking(self, project_id: int, key: str) -> list[dict[str, object]]:
        return [task for task in self._tiny.studio.tasks.values() if key not in task["data"]]

    def set_task_data(self, task_id: int, data: dict[str, object]) -> None:
        self.done.append("task")
        self._tiny.studio.tasks[task_id]["data"] = data

    def update_project(self, project_id: int, **fields: object) -> None:
        self.done.append("config")

    def ensure_local_storage(self, project_id: int, path: str, title: str) -> int:
        return 1


def test_tasks_of_an_older_project_get_their_map_before_the_config_shows_it(tiny: Tiny) -> None:
    complete = {number: dict(task["data"]) for number, task in tiny.studio.tasks.items()}
    label_studio = Older(tiny)
    tiny.studio.tasks[1]["data"]["note"] = "of the lab"
    strange = tiny.studio.add_task({"image": "/x.png", "item": ["x"]})
    shutil.rmtree(doubt_folder(tiny.home, tiny.name))
    set_up_project(label_studio, tiny.store, tiny.assay)  # type: ignore[arg-type]
    assert label_studio.done == ["task"] * 8 + ["config"]
    complete[1]["note"] = "of the lab"
    complete[strange] = {"image": "/x.png", "item": ["x"]}
    assert {number: task["data"] for number, task in tiny.studio.tasks.items()} == complete
    assert all(
        is_notice(path_of(tiny, record, tile), "none") for record in records(tiny) for tile in range(4)
    )
    label_studio.done.clear()
    set_up_project(label_studio, tiny.store, tiny.assay)  # type: ignore[arg-type]
    assert label_studio.done == ["config"]
