"""Our labeling config in the real editor: what an expert sees, paints, erases and submits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from editor import Editor, log_in
from PIL import Image

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from labelstudio_config.payloads import (
    TaskData,
    confidence_of,
    correction_from_annotation,
    parse_task_data,
    prediction,
    prediction_result,
)
from labelstudio_config.schema import labeling_config

pytestmark = [pytest.mark.studio, pytest.mark.browser, pytest.mark.timeout(300)]

H, W = 256, 340
VERSION = "cip-20260101-00000001"
ASSAY = Assay(
    name="two channels",
    channels=(Channel(name="gal3 (lysosome)"), Channel(name="LC3")),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Phagophore", colour="#ff0000", hotkey="1"),
        LabelClass(name="Autolysosome", colour="#0000ff", hotkey="2"),
    ),
    ignore=LabelClass(name="Ignore", colour="#888888", hotkey="9"),
    cip=Cip(recipe="none"),
)


def spots() -> np.ndarray:
    """A mask with two red and two blue discs."""
    rows, columns = np.mgrid[:H, :W]
    mask_HW = np.zeros((H, W), np.uint8)
    for value, row, column in ((1, 60, 60), (1, 60, 280), (2, 200, 60), (2, 200, 280)):
        mask_HW[(rows - row) ** 2 + (columns - column) ** 2 < 15**2] = value
    return mask_HW


def test_an_expert_corrects_the_worklist_in_its_order(studio: Any, chromium_page: Callable[..., Any]) -> None:
    folder = studio.document_root / "editor"
    folder.mkdir()
    Image.new("RGB", (W, H), (30, 30, 30)).save(folder / "composite.png")
    Image.new("L", (W, H), 60).save(folder / "channel.png")
    client = studio.client
    project = client.create_project("cytoloop editor", labeling_config(ASSAY))
    client.ensure_local_storage(project, str(folder), "views")
    url = "/data/local-files/?d=editor/"
    tasks = client.import_tasks(
        project,
        [
            TaskData(
                image=f"{url}composite.png",
                channels=(f"{url}channel.png",) * 2,
                doubt=f"{url}channel.png",
                image_id=f"i{n}",
                image_key="ab",
                tile=0,
            ).document()
            for n in range(4)
        ],
    )
    result = prediction_result(spots(), ASSAY)
    scores = dict(zip(tasks, (1.0, 3.0, 2.0, 9.0), strict=True))
    client.push_predictions(
        project, [prediction(t, result, confidence_of(scores[t]), VERSION) for t in tasks]
    )
    client.set_model_version(project, VERSION)
    view = client.ensure_view(project, "Worklist a", tasks[:3], ("tasks:predictions_score",))

    page = chromium_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    log_in(page, studio.server.url, studio.server.username, studio.server.password)
    page.goto(f"{studio.server.url}/projects/{project}/data?tab={view}&labeling=1")
    editor = Editor(page, W, H)

    # what is seen: the composite with the prediction in the classes' colours, both channels and the doubt beside it
    large, *small = [image.bounding_box() for image in page.locator("img[alt=image]").all()]
    assert len(small) == 3
    assert all(box["x"] > large["x"] + large["width"] and box["width"] < large["width"] for box in small)
    assert page.get_by_text("gal3 (lysosome)", exact=True).is_visible()
    assert page.get_by_text("Composite: gal3 (lysosome) + LC3").is_visible()
    red, blue, blank = editor.colour(280, 60), editor.colour(280, 200), editor.colour(170, 128)
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert np.ptp(blank) < 5

    # what is done: paint one stroke, erase one disc, add one region to be ignored
    page.click('.lsf-outliner-item:has-text("Phagophore")')
    page.keyboard.press("b")
    editor.stroke((150, 30), (190, 30))
    page.keyboard.press("e")
    editor.stroke((60, 40), (60, 80))
    page.keyboard.press("Escape")
    page.keyboard.press("9")
    page.keyboard.press("b")
    editor.stroke((150, 230), (190, 230))
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    said = answer.value.json()

    # what comes back
    assert said["task"] == tasks[1]  # the highest score of the tab; the fourth task is not in it
    data = parse_task_data(client.get_task(said["task"])["data"], "task")
    correction = correction_from_annotation(said, said["task"], data, ASSAY, H, W, "a@b.c", VERSION)
    mask_HW = correction.mask_HW
    assert (mask_HW[30, 150:190] == 1).all()
    assert (mask_HW[230, 150:190] == 255).all()
    assert (mask_HW[42:79, 60] == 0).all()
    untouched_HW = np.ones((H, W), bool)
    for rows, columns in (((0, 60), (120, 220)), ((10, 110), (30, 90)), ((200, 256), (120, 220))):
        untouched_HW[slice(*rows), slice(*columns)] = False
    assert np.array_equal(mask_HW[untouched_HW], spots()[untouched_HW])
    assert correction.origins == {"prediction-changed": 1, "prediction": 1, "manual": 1}
    assert correction.lead_time_s is not None
    assert correction.lead_time_s > 0

    # and the next one in the order of the tab follows
    page.wait_for_timeout(500)
    editor = Editor(page, W, H)
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    assert answer.value.json()["task"] == tasks[2]

    # and the tab itself opens: a filter its page does not know would leave it blank
    page.goto(f"{studio.server.url}/projects/{project}/data?tab={view}")
    page.get_by_text("Worklist a").first.wait_for()
    page.get_by_text("i1/0").first.wait_for()
    assert page.get_by_text("i3/0").count() == 0
    assert errors == []
    page.context.close()
    client.delete_project(project)
