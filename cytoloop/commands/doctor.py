"""``cytoloop doctor``: is everything in place, and if not, what mends it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import httpx
import numpy as np
from PIL import Image

from cytoloop.adapters.images import read_image
from cytoloop.commands.home import Home
from cytoloop.config import KEY_FILE, LOCAL_FILE
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import CytoloopError
from cytoloop.domain.tiling import tiles_of
from labelstudio_config.completeness import compare
from labelstudio_config.payloads import parse_task_data
from labelstudio_config.project import EVENTS, SECRET_HEADER
from labelstudio_config.rle import decode_rle, encode_rle
from labelstudio_config.schema import check_label_config

State = Literal["ok", "warning", "failed"]
TESTED_LABEL_STUDIO = "1.23.2"
LOW_DISK = 2 * 1024**3
SHORTEST_SECRET = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    detail: str
    fix: str = ""


def run_doctor(home: Home, deep: bool = False) -> Iterator[Check]:
    """Look at everything, one check after the other; a failing one does not stop the rest.

    Parameters
    ----------
    deep : bool
        Compare every annotation in Label Studio with the store, and read every mask: minutes for thousands.
    """
    yield _disk(home)
    yield _secrets(home)
    yield _databases(home)
    yield _mask_round_trip()
    yield _label_studio(home)
    yield _backend(home)
    for name in home.store.assays.names():
        try:
            assay = home.load(name)
        except CytoloopError as error:
            yield Check(name=f"{name}: assay file", state="failed", detail=str(error), fix="correct the file")
            continue
        for look, what, fix in _ASSAY_CHECKS:
            yield _guarded(f"{name}: {what}", fix, look, home, assay)
        if deep:
            for look, what, fix in _DEEP_CHECKS:
                yield _guarded(f"{name}: {what}", fix, look, home, assay)
    yield _inbox(home)


def _guarded(name: str, fix: str, look: Callable[[Home, Assay], str], home: Home, assay: Assay) -> Check:
    try:
        return Check(name=name, state="ok", detail=look(home, assay))
    except (CytoloopError, httpx.HTTPError, OSError) as error:
        return Check(name=name, state="failed", detail=str(error), fix=fix)


def _disk(home: Home) -> Check:
    free = shutil.disk_usage(home.settings.home).free
    detail = f"{free / 1024**3:.1f} GiB free at {home.settings.home}"
    if free < LOW_DISK:
        return Check(name="disk", state="warning", detail=detail, fix="make room: corrections need it")
    return Check(name="disk", state="ok", detail=detail)


def _secrets(home: Home) -> Check:
    """Whether what proves callers is long enough, in force alone, and read by its owner alone."""
    settings, name = home.settings, "secrets"
    files = [settings.home / LOCAL_FILE, settings.home / KEY_FILE, settings.api_tokens]
    for path in files:
        if path is not None and path.is_file() and path.stat().st_mode & 0o077:
            return Check(
                name=name,
                state="warning",
                detail=f"{path}: mode {path.stat().st_mode & 0o777:04o}, others may read it",
                fix=f"chmod 600 {path}, then `cytoloop rotate-secrets`",
            )
    if settings.backend_passwords_before or settings.webhook_secrets_before:
        return Check(
            name=name,
            state="warning",
            detail="a rotation is not finished: the secrets before are taken, too",
            fix="`cytoloop rotate-secrets`; then take the old one out of the environment, if it is set there",
        )
    short = [
        variable
        for variable, value in (
            ("CYTOLOOP_BACKEND_PASSWORD", settings.backend_password),
            ("CYTOLOOP_WEBHOOK_SECRET", settings.webhook_secret),
        )
        if value is not None and len(value) < SHORTEST_SECRET
    ]
    if short:
        return Check(
            name=name,
            state="warning",
            detail=f"{', '.join(short)}: shorter than {SHORTEST_SECRET} characters",
            fix="`cytoloop rotate-secrets` makes long ones; those of the environment are changed there",
        )
    return Check(name=name, state="ok", detail="long enough, none from before, read by their owner alone")


def _databases(home: Home) -> Check:
    problems = home.store.check()
    if problems:
        return Check(
            name="databases", state="failed", detail="; ".join(problems), fix="restore a backup of the home"
        )
    return Check(name="databases", state="ok", detail="PRAGMA quick_check of all three: ok")


def _mask_round_trip() -> Check:
    rng = np.random.default_rng(0)
    mask_HW = (rng.random((256, 340)) > 0.9).astype(np.uint8) * 255
    same = np.array_equal(decode_rle(encode_rle(mask_HW), 256, 340), mask_HW)
    return Check(
        name="mask round trip",
        state="ok" if same else "failed",
        detail="a random 340 x 256 mask through the brush RLE and back",
        fix="" if same else "report this: the codec is broken",
    )


def _label_studio(home: Home) -> Check:
    name = "Label Studio"
    try:
        who = home.label_studio.whoami()
        version = home.label_studio.version()
    except CytoloopError as error:
        return Check(
            name=name,
            state="failed",
            detail=str(error),
            fix="start it with `cytoloop up`, or correct CYTOLOOP_LABEL_STUDIO_URL and CYTOLOOP_LABEL_STUDIO_TOKEN",
        )
    detail = f"version {version}, token of {who.get('email')}"
    if version != TESTED_LABEL_STUDIO:
        return Check(
            name=name,
            state="warning",
            detail=detail,
            fix=f"tested with {TESTED_LABEL_STUDIO}; watch the first submits",
        )
    return Check(name=name, state="ok", detail=detail)


def _backend(home: Home) -> Check:
    url = home.settings.backend_url
    if url is None:
        return Check(
            name="backend", state="failed", detail="CYTOLOOP_BACKEND_URL is not set", fix="run `cytoloop up`"
        )
    auth = (home.settings.backend_user, home.settings.backend_password or "")
    try:
        answer = httpx.get(f"{url}/health", auth=auth, timeout=3.0, trust_env=False)
    except httpx.HTTPError as error:
        return Check(
            name="backend",
            state="failed",
            detail=f"{url}: {error}",
            fix="start it: `cytoloop up` or `cytoloop backend`",
        )
    if answer.status_code != 200:
        return Check(
            name="backend",
            state="failed",
            detail=f"{url}/health: {answer.status_code}",
            fix="CYTOLOOP_BACKEND_PASSWORD here and in the backend must agree",
        )
    if b'"cytoloop"' not in answer.content:  # Label Studio itself answers /health with 200
        return Check(
            name="backend",
            state="failed",
            detail=f"{url}/health: answered by another program",
            fix="another program has the port: stop it, or start the backend on another one",
        )
    return Check(
        name="backend", state="ok", detail=f"{url} answers in {answer.elapsed.total_seconds():.3f} s"
    )


def _project(home: Home, assay: Assay) -> str:
    row = home.store.assays.get(assay.name)
    project = home.label_studio.get_project(row["project_id"])
    check_label_config(project["label_config"], assay)
    return f"project {row['project_id']}, labels as in the assay"


def _version_in_force(home: Home, assay: Assay) -> str:
    row = home.store.assays.get(assay.name)
    shown = home.label_studio.get_project(row["project_id"]).get("model_version")
    if shown != row["active_version"]:
        raise _Found(f"Label Studio shows {shown!r}, the store has {row['active_version']!r} in force")
    held = home.label_studio.model_versions(row["project_id"])
    return f"{shown}, {held.get(shown, 0)} predictions in Label Studio"


def _webhook(home: Home, assay: Assay) -> str:
    row = home.store.assays.get(assay.name)
    if home.settings.webhook_secret is None:
        raise _Found("CYTOLOOP_WEBHOOK_SECRET is not set: events would be taken from anyone")
    wanted = f"{home.settings.backend_url}/webhook"
    for hook in home.label_studio.list_webhooks(row["project_id"]):
        if hook["url"] == wanted and hook["is_active"]:
            if hook["headers"].get(SECRET_HEADER) != home.settings.webhook_secret:
                raise _Found(f"webhook {hook['id']} carries no or another secret")
            missing = set(EVENTS) - set(hook["actions"])
            if missing and not hook["send_for_all_actions"]:
                raise _Found(f"webhook {hook['id']} is not sent for {sorted(missing)}")
            return f"webhook {hook['id']} to {wanted}, with the secret"
    raise _Found(f"no active webhook to {wanted}")


def _image_access(home: Home, assay: Assay) -> str:
    tasks = home.store.images.tasks(assay.name)
    item, task_id = next(((item, task) for item, task in tasks.items() if task is not None), (None, None))
    if item is None or task_id is None:
        return "no task yet"
    data = parse_task_data(home.label_studio.get_task(task_id)["data"], f"task {task_id}")
    record = home.store.images.get(assay.name, item.image_id)
    tile = tiles_of(record.height, record.width, assay.tiling)[item.tile]
    for url in (data.image, *data.channels):
        with Image.open(io.BytesIO(home.label_studio.download(url))) as view:
            if view.size != (tile.width, tile.height):
                raise _Found(f"task {task_id}: {url} is {view.size}, tile is {(tile.width, tile.height)}")
    read_image(record, assay)
    return (
        f"task {task_id}: {1 + len(data.channels)} views of {tile.width} x {tile.height}, raw file readable"
    )


class _Found(CytoloopError):
    """A check found something wrong."""


_ASSAY_CHECKS: tuple[tuple[Callable[[Home, Assay], str], str, str], ...] = (
    (_project, "labeling config", "run `cytoloop import` or `cytoloop up` again: it repairs the project"),
    (_version_in_force, "version in force", "run `cytoloop cycle`: it finishes what was interrupted"),
    (_webhook, "webhook", "run `cytoloop up` or `cytoloop import` again: it sets the webhook"),
    (_image_access, "image access", "Label Studio's document root must be the home's renders/ folder"),
)


def _completeness(home: Home, assay: Assay) -> str:
    found = compare(home.store, home.label_studio, assay)
    if not found.is_complete:
        raise _Found(
            f"{len(found.missing)} annotation(s) lack in the store, {len(found.different)} differ, "
            f"{len(found.undeleted)} are deleted in Label Studio alone; the first: {found.wrong[0]}"
        )
    unreadable = f", {len(found.unreadable)} in doubt: no mask of this assay" if found.unreadable else ""
    return (
        f"{found.equal} of {found.annotations} annotations of {found.tasks} tasks are in the store bit by bit"
        f"{unreadable}"
    )


def _masks(home: Home, assay: Assay) -> str:
    digests = {row["mask"] for row in home.store.corrections.revisions(assay.name) if row["mask"] is not None}
    for digest in sorted(digests):
        home.store.masks.get(digest)
    return f"{len(digests)} masks of corrections read, each as its digest says"


_DEEP_CHECKS: tuple[tuple[Callable[[Home, Assay], str], str, str], ...] = (
    (
        _completeness,
        "store against Label Studio",
        "the trainer's first look brings it in (restart it); if it is still so afterwards, report it",
    ),
    (_masks, "masks", "restore a backup of the home (`cytoloop restore`)"),
)


def _inbox(home: Home) -> Check:
    waiting = home.store.inbox.last() - home.store.corrections.last_event()
    doubts = home.store.corrections.doubts()
    if doubts:
        latest = doubts[-1]
        return Check(
            name="inbox",
            state="warning",
            detail=f"{len(doubts)} event(s) could not be stored; the latest: {latest['reference']}: {latest['message']}",
            fix="look at these tasks in Label Studio",
        )
    return Check(name="inbox", state="ok", detail=f"{waiting} event(s) waiting, none in doubt")
