"""The whole loop, everything real: plate, store, Label Studio, backend, browser, brush, training, report."""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from editor import Editor, log_in
from PIL import Image
from places import LABEL_STUDIO
from scipy import ndimage

import trainer.cycle
from cytoloop.adapters.images import read_image
from cytoloop.commands.doctor import run_doctor
from cytoloop.commands.home import Home, find_assay
from cytoloop.commands.importing import import_plate
from cytoloop.commands.processes import ensure_secrets
from cytoloop.commands.reference import Truth, submit_reference
from cytoloop.commands.rotation import rotate
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.commands.up import UpOptions, running_stack
from cytoloop.domain.assay import Assay
from cytoloop.domain.display import composite
from cytoloop.domain.promotion import ContestDecision, decide
from cytoloop.domain.queue_policy import SHARED, QueuePolicy
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.trainer_policy import ContestPolicy, TrainerPolicy
from cytoloop.domain.types import HELD_OUT, Item
from labelstudio_config.project import SECRET_HEADER, connect
from labelstudio_config.rle import decode_rle
from trainer.schedule import Trainer

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

W, H = 340, 256
QUEUE = QueuePolicy(strategy="entropy", size=10)


def quiet(what: str, done: int, total: int) -> None:
    """No progress bars in tests."""


@dataclass(frozen=True)
class Loop:
    """A served home with a small plate in it."""

    home: Home
    assay: Assay
    truth: Truth

    def ask(self, path: str, **query: Any) -> Any:
        token = ensure_secrets(self.home.settings.home)["api_token"]
        answer = httpx.get(
            f"{self.home.settings.backend_url}{path}",
            params=query,
            headers={"Authorization": f"Bearer {token}"},
            trust_env=False,
        )
        answer.raise_for_status()
        return answer.json()

    def worklist(self) -> list[dict[str, Any]]:
        """What is leased; what comes next follows it in the answer."""
        entries = self.ask("/api/v1/worklist", queue="default", limit=100)["entries"]
        return [entry for entry in entries if entry["lease"] is not None]


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    folder = tmp_path_factory.mktemp("loop")
    plate = folder / "plate"
    simulate_plate_command(plate, "rosella", 16, 3)
    options = UpOptions(label_studio=LABEL_STUDIO)
    with running_stack(folder / "home", options, lambda line: None, {}) as stack:
        home = stack.home
        assay = find_assay(home.settings.home, "rosella")
        home.store.queues.set("rosella", "default", QUEUE.document())
        import_plate(home, plate, assay, quiet)
        connect(home.label_studio, home.store, assay, home.settings)
        yield Loop(home, assay, Truth(plate, assay))


def wait_for(happened: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Poll until something is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def tab_tasks(loop: Loop) -> list[int]:
    """Tasks of the queue's tab, in its order, without the finished ones."""
    tab = loop.home.store.handouts.tab("rosella", "default", SHARED)
    assert tab is not None
    project = loop.home.store.assays.get("rosella")["project_id"]
    listed = {entry["task_id"] for entry in loop.worklist()}
    return [task for task in loop.home.label_studio.view_tasks(project, tab.view_id) if task in listed]


def test_doctor_finds_nothing_wrong(loop: Loop) -> None:
    checks = list(run_doctor(loop.home))
    assert [(check.name, check.detail) for check in checks if check.state != "ok"] == []
    assert len(checks) >= 9


def test_the_tab_has_the_order_of_the_api(loop: Loop) -> None:
    entries = loop.worklist()
    assert len(entries) == QUEUE.size
    assert [entry["score"] for entry in entries] == sorted((e["score"] for e in entries), reverse=True)
    assert tab_tasks(loop) == [entry["task_id"] for entry in entries]
    assert {e["model_version"] for e in entries} == {loop.home.store.models.active("rosella").version}


def test_views_lie_on_the_raw_pixel_grid(loop: Loop) -> None:
    """What the expert paints on is, pixel for pixel, what the model reads."""
    entry = loop.worklist()[0]
    record = loop.home.store.images.get("rosella", entry["image_id"])
    image_CHW = read_image(record, loop.assay)
    ranges = loop.home.store.images.display_ranges("rosella", record.plate)
    tile = tiles_of(record.height, record.width, loop.assay.tiling)[entry["tile"]]
    expected = composite(image_CHW, ranges, loop.assay)[tile.slices]
    data = loop.home.label_studio.get_task(entry["task_id"])["data"]
    shown = np.array(Image.open(io.BytesIO(loop.home.label_studio.download(data["image"]))))
    assert np.array_equal(shown, expected)
    green = np.array(Image.open(io.BytesIO(loop.home.label_studio.download(data["channel_0"]))))
    assert np.array_equal(green, expected[..., 1])  # pHluorin is shown green, DsRed red: no overlap


def predicted(loop: Loop, task_id: int) -> np.ndarray:
    """The pre-annotation Label Studio holds for a task, as a mask."""
    version = loop.home.store.models.active("rosella").version
    task = loop.home.label_studio.get_task(task_id)
    (held,) = [p for p in task["predictions"] if p["model_version"] == version]
    mask_HW = np.zeros((H, W), np.uint8)
    for region in held["result"]:
        value = loop.assay.value_of(region["value"]["brushlabels"][0])
        mask_HW[decode_rle(region["value"]["rle"], H, W) >= 128] = value
    return mask_HW


def item_to_correct(loop: Loop) -> tuple[dict[str, Any], np.ndarray]:
    """A training item whose pre-annotation has a good-sized object of both classes."""
    for entry in loop.worklist():
        record = loop.home.store.images.get("rosella", entry["image_id"])
        mask_HW = predicted(loop, entry["task_id"])
        if record.split == "train" and all(inner(mask_HW, value) is not None for value in (0, 1, 2)):
            return entry, mask_HW
    raise AssertionError("no training item with an object of both classes in the worklist")


def inner(mask_HW: np.ndarray, value: int) -> tuple[int, int] | None:
    """(row, column) of the pixel of a class that is furthest from any other, if at least 4 px."""
    distance_HW = ndimage.distance_transform_edt(np.pad(mask_HW == value, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(distance_HW.argmax(), distance_HW.shape)
    return (int(row), int(column)) if distance_HW[row, column] >= 4 else None


@pytest.mark.browser
def test_an_expert_corrects_with_the_brush_and_the_loop_turns(
    loop: Loop, chromium_page: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, store = loop.home, loop.home.store
    local = ensure_secrets(home.settings.home)
    entry, before_HW = item_to_correct(loop)
    picture = np.array(
        Image.open(
            io.BytesIO(
                home.label_studio.download(home.label_studio.get_task(entry["task_id"])["data"]["image"])
            )
        )
    ).astype(float)

    page = chromium_page()
    log_in(
        page, home.settings.label_studio_url or "", local["label_studio_user"], local["label_studio_password"]
    )
    page.goto(entry["url"])
    editor = Editor(page, W, H)

    # the pre-annotation of both classes is where it should be: each blob shines in its label's colour
    for value in (1, 2):
        row, column = inner(before_HW, value) or (0, 0)
        colour = np.array(list(bytes.fromhex(loop.assay.classes[value].colour[1:])), float)
        raw = picture[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1))
        seen = editor.colour(column + 0.5, row + 0.5)
        opacity = float((seen - raw) @ (colour - raw) / ((colour - raw) @ (colour - raw)))
        assert 0.3 < opacity < 1.01, (value, raw, seen, colour)
        assert np.abs(seen - (raw + opacity * (colour - raw))).max() < 40, (value, raw, seen, colour)
    row, column = inner(before_HW, 0) or (0, 0)
    raw = picture[row - 1 : row + 2, column - 1 : column + 2].mean(axis=(0, 1))
    assert np.abs(editor.colour(column + 0.5, row + 0.5) - raw).max() < 25

    # paint on background, erase through the autolysosome, submit
    erased = inner(before_HW, 2) or (0, 0)
    page.click('.lsf-outliner-item:has-text("Phagophore")')
    page.keyboard.press("b")
    editor.stroke((column - 3, row), (column + 3, row))
    page.keyboard.press("Escape")
    page.click('.lsf-outliner-item:has-text("Autolysosome")')
    page.keyboard.press("e")
    editor.stroke((erased[1] - 2, erased[0]), (erased[1] + 2, erased[0]))
    with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as answer:
        page.click('button:has-text("Submit")')
    said = answer.value.json()
    page.context.close()

    # the stored correction is what was drawn
    item = Item(image_id=entry["image_id"], tile=entry["tile"])
    stored = wait_for(lambda: store.corrections.standing("rosella").get(item))
    mask_HW = store.masks.get(stored.mask)
    drawn_HW = np.zeros((H, W), np.uint8)
    for name, value in (("Phagophore", 1), ("Autolysosome", 2)):  # the stronger class last
        for region in said["result"]:
            if region["value"]["brushlabels"] == [name]:
                drawn_HW[decode_rle(region["value"]["rle"], H, W) >= 128] = value
    assert np.array_equal(mask_HW, drawn_HW)
    assert (mask_HW[row, column - 2 : column + 3] == 1).all()
    assert mask_HW[erased] == 0
    changed_HW = mask_HW != before_HW
    rows, columns = np.nonzero(changed_HW)
    near = (np.hypot(rows - row, columns - column) < 30) | (
        np.hypot(rows - erased[0], columns - erased[1]) < 30
    )
    assert near.all()
    assert stored.expert == local["label_studio_user"]
    assert stored.parent_version == entry["model_version"]
    assert stored.lead_time_s is not None
    assert item not in {Item(image_id=e["image_id"], tile=e["tile"]) for e in loop.worklist()}

    # a cycle runs; whether the new model is better is another test's question, here it must serve
    submit_reference(home, loop.assay, loop.truth, HELD_OUT, 1, quiet)

    def promoting(*arguments: Any, **options: Any) -> ContestDecision:
        return dataclasses.replace(
            decide(*arguments, **options), promote=True, reason="promoted: the test says so"
        )

    monkeypatch.setattr(trainer.cycle, "decide", promoting)
    policy = TrainerPolicy(contest=ContestPolicy(min_groups=3, min_class_groups=1))
    runner = Trainer(home.settings, policy, preset="smoke")
    try:
        before = store.models.active("rosella").version
        cycle_id = store.cycles.ask("rosella", "test")
        outcome = runner.run_one(cycle_id)
        page_path = runner.report_path(cycle_id)
    finally:
        runner.close()
    assert outcome.outcome == "promoted"
    active = store.models.active("rosella")
    assert active.version != before
    assert [t.model.method for t in outcome.trained] == ["cdl", "mdl", "joint"]
    assert outcome.trained[2].model.parent == outcome.trained[0].model.version
    taught = {row.image_id for t in outcome.trained for row in t.snapshot.rows if row.split == "train"}
    assert {store.images.get("rosella", image_id).split for image_id in taught} == {"train"}

    # the new version's predictions, and the order they give, are in Label Studio
    project = store.assays.get("rosella")["project_id"]
    assert home.label_studio.get_project(project)["model_version"] == active.version
    # those of the version before stay for editors that are open
    assert set(home.label_studio.model_versions(project)) == {before, active.version}
    entries = loop.worklist()
    assert {entry["model_version"] for entry in entries} == {active.version}
    assert tab_tasks(loop) == [entry["task_id"] for entry in entries]
    # and the report tells it
    assert page_path is not None
    assert "the test says so" in page_path.read_text(encoding="utf-8")
    document = loop.ask(f"/api/v1/reports/{cycle_id}")
    assert document["active_after"] == active.version
    assert json.loads((page_path.parent / "report.json").read_text(encoding="utf-8")) == document


def test_a_lost_webhook_costs_nothing(loop: Loop) -> None:
    """Reconciliation finds what no event told, deletions included."""
    home, store = loop.home, loop.home.store
    project = store.assays.get("rosella")["project_id"]
    url, token = home.settings.need_label_studio()
    for hook in home.label_studio.list_webhooks(project):
        httpx.delete(
            f"{url}/api/webhooks/{hook['id']}/", headers={"Authorization": f"Token {token}"}, trust_env=False
        ).raise_for_status()
    entry = loop.worklist()[0]
    item = Item(image_id=entry["image_id"], tile=entry["tile"])
    regions = loop.truth.regions(item, 512, 680)
    annotation = home.label_studio.create_annotation(entry["task_id"], regions, 61.5)
    runner = Trainer(home.settings)
    try:
        assert item not in store.corrections.standing("rosella")
        runner._intake.reconcile(loop.assay)
        stored = store.corrections.standing("rosella")[item]
        assert stored.lead_time_s == 61.5
        assert np.array_equal(store.masks.get(stored.mask), loop.truth.item(item, 512, 680))
        home.label_studio.delete_annotation(annotation["id"])
        runner._intake.reconcile(loop.assay)
        assert item not in store.corrections.standing("rosella")
    finally:
        runner.close()
        connect(home.label_studio, store, loop.assay, home.settings)
    assert not [check for check in run_doctor(home) if check.state == "failed"]


def test_secrets_are_rotated_while_everything_runs(loop: Loop) -> None:
    """Label Studio's next event and call come with the new ones; the old ones open nothing any more."""
    home, store = loop.home, loop.home.store
    before = home.settings
    done = rotate(home, {})
    assert (done.renewed, done.from_environment) == (("backend_password", "webhook_secret"), ())
    after = home.settings
    assert after.webhook_secret not in (None, before.webhook_secret)
    assert (after.webhook_secrets_before, after.backend_passwords_before) == ((), ())
    assert [check for check in run_doctor(home) if check.state == "failed"] == []
    seen = store.inbox.last()
    entry = loop.worklist()[0]
    annotation = home.label_studio.create_annotation(entry["task_id"], [], 3.0)
    wait_for(lambda: store.inbox.last() > seen)
    home.label_studio.delete_annotation(annotation["id"])
    for secret, status in ((before.webhook_secret, 401), (after.webhook_secret, 202)):
        answer = httpx.post(
            f"{before.backend_url}/webhook",
            json={"action": "PROJECT_UPDATED"},
            headers={SECRET_HEADER: str(secret)},
            trust_env=False,
        )
        assert answer.status_code == status
    backends = home.label_studio.list_backends(store.assays.get("rosella")["project_id"])
    assert [backend["state"] for backend in backends] == ["CO"]


def test_predict_answers_what_label_studio_asks(loop: Loop) -> None:
    entry = loop.worklist()[0]
    project = loop.home.store.assays.get("rosella")["project_id"]
    task = loop.home.label_studio.get_task(entry["task_id"])
    settings = loop.home.settings

    def ask(data: dict[str, Any]) -> httpx.Response:
        return httpx.post(
            f"{settings.backend_url}/predict",
            json={"tasks": [{"id": task["id"], "data": data}], "project": f"{project}.1"},
            auth=(settings.backend_user, settings.backend_password or ""),
            trust_env=False,
            timeout=60,
        )

    (result,) = ask(task["data"]).json()["results"]
    assert result["model_version"] == entry["model_version"]
    assert 0 <= result["score"] <= 1
    refused = ask({**task["data"], "image_key": "0" * 64})
    assert refused.status_code == 400
    assert f"task {task['id']}: image_key is '000" in refused.json()["error"]
    assert "expected" in refused.json()["error"]


def test_a_plate_with_a_bad_image_leaves_no_trace(loop: Loop, tmp_path: Path) -> None:
    from cytoloop.domain.errors import ImageUnreadable

    simulate_plate_command(tmp_path / "bad", "rosella", 2, 99)
    victim = sorted((tmp_path / "bad" / "images").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:5000])
    images = len(loop.home.store.images.all("rosella"))
    with pytest.raises(ImageUnreadable, match=victim.name):
        import_plate(loop.home, tmp_path / "bad", loop.assay, quiet)
    assert len(loop.home.store.images.all("rosella")) == images
