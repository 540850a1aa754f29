"""The worker: nobody keeps others from being served by being slow, and requests come through as they were sent."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest

from ml_backend import worker
from ml_backend.serving import COLLECT_AFTER, SWITCH_S, THREADS, gunicorn_settings
from ml_backend.worker import GATHERED, LARGEST_HEAD, Gathering, Refused

SERVER = """
import gc, sys, time
from gunicorn.app.base import BaseApplication
from ml_backend import worker
from ml_backend.serving import gunicorn_settings

worker.FIRST_BYTE_S = worker.REQUEST_S = worker.STALLED_S = float(sys.argv[2])

def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    content = b"%d %s " % (len(body), environ["wsgi.url_scheme"].encode()) + body[-10:]
    if environ["PATH_INFO"] == "/python":
        content = repr((sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count() > 10_000)).encode()
    if environ["PATH_INFO"] == "/large":
        content = bytes(20_000_000)
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]

class Echo(BaseApplication):
    def load_config(self):
        for key, value in gunicorn_settings("127.0.0.1", int(sys.argv[1])).items():
            self.cfg.set(key, value)
    def load(self):
        return echo

Echo().run()
"""


def serve(patience_s: float) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(port), str(patience_s)])
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except ConnectionRefusedError:
            time.sleep(0.05)
    process.kill()
    raise AssertionError("the server does not listen")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    process, port = serve(60)
    yield port
    process.terminate()
    assert process.wait(20) == 0


@pytest.fixture
def impatient() -> Iterator[int]:
    """A server that waits for nobody."""
    process, port = serve(1.0)
    yield port
    process.terminate()
    assert process.wait(20) == 0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def ask(port: int, body: bytes = b"", path: str = "/") -> bytes:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", path, body)
    answer = connection.getresponse().read()
    connection.close()
    return answer


def read_to_the_end(sock: socket.socket) -> bytes:
    content = b""
    while piece := sock.recv(65536):
        content += piece
    return content


POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST / HT", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel"],
    ids=["idle", "head", "body"],
)
def test_slow_clients_keep_nobody_from_being_served(port: int, begun: bytes) -> None:
    with ExitStack() as stack:
        for _ in range(8 * THREADS):
            stack.enter_context(connect(port)).sendall(begun)
        assert [ask(port, b"%d" % n) for n in range(5)] == [b"1 http %d" % n for n in range(5)]


def test_a_request_that_comes_byte_by_byte_is_answered(port: int) -> None:
    with connect(port) as sock:
        for n in range(len(POST)):
            sock.sendall(POST[n : n + 1])
            time.sleep(0.001)
        assert read_to_the_end(sock).endswith(b"\r\n\r\n5 http hello")


def test_requests_sent_at_once_are_answered_in_turn(port: int) -> None:
    kept = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    with connect(port) as sock:
        sock.sendall(b"".join(kept % (len(body), body) for body in (b"one", b"", b"three")) + POST)
        answers = read_to_the_end(sock)
    assert [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 200 OK\r\n")[1:]] == [
        b"3 http one",
        b"0 http ",
        b"5 http three",
        b"5 http hello",
    ]


def test_a_connection_is_used_again(port: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    for n in range(3):
        connection.request("POST", "/", b"%d" % n)
        assert connection.getresponse().read() == b"1 http %d" % n
        assert connection.sock is not None, "the server keeps it open"
    connection.close()


def test_a_body_larger_than_what_is_gathered_comes_through_whole(port: int) -> None:
    body = bytes(3 * GATHERED) + b"the end!!!"
    assert ask(port, body) == b"%d http the end!!!" % len(body)


def test_who_waits_for_a_word_before_the_body_gets_it_once(port: int) -> None:
    with connect(port) as sock:
        head, _, body = POST.partition(b"\r\n\r\n")
        sock.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        word = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert sock.recv(len(word)) == word
        sock.sendall(body)
        answer = read_to_the_end(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"5 http hello")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"411 Length Required",
        ),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * (2 * LARGEST_HEAD), b"431 Request Header Fields Too Large"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"431 Request Header Fields Too Large"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"no request at all\r\n\r\n", b"400"),
    ],
    ids=["chunks", "endless head", "large field", "long address", "nonsense"],
)
def test_what_is_no_request_of_ours_is_refused(port: int, sent: bytes, status: bytes) -> None:
    with connect(port) as sock:
        try:
            sock.sendall(sent)
            answer = read_to_the_end(sock)
        except ConnectionResetError:  # it hung up before all was sent
            answer = b"HTTP/1.1 " + status
    assert answer.split(b"\r\n")[0].startswith(b"HTTP/1.1 4")
    assert status[:3] in answer.split(b"\r\n")[0] or status == b"414"
    assert ask(port, b"next") == b"4 http next"


def test_nobody_is_taken_at_their_word_for_https(port: int) -> None:
    with connect(port) as sock:
        sock.sendall(POST.replace(b"Host: x", b"Host: x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Ssl: on"))
        assert read_to_the_end(sock).endswith(b"5 http hello")


@pytest.mark.parametrize(
    ("sent", "said"),
    [(b"", b""), (b"POST / HT", b"408"), (POST[:-2], b"408")],
    ids=["nothing", "half a head", "half a body"],
)
def test_who_says_nothing_more_is_hung_up_on(impatient: int, sent: bytes, said: bytes) -> None:
    with connect(impatient) as sock:
        sock.sendall(sent)
        answer = read_to_the_end(sock)
    assert said in answer.split(b"\r\n")[0]
    assert bool(answer) == bool(said)
    assert ask(impatient, b"next") == b"4 http next"


def test_who_takes_no_answer_keeps_no_thread(impatient: int) -> None:
    with ExitStack() as stack:
        for _ in range(2 * THREADS):
            sock = stack.enter_context(connect(impatient))
            sock.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ask(impatient, b"next") == b"4 http next"


def test_a_request_at_work_is_answered_before_the_server_stops() -> None:
    process, port = serve(60)
    with connect(port) as sock:
        sock.sendall(POST.replace(b"POST / ", b"POST /slow "))
        time.sleep(0.4)
        process.send_signal(signal.SIGTERM)
        assert read_to_the_end(sock).endswith(b"5 http hello")
    assert process.wait(20) == 0


def test_short_requests_wait_neither_for_threads_that_compute_nor_for_garbage(port: int) -> None:
    assert ask(port, path="/python").decode() == repr((SWITCH_S, COLLECT_AFTER, True))


# --- gathering ---


def gathered(*pieces: bytes) -> list[bool]:
    gathering = Gathering(deadline=0)
    enough = []
    for piece in pieces:
        gathering.content += piece
        enough.append(gathering.is_enough())
    return enough


@pytest.mark.parametrize(
    ("pieces", "enough"),
    [
        ([b"GET / HTTP/1.1\r\n\r\n"], [True]),
        ([b"GET / HTTP/1.1\r\n\r", b"\n"], [False, True]),
        ([b"\r\nGET / HTTP/1.1\r\n", b"\r\n"], [False, True]),
        ([b"\r\n", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"], [False, False, True]),
        ([b"POST / HTTP/1.1\r\ncontent-LENGTH:\t3 \r\n\r\n", b"ab", b"c"], [False, False, True]),
        ([b"POST / HTTP/1.1\r\nX-Content-Length: 3\r\n\r\n"], [True]),
        ([b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n"], [True]),
        ([b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", b"x" * GATHERED], [False, True]),
    ],
)
def test_a_request_is_gathered_until_it_is_whole_or_large(pieces: list[bytes], enough: list[bool]) -> None:
    assert gathered(*pieces) == enough


def test_what_is_in_the_body_is_no_head() -> None:
    body = b"\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    gathering = Gathering(deadline=0)
    gathering.content += b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert gathering.is_enough()
    assert not gathering.asks_to_go_on()


def test_a_head_without_end_is_refused_however_it_comes() -> None:
    with pytest.raises(Refused, match="431"):
        gathered(b"GET / HTTP/1.1\r\n", *[b"a" * 1000] * 70)


def test_the_settings_are_those_of_one_process_that_stays() -> None:
    settings = gunicorn_settings("127.0.0.1", 81)
    assert (settings["workers"], settings["max_requests"]) == (1, 0)
    assert settings["worker_connections"] > 50 * 6, "browsers of fifty people"
    assert settings["graceful_timeout"] < 10, "before it is killed"
    assert settings["worker_class"] is worker.GatheringWorker
