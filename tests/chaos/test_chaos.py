"""No acknowledged or submitted correction is lost, and none is kept twice, whatever happens.

Four annotators work in a real Label Studio while events to the backend are dropped, doubled, delayed and re-ordered,
Label Studio, backend and trainer are killed -9, and the home's disk fills. Then it is calm, and the store must hold
what the annotators know they did, bit by bit. ``CYTOLOOP_CHAOS=1000`` submits that many (`make chaos`), and
``CYTOLOOP_CHAOS_SEED`` draws another storm.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotators import Annotator, Ledger
from disks import NoDisk, fill, small_disk
from places import LABEL_STUDIO
from served import PROCESSES, Served, served, staff
from tiny import HEIGHT, WIDTH
from unreliable import UnreliableProxy

from cytoloop.adapters.store import Store
from cytoloop.domain.digest import digest_of_pixels
from cytoloop.domain.errors import ExternalError

CORRECTIONS = int(os.environ.get("CYTOLOOP_CHAOS", "60"))
SEED = int(os.environ.get("CYTOLOOP_CHAOS_SEED", "1"))
ANNOTATORS = 4
TILE = (HEIGHT // 2, WIDTH // 2)
KILLS = 3 + CORRECTIONS // 40
LONGEST_AWAY_S = 2.0
"""A killed process is started again after this at most."""
REFUSED = 3
"""Events that a full disk must have refused before it is freed."""
FULL_AT_MOST_S = 60.0
KILLED_WHILE_FULL = ("backend", "trainer")
CALM_S = 120.0
"""How long the trainer may take to find what is missing, once all is calm."""

pytestmark = [pytest.mark.studio, pytest.mark.timeout(300 + CORRECTIONS)]


@dataclass
class Storm:
    """What is going to happen, when so many corrections are submitted: drawn from the seed."""

    events: list[tuple[float, str]]
    """(corrections, *studio*, *backend*, *trainer* or *disk*), in this order."""
    rng: np.random.Generator = field(repr=False)


def draw_storm(has_disk: bool) -> Storm:
    """Every process is killed, some more than once, and the disk fills about half way."""
    rng = np.random.default_rng(SEED)
    targets = [*PROCESSES, *rng.choice(PROCESSES, KILLS - len(PROCESSES))]
    events = [(float(rng.uniform(0.05, 0.9)) * CORRECTIONS, str(target)) for target in targets]
    if has_disk:
        events.append((float(rng.uniform(0.3, 0.5)) * CORRECTIONS, "disk"))
    return Storm(sorted(events), rng)


def rage(
    storm: Storm, running: Served, proxy: UnreliableProxy, ledger: Ledger, disk: Path | None, is_over: Any
) -> None:
    """Let it all happen."""
    for at, what in storm.events:
        wait_for(lambda at=at: ledger.counts["corrections"] >= at or is_over(), 600.0)
        time.sleep(float(storm.rng.uniform(0, 0.5)))  # so that it is in the middle of something
        if what == "disk":
            assert disk is not None
            fill_for_a_while(disk, running, proxy, is_over)
        else:
            running.kill(what)
            time.sleep(float(storm.rng.uniform(0, LONGEST_AWAY_S)))
            running.start(what)
        running.revive()


def fill_for_a_while(
    disk: Path, running: Served, proxy: UnreliableProxy, is_over: Callable[[], bool]
) -> None:
    """Fill the home's disk until events were refused, kill what writes to it, then make room."""
    ballast = fill(disk)
    try:
        deadline = time.monotonic() + FULL_AT_MOST_S
        while proxy.answers[507] < REFUSED and time.monotonic() < deadline and not is_over():
            time.sleep(0.2)
            fill(disk)
        for name in KILLED_WHILE_FULL:
            running.kill(name)
            with contextlib.suppress(ExternalError, OSError):
                running.start(name, seconds=0)
    finally:
        ballast.unlink()


def wait_for(happened: Callable[[], Any], seconds: float) -> Any:
    """Poll until something is truthy."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A small disk for the home; None where it cannot be had."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(small_disk(tmp_path / "disk", 64 + CORRECTIONS // 4))
        except NoDisk:
            yield None


@pytest.mark.skipif(
    not LABEL_STUDIO.is_file(), reason="no Label Studio in .venv-studio (make test installs it)"
)
def test_no_correction_is_lost_whatever_happens(
    tmp_path: Path, disk: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    ledger = Ledger()
    home_folder = (disk or tmp_path) / "home"
    with (
        served(tmp_path, home_folder, max(16, CORRECTIONS // 16), SEED) as (running, proxy),
        staff(running.home.label_studio, ANNOTATORS) as people,
    ):
        storm = draw_storm(disk is not None)
        assay = running.home.load("tiny")
        tasks = [(task, item) for item, task in running.home.store.images.tasks("tiny").items() if task]
        annotators = [
            Annotator(person, ledger, assay, tasks, TILE, share, (SEED, number))
            for number, (person, share) in enumerate(zip(people, shares(), strict=True))
        ]
        stormy = time.monotonic()
        for annotator in annotators:
            annotator.start()
        try:
            rage(storm, running, proxy, ledger, disk, lambda: not any(a.is_working for a in annotators))
        finally:
            for annotator in annotators:
                annotator.join()
        for annotator in annotators:
            if annotator.failed is not None:
                raise annotator.failed
        proxy.calm()
        calm = time.monotonic()
        told = wait_for_calm(running)
        over = time.monotonic()
        check(ledger, running.home.store, told)
        planned = Counter(what for _, what in storm.events if what != "disk")
        assert running.killed == planned + Counter(KILLED_WHILE_FULL if disk else ())
        if disk is not None:
            assert proxy.answers[507] >= 1, "the full disk refused nothing"
    with capsys.disabled():
        print(summary(ledger, running, proxy, disk, (stormy - begun, calm - stormy, over - calm)))


def shares() -> list[int]:
    """How many corrections each annotator submits."""
    return [len(part) for part in np.array_split(np.arange(CORRECTIONS), ANNOTATORS)]


def wait_for_calm(running: Served) -> dict[str, dict[str, Any]]:
    """The doctor's checks once the trainer has looked and nothing is missing any more; no process is started again."""
    deadline = time.monotonic() + CALM_S
    while True:
        told = running.doctor()
        is_applied = running.home.store.inbox.last() == running.home.store.corrections.last_event()
        if is_applied and told["tiny: store against Label Studio"]["state"] == "ok":
            return told
        assert time.monotonic() < deadline, told["tiny: store against Label Studio"]["detail"]
        time.sleep(1.0)


def check(ledger: Ledger, store: Store, told: dict[str, dict[str, Any]]) -> None:
    """Ledger against store, annotation by annotation and bit by bit."""
    assert [c for c in told.values() if c["state"] == "failed"] == []
    assert told["inbox"]["detail"] == "0 event(s) waiting, none in doubt"
    assert store.check() == []
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in store.corrections.revisions("tiny"):
        rows.setdefault(row["annotation_id"], []).append(row)
    living = store.corrections.living_annotations("tiny")
    expected = {number for number, noted in ledger.annotations.items() if not noted.is_deleted}
    assert expected - set(living) == set(), "lost"
    assert set(living) - expected == set(), "deleted, or never submitted, and there all the same"
    assert set(rows) <= set(ledger.annotations), "never submitted"
    for number, noted in ledger.annotations.items():
        of_annotation = rows.get(number, [])  # none: deleted before anything was told of it
        where = f"annotation {number} of {noted.item} by {noted.expert}"
        for row in of_annotation:
            got = (row["image_id"], row["tile"], row["task_id"], row["expert"])
            assert got == (noted.item.image_id, noted.item.tile, noted.task_id, noted.expert), where
        submitted = {digest_of_pixels(mask_HW) for mask_HW in noted.masks if mask_HW is not None}
        kept = [row["mask"] for row in of_annotation if row["kind"] == "submitted"]
        assert set(kept) <= submitted, f"{where}: a mask that nobody submitted"
        assert len(kept) == len(set(kept)), f"{where}: a mask twice"
        for kind in ("skipped", "deleted"):
            assert [row["kind"] for row in of_annotation].count(kind) <= 1, f"{where}: {kind} twice"
        if noted.is_deleted:
            continue
        latest = max(of_annotation, key=lambda row: (row["annotated_at"], row["id"]))
        mask_HW = noted.masks[-1]
        if mask_HW is None:
            assert (latest["kind"], latest["mask"]) == ("skipped", None), where
        else:
            assert (latest["kind"], latest["mask"]) == ("submitted", digest_of_pixels(mask_HW)), where
            stored_HW = store.masks.get(latest["mask"])
            assert stored_HW.dtype == np.uint8
            assert np.array_equal(stored_HW, mask_HW), where


def summary(
    ledger: Ledger,
    running: Served,
    proxy: UnreliableProxy,
    disk: Path | None,
    seconds: tuple[float, float, float],
) -> str:
    """The storm as a table."""
    counts: Counter[str] = ledger.counts
    rows: list[tuple[str, object]] = [("seed", SEED)]
    rows += [(what, counts[what]) for what in ("corrections", "updates", "deletions", "skips")]
    rows += [(f"{name} killed", running.killed[name]) for name in PROCESSES]
    rows += [(f"{name} ended by itself", count) for name, count in sorted(running.ended.items())]
    rows += [(f"events {fate}", count) for fate, count in sorted(proxy.counts.items())]
    rows += [(f"backend answered {status}", count) for status, count in sorted(proxy.answers.items())]
    rows += [(what, n) for what, n in sorted(counts.items()) if what.startswith(("requests", "found"))]
    rows.append(("disk", "not filled: no small disk to mount" if disk is None else "filled once, then freed"))
    for what, length in zip(("to start", "storm", "until all is there"), seconds, strict=True):
        rows.append((f"seconds {what}", f"{length:.0f}"))
    rows += [("lost", 0), ("doubled", 0)]  # asserted before
    return "\n" + "\n".join(f"{name:<28}{value}" for name, value in rows)
