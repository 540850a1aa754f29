"""Training in a process of its own: the same model, and nothing that happens to it happens to us."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from tiny import Tiny, make_tiny

from cytoloop.domain.errors import CytoloopError
from cytoloop.domain.trainer_policy import Limits
from cytoloop.nn.checkpoint import epochs_done
from cytoloop.nn.fit import EpochReport, TrainingCancelled
from cytoloop.pipeline.interrupted import RUN_FILE
from trainer import isolation
from trainer.isolation import ChildProcess, TrainingDied, TrainingStopped
from trainer.runs import InProcess, TrainingJob, freeze

ONE_THREAD = Limits(threads=1)


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Tiny]:
    made = make_tiny(tmp_path)
    yield made
    made.store.close()


def job_of(tiny: Tiny) -> TrainingJob:
    frozen = freeze(
        tiny.store, tiny.assay, {}, method="cdl", preset_name="smoke", seed=3, device="cpu", go_on=True
    )
    return frozen.job


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "trainer.child" in " ".join(child.cmdline())]


def test_a_child_makes_the_very_model_that_this_process_makes(
    tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> None:
    twin = make_tiny(tmp_path_factory.mktemp("twin"))
    told: list[EpochReport] = []
    result = ChildProcess(tiny.home, ONE_THREAD)(job_of(tiny), progress=told.append)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of floats depend on how they are shared out
    here = InProcess(twin.store, twin.registry, lambda name: twin.assay)(job_of(twin))
    torch.set_num_threads(threads)
    twin.store.close()
    assert result.version == here.version, "equal weights, equal name"
    assert tuple(told) == result.history
    assert [epoch.loss for epoch in result.history] == [epoch.loss for epoch in here.history]
    assert tiny.store.models.get(result.version).status == "candidate"
    assert result.peak_memory_gb is not None
    assert 0.05 < result.peak_memory_gb < 8
    assert children() == []


def test_a_child_that_is_killed_is_started_again_where_it_was(tiny: Tiny) -> None:
    def kill(epoch: EpochReport) -> None:
        if epoch.epoch == 1 and not killed:
            killed.append(epoch.epoch)
            os.kill(children()[0].pid, signal.SIGKILL)

    killed: list[int] = []
    result = ChildProcess(tiny.home, ONE_THREAD)(job_of(tiny), progress=kill)
    assert killed == [1]
    assert result.resumed_after == 1
    assert [epoch.epoch for epoch in result.history] == [1, 2]
    assert list((tiny.home / "runs").glob("*/*")) == [], "nothing is left of a run that is done"


def test_a_child_that_dies_again_and_again_is_given_up(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation.sys, "executable", "/bin/false")
    with pytest.raises(TrainingDied, match="training of cdl: its process ended with code 1 and no answer"):
        ChildProcess(tiny.home, ONE_THREAD)(job_of(tiny))


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(threads=1, memory_gb=0.03), r"training of cdl took 0\.\d\d GB of memory, allowed are 0\.03"),
        (Limits(threads=1, minutes=0.001), r"took longer than 0\.001 min \(trainer\.limits\.minutes\)"),
    ],
)
def test_a_run_that_goes_over_its_limits_is_ended(tiny: Tiny, limits: Limits, told: str) -> None:
    with pytest.raises(TrainingStopped, match=told):
        ChildProcess(tiny.home, limits)(job_of(tiny))
    assert children() == []
    assert [m.method for m in tiny.store.models.all(tiny.name)] == ["cip"]


def test_a_run_that_is_called_off_ends_and_can_be_gone_on_with(tiny: Tiny) -> None:
    done: list[EpochReport] = []
    child = ChildProcess(tiny.home, ONE_THREAD)
    job = job_of(tiny)
    with pytest.raises(TrainingCancelled):
        child(job, progress=done.append, cancelled=lambda: bool(done))
    assert children() == []
    (note,) = (tiny.home / "runs").glob(f"*/{RUN_FILE}")
    assert epochs_done(note.parent) >= 1
    assert child(job_of(tiny)).resumed_after >= 1


def test_what_a_run_raises_is_told_in_its_words(tiny: Tiny) -> None:
    job = job_of(tiny)
    for row in tiny.store.models.snapshot(job.snapshot).rows:
        tiny.store.masks.path(row.mask).unlink(missing_ok=True)
    with pytest.raises(CytoloopError, match="training of cdl: "):
        ChildProcess(tiny.home, ONE_THREAD)(job)


def test_a_child_ends_with_its_parent(tiny: Tiny) -> None:
    """The parent is killed, not asked: only the end of the child's standard input tells it."""
    child = ChildProcess(tiny.home, ONE_THREAD)
    with child._started(job_of(tiny)) as (process, _):
        assert process.stdin is not None
        process.stdin.close()
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() == 75


def test_a_child_knows_no_secret(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOP_LABEL_STUDIO_TOKEN", "studio-token-7f3a")
    environ = ChildProcess(tiny.home, ONE_THREAD)._environ()
    assert "studio-token-7f3a" not in environ.values()
    assert environ["OMP_NUM_THREADS"] == "1"
