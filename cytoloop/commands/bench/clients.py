"""Clients of the backend that time every answer: kept-alive connections, nothing between them and the socket."""

from __future__ import annotations

import re
import threading
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

TIMEOUT_S = 30.0


class Times:
    """What clients found, by route; several write at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []
        """Each answer that was none of those expected, and each connection that broke, in words."""

    def add(self, route: str, seconds: float, error: str | None) -> None:
        """Note one answer."""
        with self._lock:
            self._seconds[route].append(seconds)
            if error is not None:
                self.errors.append(f"{route}: {error}")

    def routes(self) -> dict[str, NDArray[np.float64]]:
        """Milliseconds of each answer, by route in the order of the alphabet."""
        with self._lock:
            return {route: 1e3 * np.array(found) for route, found in sorted(self._seconds.items())}

    def errors_of(self, route: str) -> int:
        """How many answers of a route were errors."""
        return sum(error.startswith(f"{route}: ") for error in self.errors)


class Client:
    """One connection, kept alive; opened anew where the server closed it."""

    def __init__(self, port: int, times: Times) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        self._times = times
        self._cookie = ""

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(
        self,
        route: str,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        expected: tuple[int, ...] = (200,),
    ) -> bytes | None:
        """The body of an answer; None if it was an error, which is noted under ``route`` as the time is."""
        begun = time.perf_counter()
        status, content, error = 0, b"", None
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            answer = self._connection.getresponse()
            status, content = answer.status, answer.read()
            if status not in expected:
                error = f"answered {status}: {content[:200]!r}"
            if route == "log in":
                self._cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0] or self._cookie
        except (OSError, HTTPException) as broken:
            error = repr(broken)
            self._connection.close()
        self._times.add(route, time.perf_counter() - begun, error)
        return None if error else content

    def log_in(self, token: str) -> None:
        """Begin a session, as a browser does."""
        page = self.ask("log in", "GET", "/login") or b""
        found = re.search(rb'name="csrf_token" value="([^"]+)"', page)
        form = {"token": token, "csrf_token": found[1].decode() if found else ""}
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": self._cookie}
        self.ask("log in", "POST", "/login", urlencode(form).encode(), headers, expected=(303,))

    @property
    def session(self) -> dict[str, str]:
        """Headers of a browser that is logged in."""
        return {"Cookie": self._cookie, "Accept": "text/html"}


def basic(user: str, password: str) -> dict[str, str]:
    """Headers with a name and a password."""
    return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Headers with a token."""
    return {"Authorization": f"Bearer {token}"}


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Let so many threads do a work, each told its number; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
