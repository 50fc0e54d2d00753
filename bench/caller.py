"""A client that knows when: sends one request at a time on a connection, and reads, or leaves, its answer."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

from bench.matching import Call
from lab.config import MODEL
from lab.engines import http1

LIMIT_S = 20.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `abort_after`: close the connection after so many data events, None: read to the end."""

    id: str
    prompt_tokens: int
    output_tokens: int
    stream: bool = True
    chat: bool = False
    abort_after: int | None = None


class Caller:
    """One address; a connection is kept for the next request where that is wanted."""

    def __init__(self, host: str, port: int, keep: bool = True) -> None:
        self._host = host
        self._port = port
        self._keep = keep
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, ask: Ask) -> Call:
        """Raises TimeoutError, OSError or http1.FramingError where no whole answer comes."""
        async with asyncio.timeout(LIMIT_S):
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            sent_ns = time.monotonic_ns()
            writer.write(_bytes(ask, self._host))
            if ask.abort_after == 0:
                await asyncio.sleep(0.005)  # so that the engine has the request
            events = await _read(reader, ask.abort_after)
            over_ns = time.monotonic_ns()
        if ask.abort_after is not None or not self._keep:
            self.close()
        return Call(ask.id, sent_ns, over_ns, ask.abort_after is not None, events)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader, stop_after: int | None) -> int:
    """Reads until the answer's end or so many data events; returns how many came."""
    if stop_after == 0:
        return 0
    framing = http1.Reader(responses=True)
    body = b""
    while received := await reader.read(1 << 16):
        for event in framing.feed(received):
            if isinstance(event, http1.Data):
                body += event.payload
            elif isinstance(event, http1.End):
                return _events(body)
        if stop_after is not None and _events(body) >= stop_after:
            return _events(body)
    raise http1.FramingError("the connection ended inside an answer")


def _events(body: bytes) -> int:
    return body.count(b"\n\ndata: ") + body.startswith(b"data: ")


def _bytes(ask: Ask, host: str) -> bytes:
    prompt = "the " * ask.prompt_tokens
    asked = {"model": MODEL, "max_tokens": ask.output_tokens, "stream": ask.stream}
    asked |= {"messages": [{"role": "user", "content": prompt}]} if ask.chat else {"prompt": prompt}
    path = "/v1/chat/completions" if ask.chat else "/v1/completions"
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nx-request-id: {ask.id}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
