"""One HTTP conversation with Label Studio: tokens, retries, and errors in our own words.

The SDK's transport brings the token (legacy, or personal access token with its refresh); bodies stay
plain JSON, because the SDK's models would copy every mask once more. The whole SDK takes more than a
second to import, its transport a third of that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import httpx
from label_studio_sdk.core.api_error import ApiError
from label_studio_sdk.core.client_wrapper import SyncClientWrapper
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from cytoloop.domain.errors import LabelStudioRefused, LabelStudioUnavailable
from labelstudio_config.transport import LARGEST_ANSWER, MOST_REDIRECTS, at_most, guarded

logger = logging.getLogger(__name__)

ATTEMPTS = 3
_REPEATABLE = ("GET", "PATCH")
"""Saying it twice is saying it once. A DELETE is not: the second would be told that nothing is there."""
_LONGEST_DETAIL = 500


class LabelStudioNotFound(LabelStudioRefused):
    """404: no such project, task, prediction, page or file."""


class _Passing(LabelStudioUnavailable):
    """A failure that may pass, of a call that may be repeated."""


class Connection:
    """Calls to one Label Studio as one user; safe to share between threads.

    Parameters
    ----------
    base_url : str
        ``http://127.0.0.1:8080``, with a path prefix where Label Studio lives under one.
    token : str
        Legacy token or personal access token; never part of a message.
    timeout_s : float
        For each attempt.
    transport : httpx.BaseTransport, optional
        Instead of the network, in tests.
    first_wait_s : float
        Pause before the second attempt; doubled for the third.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        first_wait_s: float = 0.3,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._token = token
        self._first_wait_s = first_wait_s
        self._http = httpx.Client(
            timeout=timeout_s,
            transport=guarded(self.base_url, transport),
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            headers={"Accept-Encoding": "gzip, deflate"},
        )
        try:
            # The SDK resolves its refresh route against this URL: without the slash a prefix is lost.
            self._sdk = SyncClientWrapper(
                api_key=token, base_url=f"{self.base_url}/", timeout=timeout_s, httpx_client=self._http
            )
        except ApiError as error:
            raise self._refused("token", error.status_code, error.body) from None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        largest: int = LARGEST_ANSWER,
    ) -> Any:
        """JSON of the answer (None where it is empty).

        GET and PATCH are tried three times when the server is away or failing (5xx); other methods only
        when no connection came about, for then nothing was said.

        Parameters
        ----------
        largest : int
            Bytes of the answer, unpacked; of a larger one the rest is not read.

        Raises
        ------
        LabelStudioUnavailable
            Down, too slow, failing, answering too much, or not JSON.
        LabelStudioRefused
            400 to 499, with the call, the status and what Label Studio says about it; or a redirect to
            another server, which is not followed.
        """
        response = self.request(method, path, body=body, params=params, timeout_s=timeout_s, largest=largest)
        if not response.content:
            return None
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise LabelStudioUnavailable(
                f"Label Studio: {method} {path} answered {response.status_code} without JSON; "
                f"is {self.base_url} a Label Studio?"
            ) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        largest: int = LARGEST_ANSWER,
    ) -> httpx.Response:
        """The answer itself, for what is not JSON; retries and errors as in ``call``."""
        content = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=self._first_wait_s),
            retry=retry_if_exception_type(_Passing),
            reraise=True,
        )
        response: httpx.Response = attempts(self._once, method, path, content, params, timeout_s, largest)
        return response

    def _once(
        self,
        method: str,
        path: str,
        content: bytes | None,
        params: Mapping[str, Any] | None,
        timeout_s: float | None,
        largest: int,
    ) -> httpx.Response:
        call = f"{method} {path}"
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s
        try:
            headers = {**self._sdk.get_headers(), "Content-Type": "application/json"}
            response = self._http.request(
                method,
                self.base_url + path,
                content=content,
                params=params,
                headers=headers,
                timeout=timeout,
                extensions=at_most(largest),
            )
        except ApiError as error:  # only the refresh of a personal access token raises it
            raise self._refused(call, error.status_code, error.body) from None
        except ValueError:  # nor does the SDK expect a page of a proxy there
            raise LabelStudioUnavailable(
                f"Label Studio: {call}: no answer in JSON to the refresh of the token"
            ) from None
        except httpx.HTTPError as error:
            never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            kind = _Passing if never_sent or method in _REPEATABLE else LabelStudioUnavailable
            what = str(error) or type(error).__name__
            raise kind(f"Label Studio: {call} at {self.base_url}: {what}") from None
        if response.status_code >= 500:
            kind = _Passing if method in _REPEATABLE else LabelStudioUnavailable
            detail = self._detail(response.text)
            raise kind(f"Label Studio: {call} answered {response.status_code}: {detail}")
        if response.status_code >= 400:
            raise self._refused(call, response.status_code, response.text)
        return response

    def _refused(self, call: str, status: int | None, body: Any) -> LabelStudioRefused:
        kind = LabelStudioNotFound if status == 404 else LabelStudioRefused
        return kind(f"Label Studio: {call} answered {status}: {self._detail(body)}")

    def _detail(self, body: Any) -> str:
        """What Label Studio says went wrong, in one line and without the token."""
        if isinstance(body, str):
            try:
                body = json.loads(body)
            except ValueError:
                body = "(a page)" if "<html" in body.lower() else body
        if isinstance(body, dict):
            parts = [body[key] for key in ("detail", "validation_errors") if body.get(key)]
            body = " ".join(p if isinstance(p, str) else json.dumps(p) for p in parts or [body])
        text = " ".join(str(body).split()).replace(self._token, "…")
        return text if len(text) <= _LONGEST_DETAIL else text[:_LONGEST_DETAIL] + "…"
