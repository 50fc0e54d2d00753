"""The stream as a controller sees it, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest

from agent import stream
from agent.proto.telemetry_pb2 import Frame, WatchRequest
from agent.proto.telemetry_pb2_grpc import TelemetryStub
from agent.view import View
from tests.agent.rows import S, row, rows, view_of
from tests.conftest import run


@asynccontextmanager
async def serving(view: View) -> AsyncIterator[tuple[stream.Telemetry, TelemetryStub]]:
    telemetry = stream.Telemetry(view, lambda: 3 * S)
    server, port = stream.make_server(telemetry, "127.0.0.1", 0)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield telemetry, TelemetryStub(channel)
    finally:
        telemetry.close()
        await server.stop(1)


async def read(call: grpc.aio.UnaryStreamCall) -> Frame:
    frame = await call.read()
    assert frame is not grpc.aio.EOF
    return frame


def test_first_everything_then_what_changed_then_everything_at_each_beat() -> None:
    async def body() -> None:
        view = view_of("a", "b")
        view.sample(rows(row(generation=1), row(generation=1)), S)
        async with serving(view) as (telemetry, stub):
            call = stub.Watch(WatchRequest(subscriber="t"))
            first = await read(call)
            view.sample(rows(row(generation=1, started=1, in_flight=1), row(generation=1)), 2 * S)
            telemetry.ring()
            second = await read(call)
            telemetry.beat()
            third = await read(call)
            assert [(f.sequence, f.full, len(f.endpoints)) for f in (first, second, third)] == [
                (1, True, 2), (2, False, 1), (3, True, 2),
            ]  # fmt: skip
            assert (first.node, second.endpoints[0].kernel.age_us) == ("n1", 1_000_000)

    run(body())


def test_a_ring_without_news_sends_nothing() -> None:
    async def body() -> None:
        async with serving(view_of("a")) as (telemetry, stub):
            call = stub.Watch(WatchRequest())
            await read(call)
            telemetry.ring()
            telemetry.beat()
            assert (await read(call)).sequence == 2

    run(body())


def test_a_pulse_tells_that_nothing_changed_and_how_old_that_is() -> None:
    async def body() -> None:
        view = view_of("a")
        async with serving(view) as (telemetry, stub):
            call = stub.Watch(WatchRequest())
            await read(call)
            view.sample(rows(row(generation=1)), 2 * S)
            telemetry.ring()
            await read(call)
            telemetry.pulse()
            frame = await read(call)
            assert (frame.full, list(frame.endpoints), frame.age_us) == (False, [], 1_000_000)

    run(body())


def test_watchers_are_told_of_what_changed() -> None:
    async def body() -> None:
        view = view_of("a")
        async with serving(view) as (telemetry, stub):
            call = stub.Watch(WatchRequest())
            await read(call)
            view.sample(rows(row(generation=1, in_flight=2)), S)
            telemetry.tell()
            assert (await read(call)).endpoints[0].kernel.in_flight == 2
            view.confirm(2 * S)
            telemetry.tell()
            telemetry.beat()
            assert ((await read(call)).sequence, telemetry.rings) == (3, 2)

    run(body())


def test_a_watcher_that_reads_slowly_gets_the_newest_state() -> None:
    async def body() -> None:
        view = view_of("a")
        async with serving(view) as (telemetry, stub):
            call = stub.Watch(WatchRequest())
            await read(call)
            for number in range(1, 1001):
                view.sample(rows(row(generation=1, started=number)), S)
                telemetry.ring()
            frames = 0
            while (await read(call)).endpoints[0].kernel.started < 1000:
                frames += 1
            assert frames < 1000

    run(body())


def test_the_stream_ends_in_order_when_the_agent_stops() -> None:
    async def body() -> None:
        async with serving(view_of("a")) as (telemetry, stub):
            call = stub.Watch(WatchRequest())
            await read(call)
            assert telemetry.watchers == 1
            telemetry.close()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK

    run(body())


def test_a_port_that_is_taken_is_said() -> None:
    async def body() -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as taken:
            port = taken.sockets[0].getsockname()[1]
            with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
                stream.make_server(stream.Telemetry(view_of("a")), "127.0.0.1", port)

    run(body())
