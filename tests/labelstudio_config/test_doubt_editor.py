"""The doubt map in the real editor: shown, hidden, replaced; the picture that is drawn on is whole."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from editor import Editor, log_in
from PIL import Image
from tiny import Tiny, make_tiny

from cytoloop.domain.types import ImageRecord, Item
from labelstudio_config.doubt import withdraw_doubts
from labelstudio_config.payloads import correction_from_annotation, parse_task_data, prediction
from labelstudio_config.renders import render_doubts
from labelstudio_config.schema import labeling_config

pytestmark = [pytest.mark.studio, pytest.mark.browser, pytest.mark.timeout(300)]

H, W = 32, 40
VERSION = "cdl-20260101-00000001"


@pytest.fixture
def tiny(tmp_path: Path, studio: Any) -> Iterator[Tiny]:
    """A home whose views lie where Label Studio serves files."""
    made = make_tiny(tmp_path, wells=1)
    renders = made.home / "renders"
    served = studio.document_root / made.name
    shutil.copytree(renders / made.name, served, symlinks=True)
    shutil.rmtree(renders)
    renders.symlink_to(studio.document_root)
    yield made
    made.store.close()
    shutil.rmtree(served)


def older_config(config: str) -> str:
    """A labeling config of a time when there was no doubt map."""
    root = ET.fromstring(config)
    for parent in list(root.iter()):
        for image in [child for child in parent if child.get("name") == "doubt"]:
            parent.remove(image)
    return ET.tostring(root, encoding="unicode")


def shown(page: Any) -> np.ndarray:  # type: ignore[type-arg]
    """Mean colour of the doubt map on the screen: the last picture."""
    box = page.locator("img[alt=image]").last.bounding_box()
    shot = np.array(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)
    rows = slice(int(box["y"]) + 3, int(box["y"] + box["height"]) - 3)
    columns = slice(int(box["x"]) + 3, int(box["x"] + box["width"]) - 3)
    colour: np.ndarray = shot[rows, columns].mean(axis=(0, 1))  # type: ignore[type-arg]
    return colour


def test_the_doubt_map_is_shown_beside_the_picture_and_a_new_one_after_a_reload(
    tiny: Tiny, studio: Any, chromium_page: Callable[..., Any]
) -> None:
    client, items = studio.client, tiny.items()
    record: ImageRecord = tiny.store.images.all(tiny.name)[0]
    config = labeling_config(tiny.assay)
    documents = [tiny.studio.tasks[tiny.task_of(item)]["data"] for item in items]

    # a project of an earlier release, with work in it, is brought into shape
    project = client.create_project("cytoloop doubt", older_config(config))
    client.ensure_local_storage(project, str(studio.document_root / tiny.name), "views")
    without = [{key: value for key, value in data.items() if key != "doubt"} for data in documents]
    tasks = client.import_tasks(project, without)
    client.create_annotation(tasks[3], tiny.regions(items[3]))
    lacking = client.tasks_lacking(project, "doubt")
    assert [(task["id"], task["data"]) for task in lacking] == list(zip(tasks, without, strict=True))
    for task_id, data in zip(tasks, documents, strict=True):
        client.set_task_data(task_id, data)
    assert client.tasks_lacking(project, "doubt") == []
    client.update_project(project, label_config=config)
    assert client.get_task(tasks[3])["annotations"][0]["result"] == tiny.regions(items[3])
    client.push_predictions(
        project,
        [
            prediction(task, tiny.regions(item), 0.1 + 0.1 * number, VERSION)
            for number, (task, item) in enumerate(zip(tasks, items, strict=True))
        ],
    )
    client.set_model_version(project, VERSION)
    view = client.ensure_view(project, "Worklist a", tasks[:3], ("tasks:predictions_score",))

    page = chromium_page(viewport={"width": 1280, "height": 800})
    log_in(page, studio.server.url, studio.server.username, studio.server.password)
    page.goto(f"{studio.server.url}/projects/{project}/data?tab={view}&labeling=1")
    editor = Editor(page, W, H)

    # what is seen: the notice; the picture to draw on is large and whole, the others do not reach into it
    boxes = [image.bounding_box() for image in page.locator("img[alt=image]").all()]
    assert len(boxes) == 4
    frame = page.locator(".lsf-image").first.bounding_box()
    assert boxes[0] == pytest.approx(frame, abs=1.0), "nothing of the item is cut off"
    assert boxes[0]["width"] > 640
    assert all(box["x"] > boxes[0]["x"] + boxes[0]["width"] for box in boxes[1:])
    assert boxes[3]["y"] + boxes[3]["height"] < 750, "without scrolling"
    np.testing.assert_allclose(shown(page), 52, atol=6)

    # a version comes into force, and another
    def show(tile: int, doubt: float, hidden: tuple[Item, ...] = ()) -> None:
        doubt_HW, mask_HW = np.full((H, W), doubt, np.float32), np.zeros((H, W), np.uint8)
        render_doubts(tiny.store, tiny.assay, [(record, tile, doubt_HW, mask_HW)], hidden)

    first = items[0].tile
    show(first, 1.0)
    page.reload()
    editor = Editor(page, W, H)
    red, green, blue = shown(page)
    assert red > 230
    assert green > 210
    assert blue < 90
    show(first, 0.0)
    page.reload()
    editor = Editor(page, W, H)
    assert shown(page).max() < 60
    show(first, 1.0, (items[0],))
    page.reload()
    editor = Editor(page, W, H)
    np.testing.assert_allclose(shown(page), 52, atol=6, err_msg="hidden: the notice again")

    # painting is as before
    page.click('.lsf-outliner-item:has-text("Nucleus")')
    page.keyboard.press("b")
    editor.stroke((3.5, 2.5), (36.5, 2.5))  # through the middle of pixels: a pixel is larger than the brush
    show(items[1].tile, 1.0)  # while the expert is at work, before this item was opened
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    said = answer.value.json()
    data = parse_task_data(client.get_task(said["task"])["data"], "task")
    assert data.doubt == documents[0]["doubt"]
    correction = correction_from_annotation(said, said["task"], data, tiny.assay, H, W, "a@b.c", VERSION)
    assert correction.image_id == items[0].image_id
    assert (correction.mask_HW[2, 4:36] == 2).all()
    below = slice(12, None)
    assert np.array_equal(correction.mask_HW[below], tiny.truth_of(items[0])[below])

    # the next item shows its map at once
    page.wait_for_timeout(500)
    Editor(page, W, H)
    assert shown(page)[0] > 230
    assert withdraw_doubts(tiny.home, tiny.assay) == 1
    page.reload()
    Editor(page, W, H)
    np.testing.assert_allclose(shown(page), 52, atol=6)
    page.context.close()
    client.delete_project(project)
