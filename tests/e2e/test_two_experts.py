"""Two experts in the real Label Studio: what each is promised is what each gets, from import to a late submit."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest
import yaml
from editor import Editor, log_in
from numpy.typing import NDArray
from people import Person, open_stream, sign_up
from places import LABEL_STUDIO, ROOT

from cytoloop.cli import run
from cytoloop.commands.home import Home, find_assay
from cytoloop.commands.importing import import_plate
from cytoloop.commands.processes import ensure_secrets
from cytoloop.commands.reference import Truth
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.commands.up import UpOptions, running_stack
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.scoring import Look, soften
from cytoloop.domain.strategies import Need
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, Lease
from cytoloop.pipeline.predictors import CipMasks
from labelstudio_config.doubt_maps import lacking_doubts, show_doubts
from labelstudio_config.handout import refill
from labelstudio_config.project import connect
from labelstudio_config.publish import publish
from labelstudio_config.rle import decode_rle
from ml_backend.access import add_token

pytestmark = [pytest.mark.studio, pytest.mark.timeout(600)]

NAME, QUEUE = "rosella", "default"
W, H = 340, 256
ADA, BOB = "ada@example.com", "bob@example.com"
POLICY = {
    "strategy": "entropy",
    "experts": [{"name": "Ada", "email": ADA}, {"name": "Bob", "email": BOB}],
    "size": 12,
    "cap": 40,
    "contest_share": 0.2,
    "validation_share": 0.1,
    "sealed_share": 0.0,
    "audit_share": 0.1,
    "overlap_share": 0.2,
    "blank_share": 0.2,
}
NEW = "cdl-20260102-00000002"
TWO_READ = ("contest", "overlap")


@dataclass(frozen=True)
class Lab:
    """A served home with a small plate in it, and its two experts."""

    home: Home
    assay: Assay
    truth: Truth
    people: dict[str, Person]

    @property
    def project(self) -> int:
        return int(self.home.store.assays.get(NAME)["project_id"])

    def held(self, expert: str) -> dict[Item, Lease]:
        return {lease.item: lease for lease in self.home.store.leases.held(NAME, QUEUE, expert)}

    def task_of(self, item: Item) -> int:
        task = self.home.store.images.tasks(NAME)[item]
        assert task is not None
        return task

    def call(self, method: Literal["GET", "POST"], path: str, who: str, **options: Any) -> httpx.Response:
        """Ask the backend as an expert."""
        return httpx.request(
            method,
            f"{self.home.settings.backend_url}/api/v1{path}",
            headers={"Authorization": f"Bearer token-of-{who}"},
            trust_env=False,
            timeout=60,
            **options,
        )

    def entries(self, expert: str) -> list[dict[str, Any]]:
        """What the API says the expert holds, in its order."""
        answer = self.call("GET", "/worklist", expert, params={"queue": QUEUE, "limit": 200})
        answer.raise_for_status()
        return [entry for entry in answer.json()["entries"] if entry["lease"] is not None]

    def claim(self, expert: str, count: int) -> list[Item]:
        answer = self.call("POST", "/worklist/claim", expert, json={"queue": QUEUE, "count": count})
        answer.raise_for_status()
        return [Item(image_id=e["image_id"], tile=e["tile"]) for e in answer.json()["entries"]]

    def view_id(self, expert: str) -> int:
        tab = self.home.store.handouts.tab(NAME, QUEUE, expert)
        assert tab is not None
        return tab.view_id

    def tab(self, expert: str) -> list[int]:
        """Tasks of the expert's tab in Label Studio, in its order, those the expert finished left out."""
        listed = self.home.label_studio.view_tasks(self.project, self.view_id(expert))
        held = {self.task_of(item) for item in self.held(expert)}
        return [task for task in listed if task in held]

    def stream(self, expert: str) -> Callable[[], Any]:
        """A page of the expert's label stream, opened now."""
        return open_stream(self.home.label_studio, self.project, self.view_id(expert), self.people[expert])

    def link(self, expert: str) -> str:
        url = f"{self.home.settings.label_studio_url}/projects/{self.project}/data"
        return f"{url}?tab={self.view_id(expert)}&labeling=1"

    def predictions(self) -> dict[Item, list[dict[str, Any]]]:
        """What Label Studio holds of each item, of every version."""
        items = {task: item for item, task in self.home.store.images.tasks(NAME).items()}
        return {
            items[task["id"]]: task["predictions"] for task in self.home.label_studio.iter_tasks(self.project)
        }

    def submit(self, expert: str, item: Item, **fields: Any) -> None:
        """The expert submits (or skips) without a browser; back when the store knows."""
        regions = self.truth.regions(item, 2 * H, 2 * W)
        self.people[expert].client.create_annotation(self.task_of(item), regions, 30.0, **fields)
        wait_for(lambda: expert in self.home.store.corrections.of_item(NAME, item))

    def first_of(self, expert: str, *roles: str) -> Item:
        """An item that the expert holds in one of these roles."""
        return next(item for item, lease in self.held(expert).items() if lease.role in roles)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not LABEL_STUDIO.is_file():
        pytest.skip("no Label Studio in .venv-studio (make test installs it)")
    folder = tmp_path_factory.mktemp("experts")
    plate, home_folder = folder / "plate", folder / "home"
    simulate_plate_command(plate, "rosella", 16, 3)
    shipped = yaml.safe_load((ROOT / "labelstudio_config" / "assays" / f"{NAME}.yaml").read_text())
    (home_folder / "assays").mkdir(parents=True)
    (home_folder / "assays" / f"{NAME}.yaml").write_text(
        yaml.safe_dump({**shipped, "queues": {QUEUE: POLICY}}), encoding="utf-8"
    )
    tokens = Path(ensure_secrets(home_folder)["api_tokens"])
    for email in (ADA, BOB):
        add_token(tokens, f"token-of-{email}", email, "expert")
    options = UpOptions(label_studio=LABEL_STUDIO)
    with running_stack(home_folder, options, lambda line: None, {}) as stack:
        home = stack.home
        people = {email: sign_up(home.label_studio, email, secrets.token_urlsafe(16)) for email in (ADA, BOB)}
        assay = find_assay(home_folder, NAME)
        import_plate(home, plate, assay, lambda *_: None)
        connect(home.label_studio, home.store, assay, home.settings)
        yield Lab(home, assay, Truth(plate, assay), people)
        for person in people.values():
            person.client.close()


def wait_for(happened: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Poll until something is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = happened()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds} s")


def check_lists(lab: Lab) -> None:
    """Each expert's promise, tab, API and stream say the same, and no order depends on a null."""
    predictions, version = lab.predictions(), lab.home.store.models.active(NAME).version
    for expert in (ADA, BOB):
        entries = lab.entries(expert)
        asked = [entry["task_id"] for entry in entries]
        assert sorted(asked) == sorted(map(lab.task_of, lab.held(expert)))
        assert lab.tab(expert) == asked
        assert [entry["score"] for entry in entries] == sorted((e["score"] for e in entries), reverse=True)
        first = lab.stream(expert)()
        assert (first and first["id"]) == (asked[0] if asked else None)
        for item in lab.held(expert):
            # two would be averaged, none is null
            [held] = [p for p in predictions[item] if p["model_version"] == version]
            assert 0 <= held["score"] <= 1


def mask_of(lab: Lab, result: list[dict[str, Any]]) -> NDArray[np.uint8]:
    """Regions of a prediction as a mask."""
    mask_HW = np.zeros((H, W), np.uint8)
    for region in result:
        value = lab.assay.value_of(region["value"]["brushlabels"][0])
        mask_HW[decode_rle(region["value"]["rle"], H, W) >= 128] = value
    return mask_HW


def cip_mask(lab: Lab, item: Item) -> NDArray[np.uint8]:
    """What the CIP says of an item."""
    masks = CipMasks(lab.home.store, lab.assay, lab.assay.cip, CODE_VERSION)
    mask_HW, _ = masks.get(lab.home.store.images.get(NAME, item.image_id))
    tile: NDArray[np.uint8] = mask_HW[tiles_of(2 * H, 2 * W, lab.assay.tiling)[item.tile].slices]
    return tile


def check_canvases(lab: Lab) -> None:
    """What is to be drawn or judged alone shows nothing of any model, the last version's neither."""
    predictions = lab.predictions()
    leases = lab.home.store.leases.held(NAME, QUEUE)
    assert {lease.canvas for lease in leases} == {"blank", "cip", "model"}
    assert all(lease.canvas == "cip" for lease in leases if lease.role == "contest")
    assert all(lease.canvas == "blank" for lease in leases if lease.role == "blank")
    for lease in leases:
        for held in predictions[lease.item]:
            model = lab.home.store.predictions.get(NAME, held["model_version"], lease.item)
            if lease.canvas == "blank":
                assert held["result"] == []
            elif lease.canvas == "cip":
                assert np.array_equal(mask_of(lab, held["result"]), cip_mask(lab, lease.item))
            elif model is not None:  # of the version before, the store has none left
                assert np.array_equal(mask_of(lab, held["result"]), mask_of(lab, model.result))


class Painted:
    """A version that knows the truth, and doubts some items more than any other."""

    version = NEW
    offers: frozenset[Need] = frozenset({"network"})

    def __init__(self, lab: Lab, doubted: list[Item]) -> None:
        self._lab = lab
        self._doubt = {item: 0.9 - 0.1 * n for n, item in enumerate(doubted)}

    def predict(self, record: ImageRecord) -> NDArray[np.float32]:
        prob_KHW = soften(self._lab.truth.image(record.image_id, record.height, record.width), 3)
        for tile in tiles_of(record.height, record.width, self._lab.assay.tiling):
            share = self._doubt.get(Item(image_id=record.image_id, tile=tile.index), 0.0)
            prob_KHW[:, *tile.slices] = (1 - share) * prob_KHW[:, *tile.slices] + share / 3
        return prob_KHW

    def look(self, record: ImageRecord, needs: Any) -> Look:
        return Look(prob_KHW=self.predict(record))


@pytest.fixture(scope="module")
def doubted(lab: Lab) -> dict[str, Item]:
    """Items of Ada's whose scores the second version puts first: for both to read, blank, and two ranked."""
    ranked = [item for item, lease in lab.held(ADA).items() if lease.role == "ranked"]
    return {
        "both": lab.first_of(ADA, "overlap"),
        "blank": lab.first_of(ADA, "blank"),
        "skipped": ranked[0],
        "overdue": ranked[1],
    }


def test_lists_are_disjoint_but_for_what_both_are_to_read(lab: Lab) -> None:
    ada, bob = lab.held(ADA), lab.held(BOB)
    assert len(ada) == len(bob) == POLICY["size"]
    both = set(ada) & set(bob)
    assert both == {item for item, lease in ada.items() if lease.role in TWO_READ}
    assert both
    assert {lease.role for lease in ada.values()} >= {"contest", "validation", "audit", "overlap", "blank"}
    assert all({ada[item].seat, bob[item].seat} == {0, 1} for item in both)
    alone = [lease for lease in [*ada.values(), *bob.values()] if lease.role not in TWO_READ]
    assert len({lease.item for lease in alone}) == len(alone)
    refused = lab.call("GET", "/worklist", ADA, params={"expert": BOB})
    assert refused.status_code == 403


def test_tab_stream_and_api_have_one_order(lab: Lab) -> None:
    check_lists(lab)


def test_a_tab_tells_whose_it_is_and_no_mark_of_ours(lab: Lab) -> None:
    views = {view["id"]: view["data"] for view in lab.home.label_studio.list_views(lab.project)}
    marks = {
        f"tasks:data.{key}"
        for task in lab.home.label_studio.iter_tasks(lab.project)
        for key in task["data"]
        if key.startswith("withdrawn")
    }
    assert len(marks) == 2
    for email, name in ((ADA, "Ada"), (BOB, "Bob")):
        assert views[lab.view_id(email)]["title"] == f"{name}: worklist {QUEUE}"
        assert marks <= set(views[lab.view_id(email)]["hiddenColumns"]["explore"])


def test_blank_and_contest_items_show_nothing_of_the_model(lab: Lab) -> None:
    check_canvases(lab)
    for expert in (ADA, BOB):
        told = {entry["task_id"]: entry for entry in lab.entries(expert)}
        for item, lease in lab.held(expert).items():
            entry = told[lab.task_of(item)]
            # the page of one task shows what others drew
            assert ("task=" in entry["url"]) == (lease.role not in TWO_READ)
            if lease.role in (*TWO_READ, "blank"):
                assert "min" not in entry["reason"]
                assert "object" not in entry["reason"]


def test_a_second_version_changes_the_order_and_no_lease(lab: Lab, doubted: dict[str, Item]) -> None:
    home = lab.home
    leases, orders = home.store.leases.held(NAME), [lab.tab(ADA), lab.tab(BOB)]
    old = home.store.models.active(NAME)
    home.store.models.add(replace(old, version=NEW, method="cdl", status="candidate"))
    painted = Painted(lab, list(doubted.values()))
    assert publish(home.label_studio, home.store, lab.assay, painted) > len({lease.item for lease in leases})
    assert home.store.leases.held(NAME) == leases
    assert refill(home.label_studio, home.store, lab.assay) == 0
    assert home.store.leases.held(NAME) == leases
    assert home.label_studio.get_project(lab.project)["model_version"] == NEW
    check_lists(lab)
    check_canvases(lab)
    tabs = [lab.tab(ADA), lab.tab(BOB)]
    assert tabs[0][:4] == [lab.task_of(item) for item in doubted.values()]
    assert tabs[1][0] == lab.task_of(doubted["both"])
    assert tabs != orders
    assert [sorted(tab) for tab in tabs] == [sorted(order) for order in orders]
    show_doubts(home.store, lab.assay, painted, lacking_doubts(home.store, lab.assay))


@pytest.mark.browser
def test_ada_submits_one_and_skips_a_blank_one_while_bob_sees_nothing_of_it(
    lab: Lab, doubted: dict[str, Item], chromium_page: Callable[..., Any]
) -> None:
    studio = lab.home.label_studio

    def enter(expert: str) -> tuple[Any, Any]:
        """Log in and follow the link; the page, and the task it was given."""
        page = chromium_page()
        log_in(page, studio.base_url, expert, lab.people[expert].password)
        with page.expect_response(lambda r: "next_task" in r.url) as given:
            page.goto(lab.link(expert))
        page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
        return page, given.value.json()

    def press(page: Any, what: str) -> Any:
        """Press a button; the task that comes next."""
        with page.expect_response(lambda r: "next_task" in r.url, timeout=20_000) as given:
            page.get_by_test_id(f"bottombar-{what}-button").click()
        return given.value.json()

    both, blank = doubted["both"], doubted["blank"]
    ada, given = enter(ADA)
    assert given["id"] == lab.task_of(both)
    editor = Editor(ada, W, H)
    regions = ada.locator(".lsf-outliner-item").count()
    ada.keyboard.press("1")
    editor.stroke((W / 2 - 20, H / 2), (W / 2 + 20, H / 2))
    assert press(ada, "submit")["id"] == lab.task_of(blank)
    wait_for(lambda: both not in lab.held(ADA))
    assert [lease.state for lease in lab.home.store.leases.of_item(NAME, both)] == ["done", "held"]

    # nothing lies on the empty canvas; what is skipped goes to the other, as empty as it was
    ada.locator("img[alt=image]").first.wait_for(timeout=60_000)
    ada.wait_for_timeout(1500)  # regions are painted after the picture, if there are any
    assert ada.locator(".lsf-outliner-item").count() == 0
    assert press(ada, "skip")["id"] == lab.task_of(doubted["skipped"])
    wait_for(lambda: blank not in lab.held(ADA))
    ada.context.close()

    # the second reader gets the model's mask and nothing of what Ada drew
    bob, given = enter(BOB)
    assert given["id"] == lab.task_of(both)
    assert given["annotations"] == []
    Editor(bob, W, H)
    assert bob.locator(".lsf-outliner-item").count() == regions
    bob.context.close()
    assert blank in lab.claim(BOB, 6)
    check_canvases(lab)
    check_lists(lab)


def test_what_one_skips_the_other_is_asked_for(lab: Lab, doubted: dict[str, Item]) -> None:
    item = doubted["skipped"]
    page = lab.stream(ADA)
    lab.submit(ADA, item, was_cancelled=True)
    wait_for(lambda: item not in lab.held(ADA))
    assert page()["id"] != lab.task_of(item)
    assert item not in lab.claim(ADA, 4)
    assert item in lab.claim(BOB, 6)
    assert lab.stream(BOB)() is not None
    check_lists(lab)


def test_an_overdue_item_is_handed_on_unless_there_is_a_draft_of_it(
    lab: Lab, doubted: dict[str, Item]
) -> None:
    home, leases = lab.home, lab.home.store.leases
    overdue = doubted["overdue"]
    at_work = next(item for item, lease in lab.held(ADA).items() if lease.role == "audit")
    lab.people[ADA].client._connection.call(
        "POST",
        f"/api/tasks/{lab.task_of(at_work)}/drafts",
        body={
            "result": lab.truth.regions(at_work, 2 * H, 2 * W),
            "lead_time": 9.0,
            "project": lab.project,
        },
    )
    page = lab.stream(ADA)
    assert page()["id"] == lab.tab(ADA)[0]
    assert lab.task_of(overdue) in lab.tab(ADA)
    later = max(lease.expires_at for lease in lab.held(ADA).values()) + timedelta(minutes=1)
    leases.renew(NAME, QUEUE, BOB, later + timedelta(days=1))
    bobs = lab.held(BOB)
    refill(home.label_studio, home.store, lab.assay, later)
    assert set(lab.held(ADA)) == {at_work}
    assert lab.held(ADA)[at_work].expires_at > later
    assert lab.held(BOB) == bobs
    # gone from the page that was open all the time
    assert page()["id"] == lab.task_of(at_work)
    assert lab.stream(ADA)()["id"] == lab.task_of(at_work)
    assert overdue in lab.claim(BOB, 6)
    assert leases.of_item(NAME, overdue)[-1].expert == BOB
    check_lists(lab)


def test_a_late_submit_is_a_second_reading(lab: Lab, doubted: dict[str, Item]) -> None:
    item = doubted["overdue"]
    lab.submit(ADA, item)
    assert item in lab.held(BOB)
    refill(lab.home.label_studio, lab.home.store, lab.assay)
    check_lists(lab)  # Bob is still promised it, and still gets it
    assert lab.task_of(item) in [task["id"] for task in work_off(lab, BOB)]
    said = lab.home.store.corrections.of_item(NAME, item)
    assert said == {ADA: "submitted", BOB: "submitted"}
    states = {lease.expert: lease.state for lease in lab.home.store.leases.of_item(NAME, item)}
    assert states == {ADA: "done", BOB: "done"}


def work_off(lab: Lab, expert: str) -> list[Any]:
    """Submit what the stream hands out until nothing comes: the list as it was promised, in its order."""
    promised = [entry["task_id"] for entry in lab.entries(expert)]
    items = {task: item for item, task in lab.home.store.images.tasks(NAME).items()}
    page, done = lab.stream(expert), []
    while (task := page()) is not None:
        assert task["annotations"] == []
        done.append(task)
        lab.submit(expert, items[task["id"]])
    assert [task["id"] for task in done] == promised
    wait_for(lambda: not lab.held(expert))
    return done


def test_the_command_line_shows_lists_and_sets_policies(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cytoloop(*arguments: str) -> tuple[int, str, str]:
        code = run([*arguments, "--home", str(lab.home.settings.home)])
        return code, *capsys.readouterr()

    code, out, _ = cytoloop("worklist", "--queue", f"{NAME}/{QUEUE}", "--expert", "Ada", "--json")
    listed = [entry for entry in json.loads(out)["entries"] if entry["lease"] is not None]
    assert (code, listed) == (0, lab.entries(ADA))
    assert [entry["task_id"] for entry in listed] == lab.tab(ADA) != []
    assert f" {listed[0]['lease']} " in cytoloop("worklist", "--expert", ADA)[1]
    code, out, err = cytoloop("worklist", "--expert", "eve@example.com")
    assert (code, out) == (1, "")
    assert "unknown expert 'eve@example.com'" in err

    name = f"{NAME}/{QUEUE}"
    assert "assay file" in cytoloop("queues", "show")[1]
    policy = json.loads(cytoloop("queues", "show", "--json")[1])["queues"][name]
    assert {key: policy[key] for key in POLICY} == POLICY
    file = tmp_path / "queues.yaml"
    alone = {**policy, "experts": POLICY["experts"][:1]}
    file.write_text(yaml.safe_dump({"queues": {QUEUE: alone}}))
    code, _, err = cytoloop("queues", "apply", str(file))
    assert code == 2
    assert "overlap_share 0" in err  # nobody is left to be the second reader
    alone |= {"overlap_share": 0.0}
    file.write_text(yaml.safe_dump({"queues": {QUEUE: alone}}))
    assert cytoloop("queues", "apply", str(file))[0] == 0
    assert json.loads(cytoloop("queues", "show", "--json")[1])["queues"] == {name: alone}
    assert lab.call("GET", "/worklist", BOB, params={"queue": QUEUE}).status_code == 400
    assert lab.call("GET", "/worklist", ADA, params={"queue": QUEUE}).status_code == 200


def test_who_leaves_a_queue_is_handed_nothing_more(lab: Lab) -> None:
    home, policy = lab.home, {**POLICY, "size": 5}
    home.store.queues.set(NAME, QUEUE, policy)
    refill(home.label_studio, home.store, lab.assay)
    assert lab.held(BOB)
    page = lab.stream(BOB)
    assert page() is not None
    home.store.queues.set(NAME, QUEUE, {**policy, "experts": [], "overlap_share": 0.0})
    refill(home.label_studio, home.store, lab.assay)
    assert not lab.held(BOB)
    assert page() is None
    assert lab.stream(BOB)() is None
    assert lab.tab(SHARED)  # the list of everyone, until there are experts again
    home.store.queues.set(NAME, QUEUE, policy)
    refill(home.label_studio, home.store, lab.assay)
    assert home.label_studio.view_tasks(lab.project, lab.view_id(SHARED)) == []
    check_lists(lab)
