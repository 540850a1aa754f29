"""``cytoloop bench publish``: predictions into the real Label Studio, beside the bare bulk call.

Starts a Label Studio of its own; nothing is asked of one that is in use.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from cytoloop.adapters.assays import load_assay
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.store import Store
from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import FIELDS, machine, write_plate
from cytoloop.commands.processes import find_label_studio
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import make_weak_label
from cytoloop.domain.errors import ConfigError
from cytoloop.domain.simulate.plate import simulate_field
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import Item, StoredPrediction
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.payloads import prediction_result
from labelstudio_config.project import import_tasks, set_up_project
from labelstudio_config.publish import documents_of, push
from labelstudio_config.server import LabelStudioServer, free_port

PREDICTIONS, REPEATS = 1000, 3
BAR = 1.5


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """Pushing a version's predictions, checks and documents included, over the client's bulk call alone."""
    try:
        executable = find_label_studio(None)
    except ConfigError as error:
        return Measured(name="publish", title=f"Publishing: not measured. {error}", figures=())
    with tempfile.TemporaryDirectory(prefix="cytoloop-bench-") as folder, ExitStack() as stack:
        home = Path(folder) / "home"
        server = stack.enter_context(
            LabelStudioServer(
                executable=executable,
                data_dir=Path(folder) / "data",
                document_root=home / "renders",
                port=free_port(),
                username="bench@example.com",
                password=secrets.token_urlsafe(16),
                token=secrets.token_hex(20),
                template_cache=executable.parent.parent.parent / ".cache",
            )
        )
        client = stack.enter_context(LabelStudioClient(server.url, server.token, timeout_s=600.0))
        store = Store(home)
        stack.callback(store.close)
        bench = _prepared(Path(folder), client, store, tell)
        pushed, bare = bench.measure(tell)
    figures = (
        Figure(name="bare bulk call", value=bare, unit="s"),
        Figure(name="publishing", value=pushed / bare, unit="x the bare call", bar=BAR),
    )
    title = f"Publishing {PREDICTIONS} predictions to Label Studio; {machine()}"
    return Measured(name="publish", title=title, figures=figures)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    client: LabelStudioClient
    store: Store
    assay: Assay
    project_id: int
    items: Sequence[Item]
    results: Sequence[StoredPrediction]

    def measure(self, tell: Tell) -> tuple[float, float]:
        """Median seconds of publishing, and of the bare call, in turn."""
        pushed, bare = [], []
        for number in range(REPEATS):
            tell("publish", number, REPEATS)
            version = self._stored(2 * number)
            begun = perf_counter()
            push(self.client, self.store, self.assay, version, self.items)
            pushed.append(perf_counter() - begun)
            self.client.delete_model_version(self.project_id, version)
            version = self._stored(2 * number + 1)
            documents = documents_of(self.store, self.assay, version, self.items)
            begun = perf_counter()
            self.client.push_predictions(self.project_id, documents)
            bare.append(perf_counter() - begun)
            self.client.delete_model_version(self.project_id, version)
        tell("publish", REPEATS, REPEATS)
        return median(pushed), median(bare)

    def _stored(self, number: int) -> str:
        """A version that the store has the predictions of, and Label Studio has not."""
        version = f"cdl-20240517-{number:08x}"
        self.store.predictions.put(
            self.assay.name,
            [
                StoredPrediction(
                    version=version,
                    item=one.item,
                    score=one.score,
                    confidence=one.confidence,
                    reason=one.reason,
                    result=one.result,
                )
                for one in self.results
            ],
        )
        return version


def _prepared(folder: Path, client: LabelStudioClient, store: Store, tell: Tell) -> _Bench:
    """A plate with its tasks and views in Label Studio, and masks of every item."""
    assay = load_assay("rosella")
    tiles = assay.tiling[0] * assay.tiling[1]
    images = [simulate_field("reference-1", 1, index).image_CHW for index in range(FIELDS)]
    masks = [make_weak_label(image.astype(np.float32), "", assay.cip).mask_HW for image in images]
    write_plate(folder / "plate", images, PREDICTIONS // tiles)
    store.assays.ensure(assay)
    records = store.images.add(assay, read_plate(folder / "plate", assay))
    project_id = set_up_project(client, store, assay)
    import_tasks(client, store, assay, tell)
    results = [
        StoredPrediction(
            version="",
            item=Item(image_id=record.image_id, tile=tile.index),
            score=0.5,
            confidence=0.5,
            reason="",
            result=prediction_result(masks[number % FIELDS][tile.slices], assay),
        )
        for number, record in enumerate(records)
        for tile in tiles_of(record.height, record.width, assay.tiling)
    ]
    items = [one.item for one in results]
    bench = _Bench(
        client=client, store=store, assay=assay, project_id=project_id, items=items, results=results
    )
    # the views of all items are drawn once and stay: a version that comes into force finds them
    push(client, store, assay, bench._stored(2 * REPEATS), items)
    client.delete_model_version(project_id, f"cdl-20240517-{2 * REPEATS:08x}")
    return bench
