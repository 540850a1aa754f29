"""``cytoloop queues``: policies of the queues, applied from a file and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cytoloop.adapters.yaml_files import read_yaml
from cytoloop.commands.home import Home
from cytoloop.domain.assay import Assay
from cytoloop.domain.documents import told
from cytoloop.domain.errors import ConfigError, CytoloopError
from cytoloop.domain.queue_policy import QueuePolicy, policy_in_force
from labelstudio_config.ranking import check_policy
from ml_backend.service import find_queue

LONGEST_NAME = 100
"""Characters of ``<assay>/<queue>``."""
Source = Literal["applied", "assay file", "defaults"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInForce:
    """A queue of the home, and the policy that holds for it."""

    name: str
    """``<assay>/<queue>``."""
    source: Source
    policy: QueuePolicy


def apply_queues(home: Home, path: Path) -> list[QueueInForce]:
    """Set the policies of the queues that a file names, all or none; others stay as they are.

    Raises
    ------
    ConfigError
        If the file is not ``queues: {<queue>: <policy>}``, or a queue, a policy or a gold item of it is
        wrong: naming file, queue, key, what was got and what was expected.
    """
    found: dict[tuple[str, str], QueuePolicy] = {}
    for name, document in _read(path).items():
        where = f"{path}: key 'queues.{name}'"
        assay, queue = _queue(home, name, where)
        if (assay.name, queue) in found:
            raise ConfigError(f"{where}: queue {assay.name}/{queue} is there twice, expected each once")
        policy = QueuePolicy.from_document({} if document is None else document, where)
        check_policy(home.store, assay, policy, where)
        found[assay.name, queue] = policy
    for (assay_name, queue), policy in found.items():
        home.store.queues.set(assay_name, queue, policy.document())
    return [
        QueueInForce(name=f"{assay}/{queue}", source="applied", policy=policy)
        for (assay, queue), policy in found.items()
    ]


def queues_in_force(home: Home, queue_name: str | None = None) -> list[QueueInForce]:
    """Every queue of the home, or the one of that name (``<queue>`` or ``<assay>/<queue>``).

    Raises
    ------
    InputError
        If there is no such queue.
    """
    if queue_name is not None:
        wanted = [find_queue(home.store, home.load, queue_name)]
    else:
        assays = [home.load(name) for name in home.store.assays.names()]
        wanted = [(assay, queue) for assay in assays for queue in assay.queues]
    return [_in_force(home, assay, queue) for assay, queue in wanted]


def document_of(queues: list[QueueInForce]) -> dict[str, Any]:
    """What ``queues show --json`` prints, which ``queues apply`` reads."""
    return {"queues": {queue.name: queue.policy.document() for queue in queues}}


def rows_of(queues: list[QueueInForce]) -> list[list[str]]:
    """A row a key, a column a queue."""
    # what holds, where the document leaves it to other keys
    documents = [
        {
            **queue.policy.document(),
            "cap": queue.policy.most_held,
            "contest_readers": queue.policy.readers_of("contest"),
        }
        for queue in queues
    ]
    rows = [["policy from", *(queue.source for queue in queues)]]
    for key in documents[0] if documents else ():
        rows.append([key, *(_told(document[key]) for document in documents)])
    return rows


def _in_force(home: Home, assay: Assay, queue: str) -> QueueInForce:
    applied = home.store.queues.policy(assay.name, queue)
    source: Source = "defaults"
    if applied is not None:
        source = "applied"
    elif queue in assay.queue_policies:
        source = "assay file"
    return QueueInForce(
        name=f"{assay.name}/{queue}", source=source, policy=policy_in_force(assay, queue, applied)
    )


def _read(path: Path) -> Mapping[str, Any]:
    document: Any = read_yaml(path)  # JSON is YAML too
    if not isinstance(document, dict) or list(document) != ["queues"]:
        got = list(document) if isinstance(document, dict) else type(document).__name__
        raise ConfigError(
            f"{path}: got {told(got) if isinstance(got, list) else got}, expected a mapping with the one key 'queues'"
        )
    queues = document["queues"]
    if (
        not isinstance(queues, dict)
        or not queues
        or not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in queues)
    ):
        raise ConfigError(f"{path}: key 'queues': got {told(queues)}, expected a mapping of queue to policy")
    return queues


def _queue(home: Home, name: str, where: str) -> tuple[Assay, str]:
    try:
        return find_queue(home.store, home.load, name)
    except CytoloopError as error:
        raise ConfigError(f"{where}: {error}") from None


def _told(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        lines = [f"{one['name']} <{one['email']}>" if isinstance(one, dict) else str(one) for one in value]
        return "\n".join(lines) or "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
