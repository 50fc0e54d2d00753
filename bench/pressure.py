"""Keeps so many connections busy with one request after the other, and counts the answers.

Clients in the measuring process itself: what they cost is in no figure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

GOOD = b"HTTP/1.1 200"
END = b"\r\n0\r\n\r\n"


@dataclass(slots=True)
class Tally:
    answered: int = 0
    failed: int = 0

    async def reaches(self, answered: int) -> None:
        while True:
            if self.answered >= answered:
                return
            await asyncio.sleep(0.05)


class Client(asyncio.Protocol):
    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by type
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._received.startswith(GOOD):
            self._tally.failed += 1
            self.transport.close()
        elif self._received.endswith(END):
            self._received = b""
            self._tally.answered += 1
            self.transport.write(self._request)


def request(path: str, size: int) -> bytes:
    """A completion whose body has so many bytes."""
    frame = b'{"model": "lab", "max_tokens": 16, "prompt": "%s"}'
    words = b"the quick brown fox said \\n" * (size // 26 + 1)
    body = frame % words[: size - len(frame) + 2].rstrip(b"\\")
    return b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        path.encode(),
        len(body),
        body,
    )


@contextlib.asynccontextmanager
async def pressure(host: str, port: int, sent: bytes, connections: int) -> AsyncIterator[Tally]:
    """Requests flow while this lasts."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    clients: list[Client] = []
    try:
        for _ in range(connections):
            _, client = await loop.create_connection(lambda: Client(sent, tally), host, port)
            clients.append(client)
        yield tally
    finally:
        for client in clients:
            client.transport.abort()
