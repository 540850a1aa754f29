"""Where our calls may go and how much may come back: one server, and no answer without an end.

A redirect is followed on the server that was asked alone, for the token is for nobody else. An answer is read, and
unpacked, only as far as its call allows.
"""

from __future__ import annotations

import urllib.request
import zlib
from collections.abc import Iterator
from typing import Any

import httpx

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable

MOST_REDIRECTS = 5
LARGEST_ANSWER = 64 << 20
"""Bytes, unpacked, of one task with all its masks, or of one picture."""
LARGEST_BULK = 1 << 30
"""Bytes, unpacked, of an export or of a page of tasks with their masks."""
_LARGEST = "cytoloop.largest_answer"
_PIECE = 1 << 20
_PORTS = {"http": 80, "https": 443}


def at_most(size: int) -> dict[str, Any]:
    """``extensions`` of a request whose answer may have up to so many bytes."""
    return {_LARGEST: size}


def guarded(base_url: str, transport: httpx.BaseTransport | None = None) -> httpx.BaseTransport:
    """A transport that speaks to the server of ``base_url`` alone, and reads bounded answers.

    Parameters
    ----------
    transport : httpx.BaseTransport, optional
        What it sends by; by default the network, through the proxy that the environment names for this server.
    """
    return _Guarded(httpx.URL(base_url), transport or httpx.HTTPTransport(proxy=_proxy(httpx.URL(base_url))))


def _proxy(url: httpx.URL) -> str | None:
    """As httpx finds it, which looks only where it makes the transport itself."""
    found = urllib.request.getproxies()
    proxy = found.get(url.scheme) or found.get("all")
    return None if proxy is None or urllib.request.proxy_bypass(url.host) else proxy


class _Guarded(httpx.BaseTransport):
    def __init__(self, server: httpx.URL, transport: httpx.BaseTransport) -> None:
        self._origin = _origin(server)
        self._transport = transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if _origin(request.url) != self._origin:
            raise LabelStudioRefused(
                f"Label Studio: {request.method} {_told(request.url)} is not sent: "
                f"its token is for {self._origin} alone"
            )
        response = self._transport.handle_request(request)
        try:
            self._refuse_redirect(request, response)
            content = _read(request, response)
        finally:
            response.close()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        return httpx.Response(
            response.status_code, headers=headers, content=content, extensions=response.extensions
        )

    def _refuse_redirect(self, request: httpx.Request, response: httpx.Response) -> None:
        if not response.has_redirect_location:
            return
        location = response.headers["location"]
        try:
            target = _origin(request.url.join(location))
        except (httpx.InvalidURL, ValueError):
            target = "no URL"
        if target != self._origin:
            raise LabelStudioRefused(
                f"Label Studio: {request.method} {request.url.path} leads from {self._origin} to {target}; not "
                "followed, for the token is for the first alone: set the URL that it is reached by"
            )

    def close(self) -> None:
        self._transport.close()


def _origin(url: httpx.URL) -> str:
    port = url.port or _PORTS.get(url.scheme)
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" + ("" if port == _PORTS.get(url.scheme) else f":{port}")


def _told(url: httpx.URL) -> str:
    return f"{_origin(url)}{url.path}"


def _read(request: httpx.Request, response: httpx.Response) -> bytes:
    largest = request.extensions.get(_LARGEST, LARGEST_ANSWER)
    content = bytearray()
    for piece in _unpacked(request, response):
        content += piece
        if len(content) > largest:
            raise LabelStudioUnavailable(
                f"Label Studio: {request.method} {request.url.path} answers with more than {largest} bytes; "
                "the rest was not read"
            )
    return bytes(content)


def _unpacked(request: httpx.Request, response: httpx.Response) -> Iterator[bytes]:
    """Pieces of the body; what is packed comes in pieces of at most a megabyte, however much it makes."""
    packed = response.headers.get("content-encoding", "identity").lower()
    raw = response.stream
    assert isinstance(raw, httpx.SyncByteStream), "of a transport that is not asynchronous"
    if packed == "identity":
        yield from raw
        return
    if packed not in ("gzip", "deflate"):
        raise LabelStudioUnavailable(
            f"Label Studio: {request.method} {request.url.path} answers packed as {packed!r}, expected gzip or deflate"
        )
    unpack = zlib.decompressobj(zlib.MAX_WBITS | (16 if packed == "gzip" else 0))
    try:
        for packed_piece in raw:
            rest = packed_piece
            while rest and not unpack.eof:
                yield unpack.decompress(rest, _PIECE)
                rest = unpack.unconsumed_tail
        while not unpack.eof and (piece := unpack.decompress(b"", _PIECE)):
            yield piece
    except zlib.error as error:
        raise LabelStudioUnavailable(
            f"Label Studio: {request.method} {request.url.path} answers with what is no {packed} ({error})"
        ) from None
