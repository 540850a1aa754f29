from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable
from labelstudio_config.client import PREDICTION_BYTES, LabelStudioClient
from labelstudio_config.connection import LabelStudioNotFound
from labelstudio_config.payloads import prediction

TOKEN = "0123456789abcdef"
Answer = Callable[[httpx.Request], httpx.Response]


class Served:
    """Answers requests one after the other, the last answer for ever, and remembers them."""

    def __init__(self, *answers: httpx.Response | Exception | Answer) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def client(self, token: str = TOKEN, url: str = "http://studio") -> LabelStudioClient:
        return LabelStudioClient(url, token, transport=httpx.MockTransport(self), first_wait_s=0.0)


def test_a_legacy_token_is_sent_as_token() -> None:
    served = Served(httpx.Response(200, json={"id": 1}))
    assert served.client().whoami() == {"id": 1}
    assert served.requests[0].headers["Authorization"] == f"Token {TOKEN}"


def jwt(kind: str, lives_s: float) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"token_type": kind, "exp": int(time.time() + lives_s)})
    head, body = (base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=").decode() for p in parts)
    return f"{head}.{body}.c2lnbmF0dXJl"


# The SDK's own refresh uses a method of pydantic that is deprecated.
OLD_PYDANTIC = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")


@OLD_PYDANTIC
def test_a_personal_token_is_refreshed_below_the_path_of_the_server() -> None:
    access = jwt("access", 300)
    served = Served(httpx.Response(200, json={"access": access}), httpx.Response(200, json={"id": 1}))
    client = served.client(jwt("refresh", 3600), "http://studio/lab/")
    client.whoami()
    client.whoami()
    assert [r.url.path for r in served.requests] == [
        "/lab/api/token/refresh/",
        "/lab/api/current-user/whoami",
        "/lab/api/current-user/whoami",
    ]
    assert served.requests[1].headers["Authorization"] == f"Bearer {access}"


def test_a_personal_token_that_is_refused_or_over_is_an_error_of_ours() -> None:
    token = jwt("refresh", 3600)
    served = Served(httpx.Response(401, json={"detail": "Token is blacklisted"}))
    with pytest.raises(LabelStudioRefused, match="401: Token is blacklisted") as caught:
        served.client(token).whoami()
    assert token not in str(caught.value)
    with pytest.raises(LabelStudioUnavailable, match="refresh of the token"):
        Served(httpx.Response(502, text="<html>")).client(token).whoami()
    with pytest.raises(LabelStudioRefused, match="expired"):
        served.client(jwt("refresh", -10))


@pytest.mark.parametrize("failure", [httpx.Response(502, text="bad"), httpx.ReadTimeout("slow")])
def test_reading_is_tried_again_until_it_works(failure: httpx.Response | Exception) -> None:
    served = Served(failure, failure, httpx.Response(200, json={"id": 1}))
    assert served.client().whoami() == {"id": 1}


@pytest.mark.parametrize("failure", [httpx.Response(500, json={"detail": "boom"}), httpx.ReadTimeout("slow")])
def test_writing_is_said_once_when_it_may_have_been_heard(failure: httpx.Response | Exception) -> None:
    served = Served(failure)
    with pytest.raises(LabelStudioUnavailable):
        served.client().create_annotation(1, [])
    assert len(served.requests) == 1


def test_writing_is_tried_again_when_nobody_was_there_to_hear() -> None:
    served = Served(httpx.ConnectError("refused"), httpx.Response(201, json={"id": 9}))
    assert served.client().create_annotation(1, []) == {"id": 9}


def test_a_server_that_stays_away_is_unavailable_after_three_attempts() -> None:
    served = Served(httpx.ConnectError("Connection refused"))
    with pytest.raises(
        LabelStudioUnavailable, match=r"GET /api/version at http://studio: Connection refused"
    ):
        served.client().version()
    assert len(served.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (httpx.Response(401, json={"detail": "Invalid token."}), LabelStudioRefused, "401: Invalid token."),
        (
            httpx.Response(403, json={"detail": "no"}),
            LabelStudioRefused,
            "GET /api/projects/3/ answered 403: no",
        ),
        (httpx.Response(404, json={"detail": "No Project"}), LabelStudioNotFound, "404: No Project"),
        (
            httpx.Response(
                400, json={"detail": "Validation error", "validation_errors": {"title": ["short"]}}
            ),
            LabelStudioRefused,
            r'400: Validation error \{"title": \["short"\]\}',
        ),
        (httpx.Response(404, text="<!doctype html><html>…"), LabelStudioNotFound, r"404: \(a page\)"),
        (httpx.Response(400, text=f"token {TOKEN} is odd"), LabelStudioRefused, "token … is odd"),
        (httpx.Response(400, text="x" * 9999), LabelStudioRefused, "x{500}…$"),
        (httpx.Response(200, text="hello"), LabelStudioUnavailable, "without JSON"),
        (httpx.Response(200, json=[1]), LabelStudioUnavailable, "answered list, expected a JSON object"),
        (httpx.Response(503, json={"detail": "busy"}), LabelStudioUnavailable, "503: busy"),
    ],
)
def test_what_went_wrong_is_said_with_the_call_and_without_the_token(
    answer: httpx.Response, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        Served(answer).client().get_project(3)
    assert TOKEN not in str(caught.value)


def test_a_list_where_an_object_is_expected_is_no_list() -> None:
    with pytest.raises(LabelStudioUnavailable, match="answered dict, expected a JSON list"):
        Served(httpx.Response(200, json={})).client().list_users()


def test_files_of_other_servers_are_not_fetched_with_our_token() -> None:
    served = Served(httpx.Response(200, content=b"pixels"))
    assert served.client().download("http://studio/data/a.png") == b"pixels"
    with pytest.raises(LabelStudioRefused, match="does not lie on"):
        served.client().download("http://elsewhere/data/a.png")


def test_predictions_are_pushed_in_pieces_of_500_and_of_bounded_size() -> None:
    def created(request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"created": len(json.loads(request.content))})

    served = Served(created)
    small = [prediction(task, [], 0.5, "v") for task in range(1, 1202)]
    assert served.client().push_predictions(3, small) == 1201
    assert [len(json.loads(r.content)) for r in served.requests] == [500, 500, 201]
    served = Served(created)
    large = [prediction(task, [{"value": {"rle": [255] * 500_000}}], 0.5, "v") for task in range(1, 8)]
    assert served.client().push_predictions(3, large) == 7
    assert max(len(r.content) for r in served.requests) <= PREDICTION_BYTES
    assert Served(created).client().push_predictions(3, []) == 0


def test_an_import_that_loses_tasks_is_an_error() -> None:
    served = Served(httpx.Response(201, json={"task_ids": [1]}))
    with pytest.raises(LabelStudioUnavailable, match="made 1 tasks of 2"):
        served.client().import_tasks(3, [{"image": "a"}, {"image": "b"}])


class Changing:
    """A project whose tasks change while they are listed."""

    def __init__(self, count: int, same_time: bool) -> None:
        self.stamps = {task: 1000 if same_time else 1000 + task for task in range(1, count + 1)}
        self.calls = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        query = json.loads(request.url.params["query"])
        tasks = sorted(self.stamps.items(), key=lambda item: (item[1], item[0]))
        for item in query["filters"]["items"]:
            moment = datetime.fromisoformat(item["value"]).timestamp()
            strict = item["operator"] == "greater"
            tasks = [(t, s) for t, s in tasks if (s > moment if strict else s >= moment)]
        page, size = int(request.url.params["page"]), int(request.url.params["page_size"])
        shown = tasks[(page - 1) * size : page * size]
        if page > 1 and not shown:
            return httpx.Response(404, json={"detail": "Invalid page."})
        if self.calls == 1 and len(set(self.stamps.values())) > 1:
            self.stamps[1] = 9000  # an expert saves the first task: everything moves up by one
        documents = [
            {"id": task, "updated_at": datetime.fromtimestamp(s, UTC).isoformat()} for task, s in shown
        ]
        return httpx.Response(200, json={"tasks": documents, "total": len(tasks)})


@pytest.mark.parametrize("count", [3, 10, 11, 20, 25])
@pytest.mark.parametrize("same_time", [False, True])
def test_no_task_is_skipped_while_the_list_moves(count: int, same_time: bool) -> None:
    tasks = list(Served(Changing(count, same_time)).client().iter_tasks(3, page_size=10))
    assert {task["id"] for task in tasks} == set(range(1, count + 1))
    assert len({(task["id"], task["updated_at"]) for task in tasks}) == len(tasks)


def test_polling_asks_only_for_what_is_later() -> None:
    served = Served(Changing(5, same_time=False))
    after = datetime.fromtimestamp(1003, UTC)
    assert [task["id"] for task in served.client().iter_tasks(3, after)] == [4, 5]
