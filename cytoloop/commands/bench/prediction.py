"""``cytoloop bench prediction``: one prediction end to end, and items that nobody predicted, asked by several clients.

The reference computes as other servers do: one image after another through the network in eager PyTorch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np

from cytoloop.adapters.images import encode_mask, palette_of, read_image
from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store
from cytoloop.commands.bench.engine import engine_for
from cytoloop.commands.bench.figures import BenchOptions, Figure, Measured, Tell
from cytoloop.commands.bench.material import Spent, Taught, in_turn, machine, share, teach, write_plate
from cytoloop.domain.ports import LabelStudio
from cytoloop.domain.tiling import tiles_of
from cytoloop.domain.types import ImageRecord, Item, ModelVersion
from labelstudio_config.payloads import PredictRequest, PredictTask, TaskData, prediction_result

ITEMS, CLIENTS, SERVED_ROUNDS = 20, 4, 3
EAGER_BAR, OWN_BAR, SERVED_BAR = 0.6, 1.3, 0.5
PROJECT = 1


def measure(_: BenchOptions, tell: Tell) -> Measured:
    """The time of a prediction beside bare passes, and of 20 items from 4 clients beside one after another."""
    taught = teach(tell)
    with tempfile.TemporaryDirectory(prefix="cytoloop-bench-") as folder:
        figures = (*_end_to_end(Path(folder), taught, tell), *_served(Path(folder), taught, tell))
    title = f"Predictions of fields of 680 x 512, width 16; {machine()}"
    return Measured(name="prediction", title=title, figures=figures)


def _end_to_end(folder: Path, taught: Taught, tell: Tell) -> list[Figure]:
    import torch

    from cytoloop.nn.normalisation import normalise
    from cytoloop.nn.predict import predict_prob

    engine, normalisation = engine_for(taught.model), taught.config.normalisation
    write_plate(folder / "one", taught.images, 1)
    (record,) = read_plate(folder / "one", taught.assay)
    palette = palette_of(taught.assay)
    image_1CHW = torch.from_numpy(normalise(taught.images[0], normalisation))[None]

    def eager() -> object:
        with torch.inference_mode():
            return taught.model(image_1CHW)

    def whole() -> bytes:
        image_CHW = read_image(record, taught.assay)
        prob_KHW = predict_prob(taught.model, image_CHW, normalisation, engine=engine)
        return encode_mask(prob_KHW.argmax(axis=0).astype(np.uint8), palette)

    spent = in_turn(
        {"eager": eager, "engine": lambda: engine.logits(image_1CHW), "whole": whole}, tell, "one prediction"
    )
    return [
        Figure(name="read, normalise, predict, encode", value=spent["whole"].wall, unit="s"),
        share(
            "its share of the bare pass in eager PyTorch", spent["whole"].wall, spent["eager"].wall, EAGER_BAR
        ),
        share("its share of the engine's bare pass", spent["whole"].wall, spent["engine"].wall, OWN_BAR),
        _by_work("its share of the bare pass in eager PyTorch", spent["whole"], spent["eager"]),
        _by_work("its share of the engine's bare pass", spent["whole"], spent["engine"]),
    ]


# --- items that nobody predicted -----------------------------------------------------------------------


def _served(folder: Path, taught: Taught, tell: Tell) -> list[Figure]:
    """The same 20 items asked of the server by clients at once, and predicted one after another.

    The reference reads and predicts the field of each item, of which it takes the item. So does the server, but
    once for all items of a field, and it ranks them too. What a reference would need that may predict the item
    alone, with percentiles and borders of its own, is told beside it.
    """
    import torch

    from cytoloop.nn.normalisation import normalise
    from ml_backend.active_model import ActiveModel
    from ml_backend.service import Backend

    assay, normalisation = taught.assay, taught.config.normalisation
    tiles = assay.tiling[0] * assay.tiling[1]
    write_plate(folder / "few", taught.images, ITEMS // tiles)
    records = read_plate(folder / "few", assay)
    with ExitStack() as stack:
        store = Store(folder / "home")
        stack.callback(store.close)
        registry = Registry(folder / "home" / "models")
        version = _in_force(store, registry, taught)
        added = store.images.add(assay, records)
        tasks = {
            Item(image_id=record.image_id, tile=tile): 1 + number * tiles + tile
            for number, record in enumerate(added)
            for tile in range(tiles)
        }
        store.images.set_tasks(assay.name, tasks)
        backend = Backend(
            store,
            ActiveModel(store, registry, "cpu"),
            cast(Any, None),  # takes no event here
            lambda _: assay,
            cast(LabelStudio, None),  # nor hands anything out
            "",
        )
        requests = [_request(record, tile, tasks) for record in added for tile in range(tiles)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))

        def at_once() -> None:
            store.predictions.forget(assay.name, version)
            answers = list(pool.map(backend.predict, requests))
            assert len(answers) == ITEMS, "an answer a request"

        def one_after_another(is_whole: bool) -> None:
            for record in added:
                for tile in tiles_of(record.height, record.width, assay.tiling):
                    seen = (slice(None), slice(None)) if is_whole else tile.slices
                    image_CHW = np.ascontiguousarray(read_image(record, assay)[:, *seen])
                    with torch.inference_mode():
                        logits_1KHW = taught.model(
                            torch.from_numpy(normalise(image_CHW, normalisation))[None]
                        )
                    mask_HW = logits_1KHW[0].argmax(dim=0).numpy().astype(np.uint8)
                    prediction_result(mask_HW[tile.slices] if is_whole else mask_HW, assay)

        asked = {
            "served": at_once,
            "fields": lambda: one_after_another(True),
            "items": lambda: one_after_another(False),
        }
        spent = in_turn(asked, tell, "uncached items", SERVED_ROUNDS)
    return [
        Figure(name=f"{ITEMS} uncached items, {CLIENTS} clients", value=spent["served"].wall, unit="s"),
        share(
            "their share of one after another in eager PyTorch",
            spent["served"].wall,
            spent["fields"].wall,
            SERVED_BAR,
        ),
        share("their share of that on the items alone", spent["served"].wall, spent["items"].wall),
        _by_work("their share of one after another in eager PyTorch", spent["served"], spent["fields"]),
        _by_work("their share of that on the items alone", spent["served"], spent["items"]),
    ]


def _by_work(name: str, ours: Spent, theirs: Spent) -> Figure:
    return share(f"{name}, processor time", ours.work, theirs.work)


def _in_force(store: Store, registry: Registry, taught: Taught) -> str:
    from cytoloop.nn.weights import save_weights

    assay, config = taught.assay, taught.config
    store.assays.ensure(assay)
    store.assays.update(assay.name, project_id=PROJECT)
    version, digest = registry.add(
        "cdl",
        lambda folder: save_weights(folder, taught.model, config.network, config.normalisation),
        {"assay": assay.document()},
    )
    store.models.add(
        ModelVersion(
            version=version,
            assay=assay.name,
            method="cdl",
            status="candidate",
            digest=digest,
            parent=None,
            snapshot=None,
            config={"train": config.to_dict()},
            metrics={},
            created_at=datetime.now(UTC),
        )
    )
    store.models.activate(assay.name, version)
    return version


def _request(record: ImageRecord, tile: int, tasks: Mapping[Item, int]) -> PredictRequest:
    data = TaskData(
        image="", channels=("", ""), image_id=record.image_id, image_key=record.image_key, tile=tile
    )
    task_id = tasks[Item(image_id=record.image_id, tile=tile)]
    task = PredictTask(task_id=task_id, data=data.document())
    return PredictRequest(tasks=(task,), project_id=PROJECT, label_config="", context=None)
