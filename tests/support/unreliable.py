"""Between Label Studio's webhooks and the backend: events are dropped, doubled, delayed and re-ordered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np

FATES = {"dropped": 0.12, "duplicated": 0.12, "delayed": 0.12, "re-ordered": 0.12}
"""Shares of the events; the rest is passed on."""
LONGEST_DELAY_S = 4.0
HELD_AT_MOST_S = 2.0
"""A re-ordered event goes after the one that follows it, or after this."""
_DROPPED_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "date", "server"}


class UnreliableProxy:
    """All but events goes through as it is; what becomes of an event is drawn.

    Parameters
    ----------
    port, target_port : int
        Where it listens, and where the backend does, both on loopback.
    """

    def __init__(self, port: int, target_port: int, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        """Events by what became of them."""
        self.answers: Counter[int] = Counter()
        """What the backend said to events; 502 where it was not there."""
        self._rng = np.random.default_rng(seed)
        self._target = f"http://127.0.0.1:{target_port}"
        self._lock = threading.Lock()
        self._is_faithful = False
        self._held: list[tuple[bytes, Mapping[str, str]]] = []
        self._timers: list[threading.Timer] = []
        self._http = httpx.Client(trust_env=False, timeout=20.0)
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1})
        self._thread.start()

    def take_event(self, body: bytes, headers: Mapping[str, str]) -> int:
        """Let an event meet its fate; the status that Label Studio is told."""
        with self._lock:
            fate = "passed"
            if not self._is_faithful:
                fates = [*FATES, "passed"]
                shares = [*FATES.values(), 1 - sum(FATES.values())]
                fate = str(self._rng.choice(fates, p=shares))
            delay_s = float(self._rng.uniform(0.2, LONGEST_DELAY_S))
            self.counts[fate] += 1
            overtaken, self._held = self._held, []
            if fate == "re-ordered":
                self._held.append((body, headers))
        if fate == "dropped":
            status = 502
        elif fate == "delayed":
            self._later(delay_s, body, headers)
            status = 202
        elif fate == "re-ordered":
            timer = threading.Timer(HELD_AT_MOST_S, self._let_go)
            self._begin(timer)
            status = 202
        else:
            status = self._deliver(body, headers)
            if fate == "duplicated":
                self._deliver(body, headers)
        for event in overtaken:
            self._deliver(*event)
        return status

    def forward(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, bytes, str]:
        """Status, body and content type of what the backend says."""
        sent = {name: value for name, value in headers.items() if name.lower() not in _DROPPED_HEADERS}
        try:
            answer = self._http.request(method, self._target + path, content=body, headers=sent)
        except httpx.HTTPError:
            return 502, b'{"error": "the backend is away"}', "application/json"
        return answer.status_code, answer.content, answer.headers.get("content-type", "application/json")

    def calm(self) -> None:
        """From here on every event is passed on; returns when what is still under way has arrived."""
        with self._lock:
            self._is_faithful = True
        for timer in self._timers:
            timer.join()
        self._let_go()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for timer in self._timers:
            timer.cancel()
            timer.join()
        self._http.close()

    def _later(self, delay_s: float, body: bytes, headers: Mapping[str, str]) -> None:
        self._begin(threading.Timer(delay_s, self._deliver, (body, headers)))

    def _begin(self, timer: threading.Timer) -> None:
        with self._lock:
            self._timers.append(timer)
        timer.start()

    def _let_go(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        for event in held:
            self._deliver(*event)

    def _deliver(self, body: bytes, headers: Mapping[str, str]) -> int:
        status, _, _ = self.forward("POST", "/webhook", body, headers)
        with self._lock:
            self.answers[status] += 1
        return status


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: UnreliableProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Label Studio waits a second for us, and may be dead: nobody is there to be told."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        kind = "application/json"
        if self.command == "POST" and self.path == "/webhook":
            status, reply = self.server.proxy.take_event(body, headers), b"{}"
        else:
            status, reply, kind = self.server.proxy.forward(self.command, self.path, body, headers)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    do_GET = do_POST = do_HEAD = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
