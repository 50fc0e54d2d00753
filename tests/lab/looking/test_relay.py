"""Carrying connections from one address to another."""

from __future__ import annotations

import asyncio
import contextlib

from lab.looking import relay
from tests.conftest import run


async def _shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each line in capitals; ends with the other side."""
    with contextlib.closing(writer):
        while line := await reader.readline():
            writer.write(line.upper())


def test_what_is_sent_goes_in_and_what_is_answered_comes_out() -> None:
    async def body() -> None:
        server = await asyncio.start_server(_shout, relay.HOST, 0)
        port = server.sockets[0].getsockname()[1]
        listening = relay.listen(0)
        at = listening.getsockname()
        async with server, relay.carrying(listening, relay.HOST, port):
            reader, writer = await asyncio.open_connection(*at)
            for _ in range(3):
                writer.write(b"hello\n")
                assert await reader.readline() == b"HELLO\n"
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()

    run(body())


def test_where_nothing_listens_inside_the_connection_is_closed() -> None:
    async def body() -> None:
        nobody = relay.listen(0)
        port = nobody.getsockname()[1]
        nobody.close()
        listening = relay.listen(0)
        at = listening.getsockname()
        async with relay.carrying(listening, relay.HOST, port):
            reader, writer = await asyncio.open_connection(*at)
            assert await reader.read() == b""
            writer.close()

    run(body())


def test_the_end_of_the_lab_ends_what_is_open() -> None:
    async def body() -> None:
        server = await asyncio.start_server(_shout, relay.HOST, 0)
        listening = relay.listen(0)
        at = listening.getsockname()
        async with server:
            async with relay.carrying(listening, relay.HOST, server.sockets[0].getsockname()[1]):
                reader, writer = await asyncio.open_connection(*at)
                writer.write(b"hello\n")
                assert await reader.readline() == b"HELLO\n"
            assert await reader.read() == b""
            writer.close()

    run(body())


def test_a_port_that_somebody_has_is_no_reason_to_fail() -> None:
    first = relay.listen(0)
    port = first.getsockname()[1]
    second = relay.listen(port)
    try:
        assert second.getsockname()[1] not in (0, port)
    finally:
        first.close()
        second.close()
