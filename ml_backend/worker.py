"""gunicorn's threaded worker, with a thread only for requests that are there whole.

gunicorn gives a new connection a thread at once, and waits in it: five seconds for the first byte, without an end for
the others. Eight browsers that open a spare connection, as browsers do, or eight clients on a slow line, and nobody
is served. Here the main loop, which waits for all connections together, gathers a request first.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

logger = logging.getLogger(__name__)

FIRST_BYTE_S = 30.0
"""A connection that is opened and says nothing is closed after this."""
REQUEST_S = 20.0
"""From its first byte on a request has to be there, or as much as is gathered of it."""
LARGEST_HEAD = 64 * 1024
GATHERED = 1024 * 1024
"""Of a larger request the rest is read by its thread: Label Studio alone sends such, and proves first who it is."""
LINGER_S = 1.0
"""When told to stop, for a connection that has said nothing yet."""
STALLED_S = 30.0
"""A thread waits so long for more of a large request, or to be rid of an answer that nobody takes."""
_PIECE = 64 * 1024

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*(?=\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*(?=\r\n)", re.IGNORECASE)


class Refused(Exception):
    """A request that is not even begun with; the text is the status line."""


@dataclass(slots=True)
class Gathering:
    """The first bytes of a request, until there are enough to begin with."""

    deadline: float
    """On the monotonic clock."""
    content: bytearray = field(default_factory=bytearray)
    _whole: int | None = None
    """Bytes of head and body together, once the head is there."""
    _looked: int = 0

    def is_enough(self) -> bool:
        """Whether a thread may begin: all is there, or ``GATHERED`` of it.

        Raises
        ------
        Refused
            If the head is too long, or the body has no length that is told before.
        """
        if self._whole is None and not self._read_head():
            return False
        assert self._whole is not None, "the head is there"
        return len(self.content) >= min(self._whole, GATHERED)

    def asks_to_go_on(self) -> bool:
        """Whether the client waits for a word before it sends the body; asked for once, and answered by us."""
        if self._whole is None:
            return False
        found = _EXPECTS.search(self.content, 0, self._looked)
        if found is None:
            return False
        removed = found.end() - found.start()
        del self.content[found.start() : found.end()]  # gunicorn would answer it again
        self._looked -= removed
        self._whole -= removed
        return True

    def _read_head(self) -> bool:
        content = self.content
        while content.startswith(b"\r\n"):  # an empty line before a request is allowed, and means nothing
            del content[:2]
            self._looked = 0
        end = content.find(b"\r\n\r\n", max(0, self._looked - 3))
        if end > LARGEST_HEAD or (end < 0 and len(content) > LARGEST_HEAD):
            raise Refused("431 Request Header Fields Too Large")
        if end < 0:
            self._looked = len(content)
            return False
        self._looked = end + 4
        if _CODING.search(content, 0, self._looked):
            # chunks could be sent one by one for hours, and a form is read before anyone has logged in
            raise Refused("411 Length Required")
        length = _LENGTH.search(content, 0, self._looked)
        self._whole = self._looked + (int(length[1]) if length else 0)
        return True


class GatheringWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn 27's threaded worker; see the module."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gathering: dict[TConn, Gathering] = {}

    # gunicorn calls this on its main loop whenever a connection may have a request: it is new, it was kept alive and
    # says something, or there was more behind the last request
    def enqueue_req(self, conn: TConn) -> None:
        """Gather a request, and give it a thread as soon as it is there."""
        wait_s = REQUEST_S if conn.initialized else FIRST_BYTE_S
        gathering = Gathering(deadline=time.monotonic() + wait_s)
        if conn.initialized:
            gathering.content += conn.parser.unreader.take_buffered()
        conn.sock.setblocking(False)
        if not self._advance(conn, gathering):
            self._gathering[conn] = gathering
            self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))

    def murder_pending(self) -> None:
        """Close connections whose request does not come; asked once a turn of the loop."""
        super().murder_pending()
        now = time.monotonic()
        for conn, gathering in list(self._gathering.items()):
            if (
                not self.alive and not gathering.content
            ):  # told to stop: the client may just be sending something
                gathering.deadline = min(gathering.deadline, now + LINGER_S)
            if gathering.deadline < now:
                self._forget(conn)
                self._hang_up(conn, "408 Request Timeout" if gathering.content else None)

    def _on_readable(self, conn: TConn, _sock: object) -> None:
        gathering = self._gathering[conn]
        is_first = not gathering.content
        self._forget(conn)
        if not self._advance(conn, gathering):
            if is_first:
                gathering.deadline = time.monotonic() + REQUEST_S
            self._gathering[conn] = gathering
            self.poller.register(conn.sock, EVENT_READ, partial(self._on_readable, conn))

    def _advance(self, conn: TConn, gathering: Gathering) -> bool:
        """Take what has come; False if there is more to wait for, True if the connection is out of our hands."""
        try:
            while not gathering.is_enough():
                if gathering.asks_to_go_on():
                    conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
                piece = conn.sock.recv(_PIECE)
                if not piece:
                    self._hang_up(conn, None)
                    return True
                gathering.content += piece
        except (BlockingIOError, InterruptedError):
            return False
        except Refused as refused:
            self._hang_up(conn, str(refused))
            return True
        except OSError:  # the client is gone
            self._hang_up(conn, None)
            return True
        gathering.asks_to_go_on()
        conn.init()
        conn.parser.unreader.unread(bytes(gathering.content))
        super().enqueue_req(conn)
        return True

    def _forget(self, conn: TConn) -> None:
        del self._gathering[conn]
        self.poller.unregister(conn.sock)

    def _hang_up(self, conn: TConn, status: str | None) -> None:
        """Close a connection, with a last word where something was asked."""
        if status is not None:
            logger.info("hung up client=%s: %s", conn.client[0] if conn.client else "", status)
            with contextlib.suppress(OSError):
                conn.sock.send(
                    f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
                )
        self.nr_conns -= 1
        conn.close()


def limit_waiting(_worker: object, request: Any) -> None:
    """gunicorn's ``pre_request``: no client keeps a thread by reading or sending nothing."""
    request.unreader.sock.settimeout(STALLED_S)
