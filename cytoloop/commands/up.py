"""``cytoloop up``: everything on this machine, started, filled, watched, stopped in order."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cytoloop.adapters.assays import shipped_folder
from cytoloop.adapters.images import write_atomically
from cytoloop.adapters.plates import label_folder
from cytoloop.commands.home import Home, find_assay
from cytoloop.commands.importing import ImportSummary, Tell, import_plate
from cytoloop.commands.processes import (
    Child,
    choose_port,
    clear_state,
    ensure_secrets,
    find_label_studio,
    label_studio_server,
    running_up,
    start_backend,
    write_state,
)
from cytoloop.commands.reference import Truth, submit_reference
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.config import Settings, write_local
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import ExternalError, StateError
from cytoloop.domain.queue_policy import SHARED
from cytoloop.domain.types import HELD_OUT
from labelstudio_config.batches import holders
from labelstudio_config.project import connect, set_up_project
from labelstudio_config.ranking import policies_of

DEMO_ASSAY = "rosella"
DEMO_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """What ``up`` was asked for."""

    demo: bool = False
    data: Path | None = None
    assay: str | None = None
    images: int = 40
    port: int | None = None
    backend_port: int | None = None
    label_studio: Path | None = None
    train: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a person goes next."""

    label_studio: str
    user: str | None
    password: str | None
    worklists: dict[str, str]
    backend: str
    """Of the dashboard, too."""
    admin_token: str
    """With which an administrator logs in there."""


class Stack:
    """The running processes of one home."""

    def __init__(self, home: Home, children: dict[str, Child], label_studio_pid: int | None) -> None:
        self.home = home
        self.children = children
        self.label_studio_pid = label_studio_pid

    def add(self, child: Child) -> None:
        """Watch one more child."""
        self.children[child.name] = child
        self.note()

    def stop(self) -> None:
        """Stop the children, the last started first."""
        for child in reversed(self.children.values()):
            child.stop()

    def note(self) -> None:
        """Write down who runs."""
        pids = {name: child.pid for name, child in self.children.items()}
        if self.label_studio_pid:
            pids["label-studio"] = self.label_studio_pid
        write_state(self.home.settings.home, pids)

    def check(self) -> None:
        """Raise ``ExternalError`` if a child has ended by itself."""
        for child in self.children.values():
            if child.exit_code is not None:
                raise ExternalError(f"{child.name} ended with code {child.exit_code}: …{child.tail()}")


@contextmanager
def running_stack(
    home_folder: Path, options: UpOptions, say: Callable[[str], None], environ: Mapping[str, str] = os.environ
) -> Iterator[Stack]:
    """Label Studio and the backend, up for the length of the block.

    Raises
    ------
    StateError
        If this home is served already.
    """
    home_folder = home_folder.absolute()
    other = running_up(home_folder)
    if other is not None:
        raise StateError(f"{home_folder} is served by process {other} already; stop it with Ctrl-C there")
    local = ensure_secrets(home_folder)
    with ExitStack() as stack:
        stack.callback(clear_state, home_folder)
        label_studio_pid = None
        if not environ.get("CYTOLOOP_LABEL_STUDIO_URL"):
            executable = find_label_studio(options.label_studio)
            port = choose_port(home_folder, "label_studio_port", options.port)
            say("starting Label Studio (the first start of a version takes a minute)")
            server = label_studio_server(home_folder, local, executable, port)
            stack.enter_context(server)
            label_studio_pid = server.pid
            write_local(home_folder, {"label_studio_url": server.url})
        backend_port = choose_port(home_folder, "backend_port", options.backend_port)
        write_local(home_folder, {"backend_url": f"http://127.0.0.1:{backend_port}"})
        home = Home(Settings.from_env(environ, home_folder))
        stack.callback(home.close)
        running = Stack(home, {}, label_studio_pid)
        stack.callback(running.stop)
        running.note()
        say("starting the backend")
        running.add(start_backend(home.settings, backend_port))
        yield running


DEMO_TRAINER = """
# A demonstration plate is small: its contests are decided by fewer wells than a real one's (12, each class in 8).
trainer:
  contest: {min_groups: 4, min_class_groups: 4}
"""


def demo_assay(home_folder: Path) -> Assay:
    """The demo's assay, as a file of the home: the shipped one, with contests that a small plate can decide."""
    path = home_folder / "assays" / f"{DEMO_ASSAY}.yaml"
    if not path.is_file():
        shipped = (shipped_folder() / path.name).read_text(encoding="utf-8")
        write_atomically(path, lambda new: new.write_text(shipped + DEMO_TRAINER, encoding="utf-8"))
    return find_assay(home_folder, DEMO_ASSAY)


def fill(home: Home, options: UpOptions, tell: Tell) -> tuple[Assay, Path, ImportSummary] | None:
    """Import what was asked for: the demo plate, a folder, or nothing."""
    if options.demo:
        assay = demo_assay(home.settings.home)
        source = home.settings.home / "plates" / "demo"
        simulate_plate_command(
            source,
            "rosella",
            options.images,
            DEMO_SEED,
            lambda done, total: tell("simulate plate", done, total),
        )
    elif options.data is not None:
        assay = find_assay(home.settings.home, options.assay or DEMO_ASSAY)
        source = options.data
    else:
        return None
    return assay, source, import_plate(home, source, assay, tell)


def reconnect(home: Home) -> None:
    """Bring every assay's project into shape: addresses may have changed since the last time."""
    for name in home.store.assays.names():
        assay = home.load(name)
        set_up_project(home.label_studio, home.store, assay)
        connect(home.label_studio, home.store, assay, home.settings)


def give_reference(home: Home, assay: Assay, source: Path, tell: Tell) -> int:
    """Where the plate brings masks along, annotate the held-out wells with them.

    Without corrected contest wells no model can win a contest; where truth is at hand, nobody
    should have to draw it again.
    """
    if label_folder(source) is None:
        return 0
    return submit_reference(home, assay, Truth(source, assay), HELD_OUT, 1, tell)


def start_trainer(stack: Stack) -> Child:
    """Start the trainer process beside the stack."""
    trainer = Child("trainer", ["trainer"], stack.home.settings.home)
    stack.add(trainer)
    return trainer


def ask_first_cycle(home: Home, assay: Assay) -> str | None:
    """Ask for a first cycle; None if one was done before."""
    if any(cycle["state"] == "done" for cycle in home.store.cycles.all(assay.name)):
        return None
    return home.store.cycles.ask(assay.name, "up")


def follow(stack: Stack, cycle_id: str, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Follow a cycle of the trainer to its end."""
    while True:
        row = stack.home.store.cycles.get(cycle_id)
        if row["outcome"] == "abandoned":  # tried again under another id
            cycle_id = stack.home.store.cycles.ask(row["assay"], "up")
            continue
        tell(row["step"], row["progress"])
        if row["state"] in ("done", "failed"):
            return row
        stack.check()
        time.sleep(0.5)


def address(home: Home) -> Address:
    """Where to go next."""
    url = home.settings.people_url()
    local = ensure_secrets(home.settings.home)
    worklists = {}
    for name in home.store.assays.names():
        project_id = home.store.assays.get(name)["project_id"]
        for queue, policy in policies_of(home.store, home.load(name)).items():
            for holder in holders(policy):
                tab = home.store.handouts.tab(name, queue, holder)
                if tab is not None:
                    whose = f"{name}/{queue}" if holder == SHARED else f"{name}/{queue} {holder}"
                    worklists[whose] = f"{url}/projects/{project_id}/data?tab={tab.view_id}&labeling=1"
    own = home.settings.label_studio_token == local["label_studio_token"]
    return Address(
        label_studio=url,
        user=local["label_studio_user"] if own else None,
        password=local["label_studio_password"] if own else None,
        worklists=worklists,
        backend=home.settings.backend_url or "",
        admin_token=local["admin_token"],
    )


def watch(stack: Stack, stop_after_s: float | None = None) -> None:
    """Stay until Ctrl-C or SIGTERM; raise if a child ends by itself."""
    begun = time.monotonic()
    while stop_after_s is None or time.monotonic() - begun < stop_after_s:
        stack.check()
        time.sleep(0.5)


def end_on_signals() -> None:
    """Let SIGTERM end the block as Ctrl-C does, so that children are stopped in order.

    SIGINT too: a shell that starts us in the background has it ignored.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
