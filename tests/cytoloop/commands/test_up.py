from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cytoloop.commands import up
from cytoloop.commands.processes import STATE_FILE
from cytoloop.commands.up import Stack, UpOptions, running_stack
from cytoloop.domain.errors import ExternalError, StateError

ELSEWHERE = {
    "CYTOLOOP_LABEL_STUDIO_URL": "http://127.0.0.1:1",
    "CYTOLOOP_LABEL_STUDIO_TOKEN": "token",
}


class StillChild:
    """A child that only notes that it was stopped."""

    pid = 2**22 + 1

    def __init__(self, name: str, order: list[str]) -> None:
        self.name = name
        self.exit_code: int | None = None
        self._order = order

    def stop(self) -> None:
        if self.exit_code is None:
            self._order.append(self.name)
        self.exit_code = 0

    def tail(self) -> str:
        return "last words"


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    stopped: list[str] = []
    monkeypatch.setattr(up, "start_backend", lambda settings, port: StillChild("backend", stopped))
    return stopped


def use(home: Path, order: list[str], then: BaseException | None = None) -> None:
    with running_stack(home, UpOptions(), lambda _: None, ELSEWHERE) as stack:
        assert (home / STATE_FILE).is_file()
        child: Any = StillChild("trainer", order)
        stack.add(child)
        if then is not None:
            raise then


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ExternalError("trainer ended")])
def test_whatever_ends_it_every_child_is_stopped_and_nothing_is_noted(
    tmp_path: Path, order: list[str], end: BaseException | None
) -> None:
    if end is None:
        use(tmp_path, order)
    else:
        with pytest.raises(type(end)):
            use(tmp_path, order, end)
    assert order == ["trainer", "backend"], "the last started first"
    assert not (tmp_path / STATE_FILE).exists()


def test_a_home_is_served_once(tmp_path: Path, order: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "running_up", lambda home: 77)
    with pytest.raises(StateError, match="is served by process 77 already"):
        use(tmp_path, order)


def test_a_child_that_ends_by_itself_is_told() -> None:
    child: Any = StillChild("trainer", [])
    stack = Stack(home=None, children={"trainer": child}, label_studio_pid=None)  # type: ignore[arg-type]
    stack.check()
    child.exit_code = 3
    with pytest.raises(ExternalError, match="trainer ended with code 3: …last words"):
        stack.check()
