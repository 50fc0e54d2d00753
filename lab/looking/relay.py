"""Brings the live page out of the lab's namespace: what comes to a port of this machine's loopback is carried in.

The listening socket must be made before the lab enters its namespace, connections inward after: each belongs to the
namespace it was made in. Refuses to know what it carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

HOST = "127.0.0.1"
PORT = 9095  # the same each time, so that a page left open comes back with the next lab
PIECE_BYTES = 1 << 16


def listen(port: int = PORT) -> socket.socket:
    """On the usual port, or on any if somebody has that one. Raises OSError."""
    for wanted in (port, 0):
        made = socket.socket()
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((HOST, wanted))
            made.listen()
        except OSError:
            made.close()
            if wanted == 0:
                raise
        else:
            return made
    raise AssertionError


def address(host: str, port: int) -> str:
    return f"http://{host}:{port}/ui/"


@contextlib.asynccontextmanager
async def carrying(listening: socket.socket, host: str, port: int) -> AsyncIterator[None]:
    """Carries every connection to an address as this process sees it now; ends all of them at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _carry(reader, writer, host, port)
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(came, sock=listening)
    try:
        yield
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    """Until either side has said all; who looks at a lab that is going away sees a closed connection."""
    with contextlib.closing(writer), contextlib.suppress(OSError):
        inner_reader, inner_writer = await asyncio.open_connection(host, port)
        with contextlib.closing(inner_writer):
            asking = asyncio.create_task(_pump(reader, inner_writer))
            try:
                await _pump(inner_reader, writer)
            finally:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
