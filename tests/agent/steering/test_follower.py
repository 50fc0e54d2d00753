"""The follower of controllers over real gRPC: every address, frames as values, faults said once, ends survived."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from agent.identity import keeper, tls
from agent.identity.trust import Trust
from agent.proto.weights_pb2 import EndpointWeight, EndpointWeights, WeightsRequest
from agent.proto.weights_pb2_grpc import WeightsServicer, add_WeightsServicer_to_server
from agent.steering.follower import Follower
from agent.steering.weighing import Frame
from tests.conftest import run


class Says(WeightsServicer):
    """Sends its frames, then waits, or ends where it is to."""

    def __init__(self, frames: Sequence[EndpointWeights], ends: bool = False) -> None:
        self.frames = frames
        self.ends = ends
        self.asked: list[WeightsRequest] = []

    async def Watch(self, request: WeightsRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[EndpointWeights]:
        self.asked.append(request)
        for frame in self.frames:
            yield frame
        while not self.ends:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(servicer: Says, files: tls.Files | None = None) -> AsyncIterator[int]:
    server = grpc.aio.server()
    add_WeightsServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    if files is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(files))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def frame(weight: float, pool: str = "llm") -> EndpointWeights:
    endpoint = EndpointWeight(address="10.0.0.1", port=8000, weight=weight)
    return EndpointWeights(namespace="ns", pool=pool, endpoints=[endpoint])


def weights(heard: list[Frame]) -> list[float]:
    return [one.weights["10.0.0.1", 8000].weight for one in heard]


async def until(task: asyncio.Task[None], condition) -> None:
    while not condition():
        assert not task.done(), task.exception()
        await asyncio.sleep(0.01)


@asynccontextmanager
async def following(*origins: tuple[str, int], files: tls.Files | None = None):
    heard: list[Frame] = []
    follower = Follower(origins, Trust(files, plain=False), "node-a")
    task = asyncio.create_task(follower.run(heard.append))
    try:
        yield follower, heard, task
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_every_controller_is_heard_and_a_frame_that_is_wrong_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        first, second = Says([frame(1.0), frame(-1.0), frame(-1.0), frame(2.0)]), Says([frame(3.0)])
        async with serving(first) as one, serving(second) as other:
            async with following(("127.0.0.1", one), ("localhost", other)) as (follower, heard, task):
                await until(task, lambda: sorted(weights(heard)) == [1.0, 2.0, 3.0])
                assert follower.connected == 2
                assert [request.node for request in first.asked] == ["node-a"]
            assert follower.connected == 0

    with caplog.at_level(logging.WARNING):
        run(body(), 60)
    said = [record.getMessage() for record in caplog.records if "has weight -1" in record.getMessage()]
    assert len(said) == 1
    assert "for pool ns/llm" in said[0]
    assert "the last good ones stay" in said[0]


def test_a_stream_that_ends_is_opened_again() -> None:
    async def body() -> None:
        says = Says([frame(1.0)], ends=True)
        async with serving(says) as port, following(("127.0.0.1", port)) as (_, heard, task):
            await until(task, lambda: len(heard) >= 3)

    run(body(), 60)


def test_by_tls_only_a_controllers_word_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keeper.write_folders(tmp_path, datetime.datetime.now(datetime.UTC))
    agent, controller = tls.Files(tmp_path / "agent"), tls.Files(tmp_path / "controller")

    async def body() -> None:
        async with (
            serving(Says([frame(1.0)]), controller) as right,
            serving(Says([frame(2.0)]), agent) as wrong,
            following(("127.0.0.1", right), ("127.0.0.1", wrong), files=agent) as (_, heard, task),
        ):
            await until(task, lambda: weights(heard) == [1.0] and "UNAVAILABLE" in caplog.text)
            assert weights(heard) == [1.0]

    with caplog.at_level(logging.WARNING):
        run(body(), 60)


def test_plain_text_beyond_loopback_and_names_that_are_none_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        async with following(("192.0.2.1", 9004)) as (_, _, task):
            await until(task, lambda: "192.0.2.1" in caplog.text)
        async with following(("nowhere.invalid", 9004)) as (_, _, task):
            await until(task, lambda: "nowhere.invalid" in caplog.text)

    with caplog.at_level(logging.WARNING):
        run(body(), 60)
    assert "--tls-path DIR or --plain-text is needed" in caplog.text
