"""One training run on what the store holds: frozen as a job first, then run here or in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from cytoloop.adapters.registry import Registry
from cytoloop.adapters.store import Store, StoredCorrection
from cytoloop.domain.assay import Assay
from cytoloop.domain.snapshot import make_snapshot
from cytoloop.domain.types import Item, Method, ModelVersion, TrainingSnapshot
from cytoloop.nn.fit import EpochReport, FitResult
from cytoloop.pipeline.interrupted import interrupted_run
from cytoloop.pipeline.training import train_version, weak_validation_images
from cytoloop.pipeline.weak_labels import weak_confidences, weak_masks
from trainer.presets import WEAK_WEIGHT, preset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What a run is to do, in plain values: whoever has the home can do it, now or after a crash."""

    assay: str
    method: Method
    preset: str
    seed: int
    snapshot: str
    """Digest of the rows that the run sees."""
    base: str | None
    """The version that it starts from."""
    device: str

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """A job, and where its rows come from."""

    job: TrainingJob
    is_of_earlier_run: bool
    """The rows are those of a run that was cut off, not those of now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run went."""

    version: str
    history: tuple[EpochReport, ...]
    best_epoch: int
    """From 1."""
    seconds: float
    """Of all sittings, where the run went on from a checkpoint."""
    resumed_after: int = 0
    """Epoch of the checkpoint that the run went on from; 0 = none."""
    peak_memory_gb: float | None = None
    """Resident, 10⁹ bytes; None where the run shared this process."""

    @classmethod
    def of(cls, version: str, result: FitResult) -> RunResult:
        """What is kept of a finished run, beside its weights."""
        return cls(
            version=version,
            history=result.history,
            best_epoch=result.best_epoch,
            seconds=result.seconds,
            resumed_after=result.resumed_after,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run, and the version it made."""

    model: ModelVersion
    result: RunResult
    snapshot: TrainingSnapshot


Progress = Callable[[EpochReport], None]


class Runner(Protocol):
    """Does a job; returns when its version is registered, or raises what kept it from that."""

    def __call__(
        self, job: TrainingJob, *, progress: Progress | None, cancelled: Callable[[], bool] | None
    ) -> RunResult:
        """Run it.

        Parameters
        ----------
        progress : callable, optional
            Told after each epoch.
        cancelled : callable, optional
            Asked again and again, at least once a step.
        """


def freeze(
    store: Store,
    assay: Assay,
    standing: Mapping[Item, StoredCorrection],
    *,
    method: Method,
    preset_name: str,
    seed: int,
    base: ModelVersion | None = None,
    device: str = "auto",
    go_on: bool = False,
) -> Frozen:
    """Freeze weak labels and these corrections as a snapshot, and keep it: the job of training on it.

    Parameters
    ----------
    go_on : bool
        Where a run of the same numbers and base was cut off after a whole epoch, take the snapshot that it
        had: hours of training are not thrown away for a correction that came in meanwhile.
    """
    splits = {record.image_id: record.split for record in store.images.all(assay.name)}
    snapshot = make_snapshot(
        assay.name,
        method,
        weak_masks(store, assay),
        {item: correction.mask for item, correction in standing.items()},
        splits,
        weak_confidences(store, assay),
        assay.cip.agreement,
        weak_validation_images(store, assay),
    )
    store.models.add_snapshot(snapshot)
    digest = snapshot.digest
    if go_on:
        left = interrupted_run(store, assay.name, method, preset(preset_name, method, assay, seed), base)
        if left is not None:
            digest = left[0].digest
    job = TrainingJob(
        assay=assay.name,
        method=method,
        preset=preset_name,
        seed=seed,
        snapshot=digest,
        base=None if base is None else base.version,
        device=device,
    )
    return Frozen(job=job, is_of_earlier_run=digest != snapshot.digest)


def run_job(
    store: Store,
    registry: Registry,
    assay: Assay,
    job: TrainingJob,
    *,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[ModelVersion, FitResult]:
    """Do a job in this process: train on its snapshot and register the candidate."""
    return train_version(
        store,
        registry,
        assay,
        store.models.snapshot(job.snapshot),
        method=job.method,
        preset=job.preset,
        config=preset(job.preset, job.method, assay, job.seed),
        weak_weight=WEAK_WEIGHT[job.method],
        base=None if job.base is None else store.models.get(job.base),
        device=job.device,
        progress=progress,
        cancelled=cancelled,
    )


class InProcess:
    """Does jobs in this very process: for the command line, where somebody is watching, and for tests."""

    def __init__(self, store: Store, registry: Registry, load: Callable[[str], Assay]) -> None:
        self._store = store
        self._registry = registry
        self._load = load

    def __call__(
        self,
        job: TrainingJob,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> RunResult:
        """Run it."""
        assay = self._load(job.assay)
        model, result = run_job(
            self._store, self._registry, assay, job, progress=progress, cancelled=cancelled
        )
        return RunResult.of(model.version, result)
