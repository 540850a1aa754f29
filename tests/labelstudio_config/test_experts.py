"""Several experts in one project: each habit holds of the real Label Studio and of the one in memory."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import numpy as np
import pytest
from editor import Editor, log_in
from fakes import EXPERT, OTHER_EXPERT, PROJECT, FakeLabelStudio
from people import Person, open_stream, sign_off, sign_up
from PIL import Image

from cytoloop.domain.assay import Assay, Channel, Cip, LabelClass
from cytoloop.domain.errors import InputError, LabelStudioRefused
from cytoloop.domain.ports import LabelStudio
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.payloads import TaskData, prediction, prediction_result
from labelstudio_config.schema import labeling_config

H, W = 128, 160
ASSAY = Assay(
    name="two channels",
    channels=(Channel(name="gal3"), Channel(name="LC3")),
    classes=(
        LabelClass(name="Background", colour="#000000"),
        LabelClass(name="Phagophore", colour="#ff5500", hotkey="1"),
        LabelClass(name="Autolysosome", colour="#00aaff", hotkey="2"),
    ),
    ignore=LabelClass(name="Ignore", colour="#888888", hotkey="9"),
    cip=Cip(recipe="none"),
)
OLD, NEW = "cip-20260101-00000001", "cdl-20260102-00000002"
ORDERING = ("tasks:predictions_score",)
ADA, BOB = 0, 1


def mask() -> np.ndarray:
    mask_HW = np.zeros((H, W), dtype=np.uint8)
    mask_HW[30:60, 30:60] = 1
    mask_HW[70:100, 90:130] = 2
    return mask_HW


REGIONS = prediction_result(mask(), ASSAY)


def data_of(number: int) -> dict[str, Any]:
    url = "/data/local-files/?d=experts/view.png"
    return TaskData(
        image=url, channels=(url, url), image_id=f"i{number}", image_key="ab", tile=0, doubt=url
    ).document()


class Office(Protocol):
    """A project of six tasks and two experts; what experts do beside what the port offers."""

    port: LabelStudio
    project: int
    tasks: list[int]
    users: list[int]
    emails: list[str]

    def open_tab(self, title: str) -> Callable[[int], int | None]:
        """Load the page of a tab: a function from expert to the next task."""

    def submit(self, expert: int, task: int, parent: int | None = None, *, skip: bool = False) -> int:
        """An annotation's id."""

    def draft(self, expert: int, task: int) -> None:
        """Draw without submitting."""

    def predictions(self, task: int) -> list[dict[str, Any]]:
        """Stored predictions of a task."""

    def order(self, title: str) -> list[int]:
        """What the tab lists."""

    def updated_at(self, task: int) -> str:
        """When Label Studio says that the task changed."""


class FakeOffice:
    """In memory."""

    def __init__(self) -> None:
        self.port = self.studio = FakeLabelStudio([label.name for _, label in ASSAY.foreground])
        self.project = PROJECT
        self.tasks = self.studio.import_tasks(PROJECT, [data_of(n) for n in range(6)])
        self.users = [EXPERT["id"], OTHER_EXPERT["id"]]
        self.emails = [EXPERT["email"], OTHER_EXPERT["email"]]

    def open_tab(self, title: str) -> Callable[[int], int | None]:
        stream = self.studio.open_tab(title)
        return lambda expert: stream(self.users[expert])

    def submit(self, expert: int, task: int, parent: int | None = None, *, skip: bool = False) -> int:
        fields = {"completed_by": self.users[expert], "parent_prediction": parent, "was_cancelled": skip}
        return self.studio.annotate(task, REGIONS, **fields)

    def draft(self, expert: int, task: int) -> None:
        self.studio.draft(task, self.users[expert])

    def predictions(self, task: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.studio.task(task)["predictions"]
        return found

    def order(self, title: str) -> list[int]:
        return self.studio.tab(title)

    def updated_at(self, task: int) -> str:
        return str(self.studio.task(task)["updated_at"])


class RealOffice:
    """On a server; a page is what the page was seen to send."""

    def __init__(self, admin: LabelStudioClient, people: list[Person]) -> None:
        self.port = self.admin = admin
        self.people = people
        self.project = admin.create_project("cytoloop experts", labeling_config(ASSAY))
        self.tasks = admin.import_tasks(self.project, [data_of(n) for n in range(6)])
        self.users = [person.id for person in people]
        self.emails = [person.email for person in people]

    def _view(self, title: str) -> dict[str, Any]:
        return next(v for v in self.admin.list_views(self.project) if v["data"]["title"] == title)

    def open_tab(self, title: str) -> Callable[[int], int | None]:
        view_id = self._view(title)["id"]
        streams = [open_stream(self.admin, self.project, view_id, person) for person in self.people]

        def next_task(expert: int) -> int | None:
            task = streams[expert]()
            if task is None:
                return None
            assert task["annotations"] == []  # blind
            return int(task["id"])

        return next_task

    def submit(self, expert: int, task: int, parent: int | None = None, *, skip: bool = False) -> int:
        speaker = self.people[expert].client
        made = speaker.create_annotation(task, REGIONS, 3.0, parent, was_cancelled=skip)
        return int(made["id"])

    def draft(self, expert: int, task: int) -> None:
        body = {"result": REGIONS, "lead_time": 4.5, "project": self.project}
        self.people[expert].client._connection.call("POST", f"/api/tasks/{task}/drafts", body=body)

    def predictions(self, task: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.admin.get_task(task)["predictions"]
        return sorted(found, key=lambda stored: stored["id"])

    def order(self, title: str) -> list[int]:
        return self.admin.view_tasks(self.project, self._view(title)["id"])

    def updated_at(self, task: int) -> str:
        return str(self.admin.get_task(task)["updated_at"])


@pytest.fixture(scope="module")
def people(request: pytest.FixtureRequest) -> Iterator[list[Person]]:
    admin = request.getfixturevalue("studio").client
    joined = [
        sign_up(admin, email, secrets.token_urlsafe(16)) for email in ("ada@example.com", "bob@example.com")
    ]
    yield joined
    for person in joined:
        sign_off(admin, person)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("real", marks=[pytest.mark.studio, pytest.mark.timeout(300)]),
    ]
)
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    if request.param == "fake":
        yield FakeOffice()
        return
    people = request.getfixturevalue("people")
    real = RealOffice(request.getfixturevalue("studio").client, people)
    yield real
    real.admin.delete_project(real.project)


def push(office: Office, version: str, confidences: list[float]) -> None:
    """Bring a version into force, with these confidences in the order of the tasks."""
    documents = [
        prediction(task, REGIONS, confidence, version)
        for task, confidence in zip(office.tasks, confidences, strict=False)
    ]
    assert office.port.push_predictions(office.project, documents) == len(documents)
    office.port.set_model_version(office.project, version)


def tab(office: Office, expert: int, tasks: list[int]) -> str:
    """The expert's own tab of these tasks; its title."""
    title = f"Worklist {office.emails[expert]}"
    office.port.ensure_view(office.project, title, tasks, ORDERING, office.users[expert])
    return title


def work_off(office: Office, stream: Callable[[int], int | None], expert: int) -> list[int]:
    """Submit whatever comes until nothing does."""
    done = []
    while (task := stream(expert)) is not None:
        office.submit(expert, task)
        done.append(task)
    return done


def test_each_expert_gets_exactly_the_own_list_in_its_order(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.5, 0.1, 0.4, 0.2, 0.6, 0.3])
    ada = office.open_tab(tab(office, ADA, [t[0], t[1], t[2]]))
    bob = office.open_tab(tab(office, BOB, [t[3], t[4]]))
    assert work_off(office, ada, ADA) == [t[1], t[2], t[0]]
    assert work_off(office, bob, BOB) == [t[3], t[4]]


def test_an_open_page_keeps_to_its_list_but_follows_the_new_scores(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    title = tab(office, ADA, [t[0], t[1], t[2]])
    page = office.open_tab(title)
    assert page(ADA) == t[0]
    push(office, NEW, [0.3, 0.2, 0.1, 0.05, 0.5, 0.6])
    tab(office, ADA, [t[1], t[3]])
    assert office.order(title) == [t[3], t[1]]
    assert page(ADA) == t[2]  # of the list it was loaded with, by the scores of the new version
    assert office.open_tab(title)(ADA) == t[3]


def test_what_is_withdrawn_leaves_an_open_page_at_once_and_comes_back_with_the_tab(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    title = tab(office, ADA, t[:3])
    page = office.open_tab(title)
    assert page(ADA) == t[0]
    office.port.withdraw_tasks(office.project, [t[0], t[1]], office.users[ADA])
    assert page(ADA) == t[2]
    assert office.order(title) == [t[2]]
    assert office.open_tab(tab(office, BOB, t[:3]))(BOB) == t[0]  # from Ada alone
    office.submit(ADA, t[0])  # it was on her screen: late, and taken
    assert tab(office, ADA, [t[1]]) == title
    assert office.open_tab(title)(ADA) == t[1]
    assert office.order(title) == [t[1]]
    with pytest.raises(LabelStudioRefused):
        office.port.withdraw_tasks(office.project, [10**6], office.users[ADA])


def test_one_reader_unless_more_are_wanted(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    ada, bob = (office.open_tab(tab(office, expert, t[:4])) for expert in (ADA, BOB))
    assert ada(ADA) == bob(BOB) == t[0]  # nothing keeps an open task from another tab that holds it
    office.submit(ADA, t[0])
    assert bob(BOB) == t[1]
    office.port.set_readers(t[1], 2)  # before anyone was there
    office.submit(ADA, t[1])
    assert bob(BOB) == t[1]
    assert ada(ADA) == t[2]  # never the same task twice
    office.port.set_readers(t[0], 2)  # after the first reader
    assert bob(BOB) == t[0]
    office.port.set_readers(t[0], 1)
    assert bob(BOB) == t[1]
    office.submit(BOB, t[1])
    assert bob(BOB) == t[2]
    with pytest.raises(LabelStudioRefused):
        office.port.set_readers(10**6, 2)


def test_a_skipped_task_goes_to_others_and_back_when_the_skip_is_deleted(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    ada, bob = (office.open_tab(tab(office, expert, t[:2])) for expert in (ADA, BOB))
    skipped = office.submit(ADA, t[0], skip=True)
    assert (ada(ADA), bob(BOB)) == (t[1], t[0])
    office.port.delete_annotation(skipped)
    assert ada(ADA) == t[0]
    submitted = office.submit(ADA, t[0])
    assert (ada(ADA), bob(BOB)) == (t[1], t[1])
    office.port.delete_annotation(submitted)
    assert (ada(ADA), bob(BOB)) == (t[0], t[0])


def test_drafts_of_all_experts_are_seen_until_they_are_submitted(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.5] * 6)
    before = office.updated_at(t[0])
    office.draft(ADA, t[0])
    office.draft(BOB, t[0])
    office.draft(BOB, t[1])
    office.draft(BOB, t[2])
    assert office.updated_at(t[0]) == before  # the poll for changed tasks does not see them
    found = office.port.list_drafts(office.project, [t[0], t[1], t[3]])
    assert sorted((draft["task"], draft["user"]) for draft in found) == sorted(
        [(t[0], office.emails[ADA]), (t[0], office.emails[BOB]), (t[1], office.emails[BOB])]
    )
    assert {draft["annotation"] for draft in found} == {None}
    assert all(draft["updated_at"] >= draft["created_at"] for draft in found)
    assert all("result" not in draft for draft in found)
    assert office.port.list_drafts(office.project, []) == []


def test_a_prediction_is_replaced_under_its_own_id(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5])
    title = tab(office, ADA, t[:3])
    [before] = office.predictions(t[0])
    replaced = [prediction(t[0], [], 0.9, OLD), prediction(t[5], REGIONS, 0.7, OLD)]
    assert office.port.replace_predictions(office.project, replaced) == 2
    [after] = office.predictions(t[0])
    assert (after["id"], after["score"], after["result"]) == (before["id"], 0.9, [])
    assert [stored["score"] for stored in office.predictions(t[5])] == [0.7]
    assert office.order(title) == [t[1], t[2], t[0]]
    office.submit(ADA, t[0], before["id"])  # an editor that was open goes on
    doubled = [prediction(t[1], REGIONS, 0.8, OLD)]
    assert office.port.push_predictions(office.project, doubled) == 1
    assert office.port.replace_predictions(office.project, doubled) == 1
    assert [stored["score"] for stored in office.predictions(t[1])] == [0.8]
    for score in (1.5, float("nan")):
        with pytest.raises(InputError, match=f"task {t[2]}: score {score}, expected 0 to 1"):
            office.port.replace_predictions(
                office.project, [prediction(t[2], [], 0.5, OLD) | {"score": score}]
            )


def test_what_began_with_a_deleted_prediction_cannot_be_submitted_under_it(office: Office) -> None:
    t = office.tasks
    push(office, OLD, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    [first], [second] = office.predictions(t[0]), office.predictions(t[1])
    push(office, NEW, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    annotation = office.submit(ADA, t[0], first["id"])  # the version it began with need not be in force
    office.port.delete_model_version(office.project, OLD)
    with pytest.raises(LabelStudioRefused, match="400"):
        office.submit(ADA, t[1], second["id"])
    office.submit(ADA, t[1])
    task = next(task for task in office.port.iter_tasks(office.project) if task["id"] == t[0])
    assert [(a["id"], a["parent_prediction"]) for a in task["annotations"]] == [(annotation, None)]


class Backend(BaseHTTPRequestHandler):
    """A backend that has nothing to say; keeps the paths it was asked."""

    def do_GET(self) -> None:
        self._answer(b'{"status": "UP"}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self._answer(b'{"model_version": "%s", "results": []}' % OLD.encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.studio
@pytest.mark.browser
@pytest.mark.timeout(600)
def test_two_experts_at_their_screens(
    studio: Any, people: list[Person], chromium_page: Callable[..., Any], backend: Any
) -> None:
    folder = studio.document_root / "experts"
    folder.mkdir()
    Image.new("RGB", (W, H), (40, 40, 40)).save(folder / "view.png")
    office = RealOffice(studio.client, people)
    admin, project, t = studio.client, office.project, office.tasks
    admin.ensure_local_storage(project, str(folder), "views")
    admin.update_project(project, show_collab_predictions=True)
    url = f"http://127.0.0.1:{backend.server_address[1]}"
    admin.connect_backend(project, url, "cytoloop", "u", "p")
    canvases = [[], REGIONS, REGIONS, REGIONS]  # the first one is blank
    admin.push_predictions(
        project, [prediction(t[n], canvases[n], 0.1 * (n + 1), OLD) for n in range(len(canvases))]
    )
    admin.set_model_version(project, OLD)
    admin.set_readers(t[0], 2)
    titles = [tab(office, expert, t[:3]) for expert in (ADA, BOB)]
    view_ids = [office._view(title)["id"] for title in titles]

    def enter(expert: int) -> Any:
        page = chromium_page()
        log_in(page, admin.base_url, people[expert].email, people[expert].password)
        return page

    def go_to_stream(page: Any, expert: int) -> int:
        with page.expect_response(lambda r: "next_task" in r.url) as given:
            page.goto(f"{admin.base_url}/projects/{project}/data?tab={view_ids[expert]}&labeling=1")
        page.get_by_test_id("bottombar-submit-button").wait_for(timeout=60_000)
        page.wait_for_timeout(1500)
        return int(given.value.json()["id"])

    def press(page: Any, what: str) -> tuple[int, int | None]:
        """Status of the submission, and the next task if there is one."""
        came: list[Any] = []
        page.on("response", lambda r: came.append(r) if "next_task" in r.url else None)
        with page.expect_response(lambda r: "/annotations" in r.url and r.request.method == "POST") as sent:
            page.get_by_test_id(f"bottombar-{what}-button").click()
        page.wait_for_timeout(3000)
        return sent.value.status, int(came[-1].json()["id"]) if came and came[-1].ok else None

    # blank canvas: nothing on it, and nobody was asked for a prediction
    ada, bob = enter(ADA), enter(BOB)
    assert go_to_stream(ada, ADA) == t[0]
    assert ada.locator(".lsf-outliner-item").count() == 0
    assert not [path for path in backend.asked if path.endswith("/predict")]

    # what Ada draws is kept as a draft; Bob, the second reader, sees nothing of it
    box = ada.locator("img[alt=image]").first.bounding_box()
    ada.keyboard.press("1")
    ada.mouse.move(box["x"] + 60, box["y"] + 60)
    with ada.expect_response(lambda r: "/drafts" in r.url, timeout=20_000):
        ada.mouse.down()
        ada.mouse.move(box["x"] + 150, box["y"] + 120, steps=6)
        ada.mouse.up()
    [draft] = admin.list_drafts(project, t)
    assert (draft["task"], draft["user"]) == (t[0], people[ADA].email)
    assert go_to_stream(bob, BOB) == t[0]
    assert bob.locator(".lsf-outliner-item").count() == 0
    assert press(ada, "submit") == (201, t[1])
    assert admin.list_drafts(project, t) == []
    assert go_to_stream(bob, BOB) == t[0]
    assert bob.locator(".lsf-outliner-item").count() == 0  # nor of what she submitted
    bob.context.close()

    # the tab changes under an open page, and one task is withdrawn from it
    tab(office, ADA, [t[3]])
    admin.withdraw_tasks(project, [t[1]], people[ADA].id)
    assert press(ada, "submit") == (201, t[2])  # of the old list, without what was withdrawn
    assert go_to_stream(ada, ADA) == t[3]

    # a promotion that leaves the old predictions in place, and one that does not
    Editor(ada, W, H)
    admin.push_predictions(project, [prediction(t[3], REGIONS, 0.5, NEW)])
    admin.set_model_version(project, NEW)
    admin.delete_model_version(project, OLD)
    assert press(ada, "submit") == (400, None)
    assert go_to_stream(ada, ADA) == t[3]
    assert press(ada, "submit") == (201, None)
    assert ada.get_by_text("No More Tasks Left in Queue").is_visible()
    ada.context.close()
    admin.delete_project(project)
