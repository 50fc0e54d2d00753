"""Weights over real gRPC: what watchers get, who gets nothing, and how it ends."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.identity import keeper, tls
from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights, WeightsRequest
from agent.proto.weights_pb2_grpc import WeightsStub
from controller.weights.service import Service, make_server
from tests.conftest import run

NOW = datetime.datetime.now(datetime.UTC)
# controllers are found by a Service's name or by addresses; the certificate says their role
OPTIONS = (("grpc.ssl_target_name_override", tls.CONTROLLER),)


def frame(weight: float) -> EndpointWeights:
    return EndpointWeights(pool="p", endpoints=[EndpointWeight(address="10.0.0.1", port=8000, weight=weight)])


@asynccontextmanager
async def serving(service: Service, folder: Path | None = None) -> AsyncIterator[int]:
    server, port = make_server(service, "127.0.0.1", 0, tls.server_credentials(tls.Files(folder)) if folder else None)
    await server.start()
    try:
        yield port
    finally:
        service.close()
        await server.stop(1)


@asynccontextmanager
async def watching(port: int, identity: tls.Identity | None = None) -> AsyncIterator[Any]:
    address = f"127.0.0.1:{port}"
    channel = (
        grpc.aio.secure_channel(address, tls.channel_credentials(identity), options=OPTIONS)
        if identity
        else grpc.aio.insecure_channel(address)
    )
    async with channel:
        yield WeightsStub(channel).Watch(WeightsRequest(node="n1", subscriber="test"), timeout=20)


def test_who_comes_gets_the_last_frame_and_then_each_newer_one() -> None:
    async def body() -> None:
        at_s = [10.0]
        service = Service(clock_s=lambda: at_s[0])
        async with serving(service) as port, watching(port) as first:
            service.publish(frame(1.0), 10.0)
            told = await first.read()
            assert (told.sequence, told.age_us, told.endpoints[0].weight) == (1, 0, 1.0)
            at_s[0] = 10.5
            async with watching(port) as second:
                late = await second.read()
                assert (late.sequence, late.age_us) == (1, 500_000)
                assert service.watchers == 2
                service.publish(frame(2.0), 10.5)
                told, late = await first.read(), await second.read()
                assert [(one.sequence, one.endpoints[0].weight) for one in (told, late)] == [(2, 2.0), (2, 2.0)]
            while service.watchers != 1:
                await asyncio.sleep(0.01)
            assert service.frames == 4

    run(body())


def test_a_frame_that_another_replaced_is_not_sent() -> None:
    async def body() -> None:
        service = Service()
        for weight in (1.0, 2.0, 3.0):
            service.publish(frame(weight), 0.0)
        async with serving(service) as port, watching(port) as stream:
            told = await stream.read()
            assert (told.sequence, told.endpoints[0].weight) == (1, 3.0)

    run(body())


def test_at_the_end_every_stream_ends_in_order() -> None:
    async def body() -> None:
        service = Service()
        service.publish(frame(1.0), 0.0)
        async with serving(service) as port, watching(port) as stream:
            await stream.read()
            service.close()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK

    run(body())


def test_an_agent_gets_the_weights_and_nobody_else(tmp_path: Path) -> None:
    keeper.write_folders(tmp_path, NOW)

    async def refused(port: int, identity: tls.Identity | None) -> grpc.StatusCode:
        async with watching(port, identity) as stream:
            with pytest.raises(grpc.aio.AioRpcError) as fault:
                await stream.read()
            return fault.value.code()

    async def body() -> None:
        service = Service(agents_only=True)
        service.publish(frame(1.0), 0.0)
        other = tmp_path / "other"
        keeper.write_folders(other, NOW)
        ours = tls.read(tmp_path / "agent")
        async with serving(service, tmp_path / "controller") as port:
            async with watching(port, ours) as stream:
                assert (await stream.read()).sequence == 1
            assert await refused(port, None) is grpc.StatusCode.UNAVAILABLE
            assert await refused(port, tls.read(tmp_path / "controller")) is grpc.StatusCode.PERMISSION_DENIED
            stranger = tls.read(other / "agent")
            forged = tls.Identity(ours.ca, stranger.certificate, stranger.key)
            assert await refused(port, forged) is grpc.StatusCode.UNAVAILABLE

    run(body())
