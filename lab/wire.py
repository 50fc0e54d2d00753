"""Two short calls the lab makes itself: read a page, and turn an engine's knobs."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from lab.engines import http1


class CallError(Exception):
    """No answer, or one that is not 200; the text says from where."""


async def get(host: str, port: int, path: str, timeout_s: float = 2.0) -> bytes:
    """The body of a page. Raises CallError."""
    return await _call(host, port, "GET", path, b"", timeout_s)


async def turn_knobs(host: str, port: int, timeout_s: float = 2.0, **knobs: Any) -> None:
    """Turns an engine's knobs (see lab.knobs). Raises CallError."""
    await _call(host, port, "POST", "/lab/knobs", json.dumps(knobs).encode(), timeout_s)


async def _call(host: str, port: int, method: str, path: str, body: bytes, timeout_s: float) -> bytes:
    where = f"{method} http://{host}:{port}{path}"
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head.encode() + body)
                status, answer = await _read(reader)
            finally:
                writer.close()
    except (OSError, http1.FramingError, TimeoutError) as error:
        raise CallError(f"{where}: {error or type(error).__name__}") from error
    if status != "200":
        raise CallError(f"{where}: status {status}, {answer[:200].decode(errors='replace')}")
    return answer


async def _read(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    framing = http1.Reader(responses=True)
    status, body = "", b""
    while received := await reader.read(1 << 16):
        for event in framing.feed(received):
            if isinstance(event, http1.Head):
                status = event.first[1]
            elif isinstance(event, http1.Data):
                body += event.payload
            else:
                return status, body
    for _ in framing.close():
        return status, body
    raise http1.FramingError("no whole answer")
