"""Many clients on kept connections that ask without a pause, and what they got."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
from collections import Counter
from typing import Self

from tests.gateway.site import HOST, LIMIT_S, Site

ASK = b'{"model": "lab", "prompt": "hello", "max_tokens": 4}'


class Crowd:
    def __init__(self, here: Site, clients: int, body: bytes = ASK) -> None:
        self.statuses: Counter[int] = Counter()
        self.bodies: list[bytes] = []
        self.failures: list[bytes] = []
        self._here = here
        self._clients = clients
        self._body = body
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []
        self._more = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask_on()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    async def answered(self, count: int) -> None:
        """Waits for so many answers, from now on."""
        wanted = self.statuses.total() + count
        while self.statuses.total() < wanted:
            self._more.clear()
            await self._more.wait()

    async def _ask_on(self) -> None:
        reader, writer = await asyncio.open_connection(HOST, self._here.gateway_port)
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        request = head + b"content-length: %d\r\n\r\n%s" % (len(self._body), self._body)
        with contextlib.closing(writer):
            while not self._over:
                writer.write(request)
                async with asyncio.timeout(LIMIT_S):
                    status, body = await _answer(reader)
                self.statuses[status] += 1
                (self.bodies if status == 200 else self.failures).append(body)
                self._more.set()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    fields = http.client.parse_headers(_Lines(head.split(b"\r\n", 1)[1]))  # type: ignore[arg-type]
    return status, await reader.readexactly(int(fields["content-length"]))


class _Lines:
    def __init__(self, data: bytes) -> None:
        self._lines = data.splitlines(keepends=True)

    def readline(self, _limit: int) -> bytes:
        return self._lines.pop(0)
