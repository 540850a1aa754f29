"""Label Studio in memory, for other processes: it lives on when they are killed."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from fakes import FakeLabelStudio

KEY = b"tests only"


class Desk:
    """Answers calls of the port, one at a time, for as long as it is open."""

    def __init__(self, studio: FakeLabelStudio, socket: Path) -> None:
        self.studio = studio
        self.lock = threading.Lock()
        self.socket = socket
        self._listener = Listener(str(socket), "AF_UNIX", authkey=KEY)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (EOFError, ConnectionError):  # killed while it said hello
                continue
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        while True:
            try:
                name, arguments, options = connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                return
            answer: tuple[str, Any]
            with self.lock:
                try:
                    value = getattr(self.studio, name)(*arguments, **options)
                    answer = ("done", list(value) if name == "iter_tasks" else value)
                except Exception as error:
                    answer = ("raised", error)
            try:
                connection.send(answer)
            except OSError:  # whoever asked is dead; it is done all the same
                return

    def close(self) -> None:
        """No more calls."""
        self._listener.close()


class RemoteLabelStudio:
    """The port, on the other side of a socket."""

    def __init__(self, socket: Path) -> None:
        self._connection = Client(str(socket), "AF_UNIX", authkey=KEY)
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self._connection.send((name, arguments, options))
                how, value = self._connection.recv()
            if how == "raised":
                raise value
            return value

        return call

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
