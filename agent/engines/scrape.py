"""Fetches pages over HTTP/1.1 with one kept connection per address; knows nothing of what a page says.

A client of its own, because all it needs is one small GET repeated for years at the least cost: no redirects,
no compression, no proxies. TLS checks no certificate: a page of an engine in the same cluster holds no secret, and
engines that have one sign it themselves.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection
from contextlib import ExitStack
from functools import lru_cache

from agent.address import address_of

PAGE_LIMIT_BYTES = 4 << 20
_HEADER_LIMIT_BYTES = 64 << 10
_HEADER_LINES_LIMIT = 200


class ScrapeError(Exception):
    """A page could not be had; the text says from where and why."""


class _Closed(Exception):
    """The server closed a kept connection before it answered anything."""


class Scraper:
    """One kept connection per host and port. Use from one event loop; close() ends all connections."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, int, bool], _Connection] = {}

    async def fetch(self, host: str, port: int, path: str, timeout_s: float, tls: bool = False) -> bytes:
        """The body of GET http://host:port/path, at most PAGE_LIMIT_BYTES of it. Raises ScrapeError.

        Calls for one address wait for each other; the time limit holds for waiting, connecting and reading together.
        """
        key = (host, port, tls)
        connection = self._connections.get(key)
        if connection is None:
            connection = self._connections[key] = _Connection(host, port, tls)
        where = f"http{'s' if tls else ''}://{address_of(host, port)}{path}"
        try:
            async with asyncio.timeout(timeout_s):
                return await connection.get(path)
        except TimeoutError:
            raise ScrapeError(f"{where}: no answer within {timeout_s:g} s") from None
        except ScrapeError as error:
            raise ScrapeError(f"{where}: {error}") from None
        except asyncio.IncompleteReadError as error:
            raise ScrapeError(f"{where}: the connection ended inside the answer") from error
        except asyncio.LimitOverrunError as error:
            raise ScrapeError(f"{where}: a header line exceeds {_HEADER_LIMIT_BYTES} bytes") from error
        except OSError as error:
            raise ScrapeError(f"{where}: {error.strerror or error}") from error
        except ValueError as error:  # a host no address can be made of
            raise ScrapeError(f"{where}: {error}") from error

    def keep_only(self, hosts: Collection[str]) -> None:
        """Closes the connections to every other host."""
        for key in [key for key in self._connections if key[0] not in hosts]:
            self._connections.pop(key).close()

    def close(self) -> None:
        self.keep_only(())


class _Connection:
    def __init__(self, host: str, port: int, tls: bool) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        async with self._lock:
            with ExitStack() as undo:
                undo.callback(self.close)  # what is left unread, on cancellation too, must not meet the next request
                page = await self._answer(path)
                undo.pop_all()
                return page

    async def _answer(self, path: str) -> bytes:
        if self._streams is not None:
            try:
                return await self._exchange(path)
            except _Closed:
                # servers close idle connections (vLLM after 5 s) and that may cross our request
                self.close()
        self._streams = await asyncio.open_connection(
            self._host, self._port, limit=_HEADER_LIMIT_BYTES, ssl=_any_certificate() if self._tls else None
        )
        try:
            return await self._exchange(path)
        except _Closed:
            raise ScrapeError("the connection ended before an answer") from None

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, path: str) -> bytes:
        assert self._streams is not None
        reader, writer = self._streams
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {address_of(self._host, self._port)}\r\n"
            "User-Agent: sonde\r\nAccept: text/plain\r\nAccept-Encoding: identity\r\n\r\n"
        )
        try:
            writer.write(request.encode("ascii", "replace"))
            status_line = await reader.readuntil(b"\n")
        except ConnectionError:
            raise _Closed from None
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            raise _Closed from None
        version = _check_status(status_line)
        headers = await _read_headers(reader)
        body, reusable = await _read_body(reader, headers)
        if not reusable or version == b"HTTP/1.0" or b"close" in headers.get(b"connection", b"").lower():
            self.close()
        return body


@lru_cache(maxsize=1)
def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _check_status(line: bytes) -> bytes:
    """The HTTP version of a status line. Raises ScrapeError on all but 200."""
    version, _, rest = line.strip().partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ScrapeError(f"not an HTTP/1 answer: {line[:40]!r}")
    if rest[:3] != b"200":
        raise ScrapeError(f"status {rest[:40].decode('ascii', 'replace')}")
    return version


async def _read_headers(reader: asyncio.StreamReader) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for _ in range(_HEADER_LINES_LIMIT):
        line = (await reader.readuntil(b"\n")).strip()
        if not line:
            return headers
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    raise ScrapeError(f"more than {_HEADER_LINES_LIMIT} header lines")


async def _read_body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> tuple[bytes, bool]:
    """The body, and whether another answer can follow on the connection."""
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        return await _read_chunks(reader), True
    length = headers.get(b"content-length")
    if length is None:
        return await _read_to_end(reader), False
    if not length.isdigit():
        raise ScrapeError(f"content-length is {length[:20]!r}, not a number")
    _check_size(int(length))
    return await reader.readexactly(int(length)), True


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        line = await reader.readuntil(b"\n")
        digits = line.partition(b";")[0].strip()
        try:
            size = int(digits, 16)
        except ValueError:
            raise ScrapeError(f"chunk size is {digits[:20]!r}, not a hexadecimal number") from None
        total += size
        _check_size(total if size >= 0 else -1)
        if size == 0:
            await _read_headers(reader)  # the trailer
            return b"".join(parts)
        parts.append((await reader.readexactly(size + 2))[:-2])


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while part := await reader.read(1 << 16):
        total += len(part)
        _check_size(total)
        parts.append(part)
    return b"".join(parts)


def _check_size(size_bytes: int) -> None:
    if not 0 <= size_bytes <= PAGE_LIMIT_BYTES:
        raise ScrapeError(f"the page has {size_bytes} bytes, the limit is {PAGE_LIMIT_BYTES}")
