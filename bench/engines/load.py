"""Clients of an engine over HTTP/1.1: side by side, patient or not, each with its own times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lab.engines import http1

now = time.monotonic_ns
LIMIT_S = 180.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Ask:
    path: str
    body: bytes
    leave_after_events: int | None = None
    leave_after_s: float | None = None  # of sending, whatever has come by then


@dataclass(frozen=True, slots=True)
class Reply:
    sent_ns: int
    over_ns: int
    status: int | None = None
    first_ns: int | None = None  # first body bytes with data
    events: int = 0
    left: bool = False  # the client closed
    cut: bool = False  # the server did, inside the answer
    failed: bool = False  # says an error inside a stream of status 200

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_ns is None else (self.first_ns - self.sent_ns) / 1e9


@dataclass(slots=True)
class _Answer:
    """What has been read of one."""

    status: int | None = None
    first_ns: int | None = None
    events: int = 0
    failed: bool = False
    whole: bool = False
    framing: http1.Reader = field(default_factory=lambda: http1.Reader(responses=True))

    def take(self, received: bytes) -> None:
        for event in self.framing.feed(received):
            if isinstance(event, http1.Head):
                self.status = int(event.first[1])
            elif isinstance(event, http1.Data):
                self._take_body(event.payload)
            else:
                self.whole = True

    def _take_body(self, payload: bytes) -> None:
        if self.first_ns is None and not payload.startswith(b":"):
            self.first_ns = now()
        self.events += payload.count(b"data: {")
        self.failed |= payload.startswith(b'data: {"error"') or b'"error":' in payload


async def ask_all(host: str, port: int, asks: Iterable[Ask], lanes: int) -> list[Reply]:
    """All asks, so many at a time, in the order in which they came to an end."""
    waiting, replies = iter(asks), list[Reply]()

    async def lane() -> None:
        kept: Streams | None = None
        for ask in waiting:
            reply, kept = await ask_one(host, port, ask, kept)
            replies.append(reply)
        if kept is not None:
            kept[1].close()

    async with asyncio.TaskGroup() as group:
        for _ in range(lanes):
            group.create_task(lane())
    return replies


async def ask_one(host: str, port: int, ask: Ask, kept: Streams | None = None) -> tuple[Reply, Streams | None]:
    """The reply, and the connection where it can carry another request. Raises OSError or TimeoutError."""
    reader, writer = kept or await asyncio.open_connection(host, port)
    answer, left = _Answer(), False
    head = f"POST {ask.path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
    sent_ns = now()
    writer.write(f"{head}content-length: {len(ask.body)}\r\n\r\n".encode() + ask.body)
    try:
        async with asyncio.timeout(LIMIT_S if ask.leave_after_s is None else ask.leave_after_s):
            left = await _read(reader, answer, ask.leave_after_events)
    except TimeoutError:
        if ask.leave_after_s is None:
            raise
        left = True
    over_ns = now()
    if not answer.whole:
        writer.close()
    reply = Reply(
        sent_ns,
        over_ns,
        answer.status,
        answer.first_ns,
        answer.events,
        left=left,
        cut=not answer.whole and not left,
        failed=answer.failed,
    )
    return reply, (reader, writer) if answer.whole else None


async def _read(reader: asyncio.StreamReader, answer: _Answer, stop_after: int | None) -> bool:
    """Whether the client has had enough before the answer was whole."""
    while not answer.whole:
        try:
            received = await reader.read(1 << 16)
        except ConnectionResetError:
            return False
        if not received:
            return False
        answer.take(received)
        if stop_after is not None and answer.events >= stop_after and not answer.whole:
            return True
    return False
