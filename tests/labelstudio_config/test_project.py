from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Tiny, add_plate, make_tiny, write_fields

from cytoloop.domain.errors import ConfigError
from labelstudio_config.project import connect, import_tasks


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path, wells=2)
    made.listen()
    yield made
    made.store.close()


def bring_in(tiny: Tiny) -> int:
    return import_tasks(tiny.studio, tiny.store, tiny.assay)  # type: ignore[arg-type]


def test_what_is_imported_is_not_imported_again(tiny: Tiny) -> None:
    assert bring_in(tiny) == 0
    assert len(tiny.studio.tasks) == 8


def test_tasks_carry_who_they_are(tiny: Tiny) -> None:
    for record in tiny.store.images.all(tiny.name):
        for tile in range(4):
            item = next(i for i in tiny.items() if (i.image_id, i.tile) == (record.image_id, tile))
            data = tiny.studio.tasks[tiny.task_of(item)]["data"]
            assert (data["image_id"], data["image_key"], data["tile"]) == (
                record.image_id,
                record.image_key,
                tile,
            )
            assert (data["plate"], data["well"]) == ("P", record.image_id[2:])


def test_a_deleted_task_is_made_again(tiny: Tiny) -> None:
    item = tiny.items()[2]
    tiny.studio.delete_task(tiny.task_of(item))
    tiny.intake.drain()
    assert bring_in(tiny) == 1
    assert tiny.studio.tasks[tiny.task_of(item)]["data"]["item"] == f"{item.image_id}/{item.tile}"


def test_an_interrupted_import_gives_no_item_two_tasks(tiny: Tiny) -> None:
    lost = tiny.items()[5]
    task_id = tiny.task_of(lost)
    tiny.store.images.forget_tasks(tiny.name, [task_id])
    assert bring_in(tiny) == 0
    assert tiny.task_of(lost) == task_id
    assert len(tiny.studio.tasks) == 8


def test_tasks_that_others_made_are_left_alone(tiny: Tiny) -> None:
    lost = tiny.items()[5]
    tiny.studio.delete_task(tiny.task_of(lost))
    tiny.intake.drain()
    for data in ({"image": "/x.png"}, {"image_id": lost.image_id, "tile": "left"}, {"image_id": ["x"]}):
        tiny.studio.add_task(data)
    assert bring_in(tiny) == 1


def test_a_task_id_that_label_studio_gives_anew_is_taken_from_its_old_item(
    tiny: Tiny, tmp_path: Path
) -> None:
    """A task was deleted while nobody listened, and the next import gets its id."""
    last = max(tiny.items(), key=tiny.task_of)
    reused = tiny.task_of(last)
    tiny.correct(last)
    tiny.intake.drain()
    tiny.studio.listener = None
    tiny.studio.delete_task(reused)
    write_fields(tmp_path / "more", ["C01"])
    add_plate(tiny, tmp_path / "more")
    assert reused in tiny.studio.tasks
    for item in tiny.items():
        assert tiny.studio.tasks[tiny.task_of(item)]["data"]["item"] == f"{item.image_id}/{item.tile}"
    assert tiny.standing(last) is None, "its annotation went with its task"


@pytest.mark.parametrize("url", ["http://backend:9090", "http://backend"])
def test_a_backend_whose_events_label_studio_would_refuse_is_told_before(tiny: Tiny, url: str) -> None:
    settings = replace(tiny.settings, backend_url=url)
    with pytest.raises(ConfigError, match=rf"CYTOLOOP_BACKEND_URL is '{url}': .*a host name without a dot"):
        connect(tiny.studio, tiny.store, tiny.assay, settings)  # type: ignore[arg-type]


def test_a_backend_that_is_not_set_is_named(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="CYTOLOOP_BACKEND_URL, CYTOLOOP_BACKEND_PASSWORD"):
        connect(tiny.studio, tiny.store, tiny.assay, replace(tiny.settings, backend_url=None))  # type: ignore[arg-type]
