"""A stand-in for Label Studio under load: it answers at once what a claim and the intake ask, and keeps next to nothing.

It is no test double: whoever measures the backend wants the backend's time, not that of another server. Every
task is taken to hold a prediction of the version in force.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]


@contextmanager
def stand_in(port: int, version: str, tasks: Mapping[int, Json], users: Sequence[Json]) -> Iterator[None]:
    """A stand-in in a process of its own, for the length of a block.

    Parameters
    ----------
    tasks : mapping
        ``data`` by task id.
    users : sequence
        ``id`` and ``email`` of each.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy our threads' locks
    ready = context.Event()
    process = context.Process(target=_serve, args=(port, version, tasks, users, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(30):
            raise TimeoutError(
                f"the stand-in for Label Studio did not begin to listen on port {port} in 30 s"
            )
        yield
    finally:
        process.terminate()
        process.join()


def _serve(port: int, version: str, tasks: Mapping[int, Json], users: Sequence[Json], ready: Any) -> None:
    handler = type("Handler", (_Handler,), {"version": version, "tasks": dict(tasks), "users": list(users)})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        ready.set()
        server.serve_forever()


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    version: ClassVar[str]
    tasks: ClassVar[dict[int, Json]]
    users: ClassVar[list[Json]]
    views: ClassVar[dict[str, int]] = {}

    def do_GET(self) -> None:
        """Read."""
        parts = urlsplit(self.path)
        path = parts.path.rstrip("/")
        answers: dict[str, Any] = {
            "/api/users": self.users,
            "/api/dm/columns": {"columns": []},
            "/api/dm/views": [{"id": n, "data": {"title": title}} for title, n in self.views.items()],
        }
        if path in answers:
            self._answer(answers[path])
        elif path == "/api/tasks":
            self._answer({"tasks": self._found(json.loads(parse_qs(parts.query)["query"][0]))})
        elif path == "/api/predictions":
            task_id = int(parse_qs(parts.query)["task"][0])
            self._answer([{"id": task_id, "task": task_id, "model_version": self.version}])
        elif path.endswith("/model-versions"):
            self._answer({"static": [{"model_version": self.version, "count": len(self.tasks)}]})
        elif path.startswith("/api/projects/"):
            self._answer({"id": int(path.rpartition("/")[2]), "model_version": self.version})
        else:
            self._answer({"detail": f"GET {path} is not here"}, 404)

    def do_PATCH(self) -> None:
        """Change a task's data, a tab, or a prediction."""
        body = self._body()
        kind, _, number = urlsplit(self.path).path.rstrip("/").rpartition("/")
        if kind == "/api/tasks":
            self.tasks[int(number)] = body.get("data", self.tasks[int(number)])
            self._answer({"id": int(number), "total_annotations": 0, "is_labeled": False})
        elif kind in ("/api/dm/views", "/api/predictions"):
            self._answer({"id": int(number)})
        else:
            self._answer({"detail": f"PATCH {self.path} is not here"}, 404)

    def do_POST(self) -> None:
        """Make a tab."""
        body = self._body()
        if urlsplit(self.path).path.rstrip("/") != "/api/dm/views":
            self._answer({"detail": f"POST {self.path} is not here"}, 404)
            return
        self._answer({"id": self.views.setdefault(body["data"]["title"], len(self.views) + 1)}, 201)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _found(self, query: Json) -> list[Json]:
        """Tasks by id that pass the filters that cytoloop asks with, a page of them."""
        ids = sorted(self.tasks)
        for item in query["filters"]["items"]:
            if item["operator"] == "in_list":
                ids = sorted(set(item["value"]) & set(self.tasks))
            elif item["operator"] == "greater":
                ids = [task_id for task_id in ids if task_id > item["value"]]
        return [{"id": task_id, "data": self.tasks[task_id]} for task_id in ids[:1000]]

    def _body(self) -> Json:
        body: Json = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def _answer(self, document: Any, status: int = 200) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
