"""The agent's health port: whether it lives, whether it is ready, and to callers on the node itself what it knows.

Says no more than "ok" or what is wrong to strangers; kubelet's probes are such. Knows nothing of what is asked about.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agent.identity.tls import is_loopback

HEADER_LIMIT_BYTES = 16 << 10
TIMEOUT_S = 5.0
CONNECTIONS = 64

Problem = Callable[[], str]  # "" if all is well


@dataclass(frozen=True, slots=True)
class Lookout:
    alive: Problem
    ready: Problem
    node: Callable[[], dict[str, Any]]

    def answer(self, path: str, peer: str) -> tuple[int, bytes]:
        if path == "/healthz":
            return _said(self.alive())
        if path == "/readyz":
            return _said(self.alive() or self.ready())
        if path == "/nodez":
            if not is_loopback(peer):
                return 403, b"only for callers on the node itself: sonde-agent status\n"
            return 200, json.dumps(self.node(), allow_nan=False).encode()
        return 404, b"/healthz, /readyz and /nodez are here\n"


def _said(problem: str) -> tuple[int, bytes]:
    return (503, f"{problem}\n".encode()) if problem else (200, b"ok\n")


async def serve(lookout: Lookout, bind: str, port: int) -> asyncio.Server:
    """Raises OSError."""
    busy = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy
        busy += 1
        try:
            if busy <= CONNECTIONS:
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                    async with asyncio.timeout(TIMEOUT_S):
                        await _exchange(lookout, reader, writer)
        finally:
            busy -= 1
            writer.close()

    try:
        return await asyncio.start_server(handle, bind, port, limit=HEADER_LIMIT_BYTES)
    except OSError as error:
        raise OSError(f"cannot listen at {bind}:{port} for health: {error.strerror or error}") from error


async def _exchange(lookout: Lookout, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    path = words[1].decode("ascii", "replace").partition("?")[0] if len(words) == 3 and words[0] == b"GET" else ""
    status, body = lookout.answer(path, writer.get_extra_info("peername")[0])
    kind = b"application/json" if path == "/nodez" and status == 200 else b"text/plain"
    head = b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    writer.write(head % (status, b"OK" if status == 200 else b"No", kind, len(body)) + body)
    await writer.drain()
