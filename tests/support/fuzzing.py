"""Fuzzing: how many cases, and what every case has to end with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from cytoloop.domain.errors import CytoloopError

EXAMPLES = int(os.environ.get("CYTOLOOP_TEST_EXAMPLES", "150"))
"""Cases a test; ``CYTOLOOP_TEST_EXAMPLES=100000`` for a long run."""
LONGEST_MESSAGE = 4000
T = TypeVar("T")

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.data_too_large,
    ],
)


def answered(read: Callable[..., T], *given: Any) -> T | None:
    """A value, or None where an error of ours says in few words why not; anything else fails the test."""
    try:
        return read(*given)
    except CytoloopError as error:
        message = str(error)
        assert 0 < len(message) <= LONGEST_MESSAGE, f"{len(message)} characters: {message[:200]}"
        message.encode()  # it is printed and logged
        return None


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of these files with some bytes changed, put in or left out, perhaps cut off."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 6))):
        if not content:
            break
        # most of what decides lies at the ends
        near = draw(st.sampled_from([len(content), min(64, len(content)), min(512, len(content))]))
        place = draw(st.integers(0, near - 1))
        if draw(st.booleans()):
            place = len(content) - 1 - place
        what = draw(st.sampled_from(["change", "word", "insert", "remove", "repeat"]))
        if what == "change":
            content[place] = draw(st.integers(0, 255))
        elif what == "word":
            word = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20]))
            content[place : place + 4] = word.to_bytes(4, draw(st.sampled_from(["little", "big"])))
        elif what == "insert":
            content[place:place] = draw(st.binary(max_size=16))
        elif what == "remove":
            del content[place : place + draw(st.integers(1, 16))]
        else:
            content[place:place] = content[place : place + 64] * draw(st.integers(1, 20))
    if draw(st.integers(0, 9)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content)
