"""Where our calls to Label Studio may go, and how much may come back."""

from __future__ import annotations

import gzip
import re
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable
from labelstudio_config.client import LabelStudioClient
from labelstudio_config.connection import Connection
from labelstudio_config.transport import LARGEST_ANSWER, MOST_REDIRECTS, guarded

TOKEN = "0123456789abcdef"
Answer = Callable[[httpx.Request], httpx.Response]


class Seen:
    """Answers every request, and remembers where they went."""

    def __init__(self, answer: Answer) -> None:
        self.urls: list[str] = []
        self._answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(str(request.url))
        return self._answer(request)

    def client(self, url: str = "http://studio:8080", token: str = TOKEN) -> LabelStudioClient:
        return LabelStudioClient(url, token, transport=httpx.MockTransport(self), first_wait_s=0.0)


def leads_to(location: str, status: int = 302) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/current-user/whoami" and request.url.host == "studio":
            return httpx.Response(status, headers={"Location": location})
        return httpx.Response(200, json={"id": 7})

    return answer


@pytest.mark.parametrize("location", ["/api/current-user/whoami/", "http://studio:8080/user", "?a=1&b=/"])
def test_a_redirect_on_the_same_server_is_followed(location: str) -> None:
    first = [True]

    def answer(request: httpx.Request) -> httpx.Response:
        if first.pop() if first else False:
            return httpx.Response(302, headers={"Location": location})
        return httpx.Response(200, json={"id": 7})

    seen = Seen(answer)
    assert seen.client().whoami() == {"id": 7}
    assert len(seen.urls) == 2


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://elsewhere/api", "http://elsewhere"),
        ("https://studio:8080/api", "https://studio:8080"),
        ("http://studio/api", "http://studio"),
        ("http://studio:8081/", "http://studio:8081"),
        ("//elsewhere/api", "http://elsewhere"),
        ("http://studio:8080@elsewhere/", "http://elsewhere"),
        ("http://169.254.169.254/latest/meta-data/", "http://169.254.169.254"),
        ("file:///etc/passwd", "file://"),
        ("http://[::1/", "no URL"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_server_is_refused_and_nothing_sent_there(
    location: str, target: str, status: int
) -> None:
    seen = Seen(leads_to(location, status))
    with pytest.raises(LabelStudioRefused) as caught:
        seen.client().whoami()
    assert str(caught.value) == (
        f"Label Studio: GET /api/current-user/whoami leads from http://studio:8080 to {target}; not followed, for the "
        "token is for the first alone: set the URL that it is reached by"
    )
    assert seen.urls == ["http://studio:8080/api/current-user/whoami"]


def test_a_change_is_not_repeated_elsewhere_either() -> None:
    seen = Seen(lambda request: httpx.Response(307, headers={"Location": "http://elsewhere/"}))
    with pytest.raises(LabelStudioRefused, match="to http://elsewhere; not followed"):
        seen.client().create_annotation(1, [{"value": "secret"}])
    assert len(seen.urls) == 1


def test_redirects_in_a_circle_end() -> None:
    seen = Seen(lambda request: httpx.Response(302, headers={"Location": request.url.path}))
    with pytest.raises(LabelStudioUnavailable, match="Exceeded maximum allowed redirects"):
        seen.client().whoami()
    assert len(seen.urls) <= 3 * (MOST_REDIRECTS + 1)


def test_the_transport_itself_sends_nothing_to_another_server() -> None:
    seen = Seen(lambda request: httpx.Response(200))
    with (
        httpx.Client(transport=guarded("http://studio", httpx.MockTransport(seen))) as http,
        pytest.raises(
            LabelStudioRefused, match=r"GET http://elsewhere/a is not sent: .* http://studio alone"
        ),
    ):
        http.get("http://elsewhere/a?token=x")
    assert seen.urls == []


class Endless(httpx.SyncByteStream):
    """A body that goes on for ever, and counts what was read."""

    def __init__(self, piece: bytes) -> None:
        self.pieces = 0
        self._piece = piece

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self.pieces += 1
            yield self._piece


def test_an_answer_without_end_is_read_to_its_limit() -> None:
    body = Endless(bytes(1 << 20))
    seen = Seen(lambda request: httpx.Response(200, stream=body))
    with pytest.raises(
        LabelStudioUnavailable, match=f"GET /data/a.png answers with more than {LARGEST_ANSWER} bytes"
    ):
        seen.client().download("/data/a.png")
    assert body.pieces == (LARGEST_ANSWER >> 20) + 1


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_an_answer_that_unpacks_to_much_more_takes_no_more_than_its_limit(packed: str) -> None:
    pack = zlib.compressobj(9, wbits=zlib.MAX_WBITS | (16 if packed == "gzip" else 0))
    bomb = b"".join(pack.compress(bytes(1 << 20)) for _ in range(256)) + pack.flush()
    assert len(bomb) < 2 << 20
    seen = Seen(lambda request: httpx.Response(200, headers={"Content-Encoding": packed}, stream=Body(bomb)))
    tracemalloc.start()
    try:
        with pytest.raises(LabelStudioUnavailable, match=f"more than {4 << 20} bytes"):
            connection(seen).request("GET", "/export", largest=4 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


class Body(httpx.SyncByteStream):
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content


def connection(seen: Seen) -> Connection:
    return Connection("http://studio", TOKEN, transport=httpx.MockTransport(seen), first_wait_s=0.0)


@pytest.mark.parametrize("packed", ["gzip", "deflate", "identity"])
def test_a_packed_answer_is_unpacked(packed: str) -> None:
    body = b'{"id": 1, "email": "' + b"a" * 3_000_000 + b'"}'
    content = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[packed](body)
    seen = Seen(
        lambda request: httpx.Response(200, headers={"Content-Encoding": packed}, stream=Body(content))
    )
    assert seen.client().whoami()["email"] == "a" * 3_000_000


@pytest.mark.parametrize(
    ("packed", "content", "message"),
    [
        ("gzip", b"plain", "answers with what is no gzip"),
        ("br", b"plain", "answers packed as 'br', expected gzip or deflate"),
        ("zstd", b"plain", "answers packed as 'zstd', expected gzip or deflate"),
    ],
)
def test_what_cannot_be_unpacked_is_told(packed: str, content: bytes, message: str) -> None:
    seen = Seen(
        lambda request: httpx.Response(200, headers={"Content-Encoding": packed}, stream=Body(content))
    )
    with pytest.raises(LabelStudioUnavailable, match=message):
        seen.client().whoami()


def test_json_nested_without_end_is_an_error_of_ours() -> None:
    seen = Seen(lambda request: httpx.Response(200, content=b"[" * 100_000))
    with pytest.raises(LabelStudioUnavailable, match="without JSON"):
        seen.client().list_users()


@pytest.mark.parametrize(
    "url",
    [
        "http://elsewhere/data/a.png",
        "http://studio:8080@elsewhere/a",
        "http://studio:8080.elsewhere/a",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "ftp://studio/a",
    ],
)
def test_pictures_come_from_label_studio_alone(url: str) -> None:
    seen = Seen(lambda request: httpx.Response(200, content=b"x"))
    with pytest.raises(LabelStudioRefused, match=f"{re.escape(url)} does not lie on http://studio:8080"):
        seen.client().download(url)
    assert seen.urls == []


def test_a_proxy_of_the_environment_is_used_as_httpx_would(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str | None] = []
    monkeypatch.setattr(httpx, "HTTPTransport", lambda proxy: made.append(proxy) or httpx.MockTransport(str))
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "inside")
    guarded("http://studio")
    guarded("http://inside")
    assert made == ["http://proxy:3128", None]
