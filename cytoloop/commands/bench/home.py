"""A home to put load on: simulated fields, each imaged many times over, with tasks and stored predictions.

What is costly (drawing a field, its CIP mask, its prediction) is done once a field; its copies are other wells of
other plates with the same pixels. Nothing of it needs Label Studio.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytoloop.adapters.plates import read_plate
from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Scored, Store
from cytoloop.commands.bench.figures import Tell
from cytoloop.commands.home import find_assay
from cytoloop.commands.processes import ensure_secrets
from cytoloop.commands.simulate_plate import simulate_plate_command
from cytoloop.config import Settings, write_local
from cytoloop.domain.assay import Assay
from cytoloop.domain.cip import CODE_VERSION, recipe_digest
from cytoloop.domain.queue_policy import Expert, QueuePolicy
from cytoloop.domain.types import ImageRecord, Item, StoredPrediction
from cytoloop.pipeline.cip_version import ensure_cip_version
from cytoloop.pipeline.predictors import load_predictor
from cytoloop.pipeline.weak_labels import weak_label_store
from labelstudio_config.payloads import task_data
from labelstudio_config.prelabel import prelabel
from labelstudio_config.ranking import strategies_for
from labelstudio_config.renders import render_images, view_urls
from ml_backend.access import add_token

PROJECT = 1
EXPERTS = 50
BATCH = 4
"""Items a claim asks for."""
CORRECTED = 4
"""Of so many items one is corrected, again and again."""
_ANNOTATION, _WHEN = 987_654_321, "@when@"
"""What an event has in the places of its annotation's id and its moment, until it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchHome:
    """A home that is ready to be served, and what its Label Studio would send."""

    settings: Settings
    store: Store
    registry: Registry
    assay: Assay
    version: str
    """In force; every item has a prediction of it."""
    tasks: Mapping[int, dict[str, Any]]
    """``data`` by task id."""
    users: Sequence[dict[str, Any]]
    """``id`` and ``email`` of every expert."""
    tokens: Sequence[str]
    """An expert's each, in the order of the users."""
    templates: Sequence[bytes]
    """Events, one for each of some items, without the annotation's id and its moment; see ``event``."""

    def predict_body(self, task_ids: Sequence[int]) -> bytes:
        """Body of ``POST /predict`` for these tasks."""
        tasks = [{"id": task_id, "data": self.tasks[task_id], "meta": {}} for task_id in task_ids]
        document = {"tasks": tasks, "project": f"{PROJECT}.1795343015", "label_config": "", "params": {}}
        return json.dumps(document).encode()

    def event(self, number: int) -> bytes:
        """``ANNOTATION_CREATED`` with a whole mask; ``number`` is the annotation's id."""
        when = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        template = self.templates[number % len(self.templates)]
        return template.replace(b"%d" % _ANNOTATION, b"%d" % number).replace(_WHEN.encode(), when.encode())

    def close(self) -> None:
        """Close the databases."""
        self.store.close()


def annotation_of(event: bytes) -> int:
    """The annotation's id of one of our events."""
    return int(json.loads(event)["annotation"]["id"])


def make_bench_home(folder: Path, label_studio_url: str, fields: int, copies: int, tell: Tell) -> BenchHome:
    """Make a home of so many different fields, each ``copies`` times; the CIP is in force.

    Parameters
    ----------
    label_studio_url : str
        What the backend is to take for Label Studio.
    """
    ensure_secrets(folder)
    write_local(folder, {"label_studio_url": label_studio_url, "device": "cpu"})
    settings = Settings.from_env(
        {}, folder
    )  # the home alone: no address or token of this machine's real server
    plate = folder / "plate"
    simulate_plate_command(plate, "rosella", fields, 0, lambda done, total: tell("simulate", done, total))
    store, registry = Store(folder), Registry(folder / "models")
    assay = find_assay(folder, "rosella")
    store.assays.ensure(assay)
    store.assays.update(assay.name, project_id=PROJECT)
    first = store.images.add(assay, read_plate(plate, assay))
    weak_label_store(store, assay, lambda done, total: tell("weak labels (CIP)", done, total))
    version = ensure_cip_version(store, registry, assay).version
    experts = tuple(Expert(name=f"E{n:02d}", email=f"e{n:02d}@example.com") for n in range(EXPERTS))
    policy = QueuePolicy.all_ranked(size=BATCH, experts=experts)
    for queue in assay.queues:
        store.queues.set(assay.name, queue, policy.document())
    records = _copied(store, assay, first, copies)
    tell("render", 0, 1)
    render_images(store, assay, [record for of_field in records for record in of_field])
    tell("render", 1, 1)
    regions = _predict(store, registry, assay, records)
    items = list(store.images.tasks(assay.name))
    store.images.set_tasks(assay.name, {item: number for number, item in enumerate(items, start=1)})
    by_id = {record.image_id: record for of_field in records for record in of_field}
    tasks = {n: _data(by_id[item.image_id], item, assay) for n, item in enumerate(items, start=1)}
    tokens = [f"token-of-{expert.name}-{settings.webhook_secret}" for expert in experts]
    assert settings.api_tokens is not None, "ensure_secrets names one"
    for expert, token in zip(experts, tokens, strict=True):
        add_token(settings.api_tokens, token, expert.email, "expert")
    return BenchHome(
        settings=settings,
        store=store,
        registry=registry,
        assay=assay,
        version=version,
        tasks=tasks,
        users=[{"id": n, "email": expert.email} for n, expert in enumerate(experts, start=1)],
        tokens=tokens,
        # of the others nothing is ever said: there is always something left to claim
        templates=[
            _event(n, tasks[n], regions[item]) for n, item in enumerate(items, start=1) if n % CORRECTED == 0
        ],
    )


def _copied(store: Store, assay: Assay, first: Sequence[ImageRecord], copies: int) -> list[list[ImageRecord]]:
    """Each field with its copies, which share its files and its weak label."""
    made_by = recipe_digest(assay.cip), CODE_VERSION
    masks = store.images.weak_labels(assay.name, *made_by)
    records = [[record] for record in first]
    for number in range(1, copies):
        others = [
            replace(
                record,
                image_id=f"{record.image_id}-{number}",
                plate=f"{record.plate}-{number}",
                group=f"{record.group}-{number}",
            )
            for record in first
        ]
        for place, record in enumerate(store.images.add(assay, others)):
            store.images.add_weak_label(
                assay.name, record, assay.cip.recipe, *made_by, masks[first[place].image_id], None
            )
            records[place].append(record)
    return records


def _predict(
    store: Store, registry: Registry, assay: Assay, records: Sequence[Sequence[ImageRecord]]
) -> dict[Item, list[dict[str, Any]]]:
    """What the version in force says, stored and ranked; the regions of each item."""
    predictor = load_predictor(store, registry, assay, store.models.active(assay.name), "cpu")
    strategy = strategies_for(store, assay, predictor.offers, predictor.version)[0]
    stored: list[StoredPrediction] = []
    ranked: list[Scored] = []
    for of_field in records:
        look = predictor.look(of_field[0], strategy.needs)
        for record in of_field:
            predictions, scored = prelabel(record, look, assay, predictor.version, strategy)
            stored += predictions
            ranked += scored
    store.predictions.put(assay.name, stored)
    store.scores.put(assay.name, predictor.version, strategy.name, ranked)
    return {one.item: [dict(region) for region in one.result] for one in stored}


def _data(record: ImageRecord, item: Item, assay: Assay) -> dict[str, Any]:
    composite, *channels = view_urls(record, item.tile, assay)
    return task_data(record, item.tile, composite, channels)


def _event(task_id: int, data: Mapping[str, Any], regions: list[dict[str, Any]]) -> bytes:
    document = {
        "action": "ANNOTATION_CREATED",
        "project": {"id": PROJECT},
        "task": {"id": task_id, "data": data},
        "annotation": {
            "id": _ANNOTATION,
            "task": task_id,
            "project": PROJECT,
            "result": regions,
            "was_cancelled": False,
            "created_at": _WHEN,
            "updated_at": _WHEN,
            "lead_time": 60.0,
            "completed_by": 1 + task_id % EXPERTS,
            "parent_prediction": None,
        },
    }
    return json.dumps(document).encode()
