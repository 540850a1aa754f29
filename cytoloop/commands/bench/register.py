"""``cytoloop bench``: what the speed is, and how often a contest errs, beside the bar it has to meet.

A benchmark is a function that returns figures. It measures; it does not judge: a bar that is missed on a
busy or small machine is told, and the command still ends well.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np

from cytoloop.adapters.store import Scored, Store
from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.home import find_assay
from cytoloop.domain.assay import Assay
from cytoloop.domain.errors import InputError
from cytoloop.domain.queue_policy import QueuePolicy
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, Lease, Split
from cytoloop.domain.worklist import Candidate, choose_batch, lot_of


def run_benchmarks(names: Sequence[str], options: BenchOptions, tell: Tell) -> list[Measured]:
    """Run some benchmarks, or all.

    Raises
    ------
    InputError
        If there is no benchmark of a name.
    """
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise InputError(f"benchmark {unknown[0]!r} is not known; expected one of {list(BENCHMARKS)}")
    return [BENCHMARKS[name](options, tell) for name in (names or BENCHMARKS)]


# --- worklist: a queue over a million items --------------------------------------------------------------

IMAGE_HW = (512, 680)
FIELDS, WELLS = 9, 384
"""Fields a well and wells a plate."""
FEATURES = 128
IMAGES_AT_ONCE = 20_000
CALLS = 50
CLIENTS = 20
BATCH = 40
HELD_BY_OTHERS = 250
"""Experts who hold a batch already: some 10,000 leases."""
POOL: tuple[tuple[Split, Literal["rank", "lot"], int], ...] = (
    ("train", "rank", 4 * BATCH),
    ("train", "lot", BATCH),
    ("contest", "lot", BATCH),
    ("validation", "lot", BATCH),
    ("sealed", "lot", BATCH),
)
"""What a batch is chosen from: the first of each split, by rank and by lot."""
QUEUE, STRATEGY = "main", "entropy"
OLD, NEW = "cdl-20240517-00000001", "cdl-20240518-00000002"
WORKLIST_MS, TRANSACTION_MS, RESCORING_S, MEMORY_GB = 20.0, 20.0, 30.0, 1.0


def bench_worklist(options: BenchOptions, tell: Tell) -> Measured:
    """A queue over many items: the list, claims of several clients at once, and scoring everything anew."""
    with tempfile.TemporaryDirectory(prefix="cytoloop-bench-") as folder:
        store = Store(Path(folder))
        try:
            assay = find_assay(Path(folder), "rosella")
            records = _fill(store, assay, options.items, tell)
            count = store.scores.put(assay.name, OLD, STRATEGY, _scored(assay, records, OLD, tell))
            claims = _claims(Path(folder), store, assay, tell)
            figures = (*_lists(Path(folder), store, assay), *claims, *_rescoring(store, assay, records, tell))
        finally:
            store.close()
    title = (
        f"Worklists over {count:,} items, {HELD_BY_OTHERS * BATCH:,} leases; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the end"
    )
    return Measured(name="worklist", title=title, figures=figures)


def _fill(store: Store, assay: Assay, items: int, tell: Tell) -> list[tuple[ImageRecord, int]]:
    """Plates of images that exist in no file, each with a task an item; (record, number of tiles)."""
    store.assays.ensure(assay)
    height, width = IMAGE_HW
    tiles = len(tiles_of(height, width, assay.tiling))
    images = -(-items // tiles)
    filled: list[tuple[ImageRecord, int]] = []
    for start in range(0, images, IMAGES_AT_ONCE):
        stop = min(start + IMAGES_AT_ONCE, images)
        tell("fill", start, images)
        added = store.images.add(assay, [_record(number) for number in range(start, stop)])
        store.images.set_tasks(
            assay.name,
            {
                Item(image_id=record.image_id, tile=tile): 1 + (start + n) * tiles + tile
                for n, record in enumerate(added)
                for tile in range(tiles)
            },
        )
        filled += [(record, tiles) for record in added]
    tell("fill", images, images)
    return filled


def _record(number: int) -> ImageRecord:
    field = number % FIELDS
    well = number // FIELDS % WELLS
    plate = f"P{number // FIELDS // WELLS:03d}"
    name = f"{chr(ord('A') + well // 24)}{well % 24 + 1:02d}"
    image_id = f"{plate}-{name}-f{field}"
    return ImageRecord(
        image_id=image_id,
        image_key=f"{number:064x}",
        files=(f"/plates/{image_id}.tif",),
        height=IMAGE_HW[0],
        width=IMAGE_HW[1],
        plate=plate,
        well=name,
        field=str(field),
        treatment="",
        group=f"{plate}-{name}",
    )


def _scored(
    assay: Assay, records: Sequence[tuple[ImageRecord, int]], version: str, tell: Tell
) -> Iterator[Scored]:
    """What a network would say, drawn at random; another draw for another version."""
    rng = np.random.default_rng(int(version[-8:], 16))
    for number, (record, tiles) in enumerate(records):
        if number % 1000 == 0:
            tell(f"score {version}", number, len(records))
        features_TF = rng.standard_normal((tiles, FEATURES), np.float32)
        features_TF /= np.sqrt((features_TF**2).sum(axis=1, keepdims=True))
        drawn_TS = rng.random((tiles, 7)).tolist()
        for tile in range(tiles):
            item = Item(image_id=record.image_id, tile=tile)
            entropy, margin, information, disagreement, augmentation, effort, minutes = drawn_TS[tile]
            candidate = Candidate(
                item=item,
                split=record.split,
                group=record.group,
                plate=record.plate,
                score=entropy,
                confidence=1.0 - entropy,
                lot=lot_of(assay.name, item),
                minutes=10 * minutes,
                features_F=features_TF[tile],
            )
            values = {
                "entropy": entropy,
                "margin": margin,
                "mutual-information": information,
                "disagreement": disagreement,
                "augmentation": augmentation,
                "effort": effort,
            }
            reason = f"{round(20 * disagreement)} objects differ from the CIP; est. {10 * minutes:.0f} min"
            yield Scored(candidate=candidate, values=values, reason=reason)
    tell(f"score {version}", len(records), len(records))


def _lists(home: Path, store: Store, assay: Assay) -> list[Figure]:
    """The list of an expert who holds nothing yet: all of it is looked up."""
    held = store.worklist.of(assay.name, QUEUE, _other(0), OLD, STRATEGY, 100)
    if sum(one.lease is not None for one in held) != BATCH or len(held) != 100:
        raise InputError(f"bench: {len(held)} items listed, expected 100 and {BATCH} of them held")
    fresh = Store(home)
    try:
        first, *further = [_timed_list(fresh, assay) for _ in range(CALLS + 1)]
    finally:
        fresh.close()
    return [
        Figure(name="worklist of 100, first call", value=1e3 * first, unit="ms", bar=WORKLIST_MS),
        *_spread("worklist of 100", further, WORKLIST_MS),
    ]


def _timed_list(store: Store, assay: Assay) -> float:
    begun = time.perf_counter()
    store.worklist.of(assay.name, QUEUE, "new@example.com", OLD, STRATEGY, 100)
    return time.perf_counter() - begun


def _claims(home: Path, store: Store, assay: Assay, tell: Tell) -> list[Figure]:
    """Claims of one after another, whose transactions are timed; then of many clients at once."""
    policy = QueuePolicy(size=BATCH)
    alone: list[float] = []
    for number in range(HELD_BY_OTHERS):
        tell("claim", number, HELD_BY_OTHERS)
        _claim(store, assay, policy, _other(number), alone)
    tell("claim", HELD_BY_OTHERS, HELD_BY_OTHERS)
    taken: list[float] = []
    leases: list[Lease] = []
    failures: list[BaseException] = []
    together, turn = threading.Barrier(CLIENTS), threading.Lock()

    def client(number: int) -> None:
        own = Store(home)
        try:
            together.wait()
            begun = time.perf_counter()
            with turn:  # as the server does: two who choose from the same list get in each other's way
                leases.extend(_claim(own, assay, policy, f"client-{number}@example.com", []))
            taken.append(time.perf_counter() - begun)
        except BaseException as error:
            failures.append(error)
        finally:
            own.close()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    if failures:
        raise failures[0]
    double = len(leases) - len(Counter(lease.item for lease in leases))
    return [
        *_spread(f"transaction of a claim of {BATCH}", alone, TRANSACTION_MS),
        *_spread(f"claim of {BATCH}, {CLIENTS} clients at once", taken, None),
        Figure(name="items short of what was asked", value=CLIENTS * BATCH - len(leases), unit="", bar=0),
        Figure(name="items handed out twice", value=double, unit="", bar=0),
    ]


def _claim(store: Store, assay: Assay, policy: QueuePolicy, expert: str, timed: list[float]) -> list[Lease]:
    """A batch for an expert: choose, claim, and choose again where others were quicker."""
    given: list[Lease] = []
    while len(given) < BATCH:
        pool: dict[Item, Candidate] = {}
        for split, by, limit in POOL:
            found = store.worklist.open_items(assay.name, OLD, STRATEGY, split, limit, by=by, expert=expert)
            pool.update((one.item, one.candidate) for one in found)
        choices = choose_batch(pool.values(), policy, count=BATCH - len(given), seed=expert)
        if not choices:
            break
        until = datetime.now(UTC) + timedelta(minutes=policy.lease_minutes)
        begun = time.perf_counter()
        leases = store.leases.claim(
            assay.name, QUEUE, expert, choices, until, policy.most_held, strategy=STRATEGY, version=OLD
        )
        timed.append(time.perf_counter() - begun)
        store.worklist.note(assay.name, [lease.item for lease in leases])
        given += leases
    return given


def _rescoring(
    store: Store, assay: Assay, records: Sequence[tuple[ImageRecord, int]], tell: Tell
) -> list[Figure]:
    """A new version's scores of everything, indexes included, and the old one's dropped."""
    begun, worked = time.perf_counter(), time.process_time()
    store.scores.put(assay.name, NEW, STRATEGY, _scored(assay, records, NEW, tell))
    store.scores.forget(assay.name, OLD)
    taken, worked = time.perf_counter() - begun, time.process_time() - worked
    return [
        Figure(name="re-scoring all", value=taken, unit="s", bar=RESCORING_S),
        Figure(name="processor time of re-scoring all", value=worked, unit="s"),
        Figure(name="peak memory of the process", value=_peak_gb(), unit="GB", bar=MEMORY_GB),
    ]


def _other(number: int) -> str:
    return f"other-{number}@example.com"


def _spread(name: str, seconds: Sequence[float], bar_ms: float | None) -> list[Figure]:
    """Median and 99th percentile, in ms."""
    return [
        Figure(
            name=f"{name}, {what}", value=1e3 * float(np.percentile(seconds, share)), unit="ms", bar=bar_ms
        )
        for what, share in (("median", 50), ("p99", 99))
    ]


def _peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes on macOS, kilobytes on Linux


# --- scores: what doubt costs ------------------------------------------------------------------------------

SCORE_BAR, PASSES_BAR = 1.2, 6.0


def bench_scores(_: BenchOptions, tell: Tell) -> Measured:
    """What each score costs beside a plain prediction of the same image, on a CPU."""
    from cytoloop.commands.bench.scores import score_costs

    costs = score_costs(tell)
    plain = costs.pop("plain prediction")
    bars = {"entropy, effort and reason": SCORE_BAR, "eight whole passes": PASSES_BAR}
    ratios = (
        Figure(name=name, value=seconds / plain, unit="x a prediction", bar=bars.get(name))
        for name, seconds in costs.items()
    )
    title = (
        f"Scores of a field of 680 x 512, width 16; processor time, load {os.getloadavg()[0]:.1f} at the end"
    )
    told = Figure(name="plain prediction", value=plain, unit="s")
    return Measured(name="scores", title=title, figures=(told, *ratios))


# --- contest: who is promoted by chance, and who is not although better -----------------------------------------


def bench_contest(_: BenchOptions, tell: Tell) -> Measured:
    """How often 30 cycles without any gain promote something, and how often a real gain is promoted."""
    from cytoloop.commands.bench.contest import REIGNS, contest_figures

    figures = contest_figures(tell)
    title = f"Contests on simulated wells, {REIGNS:,} histories of 30 cycles without a gain for each rate"
    return Measured(name="contest", title=title, figures=tuple(figures))


# --- serving: eight clients, with a training beside ------------------------------------------------------------


def bench_serving(options: BenchOptions, tell: Tell) -> Measured:
    """How quickly the backend answers while a training and a re-scoring run; what it loses, and what it grows by."""
    from cytoloop.commands.bench.serving import CLIENTS as ASKING
    from cytoloop.commands.bench.serving import serving_figures

    figures = serving_figures(options.minutes, tell)
    title = (
        f"{ASKING} clients at once, {options.minutes:g} min of mixed requests, a training and a re-scoring beside; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    )
    return Measured(name="serving", title=title, figures=tuple(figures))


def bench_uncached(_: BenchOptions, tell: Tell) -> Measured:
    """How quickly items without a stored prediction are served, and whether the server answers meanwhile."""
    from cytoloop.commands.bench.uncached import uncached_figures

    figures = uncached_figures(tell)
    title = f"Items that are computed as they are asked for; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    return Measured(name="uncached", title=title, figures=tuple(figures))


# --- further ones, in modules of their own ------------------------------------------------------------------------


def _of_module(name: str) -> Callable[[BenchOptions, Tell], Measured]:
    """``measure`` of a module here, which is imported once it is asked for."""

    def run(options: BenchOptions, tell: Tell) -> Measured:
        measured: Measured = import_module(f"cytoloop.commands.bench.{name}").measure(options, tell)
        return measured

    return run


BENCHMARKS: Mapping[str, Callable[[BenchOptions, Tell], Measured]] = {
    "worklist": bench_worklist,
    "scores": bench_scores,
    "contest": bench_contest,
    "serving": bench_serving,
    "uncached": bench_uncached,
    "codec": _of_module("codec"),
    "engine": _of_module("engine"),
    "prediction": _of_module("prediction"),
    "publish": _of_module("publish"),
    "step": _of_module("step"),
    "cip": _of_module("cip"),
}
"""Function by name."""
