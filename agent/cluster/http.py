"""Raw JSON from the API server: one list page, or the lines of one watch. Knows no kinds of objects.

Everything that can go wrong is an ApiError with the status, if there was an answer at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

import urllib3.exceptions

PAGE_LIMIT_BYTES = 256 << 20  # a list from the server's cache comes in one page: 10,000 pods of 4 KB are 40 MB
LINE_LIMIT_BYTES = 16 << 20  # an object has 1.5 MB at most in etcd's default
ERROR_LIMIT_BYTES = 64 << 10
_READ_BYTES = 64 << 10
_HEADERS = {"Accept": "application/json", "User-Agent": "sonde"}

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE = 400, 401, 403, 404, 409, 410
CALL_S = 10.0  # the read limit of a single object


class ApiError(Exception):
    """No useful answer; the text says why, in one line. `status` is None where nobody answered."""

    def __init__(self, text: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(" ".join(text.split())[:500])
        self.status = status
        self.retry_after_s = retry_after_s


class Silence(ApiError):
    """Nothing came within the read limit."""


class Door(Protocol):
    """What is needed of agent.cluster.access.Access."""

    def open(
        self, path: str, headers: dict[str, str], read_s: float, method: str = "GET", body: bytes | None = None
    ) -> Any: ...


class Stream:
    """The events of one watch. `close` may be called from another thread and ends a read that waits."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Each event as it comes. Raises ApiError; a stream that the server ends in order just ends."""
        rest = b""
        while True:
            part = _reading(lambda: self._response.read1(_READ_BYTES))
            if not part:
                if rest.strip():
                    raise ApiError("the watch ended inside an event")
                return
            lines = (rest + part).split(b"\n")
            rest = lines.pop()
            if len(rest) > LINE_LIMIT_BYTES:
                raise ApiError(f"an event exceeds {LINE_LIMIT_BYTES} bytes")
            for line in lines:
                if line.strip():
                    yield _mapping(line, "an event")

    def close(self) -> None:
        _reading(self._response.close)

    def abort(self) -> None:
        """Wakes whoever reads; the reader closes."""
        try:
            self._response.shutdown()
        except (OSError, ValueError, AttributeError, RuntimeError, urllib3.exceptions.HTTPError):
            return  # it has ended, or the library is older than urllib3 2.3: the read limit will do


def get(door: Door, path: str, read_s: float) -> dict[str, Any]:
    """One JSON document. Raises ApiError."""
    response = _opened(door, path, read_s)
    whole = False
    try:
        body = _reading(lambda: response.read(PAGE_LIMIT_BYTES + 1))
        whole = len(body) <= PAGE_LIMIT_BYTES
    finally:
        if not whole:
            response.close()
    if not whole:
        raise ApiError(f"the answer exceeds {PAGE_LIMIT_BYTES} bytes")
    response.release_conn()
    return _mapping(body, "the answer")


def send(door: Door, method: str, path: str, document: dict[str, Any]) -> None:
    """Creates (POST) or replaces (PUT) an object. Raises ApiError."""
    response = _opened(door, path, CALL_S, method, json.dumps(document).encode())
    response.close()


def stream(door: Door, path: str, read_s: float) -> Stream:
    """An open watch. Raises ApiError."""
    return Stream(_opened(door, path, read_s))


def _opened(door: Door, path: str, read_s: float, method: str = "GET", body: bytes | None = None) -> Any:
    headers = dict(_HEADERS) if body is None else {**_HEADERS, "Content-Type": "application/json"}
    response = _reading(lambda: door.open(path, headers, read_s, method, body))
    if response.status in (200, 201):
        return response
    try:
        said = _reading(lambda: response.read(ERROR_LIMIT_BYTES))
    finally:
        response.close()
    raise ApiError(_said(response.status, said), response.status, _retry_after_s(response.headers))


def _said(status: int, body: bytes) -> str:
    try:
        message = json.loads(body).get("message")
    except (ValueError, AttributeError):
        message = None
    return f"status {status}: {message}" if message else f"status {status}"


def _retry_after_s(headers: Any) -> float | None:
    text = headers.get("Retry-After") or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _mapping(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ApiError(f"{what} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError(f"{what} is no JSON object")
    return value


def _reading(read: Any) -> Any:
    """Raises ApiError for whatever the transport raises."""
    try:
        return read()
    except urllib3.exceptions.ReadTimeoutError:
        raise Silence("nothing came within the read limit") from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as error:
        # ValueError and AttributeError: what http.client and urllib3 raise when another thread closed the connection
        raise ApiError(f"{type(error).__name__}: {error}") from None
