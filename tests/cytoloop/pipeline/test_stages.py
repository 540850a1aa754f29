"""The pipeline: bounded, side by side, and gone when it is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from cytoloop.pipeline.stages import Stage, pipelined


def named_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("stage", "source"))]


def test_everything_comes_out_once_through_every_stage() -> None:
    stages = [
        Stage(name="stage-a", run=lambda x: x + 1, threads=3),
        Stage(name="stage-b", run=lambda x: 2 * x),
        Stage(name="stage-c", run=str, threads=2),
    ]
    assert sorted(pipelined(range(100), stages), key=int) == [str(2 * (x + 1)) for x in range(100)]
    assert named_threads() == []


def test_nothing_comes_of_nothing() -> None:
    assert list(pipelined([], [Stage(name="stage", run=str, threads=2)])) == []


def test_stages_are_at_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)  # passed by two threads at once or not at all

    def waiting_for(held: int) -> Callable[[int], int]:
        def run(number: int) -> int:
            if number == held:
                both.wait()
            return number

        return run

    stages = [Stage(name="stage-a", run=waiting_for(1)), Stage(name="stage-b", run=waiting_for(0))]
    assert list(pipelined(range(2), stages)) == [0, 1]


def test_a_slow_consumer_stops_the_source() -> None:
    drawn = []

    def source() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    with closing(pipelined(source(), [Stage(name="stage", run=lambda x: x, threads=2)], length=2)) as out:
        next(out)
        time.sleep(0.3)
        # one taken; two wait before and two after the stage; two are with its threads, one with the source
        assert len(drawn) <= 8
    assert named_threads() == []


@pytest.mark.parametrize("where", ["source", "stage"])
def test_an_error_ends_it_all(where: str) -> None:
    def source() -> Iterator[int]:
        for number in range(1000):
            if where == "source" and number == 5:
                raise ZeroDivisionError("five")
            yield number

    def run(number: int) -> int:
        if where == "stage" and number == 5:
            raise ZeroDivisionError("five")
        return number

    with pytest.raises(ZeroDivisionError, match="five"):
        list(pipelined(source(), [Stage(name="stage", run=run, threads=2)]))
    assert named_threads() == []
