"""Training runs that were cut off: where their checkpoints lie, and which run each is of."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cytoloop.adapters.images import write_atomically
from cytoloop.adapters.store import Store
from cytoloop.domain.digest import digest_of
from cytoloop.domain.errors import InputError, UnknownVersion
from cytoloop.domain.types import Method, ModelVersion, TrainingSnapshot
from cytoloop.files import read_json
from cytoloop.nn.checkpoint import CHECKPOINT_FILE, CheckpointRefused, epochs_done, remove_checkpoint
from cytoloop.nn.train_config import TrainConfig

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
"""Beside a checkpoint: which run it is of."""

LEFT_RUNS_KEPT_DAYS = 14
"""Checkpoints of interrupted runs that nobody went on with are removed after so long."""


def run_folder(
    store: Store, snapshot: TrainingSnapshot, config: TrainConfig, base: ModelVersion | None
) -> Path:
    """Where a run of these rows and numbers keeps its checkpoint, so that the same run finds it again."""
    runs = store.home / "runs"
    oldest = datetime.now(UTC).timestamp() - LEFT_RUNS_KEPT_DAYS * 86_400
    for left in (*runs.glob(f"*/{CHECKPOINT_FILE}"), *runs.glob(f"*/{RUN_FILE}")):
        if left.is_file() and left.stat().st_mtime < oldest:
            forget_run(left.parent)
    key = {
        "snapshot": snapshot.digest,
        "config": config.to_dict(),
        "base": base.digest if base else None,
    }
    return runs / digest_of(key)[:16]


def note_run(
    folder: Path,
    snapshot: TrainingSnapshot,
    method: Method,
    config: TrainConfig,
    base: ModelVersion | None,
) -> None:
    """Write down beside the checkpoint which run it is, so that whoever comes after a kill can go on with it."""
    document = _document(snapshot.assay, method, config, base) | {"snapshot": snapshot.digest}
    write_atomically(folder / RUN_FILE, lambda path: path.write_text(json.dumps(document), encoding="utf-8"))


def forget_run(folder: Path) -> None:
    """Remove a run's checkpoint and note, and the folder if nothing else is in it."""
    (folder / RUN_FILE).unlink(missing_ok=True)
    remove_checkpoint(folder)


def interrupted_run(
    store: Store, assay: str, method: Method, config: TrainConfig, base: ModelVersion | None
) -> tuple[TrainingSnapshot, int] | None:
    """The snapshot of a run of these numbers that was cut off after a whole epoch, and the epochs it had done.

    The one that came furthest; None where there is none. What cannot be read is left alone, with a warning.
    """
    wanted = json.loads(json.dumps(_document(assay, method, config, base)))
    found: list[tuple[int, str]] = []
    for note in (store.home / "runs").glob(f"*/{RUN_FILE}"):
        try:
            document = read_json(note)
            digest = document.pop("snapshot")
            epochs = epochs_done(note.parent) if document == wanted else 0
        except (InputError, KeyError, TypeError, AttributeError, OSError, CheckpointRefused) as error:
            logger.warning("interrupted run left alone folder=%s: %s", note.parent, error)
            continue
        if epochs:
            found.append((epochs, digest))
    for epochs, digest in sorted(found, reverse=True):
        try:
            return store.models.snapshot(digest), epochs
        except UnknownVersion as error:
            logger.warning("interrupted run left alone: %s", error)
    return None


def _document(assay: str, method: Method, config: TrainConfig, base: ModelVersion | None) -> dict[str, Any]:
    return {
        "assay": assay,
        "method": method,
        "train": config.to_dict(),
        "base": None if base is None else base.version,
    }
