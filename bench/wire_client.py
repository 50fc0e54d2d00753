"""A client that knows when, for one request at a time over HTTP/1.1; and the sampling of a count meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from bench.matching import Call, Sample
from lab.engines import http1

now = time.monotonic_ns
SAMPLE_S = 0.005
LIMIT_S = 60.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Ask:
    id: str
    path: str
    body_bytes: int = 2
    expect: bool = False
    abort_after: int | None = None  # events


async def call(host: str, port: int, ask: Ask, kept: Streams | None) -> tuple[Call, Streams | None]:
    """The call, and its connection where that can carry another. Raises OSError or TimeoutError."""
    async with asyncio.timeout(LIMIT_S):
        reader, writer = kept or await asyncio.open_connection(host, port)
        head = f"POST {ask.path} HTTP/1.1\r\nhost: x\r\nx-request-id: {ask.id}\r\ncontent-length: {ask.body_bytes}\r\n"
        body = b"p" * ask.body_bytes
        sent_ns = now()
        if ask.expect:
            writer.write((head + "expect: 100-continue\r\n\r\n").encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.write(body)
        else:
            writer.write((head + "\r\n").encode() + body)
        events, whole = await _read(reader, ask.abort_after)
        over_ns = now()
    if ask.abort_after is not None or not whole:
        writer.close()
        return Call(ask.id, sent_ns, over_ns, ask.abort_after is not None, events), None
    return Call(ask.id, sent_ns, over_ns, False, events), (reader, writer)


async def _read(reader: asyncio.StreamReader, stop_after: int | None) -> tuple[int, bool]:
    """Events read, and whether the answer was framed; one that ends with its connection is not."""
    framing = http1.Reader(responses=True)
    events, closing, before = 0, False, b""
    while received := await reader.read(1 << 20):
        if not before:
            closing = b"connection: close" in received
        before = received
        events += received.count(b"data: ")
        if closing:
            continue
        if any(isinstance(event, http1.End) for event in framing.feed(received)):
            return events, True
        if stop_after is not None and events >= stop_after:
            return events, False
    if not closing:
        raise ConnectionResetError("the connection ended inside an answer")
    return events, False


async def watch(read: Callable[[], int], into: list[Sample]) -> None:
    while True:
        before_ns = now()
        value = read()
        into.append(Sample(before_ns, now(), value))
        await asyncio.sleep(SAMPLE_S)
